"""`ovsplan force-unlock`: take the lock from an apply that is dead."""

from __future__ import annotations

from pathlib import Path

import click

from cli.wiring import state_option
from plans.errors import Locked
from state.lock import current, force_unlock, is_alive
from state.store import Store


@click.command("force-unlock")
@click.option(
    "--force", is_flag=True, help="Take it even from a process that lives; it stops before its next step."
)
@state_option
def command(force: bool, state: str) -> None:
    """Take the lock from an apply that is dead, or that nobody can judge from here.

    A holder that lives on this host keeps it, unless --force; if one lives after all, it stops before its next step.
    """
    store = Store(Path(state))
    with store.read() as db:
        alive = current(db)
    if alive is not None and is_alive(alive) and not force:
        raise Locked(
            f"process {alive.pid} lives and holds the lock: {alive.describe()}. Stop it with `ovsplan stop`; "
            "--force takes the lock all the same, and the process stops before its next step."
        )
    holder = force_unlock(store)
    click.echo(f"Unlocked: it was held by {holder.describe()}." if holder else "The lock was free.")
