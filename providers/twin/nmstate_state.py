"""What `nmstatectl show` says of a node: read from its database and its cards, told in nmstate's form.

Invariant: only what nmstate sees is told. A bridge that NetworkManager did not make is no `ovs-bridge` here, a VLAN tag
without `vlan_mode` is none, a patch port of OVN's is `down` although it works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from providers.twin import cards, ovs_view
from providers.twin.networks import IFACE_ID
from providers.twin.nm_profiles import INTERNAL, OWNER, PATCH
from providers.twin.nmstate_documents import BRIDGE, ETHERNET, INTERFACE, MAPPINGS, invalid
from providers.twin.ovs_view import CALL, DATABASE, INTEGRATION
from providers.twin.stage import Stage

GATEWAY = "198.51.100.1"
NAME_SERVER = "198.51.100.53"
"""Every node's way out: a host that is on no network of VMs."""

_WAY_OUT = {
    "destination": "0.0.0.0/0",
    "next-hop-address": GATEWAY,
    "next-hop-interface": "br-ex",
    "metric": 48,
    "table-id": 254,
}
_TABLES = (DATABASE, "Bridge", "Port", "Interface")
_SELECT = [{"op": "select", "table": table, "where": []} for table in _TABLES]


@dataclass(frozen=True, slots=True)
class Rows:
    """The node's switch, as the tree that the rows form, and its cards."""

    node: str
    external_ids: Mapping[str, str]
    other_config: Mapping[str, str]
    bridges: Mapping[str, Bridge]
    nics: Mapping[str, str]
    mtus: Mapping[str, int]
    most_mtus: Mapping[str, int]

    def holder(self, port: str) -> str | None:
        """The bridge that holds the port of that name."""
        return next((name for name, bridge in self.bridges.items() if port in bridge.ports), None)


@dataclass(frozen=True, slots=True)
class Bridge:
    uuid: str
    row: Mapping[str, Any]
    ports: Mapping[str, Port]

    @property
    def owner(self) -> str | None:
        """The profile that NetworkManager made the bridge for."""
        return ovs_view.pairs(self.row["external_ids"]).get(OWNER)


@dataclass(frozen=True, slots=True)
class Port:
    uuid: str
    row: Mapping[str, Any]
    interfaces: tuple[Mapping[str, Any], ...]

    @property
    def owner(self) -> str | None:
        return ovs_view.pairs(self.row["external_ids"]).get(OWNER)


def read(stage: Stage, node: str) -> Rows:
    """The node as it is now."""
    roots, bridges, ports, interfaces = (
        result["rows"] for result in stage.ovsdb(node).transact(DATABASE, _SELECT, timeout=CALL)
    )
    by_interface = {row["_uuid"][1]: row for row in interfaces}
    by_port = {row["_uuid"][1]: row for row in ports}
    found = {}
    for row in sorted(bridges, key=lambda row: str(row["name"])):
        held = sorted(
            (by_port[uuid] for _, uuid in ovs_view.members(row["ports"])), key=lambda p: str(p["name"])
        )
        found[row["name"]] = Bridge(row["_uuid"][1], row, {p["name"]: _port(p, by_interface) for p in held})
    root = roots[0]
    ids, config = (ovs_view.pairs(root[name]) for name in ("external_ids", "other_config"))
    mtus, most = cards.mtus(stage, node), cards.most(stage, node)
    return Rows(node, ids, config, found, dict(stage.nics(node)), mtus, most)


def _port(row: Mapping[str, Any], interfaces: Mapping[str, Mapping[str, Any]]) -> Port:
    held = tuple(interfaces[uuid] for _, uuid in ovs_view.members(row["interfaces"]))
    return Port(row["_uuid"][1], row, tuple(sorted(held, key=lambda i: str(i["name"]))))


def mapped(value: str) -> dict[str, str]:
    """The pairs of `ovn-bridge-mappings` as nmstate reads them. Raises NmstateError for a malformed entry.

    A blank is part of the name that it stands beside; an empty entry is passed over.
    """
    found = {}
    for entry in value.split(","):
        if not entry:
            continue
        parts = entry.split(":")
        if len(parts) != 2:
            raise invalid(
                f"Cannot convert {entry} to OvnBridgeMapping, expected format is `<localnet>:<bridge>`"
            )
        found[parts[0]] = parts[1]
    return found


def show(rows: Rows) -> dict[str, Any]:
    """The whole state. Raises NmstateError when the node's mapping is malformed."""
    pairs = mapped(rows.external_ids.get(MAPPINGS, ""))
    mappings = [{"localnet": localnet, "bridge": bridge} for localnet, bridge in sorted(pairs.items())]
    ids = {key: value for key, value in sorted(rows.external_ids.items()) if key != MAPPINGS}
    return {
        "hostname": {"running": rows.node, "config": rows.node},
        "dns-resolver": {"running": {"server": [NAME_SERVER]}, "config": {}},
        "route-rules": {"config": []},
        "routes": {"running": [_WAY_OUT], "config": []},
        "interfaces": _interfaces(rows),
        "ovs-db": {"external_ids": ids, "other_config": dict(sorted(rows.other_config.items()))},
        "ovn": {"bridge-mappings": mappings} if mappings else {},
    }


def _interfaces(rows: Rows) -> list[dict[str, Any]]:
    found = [_card(rows, name) for name in rows.nics]
    found.append({"name": "lo", "type": "loopback", "state": "up"})
    for name, bridge in rows.bridges.items():
        if bridge.owner is not None:
            found.append(_bridge(name, bridge))
        found += [
            _interface(name, port, interface)
            for port in bridge.ports.values()
            for interface in port.interfaces
            if interface["type"] in (INTERNAL, PATCH) and not _is_guest(interface)
        ]
    return sorted(found, key=lambda item: (item["name"], item["type"]))


def _is_guest(interface: Mapping[str, Any]) -> bool:
    return IFACE_ID in ovs_view.pairs(interface["external_ids"])


def _card(rows: Rows, name: str) -> dict[str, Any]:
    holder = next(
        (b for b, bridge in rows.bridges.items() for p in bridge.ports.values() if name in _names(p)), None
    )
    state: dict[str, Any] = {
        "name": name,
        "type": ETHERNET,
        "state": "up" if rows.nics[name] == "up" else "down",
    }
    if name in rows.mtus:
        state |= {"mtu": rows.mtus[name], "max-mtu": rows.most_mtus[name]}
    return {**state, "controller": holder} if holder else state


def _names(port: Port) -> list[str]:
    return [interface["name"] for interface in port.interfaces]


def _interface(bridge: str, port: Port, interface: Mapping[str, Any]) -> dict[str, Any]:
    """An internal or patch port. What NetworkManager did not make is `down`, and OVN's own `br-int` ignored."""
    name = interface["name"]
    state: dict[str, Any] = {"name": name, "type": INTERFACE}
    if OWNER in ovs_view.pairs(interface["external_ids"]):
        state |= {"profile-name": f"{name}-if", "state": "up"}
    else:
        state["state"] = "ignore" if name == INTEGRATION else "down"
    address = ovs_view.optional(interface["mac_in_use"])
    if address and interface["type"] == INTERNAL:
        state["mac-address"] = address.upper()
    state["controller"] = bridge
    if interface["type"] == PATCH:
        state["patch"] = {"peer": ovs_view.pairs(interface["options"]).get("peer", "")}
    return state


def _bridge(name: str, bridge: Bridge) -> dict[str, Any]:
    row = bridge.row
    return {
        "name": name,
        "type": BRIDGE,
        "profile-name": f"{name}-br",
        "state": "up",
        "ovs-db": _database(row),
        "bridge": {
            "options": {
                "stp": {"enabled": row["stp_enable"]},
                "rstp": row["rstp_enable"],
                "mcast-snooping-enable": row["mcast_snooping_enable"],
                "fail-mode": ovs_view.optional(row["fail_mode"]) or "",
                "datapath": row["datapath_type"],
            },
            "port": [_listed(name, port) for name, port in bridge.ports.items()],
        },
    }


def _database(row: Mapping[str, Any]) -> dict[str, Any]:
    ids = {
        key: value for key, value in ovs_view.pairs(row["external_ids"]).items() if not key.startswith("NM.")
    }
    return {"external_ids": ids, "other_config": ovs_view.pairs(row["other_config"])}


def _listed(name: str, port: Port) -> dict[str, Any]:
    """One entry of `bridge.port`. A bond is only one while it has more than one member."""
    entry: dict[str, Any] = {"name": name}
    vlan = _vlan(port.row)
    if vlan:
        entry["vlan"] = vlan
    if len(port.interfaces) > 1:
        entry["link-aggregation"] = _bond(port)
    return entry


def _vlan(row: Mapping[str, Any]) -> dict[str, Any]:
    mode, tag = ovs_view.optional(row["vlan_mode"]), ovs_view.optional(row["tag"])
    trunks = [{"id": number} for number in ovs_view.members(row["trunks"])]
    match mode:
        case "access":
            return {"mode": "access", **({} if tag is None else {"tag": tag})}
        case "trunk":
            return {"mode": "trunk", "trunk-tags": trunks}
        case "native-untagged" | "native-tagged":
            native = {} if tag is None else {"tag": tag}
            return {"mode": "trunk", "enable-native": True, **native, "trunk-tags": trunks}
    return {}


def _bond(port: Port) -> dict[str, Any]:
    row = port.row
    mode = "lacp" if ovs_view.optional(row["lacp"]) == "active" else ovs_view.optional(row["bond_mode"])
    found = {"mode": mode} if mode else {}
    found["port"] = [{"name": name} for name in _names(port)]
    for name, column in (("bond-updelay", "bond_updelay"), ("bond-downdelay", "bond_downdelay")):
        if row.get(column):
            found[name] = row[column]
    return {**found, "ovs-db": _database(row)}
