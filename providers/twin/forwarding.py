"""Frames: the path of each VM to the physical network, and who has learned its address where.

The physical switch keeps, per VLAN and MAC, the node and card it last heard it on; a bridge keeps the port. A talking
VM refreshes both each second, which is kept as one mark (`live`), not as events; a silent one only when something
announces it. Invariant: an entry is `live` exactly while the talking VM's path it names is whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from providers.ports import Body, Ref
from providers.twin import ovs_view, vswitchd
from providers.twin.networks import (
    IFACE_ID,
    KUBEVIRT,
    MAC,
    Network,
    all_networks,
    attachments,
    inner,
    mac_of,
    outer,
    running_on,
    split_vm,
    vm_of,
)
from providers.twin.ovs_view import INTEGRATION, Bridge, Iface, View
from providers.twin.stage import Change, Settings, Stage

PATHS = "forwarding"
SWITCH = "switch"
TABLE = "fdb"
GATEWAYS = "gateways"
"""What `Stage.recall` has the gateways under, by VLAN: hosts on the wire that answer to ARP."""

FLOWS = "flows"
"""What `Stage.recall` has the flows under that somebody added by hand."""

REFRESH = 1.0


@dataclass(frozen=True, slots=True)
class Way:
    """How one interface of a VM reaches the wire: `broken` says why it does not."""

    broken: str = ""
    bridge: str = ""
    port: str = ""
    nics: tuple[str, ...] = ()


class Forwarding:
    name = PATHS

    def keys(self, change: Change, settings: Settings) -> Iterable[tuple[str, float]]:
        if change.kind in ("ovsdb", "nics"):
            yield change.name, 0.0
        if change.kind == "VirtualMachineInstance" and change.body is not None:
            for node in _nodes_of(change.body):
                yield node, 0.0

    def reconcile(self, stage: Stage, key: str) -> float | None:
        _flush_dead_links(stage, key)
        view = ovs_view.read(stage.ovsdb(key))
        before: dict[str, Any] = dict(stage.recall(self.name, key) or {})
        after = _paths(stage, key, view, before)
        now = stage.clock.now()
        for name, path in before.items():
            if path["whole"] and not path["silent"] and after.get(name) != path:
                _stop(stage, key, path, now)
        for name, path in after.items():
            # QEMU announces a guest that it just took over; nothing else speaks for a silent one.
            arrived = path["arrived"]
            if path["whole"] and (arrived or (not path["silent"] and before.get(name) != path)):
                _learn(stage, key, path, now, live=not path["silent"])
            path["arrived"] = False
        stage.keep(self.name, key, after or None)
        return None


def _nodes_of(vmi: Body) -> list[str]:
    status = vmi.get("status", {})
    move = status.get("migrationState") or {}
    found = [move.get("sourceNode"), status.get("nodeName"), move.get("targetNode")]
    return list(dict.fromkeys(node for node in found if node))


def _paths(stage: Stage, node: str, view: View, before: Mapping[str, Any]) -> dict[str, Any]:
    """Every attachment of a guest that runs on this node now."""
    found: dict[str, Any] = {}
    networks = all_networks(stage.cluster)
    bridge = view.bridges.get(INTEGRATION)
    for port in bridge.ports.values() if bridge else ():
        for iface in port.interfaces:
            vm = vm_of(iface.external_ids)
            network = networks.get(_prefix(iface))
            vmi = _vmi(stage, vm) if vm and network else None
            if vm and network and vmi is not None and running_on(vmi) == node:
                found[f"{vm} {network.name} {iface.external_ids.get(MAC, '')}"] = _path(
                    stage, node, view, vm, network, iface, before
                )
    return found


def _path(
    stage: Stage, node: str, view: View, vm: str, network: Network, iface: Iface, before: Mapping[str, Any]
) -> dict[str, Any]:
    way = trace(view, network, stage.nics(node), vswitchd.dead_ports(stage, node))
    mac = iface.external_ids.get(MAC, "")
    return {
        "vlan": network.vlan,
        "mac": mac,
        "silent": stage.is_silent(vm),
        "whole": not way.broken and iface.healthy,
        "bridge": way.bridge,
        "port": way.port,
        "nic": _member(way.nics, mac),
        "arrived": f"{vm} {network.name} {mac}" not in before,
    }


def _prefix(iface: Iface) -> str:
    found = iface.external_ids.get(IFACE_ID, "")
    return found[: found.find("_") + 1]


def _vmi(stage: Stage, vm: str) -> Body | None:
    namespace, name = split_vm(vm)
    return stage.cluster.get(Ref(KUBEVIRT, "VirtualMachineInstance", name, namespace))


def _member(nics: tuple[str, ...], mac: str) -> str:
    """The member of a bond that carries this address."""
    return nics[hashlib.sha256(mac.encode()).digest()[0] % len(nics)] if nics else ""


def trace(view: View, network: Network, nics: Mapping[str, str], dead: Collection[str]) -> Way:
    """Follow a network from br-int to the wire. Frames go by how ports are wired, not by what `error` says of them."""
    here, there = inner(network.lsp), outer(network.lsp)
    bridge = view.bridge_of(there)
    if bridge is None:
        return Way(f"no patch port {there} on any bridge")
    if here not in view.bridges[INTEGRATION].ports:
        return Way(f"no patch port {here} on {INTEGRATION}", bridge.name)
    ends = [view.patch(here), view.patch(there)]
    for end in ends:
        if end is None or end.ofport is None:
            return Way(
                f"patch port {end.name if end else there}: not yet set up by ovs-vswitchd", bridge.name
            )
        peer = view.patch(end.peer)
        if end.type != "patch" or peer is None or peer.peer != end.name or end.name in dead:
            return Way(f"patch port {end.name}: no usable peer {end.peer!r}", bridge.name)
    found = uplink(view, bridge, nics, frozenset())
    if not found:
        return Way(f"bridge {bridge.name} has no uplink with a link", bridge.name)
    port = ends[1]
    return Way("", bridge.name, port.uuid if port else "", found)


def uplink(view: View, bridge: Bridge, nics: Mapping[str, str], seen: frozenset[str]) -> tuple[str, ...]:
    """The cards, link up, through which frames leave a bridge: its own, or those of the bridge it is patched to."""
    beyond = []
    for port in bridge.ports.values():
        cards = tuple(i.name for i in port.interfaces if i.healthy and nics.get(i.name) == "up")
        if cards:
            return cards
        beyond += [i for i in port.interfaces if i.type == "patch" and i.healthy]
    for iface in beyond:
        far = view.bridge_of(iface.peer)
        if far is not None and far.name not in (INTEGRATION, *seen):
            found = uplink(view, far, nics, seen | {bridge.name})
            if found:
                return found
    return ()


def _entry(vlan: int, mac: str) -> str:
    return f"{vlan}/{mac}"


def _learn(stage: Stage, node: str, path: Mapping[str, Any], at: float, *, live: bool) -> None:
    """A frame of the VM goes all the way out: the bridge and the switch learn where it came from."""
    entry = _entry(path["vlan"], path["mac"])
    stage.keep(SWITCH, entry, {"node": node, "nic": path["nic"], "at": at, "live": live})
    table = dict(stage.recall(TABLE, node) or {})
    table[path["bridge"]] = {
        **table.get(path["bridge"], {}),
        entry: {"port": path["port"], "at": at, "live": live},
    }
    stage.keep(TABLE, node, table)


def _stop(stage: Stage, node: str, path: Mapping[str, Any], at: float) -> None:
    """The VM's frames no longer come this way: what was learned of them begins to age."""
    entry = _entry(path["vlan"], path["mac"])
    known = _known(stage, entry)
    if known and known["node"] == node and known["live"]:
        stage.keep(SWITCH, entry, {**known, "at": at, "live": False})
    elif known and known.get("then", {}).get("node") == node:
        stage.keep(SWITCH, entry, {name: known[name] for name in ("node", "nic", "at", "live")})
    table = dict(stage.recall(TABLE, node) or {})
    learned = table.get(path["bridge"], {}).get(entry)
    if learned and learned["live"]:
        table[path["bridge"]] = {**table[path["bridge"]], entry: {**learned, "at": at, "live": False}}
        stage.keep(TABLE, node, table)


def _flush_dead_links(stage: Stage, node: str) -> None:
    """A switch forgets at once what it heard on a port whose link went down."""
    links = dict(stage.nics(node))
    before = stage.recall("links", node)
    stage.keep("links", node, links)
    dead = {nic for nic, link in (before or {}).items() if link == "up" and links.get(nic) != "up"}
    if not dead:
        return
    for entry in list(stage.remembered(SWITCH)):
        known = stage.recall(SWITCH, entry)
        if known["node"] == node and known["nic"] in dead:
            stage.keep(SWITCH, entry, known.get("then"))


def emit(stage: Stage, node: str, bridge: str, vlan: int, mac: str, source: str | None) -> None:
    """A frame put into a bridge leaves by its uplink, and the switch learns.

    The bridge learns too when the frame came in by a port of its own (`source`, an interface's UUID); not from the
    controller.
    """
    view = ovs_view.read(stage.ovsdb(node))
    found = (
        uplink(view, view.bridges[bridge], stage.nics(node), frozenset()) if bridge in view.bridges else ()
    )
    if not found:
        return
    entry, now = _entry(vlan, mac), stage.clock.now()
    if source is not None:
        table = dict(stage.recall(TABLE, node) or {})
        learned = table.get(bridge, {}).get(entry)
        if not (learned and learned["live"] and learned["port"] == source):
            table[bridge] = {**table.get(bridge, {}), entry: {"port": source, "at": now, "live": False}}
            stage.keep(TABLE, node, table)
    known = _known(stage, entry)
    heard = {"node": node, "nic": _member(found, mac), "at": now, "live": False}
    if known is not None and known["live"]:
        if known["node"] == node and known["nic"] in found:
            return
        # The VM itself is heard again within its next second, wherever it is.
        heard |= {"until": now + REFRESH, "then": known}
    stage.keep(SWITCH, entry, heard)


def _known(stage: Stage, entry: str) -> dict[str, Any] | None:
    """What the switch has learned, aged entries included."""
    known: dict[str, Any] | None = stage.recall(SWITCH, entry)
    if known is not None and "then" in known and stage.clock.now() >= known["until"]:
        known = known["then"]
    return known


def announce(stage: Stage, node: str, vm: str) -> None:
    """A RARP for every address of a guest that runs on this node, through its own path."""
    for name, path in (stage.recall(PATHS, node) or {}).items():
        if name.split(" ", 1)[0] == vm and path["whole"]:
            _learn(stage, node, path, stage.clock.now(), live=not path["silent"])


def announce_pod(stage: Stage, node: str, iface_id: str) -> None:
    """The same for the card of a pod that is no VM: it is heard once, and no longer than that."""
    view = ovs_view.read(stage.ovsdb(node))
    network = all_networks(stage.cluster).get(iface_id[: iface_id.find("_") + 1])
    bridge = view.bridges.get(INTEGRATION)
    cards = [i for port in bridge.ports.values() for i in port.interfaces] if bridge else []
    card = next((i for i in cards if i.external_ids.get(IFACE_ID) == iface_id), None)
    if network is None or card is None:
        return
    way = trace(view, network, stage.nics(node), vswitchd.dead_ports(stage, node))
    if not way.broken and card.healthy:
        mac = card.external_ids.get(MAC, "")
        path = {
            "vlan": network.vlan,
            "mac": mac,
            "bridge": way.bridge,
            "port": way.port,
            "nic": _member(way.nics, mac),
        }
        _learn(stage, node, path, stage.clock.now(), live=False)


def ask(stage: Stage, node: str, bridge: str, vlan: int, address: str) -> bool:
    """Whether the gateway of a VLAN, asked by ARP out of a bridge, answers to it."""
    view = ovs_view.read(stage.ovsdb(node))
    found = view.bridges.get(bridge)
    cards = uplink(view, found, stage.nics(node), frozenset()) if found else ()
    if not any(stage.carries(node, nic, vlan) for nic in cards):
        return False
    return bool((stage.recall(GATEWAYS, "all") or {}).get(str(vlan)) == address)


def ping(stage: Stage, node: str, vmi: Body, address: str) -> bool:
    """Whether a gateway answers to the guest, which is heard by its path whether or not it does."""
    view = ovs_view.read(stage.ovsdb(node))
    vm = f"{vmi['metadata']['namespace']}/{vmi['metadata']['name']}"
    gateways = stage.recall(GATEWAYS, "all") or {}
    for interface, network in attachments(stage.cluster, vmi):
        if gateways.get(str(network.vlan)) != address:
            continue
        announce(stage, node, vm)
        if not _dark(stage, node, view, vm, network, mac_of(vmi, interface)):
            return True
    return False


def table_of(stage: Stage, node: str, bridge: Bridge) -> list[tuple[int, int, str, int]]:
    """The bridge's forwarding table: (ofport, VLAN, MAC, age in seconds)."""
    now, ageing = stage.clock.now(), stage.settings.mac_ageing
    ports = {
        i.uuid: i.ofport for port in bridge.ports.values() for i in port.interfaces if i.ofport is not None
    }
    found = []
    for entry, learned in (stage.recall(TABLE, node) or {}).get(bridge.name, {}).items():
        age = 0.0 if learned["live"] else now - learned["at"]
        if age < ageing and learned["port"] in ports:
            vlan, _, mac = entry.partition("/")
            found.append((ports[learned["port"]], int(vlan), mac, int(age)))
    return sorted(found)


def reachable(stage: Stage, vm: str) -> tuple[bool, str]:
    """Whether a frame from each VLAN's gateway reaches the VM now, and why not."""
    vmi = _vmi(stage, vm)
    if vmi is None:
        return False, "no such VM runs"
    node = running_on(vmi)
    if node is None:
        return False, "the VM does not run"
    view = ovs_view.read(stage.ovsdb(node))
    for interface, network in attachments(stage.cluster, vmi):
        why = _dark(stage, node, view, vm, network, mac_of(vmi, interface))
        if why:
            return False, f"{network.name}: {why}"
    return True, ""


def _dark(stage: Stage, node: str, view: View, vm: str, network: Network, mac: str) -> str:
    bridge = view.bridges.get(INTEGRATION)
    ports = bridge.ports.values() if bridge else ()
    plugged = [
        iface
        for port in ports
        for iface in port.interfaces
        if vm_of(iface.external_ids) == vm and _prefix(iface) == network.prefix
    ]
    if not plugged:
        return f"no port of the VM on {INTEGRATION} of {node}"
    way = trace(view, network, stage.nics(node), vswitchd.dead_ports(stage, node))
    if way.broken:
        return f"{node}: {way.broken}"
    nic = _member(way.nics, mac)
    if not stage.carries(node, nic, network.vlan):
        return f"{node}: the switch port of {nic} does not carry VLAN {network.vlan}"
    known = _known(stage, _entry(network.vlan, mac))
    if known is None or (not known["live"] and stage.clock.now() - known["at"] >= stage.settings.mac_ageing):
        return ""
    if known["node"] == node and known["nic"] in way.nics:
        return ""
    seconds = int(stage.clock.now() - known["at"])
    return (
        f"the switch still sends {mac} (VLAN {network.vlan}) to {known['node']} {known['nic']}, "
        f"where it was last heard {seconds} s ago"
    )
