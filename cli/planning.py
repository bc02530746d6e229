"""Making a plan against an open target: observed, judged by the API server, and held against what we may do."""

from __future__ import annotations

from collections.abc import Collection

import click

from cli.wiring import Failures, Opened
from engine.dryrun import rehearse
from engine.lease import NAMESPACE
from engine.observe import observe_for_plan
from engine.permissions import missing, user
from plans.desired import Desired
from plans.document import Plan
from plans.errors import PlanError
from plans.facts import Fact, Facts, Known
from plans.maintenance import pings
from plans.permissions import of_exec, of_own, of_plan, sentences
from plans.planner import make_plan
from plans.rehearsal import findings


def plan_for(
    opened: Opened, desired: Desired, *, accepted: Collection[str] = (), only: Collection[str] = ()
) -> Plan:
    """The plan that makes the target as desired, with what its API server has against it. Changes nothing."""
    told = _tell if opened.info.kind == "cluster" else lambda _: None
    facts = observe_for_plan(opened.hands, opened.world.clock, desired, told)
    facts = facts.with_changes(_rights(opened, desired, facts))
    plan = make_plan(desired, facts, opened.target, accepted=accepted, only=only)
    answers = rehearse(opened.hands, Failures(), _unblocked(plan, opened, desired, facts, accepted, only))
    if not answers:
        return plan
    return make_plan(desired, facts, opened.target, accepted=accepted, only=only, refused=findings(answers))


def _unblocked(
    plan: Plan,
    opened: Opened,
    desired: Desired,
    facts: Facts,
    accepted: Collection[str],
    only: Collection[str],
) -> Plan:
    """The plan with its writes, which one that a hazard blocks is without: as it would be if all were accepted.

    What the API server has against it is to be told together with the hazards, not only once they are accepted.
    """
    if not (blocking := plan.blocking()):
        return plan
    try:
        every = {*accepted, *(finding.id for finding in blocking)}
        return make_plan(desired, facts, opened.target, accepted=every, only=only)
    except PlanError:
        return plan  # there are no such writes: what blocks can't be gone on with


def _rights(opened: Opened, desired: Desired, facts: Facts) -> list[tuple[str, Fact]]:
    """In which namespaces VMs can't be asked from inside, for want of the right to. A plan does without."""
    spaces = pings.namespaces(desired, facts)
    lacking = {p.namespace for p in missing(opened.world.cluster, of_exec(spaces))}
    return [(pings.may_exec(space), Known(False)) for space in spaces if lacking & {space, ""}]


def lacks(opened: Opened, plan: Plan, *, copy: bool) -> list[str]:
    """One sentence for each permission that a run of the plan needs and we don't have."""
    if plan.is_empty:
        return []
    cluster = opened.world.cluster
    needed = of_plan(plan) | of_own(lease=True, copy=copy, namespace=NAMESPACE)
    found = missing(cluster, needed)
    return sentences(found, user(cluster)) if found else []


def _tell(line: str) -> None:
    """Progress, where reading takes a while. Not to standard output: a plan as JSON stands there alone."""
    click.echo(line, err=True)
