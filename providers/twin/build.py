"""A new world from a world file: its objects, its nodes' databases, and the state in which they have come to rest.

Invariant: the same `WorldSpec` gives the same world, down to every UID but the one by which a cluster is known.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from providers.ports import Create, MergePatch, NotFound, PortError, Ref
from providers.twin import cards, forwarding, kubelet, multus, networkmanager, ovs_view, versions
from providers.twin.forwarding import Forwarding
from providers.twin.host import Host
from providers.twin.launchers import NODE_NAME, VM_NAME, launcher, wanted_cards
from providers.twin.networks import IFACE_ID, KUBEVIRT, NAD_API
from providers.twin.nm_profiles import (
    INTERNAL,
    PATCH,
    SYSTEM,
    BridgeProfile,
    InterfaceProfile,
    PortProfile,
    insert_bridge,
    insert_port,
    to_json,
)
from providers.twin.ovn_controller import ANNOUNCED_AT, MAPPINGS, OvnController
from providers.twin.ovs_view import CALL, DATABASE, INTEGRATION
from providers.twin.spec import BridgeSpec, NodeSpec, PortSpec, VmSpec, WorldError, WorldSpec, derived_mac
from providers.twin.store import Store
from providers.twin.transact import empty_tables
from providers.twin.vm import FINALIZER, machine_status, owner_of, told_by_guest_agent

# The daemons are given this long before `start` to bring everything up.
_SETTLING = 1.0

# A policy that was there long ago has been applied on every node since.
_SETTLING_PER_POLICY = 120.0
_POLICY = "NodeNetworkConfigurationPolicy"
_SPACES = {"kubevirt": "openshift-cnv", "metallb": "metallb-system", "nmstate": "openshift-nmstate"}
_NODE_DAEMONS = ("vswitchd", "ovn-controller", "networkmanager", "nmstate-operator")


def build(spec: WorldSpec, store: Store) -> None:
    """Fill an empty store, inside one call. Raises WorldError for an object that its API would not take."""
    seed = uuid.uuid5(uuid.NAMESPACE_URL, f"ovsplan-twin/{spec.name}/{spec.seed}")
    _put_meta(spec, store, str(seed))
    host = Host(store, wall_clock=False)
    _put_cluster(spec, host)
    _put_operators(spec, host)
    for node in spec.nodes:
        _put_node(spec, node, host)
    for vm in spec.vms:
        _put_vm(spec, vm, host)
    for index, item in enumerate(spec.objects):
        try:
            _put_object(item, host)
        except PortError as error:
            message = f"{item['kind']} {item['metadata']['name']} can't be made: {error}"
            if isinstance(error, NotFound):
                space = item["metadata"].get("namespace")
                message += (
                    f"; list it first: {{apiVersion: v1, kind: Namespace, metadata: {{name: {space}}}}}"
                )
            raise WorldError(message, ("objects", index)) from error
    _come_to_rest(spec, host)
    store.db.execute("DELETE FROM history")
    store.put("meta|oldest", host.api.version)
    store.put("meta|controllers", dict(spec.controllers))


def _put_meta(spec: WorldSpec, store: Store, seed: str) -> None:
    timings, limits = spec.timings, spec.limits
    store.put("meta|name", spec.name)
    store.put("meta|seed", seed)
    policies = sum(item["kind"] == _POLICY for item in spec.objects)
    store.put("meta|clock", spec.start - _SETTLING - policies * _SETTLING_PER_POLICY)
    store.put("meta|version", 1000)
    store.put("meta|apis", dict(spec.apis))
    store.put("meta|minted", 0)
    # What the pods and the daemons would do here is laid down by `build` itself.
    store.put("meta|controllers", {name: name in _NODE_DAEMONS for name in spec.controllers})
    store.put(
        "meta|settings",
        {
            "vswitchd": timings["vswitchd"],
            "ovn_controller": timings["ovnController"],
            "migration": timings["migration"],
            "mac_ageing": timings["macAgeing"],
            "per_cluster": limits["migrationsPerCluster"],
            "per_node": limits["outboundPerNode"],
            "ovn": spec.ovn,
            "vm_start": timings["start"],
            "vm_stop": timings["stop"],
            "multus_isolation": spec.multus_isolation,
            "reboot": timings["reboot"],
            "node_ready": timings["nodeReady"],
            "pods_ready": timings["podsReady"],
            "probes": dict(spec.probes),
        },
    )


def _create(
    host: Host, api: str, kind: str, name: str, namespace: str | None, body: Mapping[str, Any]
) -> Any:
    return host.cluster.write(Create(Ref(api, kind, name, namespace), body))


def _put_cluster(spec: WorldSpec, host: Host) -> None:
    spaces = (
        {"default", "kube-system", *_operator_spaces(spec)}
        | {n.namespace for n in spec.networks}
        | {vm.namespace for vm in spec.vms}
    )
    for space in sorted(spaces):
        body = {"metadata": {"labels": {"kubernetes.io/metadata.name": space}}, "status": {"phase": "Active"}}
        _create(host, "v1", "Namespace", space, None, body)
    for network in spec.networks:
        config = {
            "cniVersion": "0.4.0",
            "name": network.name,
            "type": "ovn-k8s-cni-overlay",
            "topology": "localnet",
            "netAttachDefName": f"{network.namespace}/{network.name}",
            "physicalNetworkName": network.localnet,
            "vlanID": network.vlan,
            "mtu": network.mtu,
        }
        body = {"spec": {"config": json.dumps(config, indent=2)}}
        _create(host, NAD_API, "NetworkAttachmentDefinition", network.name, network.namespace, body)
    gateways = {str(network.vlan): network.gateway for network in spec.networks if network.gateway}
    if gateways:
        host.keep(forwarding.GATEWAYS, "all", gateways)


def _operator_spaces(spec: WorldSpec) -> list[str]:
    return [space for operator, space in _SPACES.items() if spec.apis[operator]]


def _put_operators(spec: WorldSpec, host: Host) -> None:
    """What the operators' own objects say."""
    network = {"spec": {"networkType": "OVNKubernetes"}, "status": {"networkType": "OVNKubernetes"}}
    _create(host, "config.openshift.io/v1", "Network", "cluster", None, network)
    if spec.apis["kubevirt"]:
        limits = {
            "parallelMigrationsPerCluster": spec.limits["migrationsPerCluster"],
            "parallelOutboundMigrationsPerNode": spec.limits["outboundPerNode"],
        }
        live = spec.live_updates
        configuration = {
            "evictionStrategy": "LiveMigrate",
            "migrations": limits,
            "vmRolloutStrategy": live.strategy,
        }
        updates = {"workloadUpdateMethods": list(live.methods)}
        body = {"spec": {"configuration": configuration, "workloadUpdateStrategy": updates}}
        _create(host, KUBEVIRT, "KubeVirt", "kubevirt-kubevirt-hyperconverged", _SPACES["kubevirt"], body)
    if spec.apis["nmstate"]:
        _create(host, "nmstate.io/v1", "NMState", "nmstate", None, {"spec": {}})


def _put_object(item: Mapping[str, Any], host: Host) -> None:
    metadata = item["metadata"]
    name, namespace = metadata["name"], metadata.get("namespace")
    _create(host, item["apiVersion"], item["kind"], name, namespace, item)
    if item["kind"] == "Pod" and "status" in item:
        # Nobody can create a pod that runs; one that has been there for long does.
        ref = Ref("v1", "Pod", name, namespace)
        host.cluster.write(MergePatch(ref, {"status": item["status"]}, subresource="status"))


def _put_node(spec: WorldSpec, node: NodeSpec, host: Host) -> None:
    ready = {"type": "Ready", "status": "True" if node.ready else "False", "reason": "KubeletReady"}
    if not node.ready:
        ready["reason"] = "KubeletNotReady"
    body = {
        "metadata": {"labels": dict(node.labels)},
        "spec": {"unschedulable": True} if node.cordoned else {},
        "status": {
            "conditions": [ready],
            "allocatable": {"memory": node.memory},
            "nodeInfo": {
                "bootID": str(uuid.uuid5(uuid.NAMESPACE_URL, f"boot/{spec.name}/{spec.seed}/{node.name}"))
            },
        },
    }
    _create(host, "v1", "Node", node.name, None, body)
    store = host.store
    store.put(f"nics|{node.name}", dict(node.nics))
    if not node.reachable:
        store.put(f"unreachable|{node.name}", True)
    if node.trunks:
        host.store.put(f"trunks|{node.name}", {nic: list(vlans) for nic, vlans in node.trunks.items()})
    if node.cards:
        host.keep(cards.MEMORY, node.name, {name: dict(card) for name, card in node.cards.items()})
    host.keep(versions.OVN, node.name, {"ovn": node.ovn})
    if node.nmstate is not None:
        host.keep(versions.NMSTATE, node.name, {"nmstate": node.nmstate})
    made = {bridge.name: _profile(spec, node, bridge) for bridge in node.bridges if bridge.managed}
    if made:
        host.keep(networkmanager.NAME, node.name, {"bridges": to_json(made)})
    root = str(uuid.uuid5(uuid.UUID(store.get("meta|seed")), f"root {node.name}"))
    store.put(f"ovs|{node.name}", empty_tables(root))
    results = host.ovsdb(node.name).transact(DATABASE, _node_operations(spec, node), timeout=CALL)
    for result in results:
        if result and "error" in result:
            raise RuntimeError(f"the database of {node.name} refused its first rows: {result['details']}")


def _node_operations(spec: WorldSpec, node: NodeSpec) -> list[dict[str, Any]]:
    started = str(int((spec.start - node.ovn_started) * 1000))
    integration = BridgeSpec(INTEGRATION, (), {"ovn-startup-ts": started})
    operations = []
    for bridge in (integration, *node.bridges):
        if bridge.managed:
            operations += _managed_operations(_profile(spec, node, bridge), node.nics)
        else:
            operations += _bridge_operations(bridge)
    ids = {"hostname": node.name, "system-id": node.name, "ovn-bridge": INTEGRATION}
    if node.mappings:
        ids[MAPPINGS] = node.mappings
    row = {
        "external_ids": _map(ids),
        "ovs_version": versions.ovs(node.ovn),
        "db_version": versions.ovs_schema(node.ovn),
        "next_cfg": 1,
    }
    operations.append({"op": "update", "table": DATABASE, "where": [], "row": row})
    return operations


def _profile(spec: WorldSpec, node: NodeSpec, bridge: BridgeSpec) -> BridgeProfile:
    """NetworkManager's profile of a bridge that it made. Without ports, it has one of its own name."""

    def identity(*names: str) -> str:
        path = "/".join(("profile", spec.name, str(spec.seed), node.name, *names))
        return str(uuid.uuid5(uuid.NAMESPACE_URL, path))

    def interface(port: PortSpec, name: str) -> InterfaceProfile:
        kind = PATCH if port.peer else INTERNAL if port.internal or name not in node.nics else SYSTEM
        return InterfaceProfile(name, identity("interface", name), kind, port.peer)

    ports = tuple(
        PortProfile(
            port.name,
            identity("port", port.name),
            tuple(interface(port, name) for name in sorted(port.bond or (port.name,))),
            _managed_columns(port),
        )
        for port in bridge.ports or (PortSpec(bridge.name, internal=True),)
    )
    ids = {"external_ids": dict(bridge.external_ids)} if bridge.external_ids else {}
    return BridgeProfile(
        bridge.name, identity("bridge", bridge.name), ports, {"datapath_type": "netdev", **ids}
    )


def _managed_columns(port: PortSpec) -> dict[str, Any]:
    """NetworkManager says what it means: the VLAN mode beside the tag, and no LACP on a bond that has none."""
    columns = _port_columns(port)
    if port.tag is not None:
        columns["vlan_mode"] = "access"
    if port.mode:
        columns["lacp"] = "active" if port.mode == "balance-tcp" else "off"
    return columns


def _managed_operations(profile: BridgeProfile, nics: Mapping[str, str]) -> list[dict[str, Any]]:
    operations = insert_bridge(profile)
    for port in profile.ports:
        operations += insert_port(profile.name, port, nics)
    return operations


def _bridge_operations(bridge: BridgeSpec) -> list[dict[str, Any]]:
    name = f"b_{ovs_view.symbol(bridge.name)}"
    row: dict[str, Any] = {
        "name": bridge.name,
        "datapath_type": "netdev",
        "external_ids": _map(bridge.external_ids),
    }
    if bridge.name == INTEGRATION:
        row["fail_mode"] = "secure"
    link = [["bridges", "insert", ["named-uuid", name]]]
    operations: list[dict[str, Any]] = [
        {"op": "insert", "table": "Bridge", "uuid-name": name, "row": row},
        {"op": "mutate", "table": DATABASE, "where": [], "mutations": link},
    ]
    for port in (PortSpec(bridge.name, internal=True), *bridge.ports):
        # NetworkManager writes the type out, ovs-vsctl leaves it empty; both mean a card of the system.
        card = "system" if "NM.connection.uuid" in bridge.external_ids else ""
        operations += ovs_view.insert_port(
            bridge.name, port.name, _interfaces(port, card), _port_columns(port)
        )
    return operations


def _interfaces(port: PortSpec, card: str) -> list[dict[str, Any]]:
    if port.peer:
        return [{"name": port.name, "type": "patch", "options": _map({"peer": port.peer})}]
    kind = "internal" if port.internal else card
    return [{"name": name, "type": kind} for name in port.bond or (port.name,)]


def _port_columns(port: PortSpec) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    if port.tag is not None:
        columns["tag"] = port.tag
    if port.mode:
        columns["bond_mode"] = port.mode
    return columns


def _map(pairs: Mapping[str, str]) -> list[Any]:
    return ["map", [[key, value] for key, value in pairs.items()]]


def _put_vm(spec: WorldSpec, vm: VmSpec, host: Host) -> None:
    if vm.silent:
        host.store.put(f"silent|{vm.key}", True)
    if vm.guest_agent is not None:
        host.store.put(f"guest-agent|{vm.key}", dict(vm.guest_agent))
    host.keep("blocked", vm.key, _blocked(vm))
    macs = {
        name: mac or derived_mac(spec.seed, spec.name, vm.key, name) for name, (_, mac) in vm.attached.items()
    }
    machine = _put_machine(vm, macs, host) if vm.owned else None
    if vm.node:
        _put_running(spec, vm, macs, machine, host)
    if machine is not None:
        ref = Ref(KUBEVIRT, "VirtualMachine", vm.name, vm.namespace)
        vmi = host.cluster.get(Ref(KUBEVIRT, "VirtualMachineInstance", vm.name, vm.namespace))
        status = machine_status(host.cluster.get(ref) or machine, vmi)
        host.cluster.write(MergePatch(ref, {"status": status}, subresource="status"))


def _put_machine(vm: VmSpec, macs: Mapping[str, str], host: Host) -> Any:
    template = {"metadata": {"labels": {VM_NAME: vm.name}}, "spec": _template(vm, macs)}
    machine = {"spec": {"runStrategy": vm.strategy, "template": template}}
    return _create(host, KUBEVIRT, "VirtualMachine", vm.name, vm.namespace, machine)


def _put_running(spec: WorldSpec, vm: VmSpec, macs: Mapping[str, str], machine: Any, host: Host) -> None:
    vmi = {
        "metadata": {
            "labels": {NODE_NAME: vm.node, VM_NAME: vm.name},
            "finalizers": [FINALIZER],
            **({"ownerReferences": [owner_of(machine)]} if machine is not None else {}),
        },
        "spec": _template(vm, macs),
        "status": _vmi_status(spec, vm, macs),
    }
    made = _create(host, KUBEVIRT, "VirtualMachineInstance", vm.name, vm.namespace, vmi)
    pod = launcher(made, "first")
    pod["spec"]["nodeName"] = vm.node
    cards = wanted_cards(made)
    pod["metadata"]["annotations"][multus.MADE] = multus.saying(cards)
    ref = Ref("v1", "Pod", pod["metadata"]["name"], vm.namespace)
    host.cluster.write(Create(ref, pod))
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]
    status = {"phase": "Running", "conditions": conditions}
    running = host.cluster.write(MergePatch(ref, {"status": status}, subresource="status"))
    active = {"status": {"activePods": {running["metadata"]["uid"]: vm.node}}}
    host.cluster.write(MergePatch(Ref(KUBEVIRT, "VirtualMachineInstance", vm.name, vm.namespace), active))
    kubelet.plug(host, running, cards)


def _blocked(vm: VmSpec) -> dict[str, str] | None:
    """The condition of a guest that can't be migrated."""
    if vm.blocked is None:
        return None
    reason, message = vm.blocked
    return {"type": "LiveMigratable", "status": "False", "reason": reason, "message": message}


def _template(vm: VmSpec, macs: Mapping[str, str]) -> dict[str, Any]:
    interfaces: list[dict[str, Any]] = [{"name": "default", "masquerade": {}}]
    networks: list[dict[str, Any]] = [{"name": "default", "pod": {}}]
    for name, (nad, _) in vm.attached.items():
        address = {"macAddress": macs[name]} if name in macs else {}
        interfaces.append({"name": name, "bridge": {}, **address})
        networks.append({"name": name, "multus": {"networkName": nad}})
    devices = {"interfaces": interfaces}
    return {
        "domain": {"memory": {"guest": vm.memory}, "devices": devices},
        "networks": networks,
        **({"evictionStrategy": vm.eviction} if vm.eviction else {}),
    }


def _vmi_status(spec: WorldSpec, vm: VmSpec, macs: Mapping[str, str]) -> dict[str, Any]:
    live = _blocked(vm) or {"type": "LiveMigratable", "status": "True"}
    said = dict(told_by_guest_agent(vm.guest_agent))
    everything = {"default": derived_mac(spec.seed, spec.name, vm.key, "pod"), **macs}
    return {
        "phase": "Running",
        "nodeName": vm.node,
        "interfaces": [
            {
                "name": name,
                "mac": mac,
                "infoSource": "domain, multus-status" if name in vm.attached else "domain",
            }
            for name, mac in everything.items()
        ],
        "conditions": [{"type": "Ready", "status": "True"}, live, *said.pop("conditions", ())],
        "migrationMethod": "LiveMigration",
        **said,
    }


def _come_to_rest(spec: WorldSpec, host: Host) -> None:
    """Let the nodes' daemons do their work, as if it had been done long ago."""
    name = OvnController.name
    for node in spec.nodes:
        started = spec.start - node.ovn_started
        view = ovs_view.read(host.ovsdb(node.name))
        sent = sum(started + after <= spec.start for after in ANNOUNCED_AT)
        ids = [i.external_ids for port in view.bridges[INTEGRATION].ports.values() for i in port.interfaces]
        claims = {found[IFACE_ID]: {"at": started, "sent": sent} for found in ids if IFACE_ID in found}
        host.keep(name, node.name, {"started": started, "claims": claims, "local": {}})
    host.advance(spec.start)
    forwarding = Forwarding()
    for node in spec.nodes:
        # Every VM has been heard not long before `start`, also one that sends nothing by itself.
        forwarding.reconcile(host, node.name)
