"""`ovsplan status`: how the run stands, and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import indent

import click

from cli.left import left_behind, stopped_vms
from cli.render.run import at, render_planning_anew, render_shared, render_status, render_undo, render_untold
from cli.running import check_plan_of, copies_of, in_secrets, lease_holder, standing
from cli.verbs.apply import runs_after, step_states
from cli.wiring import DEFAULT_STATE, Opened, Where, open_world, say_target, state_option, target_options
from engine.copies import Copy
from engine.lease import NAMESPACE
from plans.document import Plan
from plans.errors import InputError
from plans.marks import marks
from plans.progress import progress, vms_without_network
from providers.ports import Forbidden, PortError
from state.journal import Journal, Run
from state.lock import is_held
from state.store import Store

ENDED = ("done", "partial", "abandoned")
"""How runs end that are never resumed."""


@click.command("status")
@target_options
@state_option
@click.option("--run", "name", metavar="RUN", help="Another run than the latest.")
def command(where: Where, state: str, name: str | None) -> None:
    """Show the latest run: each node's checklist, what it waits for and since when, and the next command.

    Of a run that stopped half-way through a node it prints the manual undo, too. With a target, also the VMs that have no network now, who acts on the cluster, and the copy of the run that is kept
    there; where there is no state database, the run that this copy is of.
    """
    opened = open_world(where) if where.is_given else None
    if opened and not Path(state).exists() and (copy := _latest_copy(opened)):
        with TemporaryDirectory(prefix="ovsplan-") as folder:
            store = Store(Path(folder) / "state.db", opened.info.identity, create=True)
            check_plan_of(copies_of(opened), copy, opened)
            copies_of(opened).restore(copy, store)
            _show(store, opened, state, copy.run, copy)
            store.close()
        return
    store = Store(Path(state), opened.info.identity if opened else None)
    _show(store, opened, state, name, None)


def _latest_copy(opened: Opened) -> Copy | None:
    """The copy to tell of; None also for somebody who may not see any."""
    try:
        return copies_of(opened).latest()
    except Forbidden:
        return None


def _show(store: Store, opened: Opened | None, state: str, name: str | None, copy: Copy | None) -> None:
    """One run of a store; `copy`, when the store is not the user's, but was filled from that."""
    journal = Journal(store)
    runs = journal.runs()
    if not runs:
        click.echo("No run yet. `ovsplan plan` shows what would be done.")
        return
    run = journal.find_run(name) if name else runs[0]
    plan = journal.plan_of(run)
    say_target(opened.info.title if opened else plan.target.title)
    steps = step_states(journal, run.id)
    word = standing(store, run)
    acting = lease_holder(opened) if opened else None
    if word == "interrupted":
        word = "running elsewhere" if acting else "interrupted (its process is gone)"
    click.echo(f"Run {run.id}: {word}, begun {at(run.began)} by {run.who}")
    if acting:
        click.echo(f"  acting on the cluster now: {acting.describe()}")
    if copy:
        click.echo(
            f"  {state} is not there: this is from the copy in the cluster, {in_secrets(copy.size)}, last "
            f"written on {copy.host}"
        )
    if run.message:
        click.echo(indent(run.message, "  "))
    later = runs_after(journal, run)
    nodes, by_hand = progress(plan, steps, later), marks(plan, steps, later)
    click.echo("\n" + "\n\n".join([render_status(nodes), render_shared(plan, steps, by_hand)]) + "\n")
    for line in render_untold(nodes):
        click.echo(line)
    _say_waiting(store, journal, run, plan)
    if opened:
        _say_dark(opened, plan)
    if run.status == "abandoned" and not copy:
        if left := left_behind(journal, run, plan, opened, state):
            click.echo("What it left, by its journal:\n" + indent("\n".join(left), "  "))
    elif not is_held(store):
        for line in stopped_vms(journal, run, plan, opened):
            click.echo(line)
    if opened and not copy:
        _say_copy(opened, store, run)
    stopped = word not in ("running", "running elsewhere", *ENDED)
    if stopped and (undo := render_undo(nodes, plan, steps)):
        click.echo("\n".join([*undo, ""]))
    options = (opened.options if opened else "--twin DIR") + (
        f" --state {shlex.quote(state)}" if state != DEFAULT_STATE else ""
    )
    click.echo(f"Next: {_next(store, run, options)}")
    if run.status == "moved" and not is_held(store):
        click.echo(render_planning_anew(run.id, run.source, plan, steps, options))


def _say_copy(opened: Opened, store: Store, run: Run) -> None:
    """The copy of the run in the cluster, and whether somebody else has gone on with it."""
    try:
        found = copies_of(opened).find(run.id)
    except (PortError, InputError) as error:
        click.echo(f"Copy of this run in the cluster: {error}")
        return
    if found is None:
        click.echo(f"Copy of this run in the cluster: none in namespace {NAMESPACE}.")
        return
    click.echo(f"Copy of this run in the cluster: {in_secrets(found.size)}.")
    if found.store != store.name():
        click.echo(f"  It went on elsewhere since: it is {found.status} there, last written on {found.host}.")


def _say_waiting(store: Store, journal: Journal, run: Run, plan: Plan) -> None:
    """The op in flight, or in doubt, and since when."""
    steps = journal.steps(run.id)
    for action in plan.actions:
        step = steps.get(action.id)
        if step is None or step.status != "begun":
            continue
        for event in journal.events(run.id, action.id):
            if event.outcome is None and (event.op.get("op") != "wait" or is_held(store)):
                word = "In flight" if is_held(store) else "In doubt (its process is gone)"
                click.echo(
                    f"{word}: {action.id}: {event.op.get('title', event.label)}, since {at(event.intent_at)}"
                )


def _say_dark(opened: Opened, plan: Plan) -> None:
    from engine.observe import observe
    from plans.facts import Facts
    from plans.planner import VIEWS

    nodes = [n.node for n in plan.nodes]
    facts = Facts(observe(opened.hands, opened.world.clock, [*VIEWS, *(f"ovs:{n}" for n in nodes)]))
    dark, unknown = vms_without_network(plan, facts)
    _list("VMs without network now", dark)
    if unknown:
        _list("Cannot tell whether VMs have network on", unknown)


def _list(title: str, lines: Iterable[str]) -> None:
    lines = list(lines)
    click.echo(f"{title}:{'' if lines else ' none'}")
    for line in lines:
        click.echo(f"  {line}")


def _next(store: Store, run: Run, options: str) -> str:
    paths = " ".join(shlex.quote(path) for path in run.source.splitlines()) or "PATH"
    plan_again = f"`ovsplan plan {paths} {options}`"
    if is_held(store):
        return "wait, or `ovsplan stop` from here"
    match run.status:
        case "done":
            return f"nothing in this run; {plan_again} says whether anything is left to do"
        case "partial":
            return f"mend what is blocked: {plan_again} names it"
        case "abandoned":
            return plan_again
        case "moved":
            return f"mend what changed, and `ovsplan apply {options}` goes on"
    return f"`ovsplan apply {options}` resumes"
