"""What one node's Open vSwitch database says, and what follows from it.

A *switch view* is the JSON that `read_switch` makes of the four main tables; `derive` turns it into the facts that
checks can name. Everything that reads or predicts OVS goes through these functions, so each rule stands once.

Sources: the OVN and OVS behaviour behind each rule was measured on OVN 23.03.1 with OVS 3.1.0 (see docs/ovs-facts.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from plans.facts import ABSENT, Fact, Json, Known, Unknown

TABLES = ("Open_vSwitch", "Bridge", "Port", "Interface")
MAPPING_KEY = "ovn-bridge-mappings"
LOCALNET_PORT_KEY = "ovn-localnet-port"
INTEGRATION_BRIDGE = "br-int"
NIC_TYPES = ("", "system")
UNKNOWN_UUID = "(known after apply)"

_PORT_COLUMNS = (
    *("tag", "trunks", "vlan_mode", "bond_mode", "bond_updelay", "bond_downdelay", "lacp"),
    *("external_ids", "other_config"),
)
_INTERFACE_COLUMNS = (
    *("type", "options", "ofport", "ofport_request", "error", "link_state", "mtu", "mtu_request"),
    *("ingress_policing_rate", "ingress_policing_burst", "external_ids", "other_config"),
)
_BRIDGE_COLUMNS = (
    "datapath_type",
    "fail_mode",
    "external_ids",
    "other_config",
    "stp_enable",
    "rstp_enable",
    "mcast_snooping_enable",
)

View = Mapping[str, Any]


def plain(value: Json) -> Json:
    """An RFC 7047 value as plain JSON: maps are dicts, sets of one are that one, the empty set is None."""
    if isinstance(value, list) and len(value) == 2:
        tag, body = value
        if tag == "map":
            return {plain(k): plain(v) for k, v in body}
        if tag == "set":
            items = [plain(v) for v in body]
            return None if not items else (items[0] if len(items) == 1 else sorted(items))
        if tag in ("uuid", "named-uuid"):
            return body
    return value


def _many(value: Json) -> list[Any]:
    value = plain(value)
    return [] if value is None else value if isinstance(value, list) else [value]


def _empty_map_for_none(column: str, value: Json) -> Json:
    return {} if value is None and column in ("external_ids", "other_config", "options") else value


def read_switch(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> View:
    """The switch view of `rows`: table name → rows as OVSDB returns them. Raises KeyError on rows that lack a column."""
    root = rows["Open_vSwitch"][0]
    interfaces = {plain(r["_uuid"]): r for r in rows["Interface"]}
    ports = {plain(r["_uuid"]): r for r in rows["Port"]}

    def interface(uuid: str) -> Json:
        row = interfaces[uuid]
        return {"name": row["name"], "uuid": uuid} | {
            c: _empty_map_for_none(c, plain(row[c])) for c in _INTERFACE_COLUMNS if c in row
        }

    def port(uuid: str) -> Json:
        row = ports[uuid]
        columns = {c: _empty_map_for_none(c, plain(row[c])) for c in _PORT_COLUMNS if c in row}
        members = sorted((interface(u) for u in _many(row["interfaces"])), key=lambda i: str(i["name"]))
        return {"uuid": uuid, **columns, "interfaces": members}

    bridges = {}
    for row in rows["Bridge"]:
        columns = {c: _empty_map_for_none(c, plain(row[c])) for c in _BRIDGE_COLUMNS if c in row}
        named = {str(ports[u]["name"]): port(u) for u in _many(row["ports"])}
        bridges[str(row["name"])] = {
            "uuid": plain(row["_uuid"]),
            **columns,
            "ports": dict(sorted(named.items())),
        }
    external = plain(root["external_ids"]) or {}
    return {
        "root": plain(root["_uuid"]),
        "mapping": external.get(MAPPING_KEY),
        "next": root.get("next_cfg", 0),
        "cur": root.get("cur_cfg", 0),
        "bridges": dict(sorted(bridges.items())),
    }


def parse_mappings(text: str | None) -> dict[str, str]:
    """`a:b,c:d` as a map. Raises ValueError on an entry that OVN would stop at.

    OVN reads up to a malformed entry and ignores the rest (controller/patch.c), so a string that holds one has no
    trustworthy meaning.
    """
    pairs: dict[str, str] = {}
    for entry in (text or "").split(","):
        if not entry.strip():
            continue
        localnet, colon, bridge = entry.partition(":")
        if (
            not colon
            or not localnet
            or not bridge
            or ":" in bridge
            or localnet != localnet.strip()
            or bridge != bridge.strip()
        ):
            raise ValueError(f"entry {entry!r} of {MAPPING_KEY} is not <localnet>:<bridge>")
        if localnet in pairs and pairs[localnet] != bridge:
            raise ValueError(
                f"{MAPPING_KEY} names localnet {localnet!r} twice ({pairs[localnet]} and {bridge})"
            )
        pairs[localnet] = bridge
    return pairs


def mended_mappings(text: str | None) -> str:
    """A mapping string that can't be read, as it was probably meant; empty when that can't be guessed."""
    entries = [e.strip() for e in (text or "").split(",") if e.strip()]
    mended = ",".join(re.sub(r"^([^:=]+?)\s*[:=]\s*([^:=]+)$", r"\1:\2", entry) for entry in entries)
    try:
        parse_mappings(mended)
    except ValueError:
        return ""
    return mended


def set_pair(text: str | None, localnet: str, bridge: str) -> str:
    """The mapping string with our pair set and every other entry as it stood, in its place."""
    entries = [e for e in (text or "").split(",") if e.strip()]
    ours = [i for i, e in enumerate(entries) if e.partition(":")[0] == localnet]
    if not ours:
        return ",".join([*entries, f"{localnet}:{bridge}"])
    entries[ours[0]] = f"{localnet}:{bridge}"
    return ",".join(e for i, e in enumerate(entries) if i not in ours[1:])


def pair_command(text: str | None, localnet: str, bridge: str | None) -> str:
    """The `ovs-vsctl` argument with which a person sets (or, with None, drops) one pair.

    It reads the string when it is typed, so that a pair that somebody added since the plan survives (H01).
    """
    ours = localnet in [entry.partition(":")[0] for entry in (text or "").split(",")]
    found = rf"s/(^|,){localnet}:[^,]*"
    if bridge is None:
        edit = f"{found}//; s/^,//"
    else:
        edit = rf"{found}/\1{localnet}:{bridge}/" if ours else f"s/$/,{localnet}:{bridge}/; s/^,//"
    now = (
        f"ovs-vsctl --if-exists get Open_vSwitch . external_ids:{MAPPING_KEY} | tr -d '\"' | sed -E '{edit}'"
    )
    return f'set Open_vSwitch . external_ids:{MAPPING_KEY}="$({now})"'


def drop_pair(text: str | None, localnet: str) -> str:
    """The mapping string without our pair, every other entry as it stood."""
    return ",".join(e for e in (text or "").split(",") if e.strip() and e.partition(":")[0] != localnet)


def outer_port(lsp: str) -> str:
    """The patch port that ovn-controller puts on the mapped bridge for a localnet switch port."""
    return f"patch-{lsp}-to-{INTEGRATION_BRIDGE}"


def inner_port(lsp: str) -> str:
    """Its peer on br-int."""
    return f"patch-{INTEGRATION_BRIDGE}-to-{lsp}"


def localnet_port_of(network_name: str) -> str:
    """OVN-Kubernetes' localnet switch port for a network name (pkg/types/const.go; `-` and `/` are folded to `.`)."""
    return f"{network_name.replace('-', '.').replace('/', '.')}_ovn_localnet_port"


def patch_ports(view: View, bridge: str) -> dict[str, str]:
    """The OVN patch ports on a bridge: port name → localnet switch port."""
    ports = view["bridges"].get(bridge, {}).get("ports", {})
    return {
        name: p["external_ids"][LOCALNET_PORT_KEY]
        for name, p in ports.items()
        if LOCALNET_PORT_KEY in p["external_ids"]
    }


def bridges_of_port(view: View, name: str) -> list[str]:
    """Every bridge that lists a port of that name."""
    return [bridge for bridge, row in view["bridges"].items() if name in row["ports"]]


def uplinks(view: View, bridge: str) -> dict[str, list[Mapping[str, Any]]]:
    """The ports of a bridge that lead to NICs: port name → its NIC interfaces."""
    ports = view["bridges"].get(bridge, {}).get("ports", {})
    found = {}
    for name, port in ports.items():
        nics = [i for i in port["interfaces"] if i["type"] in NIC_TYPES and name != bridge]
        if nics and not any("iface-id" in i["external_ids"] for i in port["interfaces"]):
            found[name] = nics
    return found


def is_internal(view: View, bridge: str, name: str) -> bool:
    """Whether a bridge has an interface of that name that Open vSwitch made itself."""
    ports = view["bridges"].get(bridge, {}).get("ports", {})
    return any(i["name"] == name and i["type"] == "internal" for p in ports.values() for i in p["interfaces"])


def is_alive(interface: Mapping[str, Any]) -> bool:
    """Whether an uplink's interface is a NIC that the node has, in the datapath, with its link up (H03, H53)."""
    ofport = interface.get("ofport")
    return (
        interface["type"] in NIC_TYPES
        and isinstance(ofport, int)
        and ofport >= 0
        and interface.get("link_state") == "up"
    )


def live_uplinks(view: View, bridge: str) -> list[str]:
    """The names of the NICs that carry a bridge's traffic now."""
    return sorted(i["name"] for nics in uplinks(view, bridge).values() for i in nics if is_alive(i))


def pair_health(view: View, lsp: str) -> str:
    """`healthy`, or what is wrong with the patch pair of a localnet switch port.

    Success of a move is never the mapping alone: both ends have an ofport and no error, and the outer port sits on
    one bridge only (H46, H49).
    """
    ends = ((outer_port(lsp), inner_port(lsp)), (inner_port(lsp), outer_port(lsp)))
    for name, peer in ends:
        homes = bridges_of_port(view, name)
        if not homes:
            return f"broken: port {name} is missing"
        if len(homes) > 1:
            return f"broken: port {name} is on {' and '.join(homes)}"
        for interface in view["bridges"][homes[0]]["ports"][name]["interfaces"]:
            if interface["type"] != "patch":
                return f"broken: port {name} has type {interface['type'] or 'system'}, not patch"
            if interface["options"].get("peer") != peer:
                return f"broken: port {name} has peer {interface['options'].get('peer')}, not {peer}"
    # Both ends are wired: only now does an error say something that the wiring does not.
    for name, _ in ends:
        for interface in view["bridges"][bridges_of_port(view, name)[0]]["ports"][name]["interfaces"]:
            if interface.get("error"):
                return f"broken: port {name}: {interface['error']}"
            if not isinstance(interface.get("ofport"), int) or interface["ofport"] < 0:
                return f"broken: port {name} has no OpenFlow port"
    return "healthy"


def is_paired(view: View, lsp: str) -> bool:
    """Whether both ends are there, once, as patch ports: then turning one of them is enough to join them."""
    ends = [(name, bridges_of_port(view, name)) for name in (outer_port(lsp), inner_port(lsp))]
    return all(
        len(homes) == 1
        and all(i["type"] == "patch" for i in view["bridges"][homes[0]]["ports"][name]["interfaces"])
        for name, homes in ends
    )


def _mtus(view: View) -> dict[str, int]:
    """The MTU of each NIC that is under a bridge, as far as vswitchd tells it."""
    return {
        nic["name"]: nic["mtu"]
        for bridge in view["bridges"]
        for nics in uplinks(view, bridge).values()
        for nic in nics
        if isinstance(nic.get("mtu"), int)
    }


def derive(node: str, view: View) -> dict[str, Fact]:
    """The facts that follow from a switch view. What is not listed below `node/<n>/ovs/` is absent."""
    at = f"node/{node}/ovs"
    facts: dict[str, Fact] = {at: Known(view), f"{at}/*": ABSENT}
    try:
        pairs = parse_mappings(view["mapping"])
    except ValueError as error:
        facts[f"{at}/mapping/*"] = facts[f"{at}/mappings"] = Unknown(str(error))
    else:
        facts[f"{at}/mappings"] = Known(pairs)
        facts |= {f"{at}/mapping/{localnet}": Known(bridge) for localnet, bridge in pairs.items()}
    facts |= {f"{at}/mtu/{nic}": Known(mtu) for nic, mtu in _mtus(view).items()}
    lsps: set[str] = set()
    for bridge in view["bridges"]:
        facts[f"{at}/bridge/{bridge}"] = Known(sorted(view["bridges"][bridge]["ports"]))
        facts[f"{at}/bridge/{bridge}/uplinks"] = Known(live_uplinks(view, bridge))
        lsps |= set(patch_ports(view, bridge).values())
    for lsp in sorted(lsps):
        homes = bridges_of_port(view, outer_port(lsp))
        if homes:
            facts[f"{at}/patch/{lsp}"] = Known(homes[0] if len(homes) == 1 else homes)
        if bridges_of_port(view, inner_port(lsp)):
            facts[f"{at}/patch/{lsp}/inner"] = Known(INTEGRATION_BRIDGE)
        facts[f"{at}/patch/{lsp}/health"] = Known(pair_health(view, lsp))
    return facts


def changes(node: str, before: View, after: View) -> tuple[tuple[str, Fact], ...]:
    """The facts that differ between two views of one node, ready to be predicted."""
    old, new = derive(node, before), derive(node, after)
    gone = [(path, ABSENT) for path in old if path not in new]
    return (*((path, fact) for path, fact in new.items() if old.get(path) != fact), *gone)


# Predicting: each returns a new view and leaves the old one alone.


def with_mapping(view: View, text: str | None) -> View:
    """The view with another mapping string."""
    return {**view, "mapping": text}


def without_ports(view: View, names: Iterable[str]) -> View:
    """The view without some ports, wherever they are."""
    gone = set(names)
    bridges = {
        b: {**row, "ports": {n: p for n, p in row["ports"].items() if n not in gone}}
        for b, row in view["bridges"].items()
    }
    return {**view, "bridges": bridges}


def with_patch(view: View, bridge: str, name: str, peer: str, lsp: str) -> View:
    """The view with one healthy OVN patch port more; a peer that complained of its absence complains no more."""
    interface = {
        "name": name, "uuid": UNKNOWN_UUID, "type": "patch", "options": {"peer": peer}, "ofport": 1, "error": None,
        "link_state": "up", "mtu": None, "external_ids": {}, "other_config": {},
    }  # fmt: skip
    port = {
        "uuid": UNKNOWN_UUID, "tag": None, "trunks": None, "vlan_mode": None, "bond_mode": None, "lacp": None,
        "external_ids": {LOCALNET_PORT_KEY: lsp}, "other_config": {}, "interfaces": [interface],
    }  # fmt: skip
    view = _with_usable_peer(view, peer, name)
    row = view["bridges"].get(bridge, {"uuid": UNKNOWN_UUID, "ports": {}, "external_ids": {}})
    ports = dict(sorted({**row["ports"], name: port}.items()))
    return {**view, "bridges": {**view["bridges"], bridge: {**row, "ports": ports}}}


def _with_usable_peer(view: View, name: str, peer: str) -> View:
    """The view after vswitchd has found the peer that patch port `name` lacked."""

    def healed(interface: Mapping[str, Any]) -> Mapping[str, Any]:
        waited = interface["name"] == name and interface["options"].get("peer") == peer
        return {**interface, "error": None} if waited else interface

    bridges = dict(view["bridges"])
    for bridge in bridges_of_port(view, name):
        port = bridges[bridge]["ports"][name]
        found = {**port, "interfaces": [healed(i) for i in port["interfaces"]]}
        bridges[bridge] = {**bridges[bridge], "ports": {**bridges[bridge]["ports"], name: found}}
    return {**view, "bridges": bridges}


def with_peer(view: View, name: str, peer: str) -> View:
    """The view with a patch port turned to another peer; a pair that is joined by that is healthy."""

    def turned(interface: Mapping[str, Any]) -> Mapping[str, Any]:
        if interface["name"] == name:
            return {**interface, "options": {**interface["options"], "peer": peer}, "error": None}
        return {**interface, "error": None} if interface["name"] == peer else interface

    def port(row: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**row, "interfaces": [turned(i) for i in row["interfaces"]]}

    bridges = {
        b: {**row, "ports": {n: port(p) for n, p in row["ports"].items()}}
        for b, row in view["bridges"].items()
    }
    return {**view, "bridges": bridges}


def with_nics(view: View, bridge: str, names: Iterable[str], datapath: str = "") -> View:
    """The view with NICs on a bridge, made where it is not there, all of them up; their MTU is not known yet."""
    new: dict[str, Any] = {
        "uuid": UNKNOWN_UUID, "datapath_type": datapath, "fail_mode": None, "external_ids": {}, "other_config": {},
        "ports": {bridge: _port(bridge, "internal")},
    }  # fmt: skip
    row = view["bridges"].get(bridge, new)
    ports = {**row["ports"], **{name: _port(name, "") for name in names}}
    return with_bridge(view, bridge, {**row, "ports": dict(sorted(ports.items()))})


def _port(name: str, kind: str) -> dict[str, Any]:
    interface = {
        "name": name, "uuid": UNKNOWN_UUID, "type": kind, "options": {}, "ofport": 1, "error": None,
        "link_state": "up", "mtu": None, "mtu_request": None, "external_ids": {}, "other_config": {},
    }  # fmt: skip
    return {
        "uuid": UNKNOWN_UUID, "tag": None, "trunks": None, "vlan_mode": None, "bond_mode": None, "lacp": None,
        "external_ids": {}, "other_config": {}, "interfaces": [interface],
    }  # fmt: skip


def with_mtus(view: View, mtus: Mapping[str, int | None], *, asked: bool = True) -> View:
    """The view with NICs that have, and with `asked` were asked for, another MTU."""

    def interface(row: Mapping[str, Any]) -> Mapping[str, Any]:
        if row["name"] not in mtus:
            return row
        mtu = mtus[row["name"]]
        return {**row, "mtu": mtu, **({"mtu_request": mtu} if asked else {})}

    def port(row: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**row, "interfaces": [interface(i) for i in row["interfaces"]]}

    bridges = {
        b: {**row, "ports": {n: port(p) for n, p in row["ports"].items()}}
        for b, row in view["bridges"].items()
    }
    return {**view, "bridges": bridges}


def without_bridge(view: View, bridge: str) -> View:
    """The view without a bridge."""
    return {**view, "bridges": {b: row for b, row in view["bridges"].items() if b != bridge}}


def with_bridge(view: View, bridge: str, row: Mapping[str, Any]) -> View:
    """The view with a bridge, as `row` of another view has it."""
    return {**view, "bridges": dict(sorted({**view["bridges"], bridge: row}.items()))}
