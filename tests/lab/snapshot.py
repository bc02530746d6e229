"""A node's OVSDB as a value that two moments can be compared by.

Invariant: what a person or a tool configured is in it; row identifiers, counters and what daemons report by
themselves are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_REPORTED = {
    "Open_vSwitch": {"cur_cfg", "next_cfg", "datapaths", "statistics"},
    "Bridge": {"datapath_id", "datapath_version", "rstp_status", "status"},
    "Port": {"bond_active_slave", "rstp_statistics", "rstp_status", "statistics", "status"},
    "Interface": {
        *("ifindex", "lacp_current", "link_resets", "mac_in_use", "ofport", "statistics", "status"),
        *("bfd_status", "cfm_fault", "cfm_fault_status", "cfm_flap_count", "cfm_health", "cfm_mpid"),
        *("cfm_remote_mpids", "cfm_remote_opstate"),
    },
}
_REPORTED_KEYS = ("ct-zone-", "ovn-nb-cfg", "ovn-startup-ts", "ovn-installed")


def normalise(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Rows by name (the one row of Open_vSwitch by "."), references as the names they lead to."""
    names = {row["_uuid"][1]: str(row.get("name", ".")) for rows in tables.values() for row in rows}
    return {
        table: {str(row.get("name", ".")): _row(row, _REPORTED[table], names) for row in rows}
        for table, rows in tables.items()
    }


def _row(row: Mapping[str, Any], reported: set[str], names: Mapping[str, str]) -> dict[str, Any]:
    kept = {column: value for column, value in row.items() if column[0] != "_" and column not in reported}
    return {column: _value(value, names) for column, value in sorted(kept.items())}


def _value(value: Any, names: Mapping[str, str]) -> Any:
    match value:
        case ["uuid", uuid]:
            return names.get(uuid, "?")
        case ["set", items]:
            return sorted((_value(item, names) for item in items), key=str)
        case ["map", pairs]:
            return {key: _value(item, names) for key, item in sorted(pairs) if not _is_reported(key)}
    return value


def _is_reported(key: object) -> bool:
    return isinstance(key, str) and key.startswith(_REPORTED_KEYS)
