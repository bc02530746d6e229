"""What people ask of nmstate: a desired state, read and checked as nmstate reads it.

Invariant: a `Desired` was accepted by nmstate's parser and by the checks that need no node; what is refused here is
refused with nmstate's own words. Only JSON is read, which is YAML too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAPPINGS = "ovn-bridge-mappings"
BRIDGE = "ovs-bridge"
INTERFACE = "ovs-interface"
ETHERNET = "ethernet"
_NOT_A_STATE = "Provide file is not valid NetworkState or NetworkPolicy: "
_STATES = ("up", "down", "absent", "unknown", "ignore")
_BOND_MODES = ("active-backup", "balance-slb", "balance-tcp", "lacp")
_ROOT = ("description", "hostname", "dns-resolver", "route-rules", "routes", "interfaces", "ovs-db", "ovn")
_BRIDGE = ("allow-extra-patch-ports", "allow-extra-ports", "options", "port", "ports")
_OPTIONS = ("stp", "rstp", "mcast-snooping-enable", "fail-mode", "datapath")
_PORT = ("name", "bond", "link-aggregation", "vlan")
_BOND = ("mode", "port", "ports", "bond-downdelay", "bond-updelay", "ovs-db")
_VLAN = ("mode", "tag", "trunk-tags", "enable-native")
_DATABASE = ("external_ids", "other_config")
_INTERFACE = frozenset(
    (
        "name", "type", "state", "bridge", "patch", "ovs-db", "profile-name", "description", "identifier",
        "mac-address", "mtu", "min-mtu", "max-mtu", "wait-ip", "ipv4", "ipv6", "mptcp", "controller",
        "accept-all-mac-addresses", "copy-mac-from", "lldp", "ethtool", "dispatch", "alt-names", "driver",
        "permanent-mac-address", "pci-address", "802.1x", "ethernet", "link-aggregation", "vlan", "veth", "dpdk",
    )
)  # fmt: skip


class NmstateError(Exception):
    """nmstate refuses, or fails. The text is what it prints last, its own prefix included."""


def invalid(text: str) -> NmstateError:
    return NmstateError(f"NmstateError: InvalidArgument: {text}")


def verification(text: str) -> NmstateError:
    return NmstateError(f"NmstateError: VerificationError: {text}")


@dataclass(frozen=True, slots=True)
class Bond:
    mode: str
    members: tuple[str, ...]
    updelay: int | None
    downdelay: int | None
    other_config: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Vlan:
    mode: str
    tag: int | None
    trunks: tuple[int, ...]
    native: bool


@dataclass(frozen=True, slots=True)
class Port:
    """One entry of `bridge.port`; what is None is left as it is on the node."""

    name: str
    vlan: Vlan | None
    bond: Bond | None
    given: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Interface:
    """One entry of `interfaces`. An empty `type` stands for every interface of that name."""

    name: str
    type: str
    state: str
    ports: tuple[Port, ...] | None
    allow_extra: bool
    options: Mapping[str, Any]
    peer: str | None
    external_ids: Mapping[str, str] | None
    other_config: Mapping[str, str] | None
    mtu: int | None


@dataclass(frozen=True, slots=True)
class Mapped:
    localnet: str
    bridge: str
    absent: bool


@dataclass(frozen=True, slots=True)
class Desired:
    """A desired state. `external_ids` and `other_config` of the switch: a None value removes a key, `purge` the rest."""

    interfaces: tuple[Interface, ...]
    mappings: tuple[Mapped, ...]
    external_ids: Mapping[str, str | None] | None
    other_config: Mapping[str, str | None] | None
    purge: frozenset[str]
    document: Mapping[str, Any]


def load(text: bytes) -> Any:
    """The JSON of a document; raises NmstateError for other text, which the twin does not read."""
    if not text.strip():
        return {}
    try:
        return json.loads(text, object_pairs_hook=_once)
    except ValueError as error:
        raise NmstateError(f"{_NOT_A_STATE}the twin reads JSON only: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise NmstateError(f"{_NOT_A_STATE}duplicate field `{key}`")
        found[key] = value
    return found


def parse(document: Any, prefix: str = _NOT_A_STATE) -> Desired:
    """Read a desired state. Raises NmstateError; `prefix` stands before what the parser complains of."""
    try:
        return _desired(document)
    except _Syntax as error:
        raise NmstateError(f"{prefix}{error}") from None


class _Syntax(Exception):
    """The parser's complaint."""


def _fields(value: Any, where: str, allowed: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _Syntax(f"{where}invalid type: {_word(value)}, expected a map")
    for key in value:
        if key not in allowed:
            raise _Syntax(f"{where}unknown field `{key}`, expected {_choice(allowed)}")
    return value


def _choice(allowed: Sequence[str]) -> str:
    quoted = [f"`{name}`" for name in allowed]
    if len(quoted) <= 2:
        return " or ".join(quoted)
    return f"one of {', '.join(quoted)}"


def _word(value: Any) -> str:
    match value:
        case None:
            return "unit value"
        case bool():
            return f"boolean `{str(value).lower()}`"
        case int():
            return f"integer `{value}`"
        case str():
            return f"string {json.dumps(value)}"
        case list():
            return "sequence"
    return "map"


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _Syntax(f"{where}invalid type: {_word(value)}, expected a sequence")
    return value


def _text(fields: Mapping[str, Any], name: str, where: str) -> str:
    if name not in fields:
        raise _Syntax(f"{where}missing field `{name}`")
    if not isinstance(fields[name], str):
        raise _Syntax(f"{where}invalid type: {_word(fields[name])}, expected a string")
    found: str = fields[name]
    return found


def _variant(value: Any, where: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise _Syntax(f"{where}unknown variant `{value}`, expected {_choice(allowed)}")
    found: str = value
    return found


def _switch(value: Any, where: str) -> bool:
    """A boolean as nmstate reads it: also 0 and 1, yes and no, in quotes too."""
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True, "y": True}
    words |= {"0": False, "false": False, "no": False, "off": False, "n": False}
    found = words.get(str(value).lower())
    if found is None:
        raise _Syntax(f"{where}Need to be boolean: 1|0|true|false|yes|no|on|off|y|n")
    return found


def _whole(value: Any, where: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise _Syntax(f"{where}invalid digit found in string") from None


def _desired(document: Any) -> Desired:
    if not isinstance(document, dict):
        raise _Syntax(f"invalid type: {_word(document)}, expected struct NetworkState")
    root = _fields(document, "", _ROOT)
    interfaces = tuple(_interface(item) for item in _list(root.get("interfaces", []), "interfaces: "))
    ids, config, purge = _database(root)
    mappings = _mappings(root.get("ovn"))
    _check_interfaces(interfaces)
    if MAPPINGS in (ids or {}):
        raise invalid(
            f"The `{MAPPINGS}` is reserved for OVN mapping, please use `ovn` section instead of `ovs-db` section"
        )
    return Desired(interfaces, mappings, ids, config, purge, document)


def _database(
    root: Mapping[str, Any],
) -> tuple[Mapping[str, str | None] | None, Mapping[str, str | None] | None, frozenset[str]]:
    """The switch-wide maps. An empty `ovs-db`, or an empty map in it, takes everything of that map away."""
    if "ovs-db" not in root:
        return None, None, frozenset()
    given = _fields(root["ovs-db"], "ovs-db: ", _DATABASE)
    purge = {name for name in _DATABASE if not given or given.get(name) == {}}
    ids, config = (_texts(given[name]) if name in given else None for name in _DATABASE)
    return ids, config, frozenset(purge)


def _texts(pairs: Mapping[str, Any]) -> dict[str, str | None]:
    return {key: None if value is None else _plain(value) for key, value in pairs.items()}


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _mappings(ovn: Any) -> tuple[Mapped, ...]:
    if ovn is None:
        return ()
    given = _fields(ovn, "ovn: ", ("bridge-mappings",))
    found: list[Mapped] = []
    for number, entry in enumerate(_list(given.get("bridge-mappings", []), "ovn.bridge-mappings: ")):
        where = f"ovn.bridge-mappings[{number}]"
        # An unknown key in an entry is ignored: that is the one place where nmstate is not strict.
        localnet = _text(entry, "localnet", f"{where}: ")
        absent = (
            _variant(entry.get("state", "present"), f"{where}.state: ", ("present", "absent")) == "absent"
        )
        found.append(Mapped(localnet, entry.get("bridge") or "", absent))
    for mapped in found:
        if sum(other.localnet == mapped.localnet for other in found) > 1:
            raise invalid(f"Found duplicate `localnet` key {mapped.localnet}")
        if not mapped.absent and not mapped.bridge:
            raise invalid(f"mapping for `localnet` key {mapped.localnet} missing the `bridge` attribute")
    return tuple(found)


def _interface(item: Any) -> Interface:
    where = "interfaces: "
    if not isinstance(item, dict):
        raise _Syntax(f"{where}invalid type: {_word(item)}, expected a map")
    for key in item:
        if key not in _INTERFACE:
            raise _Syntax(f"{where}unknown field `{key}`")
    name = _text(item, "name", where)
    bridge = _fields(item.get("bridge") or {}, where, _BRIDGE)
    listed = bridge.get("port", bridge.get("ports"))
    patch = item.get("patch")
    own = _fields(item.get("ovs-db") or {}, where, _DATABASE)
    ids, config = (_present(own[key]) if key in own else None for key in _DATABASE)
    extra = bridge.get("allow-extra-patch-ports", bridge.get("allow-extra-ports", False))
    return Interface(
        name,
        item.get("type") or "",
        _variant(item.get("state", "up"), where, _STATES),
        None if listed is None else tuple(_port(entry) for entry in _list(listed, where)),
        _switch(extra, where),
        _options(_fields(bridge.get("options") or {}, where, _OPTIONS)),
        None if patch is None else _text(_fields(patch, where, ("peer",)), "peer", where),
        ids,
        config,
        None if item.get("mtu") is None else _whole(item["mtu"], where),
    )


def _present(pairs: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in _texts(pairs).items() if value is not None}


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are set. A text for `stp` reads as true, whatever it says."""
    where = "interfaces: "
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name == "stp":
            enabled = value.get("enabled", True) if isinstance(value, dict) else value
            found[name] = True if isinstance(enabled, str) else _switch(enabled, where)
        elif name in ("rstp", "mcast-snooping-enable"):
            found[name] = _switch(value, where)
        else:
            found[name] = _plain(value)
    return found


def _port(entry: Any) -> Port:
    where = "interfaces: "
    fields = _fields(entry, where, _PORT)
    name = _text(fields, "name", where)
    vlan = fields.get("vlan")
    bond = fields.get("link-aggregation")
    return Port(
        name,
        None if vlan is None else _vlan(_fields(vlan, where, _VLAN)),
        None if bond is None else _bond(_fields(bond, where, _BOND)),
        entry,
    )


def _vlan(fields: Mapping[str, Any]) -> Vlan:
    where = "interfaces: "
    mode = _variant(fields.get("mode", "access"), where, ("trunk", "access"))
    tag = _whole(fields["tag"], where) if "tag" in fields else None
    native = _switch(fields.get("enable-native", False), where)
    trunks = tuple(_trunks(fields.get("trunk-tags") or (), where))
    if mode == "access" and trunks:
        raise invalid("Bridge VLAN filtering access mode cannot have trunk-tags defined")
    if mode == "trunk" and tag is not None and not native:
        raise invalid("Bridge VLAN filtering `tag` cannot be use in trunk mode without `enable-native`")
    return Vlan(mode, tag, trunks, native)


def _trunks(entries: Sequence[Any], where: str) -> list[int]:
    found: list[int] = []
    for entry in entries:
        fields = _fields(entry, where, ("id", "id-range"))
        if "id" in fields:
            found.append(_whole(fields["id"], where))
        else:
            ends = fields.get("id-range") or {}
            found += range(_whole(ends.get("min"), where), _whole(ends.get("max"), where) + 1)
    return found


def _bond(fields: Mapping[str, Any]) -> Bond:
    where = "interfaces: "
    members = _list(fields.get("port", fields.get("ports", [])), where)
    own = _fields(fields.get("ovs-db") or {}, where, _DATABASE)
    config = own.get("other_config")
    return Bond(
        _variant(fields["mode"], where, _BOND_MODES) if fields.get("mode") is not None else "",
        tuple(_text(_fields(member, where, ("name", "ovs-db")), "name", where) for member in members),
        _delay(fields, "bond-updelay"),
        _delay(fields, "bond-downdelay"),
        None if config is None else _present(config),
    )


def _delay(fields: Mapping[str, Any], name: str) -> int | None:
    return None if fields.get(name) is None else _whole(fields[name], "interfaces: ")


def _check_interfaces(interfaces: Sequence[Interface]) -> None:
    taken: dict[str, str] = {}
    for interface in interfaces:
        for port in interface.ports or () if interface.state == "up" else ():
            for name in port.bond.members if port.bond else (port.name,):
                if taken.setdefault(name, interface.name) != interface.name:
                    both = ", ".join(sorted((taken[name], interface.name)))
                    raise invalid(f"Port {name} is overbooked by two controller: {both}")


def policy(document: Any) -> dict[str, Any]:
    """What `nmstatectl policy` makes of a policy without captures: its state, as it is written out again.

    Raises NmstateError: for a policy with captures, which the twin does not know, and for what a state may not hold.
    """
    allowed = ("capture", "desired", "desiredState", "current")
    if not isinstance(document, dict) or set(document) - set(allowed):
        found = next((key for key in document if key not in allowed), document)
        raise NmstateError(
            "Failed to load from file, tried both YAML and JSON format. Errors: "
            f"unknown field `{found}`, expected {_choice(allowed)}"
        )
    if document.get("capture"):
        raise NmstateError("NmstateError: NotSupportedError: the twin knows no captures")
    state = document.get("desired", document.get("desiredState")) or {}
    parse(state, "NmstateError: InvalidArgument: ")
    written = {"interfaces": [], **state}
    return {key: written[key] for key in sorted(written)}
