"""`ovsplan show`: a plan file, or a run, as text, JSON or a runbook."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cli.files import read_text
from cli.wiring import say_document, say_target, state_option
from plans.document import Plan, read
from plans.errors import InputError


@click.command("show")
@click.argument("what", metavar="FILE|RUN")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "runbook"]),
    default="text",
    show_default=True,
    help="How.",
)
@click.option("--inventory", is_flag=True, help="Print the before-image that the run took first, as JSON.")
@click.option(
    "--export",
    metavar="POLICY",
    help="Print a policy as it was before the run, as JSON that `oc create -f -` takes.",
)
@state_option
def command(what: str, form: str, inventory: bool, export: str | None, state: str) -> None:
    """Show a plan file, or the plan of a run (its id, or the beginning of it).

    `--format runbook` prints the commands with which a person can do it by hand.
    """
    if export is not None:
        click.echo(_export(what, export, state))
        return
    if inventory:
        click.echo(_inventory(what, state))
        return
    plan, marked = _plan(what, state)
    if form == "json":
        say_document(plan)
        return
    say_target(plan.target.title)
    if form == "runbook":
        from cli.render.runbook import render_runbook

        click.echo("\n".join([render_runbook(plan), *(f"# {line}" for line in marked)]))
        return
    from cli.render.plan import render_plan

    click.echo("\n".join([render_plan(plan), *(["", *marked] if marked else [])]))


def _plan(what: str, state: str) -> tuple[Plan, list[str]]:
    """The plan of a file or a run; and of a run, what a person marked as done in it."""
    if Path(what).is_file():
        return read(read_text(what), what), []
    if "/" in what or "." in what:
        raise InputError(f"{what}: no such file, and no run is called so. `ovsplan history` lists the runs.")
    from cli.render.run import render_marked
    from cli.verbs.apply import runs_after, step_states
    from plans.marks import marks
    from state.journal import Journal
    from state.store import Store

    journal = Journal(Store(Path(state)))
    run = journal.find_run(what)
    plan = journal.plan_of(run)
    by_hand = marks(plan, step_states(journal, run.id), runs_after(journal, run))
    return plan, render_marked(list(by_hand.values()))


def _inventory(what: str, state: str) -> str:
    from plans.maintenance.inventory import ID
    from state.journal import Journal
    from state.store import Store

    journal = Journal(Store(Path(state)))
    run = journal.find_run(what)
    image = journal.image(run.id, ID, "inventory")
    if image is None:
        raise InputError(f"run {run.id} has taken no inventory yet")
    taken_at, digest, content = image
    return json.dumps(
        {"taken_at": taken_at, "sha256": digest, "content": json.loads(content)}, indent=2, sort_keys=True
    )


def _export(what: str, policy: str, state: str) -> str:
    from cli.left import policies_before
    from state.journal import Journal
    from state.store import Store

    journal = Journal(Store(Path(state)))
    run = journal.find_run(what)
    name = policy.removeprefix("policy/")
    before = policies_before(journal, run, journal.plan_of(run))
    if name not in before:
        known = f"there were: {', '.join(sorted(before))}" if before else "it has recorded none"
        raise InputError(f"run {run.id} has no export of policy {name}; {known}")
    return json.dumps(before[name], indent=2, sort_keys=True)
