"""The planner: desired and observed in, a plan out. The whole pipeline, in order, on one page."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from plans.actions import Action
from plans.bracket import Bracket, bracket, node_order
from plans.changes import Blocked, Change
from plans.desired import Desired
from plans.diff import NodeDiff, diff
from plans.document import FORMAT, Finding, NodePlan, Plan, ShownBlocked, ShownChange, Target, sealed
from plans.facts import Facts
from plans.hazards import Scene, lint
from plans.maintenance import checkpoints, inventory
from plans.order import order, serialise
from plans.predict import predict

VIEWS = ("nodes", "vms", "networks", "migrations")
"""What every plan looks at; beside these, `node_views` of each selected node."""

DELIVERY = "ovsdb"


def node_views(node: str) -> tuple[str, ...]:
    """What is read of a node that a network selects."""
    return (f"ovs:{node}", f"ovn:{node}", f"dp:{node}")


def make_plan(
    desired: Desired,
    facts: Facts,
    target: Target,
    *,
    accepted: Collection[str] = (),
    only: Collection[str] = (),
) -> Plan:
    """The plan that makes the cluster as desired. Pure: the same arguments give the same bytes.

    Raises InputError (an unknown bridge, a selector that matches nothing) or PlanError.
    """
    found = diff(desired, facts, only)
    ordered = {name: i for i, name in enumerate(node_order(found, desired, facts))}
    found.sort(key=lambda d: ordered[d.node])
    everything = Scene(
        desired, facts, found, [bracket(d, desired, facts, DELIVERY) for d in found if d.changes]
    )
    findings = lint(everything, accepted)
    found = [_without_held(d, findings) for d in found]
    brackets = [bracket(d, desired, facts, DELIVERY) for d in found if d.changes]
    actions = _actions(brackets, facts) if not any(f.blocks for f in findings) else _unpredicted(brackets)
    by_node = {b.node: b for b in brackets}
    nodes = tuple(_shown(d, by_node.get(d.node)) for d in found)
    return sealed(Plan(FORMAT, target, desired.digest(), nodes, tuple(findings), tuple(actions)))


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


def _actions(brackets: Sequence[Bracket], facts: Facts) -> list[Action]:
    return predict(_unpredicted(brackets), facts)


def _unpredicted(brackets: Sequence[Bracket]) -> list[Action]:
    if not brackets:
        return []
    prologue = inventory.action(sorted(b.node for b in brackets))
    kept = [check for b in brackets for check in b.lasting]
    return order(serialise(prologue, [b.actions for b in brackets], checkpoints.look_back(kept)))


def _shown(found: NodeDiff, made: Bracket | None) -> NodePlan:
    affected = sorted({vm for a in made.actions if a.disruption != "none" for vm in a.vms}) if made else []
    return NodePlan(
        node=found.node,
        shape=made.shape if made else "",
        why=made.why if made else "",
        delivery=DELIVERY if made else "",
        changes=tuple(_shown_change(c) for c in found.changes),
        blocked=tuple(ShownBlocked(b.address, b.reasons) for b in found.blocked),
        leaving=made.leaving if made else (),
        staying=made.staying if made else (),
        dark=made.dark if made else (),
        affected=tuple(affected),
        unreadable=found.unreadable,
    )


def _shown_change(change: Change) -> ShownChange:
    return ShownChange(change.address, change.verb, change.before, change.after, change.why)
