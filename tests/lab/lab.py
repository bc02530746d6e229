"""The lab: nodes, switch, gateway and guests of a World, on real Open vSwitch and OVN.

Invariant: a lab owns its folder and every namespace whose name begins with the folder's digest, and nothing
else; taking it down needs the folder's name only, and works at any moment of an `up`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from providers.kubernetes import KubernetesCluster, connect
from providers.node.local import LocalShell
from providers.ovsdb.client import UnixOvsdb
from providers.ports import Clock, Cluster, Nodes, NodeShell, Ovsdb, Ref, Unreachable
from providers.twin import init_world, open_world
from providers.twin.spec import CONTROLLERS, BridgeSpec, NodeSpec, PortSpec

from . import daemons, documents, inventory, managed
from .inventory import Nic, Pod
from .kit import Kit, kit_of
from .netns import LabError, add_all, await_true, delete_all, inside, ip, present, run
from .objects import copy_objects
from .ping import Ping
from .snapshot import normalise
from .spec import Spec, access_vlan, has_uplink, is_manager_made, load, subnet
from .wiring import GATEWAY_PORT, Place, Wiring, gateway, gateway_mac, rarp, send

_REPOSITORY = Path(__file__).resolve().parents[2]
_SWITCH = "br-sw"
_KEPT = ("scheduler", "kubevirt", "ovn-kubernetes")
"""The twin's controllers that a lab has a use for; the others it has for real, or begins them itself."""

_STARTING, _ANNOUNCING = 15.0, 16.0
_TEST_ETHERTYPE = 0x88B5
_NODE_BRIDGE = "br-ex"
_MANAGERS = "NM.connection.uuid"
"""The key by which NetworkManager knows a bridge that it made."""


@dataclass
class LabWorld(Nodes):
    """`providers.ports.World`: the twin's API and clock, the real daemons of every node."""

    cluster: Cluster
    clock: Clock
    place: Place
    enter: Callable[[str], tuple[str, ...]]
    _databases: dict[str, UnixOvsdb] = field(default_factory=dict)

    def ovsdb(self, node: str) -> Ovsdb:
        self._known(node)
        return self._databases.setdefault(node, UnixOvsdb(str(self.place.rundir(node) / "db.sock")))

    def shell(self, node: str) -> NodeShell:
        self._known(node)
        return LocalShell(self.enter(node), str(self.place.rundir(node)))

    def close(self) -> None:
        for database in self._databases.values():
            database.close()

    def _known(self, node: str) -> None:
        if not self.place.rundir(node).is_dir():
            raise Unreachable(f"the lab has no node {node}")


class Lab:
    """A running lab. `Lab.up` builds one, `Lab.attach` finds one; as a context manager it goes down."""

    def __init__(self, folder: Path) -> None:
        self.place = Place.of(folder)
        self.spec: Spec = load(self.place.spec)
        self.wiring = Wiring(self.place, self.spec)
        self.twin = open_world(self.place.world, wall_clock=True)
        self._kubernetes = _connected(self.place)
        self.world = LabWorld(self._kubernetes or self.twin.cluster, self.twin.clock, self.place, self.enter)
        self.kit: Kit = kit_of(self.spec.ovn, managed=any(map(self.spec.managed, self.spec.nodes)))

    @classmethod
    def up(cls, document: Mapping[str, Any], folder: Path, kubeconfig: Path | None = None) -> Lab:
        """Build the lab of a World document in `folder`, which must be empty or absent.

        Returns when every guest that has a way out reaches its gateway. With a `kubeconfig`, its Kubernetes API is
        the lab's in place of the twin's, and is given the World's objects but for the nodes.
        """
        place = Place.of(folder)
        _claim(place, document)
        if kubeconfig is not None:
            place.kubeconfig.write_text(kubeconfig.read_text())
        try:
            lab = cls(folder)
            if lab._kubernetes is not None:
                copy_objects(lab.twin.edit().cluster, lab._kubernetes, without=("Node",))
            lab._build()
        except BaseException:
            take_down(folder)
            raise
        return lab

    @classmethod
    def attach(cls, folder: Path) -> Lab:
        """The lab that runs in `folder`."""
        if not Place.of(folder).spec.exists():
            raise LabError(f"no lab in {folder}")
        return cls(folder)

    def down(self) -> None:
        """End everything of this lab's and delete its folder."""
        self.close()
        take_down(self.place.folder)

    def close(self) -> None:
        """Let go of a lab that goes on."""
        self.wiring.close()
        self.world.close()
        self.twin.close()
        if self._kubernetes is not None:
            self._kubernetes.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def cluster(self) -> Cluster:
        """The Kubernetes API as somebody else: a twin's calls meet no faults then, and its log tells them apart."""
        return self._kubernetes or self.twin.edit().cluster

    def enter(self, node: str) -> tuple[str, ...]:
        """The command that leads into the node, where the kit's programs are found first."""
        if self.spec.managed(node):
            return managed.enter(self.place.rundir(node), self.kit)
        plain = ("ip", "netns", "exec", self.place.namespace(node))
        return plain if self.kit.is_system else (*plain, "env", *self.kit.environment)

    @property
    def target(self) -> Path:
        """The target file, by which any client reaches the lab."""
        return self.place.folder / "target.yaml"

    def node_of(self, vm: str) -> str:
        """The node that runs the VM, as the API says."""
        namespace, name = vm.split("/")
        vmi = self.cluster.get(Ref(*inventory.VMI, name, namespace))
        if vmi is None:
            raise LabError(f"no VMI {vm}")
        return str(vmi["status"]["nodeName"])

    def ping(self, vm: str, *, every: float = 0.001) -> Ping:
        """A running probe from the guest's first interface to its gateway."""
        target = gateway(self._nics(vm)[0].vlan)
        return Ping(self.place.guest(vm), target, self.place.folder, every=every)

    def reachable(self, vm: str, *, within: float = 1.0) -> bool:
        """Whether frames from the gateway arrive at every interface of the guest, which need not answer."""
        return all(self._arrives(vm, nic, within, may_speak=True) for nic in self._nics(vm))

    def silent_reachable(self, vm: str, *, within: float = 1.0) -> bool:
        """The same for a guest that must not have sent anything meanwhile; LabError when it did."""
        return all(self._arrives(vm, nic, within, may_speak=False) for nic in self._nics(vm))

    def dump(self, node: str) -> Mapping[str, Any]:
        """The node's OVSDB without what changes by itself: equal twice means nothing was left behind."""
        tables = ("Open_vSwitch", "Bridge", "Port", "Interface")
        return normalise({table: self.wiring.rows(node, table) for table in tables})

    def patch_bridge(self, node: str, network: str) -> str | None:
        """The bridge that holds OVN's patch port of a network (the name in its NAD), or None."""
        name = f"patch-{inventory.prefix_of(network)}ovn_localnet_port-to-br-int"
        port = self.wiring.rows(node, "Port", ["name", "==", name])
        for bridge in (
            self.wiring.rows(node, "Bridge", ["ports", "includes", port[0]["_uuid"]]) if port else ()
        ):
            return str(bridge["name"])
        return None

    def stop_ovn(self, node: str) -> None:
        """Freeze ovn-controller: a busy one, from outside."""
        os.kill(daemons.pid_of(self.place.rundir(node), "ovn-controller"), signal.SIGSTOP)

    def cont_ovn(self, node: str) -> None:
        """Let ovn-controller go on."""
        os.kill(daemons.pid_of(self.place.rundir(node), "ovn-controller"), signal.SIGCONT)

    def kill_kubelet(self) -> None:
        """No port follows a pod from now on, and no migration ends."""
        pidfile = self.place.folder / "kubelet.pid"
        daemons.end(int(pidfile.read_text()), self.place.folder)
        pidfile.unlink()

    def start_kubelet(self) -> None:
        """A kubelet that has to find out by itself what is plugged and what was asked for meanwhile."""
        _start_kubelet(self.place)

    def purge(self) -> None:
        """Forget cached megaflows everywhere: one from an earlier move hides the next for a while."""
        for rundir in (self.place.switch_rundir, *map(self.place.rundir, self.spec.nodes)):
            run("env", f"OVS_RUNDIR={rundir}", "ovs-appctl", "revalidator/purge")

    def speak(self, vm: str) -> None:
        """Have the guest send one frame per interface, so that the switch knows where it is."""
        for nic in self._nics(vm):
            send(self.place.guest(vm), nic.guest, rarp(nic.mac))

    def steady(self) -> None:
        """Wait until every ovn-controller is past its first seconds, in which it deletes no patch port."""
        self._sleep_until(max(self._started(node) for node in self.spec.nodes) + _STARTING)

    def settle(self) -> None:
        """The same, and until OVN has made its own announcements, which go on for 15 s after a reset or a plug."""
        self.steady()
        self._sleep_until(max(self._plugged(node) for node in self.spec.nodes) + _ANNOUNCING)

    def reset(self, node: str) -> None:
        """Put the node's bridges and mappings back to the World's, from any state; its guests speak once.

        A bridge must be gone while its patch port goes: OVN 23.03 cannot move one between two live bridges.
        """
        self.cont_ovn(node)
        wanted = self.spec.nodes[node]
        bridges = self.wiring.rows(node, "Bridge")
        doomed = sorted(
            str(row["name"])
            for row in bridges
            if row["name"] not in ("br-int", "br-ex") and _MANAGERS not in dict(row["external_ids"][1])
        )
        own = ",".join(pair for pair in wanted.mappings.split(",") if pair.endswith(":br-ex"))
        self._vsctl(node, _mappings(own), *(["del-br", bridge] for bridge in doomed))
        await_true(lambda: not self._patches(node), f"OVN takes its patch ports off {node}", within=10)
        if self.spec.managed(node):
            self._reset_managed(node, {str(row["name"]) for row in bridges} - {"br-int", *doomed})
        self._vsctl(node, *_bridges(wanted), _mappings(wanted.mappings))
        self._await_patches(node)
        for vm in self._guests_on(node):
            await_true(partial(self._spoken, node, vm), f"{node} has learned {vm}", within=5, every=0.1)
        (self.place.folder / f"reset-{node}").touch()

    def _reset_managed(self, node: str, there: set[str]) -> None:
        """What NetworkManager made only NetworkManager can take away: else it comes back."""
        strange = there - {bridge.name for bridge in self.spec.nodes[node].bridges}
        document = documents.merged(*map(documents.absent, sorted(strange)), self.document(node))
        managed.apply(self.place.rundir(node), self.kit, document)

    def await_reachable(self, vm: str, *, within: float = 20.0) -> None:
        """Wait until the guest is reachable; LabError when it never is."""
        await_true(lambda: self.reachable(vm, within=0.2), f"{vm} is reachable", within=within)

    def _build(self) -> None:
        place, spec = self.place, self.spec
        add_all([place.switch, *map(place.namespace, spec.nodes)])
        self._lay_cables()
        with ThreadPoolExecutor(4) as pool:
            started = [pool.submit(daemons.start_central, place.central, self.kit)]
            started += [pool.submit(self._start_switch)]
            started += [
                pool.submit(self._start_node, number, node) for number, node in enumerate(spec.nodes, 1)
            ]
            for each in started:
                each.result()
        self._start_guests()
        self.start_kubelet()
        self._await_gateways()
        self.target.write_text(yaml.safe_dump(self._target(), sort_keys=False))

    def _lay_cables(self) -> None:
        """A veth for every NIC that exists; its far end is a trunk port of the switch."""
        switch, mtu = self.place.switch, self.spec.mtu
        for node in self.spec.nodes:
            cables = [(name, _trunk(node, name), state) for of, name, state in self.spec.nics() if of == node]
            ip(
                self.place.namespace(node),
                *(
                    f"link add name {name} mtu {mtu} type veth peer name {far} mtu {mtu} netns {switch}"
                    for name, far, _ in cables
                ),
                *(f"link set dev {name} {state}" for name, _, state in cables),
            )
            ip(switch, *(f"link set dev {far} up" for _, far, _ in cables))

    def _start_switch(self) -> None:
        place = self.place
        daemons.start_ovs(place.switch, place.switch_rundir, self.kit)
        vlans = sorted({*self.spec.vlans, *self.spec.node_vlans()})
        # A cached megaflow hides a moved MAC until it is revalidated; a hardware switch has no such delay.
        options = [
            "set",
            "Open_vSwitch",
            ".",
            "other_config:max-revalidator=100",
            "other_config:max-idle=500",
        ]
        commands = [options, ["add-br", _SWITCH], ["set", "Bridge", _SWITCH, "datapath_type=netdev"]]
        for node, name, _ in self.spec.nics():
            tag = access_vlan(name)
            commands.append(["add-port", _SWITCH, _trunk(node, name), *([f"tag={tag}"] if tag else [])])
        for vlan in vlans:
            commands.append(["add-port", _SWITCH, f"gw{vlan}", f"tag={vlan}"])
            commands.append(
                ["set", "Interface", f"gw{vlan}", "type=internal", f"mtu_request={self.spec.mtu}"]
            )
        _vsctl(place.switch_rundir, commands)
        for vlan in vlans:
            ip(
                place.switch,
                f"link set dev gw{vlan} address {gateway_mac(vlan)}",
                f"link set dev gw{vlan} up",
                f"addr add {gateway(vlan)}/24 dev gw{vlan}",
            )

    def _start_node(self, number: int, node: str) -> None:
        namespace, rundir = self.place.namespace(node), self.place.rundir(node)
        if self.spec.managed(node):
            managed.isolate(namespace, node, rundir, self.kit)
        daemons.start_ovs(namespace, rundir, self.kit)
        settings = {
            "system-id": node,
            "hostname": node,
            "ovn-bridge": "br-int",
            "ovn-remote": f"unix:{self.place.central}/sb.sock",
            "ovn-encap-type": "geneve",
            "ovn-encap-ip": f"127.0.1.{number}",
            "ovn-bridge-datapath-type": "netdev",
        }
        integration = ["set", "Bridge", "br-int", "datapath_type=netdev", "fail_mode=secure"]
        body = self.spec.nodes[node]
        self._vsctl(
            node,
            ["set", "Open_vSwitch", ".", *(f"external_ids:{key}={value}" for key, value in settings.items())],
            *(["add-br", "br-int"], integration, _mappings(body.mappings), *_bridges(body)),
        )
        daemons.start_controller(namespace, rundir, self.kit)
        if self.spec.managed(node):
            managed.start_manager(rundir, self.kit)
            managed.apply(rundir, self.kit, self.document(node))
            # The network operator's mark, which it sets on a bridge of whoever made it.
            self._vsctl(node, *(_ids(bridge) for bridge in body.bridges))

    def document(self, node: str) -> documents.Document:
        """The desired state that makes those of the World's bridges that NetworkManager owns."""
        number = list(self.spec.nodes).index(node) + 11
        own = {_NODE_BRIDGE: f"{subnet(documents.NODE_VLAN)}.{number}"} if self.spec.node_vlans() else {}
        bridges = [bridge for bridge in self.spec.nodes[node].bridges if is_manager_made(bridge)]
        return documents.of_bridges(bridges, own)

    def _start_guests(self) -> None:
        pods = sorted(self._pods().values(), key=lambda pod: pod.key)
        self.wiring.add_switches(nic for pod in pods for nic in pod.nics)
        for number, node in enumerate(self.spec.nodes, 11):
            self.wiring.add_gateway(node, number)
        for pod in pods:
            self.wiring.add_guest(pod)
        for pod in pods:
            self.wiring.plug(pod)
            self.wiring.activate(pod, ())

    def _await_gateways(self) -> None:
        """A guest is connected when its own frames come back; this also tells the switch where it is."""
        for vm, vmi in inventory.instances(self.cluster).items():
            node = self.spec.nodes[vmi["status"]["nodeName"]]
            if all(has_uplink(node, nic.localnet) for nic in self._nics(vm)):
                await_true(partial(self._answered, vm), f"{vm} reaches its gateway", within=20)

    def _answered(self, vm: str) -> bool:
        with self.ping(vm, every=0.02) as probe:
            time.sleep(0.05)
            tally = probe.stop()
        return tally.lost < tally.sent

    def _target(self) -> dict[str, Any]:
        ways = {}
        for node, body in self.spec.nodes.items():
            # A node that can't be reached has a way to it that leads nowhere.
            missing = "" if body.reachable else "-unreachable"
            prefix = [
                word + missing if word == self.place.namespace(node) else word for word in self.enter(node)
            ]
            ways[node] = {"exec": prefix, "rundir": f"{self.place.rundir(node)}{missing}"}
        real = {"context": "admin", "kubeconfig": str(self.place.kubeconfig)}
        cluster = {"twin": self.place.world.name} if self._kubernetes is None else real
        return {"cluster": cluster, "nodes": {"via": "local", "local": ways}}

    def _pods(self) -> dict[str, Pod]:
        return inventory.pods(
            self.cluster, inventory.instances(self.cluster), inventory.networks(self.cluster)
        )

    def _nics(self, vm: str) -> tuple[Nic, ...]:
        return next(pod.nics for pod in self._pods().values() if pod.vm == vm)

    def _guests_on(self, node: str) -> list[str]:
        vmis = inventory.instances(self.cluster)
        return [vm for vm, vmi in vmis.items() if vmi["status"].get("nodeName") == node]

    def _spoken(self, node: str, vm: str) -> bool:
        """Have the guest speak, and see whether a bridge of its node has learned it, where one can."""
        self.speak(vm)
        bridges = {b for nic in self._nics(vm) if (b := self.patch_bridge(node, nic.network))}
        shell = self.world.shell(node)
        tables = "".join(shell.run(["ovs-appctl", "fdb/show", b], timeout=5).out for b in sorted(bridges))
        return all(nic.mac in tables for nic in self._nics(vm))

    def _patches(self, node: str) -> list[str]:
        """Both ends of the guests' networks; the node's own, through br-ex, is never touched."""
        ports = {row["name"]: dict(row["external_ids"][1]) for row in self.wiring.rows(node, "Port")}
        ends = {name: ids["ovn-localnet-port"] for name, ids in ports.items() if "ovn-localnet-port" in ids}
        return [name for name, lsp in ends.items() if not lsp.startswith(GATEWAY_PORT)]

    def _await_patches(self, node: str) -> None:
        """Every network that a guest on the node uses has its patch port, in service at both ends."""
        wanted = {nic.network for vm in self._guests_on(node) for nic in self._nics(vm)}
        for network in wanted:
            await_true(partial(self.patch_bridge, node, network), f"{node} has {network}'s patch", within=10)
        await_true(lambda: self._served(node), f"{node}'s patch ports are in service", within=10, every=0.1)

    def _served(self, node: str) -> bool:
        self.wiring.nudge(node)
        return not self._unserved(node)

    def _unserved(self, node: str) -> list[str]:
        patches = self._patches(node)
        return [
            str(row["name"])
            for row in self.wiring.rows(node, "Interface", ["type", "==", "patch"])
            if row["name"] in patches and (row["error"] != ["set", []] or row["ofport"] in (["set", []], -1))
        ]

    def _started(self, node: str) -> float:
        """When ovn-controller started; seconds since the epoch, like the next one."""
        bridge = self.wiring.rows(node, "Bridge", ["name", "==", "br-int"])[0]
        return int(dict(bridge["external_ids"][1])["ovn-startup-ts"]) / 1000

    def _plugged(self, node: str) -> float:
        """When OVN last had a reason to announce guests."""
        ids = [dict(row["external_ids"][1]) for row in self.wiring.rows(node, "Interface")]
        reset = self.place.folder / f"reset-{node}"
        seconds = [int(each["ovn-installed-ts"]) / 1000 for each in ids if "ovn-installed-ts" in each]
        return max([0.0, *seconds, *([reset.stat().st_mtime] if reset.exists() else [])])

    def _sleep_until(self, due: float) -> None:
        time.sleep(max(0.0, due - time.time()))

    def _arrives(self, vm: str, nic: Nic, within: float, *, may_speak: bool) -> bool:
        """Send frames that nobody answers from the gateway, until one is seen on the guest's NIC."""
        token = os.urandom(16)
        frame = (
            _raw_mac(nic.mac) + _raw_mac(gateway_mac(nic.vlan)) + _TEST_ETHERTYPE.to_bytes(2, "big") + token
        )
        with _listener(self.place.guest(vm), nic.guest) as ears:
            end = time.monotonic() + within
            while time.monotonic() < end:
                send(self.place.switch, f"gw{nic.vlan}", frame)
                arrived, spoke = _heard(ears, token, min(time.monotonic() + 0.02, end))
                if spoke and not may_speak:
                    raise LabError(f"{vm} spoke while it was listened to")
                if arrived:
                    return True
        return False

    def _vsctl(self, node: str, *commands: list[str]) -> None:
        _vsctl(self.place.rundir(node), commands)


def take_down(folder: Path) -> None:
    """End the lab of a folder, however much of it there is, and delete what it made."""
    place = Place.of(folder)
    namespaces = present(place.prefix)
    daemons.end_all(place.folder, namespaces)
    delete_all(present(place.prefix))
    if place.spec.exists():
        shutil.rmtree(place.folder)


def _claim(place: Place, document: Mapping[str, Any]) -> None:
    if present(place.prefix) or (place.folder.is_dir() and any(place.folder.iterdir())):
        raise LabError(f"{place.folder} is not empty, or its lab is up: take it down first")
    place.folder.mkdir(parents=True, exist_ok=True)
    place.spec.write_text(yaml.safe_dump(document, sort_keys=False))
    spec = dict(document["spec"])
    given = {name: state for name, state in spec.get("controllers", {}).items() if name in _KEPT}
    spec["controllers"] = {**dict.fromkeys(set(CONTROLLERS) - set(_KEPT), False), **given}
    init_world({**document, "spec": spec}, place.world)


def _connected(place: Place) -> KubernetesCluster | None:
    if not place.kubeconfig.exists():
        return None
    return connect("admin", str(place.kubeconfig))[0]


def _start_kubelet(place: Place) -> None:
    """As a process without a parent, so that it outlives a command that only builds the lab."""
    argv = (
        *("setsid", "--fork", sys.executable, "-m", "tests.lab.main", "kubelet"),
        *("--dir", str(place.folder)),
    )
    with (place.folder / "kubelet.log").open("wb") as log:
        subprocess.run(argv, cwd=_REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
    await_true((place.folder / "kubelet.pid").exists, f"a kubelet; see {place.folder}/kubelet.log", within=20)


def _trunk(node: str, nic: str) -> str:
    """The switch's end of a NIC's cable; Linux takes 15 characters."""
    return "trunk" + hashlib.sha256(f"{node}/{nic}".encode()).hexdigest()[:8]


def _mappings(value: str) -> list[str]:
    if not value:
        return ["remove", "Open_vSwitch", ".", "external_ids", "ovn-bridge-mappings"]
    return ["set", "Open_vSwitch", ".", f'external_ids:ovn-bridge-mappings="{value}"']


def _bridges(node: NodeSpec) -> Iterator[list[str]]:
    """The commands that bring a node's bridges about, where they are not there yet."""
    for bridge in node.bridges:
        if is_manager_made(bridge):
            continue
        yield ["--may-exist", "add-br", bridge.name]
        yield ["set", "Bridge", bridge.name, "datapath_type=netdev"]
        yield _ids(bridge)
        for port in bridge.ports:
            yield from _port(bridge.name, port)


def _ids(bridge: BridgeSpec) -> list[str]:
    words = [f'external_ids:{key}="{value}"' for key, value in bridge.external_ids.items()]
    return ["set", "Bridge", bridge.name, *words] if words else ["get", "Bridge", bridge.name, "name"]


def _port(bridge: str, port: PortSpec) -> Iterator[list[str]]:
    tag = [] if port.tag is None else [f"tag={port.tag}"]
    if port.bond:
        mode = [f"bond_mode={port.mode}"] if port.mode else []
        yield ["--may-exist", "add-bond", bridge, port.name, *port.bond, *mode, *tag]
    else:
        yield ["--may-exist", "add-port", bridge, port.name, *tag]
    if port.peer:
        yield ["set", "Interface", port.name, "type=patch", f"options:peer={port.peer}"]
    if port.internal:
        yield ["set", "Interface", port.name, "type=internal"]


def _vsctl(rundir: Path, commands: Iterable[list[str]]) -> None:
    words = [word for command in commands for word in ("--", *command)]
    run("ovs-vsctl", f"--db=unix:{rundir}/db.sock", "--timeout=20", *words)


def _raw_mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


@contextmanager
def _listener(namespace: str, device: str) -> Iterator[socket.socket]:
    everything = socket.htons(0x0003)
    with inside(namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, everything)) as ears:
        ears.bind((device, 0x0003))
        yield ears


def _heard(ears: socket.socket, token: bytes, until: float) -> tuple[bool, bool]:
    """Whether a frame with the token came in, and whether any frame went out."""
    spoke = False
    while (left := until - time.monotonic()) > 0:
        ears.settimeout(left)
        try:
            frame, address = ears.recvfrom(2048)
        except TimeoutError:
            break
        if address[2] == socket.PACKET_OUTGOING:
            spoke = True
        elif frame.endswith(token):
            return True, spoke
    return False, spoke
