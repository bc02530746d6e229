"""NetworkManager's profiles of OVS bridges, and the rows it writes for them.

Invariant: nothing here does anything. A row made for a profile carries the profile's UUID, on the Bridge, the Port
and the Interface alike: by that NetworkManager knows its own again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from providers.twin import ovs_view

OWNER = "NM.connection.uuid"
SYSTEM = "system"
INTERNAL = "internal"
PATCH = "patch"


@dataclass(frozen=True, slots=True)
class InterfaceProfile:
    name: str
    uuid: str
    type: str
    peer: str = ""


@dataclass(frozen=True, slots=True)
class PortProfile:
    """A port. `columns` are those of its row that the profile sets, in plain values."""

    name: str
    uuid: str
    interfaces: tuple[InterfaceProfile, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)

    def present(self, nics: Mapping[str, str]) -> tuple[InterfaceProfile, ...]:
        """The interfaces that can be there: all but the cards that the node does not have."""
        return tuple(i for i in self.interfaces if i.type != SYSTEM or i.name in nics)

    def comes_by_itself(self, nics: Mapping[str, str]) -> bool:
        """Whether NetworkManager puts the port back unasked: it needs a card that is there, or a patch port."""
        return any(i.type == PATCH or (i.type == SYSTEM and i.name in nics) for i in self.interfaces)

    def can_come(self, nics: Mapping[str, str]) -> bool:
        return bool(self.present(nics))


@dataclass(frozen=True, slots=True)
class BridgeProfile:
    name: str
    uuid: str
    ports: tuple[PortProfile, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)

    def port(self, name: str) -> PortProfile | None:
        return next((port for port in self.ports if port.name == name), None)


Profiles = Mapping[str, BridgeProfile]


def to_json(profiles: Profiles) -> dict[str, Any]:
    return {name: _plain(asdict(profile)) for name, profile in profiles.items()}


def _plain(value: Any) -> Any:
    """JSON has no tuples; what is kept must equal what is read back."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def from_json(kept: Mapping[str, Any]) -> dict[str, BridgeProfile]:
    return {name: _bridge(found) for name, found in kept.items()}


def _bridge(found: Mapping[str, Any]) -> BridgeProfile:
    ports = tuple(_port(port) for port in found["ports"])
    return BridgeProfile(found["name"], found["uuid"], ports, found["columns"])


def _port(found: Mapping[str, Any]) -> PortProfile:
    interfaces = tuple(InterfaceProfile(**interface) for interface in found["interfaces"])
    return PortProfile(found["name"], found["uuid"], interfaces, found["columns"])


def _pairs(values: Mapping[str, str]) -> list[Any]:
    return ["map", [[key, value] for key, value in sorted(values.items())]]


def wire(value: Any) -> Any:
    """A column's plain value in the notation of the wire."""
    if isinstance(value, Mapping):
        return _pairs(value)
    return ["set", value] if isinstance(value, list) else value


def bridge_row(profile: BridgeProfile) -> dict[str, Any]:
    """The columns that NetworkManager sets on the bridge's row."""
    columns = dict(profile.columns)
    ids = {**columns.pop("external_ids", {}), OWNER: profile.uuid}
    return {name: wire(value) for name, value in columns.items()} | {"external_ids": _pairs(ids)}


def port_row(profile: PortProfile) -> dict[str, Any]:
    columns = {name: wire(value) for name, value in profile.columns.items()}
    return {**columns, "external_ids": _pairs({OWNER: profile.uuid})}


def interface_row(profile: InterfaceProfile) -> dict[str, Any]:
    row = {"name": profile.name, "type": profile.type, "external_ids": _pairs({OWNER: profile.uuid})}
    return {**row, "options": _pairs({"peer": profile.peer})} if profile.peer else row


def insert_bridge(profile: BridgeProfile) -> list[dict[str, Any]]:
    """The operations that make the bridge's row, without ports."""
    name = f"b_{ovs_view.symbol(profile.name)}"
    row = {"name": profile.name, **bridge_row(profile)}
    link = [["bridges", "insert", ["named-uuid", name]]]
    return [
        {"op": "insert", "table": "Bridge", "uuid-name": name, "row": row},
        {"op": "mutate", "table": ovs_view.DATABASE, "where": [], "mutations": link},
    ]


def insert_port(bridge: str, profile: PortProfile, nics: Mapping[str, str]) -> list[dict[str, Any]]:
    """The operations that put the port on an existing bridge, with those of its interfaces that there are."""
    present = profile.present(nics)
    return ovs_view.insert_port(bridge, profile.name, [interface_row(i) for i in present], port_row(profile))
