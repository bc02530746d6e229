"""From NetworkManager's profiles to OVSDB transactions: what it takes out of a switch, and what it puts in.

Invariant: pure, and only rows that carry the UUID of one of NetworkManager's own profiles are ever taken away. A
bridge's row goes together with its last port, and never later: NetworkManager knows no bridge without a port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from providers.twin import ovs_view
from providers.twin.nm_profiles import (
    OWNER,
    BridgeProfile,
    PortProfile,
    Profiles,
    insert_bridge,
    insert_port,
    interface_row,
    wire,
)
from providers.twin.nmstate_state import Bridge, Port, Rows

Operations = list[dict[str, Any]]
_DEFAULTS: dict[str, Any] = {
    "bond_updelay": 0,
    "bond_downdelay": 0,
    "other_config": {},
    "stp_enable": False,
    "rstp_enable": False,
    "mcast_snooping_enable": False,
    "datapath_type": "",
}


def detach(rows: Rows, before: Profiles, after: Profiles, *, again: bool = False) -> Operations:
    """Take out the ports whose profiles are gone or have other interfaces; with `again`, all that differ at all.

    With `again` (a roll-back) a bridge's row that is left without any port goes too, when its profile comes back.
    """
    operations: Operations = []
    for name, bridge in rows.bridges.items():
        old, new = before.get(name), after.get(name)
        if again and old is None and new is not None and bridge.owner == new.uuid and not bridge.ports:
            operations.append(_delete_bridge(bridge))
        if old is None or bridge.owner != old.uuid:
            continue
        out = [bridge.ports[p.name] for p in old.ports if _is_leaving(bridge, p, new, again)]
        if out and len(out) == len(bridge.ports):
            operations.append(_delete_bridge(bridge))
        else:
            operations += [_delete_port(bridge, port) for port in out]
    return operations


def _is_leaving(bridge: Bridge, old: PortProfile, new: BridgeProfile | None, again: bool) -> bool:
    port = bridge.ports.get(old.name)
    if port is None or port.owner != old.uuid:
        return False
    then = new.port(old.name) if new is not None else None
    return then is None or (then != old if again else then.interfaces != old.interfaces)


def release(rows: Rows, profiles: Profiles) -> Operations:
    """Take out what is plugged into cards that the node no longer has."""
    operations: Operations = []
    for name, profile in profiles.items():
        bridge = rows.bridges.get(name)
        if bridge is None or bridge.owner != profile.uuid:
            continue
        out = []
        for port in profile.ports:
            held = bridge.ports.get(port.name)
            if held is None or held.owner != port.uuid:
                continue
            stay = {i.name for i in port.present(rows.nics)}
            gone = [row for row in held.interfaces if row["name"] not in stay]
            if len(gone) == len(held.interfaces):
                out.append(held)
            else:
                operations += [_delete_member(held, row) for row in gone]
        whole = out and len(out) == len(bridge.ports)
        operations += [_delete_bridge(bridge)] if whole else [_delete_port(bridge, port) for port in out]
    return operations


def _delete_member(port: Port, interface: Mapping[str, Any]) -> dict[str, Any]:
    out = [["interfaces", "delete", interface["_uuid"]]]
    return {"op": "mutate", "table": "Port", "where": _is(port.uuid), "mutations": out}


def _insert_members(port: Port, profile: PortProfile, nics: Mapping[str, str]) -> Operations:
    """The members of a bond whose cards have come back."""
    have = {row["name"] for row in port.interfaces}
    operations: Operations = []
    for number, member in enumerate(i for i in profile.present(nics) if i.name not in have):
        name = f"m{number}"
        into = [["interfaces", "insert", ["named-uuid", name]]]
        operations += [
            {"op": "insert", "table": "Interface", "uuid-name": name, "row": interface_row(member)},
            {"op": "mutate", "table": "Port", "where": _is(port.uuid), "mutations": into},
        ]
    return operations


def _delete_bridge(bridge: Bridge) -> dict[str, Any]:
    out = [["bridges", "delete", ["uuid", bridge.uuid]]]
    return {"op": "mutate", "table": ovs_view.DATABASE, "where": [], "mutations": out}


def _delete_port(bridge: Bridge, port: Port) -> dict[str, Any]:
    out = [["ports", "delete", ["uuid", port.uuid]]]
    return {"op": "mutate", "table": "Bridge", "where": _is(bridge.uuid), "mutations": out}


def _is(uuid: str) -> list[Any]:
    return [["_uuid", "==", ["uuid", uuid]]]


def attach(rows: Rows, profiles: Profiles, can_come: Callable[[PortProfile], bool]) -> Iterator[Operations]:
    """One transaction per missing port that can come. A bridge comes with the first of its ports.

    Nothing is put on a bridge whose row names another profile: NetworkManager would make a second one of that name,
    which the database refuses.
    """
    for name, profile in profiles.items():
        bridge = rows.bridges.get(name)
        if bridge is not None and bridge.owner not in (None, profile.uuid):
            continue
        held = bridge.ports if bridge is not None else {}
        missing = [port for port in profile.ports if can_come(port) and port.name not in held]
        for number, port in enumerate(missing):
            first = insert_bridge(profile) if bridge is None and number == 0 else []
            yield [*first, *insert_port(name, port, rows.nics)]
        yield from _members(held, profile, rows.nics)


def _members(
    held: Mapping[str, Port], profile: BridgeProfile, nics: Mapping[str, str]
) -> Iterator[Operations]:
    for port in profile.ports:
        there = held.get(port.name)
        members = _insert_members(there, port, nics) if there and there.owner == port.uuid else []
        if members:
            yield members


def update(rows: Rows, before: Profiles, profiles: Profiles) -> Operations:
    """Bring the rows that stay in line with their profiles, and mark those that NetworkManager takes over."""
    operations: Operations = []
    for name, profile in profiles.items():
        bridge = rows.bridges.get(name)
        if bridge is None or bridge.owner not in (None, profile.uuid):
            continue
        old = before.get(name)
        columns = {**_reset(old.columns if old else {}), **profile.columns}
        ids = columns.pop("external_ids", None)
        operations += _change("Bridge", bridge.uuid, bridge.row, columns)
        operations += _own("Bridge", bridge.uuid, bridge.row, profile.uuid, ids)
        for port in profile.ports:
            held = bridge.ports.get(port.name)
            if held is not None and held.owner in (None, port.uuid):
                operations += _update_port(held, old.port(port.name) if old else None, port)
    return operations


def _update_port(held: Port, old: PortProfile | None, profile: PortProfile) -> Operations:
    columns = {**_reset(old.columns if old else {}), **profile.columns}
    operations = _change("Port", held.uuid, held.row, columns)
    operations += _own("Port", held.uuid, held.row, profile.uuid, None)
    known = {interface.name: interface for interface in profile.interfaces}
    for row in held.interfaces:
        if row["name"] in known:
            operations += _own("Interface", row["_uuid"][1], row, known[row["name"]].uuid, None)
    return operations


def _reset(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of what a profile set before, and perhaps no longer does."""
    return {name: _DEFAULTS.get(name, []) for name in columns if name != "external_ids"}


def _change(table: str, uuid: str, row: Mapping[str, Any], columns: Mapping[str, Any]) -> Operations:
    wanted = {name: wire(value) for name, value in columns.items()}
    changed = {name: value for name, value in wanted.items() if _plain(row[name]) != _plain(value)}
    return [{"op": "update", "table": table, "where": _is(uuid), "row": changed}] if changed else []


def _plain(value: Any) -> Any:
    match value:
        case ["map", [*pairs]]:
            return dict(pairs)
        case ["set", [*members]]:
            return members
    return [value]


def _own(
    table: str, uuid: str, row: Mapping[str, Any], owner: str, ids: Mapping[str, str] | None
) -> Operations:
    have = ovs_view.pairs(row["external_ids"])
    want = {**(have if ids is None else ids), OWNER: owner}
    if want == have:
        return []
    return [{"op": "update", "table": table, "where": _is(uuid), "row": {"external_ids": wire(want)}}]
