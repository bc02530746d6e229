"""`ovsplan abandon`: give up an unfinished run for good."""

from __future__ import annotations

import time
from pathlib import Path

import click

from cli.wiring import state_option
from plans.errors import InputError
from plans.readings.cluster import CORDONED_BY
from state.journal import UNFINISHED, Journal
from state.lock import Lock
from state.store import Store


@click.command("abandon")
@click.argument("run")
@click.option("--reason", default="", help="Why; it is kept with the run.")
@state_option
def command(run: str, reason: str, state: str) -> None:
    """Give up RUN: it is never resumed. Nothing is undone; what it cordoned stays cordoned."""
    store = Store(Path(state))
    journal = Journal(store)
    found = journal.find_run(run)
    if found.status not in UNFINISHED:
        raise InputError(f"run {found.id} is {found.status}: there is nothing to abandon")
    with Lock(store, "ovsplan abandon"):
        journal.abandon(found.id, reason or "abandoned", time.time())
    steps = journal.steps(found.id)
    plan = journal.plan_of(found)
    held = [
        a.node
        for a in plan.actions
        if a.id.endswith("/cordon") and a.id in steps and not _is_over(steps, a.node)
    ]
    click.echo(f"Run {found.id} is abandoned. Nothing was undone.")
    for node in held:
        click.echo(
            f"  {node} may still be cordoned by it: oc adm uncordon {node}; oc annotate node {node} {CORDONED_BY}-"
        )


def _is_over(steps: object, node: str) -> bool:
    assert isinstance(steps, dict)
    step = steps.get(f"{node}/uncordon")
    return step is not None and step.is_done
