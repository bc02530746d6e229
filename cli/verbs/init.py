"""`ovsplan init`: the desired state that says what is there, and the one migration that is asked for."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import click

from cli.exits import DONE
from cli.render.plan import summary
from cli.wiring import Opened, Where, open_world, say_target, target_options
from engine.observe import observe
from plans.document import Plan
from plans.errors import InputError, Problem
from plans.facts import Facts
from plans.planner import node_views
from plans.proposal import VIEWS, Proposal, Wish, propose


@click.command("init")
@target_options
@click.option("--bridge", metavar="NAME", help="The bridge that the localnet is to be on.")
@click.option("--replace", metavar="NAME", help="The bridge that goes once the localnet is on --bridge.")
@click.option(
    "--localnet", "localnets", metavar="NAME", multiple=True, help="Only this localnet; may be repeated."
)
@click.option(
    "--out", metavar="DIR", default=".", show_default=True, help="Where the files go; `-` prints them."
)
def command(
    where: Where, bridge: str | None, replace: str | None, localnets: tuple[str, ...], out: str
) -> int:
    """Write the VMNetwork of each localnet that the cluster has, and a Rollout, to begin with.

    Reads the cluster, and changes nothing in it. Planning the files right after shows the migration that --bridge and
    --replace ask for, or no changes. What was guessed says so in a comment. No file is overwritten.
    """
    opened = open_world(where)
    wish = Wish(bridge, replace, tuple(dict.fromkeys(localnets)))
    proposal = propose(_everything(opened), opened.target, wish)
    if out == "-":
        click.echo("---\n".join(proposal.files.values()), nl=False)
        for sentence in proposal.left_out:
            click.echo(f"Note: left out: {sentence}", err=True)
        return DONE
    _write(Path(out), proposal.files)
    say_target(opened.info.title)
    _tell(proposal, Path(out), opened.options)
    return DONE


def _everything(opened: Opened) -> Facts:
    """What a plan would read, of every node."""
    cluster = observe(opened.hands, opened.world.clock, VIEWS)
    views = [view for node in Facts(cluster).value("cluster/nodes", []) for view in node_views(node)]
    return Facts({**cluster, **observe(opened.hands, opened.world.clock, views)})


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """Every file or none: those that are there already are named together. Raises InputError."""
    there = [str(folder / name) for name in files if (folder / name).exists() or (folder / name).is_symlink()]
    if there:
        message = "is there already, and is not overwritten. Move it away, or give another folder by --out."
        raise InputError([Problem(path, 0, 0, message) for path in there])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise InputError(f"cannot write to {error.filename or folder}: {error.strerror}") from error


def _tell(proposal: Proposal, folder: Path, options: str) -> None:
    for name, text in proposal.files.items():
        guesses = text.count("# guessed:")
        note = f"  ({guesses} guessed: look for `# guessed:`)" if guesses else ""
        click.echo(f"Wrote {folder / name}{note}")
    for sentence in proposal.left_out:
        click.echo(f"Left out: {sentence}")
    click.echo(f"\nPlanned now, they say:\n{_planned(proposal.plan)}")
    click.echo(f"\nTo see it whole: ovsplan plan {shlex.quote(str(folder))} {options}".rstrip())


def _planned(plan: Plan) -> str:
    lines = [] if plan.is_empty else [summary(plan)]
    if plan.is_empty:
        lines.append("No changes." if not plan.is_partial else "No changes can be made.")
    lines += [f"{n.node} could not be read: {n.unreadable}" for n in plan.nodes if n.unreadable]
    held = [*plan.cluster_blocked, *(b for n in plan.nodes for b in n.blocked)]
    lines += [f"{b.address} is blocked: {'; '.join(b.reasons)}" for b in held]
    lines += [f"blocked by {f.id}: {f.message}" for f in plan.blocking()]
    return "\n".join(f"  {line}" for text in lines for line in text.splitlines())
