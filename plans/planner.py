"""The planner: desired and observed in, a plan out. The whole pipeline, in order, on one page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from plans import masters
from plans.actions import Action
from plans.bracket import Bracket, bracket, node_order
from plans.changes import Blocked, Change, Choice, Context, Phase
from plans.delivery.choice import choose, choose_all
from plans.desired import Desired
from plans.diff import ClusterDiff, NodeDiff, diff, diff_cluster, survey
from plans.document import FORMAT, Finding, NodePlan, Plan, ShownBlocked, ShownChange, Target, sealed
from plans.facts import Facts, Known, show_value
from plans.hazards import Scene, lint
from plans.kinds import CLUSTER_KINDS, KINDS
from plans.maintenance import canary, checkpoints, inventory, reboot, ways
from plans.nmstate.enforcing import label_ways
from plans.nmstate.ownership import is_marked
from plans.order import order, serialise
from plans.predict import predict

VIEWS = (
    "nodes",
    "vms",
    "networks",
    "migrations",
    "policies",
    "nmstate-versions",
    "nmstate-probe",
    "rollouts",
)
"""What every plan looks at; beside these, `cluster_views`, `node_views` of each selected node, and `closer_views`."""


def cluster_views(desired: Desired) -> tuple[str, ...]:
    """What is read besides for the kinds of the cluster that the files declare, for NICs that bridges take, and for emptying nodes."""
    of_kinds = (view for kind in CLUSTER_KINDS.values() for view in kind.views(desired))
    return tuple(dict.fromkeys((*of_kinds, *masters.views(desired), *ways.views(desired))))


def node_views(node: str, desired: Desired | None = None) -> tuple[str, ...]:
    """What is read of a node that a network selects: always, and for the kinds that the files declare."""
    more = (view for kind in KINDS.values() for view in kind.views(desired, node)) if desired else ()
    return tuple(dict.fromkeys((f"ovs:{node}", f"ovn:{node}", f"dp:{node}", *more)))


def likely_views(node: str, cluster: Facts) -> tuple[str, ...]:
    """What `closer_views` will name of a node on which nmstate runs, if a policy will be delivered there."""
    if not isinstance(cluster.get(f"node/{node}/nmstate/version"), Known):
        return ()
    return (f"profiles:{node}", *_probed(node, cluster))


def _probed(node: str, facts: Facts) -> list[str]:
    """What the node's handler probes before each apply: its gateway, and its name servers."""
    gateway, name = facts.get(f"node/{node}/nmstate/gateway"), facts.get("cluster/nmstate-probe")
    servers = facts.value(f"node/{node}/nmstate/name-servers", []) if isinstance(name, Known) else []
    views = [f"ping:{node}:{gateway.value}"] if isinstance(gateway, Known) else []
    return [*views, *(f"dns:{node}:{facts.value('cluster/nmstate-probe')}:{server}" for server in servers)]


def closer_views(desired: Desired, facts: Facts) -> tuple[str, ...]:
    """What is asked besides of each node on which a policy will be delivered, once its switch and the cluster are known.

    Raises what `diff` raises.
    """
    if not isinstance(facts.get("cluster/nmstate"), Known):
        return ()
    views: list[str] = []
    for found in diff(desired, facts):
        node = found.node
        if not any(choose(change, desired, facts).by == "nncp" for change in found.changes):
            continue
        views += [f"profiles:{node}"] if is_marked(facts, node) else []
        views += _probed(node, facts)
    return tuple(views)


def make_plan(
    desired: Desired,
    facts: Facts,
    target: Target,
    *,
    accepted: Collection[str] = (),
    only: Collection[str] = (),
    refused: Sequence[Finding] = (),
) -> Plan:
    """The plan that makes the cluster as desired. Pure: the same arguments give the same bytes.

    `refused`: what the API server has against the writes of this very plan, made without it (`plans.rehearsal`).

    Raises InputError (an unknown bridge, a selector that matches nothing) or PlanError.
    """
    found = diff(desired, facts, only)
    reboot.refuse_stayers(desired, facts, [d.node for d in found if d.changes])
    ordered = {name: i for i, name in enumerate(node_order(found, desired, facts))}
    found.sort(key=lambda d: ordered[d.node])
    drafts, cluster, _ = _compose(desired, facts, found)
    findings = lint(Scene(desired, facts, found, drafts, cluster), accepted, refused)
    found = [_without_held(d, findings) for d in found]
    brackets, cluster, choices = _compose(desired, facts, found)
    actions = _unpredicted(brackets, cluster, desired, facts)
    if not any(f.blocks for f in findings):
        actions = predict(actions, facts)
    by_node = {b.node: b for b in brackets}
    nodes = tuple(_shown(d, by_node.get(d.node), choices, facts) for d in found)
    shown = tuple(_shown_change(c, Choice("", "")) for c in cluster.changes)
    held = tuple(ShownBlocked(b.address, b.reasons) for b in cluster.blocked)
    changes = [*cluster.changes, *(c for d in found for c in d.changes)]
    afterwards = tuple(s for kind in CLUSTER_KINDS.values() for s in kind.afterwards(desired, facts, changes))
    return sealed(
        Plan(
            FORMAT, target, desired.digest(), nodes, tuple(findings), tuple(actions), shown, held, afterwards
        )
    )


def _compose(
    desired: Desired, facts: Facts, found: Sequence[NodeDiff]
) -> tuple[list[Bracket], ClusterDiff, Mapping[str, Choice]]:
    """The brackets of the nodes that change, what is to be done about the cluster, and by which delivery each goes."""
    choices = choose_all([c for d in found for c in d.changes], desired, facts)
    brackets = [bracket(d, desired, facts, choices) for d in found if d.changes]
    return brackets, diff_cluster(desired, facts, survey(desired, facts, found, choices)), choices


def _without_held(found: NodeDiff, findings: Sequence[Finding]) -> NodeDiff:
    """A node without the changes that an accepted hazard leaves out: they are blocked, and said so."""
    left = {address: f.id for f in findings if f.accepted for address in f.leaves_out}
    held = [
        Blocked(c.address, found.node, (f"left out, as {left[c.address]} was accepted",))
        for c in found.changes
        if c.address in left
    ]
    kept = tuple(c for c in found.changes if c.address not in left)
    return replace(found, changes=kept, blocked=(*found.blocked, *held))


def _unpredicted(
    brackets: Sequence[Bracket], cluster: ClusterDiff, desired: Desired, facts: Facts
) -> list[Action]:
    if not brackets and not cluster.changes:
        return []
    context = Context(facts, "hot", desired=desired)

    def made(phase: Phase) -> list[Action]:
        return [CLUSTER_KINDS[c.kind].fragment(c, context) for c in cluster.changes if c.phase == phase]

    kept = [check for b in brackets for check in b.lasting]
    kept += [check for c in cluster.changes for check in CLUSTER_KINDS[c.kind].verify(c, context)]
    before = [
        inventory.action(sorted(b.node for b in brackets)),
        *canary.collect(facts),
        *made("prologue"),
    ]
    once = {(check.path, check.test, show_value(check.value)): check for check in reversed(kept)}
    after = [*made("epilogue"), checkpoints.look_back(list(reversed(once.values())))]
    return order(serialise(before, [b.actions for b in brackets], after))


def _shown(found: NodeDiff, made: Bracket | None, choices: Mapping[str, Choice], facts: Facts) -> NodePlan:
    affected = sorted({vm for a in made.actions if a.disruption != "none" for vm in a.vms}) if made else []
    deliveries = dict.fromkeys(choices[c.address].by for c in found.changes)
    return NodePlan(
        node=found.node,
        shape=made.shape if made else "",
        why=made.why if made else "",
        delivery=" and ".join(deliveries),
        changes=tuple(_shown_change(c, choices[c.address]) for c in found.changes),
        blocked=tuple(ShownBlocked(b.address, b.reasons) for b in found.blocked),
        leaving=made.leaving if made else (),
        staying=made.staying if made else (),
        dark=made.dark if made else (),
        affected=tuple(affected),
        unreadable=found.unreadable,
        ways=tuple(str(way) for way in made.ways if way.why) if made else (),
        restarting=tuple(way.vm for way in made.ways if way.how == "restart") if made else (),
        proof=made.proof if made else "",
        reboots=made.reboots if made else False,
        labels=label_ways(found.node, made.actions, facts) if made else (),
    )


def _shown_change(change: Change, choice: Choice) -> ShownChange:
    return ShownChange(
        change.address,
        change.verb,
        change.before,
        change.after,
        change.why,
        choice.by,
        choice.why,
        change.phase,
    )
