"""`ovsplan abandon`: give up an unfinished run for good."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import click

from cli.left import left_behind
from cli.running import StoreAt, copies_of, held, write_end
from cli.wiring import DEFAULT_STATE, Opened, Where, open_world, say_target, state_option, target_options
from plans.errors import InputError
from state.journal import UNFINISHED, Journal, Run
from state.lock import Lock
from state.store import Store

ABANDONED = "abandoned"


@click.command("abandon")
@click.argument("run")
@click.option("--reason", default="", help="Why; it is kept with the run.")
@target_options
@state_option
def command(run: str, reason: str, where: Where, state: str) -> None:
    """Give up RUN: it is never resumed. Nothing is undone; what it leaves is named, with what takes it away.

    With a target, its copy in the cluster says so too, also when RUN was abandoned without one; and RUN may be one whose
    state database is lost.
    """
    reason = reason or "abandoned"
    if where.is_given:
        _in_cluster(open_world(where), run, reason, state)
        return
    store = Store(Path(state))
    found = Journal(store).find_run(run)
    if found.status == ABANDONED:
        raise InputError(
            f"run {found.id} is abandoned: there is nothing to abandon here. To tell its copy in the cluster: "
            + _with_a_target(found, state)
        )
    _refuse_finished(found)
    with Lock(store, "ovsplan abandon"):
        Journal(store).abandon(found.id, reason, time.time())
    _say_left(Journal(store), found, None, state)
    click.echo(
        "If it has a copy in the cluster, that was not told: it still says that the run is not finished. "
        f"To tell it: {_with_a_target(found, state)}"
    )


def _in_cluster(opened: Opened, run: str, reason: str, state: str) -> None:
    say_target(opened.info.title)
    copies = copies_of(opened)
    with StoreAt(state, opened.info.identity) as place:
        store = place.make()
        with Lock(store, "ovsplan abandon") as lock, held(opened, store, lock) as hold:
            copy = next((copy for copy in copies.unfinished() if copy.run.startswith(run)), None)
            if copy and copy.store != store.name():
                copies.restore(copy, store)
            found = Journal(store).find_run(run)
            if found.status != ABANDONED:
                _refuse_finished(found)
                Journal(store).abandon(found.id, reason, time.time())
            if copy:
                write_end(copies, hold, copy, Journal(store).find_run(found.id))
        if found.status == ABANDONED:
            told = "is told now" if copy else "is not unfinished, or there is none"
            click.echo(f"Run {found.id} was abandoned before; its copy in the cluster {told}.")
            return
        _say_left(Journal(store), found, opened, state)


def _refuse_finished(found: Run) -> None:
    if found.status not in UNFINISHED:
        raise InputError(f"run {found.id} is {found.status}: there is nothing to abandon")


def _with_a_target(run: Run, state: str) -> str:
    where = f" --state {shlex.quote(state)}" if state != DEFAULT_STATE else ""
    return f"`ovsplan abandon {run.id}{where}` with --context, --twin or --target."


def _say_left(journal: Journal, run: Run, opened: Opened | None, state: str) -> None:
    click.echo(f"Run {run.id} is abandoned. Nothing was undone.")
    for line in left_behind(journal, run, journal.plan_of(run), opened, state):
        click.echo(line)
