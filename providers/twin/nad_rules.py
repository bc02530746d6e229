"""What OVN-Kubernetes takes in a NetworkAttachmentDefinition, and its words for what it does not.

Invariant: pure. A NAD of another plug-in is none of its business, which is not the same as a broken one.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

PLUGIN = "ovn-k8s-cni-overlay"
_RESERVED = ("", "default", "ovn-kubernetes")
_FOREIGN = ("joinSubnet", "reservedSubnets", "infrastructureSubnets", "defaultGatewayIPs")
_GO = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
_TYPES: Mapping[str, tuple[type, str]] = {
    "name": (str, "string"),
    "topology": (str, "string"),
    "netAttachDefName": (str, "string"),
    "physicalNetworkName": (str, "string"),
    "role": (str, "string"),
    "subnets": (str, "string"),
    "excludeSubnets": (str, "string"),
    "vlanID": (int, "int"),
    "mtu": (int, "int"),
    "allowPersistentIPs": (bool, "bool"),
}
# What all NADs of one network have to agree on.
SHARED = (
    "topology",
    "mtu",
    "vlanID",
    "allowPersistentIPs",
    "subnets",
    "excludeSubnets",
    "physicalNetworkName",
)


class Broken(Exception):
    """OVN-Kubernetes can't use this NAD; the text is what it says."""


def parse(config: object, nad: str) -> Mapping[str, Any] | None:
    """The network's config in the NAD `namespace/name`; None when it is another plug-in's. Raises Broken."""
    found, why = (
        _parsed(config, nad)
        if isinstance(config, str)
        else (None, _prefix(nad) + "unexpected end of JSON input")
    )
    if why:
        raise Broken(why)
    return found


def _prefix(nad: str) -> str:
    return f"error parsing Network Attachment Definition {nad}: "


@lru_cache(maxsize=4096)
def _parsed(config: str, nad: str) -> tuple[Mapping[str, Any] | None, str]:
    try:
        found = _load(config)
        if found is None or not found.get("topology"):
            return None, ""
    except ValueError as error:
        return None, f"{_prefix(nad)}{error}"
    return found, _invalid(found, nad)


def _load(config: str) -> dict[str, Any] | None:
    """The plug-in's config. Raises ValueError with the parser's words."""
    found = json.loads(config)
    if not isinstance(found, dict):
        raise ValueError(
            f"json: cannot unmarshal {_GO.get(type(found), 'null')} into Go value of type types.NetConf"
        )
    plugins = found.get("plugins")
    if isinstance(plugins, list) and plugins:
        ours = [one for one in plugins if isinstance(one, dict) and one.get("type") == PLUGIN]
        if not ours:
            return None
        if len(plugins) > 1:
            raise ValueError("CNI plugin chaining is not supported")
        found = {**ours[0], "name": found.get("name", ""), "cniVersion": found.get("cniVersion", "")}
    if found.get("type") != PLUGIN:
        return None
    for field, (want, called) in _TYPES.items():
        if field in found and type(found[field]) is not want:
            was = _GO.get(type(found[field]), "null")
            raise ValueError(
                f"json: cannot unmarshal {was} into Go struct field NetConf.{field} of type {called}"
            )
    if found.get("topology") and found.get("name", "") in _RESERVED:
        raise ValueError(f"invalid name in in secondary network netconf ({found.get('name', '')})")
    return found


def _invalid(found: Mapping[str, Any], nad: str) -> str:
    named = found.get("netAttachDefName", "")
    if not named:
        return "missing NADName in secondary network netconf"
    if named != nad:
        return f"net-attach-def name ({nad}) is inconsistent with config ({named})"
    if found.get("ipam"):
        return "IPAM key is not supported. Use OVN-K provided IPAM via the `subnets` attribute"
    if found["topology"] != "localnet":
        return ""
    if found.get("role", "") not in ("", "secondary"):
        return (
            f'unexpected network field "role" {found["role"]} for "localnet" topology, '
            'localnet topology supports "secondary" role only'
        )
    for field in _FOREIGN:
        if found.get(field):
            return f'unexpected network field "{field}" for "localnet" topology'
    return _excluded(found.get("subnets", ""), found.get("excludeSubnets", ""))


def _excluded(subnets: str, excluded: str) -> str:
    try:
        inside = [
            ipaddress.ip_network(one.strip(), strict=False) for one in subnets.split(",") if one.strip()
        ]
        out = [ipaddress.ip_network(one.strip(), strict=False) for one in excluded.split(",") if one.strip()]
    except ValueError as error:
        return f"invalid subnet: {error}"
    for one in out:
        if not any(one.version == net.version and one.subnet_of(net) for net in inside):  # type: ignore[arg-type]
            return f"the provided network subnets {subnets} do not contain excluded subnets {excluded}"
    return ""


def contradicts(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two NADs of the same network name describe different networks."""
    return any(one.get(field) != other.get(field) for field in SHARED)
