"""`ovsplan force-unlock`: take the lock, and the cluster's Lease, from an apply that is dead."""

from __future__ import annotations

from pathlib import Path

import click

from cli.wiring import Where, open_world, say_target, state_option, target_options
from engine import lease
from plans.errors import Locked
from providers.ports import Cluster
from state.lock import Holder, current, force_unlock, is_alive
from state.store import Store


@click.command("force-unlock")
@click.option(
    "--force", is_flag=True, help="Take it even from a process that lives; it stops before its next step."
)
@target_options
@state_option
def command(force: bool, where: Where, state: str) -> None:
    """Take the lock from an apply that is dead, or that nobody can judge from here.

    With a target, its cluster's Lease too; where there is no state database then, the Lease alone. A holder that lives
    on this host keeps both, unless --force; if one lives after all, it stops before its next step.
    """
    opened = open_world(where) if where.is_given else None
    if opened:
        say_target(opened.info.title)
    if opened is None or Path(state).exists():
        store = Store(Path(state), opened.info.identity if opened else None)
        with store.read() as db:
            _refuse_alive(current(db), "the lock", force)
        holder = force_unlock(store)
        click.echo(f"Unlocked: it was held by {holder.describe()}." if holder else "The lock was free.")
    if opened:
        _take_lease(opened.world.cluster, force)


def _take_lease(cluster: Cluster, force: bool) -> None:
    _refuse_alive(lease.current(cluster), "the Lease of the cluster", force)
    holder = lease.take_away(cluster)
    click.echo(
        f"Took the Lease of the cluster: it was held by {holder.describe()}."
        if holder
        else "The Lease was free."
    )


def _refuse_alive(holder: Holder | None, what: str, force: bool) -> None:
    if holder is not None and is_alive(holder) and not force:
        raise Locked(
            f"process {holder.pid} lives and holds {what}: {holder.describe()}. Stop it with `ovsplan stop`; "
            "--force takes it all the same, and the process stops before its next step."
        )
