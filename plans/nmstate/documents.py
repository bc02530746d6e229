"""desiredState documents: the parts that we write, how parts become one, and when two contradict each other.

The one invariant: what is written here never names a mapping or a port that the user did not ask for, so that nmstate
keeps everybody else's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Document = Mapping[str, Any]
"""A desiredState: `interfaces` and `ovn.bridge-mappings` are all that we look at."""

_BY = {"interfaces": ("name", "type"), "bridge-mappings": ("localnet",)}


def mapped(localnet: str, bridge: str) -> dict[str, Any]:
    """A localnet on a bridge. Other localnets are kept: nmstate merges by localnet."""
    return {"ovn": {"bridge-mappings": [{"localnet": localnet, "bridge": bridge, "state": "present"}]}}


def unmapped(localnet: str) -> dict[str, Any]:
    """A localnet on no bridge."""
    return {"ovn": {"bridge-mappings": [{"localnet": localnet, "state": "absent"}]}}


def without_bridge(bridge: str) -> dict[str, Any]:
    """An OVS bridge that is to go, with its ports."""
    return {"interfaces": [{"name": bridge, "type": "ovs-bridge", "state": "absent"}]}


def with_bridge(bridge: str, ports: Sequence[Mapping[str, Any]], datapath: str = "") -> dict[str, Any]:
    """An OVS bridge that is to be there with these ports and no other, but for OVN's patch ports (H24)."""
    held: dict[str, Any] = {"allow-extra-patch-ports": True, "port": [dict(port) for port in ports]}
    if datapath:
        held["options"] = {"datapath": datapath}
    return {"interfaces": [{"name": bridge, "type": "ovs-bridge", "state": "up", "bridge": held}]}


def with_mtu(types: Mapping[str, str], mtus: Mapping[str, int]) -> dict[str, Any]:
    """NICs with an MTU each, all else of them as it is; `types` are nmstate's words for what they are."""
    return {
        "interfaces": [
            {"name": nic, "type": types[nic], "state": "up", "mtu": mtu} for nic, mtu in sorted(mtus.items())
        ]
    }


def union(first: Document, second: Document) -> dict[str, Any]:
    """Both documents in one; where they speak of the same thing, the second one's word."""
    whole: dict[str, Any] = {}
    interfaces = _merged(first.get("interfaces", ()), second.get("interfaces", ()), _BY["interfaces"])
    mappings = _merged(_mappings(first), _mappings(second), _BY["bridge-mappings"])
    if interfaces:
        whole["interfaces"] = interfaces
    if mappings:
        whole["ovn"] = {"bridge-mappings": mappings}
    return whole


def _merged(
    first: Sequence[Document], second: Sequence[Document], keys: Sequence[str]
) -> list[dict[str, Any]]:
    found = {tuple(entry.get(key) for key in keys): dict(entry) for entry in (*first, *second)}
    return [found[key] for key in sorted(found, key=str)]


def _mappings(document: Document) -> Sequence[Document]:
    ovn = document.get("ovn")
    entries = ovn.get("bridge-mappings") if isinstance(ovn, Mapping) else None
    return [e for e in entries if isinstance(e, Mapping)] if isinstance(entries, list) else []


def _interfaces(document: Document) -> Sequence[Document]:
    entries = document.get("interfaces")
    return [e for e in entries if isinstance(e, Mapping)] if isinstance(entries, list) else []


def same(one: Document, other: Document) -> bool:
    """Whether two documents say the same, whatever the order of their lists."""
    return bool(_plain(one) == _plain(other))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if v not in (None, [], {})}
    if isinstance(value, list | tuple):
        return sorted((_plain(v) for v in value), key=str)
    return value


def contradictions(one: Document, other: Document) -> list[str]:
    """What two documents that one node obeys disagree about: nmstate would obey each in its turn, for ever (H04)."""
    return [
        *_mapping_conflicts(one, other),
        *_mapped_to_none(one, other),
        *_mapped_to_none(other, one),
        *_interface_conflicts(one, other),
        *_two_masters(one, other),
        *_port_that_goes(one, other),
        *_port_that_goes(other, one),
    ]


def _mapping_conflicts(one: Document, other: Document) -> Iterator[str]:
    theirs = {e.get("localnet"): _word(e) for e in _mappings(other)}
    for entry in _mappings(one):
        localnet = entry.get("localnet")
        if localnet in theirs and theirs[localnet] != _word(entry):
            yield f"localnet {localnet}: {_word(entry)} against {theirs[localnet]}"


def _mapped_to_none(one: Document, other: Document) -> Iterator[str]:
    """What one maps to a bridge that the other takes away: that one can never be enacted, and cuts VMs at each attempt."""
    spoken_of = {e.get("localnet") for e in _mappings(other)}
    for localnet, bridge in mapped_pairs(one).items():
        if bridge in removed_bridges(other) and localnet not in spoken_of:
            yield f"localnet {localnet}: on {bridge} against {bridge} absent"


def _word(entry: Document) -> str:
    return "absent" if entry.get("state") == "absent" else str(entry.get("bridge"))


def _interface_conflicts(one: Document, other: Document) -> Iterator[str]:
    for mine in _interfaces(one):
        for theirs in _interfaces(other):
            if mine.get("name") != theirs.get("name") or not _same_type(mine, theirs):
                continue
            states = (mine.get("state", "up"), theirs.get("state", "up"))
            if states[0] != states[1] and "ignore" not in states:
                yield f"interface {mine.get('name')}: {states[0]} against {states[1]}"


def _same_type(one: Document, other: Document) -> bool:
    types = {one.get("type"), other.get("type")} - {None}
    return len(types) < 2


def _two_masters(one: Document, other: Document) -> Iterator[str]:
    theirs = {port: bridge for bridge, port in ports_of(other)}
    for bridge, port in ports_of(one):
        if theirs.get(port, bridge) != bridge:
            yield f"port {port}: under {bridge} against under {theirs[port]}"


def _port_that_goes(one: Document, other: Document) -> Iterator[str]:
    """What the one puts under a bridge, and the other takes away."""
    gone = {i.get("name") for i in _interfaces(other) if i.get("state") == "absent"}
    for bridge, port in ports_of(one):
        if port in gone:
            yield f"port {port}: under {bridge} against absent"


def ports_of(document: Document) -> Iterator[tuple[str, str]]:
    """The (bridge or bond, member) pairs that a document asks for."""
    for interface in _interfaces(document):
        name = str(interface.get("name"))
        if interface.get("state") == "absent":
            continue
        bridge = interface.get("bridge")
        for port in (bridge.get("port") or ()) if isinstance(bridge, Mapping) else ():
            if not isinstance(port, Mapping):
                continue
            bond = port.get("link-aggregation")
            members = (bond.get("port") or ()) if isinstance(bond, Mapping) else ()
            if not members:
                yield name, str(port.get("name"))
            for member in members:
                if isinstance(member, Mapping):
                    yield name, str(member.get("name"))
        bond = interface.get("link-aggregation")
        for member in (bond.get("port") or ()) if isinstance(bond, Mapping) else ():
            yield name, str(member)


def removed_bridges(document: Document) -> list[str]:
    """The bridges that a document takes away."""
    return [
        str(i["name"])
        for i in _interfaces(document)
        if i.get("state") == "absent" and i.get("type", "ovs-bridge") == "ovs-bridge"
    ]


def switched_off(document: Document) -> dict[str, str]:
    """The interfaces that a document takes away or down: name → `absent` or `down`."""
    states = {str(i.get("name")): str(i.get("state", "up")) for i in _interfaces(document)}
    return {name: state for name, state in states.items() if state in ("absent", "down")}


def port_lists(document: Document) -> dict[str, set[str]]:
    """The bridges whose ports a document lists: bridge → every port and bond member of that list."""
    found: dict[str, set[str]] = {}
    for interface in _interfaces(document):
        bridge = interface.get("bridge")
        ports = bridge.get("port") if isinstance(bridge, Mapping) else None
        if interface.get("state") != "absent" and isinstance(ports, list):
            names = {str(port.get("name")) for port in ports if isinstance(port, Mapping)}
            name = str(interface.get("name"))
            found[name] = names | {port for bridge, port in ports_of({"interfaces": [interface]})}
    return found


def unmapped_localnets(document: Document) -> list[str]:
    """The localnets that a document wants on no bridge."""
    return [str(e.get("localnet")) for e in _mappings(document) if e.get("state") == "absent"]


def controllers(document: Document) -> dict[str, str]:
    """The interfaces that a document puts under a controller by name (`""` is under none)."""
    return {
        str(i.get("name")): str(i.get("controller") or "")
        for i in _interfaces(document)
        if "controller" in i and i.get("state") != "absent"
    }


def mapped_pairs(document: Document) -> dict[str, str]:
    """The localnets that a document maps, and to which bridge."""
    return {
        str(e.get("localnet")): str(e.get("bridge"))
        for e in _mappings(document)
        if e.get("state") != "absent"
    }


def in_words(document: Document) -> str:
    """A document as a title says it."""
    parts = [f"map {localnet} to {bridge}" for localnet, bridge in mapped_pairs(document).items()]
    parts += [f"unmap {e.get('localnet')}" for e in _mappings(document) if e.get("state") == "absent"]
    parts += [f"{name} {state}" for name, state in switched_off(document).items()]
    up = [i for i in _interfaces(document) if i.get("state", "up") == "up"]
    parts += [f"MTU {i['mtu']} on {i.get('name')}" for i in up if "mtu" in i]
    rest = [str(i.get("name")) for i in up if "mtu" not in i]
    parts += [f"{', '.join(rest)} up"] if rest else []
    parts += sorted(section for section in document if section not in ("interfaces", "ovn"))
    return ", ".join(parts) or "nothing"


def made_by_ovs(document: Document) -> set[str]:
    """The ports that a document wants Open vSwitch to make itself."""
    return {str(i.get("name")) for i in _interfaces(document) if i.get("type") == "ovs-interface"}


def present(document: Document) -> list[str]:
    """The interfaces that a document wants to be there."""
    return list(
        dict.fromkeys(str(i.get("name")) for i in _interfaces(document) if i.get("state", "up") == "up")
    )
