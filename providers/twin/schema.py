"""The columns of the Open_vSwitch database that the twin keeps, and their JSON notation (RFC 7047 §5.1).

Invariant: `parse` accepts exactly what ovsdb-server accepts for the column, and `encode` gives back its notation.
Inside, a scalar is a str, int or bool, a set is a sorted list, a map is a dict, a UUID is its text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ZERO = "00000000-0000-0000-0000-000000000000"
UNLIMITED = 4294967295
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_PYTHON: dict[str, type] = {"string": str, "integer": int, "boolean": bool}


class OpError(Exception):
    """What ovsdb-server answers in place of one operation's result."""

    def __init__(self, error: str, details: str, syntax: str | None = None) -> None:
        super().__init__(details)
        self.body = {"error": error, "details": details}
        if syntax is not None:
            self.body["syntax"] = syntax


@dataclass(frozen=True, slots=True)
class Column:
    """One column: atoms of `atom`, as a scalar, as a set of `least` to `most`, or as a map of strings."""

    atom: str
    shape: str = "scalar"
    least: int = 1
    most: int = 1
    table: str | None = None
    choices: tuple[str, ...] = ()
    bounds: tuple[int, int | None] | None = None
    mutable: bool = True

    @property
    def default(self) -> Any:
        if self.shape == "map":
            return {}
        if self.shape == "set":
            return [ZERO] if self.least else []
        return {"string": "", "integer": 0, "boolean": False, "uuid": ZERO}[self.atom]

    def __str__(self) -> str:
        if self.shape == "map":
            return "map of (string, string) pairs"
        return f"set of {self.atom}s" if self.shape == "set" else self.atom


_MAP = Column("string", "map", 0, UNLIMITED)
_NAME = Column("string", mutable=False)
_INT = Column("integer")
_BOOL = Column("boolean")


def _optional(
    atom: str, choices: tuple[str, ...] = (), bounds: tuple[int, int | None] | None = None
) -> Column:
    return Column(atom, "set", 0, 1, choices=choices, bounds=bounds)


def _refs(table: str, least: int = 0) -> Column:
    return Column("uuid", "set", least, UNLIMITED, table=table)


_FLOWS = tuple(f"OpenFlow1{minor}" for minor in range(6))
_VLAN_MODES = ("access", "dot1q-tunnel", "native-tagged", "native-untagged", "trunk")
_LINK = ("down", "up")

TABLES: dict[str, dict[str, Column]] = {
    "Open_vSwitch": {
        "bridges": _refs("Bridge"),
        "external_ids": _MAP,
        "other_config": _MAP,
        "next_cfg": _INT,
        "cur_cfg": _INT,
        "ovs_version": _optional("string"),
        "db_version": _optional("string"),
    },
    "Bridge": {
        "name": _NAME,
        "ports": _refs("Port"),
        "datapath_type": Column("string"),
        "datapath_id": _optional("string"),
        "fail_mode": _optional("string", ("secure", "standalone")),
        "external_ids": _MAP,
        "other_config": _MAP,
        "stp_enable": _BOOL,
        "rstp_enable": _BOOL,
        "mcast_snooping_enable": _BOOL,
        "protocols": Column("string", "set", 0, UNLIMITED, choices=_FLOWS),
        "controller": _refs("Controller"),
    },
    "Port": {
        "name": _NAME,
        "interfaces": _refs("Interface", 1),
        "tag": _optional("integer", bounds=(0, 4095)),
        "trunks": Column("integer", "set", 0, 4096, bounds=(0, 4095)),
        "vlan_mode": _optional("string", _VLAN_MODES),
        "bond_mode": _optional("string", ("active-backup", "balance-slb", "balance-tcp")),
        "lacp": _optional("string", ("active", "off", "passive")),
        "bond_updelay": _INT,
        "bond_downdelay": _INT,
        "external_ids": _MAP,
        "other_config": _MAP,
    },
    "Interface": {
        "name": _NAME,
        "type": Column("string"),
        "options": _MAP,
        "ofport": _optional("integer"),
        "ofport_request": _optional("integer", bounds=(1, 65279)),
        "error": _optional("string"),
        "link_state": _optional("string", _LINK),
        "admin_state": _optional("string", _LINK),
        "mac": _optional("string"),
        "mac_in_use": _optional("string"),
        "mtu": _optional("integer"),
        "mtu_request": _optional("integer", bounds=(1, None)),
        "external_ids": _MAP,
        "other_config": _MAP,
    },
}
ROOT = "Open_vSwitch"
IDENTITY = Column("uuid", mutable=False)
NAMED = ("Bridge", "Port", "Interface")

Names = Callable[[str], str]


def text(value: Any) -> str:
    """JSON as ovsdb-server prints it in an error: compact, keys sorted."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _bad(value: Any, details: str) -> OpError:
    return OpError("syntax error", details, text(value))


def _uuid(value: Any, names: Names) -> str:
    match value:
        case ["uuid", str(found)]:
            if not _UUID.fullmatch(found):
                raise _bad(value, f'"{found}" is not a valid UUID')
            return found
        case ["named-uuid", str(name)]:
            return names(name)
    raise _bad(value, 'expected ["uuid", <string>]')


def _atom(column: Column, value: Any, names: Names) -> Any:
    if column.atom == "uuid":
        return _uuid(value, names)
    if type(value) is not _PYTHON[column.atom]:
        raise _bad(value, f"expected {column.atom}")
    if column.choices and value not in column.choices:
        allowed = ", ".join(column.choices)
        raise OpError("constraint violation", f"{value} is not one of the allowed values ([{allowed}])")
    if column.bounds is not None and isinstance(value, int):
        low, high = column.bounds
        if high is None and value < low:
            raise OpError("constraint violation", f"{value} is less than minimum allowed value {low}")
        if high is not None and not low <= value <= high:
            span = f"{low} to {high} (inclusive)"
            raise OpError("constraint violation", f"{value} is not in the valid range {span}")
    return value


def _map(column: Column, value: Any, names: Names) -> dict[str, str]:
    match value:
        case ["map", list(pairs)]:
            found: dict[str, str] = {}
            for pair in pairs:
                if not isinstance(pair, list) or len(pair) != 2:
                    raise _bad(pair, "array of 2 elements expected")
                key = _atom(column, pair[0], names)
                if key in found:
                    raise OpError("ovsdb error", "map contains duplicate key")
                found[key] = _atom(column, pair[1], names)
            return found
    raise _bad(value, 'expected ["map", <array>]')


def parse(column: Column, value: Any, names: Names, *, relaxed: bool = False) -> Any:
    """The value inside; `relaxed` lifts the limits on a set's size (the arguments of includes, insert, delete)."""
    if column.shape == "map":
        return _map(column, value, names)
    if column.shape == "scalar":
        if isinstance(value, list) and len(value) == 2 and value[0] == "set" and len(value[1]) == 1:
            value = value[1][0]
        return _atom(column, value, names)
    members = value[1] if isinstance(value, list) and len(value) == 2 and value[0] == "set" else [value]
    if not isinstance(members, list):
        raise _bad(value, "array expected")
    if not relaxed and not column.least <= len(members) <= column.most:
        limits = f"{column.least} to {column.most}"
        raise _bad(value, f"set must have {limits} members but {len(members)} are present")
    found = sorted({_atom(column, member, names) for member in members})
    if len(found) != len(members):
        raise OpError("ovsdb error", "set contains duplicate")
    return found


def encode(column: Column, value: Any) -> Any:
    """The notation of the wire: a set of exactly one element stands bare."""
    if column.shape == "map":
        return ["map", [[key, value[key]] for key in sorted(value)]]
    if column.shape == "scalar":
        return ["uuid", value] if column.atom == "uuid" else value
    members = [["uuid", member] for member in value] if column.atom == "uuid" else list(value)
    return members[0] if len(members) == 1 else ["set", members]
