"""From pods to ports: guests, their veths, logical ports and br-int ports.

A guest is a namespace whose eth0 is a Linux bridge with the VM's MAC. Every pod of the VM has a veth into it, as
every launcher has a tap, and exactly one of these forwards. Moving the guest is changing which one: its sockets,
addresses and neighbours stay, as a real guest's do.

Invariant: of all logical ports of one MAC at most one is enabled. OVN itself announces the MAC of an enabled
port, and would pull the traffic to where the guest is not; OVN-Kubernetes keeps a migration target's port
disabled likewise.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from providers.ovsdb.client import UnixOvsdb
from providers.ports import Body

from .inventory import Nic, Pod
from .netns import LabError, add_all, await_true, delete_all, inside, ip, links, present
from .spec import Spec, subnet

_FIRST_GUEST, _FIRST_LATER = 11, 200
_BLOCKING, _FORWARDING = 4, 3
_TIMEOUT = 10.0
GATEWAY_PORT = "br-ex_"
_CENTRAL = {"nb": "OVN_Northbound", "sb": "OVN_Southbound"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a lab lives: its folder, and the names derived from it so that two labs never meet."""

    folder: Path

    @classmethod
    def of(cls, folder: Path) -> Place:
        return cls(folder.resolve())

    @property
    def prefix(self) -> str:
        return f"ovsp{hashlib.sha256(str(self.folder).encode()).hexdigest()[:6]}-"

    @property
    def switch(self) -> str:
        return f"{self.prefix}switch"

    def namespace(self, node: str) -> str:
        return f"{self.prefix}node-{node}"

    def guest(self, vm: str) -> str:
        return f"{self.prefix}vm-{vm.replace('/', '.')}"

    def rundir(self, node: str) -> Path:
        return self.folder / "nodes" / node

    @property
    def central(self) -> Path:
        return self.folder / "central"

    @property
    def switch_rundir(self) -> Path:
        return self.folder / "switch"

    @property
    def world(self) -> Path:
        return self.folder / "world"

    @property
    def spec(self) -> Path:
        return self.folder / "world.yaml"

    @property
    def kubeconfig(self) -> Path:
        """Leads to the Kubernetes API, where that is not the twin's."""
        return self.folder / "kubeconfig"


@dataclass
class Wiring:
    """Everything kubelet, CNI and QEMU do to the network of a VM or pod, on the real daemons."""

    place: Place
    spec: Spec
    _databases: dict[str, UnixOvsdb] = field(default_factory=dict)

    def close(self) -> None:
        for database in self._databases.values():
            database.close()

    def transact(self, where: str, operations: Iterable[Body]) -> list[Any]:
        """One transaction on a node's database, or on "nb" or "sb". An operation's error raises LabError."""
        operations = list(operations)
        path, name = self._address(where)
        database = self._databases.setdefault(where, UnixOvsdb(str(path)))
        results = database.transact(name, operations, timeout=_TIMEOUT)
        for result in results:
            if result and "error" in result:
                raise LabError(f"{where}: {result['error']}: {result.get('details', '')}")
        return results

    def rows(self, where: str, table: str, *conditions: list[Any]) -> list[dict[str, Any]]:
        """The rows of a table that meet the conditions."""
        operation = {"op": "select", "table": table, "where": list(conditions)}
        return list(self.transact(where, [operation])[0]["rows"])

    def add_switches(self, nics: Iterable[Nic]) -> None:
        """A logical switch and its localnet port for every network, as OVN-Kubernetes makes it from a NAD."""
        for nic in {nic.network: nic for nic in nics}.values():
            if not self.rows("nb", "Logical_Switch", ["name", "==", nic.switch]):
                self.transact("nb", _localnet_switch(nic))

    def add_gateway(self, node: str, number: int) -> None:
        """The node's own way out through `physnet`, as OVN-Kubernetes makes one per node; no guest uses it."""
        self.transact("nb", _gateway_router(node, number))

    def add_guest(self, pod: Pod) -> None:
        """The VM's namespace, with a NIC per network; a pod's own, which is like any pod's and gets no address.

        A silent VM and its gateways know each other's MACs for good, so that no ARP ever makes it speak.
        """
        guest, silent = self.place.guest(pod.guest), self.spec.silent.get(pod.vm, False)
        if guest in present(guest):
            return
        add_all([guest], ipv6=not pod.vm)
        if not pod.vm:
            return
        for nic in pod.nics:
            address, eth = self.address(pod.vm, nic), nic.guest
            ip(
                guest,
                f"link add name {eth} mtu {self.spec.mtu} address {nic.mac} type bridge mcast_snooping 0",
                f"link set dev {eth} mtu {self.spec.mtu} up",
                f"addr add {address}/24 dev {eth}",
                *([_neighbour(gateway(nic.vlan), gateway_mac(nic.vlan), eth)] if silent else []),
            )
            if silent:
                ip(self.place.switch, _neighbour(address, nic.mac, f"gw{nic.vlan}"))

    def address(self, vm: str, nic: Nic) -> str:
        """The guest's address: from its place in the World file, or its name if it came later."""
        known = sorted(self.spec.silent)
        digest = int(hashlib.sha256(vm.encode()).hexdigest(), 16)
        number = _FIRST_GUEST + known.index(vm) if vm in known else _FIRST_LATER + digest % 50
        return f"{subnet(nic.vlan)}.{number}"

    def plug(self, pod: Pod) -> None:
        """Give the pod its ports: veths, logical ports, ports of br-int; a VM's do not forward yet.

        Returns when ovn-controller has installed their flows. What is there already stays.
        """
        node, guest, mtu = self.place.namespace(pod.node), self.place.guest(pod.guest), self.spec.mtu
        for nic in pod.nics:
            tap, inner, name = pod.tap(nic), _inner(pod, nic), pod.iface_id(nic)
            if not self.rows("nb", "Logical_Switch_Port", ["name", "==", name]):
                self.transact("nb", _logical_port(nic, name, enabled=not pod.vm))
            if self.rows(pod.node, "Port", ["name", "==", tap]):
                continue
            if tap not in links(node):
                ip(node, f"link add name {tap} mtu {mtu} type veth peer name {inner} mtu {mtu} netns {guest}")
            ip(node, f"link set dev {tap} up")
            ip(guest, *(_behind(pod, nic) if pod.vm else _itself(pod, nic)))
            self.transact(pod.node, _integration_port(tap, name, nic.mac, pod.vm))
        await_true(lambda: self._installed(pod), f"OVN installs the ports of {pod.key}", within=20)

    def activate(self, pod: Pod, others: Iterable[Pod]) -> None:
        """Let the guest run behind this pod: its ports forward, those of `others` no more; announce it."""
        others = tuple(others)
        number = self._enable(pod, others)
        ip(
            self.place.guest(pod.vm),
            *(_state(other, nic, _BLOCKING) for other in others for nic in other.nics),
            *(_state(pod, nic, _FORWARDING) for nic in pod.nics),
        )
        # The announcement must find the new port's flows, or it is dropped as from a disabled port.
        await_true(
            lambda: self._caught_up(pod.node, number), f"OVN on {pod.node} enables {pod.key}", within=10
        )
        self.announce(pod)

    def announce(self, pod: Pod) -> None:
        """One RARP per MAC from the guest, which is what QEMU sends when a guest has arrived."""
        for nic in pod.nics:
            send(self.place.guest(pod.vm), nic.guest, rarp(nic.mac))

    def nudge(self, node: str) -> None:
        """Give ovs-vswitchd something to do: until then it may keep the `error` of a port that works again."""
        self.transact(node, [_NEXT_CFG])

    def unplug(self, pod: Pod) -> None:
        """Take the pod's ports away, everywhere. What is gone already is no error."""
        for nic in pod.nics:
            self._unplug(pod.node, pod.tap(nic), pod.iface_id(nic))
        if not pod.vm:
            delete_all([self.place.guest(pod.guest)])

    def clear(self, nodes: Iterable[str], pods: Iterable[Pod]) -> None:
        """Take away the ports of pods that are no more."""
        wanted = {pod.iface_id(nic) for pod in pods for nic in pod.nics}
        for node in nodes:
            for row in self.rows(node, "Interface"):
                name = dict(row["external_ids"][1]).get("iface-id", "")
                if name and name not in wanted:
                    self._unplug(node, row["name"], name)

    def _unplug(self, node: str, tap: str, name: str) -> None:
        self._detach(node, "Bridge", "Port", tap)
        self._detach("nb", "Logical_Switch", "Logical_Switch_Port", name)
        if tap in links(self.place.namespace(node)):
            ip(self.place.namespace(node), f"link del dev {tap}")

    def _address(self, where: str) -> tuple[Path, str]:
        if where in _CENTRAL:
            return self.place.central / f"{where}.sock", _CENTRAL[where]
        return self.place.rundir(where) / "db.sock", "Open_vSwitch"

    def _installed(self, pod: Pod) -> bool:
        ids = [dict(row["external_ids"][1]) for row in self.rows(pod.node, "Interface")]
        done = {each.get("iface-id") for each in ids if "ovn-installed" in each}
        return all(pod.iface_id(nic) in done for nic in pod.nics)

    def _enable(self, pod: Pod, others: Iterable[Pod]) -> int:
        """Swap the enabled logical ports in one transaction; returns what OVN counts up to when it is done."""
        wanted = [(other, False) for other in others] + [(pod, True)]
        results = self.transact(
            "nb",
            [
                *(
                    {
                        "op": "update",
                        "table": "Logical_Switch_Port",
                        "where": [["name", "==", each.iface_id(nic)]],
                        "row": {"enabled": enabled},
                    }
                    for each, enabled in wanted
                    for nic in each.nics
                ),
                {"op": "mutate", "table": "NB_Global", "where": [], "mutations": [["nb_cfg", "+=", 1]]},
                {"op": "select", "table": "NB_Global", "where": [], "columns": ["nb_cfg"]},
            ],
        )
        return int(results[-1]["rows"][0]["nb_cfg"])

    def _caught_up(self, node: str, number: int) -> bool:
        rows = self.rows("sb", "Chassis_Private", ["name", "==", node])
        return bool(rows) and int(rows[0]["nb_cfg"]) >= number

    def _detach(self, where: str, table: str, child: str, name: str) -> None:
        """Drop a named row from the `ports` of whatever holds it; unreferenced, the database forgets it."""
        for row in self.rows(where, child, ["name", "==", name]):
            drop = {"op": "mutate", "table": table, "where": [["ports", "includes", row["_uuid"]]]}
            drop["mutations"] = [["ports", "delete", row["_uuid"]]]
            self.transact(where, [drop, *([_NEXT_CFG] if child == "Port" else [])])


_NEXT_CFG = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}


def gateway(vlan: int) -> str:
    """The gateway's address on a VLAN."""
    return f"{subnet(vlan)}.1"


def gateway_mac(vlan: int) -> str:
    return f"0a:00:00:00:{vlan >> 8:02x}:{vlan & 0xFF:02x}"


def rarp(mac: str) -> bytes:
    """A reverse ARP request from `mac` about itself: moves a MAC in every switch, and nobody answers it."""
    raw = bytes.fromhex(mac.replace(":", ""))
    return b"\xff" * 6 + raw + bytes.fromhex("80350001080006040003") + raw + bytes(4) + raw + bytes(4)


def arp_request(mac: str, address: str, wanted: str) -> bytes:
    """Who has `wanted`? Tell `address`."""
    raw = bytes.fromhex(mac.replace(":", ""))
    head = b"\xff" * 6 + raw + bytes.fromhex("08060001080006040001")
    return head + raw + socket.inet_aton(address) + bytes(6) + socket.inet_aton(wanted)


def send(namespace: str, device: str, *frames: bytes) -> None:
    """Put frames on a device of a namespace, as they are."""
    with inside(namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as raw:
        raw.bind((device, 0))
        for frame in frames:
            raw.send(frame)


def _neighbour(address: str, mac: str, device: str) -> str:
    return f"neigh replace {address} lladdr {mac} dev {device} nud permanent"


def _inner(pod: Pod, nic: Nic) -> str:
    """The guest's end of the pod's veth."""
    return "q" + pod.tap(nic).removeprefix("tap")


def _behind(pod: Pod, nic: Nic) -> list[str]:
    """QEMU's side: the guest's NIC is a bridge, of which the pod's veth is a port."""
    inner = _inner(pod, nic)
    return [
        f"link set dev {inner} up",
        f"link set dev {inner} master {nic.guest}",
        _state(pod, nic, _BLOCKING),
    ]


def _itself(pod: Pod, nic: Nic) -> list[str]:
    """A pod's own NIC, with the CNI's address."""
    inner = _inner(pod, nic)
    return [f"link set dev {inner} name {nic.guest} address {nic.mac}", f"link set dev {nic.guest} up"]


def _state(pod: Pod, nic: Nic, state: int) -> str:
    # Without learning, the guest's bridge holds no gateway MAC on a port that has stopped forwarding.
    return f"link set dev {_inner(pod, nic)} type bridge_slave state {state} learning off"


def _localnet_switch(nic: Nic) -> list[Body]:
    port = {
        "name": f"{nic.prefix}ovn_localnet_port",
        "type": "localnet",
        "addresses": "unknown",
        "options": ["map", [["network_name", nic.localnet]]],
        "tag_request": nic.vlan,
    }
    switch = {"name": nic.switch, "ports": ["named-uuid", "port"]}
    return [
        {"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "port", "row": port},
        {"op": "insert", "table": "Logical_Switch", "row": switch},
    ]


def _gateway_router(node: str, number: int) -> list[Body]:
    uplink = {
        **{"name": f"{GATEWAY_PORT}{node}", "type": "localnet", "addresses": "unknown"},
        "options": ["map", [["network_name", "physnet"]]],
    }
    inward = {
        **{"name": f"etor-GR_{node}", "type": "router", "addresses": "router"},
        "options": ["map", [["router-port", f"rtoe-GR_{node}"]]],
    }
    outward = {
        **{"name": f"rtoe-GR_{node}", "mac": f"0a:58:c0:a8:64:{number:02x}"},
        "networks": f"192.168.100.{number}/24",
    }
    bound = ["map", [["chassis", node]]]
    ports = ["set", [["named-uuid", "uplink"], ["named-uuid", "inward"]]]
    router = {"name": f"GR_{node}", "options": bound, "ports": ["named-uuid", "outward"]}
    return [
        {"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "uplink", "row": uplink},
        {"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "inward", "row": inward},
        {"op": "insert", "table": "Logical_Switch", "row": {"name": f"ext_{node}", "ports": ports}},
        {"op": "insert", "table": "Logical_Router_Port", "uuid-name": "outward", "row": outward},
        {"op": "insert", "table": "Logical_Router", "row": router},
    ]


def _logical_port(nic: Nic, name: str, *, enabled: bool) -> list[Body]:
    row = {"name": name, "addresses": nic.mac, "enabled": enabled}
    insert = [["ports", "insert", ["named-uuid", "port"]]]
    return [
        {"op": "insert", "table": "Logical_Switch_Port", "uuid-name": "port", "row": row},
        {
            "op": "mutate",
            "table": "Logical_Switch",
            "where": [["name", "==", nic.switch]],
            "mutations": insert,
        },
    ]


def _integration_port(tap: str, name: str, mac: str, vm: str) -> list[Body]:
    marks = [["iface-id", name], ["attached_mac", mac], *([["vm", vm]] if vm else [])]
    ids = ["map", marks]
    insert = [["ports", "insert", ["named-uuid", "port"]]]
    return [
        {
            "op": "insert",
            "table": "Interface",
            "uuid-name": "link",
            "row": {"name": tap, "external_ids": ids},
        },
        {
            "op": "insert",
            "table": "Port",
            "uuid-name": "port",
            "row": {"name": tap, "interfaces": ["named-uuid", "link"]},
        },
        {"op": "mutate", "table": "Bridge", "where": [["name", "==", "br-int"]], "mutations": insert},
        _NEXT_CFG,
    ]
