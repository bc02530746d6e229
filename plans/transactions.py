"""OVSDB transactions, guarded: the JSON of RFC 7047 for the few things ovsplan does to a switch.

Every function returns operations that go into one transaction: it happens whole, and only if every guard holds.
A guard that fails answers `timed out` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plans import ovs
from plans.facts import Json

SETTABLE = (
    *("type", "options", "ofport_request", "mtu_request", "ingress_policing_rate", "ingress_policing_burst"),
    *("external_ids", "other_config"),
)
"""The columns of an interface that somebody sets, in what this program keeps of it."""

GUARD_FAILED = "timed out"
"""The error of a `wait` that did not hold (RFC 7047 §5.2.6)."""


def guard(table: str, where: list[Json], rows: list[Json], columns: Sequence[str]) -> Json:
    """Fail the transaction unless the rows at `where` are exactly `rows`, now."""
    return {
        "op": "wait",
        "timeout": 0,
        "table": table,
        "until": "==",
        "columns": list(columns),
        "where": where,
        "rows": rows,
    }


def map_value(pairs: Mapping[str, Any]) -> Json:
    """A map as OVSDB writes it."""
    return ["map", [[k, v] for k, v in sorted(pairs.items())]]


def swap_mapping(view: ovs.View, text: str) -> list[Json]:
    """Compare-and-swap of the whole mapping string, others' pairs included, so that nobody's write is lost (H01).

    The key is deleted before it is inserted: a map `insert` on an existing key changes nothing and answers count 1
    (H49). When the key was absent, the value is inserted and then guarded: somebody else's value fails the whole.
    """
    old, root = view["mapping"], ["uuid", view["root"]]
    insert = ["external_ids", "insert", map_value({ovs.MAPPING_KEY: text})]
    ours = [["_uuid", "==", root]]

    def has(value: str) -> Json:
        where = [["external_ids", "includes", map_value({ovs.MAPPING_KEY: value})]]
        return guard("Open_vSwitch", where, [{"_uuid": root}], ["_uuid"])

    if old is None:
        return [{"op": "mutate", "table": "Open_vSwitch", "where": ours, "mutations": [insert]}, has(text)]
    delete = ["external_ids", "delete", ["set", [ovs.MAPPING_KEY]]]
    return [has(old), {"op": "mutate", "table": "Open_vSwitch", "where": ours, "mutations": [delete, insert]}]


def same_mapping(view: ovs.View) -> Json:
    """A guard alone: the mapping string is what was seen (or there was none, and the root row is that one)."""
    root = ["uuid", view["root"]]
    where = [["_uuid", "==", root]]
    if view["mapping"] is not None:
        where = [["external_ids", "includes", map_value({ovs.MAPPING_KEY: view["mapping"]})]]
    return guard("Open_vSwitch", where, [{"_uuid": root}], ["_uuid"])


def drop_mapping_key(view: ovs.View) -> list[Json]:
    """Remove the whole key, guarded by its value."""
    root = ["uuid", view["root"]]
    where = [["external_ids", "includes", map_value({ovs.MAPPING_KEY: view["mapping"]})]]
    return [
        guard("Open_vSwitch", where, [{"_uuid": root}], ["_uuid"]),
        {"op": "mutate", "table": "Open_vSwitch", "where": [["_uuid", "==", root]],
         "mutations": [["external_ids", "delete", ["set", [ovs.MAPPING_KEY]]]]},
    ]  # fmt: skip


def take_port(view: ovs.View, bridge: str, name: str) -> list[Json]:
    """Take one port off a bridge, guarded by its being that very port on that very bridge."""
    port = ["uuid", view["bridges"][bridge]["ports"][name]["uuid"]]
    return [
        guard("Bridge", [["ports", "includes", port]], [{"name": bridge}], ["name"]),
        {
            "op": "mutate",
            "table": "Bridge",
            "where": [["name", "==", bridge]],
            "mutations": [["ports", "delete", port]],
        },
    ]


def insert_patch(bridge: str, name: str, peer: str, lsp: str, tag: str) -> list[Json]:
    """Insert an OVN patch port as ovn-controller would, guarded by there being none of that name.

    `tag` keeps named UUIDs apart when several are inserted in one transaction.
    """
    return [
        guard("Port", [["name", "==", name]], [], ["name"]),
        {"op": "insert", "table": "Interface", "uuid-name": f"i{tag}",
         "row": {"name": name, "type": "patch", "options": map_value({"peer": peer})}},
        {"op": "insert", "table": "Port", "uuid-name": f"p{tag}",
         "row": {"name": name, "interfaces": ["named-uuid", f"i{tag}"], "external_ids": map_value({ovs.LOCALNET_PORT_KEY: lsp})}},
        {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
         "mutations": [["ports", "insert", ["named-uuid", f"p{tag}"]]]},
    ]  # fmt: skip


def insert_nic(bridge: str, name: str, tag: str) -> list[Json]:
    """Put a NIC on a bridge that is there, guarded by no bridge having a port of that name.

    `tag` keeps named UUIDs apart when several are inserted in one transaction.
    """
    return [
        guard("Bridge", [["name", "==", bridge]], [{"name": bridge}], ["name"]),
        guard("Interface", [["name", "==", name]], [], ["name"]),
        {"op": "insert", "table": "Interface", "uuid-name": f"i{tag}", "row": {"name": name}},
        {"op": "insert", "table": "Port", "uuid-name": f"p{tag}", "row": {"name": name, "interfaces": ["named-uuid", f"i{tag}"]}},
        {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]],
         "mutations": [["ports", "insert", ["named-uuid", f"p{tag}"]]]},
    ]  # fmt: skip


def make_bridge(view: ovs.View, bridge: str, row: Mapping[str, Any]) -> list[Json]:
    """Insert a new bridge with its NICs, guarded by there being neither it nor any of them under another bridge."""
    nics = [name for name in sorted(row["ports"]) if name != bridge]
    guards = [guard("Interface", [["name", "==", nic]], [], ["name"]) for nic in nics]
    return [*guards, *restore_bridge(view, bridge, row)]


def request_mtu(name: str, before: int | None, mtu: int | None) -> list[Json]:
    """Ask for an interface's MTU (None: ask for none), guarded by what was asked for before."""
    named = [["name", "==", name]]
    return [
        guard("Interface", named, [{"mtu_request": _optional(before)}], ["mtu_request"]),
        {"op": "update", "table": "Interface", "where": named, "row": {"mtu_request": _optional(mtu)}},
    ]


def _optional(value: int | None) -> Json:
    return ["set", []] if value is None else value


def set_peer(name: str, peer: str) -> list[Json]:
    """Set the peer of a patch port, guarded by there being one of that name."""
    named = [["name", "==", name]]
    return [
        guard("Interface", [*named, ["type", "==", "patch"]], [{"name": name}], ["name"]),
        {"op": "update", "table": "Interface", "where": named, "row": {"options": map_value({"peer": peer})}},
    ]


def remove_bridge(view: ovs.View, bridge: str) -> list[Json]:
    """Remove a bridge, guarded by its ports and by the mapping string being what they were when it was judged safe."""
    row = view["bridges"][bridge]
    uuid, root = ["uuid", row["uuid"]], ["uuid", view["root"]]
    ports = ["set", [["uuid", p["uuid"]] for _, p in sorted(row["ports"].items())]]
    operations = [guard("Bridge", [["_uuid", "==", uuid]], [{"ports": ports}], ["ports"])]
    if view["mapping"] is not None:
        where = [["external_ids", "includes", map_value({ovs.MAPPING_KEY: view["mapping"]})]]
        operations.append(guard("Open_vSwitch", where, [{"_uuid": root}], ["_uuid"]))
    delete = ["bridges", "delete", uuid]
    return [
        *operations,
        {"op": "mutate", "table": "Open_vSwitch", "where": [["_uuid", "==", root]], "mutations": [delete]},
    ]


def restore_bridge(view: ovs.View, bridge: str, row: Mapping[str, Any]) -> list[Json]:
    """Insert a bridge with its ports as `row` of an earlier view has them, guarded by there being none of that name."""
    operations: list[Json] = [guard("Bridge", [["name", "==", bridge]], [], ["name"])]
    ports = []
    for p, (name, port) in enumerate(sorted(row["ports"].items())):
        interfaces = []
        for i, interface in enumerate(port["interfaces"]):
            named = f"i{p}x{i}"
            interfaces.append(["named-uuid", named])
            columns = {c: interface.get(c) for c in SETTABLE}
            operations.append(
                {
                    "op": "insert",
                    "table": "Interface",
                    "uuid-name": named,
                    "row": {"name": interface["name"], **_row(columns)},
                }
            )
        ports.append(["named-uuid", f"p{p}"])
        columns = {c: v for c, v in port.items() if c not in ("uuid", "interfaces")}
        operations.append(
            {"op": "insert", "table": "Port", "uuid-name": f"p{p}",
             "row": {"name": name, "interfaces": ["set", interfaces], **_row(columns)}}
        )  # fmt: skip
    columns = {c: v for c, v in row.items() if c not in ("uuid", "ports")}
    operations.append(
        {
            "op": "insert",
            "table": "Bridge",
            "uuid-name": "b",
            "row": {"name": bridge, "ports": ["set", ports], **_row(columns)},
        }
    )
    root = [["_uuid", "==", ["uuid", view["root"]]]]
    insert = ["bridges", "insert", ["named-uuid", "b"]]
    return [*operations, {"op": "mutate", "table": "Open_vSwitch", "where": root, "mutations": [insert]}]


def settled(view: ovs.View, operations: Sequence[Json]) -> tuple[Json, ...]:
    """The operations, `next_cfg` raised, and its new value read: vswitchd is done when `cur_cfg` reaches it (H49)."""
    bump = {
        "op": "mutate", "table": "Open_vSwitch", "where": [["_uuid", "==", ["uuid", view["root"]]]],
        "mutations": [["next_cfg", "+=", 1]],
    }  # fmt: skip
    return (
        *operations,
        bump,
        {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]},
    )


def _row(columns: Mapping[str, Json]) -> dict[str, Json]:
    """Columns as OVSDB takes them; what is at its default is left out."""
    row: dict[str, Json] = {}
    for column, value in columns.items():
        if value in (None, "", False, {}, []):
            continue
        row[column] = (
            map_value(value)
            if isinstance(value, dict)
            else ["set", value]
            if isinstance(value, list)
            else value
        )
    return row
