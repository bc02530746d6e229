"""The networks that the files declare, from VMNetworks and from native manifests alike, and the rules between them.

The one invariant: a declared NetworkAttachmentDefinition is one that OVN-Kubernetes takes, as far as the files alone can
tell; what else is in the cluster is judged by the kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from plans import nads
from plans.desired.declared import Declared
from plans.desired.models import Desired, NativeNad, Network, VMNetwork
from plans.desired.source import Loc
from plans.errors import Problem


@dataclass(frozen=True, slots=True)
class WantedNad:
    """A NetworkAttachmentDefinition as it is declared. `key` is `namespace/name`; `config` is None when it is to go.

    `localnet`: the VMNetwork that it is on. `gateway` serves proofs only.
    """

    key: str
    localnet: str
    config: Mapping[str, Any] | None
    gateway: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def wanted_networks(desired: Desired) -> list[WantedNad]:
    """Every declared network, sorted by namespace and name."""
    found = [
        _of_network(n, key, spec) for n in desired.networks for key, spec in (n.spec.networks or {}).items()
    ]
    found += [_of_manifest(manifest) for manifest in desired.manifests]
    return sorted(found, key=lambda one: one.key)


def _of_network(network: VMNetwork, key: str, spec: Network) -> WantedNad:
    config = config_of(network, key, spec) if spec.state == "present" else None
    return WantedNad(key, network.name, config, spec.gateway or "")


def _of_manifest(manifest: NativeNad) -> WantedNad:
    metadata, config = manifest.metadata, manifest.config
    return WantedNad(
        manifest.name,
        nads.localnet_of(config),
        config,
        "",
        dict(metadata.labels or {}),
        dict(metadata.annotations or {}),
    )


def config_of(network: VMNetwork, key: str, spec: Network) -> dict[str, Any]:
    """The configuration that a VMNetwork means by one of its networks; without an MTU of its own it has the VMNetwork's."""
    mtu = spec.mtu or network.spec.mtu
    return {
        "cniVersion": nads.CNI_VERSION,
        "name": spec.name or key.partition("/")[2],
        "type": nads.PLUGIN,
        "topology": nads.TOPOLOGY,
        "netAttachDefName": key,
        "physicalNetworkName": network.name,
        **({"vlanID": spec.vlan} if spec.vlan else {}),
        **({"mtu": mtu} if mtu else {}),
        **({"subnets": ",".join(spec.subnets)} if spec.subnets else {}),
        **({"excludeSubnets": ",".join(spec.exclude_subnets)} if spec.exclude_subnets else {}),
        **({"allowPersistentIPs": True} if spec.allow_persistent_ips else {}),
    }


def manifest_problems(declared: Declared) -> Iterator[Problem]:
    """What is wrong with the configuration in a native manifest."""
    manifest, where = declared.model, ("spec", "config")
    if not isinstance(manifest, NativeNad):
        return
    try:
        config = manifest.config
    except ValueError as error:
        yield declared.problem(where, f"{str(error).removeprefix('spec.config ')}. Correct it.")
        return
    if not nads.is_ours_to_judge(config) or config.get("topology") not in ("", None, nads.TOPOLOGY):
        kind = f"type {config.get('type')!r}, topology {config.get('topology')!r}"
        yield declared.problem(
            where,
            f"found {kind}; only {nads.PLUGIN!r} with {nads.TOPOLOGY!r} is supported. Take it out of these files.",
        )
        return
    for fault in (*nads.misspelt(config), *nads.faults(config, manifest.name)):
        yield declared.problem(where, fault if fault.endswith((".", "?")) else f"{fault}.")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One declared network and where it stands."""

    declared: Declared
    loc: Loc
    nad: WantedNad

    @property
    def place(self) -> str:
        return self.declared.document.place(self.loc)

    def problem(self, message: str) -> Problem:
        return self.declared.problem(self.loc, message, at_key=True)


def between_networks(declared: Sequence[Declared]) -> Iterator[Problem]:
    """What declared networks, attachments and advertisements say against each other."""
    entries = [entry for one in declared for entry in _entries(one)]
    yield from _twice(entries)
    yield from _not_one_network(entries)
    yield from _strange_localnets(declared, entries)
    networks = [one for one in declared if isinstance(one.model, VMNetwork)]
    yield from _attachments(networks, {e.nad.key: e for e in entries})
    yield from _advertisements(networks)


def _entries(declared: Declared) -> Iterator[_Entry]:
    model = declared.model
    if isinstance(model, VMNetwork):
        for key, spec in (model.spec.networks or {}).items():
            yield _Entry(declared, ("spec", "networks", key), _of_network(model, key, spec))
    elif isinstance(model, NativeNad) and not list(manifest_problems(declared)):
        yield _Entry(declared, ("metadata", "name"), _of_manifest(model))


def _twice(entries: Sequence[_Entry]) -> Iterator[Problem]:
    first: dict[str, _Entry] = {}
    for entry in entries:
        earlier = first.setdefault(entry.nad.key, entry)
        if earlier is not entry:
            yield entry.problem(
                f"network {entry.nad.key} is declared here and at {earlier.place}. Remove one."
            )


def _not_one_network(entries: Sequence[_Entry]) -> Iterator[Problem]:
    """H25: NADs of one network name that differ, and names that fold to one."""
    for one, other in combinations([e for e in entries if e.nad.config], 2):
        assert one.nad.config is not None and other.nad.config is not None
        name, its = one.nad.config["name"], other.nad.config["name"]
        if one.nad.key == other.nad.key:
            continue
        if name == its and (fields := nads.contradictions(one.nad.config, other.nad.config)):
            yield other.problem(
                f"it and {one.nad.key} ({one.place}) are one network {name!r}, and differ in {', '.join(fields)}. "
                "Make them agree, or give one another 'name'."
            )
        elif name != its and nads.folded(name) == nads.folded(its):
            yield other.problem(
                f"the networks {its!r} and {name!r} ({one.place}) have one name in OVN, which reads '-', '.' and '/' "
                "alike (H25). Rename one."
            )


def _strange_localnets(declared: Sequence[Declared], entries: Sequence[_Entry]) -> Iterator[Problem]:
    known = sorted({one.name for one in declared if one.kind == "VMNetwork" and one.name})
    for entry in entries:
        if isinstance(entry.declared.model, NativeNad) and entry.nad.localnet not in known:
            yield entry.declared.problem(
                ("spec", "config"),
                f"physicalNetworkName: no VMNetwork {entry.nad.localnet!r} is declared; found {', '.join(known) or 'none'}. "
                "Declare it, so that the network waits for its mapping.",
            )


def _attachments(networks: Sequence[Declared], known: Mapping[str, _Entry]) -> Iterator[Problem]:
    first: dict[tuple[str, str], str] = {}
    taken: dict[tuple[str, str], str] = {}
    for declared in networks:
        model = declared.model
        assert isinstance(model, VMNetwork)
        for vm, nics in model.attachments.items():
            for name, nic in nics.items():
                loc = ("spec", "attachments", vm, name)
                if (vm, name) in first:
                    yield declared.problem(
                        loc,
                        f"this interface is declared here and at {first[vm, name]}. Remove one.",
                        at_key=True,
                    )
                    continue
                first[vm, name] = declared.document.place(loc)
                if nic.state == "absent" or nic.network is None:
                    continue
                if (vm, nic.network) in taken:
                    where = taken[vm, nic.network]
                    yield declared.problem(
                        loc,
                        f"{vm} is on {nic.network} by interface {where!r} already, and can be only once. Remove one.",
                    )
                taken[vm, nic.network] = name
                entry = known.get(nic.network)
                if entry and entry.nad.config is None:
                    yield declared.problem(
                        loc, f"network {nic.network} is declared absent at {entry.place}. Change one of them."
                    )


def _advertisements(networks: Sequence[Declared]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for declared in networks:
        assert isinstance(declared.model, VMNetwork)
        for key, interfaces in (declared.model.spec.l2_advertisements or {}).items():
            loc = ("spec", "l2Advertisements", key)
            if key in first:
                yield declared.problem(
                    loc,
                    f"L2Advertisement {key} is declared here and at {first[key]}. Remove one.",
                    at_key=True,
                )
            first.setdefault(key, declared.document.place(loc))
            for index, name in enumerate(interfaces):
                if name in interfaces[:index]:
                    yield declared.problem((*loc, index), f"{name} is listed twice. Remove one.")
