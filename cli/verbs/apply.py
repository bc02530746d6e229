"""`ovsplan apply`: do it, one node at a time; an unfinished run is resumed before anything else."""

from __future__ import annotations

import secrets
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import click

from cli.exits import DONE, STOPPED
from cli.files import read_text
from cli.output import may_be_lost
from cli.planning import lacks, plan_for
from cli.render.plan import render_plan, summary
from cli.render.run import Printer, at, render_marked, render_planning_anew, render_recap, render_untold
from cli.running import (
    Held,
    Kept,
    StoreAt,
    check_plan_of,
    close_own,
    copies_of,
    held,
    told_of,
    unfinished_copy,
)
from cli.wiring import (
    Failures,
    Opened,
    Where,
    open_world,
    read_desired,
    say_target,
    source_of,
    state_option,
    target_options,
    two_stage_signals,
)
from engine.copies import Copies, Copy
from engine.execute import Executor, Signals
from plans.document import Plan, read
from plans.errors import (
    ActionFailed,
    Declined,
    HazardError,
    InputError,
    Interrupted,
    JournalError,
    Locked,
    OvsplanError,
    WorldMoved,
)
from plans.marks import MARKED, Later, marks, unverified
from plans.progress import StepState, progress
from state.journal import Journal, Run
from state.lock import Lock, who_am_i
from state.store import Store


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for."""

    paths: tuple[str, ...]
    auto_approve: bool
    nodes: tuple[str, ...]
    accepted: tuple[str, ...]
    state: str
    plan_file: Plan | None
    copies: Copies | None


@click.command("apply")
@click.argument("paths", nargs=-1, metavar="[PLANFILE | PATH]...")
@target_options
@state_option
@click.option("--auto-approve", is_flag=True, help="Do not ask.")
@click.option("--node", "nodes", metavar="NAME", multiple=True, help="Only this node; may be repeated.")
@click.option(
    "--accept-hazard",
    "accepted",
    metavar="ID",
    multiple=True,
    help="Go on in spite of this hazard; may be repeated.",
)
@click.option(
    "--no-copy",
    is_flag=True,
    help="Keep no copy of the run in the cluster, and look for none: a lost state database is then lost.",
)
def command(
    paths: tuple[str, ...],
    where: Where,
    state: str,
    auto_approve: bool,
    nodes: tuple[str, ...],
    accepted: tuple[str, ...],
    no_copy: bool,
) -> int:
    """Carry out a plan file as it is, or plan desired state (files or folders), ask, and do it.

    An unfinished run is resumed first, with its own approved plan; one of a lost state database is found by its copy
    in the cluster. Exit 0 done, 3 stopped and resumable, 4 the world
    moved, 5 declined, 6 locked, 7 blocked by a hazard, 130 or 143 interrupted and resumable.
    """
    plan_file = _plan_file(paths)
    opened = open_world(where)
    asked = Request(
        paths, auto_approve, nodes, accepted, state, plan_file, None if no_copy else copies_of(opened)
    )
    say_target(opened.info.title)
    with StoreAt(state, opened.info.identity) as place:
        return _carry_out(asked, opened, place)


def _carry_out(asked: Request, opened: Opened, place: StoreAt) -> int:
    unfinished = Journal(place.found).unfinished() if place.found else None
    if place.found and unfinished:
        return _resume(asked, opened, place.found, unfinished)
    if asked.copies and (found := unfinished_copy(asked.copies, place.found)):
        return _take_up(asked, opened, asked.copies, place, found)
    plan, before = _approved_plan(asked, opened, place.found)
    if plan.is_empty:
        return STOPPED if plan.is_partial else DONE
    _refuse_lacks(asked, opened, plan)
    return _start(asked, opened, place.make(), plan, before)


def _plan_file(paths: tuple[str, ...]) -> Plan | None:
    """The plan, when the one path given is a plan file."""
    if len(paths) != 1 or not Path(paths[0]).is_file():
        return None
    text = read_text(paths[0])
    return read(text, paths[0]) if text.lstrip().startswith("{") else None


def _approved_plan(asked: Request, opened: Opened, store: Store | None) -> tuple[Plan, str | None]:
    """The plan to do, reviewed and approved; and the latest run when it was made. Raises Declined, HazardError."""
    before = _latest(store)
    if asked.plan_file is not None:
        return _checked_plan_file(asked, opened, store), before
    if not asked.auto_approve and not sys.stdin.isatty():
        raise InputError("nobody is there to approve: give --auto-approve, or a plan file that was reviewed")
    plan = plan_for(opened, read_desired(asked.paths), accepted=asked.accepted, only=asked.nodes)
    click.echo(render_plan(plan))
    if plan.blocking():
        raise HazardError("hazards block this plan, see above; nothing was changed")
    if not plan.is_empty and not asked.auto_approve:
        _ask()
    return plan, before


def _checked_plan_file(asked: Request, opened: Opened, store: Store | None) -> Plan:
    plan = asked.plan_file
    assert plan is not None
    if plan.target.identity != opened.info.identity:
        raise InputError(
            f"{asked.paths[0]} is a plan for another target: {plan.target.title} ({plan.target.identity}). "
            f"This one is {opened.info.identity}. Plan again, for this target."
        )
    if asked.accepted or asked.nodes:
        raise InputError(
            "a plan file is done as it was reviewed: --accept-hazard and --node belong to `ovsplan plan`"
        )
    click.echo(summary(plan) if not plan.is_empty else "No changes. The plan is empty.")
    _refuse_hazards(plan)
    return plan


def _refuse_hazards(plan: Plan) -> None:
    if blocking := plan.blocking():
        lines = [f"{f.id}: {f.message}. Way out: {f.way_out}." for f in blocking]
        accept = " ".join(f"--accept-hazard {i}" for i in sorted({f.id for f in blocking}))
        raise HazardError(
            "\n".join(
                ["hazards block this plan; nothing was changed:", *lines, f"To go on all the same: {accept}"]
            )
        )


def _refuse_lacks(asked: Request, opened: Opened, plan: Plan) -> None:
    """Raise InputError when the API server would not let us do all of the plan."""
    if lacking := lacks(opened, plan, copy=asked.copies is not None):
        ways = "The roles in deploy/rbac.yaml grant what an apply needs."
        if all(" secrets in namespace " in sentence for sentence in lacking):
            ways += " --no-copy does without secrets, and keeps no copy of the run in the cluster."
        raise InputError("\n".join(["permissions are missing; nothing was changed:", *lacking, ways]))


def _ask() -> None:
    click.echo(
        "\nDo you want to perform these actions?\n  ovsplan will do what is described above, one node at a time."
    )
    click.echo("  Only 'yes' will be accepted to approve.\n")
    try:
        answer = input("  Enter a value: ")
    except EOFError:
        answer = ""
    if answer.strip() != "yes":
        raise Declined("apply cancelled: the answer was not 'yes'. Nothing was changed.")
    click.echo()


def _latest(store: Store | None) -> str | None:
    runs = Journal(store).runs() if store else []
    return runs[0].id if runs else None


def _start(asked: Request, opened: Opened, store: Store, plan: Plan, before: str | None) -> int:
    with Lock(store, "ovsplan apply") as lock:
        journal = Journal(store, lock)
        if unfinished := journal.unfinished():
            raise Locked(
                f"run {unfinished.id} was started meanwhile, and is not finished. `ovsplan apply` resumes it."
            )
        if _latest(store) != before:
            raise WorldMoved(
                f"run {_latest(store)} was made since this plan was: it may no longer fit. Nothing was done; plan again."
            )
        with held(opened, store, lock) as hold:
            if asked.copies:
                _nobody_came_first(asked.copies, hold)
            now = opened.world.clock.now()
            name = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now)) + f"-{secrets.token_hex(2)}"
            source = source_of(asked.paths) if asked.plan_file is None else ""
            run = journal.start_run(plan, name, now, who_am_i(), version("ovsplan"), source)
            return _execute(asked, opened, hold, run, plan)


def _nobody_came_first(copies: Copies, hold: Held) -> None:
    """Raise Locked when another laptop began a run since we looked, and did not finish it."""
    close_own(copies, hold)
    if found := unfinished_copy(copies, hold.store):
        raise Locked(
            f"{told_of(found, at(found.began))}, was started meanwhile, and is not finished. `ovsplan apply` resumes it."
        )


def _resume(asked: Request, opened: Opened, store: Store, run: Run) -> int:
    journal = Journal(store)
    plan = journal.plan_of(run)
    _same_as_asked(asked, run, plan)
    _refuse_lacks(asked, opened, plan)
    with Lock(store, f"ovsplan apply (run {run.id})") as lock:
        journal = Journal(store, lock)
        still = journal.unfinished()
        if still is None or still.id != run.id:
            raise Locked(
                f"run {run.id} was ended by another process meanwhile: look with `ovsplan status`, then try again"
            )
        with held(opened, store, lock) as hold:
            if asked.copies and (over := _caught_up(asked.copies, hold, run)):
                click.echo(over)
                return DONE
            click.echo(
                f"Resuming run {run.id}: its approved plan, unchanged ({summary(plan).splitlines()[0]})."
            )
            return _execute(asked, opened, hold, run, plan)


def _caught_up(copies: Copies, hold: Held, run: Run) -> str:
    """Take in what another store has done of the run since; returns why nothing is left of it, if so."""
    found = copies.find(run.id)
    if found is None or found.store == hold.store.name():
        return ""
    copies.restore(found, hold.store, run.source)
    if found.is_unfinished:
        click.echo(
            f"Run {run.id} went on elsewhere since, on {found.host}: taken in from its copy in the cluster."
        )
        return ""
    return (
        f"Run {run.id} was ended elsewhere meanwhile, on {found.host}: it is {found.status}. Nothing was done here; "
        "`ovsplan plan` says whether anything is left to do."
    )


def _take_up(asked: Request, opened: Opened, copies: Copies, place: StoreAt, found: Copy) -> int:
    """Restore a run whose state database is not here from its copy in the cluster, and resume it."""
    plan = check_plan_of(copies, found, opened)
    _same_as_asked(asked, copies.run_of(found), plan)
    _refuse_lacks(asked, opened, plan)
    store = place.make()
    with Lock(store, f"ovsplan apply (run {found.run})") as lock, held(opened, store, lock) as hold:
        now = copies.find(found.run)
        if now is None or not now.is_unfinished:
            raise Locked(f"run {found.run} was ended by somebody else meanwhile: plan anew")
        run = copies.restore(now, store)
        click.echo(f"Restored {told_of(now, at(now.began))}, from its copy in the cluster into {store.path}.")
        click.echo(f"Resuming run {run.id}: its approved plan, unchanged ({summary(plan).splitlines()[0]}).")
        return _execute(asked, opened, hold, run, plan)


def _same_as_asked(asked: Request, run: Run, plan: Plan) -> None:
    """An unfinished run comes first: refuse to do anything else meanwhile, and say when the files have changed."""
    ways = f"`ovsplan apply` without a path resumes it; `ovsplan abandon {run.id}` gives it up."
    if asked.nodes or asked.accepted:
        raise InputError(
            f"run {run.id} is not finished: it is resumed as it was approved, without --node and --accept-hazard. {ways}"
        )
    if asked.plan_file is not None:
        if asked.plan_file.digest != plan.digest:
            raise InputError(f"run {run.id} is not finished, and {asked.paths[0]} is another plan. {ways}")
        return
    if asked.paths and source_of(asked.paths) != run.source:
        if not run.source and read_desired(asked.paths).digest() == plan.desired_digest:
            return
        origin = run.source.replace("\n", ", ") or "a plan file, or another machine"
        raise InputError(
            f"run {run.id} is not finished, and it came from {origin}, not from {', '.join(asked.paths)}. {ways}"
        )
    if not run.source:
        return
    try:
        now = read_desired(tuple(run.source.splitlines())).digest()
    except InputError as error:
        first = str(error).splitlines()[0]
        click.echo(f"Note: the files can't be read now ({first}); the approved plan does not need them.")
        return
    if now != plan.desired_digest:
        click.echo(
            "Note: the files have changed since this plan was approved. None of that is applied now; plan again afterwards."
        )


@contextmanager
def _resumable(run: Run, options: str) -> Iterator[None]:
    """Once a run is under way, a state database that can't be used is a stop like any other: raises ActionFailed for it."""
    try:
        yield
    except JournalError as error:
        with may_be_lost():
            click.echo(
                f"\nNext: once the state database can be written, `ovsplan apply {options}` resumes run {run.id}."
            )
        raise ActionFailed(str(error)) from error


def _execute(asked: Request, opened: Opened, hold: Held, run: Run, plan: Plan) -> int:
    signals = Signals()
    journal = hold.journal
    kept = Kept(asked.copies, hold, run, plan)
    hands, reporter = kept.between(opened.hands, Printer(signals))
    with two_stage_signals(signals), _resumable(run, _options(asked, opened)):
        journal.set_run(run.id, "running")
        executor = Executor(
            hands,
            Failures(),
            opened.world.clock,
            journal,
            run,
            plan,
            reporter=reporter,
            signals=signals,
            guard=hold.lease.guard,
        )
        try:
            kept.begin()
            executor.execute()
        except (ActionFailed, WorldMoved, Interrupted) as error:
            status = {ActionFailed: "failed", WorldMoved: "moved", Interrupted: "stopped"}[type(error)]
            journal.set_run(run.id, status, str(error))
            _recap(journal, run, plan)
            kept.end()
            options = _options(asked, opened)
            click.echo(
                f"\nNext: `ovsplan status {options}` says how it stands; `ovsplan apply {options}` resumes run {run.id}."
            )
            if isinstance(error, WorldMoved):
                steps = step_states(journal, run.id)
                click.echo(render_planning_anew(run.id, run.source, plan, steps, options))
            raise
        except OvsplanError as error:
            click.echo(f"\nRun {run.id} stopped: {error}", err=True)
            with suppress(Locked, JournalError):  # what was lost may be the lock, or the journal itself
                journal.set_run(run.id, "stopped", str(error))
            raise
        except (
            Exception
        ) as error:  # a defect: it goes on to its traceback, and the run is known to have stopped
            journal.set_run(run.id, "failed", f"defect: {type(error).__name__}: {error}")
            raise
    with may_be_lost():
        _tell_end(journal, run, plan)
    kept.end()
    kept.tidy()
    return STOPPED if plan.is_partial else DONE


def _tell_end(journal: Journal, run: Run, plan: Plan) -> None:
    steps = step_states(journal, run.id)
    nodes = progress(plan, steps)
    click.echo(
        f"\nApply complete. {summary(plan).splitlines()[0].replace('Plan: ', '').replace('to add', 'added').replace('to change', 'changed').replace('to destroy', 'destroyed')}"
    )
    for node in nodes:
        if node.proof not in ("", "proven"):
            click.echo(f"  {node.node}: {'not proven' if node.untold else node.proof}")
    for line in [*render_untold(nodes), *render_marked(unverified(marks(plan, steps)))]:
        click.echo(line)
    for sentence in plan.afterwards:
        click.echo(sentence)
    if plan.is_partial:
        left = [n.node for n in plan.nodes if n.unreadable or n.blocked]
        left += [b.address for b in plan.cluster_blocked]
        blocked = f"{', '.join(left)} {'was' if len(left) == 1 else 'were'} blocked"
        click.echo(f"Not all that is declared was done: {blocked}, see `ovsplan plan`.", err=True)


def _recap(journal: Journal, run: Run, plan: Plan) -> None:
    steps = step_states(journal, run.id)
    click.echo("\n" + render_recap(progress(plan, steps), plan, steps))


def _options(asked: Request, opened: Opened) -> str:
    from cli.wiring import DEFAULT_STATE

    return opened.options + (f" --state {shlex.quote(asked.state)}" if asked.state != DEFAULT_STATE else "")


def step_states(journal: Journal, run: str) -> dict[str, StepState]:
    """The journal's steps as `plans.progress` reads them."""
    acted = journal.acted(run)
    return {
        name: StepState(row.status, row.note, row.proven, row.began, tuple(acted.get(name, ())), row.id)
        for name, row in journal.steps(run).items()
    }


def runs_after(journal: Journal, run: Run) -> list[Later]:
    """The runs that came after one, the first of them first; none where nobody marked anything in it."""
    if not any(step.status == MARKED for step in journal.steps(run.id).values()):
        return []
    runs = journal.runs()
    newer = runs[: [one.id for one in runs].index(run.id)]
    return [(one.id, journal.plan_of(one), step_states(journal, one.id)) for one in reversed(newer)]
