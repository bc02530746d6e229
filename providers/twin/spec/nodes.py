"""Nodes: what runs on each, its cards, and the bridges of its Open vSwitch database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.twin.spec.fields import OBJECT, Default, Field, Path, Shape, WorldError

_NODE = Shape(
    "spec.nodes.NAME",
    {
        "labels": Default.NOTHING,
        "memory": "64Gi",
        "mappings": "",
        "nics": Default.NOTHING,
        "bridges": Default.NOTHING,
        "cordoned": "off",
        "ready": "on",
        "reachable": "on",
        "ovn": Default.INHERITED,
        "ovnStarted": Default.INHERITED,
        "nmstate": Default.INHERITED,
    },
)
_NIC = Shape(
    "spec.nodes.NAME.nics.NAME",
    {"link": "up", "mtu": Default.NOTHING, "most": Default.NOTHING, "vlans": Default.NOTHING},
)
_BRIDGE = Shape(
    "spec.nodes.NAME.bridges.NAME",
    {"ports": Default.NOTHING, "externalIds": Default.NOTHING, "madeBy": "ovs-vsctl"},
)
_PORT = Shape(
    "spec.nodes.NAME.bridges.NAME.ports.NAME",
    {
        "peer": Default.NOTHING,
        "bond": Default.NOTHING,
        "mode": Default.NOTHING,
        "tag": Default.NOTHING,
        "internal": "off",
    },
)
_MODES = ("balance-slb", "active-backup", "balance-tcp")


@dataclass(frozen=True, slots=True)
class PortSpec:
    name: str
    peer: str = ""
    bond: tuple[str, ...] = ()
    mode: str = ""
    tag: int | None = None
    internal: bool = False


@dataclass(frozen=True, slots=True)
class BridgeSpec:
    """A bridge; `managed` when NetworkManager made it."""

    name: str
    ports: tuple[PortSpec, ...]
    external_ids: Mapping[str, str]
    managed: bool = False


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A node. `ovn_started` is in seconds before the world's start; `nmstate` is None where there is none.

    `cards` has what is said of each card's MTU, `trunks` the VLANs that its switch port carries, where not all.
    """

    name: str
    labels: Mapping[str, str]
    memory: str
    mappings: str
    nics: Mapping[str, str]
    bridges: tuple[BridgeSpec, ...]
    cordoned: bool
    ready: bool
    reachable: bool
    ovn: str
    ovn_started: float
    nmstate: str | None = None
    cards: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    trunks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def read_ovn(item: Field) -> str:
    """The version of OVN."""
    if not re.fullmatch(r"(23|25)\.03\.[0-9]+", item.text()):
        raise item.fail(f"only OVN 23.03.* and 25.03.* are known to the twin, found {item.value!r}")
    return item.text()


def read_nmstate(item: Field) -> str | None:
    """The version of nmstate, or None where there is none."""
    if item.value in (None, "none"):
        return None
    if not re.fullmatch(r"2\.2\.[0-9]+", item.text()):
        raise item.fail(f"only nmstate 2.2.* is known to the twin, found {item.value!r}")
    return item.text()


def read_nodes(item: Field, defaults: Field, world: Mapping[str, Field]) -> tuple[NodeSpec, ...]:
    """The nodes. `world` has what each has of the world where neither it nor the defaults say."""
    shared = {**world, **defaults.mapping(_NODE.names)}
    found = []
    for name, node in item.mapping().items():
        if not OBJECT.fullmatch(name):
            raise node.fail("not a node name")
        found.append(_read_node(name, node, shared))
    if not found:
        raise item.fail("a world needs at least one node")
    return tuple(found)


def _read_node(name: str, item: Field, shared: Mapping[str, Field]) -> NodeSpec:
    own = item.mapping(_NODE.names)
    fields = item.completed(_NODE, {**shared, **own})
    labels = [level["labels"].strings() for level in (shared, own) if "labels" in level]
    levels = [level["nics"].mapping() for level in (shared, own) if "nics" in level]
    nmstate = read_nmstate(fields["nmstate"])
    nics, cards, trunks = _read_nics({nic: given for level in levels for nic, given in level.items()})
    return NodeSpec(
        name,
        {**{key: value for level in labels for key, value in level.items()}, "kubernetes.io/hostname": name},
        fields["memory"].memory(),
        fields["mappings"].text(),
        nics,
        _read_bridges(fields["bridges"], nmstate is not None),
        fields["cordoned"].switch(),
        fields["ready"].switch(),
        fields["reachable"].switch(),
        read_ovn(fields["ovn"]),
        fields["ovnStarted"].seconds(),
        nmstate,
        cards,
        trunks,
    )


_Nics = tuple[dict[str, str], dict[str, dict[str, int]], dict[str, tuple[int, ...]]]


def _read_nics(given: Mapping[str, Field]) -> _Nics:
    """The link of each card, what is said of its MTU, and the VLANs that its switch port carries, where not all.

    `up`, or `{link: up, mtu: 1500, most: 9000, vlans: [100, 224]}`.
    """
    links: dict[str, str] = {}
    cards: dict[str, dict[str, int]] = {}
    trunks: dict[str, tuple[int, ...]] = {}
    for nic, item in given.items():
        _check_interface_name(nic, item.path)
        link: Any = item.value
        if isinstance(link, Mapping):
            fields = item.fields(_NIC)
            cards[nic] = {
                name: fields[name].integer(68, 65535) for name in ("mtu", "most") if fields[name].given
            }
            link = fields["link"].text()
            if fields["vlans"].given:
                trunks[nic] = _read_vlans(fields["vlans"])
        if link not in ("up", "down"):
            raise item.fail(f"expected up or down, found {link!r}")
        links[nic] = link
    return links, cards, trunks


def _read_vlans(item: Field) -> tuple[int, ...]:
    if not isinstance(item.value, list | tuple):
        raise item.fail(f"expected a list of VLANs, found {item.value!r}")
    return tuple(item.part(n, vlan).integer(0, 4094) for n, vlan in enumerate(item.value))


def _check_interface_name(name: str, path: Path) -> None:
    if not name or len(name.encode()) > 15 or set(name) & set("/ \t"):
        raise WorldError(f"not an interface name (at most 15 bytes): {name!r}", path)


def _read_bridges(given: Field, networkmanager: bool) -> tuple[BridgeSpec, ...]:
    found = []
    taken: dict[str, str] = {"br-int": "br-int"}
    for name, item in given.mapping().items():
        _check_interface_name(name, item.path)
        fields = item.fields(_BRIDGE)
        ports = fields["ports"].mapping()
        bridge = BridgeSpec(
            name,
            tuple(_read_port(port, entry) for port, entry in ports.items()),
            fields["externalIds"].strings(),
            _read_maker(fields["madeBy"], networkmanager),
        )
        members = [member for port in bridge.ports for member in port.bond]
        for one in (name, *ports, *members):
            # NetworkManager makes an internal port of the bridge's name only when it is told to.
            if one in taken and not (bridge.managed and one == name):
                raise item.fail(f"{one} is already on bridge {taken[one]}")
            taken[one] = name
        found.append(bridge)
    return tuple(found)


def _read_maker(item: Field, networkmanager: bool) -> bool:
    managed = item.one_of("networkmanager", "ovs-vsctl") == "networkmanager"
    if managed and not networkmanager:
        raise item.fail("a node without nmstate has no NetworkManager that makes bridges: give it `nmstate`")
    return managed


def _read_port(name: str, item: Field) -> PortSpec:
    fields = item.fields(_PORT)
    peer, mode, tag = fields["peer"], fields["mode"], fields["tag"]
    bond = _read_members(fields["bond"]) if fields["bond"].given else ()
    if not peer.given and not bond:
        _check_interface_name(name, item.path)
    if mode.given and mode.text() not in ("", *_MODES):
        raise mode.fail(f"not a bond mode: {mode.value!r}")
    return PortSpec(
        name,
        peer.text() if peer.given else "",
        bond,
        mode.text() if mode.given else "",
        tag.integer(0, 4095) if tag.given else None,
        fields["internal"].switch(),
    )


def _read_members(item: Field) -> tuple[str, ...]:
    members = item.value
    if not isinstance(members, list) or not members or not all(isinstance(m, str) for m in members):
        raise item.fail("expected a list of interface names")
    return tuple(members)
