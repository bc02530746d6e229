"""`ovsplan history`: the runs that a state database knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cli.render.plan import summary
from cli.render.run import at, render_history
from cli.running import standing
from cli.wiring import say_target, state_option
from state.journal import Journal, Run
from state.store import Store

FORMAT = 1
"""The version of the JSON that --json prints."""


@click.command("history")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON (format 1) instead of text.")
@state_option
def command(as_json: bool, state: str) -> None:
    """List past runs, the newest first: when, by whom, what was planned, and how they ended."""
    store = Store(Path(state))
    journal = Journal(store)
    runs = journal.runs()
    rows = [_row(store, journal, run) for run in runs]
    if as_json:
        click.echo(json.dumps({"format": FORMAT, "runs": rows}, indent=2, sort_keys=True))
        return
    if not runs:
        click.echo("No run yet. `ovsplan plan` shows what would be done.")
        return
    say_target(journal.plan_of(runs[0]).target.title)
    click.echo(render_history(rows))


def _row(store: Store, journal: Journal, run: Run) -> dict[str, Any]:
    plan = journal.plan_of(run)
    steps = journal.steps(run.id)
    return {
        "run": run.id,
        "status": standing(store, run),
        "began": at(run.began),
        "ended": None if run.ended is None else at(run.ended),
        "who": run.who,
        "plan": summary(plan).splitlines()[0].removeprefix("Plan: ").rstrip("."),
        "digest": run.plan,
        "nodes": [node.node for node in plan.nodes if node.changes],
        "actions": {
            "all": len(plan.actions),
            "done": sum(1 for action in plan.actions if action.id in steps and steps[action.id].is_done),
        },
        "message": run.message,
        "source": run.source.splitlines(),
    }
