"""`ovsplan mark`: a person's word on an action, written down with its reason."""

from __future__ import annotations

import time
from pathlib import Path

import click

from cli.wiring import state_option
from plans.errors import InputError
from state.journal import Journal
from state.lock import Lock
from state.store import Store


@click.command("mark")
@click.argument("action")
@click.argument("word", type=click.Choice(["done", "not-done"]))
@click.option("--reason", required=True, help="Why; it is kept with the run.")
@state_option
def command(action: str, word: str, reason: str, state: str) -> None:
    """Say that ACTION of the unfinished run is done, so that `apply` skips it, or not done, so that it does it again."""
    store = Store(Path(state))
    journal = Journal(store)
    run = journal.unfinished()
    if run is None:
        raise InputError("there is no unfinished run: nothing to mark. `ovsplan status` shows the latest.")
    plan = journal.plan_of(run)
    if plan.action(action) is None:
        raise InputError(
            f"run {run.id} has no action {action!r}; it has: {', '.join(a.id for a in plan.actions)}"
        )
    if not reason.strip():
        raise InputError("--reason is empty: whoever reads this next wants to know why")
    with Lock(store, "ovsplan mark"):
        journal.mark(run.id, action, f"marked-{word}", reason, time.time())
    click.echo(f"Marked {action} of run {run.id} as {word}: {reason}")
    if word == "done":
        click.echo(
            "It is your word: `ovsplan status` says so, and that it is not verified, until something has checked it."
        )
