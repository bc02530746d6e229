"""What OVN-Kubernetes takes as a localnet NetworkAttachmentDefinition, and what is wrong with one that it does not.

The API server takes any text as `spec.config`; OVN-Kubernetes refuses what it can't use with an event, and does not try
again (H25). The one invariant: two configurations are the same when OVN-Kubernetes makes the same network of both, however
they are written. Imports nothing of ours: these are its rules. Source: docs/desired-state.md names each.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

Config = Mapping[str, Any]

PLUGIN = "ovn-k8s-cni-overlay"
CNI_VERSION = "0.4.0"
TOPOLOGY = "localnet"
LOWEST_VLAN, HIGHEST_VLAN = 1, 4094

GLOBAL_NAMESPACES = ("default", "openshift-cnv", "openshift-multus", "openshift-sriov-network-operator")
"""Whose NADs may be used from every namespace, where Multus isolates namespaces."""

RESERVED_NAMES = ("", "default", "ovn-kubernetes")
_REFUSED = ("joinSubnet", "reservedSubnets", "infrastructureSubnets", "defaultGatewayIPs")
_TEXTS = ("name", "topology", "netAttachDefName", "physicalNetworkName", "role", "subnets", "excludeSubnets")
_SHARED = (
    "topology",
    "mtu",
    "vlanID",
    "allowPersistentIPs",
    "subnets",
    "excludeSubnets",
    "physicalNetworkName",
)
"""What all NADs of one network name have to agree on."""

_OURS = {*_SHARED, *_REFUSED, "cniVersion", "type", "name", "netAttachDefName", "role", "ipam", "plugins"}
"""The fields that a desired configuration rules over; whatever else somebody wrote stays as it is."""


_OTHERS = (
    "capabilities",
    "cniVersions",
    "dns",
    "ipMasq",
    "prevResult",
    "runtimeConfig",
    "args",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
    "cniRequestTimeout",
    "deviceID",
    "logFile",
    "logLevel",
    "logfile-maxsize",
    "logfile-maxbackups",
    "logfile-maxage",
    "transport",
    "transitSubnet",
    "outboundSNAT",
    "evpn",
    "uplink",
)
"""Keys that CNI (its specification 1.1) or OVN-Kubernetes (its NetConf) know too, and that say nothing of a localnet."""

_SPELT: dict[str, str] = {key.lower(): key for key in sorted({*_OURS, *_OTHERS})}


def read_config(text: object) -> Config:
    """`spec.config` as JSON, each key as OVN-Kubernetes spells it. Raises ValueError, in words for people, when it is none.

    OVN-Kubernetes reads it by Go's encoding/json, which takes keys in any case; of two that differ by it the last one counts.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError("spec.config is empty")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"spec.config is not JSON: {error}") from error
    except RecursionError as error:
        raise ValueError("spec.config is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("spec.config is not a JSON object")
    config: dict[str, Any] = found
    return {_SPELT.get(key.lower(), key): value for key, value in config.items()}


def written(config: Config) -> str:
    """A configuration as the text of `spec.config`."""
    return json.dumps(config, indent=2)


def localnet_of(config: Config) -> str:
    """The localnet that a configuration is on: its own name, unless it says otherwise."""
    return str(config.get("physicalNetworkName") or config.get("name") or "")


def is_ours_to_judge(config: Config) -> bool:
    """Whether OVN-Kubernetes would take a NAD for one of its own. The others are some other plug-in's."""
    plugins = config.get("plugins")
    entries = plugins if isinstance(plugins, list) else [config]
    return any(isinstance(entry, dict) and entry.get("type") == PLUGIN for entry in entries)


def faults(config: Config, nad: str) -> list[str]:
    """Everything for which OVN-Kubernetes would refuse or mistake the NAD `namespace/name`, each with its field."""
    if "plugins" in config:
        return [
            "plugins: a list of plug-ins is not supported (no chaining). Write the fields of the one plug-in"
        ]
    return [
        *_misshapen(config),
        *_misnamed(config, nad),
        *_unsupported(config),
        *_bad_numbers(config),
        *_bad_subnets(config),
    ]


def misspelt(config: Config) -> Iterator[str]:
    """The keys that OVN-Kubernetes ignores and that resemble one that it knows: the network is made all the same."""
    for field in config:
        near = get_close_matches(field.lower(), _SPELT, 1) if field.lower() not in _SPELT else []
        if near:
            yield f"{field}: OVN-Kubernetes knows no such key, and would ignore it; did you mean {_SPELT[near[0]]}?"


def _misshapen(config: Config) -> Iterator[str]:
    for field in _TEXTS:
        if field in config and not isinstance(config[field], str):
            yield f"{field}: {json.dumps(config[field])} is no text"
    if not isinstance(config.get("allowPersistentIPs", False), bool):
        yield f"allowPersistentIPs: {json.dumps(config['allowPersistentIPs'])} is neither true nor false"


def _misnamed(config: Config, nad: str) -> Iterator[str]:
    if config.get("type") != PLUGIN:
        yield f"type: {config.get('type', '')!r} is not {PLUGIN!r}: OVN-Kubernetes would take no notice of it"
    topology = config.get("topology", "")
    if topology == "":
        yield "topology: it is missing, which turns the NAD into the cluster's default network. Write localnet"
    elif topology != TOPOLOGY:
        yield f"topology: {topology!r} is not {TOPOLOGY!r}, the only one that ovsplan looks after"
    name = config.get("name", "")
    if name in RESERVED_NAMES:
        yield f"name: {name!r} can't be the name of a network. Choose another"
    told = config.get("netAttachDefName", "")
    if told != nad:
        yield f"netAttachDefName: {told!r} is not {nad!r}, the namespace and name of the NAD itself"


def _unsupported(config: Config) -> Iterator[str]:
    if config.get("ipam"):
        yield "ipam: it is not supported; OVN-Kubernetes gives addresses by `subnets`"
    if config.get("role", "") not in ("", "secondary"):
        yield f"role: {config['role']!r} is not possible on a localnet; it is 'secondary', or left out"
    for field in _REFUSED:
        if config.get(field):
            yield f"{field}: it is not possible on a localnet. Remove it"


def _bad_numbers(config: Config) -> Iterator[str]:
    vlan, mtu = config.get("vlanID", 0), config.get("mtu", 0)
    if type(vlan) is not int or not (vlan == 0 or LOWEST_VLAN <= vlan <= HIGHEST_VLAN):
        yield f"vlanID: {json.dumps(vlan)} is not a whole number from {LOWEST_VLAN} to {HIGHEST_VLAN}"
    if type(mtu) is not int or mtu < 0:
        yield f"mtu: {json.dumps(mtu)} is not a whole number"


def _bad_subnets(config: Config) -> Iterator[str]:
    subnets, excluded = _listed(config.get("subnets")), _listed(config.get("excludeSubnets"))
    for field, entries in (("subnets", subnets), ("excludeSubnets", excluded)):
        for entry in entries:
            if network(entry) is None:
                yield f"{field}: {entry!r} is not a network. Write ADDRESS/LENGTH, as in 192.0.2.0/24"
    yield from (
        f"excludeSubnets: {entry} lies in none of the subnets" for entry in outside(excluded, subnets)
    )
    if config.get("allowPersistentIPs") is True and not subnets:
        yield "allowPersistentIPs: it needs subnets, from which the addresses would be"


def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """A network in CIDR form, or None."""
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def outside(excluded: Iterable[str], subnets: Sequence[str]) -> list[str]:
    """The excluded networks that lie in none of the subnets; what is no network is not judged."""
    inside = [found for found in map(network, subnets) if found]
    return [
        entry
        for entry in excluded
        if (one := network(entry)) and not any(one.version == n.version and one.subnet_of(n) for n in inside)  # type: ignore[arg-type]
    ]


def _listed(text: object) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()] if isinstance(text, str) else []


def meaning(config: Config) -> dict[str, Any]:
    """What OVN-Kubernetes makes of a configuration: its defaults written out, lists sorted, versions left out."""
    meant = {
        key: value for key, value in config.items() if key not in ("cniVersion", "role") and value is not None
    }
    meant["physicalNetworkName"] = localnet_of(config)
    for field in ("subnets", "excludeSubnets"):
        if isinstance(config.get(field), str):
            meant[field] = sorted(_listed(config[field]))
    if config.get("role", "") not in ("", "secondary"):
        meant["role"] = config["role"]
    return {key: value for key, value in meant.items() if value not in (0, False, "", [], {})}


def merged(wanted: Config, there: Config) -> dict[str, Any]:
    """What is wanted, with what somebody else wrote in fields that it does not rule over."""
    kept = {key: value for key, value in there.items() if key not in _OURS}
    version = {"cniVersion": there["cniVersion"]} if isinstance(there.get("cniVersion"), str) else {}
    return {**wanted, **version, **{key: value for key, value in kept.items() if key not in wanted}}


def contradictions(one: Config, other: Config) -> list[str]:
    """The fields in which two NADs of one network name differ though they may not."""
    first, second = meaning(one), meaning(other)
    return [field for field in _SHARED if first.get(field) != second.get(field)]


def folded(name: str) -> str:
    """A network's name as OVN's objects carry it: two that fold to the same one collide."""
    return name.replace("-", ".").replace("/", ".")


def may_use(namespace: str, nad: str) -> bool:
    """Whether a VM of a namespace may use the NAD `namespace/name` where Multus isolates namespaces."""
    home = nad.partition("/")[0]
    return home in (namespace, *GLOBAL_NAMESPACES)
