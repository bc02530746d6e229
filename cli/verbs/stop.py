"""`ovsplan stop`: ask a running apply, from another terminal, to stop."""

from __future__ import annotations

import time
from pathlib import Path

import click

from cli.wiring import state_option
from plans.errors import InputError
from state.journal import Journal
from state.lock import current, death, who_am_i
from state.store import Store


@click.command("stop")
@state_option
def command(state: str) -> None:
    """Ask the running apply to stop after the op in flight. It ends with exit code 3, and `apply` resumes it."""
    store = Store(Path(state))
    journal = Journal(store)
    run = journal.unfinished()
    with store.read() as db:
        holder = current(db)
    if run is None or holder is None or death(holder) is not None:
        raise InputError(
            "no apply is running on this state database: there is nothing to stop. `ovsplan status` says how it stands."
        )
    journal.request_stop(run.id, who_am_i(), time.time())
    click.echo(f"Asked run {run.id} ({holder.describe()}) to stop after the op in flight.")
