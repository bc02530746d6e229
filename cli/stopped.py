"""VMs that a run has stopped and not started again, with what starts them: said wherever a run is looked at or given up."""

from __future__ import annotations

import click

from cli.wiring import Opened
from engine.observe import observe
from plans.document import Plan
from plans.facts import Absent, Facts, Known
from plans.maintenance.power import HALTED, left_stopped
from state.journal import Journal, Run


def say_stopped(journal: Journal, run: Run, plan: Plan, opened: Opened | None) -> None:
    """By the journal; with a target, without those that run, or are no longer noted as stopped, as it says now."""
    events = [event for action in plan.actions for event in journal.events(run.id, action.id)]
    stopped = left_stopped((event.label, event.op, event.outcome) for event in events)
    if not stopped:
        return
    if opened:
        facts = Facts(observe(opened.hands, opened.world.clock, [f"machine:{vm}" for vm in stopped]))
        stopped = {vm: command for vm, command in stopped.items() if _may_be(vm, facts)}
    for vm, command in stopped.items():
        click.echo(f"VM {vm} was stopped by this run, and not started again. What starts it:\n  {command}")


def _may_be(vm: str, facts: Facts) -> bool:
    run, noted = facts.get(f"machine/{vm}/run"), facts.get(f"machine/{vm}/recorded")
    return not isinstance(noted, Absent) and (not isinstance(run, Known) or run.value == HALTED)
