"""Diff: desired and facts become, for each node, its changes, what is blocked, and what is the same."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches

from plans.changes import Blocked, Change, Choice, Outcome, Same, Survey
from plans.desired import Desired, VMNetwork
from plans.desired.source import Loc, field_name
from plans.errors import InputError, PlanError, Problem
from plans.facts import Absent, Facts, Unknown
from plans.kinds import CLUSTER_KINDS, KINDS
from plans.nmstate import disagreements, names
from plans.readings.cluster import NAD, VMI
from plans.selection import nodes_of_policy, selected_nodes

NEAR = 0.6
"""How much of two names must be the same for one to be a misspelling of the other, of 1."""


@dataclass(frozen=True, slots=True)
class NodeDiff:
    """One node's outcome. `unreadable` says why nothing at all could be told of it."""

    node: str
    changes: tuple[Change, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    same: tuple[Same, ...] = ()
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class ClusterDiff:
    """The outcome of all that belongs to no node."""

    changes: tuple[Change, ...] = ()
    blocked: tuple[Blocked, ...] = ()
    same: tuple[Same, ...] = ()


def diff(desired: Desired, facts: Facts, only: Collection[str] = ()) -> list[NodeDiff]:
    """Every selected node, sorted by name; with `only`, those of them that it names.

    Raises InputError when a network selects no node, names a bridge that no node has, or `only` names strangers; and
    when two things of the files would write one policy, or two policies of the files say otherwise of one node (H04).
    """
    nodes = _selection(desired, facts, only)
    _no_policy_for_two(desired, facts)
    _no_disagreement(desired, facts)
    _no_unknown_bridge(desired, facts, nodes)
    return [_diff_node(desired, node, facts) for node in nodes]


def _selection(desired: Desired, facts: Facts, only: Collection[str]) -> list[str]:
    if isinstance(listed := facts.get("cluster/nodes"), Unknown):
        raise PlanError(f"cannot list the cluster's nodes: {listed.why}. Nothing can be planned.")
    problems, selected = [], set()
    for network in desired.networks:
        nodes = selected_nodes(network, facts)
        if not nodes:
            labels = ", ".join(f"{k}={v}" if v else k for k, v in sorted(network.selector.items()))
            problems.append(
                desired.problem(
                    network.address,
                    f"VMNetwork {network.name}: no node has the labels {labels} that spec.nodes asks for",
                )
            )
        selected |= set(nodes)
    for policy in desired.policies:
        selected |= set(nodes_of_policy(policy, facts))
    known = facts.value("cluster/nodes", [])
    running = facts.value("cluster/vms")
    for vm in _excepted(desired) if running is not None else ():
        if vm not in running:
            near = nearest_name(vm, running)
            hint = f"; did you mean {near}?" if near else ""
            message = f"the rollout's evacuate.vms names {vm!r}, and no VM of that name runs{hint}"
            problems.append(desired.problem(_in_rollout(desired, "evacuate", "vms", vm), message))
    named = [(name, "--node", "") for name in only]
    named += [(name, "the rollout's order", _in_rollout(desired, *at)) for name, at in _ordered(desired)]
    for name, source, at in named:
        if name not in known:
            near = nearest_name(name, known)
            hint = f"did you mean {near}?" if near else f"the cluster has {', '.join(known)}"
            message = f"{source} names node {name!r}, which the cluster does not have; {hint}"
            problems.append(desired.problem(at, message))
        elif source == "--node" and name not in selected:
            problems.append(Problem("", 0, 0, f"--node {name}: no VMNetwork selects that node"))
    if problems:
        raise InputError(problems)
    return sorted(selected & set(only) if only else selected)


def _excepted(desired: Desired) -> list[str]:
    evacuate = desired.rollout.spec.evacuate if desired.rollout else None
    return sorted(evacuate.vms) if evacuate else []


def _ordered(desired: Desired) -> list[tuple[str, Loc]]:
    """The nodes that the rollout's order names, and where in its spec."""
    order = desired.rollout.spec.order if desired.rollout else None
    if order is None:
        return []
    if isinstance(order, tuple):
        return [(name, ("order", index)) for index, name in enumerate(order)]
    return [(order.canary, ("order", "canary"))]


def _in_rollout(desired: Desired, *at: str | int) -> str:
    """What `places` calls a field of the rollout's spec."""
    return f"{desired.rollout.address}#{field_name(('spec', *at))}" if desired.rollout else ""


def nearest_name(word: str, known: Sequence[str]) -> str | None:
    """The name that was meant, if one is near in each of its parts: another number is another thing, no misspelling."""
    return next((name for name in get_close_matches(word, known, 5) if _is_near(word, name)), None)


def _is_near(word: str, name: str) -> bool:
    numbers = [[int(digits) for digits in re.findall(r"[0-9]+", text)] for text in (word, name)]
    parts = zip(word.split("/"), name.split("/"), strict=False)
    return (len(numbers[0]) != len(numbers[1]) or numbers[0] == numbers[1]) and all(
        SequenceMatcher(None, one, other).ratio() >= NEAR for one, other in parts
    )


def _no_unknown_bridge(desired: Desired, facts: Facts, nodes: list[str]) -> None:
    """A bridge that no readable node has is a typing error, not a hazard of some node (H03 is for those)."""
    readable = [n for n in nodes if not isinstance(facts.get(f"node/{n}/ovs"), Unknown)]
    seen = {b for n in readable for b in facts.value(f"node/{n}/ovs")["bridges"]}
    seen |= {network.bridge for network in desired.networks if network.ports}
    problems = []
    for network in desired.networks:
        if readable and network.bridge not in seen:
            near = get_close_matches(network.bridge, sorted(seen), 1)
            hint = f"did you mean {near[0]}?" if near else f"they have {', '.join(sorted(seen))}"
            problems.append(
                desired.problem(
                    network.address,
                    f"VMNetwork {network.name}: no selected node has a bridge {network.bridge!r}; {hint} "
                    "(this version needs a bridge that exists)",
                )
            )
    if problems:
        raise InputError(problems)


def _no_policy_for_two(desired: Desired, facts: Facts) -> None:
    """What the files alone do not tell: a name that a node's name makes, and another thing has too."""
    if isinstance(facts.get("cluster/nmstate"), Absent):
        return

    def nodes_of(thing: names.Thing) -> list[str]:
        return selected_nodes(thing, facts) if isinstance(thing, VMNetwork) else nodes_of_policy(thing, facts)

    problems = []
    for clash in names.clashes((*desired.networks, *desired.policies), nodes_of):
        place = desired.places.get(_named_at(desired, clash.one), "this plan")
        where = (
            f"{clash.other.address}#spec.replaces.policies"
            if clash.taken
            else _named_at(desired, clash.other)
        )
        problems.append(
            desired.problem(where, f"{clash.other.kind} {clash.other.name}: {clash.in_words(place)}")
        )
    if problems:
        raise InputError(problems)


def _no_disagreement(desired: Desired, facts: Facts) -> None:
    """What the policies' nodeSelectors alone do not tell: a node that two of them select, and that they disagree about."""
    problems = []
    for found in disagreements.on_nodes(desired.policies, lambda policy: nodes_of_policy(policy, facts)):
        place = desired.places.get(_named_at(desired, found.one), "these files")
        problems.append(desired.problem(_named_at(desired, found.other), found.in_words(place)))
    if problems:
        raise InputError(problems)


def _named_at(desired: Desired, thing: names.Thing) -> str:
    """Where the files say under which name the policies of a thing go."""
    given = f"{thing.address}#spec.delivery.policy"
    return given if given in desired.places else f"{thing.address}#metadata.name"


def _diff_node(desired: Desired, node: str, facts: Facts) -> NodeDiff:
    for path in (f"node/{node}/ovs", f"node/{node}/dp/*"):
        if isinstance(fact := facts.get(path), Unknown):
            return NodeDiff(node, unreadable=fact.why)
    for path, kind in ((f"node/{node}/vms", VMI[1]), ("cluster/networks", NAD[1])):
        if isinstance(fact := facts.get(path), Unknown):
            return NodeDiff(node, unreadable=f"{kind}s could not be listed: {fact.why}")
    outcomes = [outcome for kind in KINDS.values() for outcome in kind.diff(desired, node, facts)]
    changes, blocked, same = _sorted_out(outcomes)
    return NodeDiff(node, changes, blocked, same)


def _sorted_out(
    outcomes: list[Outcome],
) -> tuple[tuple[Change, ...], tuple[Blocked, ...], tuple[Same, ...]]:
    """Changes, blocked and same; a change that depends on a blocked one is blocked itself."""
    changes = [o for o in outcomes if isinstance(o, Change)]
    blocked = [o for o in outcomes if isinstance(o, Blocked)]
    held = {b.address for b in blocked}
    while waiting := [c for c in changes if held & set(c.depends)]:
        for change in waiting:
            changes.remove(change)
            reasons = tuple(f"{a} is blocked" for a in change.depends if a in held)
            blocked.append(Blocked(change.address, change.node, reasons))
        held |= {c.address for c in waiting}
    return tuple(changes), tuple(blocked), tuple(o for o in outcomes if isinstance(o, Same))


def survey(
    desired: Desired, facts: Facts, nodes: Sequence[NodeDiff], choices: Mapping[str, Choice]
) -> Survey:
    """What the nodes' diffs came to, for the kinds of the cluster."""
    planned = {n.node: n for n in nodes}
    held: dict[str, dict[str, str]] = {}
    for network in desired.networks:
        held[network.name] = _held(selected_nodes(network, facts), planned)
    for policy in desired.policies:
        held[policy.address] = _held(nodes_of_policy(policy, facts), planned)
    changes = tuple(change for n in nodes for change in n.changes)
    return Survey(tuple(planned), changes, held, choices)


def _held(nodes: Sequence[str], planned: Mapping[str, NodeDiff]) -> dict[str, str]:
    """The nodes that will not be as desired when all is done, and why."""
    reasons = {}
    for node in nodes:
        if node not in planned:
            reasons[node] = "it is not in this plan"
        elif planned[node].unreadable:
            reasons[node] = f"it cannot be read: {planned[node].unreadable}"
        elif planned[node].blocked:
            reasons[node] = f"{planned[node].blocked[0].address} is blocked"
    return reasons


def diff_cluster(desired: Desired, facts: Facts, found: Survey) -> ClusterDiff:
    """Every resource that belongs to no node."""
    outcomes = [o for kind in CLUSTER_KINDS.values() for o in kind.diff(desired, facts, found)]
    return ClusterDiff(*_sorted_out(outcomes))
