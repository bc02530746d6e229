"""What NetworkAttachmentDefinitions have to do with the rest: who uses one, and whether its localnet is mapped everywhere.

The one invariant: "nobody uses it" is only said when everybody could be asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from deepdiff import DeepDiff

from plans import nads, ovs
from plans.changes import Survey
from plans.checks import Check
from plans.desired import Desired, VMNetwork, WantedNad
from plans.facts import Facts, Known, Unknown
from plans.readings.machines import nad_of
from plans.selection import selected_nodes

NODE_BRIDGE = "br-ex"


@dataclass(frozen=True, slots=True)
class Users:
    """Who uses a NAD: `running` VMs have it in their guests, `vms` all whose template or guest names it, `pods` the rest."""

    vms: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    pods: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.vms or self.pods)

    def __str__(self) -> str:
        words = [f"VMs {listed(self.vms)}"] if self.vms else []
        return " and ".join([*words, *([f"pods {listed(self.pods)}"] if self.pods else [])])


def users(facts: Facts) -> dict[str, Users]:
    """Who uses each NAD that anybody uses."""
    templates: dict[str, set[str]] = defaultdict(set)
    guests: dict[str, set[str]] = defaultdict(set)
    for vm in facts.value("cluster/machines") or []:
        for network in (facts.value(f"machine/{vm}/template") or {}).get("networks", ()):
            if nad := nad_of(network, vm.partition("/")[0]):
                templates[nad].add(vm)
    for vm in facts.value("cluster/vms") or []:
        for attached in (facts.value(f"vm/{vm}") or {}).get("macs", ()):
            guests[attached["nad"]].add(vm)
    pods: Mapping[str, list[str]] = facts.value("cluster/nad-pods") or {}
    return {
        nad: Users(
            tuple(sorted(templates[nad] | guests[nad])), tuple(sorted(guests[nad])), tuple(pods.get(nad, ()))
        )
        for nad in sorted({*templates, *guests, *pods})
    }


def unseen_users(facts: Facts) -> str:
    """Why it can't be told who uses a NAD; empty when it can."""
    for path in ("cluster/machines", "cluster/vms", "cluster/nad-pods"):
        if isinstance(fact := facts.get(path), Unknown):
            return fact.why
    return ""


def unmapped(network: VMNetwork, facts: Facts, survey: Survey) -> dict[str, str]:
    """The schedulable nodes of a VMNetwork that will not have its mapping when the nodes are done, and why."""
    held = survey.held.get(network.name, {})
    found = {}
    for node in selected_nodes(network, facts):
        mapping = facts.get(f"node/{node}/ovs/mapping/{network.name}")
        if node not in held or mapping == Known(network.bridge):
            continue
        if facts.value(f"node/{node}/unschedulable") is not True:
            found[node] = held[node]
    return found


def waiting(desired: Desired, facts: Facts, survey: Survey) -> dict[str, tuple[str, ...]]:
    """For each localnet, why what is on it has to wait: each node that will not have its mapping. None: it need not."""
    return {
        network.name: tuple(
            f"it waits for localnet {network.name} on every schedulable node, and {node} will not have it: {why}"
            for node, why in sorted(unmapped(network, facts, survey).items())
        )
        for network in desired.networks
    }


def near(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?`, or what there is."""
    choices = sorted(known)
    close = get_close_matches(name, choices, 1)
    return (
        f"; did you mean {close[0]}?"
        if close
        else f"; there are {listed(choices)}"
        if choices
        else "; there is none"
    )


def listed(names: Iterable[str], most: int = 6) -> str:
    """Names, not too many of them."""
    every = list(names)
    rest = len(every) - most
    return ", ".join(every) if rest <= 0 else f"{', '.join(every[:most])} and {rest} more"


def field_changes(before: nads.Config, after: nads.Config) -> list[tuple[str, str, str]]:
    """In which fields two configurations differ in meaning: (field, before, after)."""
    first, second = _flat(nads.meaning(before)), _flat(nads.meaning(after))
    if first == second:
        return []
    found = []
    for levels in DeepDiff(first, second, view="tree", verbose_level=2).values():
        for level in levels:
            field = ".".join(str(step) for step in level.path(output_format="list"))
            found.append((field, _shown(field in first, level.t1), _shown(field in second, level.t2)))
    return sorted(found)


def differences(wanted: WantedNad, facts: Facts) -> list[tuple[str, str, str]]:
    """Each field in which the NAD differs from what is wanted: (field, before, after)."""
    at = f"nad/{wanted.key}"
    config = facts.value(f"{at}/config")
    assert wanted.config is not None
    if config is None:
        found = [("spec.config", "not JSON", in_words(wanted.config))]
    else:
        found = field_changes(config, nads.merged(wanted.config, config))
    for field, marks in (("labels", wanted.labels), ("annotations", wanted.annotations)):
        have = facts.value(f"{at}/{field}") or {}
        found += [
            (f"{field}.{key}", str(have.get(key, "absent")), value)
            for key, value in sorted(marks.items())
            if have.get(key) != value
        ]
    return found


def as_left(key: str, wanted: WantedNad | None, facts: Facts) -> dict[str, Any] | None:
    """The configuration of a NAD as the run's own action writes it, else as it is; None where it is no JSON object."""
    at = f"nad/{key}"
    config = facts.value(f"{at}/config")
    if wanted and wanted.config and (not isinstance(facts.get(at), Known) or differences(wanted, facts)):
        return nads.merged(wanted.config, config or {})
    return dict(config) if config is not None else None


def to_start_on(key: str, config: nads.Config | None, vm: str) -> tuple[Check, ...]:
    """What must hold of a NAD before a VM is stopped that is to start on it again; `config`: as it was left."""
    at = f"nad/{key}"
    there = Check(at, "present", why=f"{vm} cannot start without network {key}")
    if config is None:
        return (there,)
    return there, Check(f"{at}/config", "eq", config, f"somebody has changed network {key} since the plan")


def in_words(config: nads.Config) -> str:
    """A configuration as a sentence says it."""
    meant = nads.meaning(config)
    words = [f"VLAN {meant['vlanID']}" if "vlanID" in meant else "untagged", f"on {nads.localnet_of(config)}"]
    words += [f"mtu {meant['mtu']}"] if "mtu" in meant else []
    words += [f"subnets {', '.join(meant['subnets'])}"] if "subnets" in meant else []
    return ", ".join(words)


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in config.items()
    }


def _shown(present: bool, value: object) -> str:
    return str(value) if present else "absent"


def node_vlans(network: VMNetwork, facts: Facts) -> dict[int, list[str]]:
    """The VLAN of the nodes themselves, where they ride on the network's bridge: VLAN → nodes."""
    found: dict[int, list[str]] = defaultdict(list)
    for node, view in _switches(network, facts):
        for port in view["bridges"][network.bridge]["ports"].values():
            peers = [i["options"].get("peer", "") for i in port["interfaces"] if i["type"] == "patch"]
            if isinstance(port.get("tag"), int) and any(
                NODE_BRIDGE in ovs.bridges_of_port(view, peer) for peer in peers
            ):
                found[port["tag"]].append(node)
    return found


def link_mtus(network: VMNetwork, facts: Facts) -> dict[str, tuple[int, str]]:
    """The smallest MTU under the network's bridge, raised as the network asks: node → (MTU, NIC)."""
    found = {}
    for node, view in _switches(network, facts):
        mtus = [
            (nic["mtu"], nic["name"])
            for nics in ovs.uplinks(view, network.bridge).values()
            for nic in nics
            if isinstance(nic.get("mtu"), int)
        ]
        if mtus:
            least, nic = min(mtus)
            found[node] = (max(least, network.spec.mtu or 0), nic)
    return found


def _switches(network: VMNetwork, facts: Facts) -> list[tuple[str, ovs.View]]:
    views = [(node, facts.value(f"node/{node}/ovs")) for node in selected_nodes(network, facts)]
    return [(node, view) for node, view in views if view and network.bridge in view["bridges"]]
