"""nmstate's own reasoning: from a desired state and what is on the node, what NetworkManager and OVSDB are to be given.

Invariant: pure. `intend` decides everything from what was read at the start of an apply, as nmstate does: what changed
on the node since then, a mapping too, is not noticed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from providers.twin import versions
from providers.twin.nm_profiles import (
    INTERNAL,
    PATCH,
    SYSTEM,
    BridgeProfile,
    InterfaceProfile,
    PortProfile,
    Profiles,
)
from providers.twin.nmstate_documents import (
    BRIDGE,
    ETHERNET,
    INTERFACE,
    MAPPINGS,
    Bond,
    Desired,
    Interface,
    NmstateError,
    Port,
    Vlan,
    invalid,
    verification,
)
from providers.twin.nmstate_state import Rows, mapped
from providers.twin.ovs_view import DATABASE

_CARDS = (ETHERNET, "veth")
_MOST_TAG = 4095
_INVALID_PROPERTY = "NmstateError: InvalidArgument: Connection(InvalidProperty):"
Mint = Callable[[], str]
State = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Intent:
    """What one apply does: the profiles as they will be, what is written into the root row, what NM will refuse."""

    profiles: Profiles
    root: tuple[Mapping[str, Any], ...]
    refusal: str


def intend(
    desired: Desired, rows: Rows, shown: State, profiles: Profiles, version: str, mint: Mint
) -> Intent:
    """Merge and check. Raises NmstateError when nmstate refuses before it has touched anything."""
    _check_cards(desired, rows)
    if versions.checks_mapped_bridge(version):
        _check_mapped(desired, shown)
    after = dict(profiles)
    for interface in desired.interfaces:
        if interface.state == "absent":
            _take_away(after, interface, shown)
    for interface in desired.interfaces:
        if interface.state == "up" and interface.type == BRIDGE:
            after[interface.name] = _Merge(desired, rows, after, mint).bridge(interface)
            _leave_others(after, interface.name)
    for interface in desired.interfaces:
        if interface.state == "up" and interface.peer is not None:
            _repeer(after, interface)
    return Intent(after, tuple(_root(desired, rows, version)), _refusal(desired, after))


def _check_cards(desired: Desired, rows: Rows) -> None:
    nics = rows.nics
    for interface in desired.interfaces:
        if interface.state in ("down", "unknown"):
            raise _unknown(f"no interface whose state is {interface.state}")
        if interface.state == "up" and interface.type in (*_CARDS, "") and interface.name not in nics:
            raise invalid(f"Ethernet interface {interface.name} does not exists")
        most = rows.most_mtus.get(interface.name)
        if interface.mtu is not None and most is not None and interface.mtu > most:
            raise invalid(
                f"Desired MTU {interface.mtu} for interface {interface.name} bigger than maximum allowed MTU {most}"
            )
        if interface.type not in (*_CARDS, BRIDGE, INTERFACE, "loopback", ""):
            raise _unknown(f"no interfaces of type {interface.type}")
        if interface.state == "absent" and interface.type != BRIDGE and interface.name in nics:
            raise _unknown(f"no way to take the card {interface.name} away")


def _unknown(what: str) -> NmstateError:
    return NmstateError(f"NmstateError: NotSupportedError: the twin knows {what}")


def _check_mapped(desired: Desired, shown: State) -> None:
    known = {i["name"] for i in shown["interfaces"] if i["type"] == BRIDGE}
    states = {i.name: i.state for i in desired.interfaces if i.type in (BRIDGE, "")}
    for mapping in desired.mappings:
        if mapping.absent:
            continue
        if states.get(mapping.bridge) == "absent":
            raise invalid(
                f"The OVS bridge {mapping.bridge} used for OVN localnet {mapping.localnet} is marked as absent"
            )
        if mapping.bridge not in known and states.get(mapping.bridge) != "up":
            raise invalid(
                "There is no OVS bridge holding name desired by OVN bridge "
                f"{mapping.bridge} localnet {mapping.localnet}"
            )


def _refusal(desired: Desired, after: Profiles) -> str:
    """What NetworkManager says of a profile that it is given; nmstate itself sees nothing wrong with these."""
    tags = [
        p.vlan.tag for i in desired.interfaces for p in i.ports or () if p.vlan and p.vlan.tag is not None
    ]
    if not all(0 <= tag <= _MOST_TAG for tag in tags):
        return _INVALID_PROPERTY + (
            "ovs-port.tag: failed to set property: "
            "ovs-port.tag: value of type 'u' is invalid or out of range for property 'tag'"
        )
    held = {i.name for profile in after.values() for port in profile.ports for i in port.interfaces}
    if any(i.state == "up" and i.type == INTERFACE and i.name not in held for i in desired.interfaces):
        return _INVALID_PROPERTY + (
            "connection.controller: A connection with a 'ovs-interface' setting must have a controller."
        )
    return ""


def _take_away(after: dict[str, BridgeProfile], interface: Interface, shown: State) -> None:
    """Delete the profiles of what nmstate sees under that name. What it does not see is absent already."""
    seen = {i["type"] for i in shown["interfaces"] if i["name"] == interface.name}
    if BRIDGE in seen and interface.type in (BRIDGE, ""):
        after.pop(interface.name, None)
    if interface.type in (INTERFACE, ""):
        for name, profile in after.items():
            after[name] = replace(profile, ports=tuple(p for p in profile.ports if p.name != interface.name))


def _leave_others(after: dict[str, BridgeProfile], bridge: str) -> None:
    """An interface has one bridge: what this one takes leaves the bridge it was on."""
    taken = {i.name for port in after[bridge].ports for i in port.interfaces}
    for name, profile in after.items():
        if name != bridge:
            kept = tuple(p for p in profile.ports if not taken & {i.name for i in p.interfaces})
            after[name] = replace(profile, ports=kept)


def _repeer(after: dict[str, BridgeProfile], interface: Interface) -> None:
    for name, profile in after.items():
        port = profile.port(interface.name)
        if port is not None:
            (one,) = port.interfaces
            turned = replace(port, interfaces=(replace(one, type=PATCH, peer=interface.peer or ""),))
            after[name] = replace(profile, ports=tuple(turned if p is port else p for p in profile.ports))


@dataclass(frozen=True, slots=True)
class _Merge:
    """Desired bridges over the profiles that there are."""

    desired: Desired
    rows: Rows
    profiles: Profiles
    mint: Mint

    def bridge(self, wanted: Interface) -> BridgeProfile:
        old = self.profiles.get(wanted.name) or self._unmanaged(wanted.name)
        columns = {**(old.columns if old else {}), **_bridge_columns(wanted)}
        uuid = old.uuid if old else self.mint()
        if wanted.ports is None and old is not None:
            return BridgeProfile(wanted.name, uuid, old.ports, columns)
        # A bridge of NetworkManager's lives by its ports: one without any is given an internal one.
        listed = wanted.ports or (Port(wanted.name, None, None, {"name": wanted.name}),)
        ports = tuple(self.port(port, old.port(port.name) if old else None) for port in listed)
        return BridgeProfile(wanted.name, uuid, tuple(p for p in ports if p is not None), columns)

    def _unmanaged(self, name: str) -> BridgeProfile | None:
        """A bridge that is there and not NetworkManager's: its profile starts empty, the row is taken over."""
        return BridgeProfile(name, self.mint(), ()) if name in self.rows.bridges else None

    def port(self, wanted: Port, old: PortProfile | None) -> PortProfile | None:
        """The profile of one entry; None for a port of OVN's, which nobody but OVN can make."""
        if old is None and self._is_foreign_patch(wanted.name):
            return None
        names = wanted.bond.members if wanted.bond else (wanted.name,)
        if wanted.bond is None and old is not None and len(old.interfaces) > 1:
            names = tuple(i.name for i in old.interfaces)
        columns = dict(old.columns) if old else {}
        if wanted.vlan is not None:
            for name in ("tag", "vlan_mode", "trunks"):
                columns.pop(name, None)
            columns |= _vlan_columns(wanted.vlan)
        if wanted.bond is not None:
            columns |= _bond_columns(wanted.bond)
        known = {i.name: i for i in old.interfaces} if old else {}
        interfaces = tuple(self.interface(name, known.get(name)) for name in sorted(names))
        return PortProfile(wanted.name, old.uuid if old else self.mint(), interfaces, columns)

    def _is_foreign_patch(self, name: str) -> bool:
        holder = self.rows.holder(name)
        port = self.rows.bridges[holder].ports[name] if holder else None
        given = any(i.name == name and i.type == INTERFACE for i in self.desired.interfaces)
        return port is not None and not given and port.owner is None and port.interfaces[0]["type"] == PATCH

    def interface(self, name: str, old: InterfaceProfile | None) -> InterfaceProfile:
        """A name that no card has becomes an internal port: nmstate asks nobody whether it was mistyped."""
        peer = next((i.peer for i in self.desired.interfaces if i.name == name and i.peer is not None), None)
        kind = PATCH if peer is not None else SYSTEM if name in self.rows.nics else INTERNAL
        if peer is None and old is not None and old.type == PATCH:
            return old
        if old is not None and (old.type, old.peer) == (kind, peer or ""):
            return old
        return InterfaceProfile(name, self.mint(), kind, peer or "")


def _bridge_columns(wanted: Interface) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, column in (
        ("stp", "stp_enable"),
        ("rstp", "rstp_enable"),
        ("mcast-snooping-enable", "mcast_snooping_enable"),
        ("datapath", "datapath_type"),
    ):
        if name in wanted.options:
            columns[column] = wanted.options[name]
    if "fail-mode" in wanted.options:
        columns["fail_mode"] = wanted.options["fail-mode"] or []
    for column, value in (("external_ids", wanted.external_ids), ("other_config", wanted.other_config)):
        if value is not None:
            columns[column] = dict(value)
    return columns


def _vlan_columns(vlan: Vlan) -> dict[str, Any]:
    if vlan.mode == "access":
        return {"vlan_mode": "access", **({} if vlan.tag is None else {"tag": vlan.tag})}
    trunks = {"trunks": list(vlan.trunks)} if vlan.trunks else {}
    if not vlan.native:
        return {"vlan_mode": "trunk", **trunks}
    return {"vlan_mode": "native-untagged", **trunks, **({} if vlan.tag is None else {"tag": vlan.tag})}


def _bond_columns(bond: Bond) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    match bond.mode:
        case "balance-slb" | "active-backup":
            columns = {"bond_mode": bond.mode, "lacp": "off"}
        case "balance-tcp":
            columns = {"bond_mode": bond.mode, "lacp": "active"}
        case "lacp":
            columns = {"bond_mode": [], "lacp": "active"}
    for column, delay in (("bond_updelay", bond.updelay), ("bond_downdelay", bond.downdelay)):
        if delay is not None:
            columns[column] = delay
    if bond.other_config is not None:
        columns["other_config"] = dict(bond.other_config)
    return columns


def _root(desired: Desired, rows: Rows, version: str) -> list[dict[str, Any]]:
    """The operations on the root row: none when nothing changes of what was read."""
    ids = _changed(rows.external_ids, desired.external_ids, "external_ids" in desired.purge)
    value = rows.external_ids.get(MAPPINGS)
    ids.pop(MAPPINGS, None)
    merged = _merged_mapping(desired, value or "")
    if merged is not None:
        ids[MAPPINGS] = merged or None
    config = _changed(rows.other_config, desired.other_config, "other_config" in desired.purge)
    if not ids and not config:
        return []
    if versions.writes_single_keys(version):
        return [
            _mutated(name, found)
            for name, found in (("external_ids", ids), ("other_config", config))
            if found
        ]
    whole = {"external_ids": {**rows.external_ids, **ids}, "other_config": {**rows.other_config, **config}}
    row = {
        name: ["map", [[key, item] for key, item in found.items() if item is not None]]
        for name, found in whole.items()
    }
    return [{"op": "update", "table": DATABASE, "where": [], "row": row}]


def _merged_mapping(desired: Desired, value: str) -> str | None:
    """The whole new value, sorted by localnet; None when it stays what it is."""
    before = mapped(value)
    after = dict(before)
    for mapping in desired.mappings:
        if mapping.absent:
            after.pop(mapping.localnet, None)
        else:
            after[mapping.localnet] = mapping.bridge
    if after == before:
        return None
    return ",".join(f"{localnet}:{bridge}" for localnet, bridge in sorted(after.items()))


def _changed(
    have: Mapping[str, str], want: Mapping[str, str | None] | None, purge: bool
) -> dict[str, str | None]:
    after = dict(want or {})
    if purge:
        after = {**dict.fromkeys(have), **after}
    return {key: value for key, value in after.items() if have.get(key) != value}


def _mutated(column: str, changes: Mapping[str, str | None]) -> dict[str, Any]:
    put = [[key, value] for key, value in sorted(changes.items()) if value is not None]
    mutations: list[list[Any]] = [[column, "delete", ["set", sorted(changes)]]]
    if put:
        mutations.append([column, "insert", ["map", put]])
    return {"op": "mutate", "table": DATABASE, "where": [], "mutations": mutations}


def verify(desired: Desired, shown: State) -> None:
    """Compare what is there with what was wanted. Raises NmstateError."""
    for interface in desired.interfaces:
        found = [
            i
            for i in shown["interfaces"]
            if i["name"] == interface.name and interface.type in (i["type"], "")
        ]
        if interface.state == "absent" and found:
            raise _still_found(found[0])
        if interface.state != "up":
            continue
        if not found:
            raise verification(
                f"Verification failure: {interface.name}.interface desire found, current missing"
            )
        if interface.mtu is not None and found[0].get("mtu") != interface.mtu:
            raise _failure(f"{interface.name}.interface.mtu", interface.mtu, found[0].get("mtu"))
        if interface.ports is not None:
            _verify_ports(interface, found, shown)
        if interface.peer is not None and found[0].get("patch", {}).get("peer") != interface.peer:
            where = f"{interface.name}.interface.patch.peer"
            raise _failure(where, interface.peer, found[0].get("patch", {}).get("peer"))
    _verify_mappings(desired, shown)


def _still_found(found: State) -> NmstateError:
    rust = "OvsBridge(OvsBridgeInterface" if found["type"] == BRIDGE else "OvsInterface(OvsInterface"
    base = f'BaseInterface {{ name: "{found["name"]}", profile_name: None, description: None, state: Up }}'
    return verification(
        f"Absent/Down interface {found['name']}/{found['type']} still found as {rust} {{ base: {base} }})"
    )


def _failure(where: str, desire: Any, current: Any) -> NmstateError:
    want, have = (json.dumps(value, separators=(",", ":")) for value in (desire, current))
    return verification(f"Verification failure: {where} desire '{want}', current '{have}'")


def _verify_ports(interface: Interface, found: Sequence[State], shown: State) -> None:
    bridge = next((i for i in found if i["type"] == BRIDGE), None)
    current = list(bridge["bridge"]["port"]) if bridge else []
    wanted = {port.name: port for port in interface.ports or ()}
    if interface.allow_extra:
        patches = {i["name"] for i in shown["interfaces"] if "patch" in i}
        current = [port for port in current if port["name"] in wanted or port["name"] not in patches]
    if not interface.ports:
        current = [port for port in current if port["name"] != interface.name]
    same = {port["name"] for port in current} == set(wanted)
    if not same or not all(_agrees(wanted[port["name"]], port) for port in current):
        desire = sorted((port.given for port in wanted.values()), key=lambda port: str(port["name"]))
        raise _failure(f"{interface.name}.interface.bridge.port", desire, current)


def _agrees(wanted: Port, current: State) -> bool:
    if wanted.vlan is not None and current.get("vlan", {}).get("tag") != wanted.vlan.tag:
        return False
    bond = current.get("link-aggregation")
    if wanted.bond is None or bond is None:
        return wanted.bond is None or len(wanted.bond.members) < 2
    config = bond["ovs-db"]["other_config"]
    return (
        wanted.bond.mode in ("", bond.get("mode"))
        and {port["name"] for port in bond["port"]} == set(wanted.bond.members)
        and (wanted.bond.other_config is None or dict(wanted.bond.other_config) == config)
    )


def _verify_mappings(desired: Desired, shown: State) -> None:
    """Only what was to be there is looked for: a mapping to be absent is not."""
    current = {m["localnet"]: m["bridge"] for m in shown["ovn"].get("bridge-mappings", ())}
    for mapping in desired.mappings:
        if not mapping.absent and current.get(mapping.localnet) != mapping.bridge:
            where = f"ovn.bridge-mappings.{mapping.localnet}"
            raise _failure(where, mapping.bridge, current.get(mapping.localnet))
