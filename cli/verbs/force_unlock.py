"""`ovsplan force-unlock`: take the lock from an apply that is dead."""

from __future__ import annotations

from pathlib import Path

import click

from cli.wiring import state_option
from state.lock import force_unlock
from state.store import Store


@click.command("force-unlock")
@state_option
def command(state: str) -> None:
    """Take the lock from whoever holds it. If they live after all, they stop before their next step."""
    holder = force_unlock(Store(Path(state)))
    click.echo(f"Unlocked: it was held by {holder.describe()}." if holder else "The lock was free.")
