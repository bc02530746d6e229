"""`ovsplan plan`: what would be done, and nothing is."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.exits import CHANGES, DONE, HAZARD
from cli.output import reader_may_leave
from cli.wiring import (
    DEFAULT_STATE,
    Opened,
    Where,
    open_world,
    read_desired,
    say_begun,
    say_document,
    say_target,
    state_option,
    target_options,
)
from plans.document import Plan, lines
from plans.errors import InputError
from providers.ports import PortError

if TYPE_CHECKING:
    from state.store import Store


@click.command("plan")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@target_options
@state_option
@click.option("--out", metavar="FILE", help="Write the plan there; `ovsplan apply FILE` does exactly that.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan document (format 2) instead of text.")
@click.option(
    "--detailed-exitcode", is_flag=True, help="Exit 2 when there are changes, 0 when there are none."
)
@click.option("--node", "nodes", metavar="NAME", multiple=True, help="Only this node; may be repeated.")
@click.option(
    "--accept-hazard",
    "accepted",
    metavar="ID",
    multiple=True,
    help="Go on in spite of this hazard; may be repeated.",
)
def command(
    paths: tuple[str, ...],
    where: Where,
    state: str,
    out: str | None,
    as_json: bool,
    detailed_exitcode: bool,
    nodes: tuple[str, ...],
    accepted: tuple[str, ...],
) -> int:
    """Compare desired state (files or folders; the current folder when none is given) with the cluster.

    Reads, and changes nothing. Exit 0; with --detailed-exitcode 2 when there are changes; 7 when a hazard blocks.
    """
    say_begun(where, "Planning for")
    from cli.planning import lacks, plan_for
    from cli.render.plan import render_plan

    desired = read_desired(paths)
    opened = open_world(where, said=True)
    _check_state(state, opened)
    plan = plan_for(opened, desired, accepted=accepted, only=nodes)
    if out:
        _write_out(out, plan)
    with reader_may_leave():
        if as_json:
            say_document(plan)
        else:
            say_target(opened.info.title)
            click.echo(render_plan(plan))
            again = (
                f"{opened.options} --state {shlex.quote(state)}" if state != DEFAULT_STATE else opened.options
            )
            made_with = " ".join(
                [*(f"--node {n}" for n in nodes), *(f"--accept-hazard {h}" for h in accepted)]
            )
            _say_next(plan, out, paths, again, made_with)
    for sentence in lacks(opened, plan, copy=True):
        click.echo(f"Warning: {sentence}, which an apply of this plan needs.", err=True)
    if plan.blocking():
        return HAZARD
    return CHANGES if detailed_exitcode and not (plan.is_empty and not plan.is_partial) else DONE


def _check_state(state: str, opened: Opened) -> None:
    """Tell of an unfinished run, which comes before this plan. Raises JournalError: a plan needs no state, but one that
    belongs to another cluster is a mistake to be told now.
    """
    from cli.running import StoreAt
    from state.journal import Journal

    with StoreAt(state, opened.info.identity) as place:
        unfinished = Journal(place.found).unfinished() if place.found else None
        told = f"run {unfinished.id} is not finished" if unfinished else _told_by_copy(opened, place.found)
    if told:
        click.echo(
            f"Note: {told}; `ovsplan apply` resumes it with its own, approved plan, not with this one.\n",
            err=True,
        )


def _told_by_copy(opened: Opened, store: Store | None) -> str:
    """The unfinished run that an apply would find in the cluster; empty when there is none, or it can't be told."""
    from cli.render.run import at
    from cli.running import copies_of, told_of, unfinished_copy

    try:
        found = unfinished_copy(copies_of(opened), store)
    except (InputError, PortError) as error:
        click.echo(f"Note: whether the cluster keeps an unfinished run can't be told: {error}\n", err=True)
        return ""
    return f"{told_of(found, at(found.began))}, is not finished, by its copy in the cluster" if found else ""


def _write_out(out: str, plan: Plan) -> None:
    try:
        with Path(out).open("w") as file:
            file.writelines(lines(plan))
    except OSError as error:
        raise InputError(f"cannot write the plan to {out}: {error.strerror}") from error


def _say_next(plan: Plan, out: str | None, paths: Sequence[str], options: str, only_planned: str) -> None:
    """The command that does what was shown, with every option that it was made with."""
    if plan.is_empty or plan.blocking():
        return
    if out:
        click.echo(
            f"\nSaved the plan to: {out}\nTo do exactly this: ovsplan apply {shlex.quote(out)} {options}"
        )
    else:
        words = " ".join([*map(shlex.quote, paths), options, only_planned])
        click.echo(
            "\nNote: without --out, a later apply plans again and may find another world. "
            f"To be asked and then do it: ovsplan apply {words.strip()}"
        )
