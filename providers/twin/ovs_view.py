"""One node's Open vSwitch as a tree, read through the port in one transaction.

Invariant: nothing here is kept between two reads; controllers compare views, the database stays the one truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from providers.ports import Ovsdb

DATABASE = "Open_vSwitch"
INTEGRATION = "br-int"
CALL = 30.0
# What vswitchd reports: nobody reconfigures anything because of it.
REPORTED = frozenset(
    {"ofport", "error", "link_state", "admin_state", "mac_in_use", "mtu", "datapath_id", "cur_cfg"}
)
_COLUMNS = {
    "Open_vSwitch": ["_uuid", "external_ids", "next_cfg", "cur_cfg"],
    "Bridge": ["_uuid", "name", "ports", "datapath_type", "external_ids"],
    "Port": ["_uuid", "name", "interfaces", "tag", "external_ids"],
    "Interface": [
        "_uuid", "name", "type", "options", "ofport", "ofport_request", "error", "link_state", "mac_in_use",
        "external_ids", "mtu", "mtu_request",
    ],
}  # fmt: skip
_READ = [
    {"op": "select", "table": table, "where": [], "columns": columns} for table, columns in _COLUMNS.items()
]


@dataclass(frozen=True, slots=True)
class Iface:
    uuid: str
    name: str
    type: str
    peer: str
    ofport: int | None
    ofport_request: int | None
    error: str | None
    link_state: str | None
    mac_in_use: str | None
    external_ids: Mapping[str, str]
    mtu: int | None
    mtu_request: int | None

    @property
    def healthy(self) -> bool:
        return self.error is None and self.ofport is not None and self.ofport >= 0


@dataclass(frozen=True, slots=True)
class Port:
    uuid: str
    name: str
    tag: int | None
    external_ids: Mapping[str, str]
    interfaces: tuple[Iface, ...]


@dataclass(frozen=True, slots=True)
class Bridge:
    uuid: str
    name: str
    datapath: str
    external_ids: Mapping[str, str]
    ports: Mapping[str, Port]


@dataclass(frozen=True, slots=True)
class View:
    external_ids: Mapping[str, str]
    next_cfg: int
    cur_cfg: int
    bridges: Mapping[str, Bridge]

    def bridge_of(self, port: str) -> Bridge | None:
        """The bridge that holds the port of that name."""
        return next((bridge for bridge in self.bridges.values() if port in bridge.ports), None)

    def patch(self, name: str) -> Iface | None:
        """The patch interface of that name, wherever it is."""
        bridge = self.bridge_of(name)
        return next((i for i in bridge.ports[name].interfaces if i.name == name), None) if bridge else None


def members(value: Any) -> list[Any]:
    """The members of a set in the notation of the wire."""
    return value[1] if isinstance(value, list) and value[0] == "set" else [value]


def optional(value: Any) -> Any:
    return next(iter(members(value)), None)


def pairs(value: Any) -> dict[str, str]:
    return {key: item for key, item in value[1]}


def _iface(row: Mapping[str, Any]) -> Iface:
    return Iface(
        row["_uuid"][1],
        row["name"],
        row["type"],
        pairs(row["options"]).get("peer", ""),
        optional(row["ofport"]),
        optional(row["ofport_request"]),
        optional(row["error"]),
        optional(row["link_state"]),
        optional(row["mac_in_use"]),
        pairs(row["external_ids"]),
        optional(row["mtu"]),
        optional(row["mtu_request"]),
    )


def read(ovsdb: Ovsdb) -> View:
    """The node as it is now."""
    roots, bridges, ports, ifaces = (
        result["rows"] for result in ovsdb.transact(DATABASE, _READ, timeout=CALL)
    )
    by_iface = {row["_uuid"][1]: _iface(row) for row in ifaces}
    by_port = {row["_uuid"][1]: _port(row, by_iface) for row in ports}
    found = {}
    for row in sorted(bridges, key=lambda row: row["name"]):
        held = sorted((by_port[uuid] for _, uuid in members(row["ports"])), key=lambda port: port.name)
        found[row["name"]] = Bridge(
            row["_uuid"][1],
            row["name"],
            row["datapath_type"],
            pairs(row["external_ids"]),
            {p.name: p for p in held},
        )
    root = roots[0]
    return View(pairs(root["external_ids"]), root["next_cfg"], root["cur_cfg"], found)


def _port(row: Mapping[str, Any], ifaces: Mapping[str, Iface]) -> Port:
    held = tuple(ifaces[uuid] for _, uuid in members(row["interfaces"]))
    return Port(row["_uuid"][1], row["name"], optional(row["tag"]), pairs(row["external_ids"]), held)


def insert_port(
    bridge: str, port: str, interfaces: list[dict[str, Any]], columns: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The operations that add a port, with its interfaces, to an existing bridge."""
    word = symbol(port)
    names = [f"i{number}_{word}" for number in range(len(interfaces))]
    refs = ["set", [["named-uuid", name] for name in names]]
    row = {"name": port, "interfaces": refs, **(columns or {})}
    into = ["ports", "insert", ["named-uuid", f"p_{word}"]]
    return [
        {"op": "insert", "table": "Port", "uuid-name": f"p_{word}", "row": row},
        *(
            {"op": "insert", "table": "Interface", "uuid-name": name, "row": row}
            for name, row in zip(names, interfaces, strict=True)
        ),
        {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]], "mutations": [into]},
    ]


def symbol(name: str) -> str:
    """A word fit for a uuid-name, and no other name's."""
    return name.encode().hex()


def remove_port(bridge: Bridge, port: Port) -> dict[str, Any]:
    """The operation that takes a port out of its bridge; the database collects what is left of it."""
    out = ["ports", "delete", ["uuid", port.uuid]]
    return {
        "op": "mutate",
        "table": "Bridge",
        "where": [["_uuid", "==", ["uuid", bridge.uuid]]],
        "mutations": [out],
    }


BUMP = {"op": "mutate", "table": DATABASE, "where": [], "mutations": [["next_cfg", "+=", 1]]}
