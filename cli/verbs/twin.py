"""`ovsplan twin`: make, look at and disturb a simulated cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from providers.twin import Call, TwinWorld

EFFECTS = ("fail", "hang", "lose-reply", "kill", "kill-after")


@click.group("twin")
def command() -> None:
    """Make, look at and disturb a simulated cluster.

    A twin is a folder that outlives every command: API objects, each node's Open vSwitch database, controllers, a
    clock, and a log of every call.
    """


@command.command("init")
@click.argument("file")
@click.argument("folder", metavar="DIR")
def init(file: str, folder: str) -> None:
    """Make the world that FILE (kind World) describes, in DIR."""
    from cli.worldfile import make_world

    name = make_world(file, folder)
    click.echo(
        f"Made the twin world '{name}' in {folder}. Plan against it: ovsplan plan PATH --twin {folder}"
    )


@command.command("log")
@click.argument("folder", metavar="DIR")
@click.option("--writes", is_flag=True, help="Only calls that may change something.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def log(folder: str, writes: bool, as_json: bool) -> None:
    """Print every call that the world in DIR has served."""
    for call in _open(folder).log():
        if writes and not _may_change(call):
            continue
        if as_json:
            row = {
                name: getattr(call, name)
                for name in ("seq", "at", "pid", "port", "node", "verb", "text", "outcome")
            }
            click.echo(json.dumps(row, sort_keys=True))
        else:
            click.echo(
                f"{call.seq:>6} {call.at:.3f} {call.port:<8} {call.node or '-':<12} {call.verb:<9} {call.text}  [{call.outcome}]"
            )


@command.command("fault")
@click.argument("folder", metavar="DIR")
@click.option(
    "--match",
    required=True,
    metavar="PATTERN",
    help="Which calls, as `twin log` prints them: 'PORT NODE VERB TEXT' with * and ?.",
)
@click.option(
    "--nth",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="The how-manieth such call from now on.",
)
@click.option("--effect", required=True, type=click.Choice(EFFECTS), help="What happens to it.")
def fault(folder: str, match: str, nth: int, effect: str) -> None:
    """Let one coming call fail, hang, lose its reply, or kill its caller before or after it is done."""
    _open(folder).add_fault(match, nth=nth, effect=effect)
    click.echo(f"The {nth}. call that matches {match!r} will meet: {effect}.")


@command.command("show")
@click.argument("folder", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="All of it, as JSON.")
def show(folder: str, as_json: bool) -> None:
    """Show the world in DIR: nodes, bridges, ports, VMs and whether they can be reached."""
    from cli.render.twin import render_world

    shown = _open(folder).show()
    click.echo(json.dumps(shown, indent=2, sort_keys=True) if as_json else render_world(shown))


def _may_change(call: Call) -> bool:
    match call.port:
        case "ovsdb":
            return any(f'"op":"{verb}"' in call.text for verb in ("insert", "update", "mutate", "delete"))
        case "shell":
            return "packet-out" in call.text
        case "cluster":
            asks = call.verb in ("get", "list", "watch") or call.text.startswith("SelfSubject")
            return not (asks or call.text.endswith("(dry run)"))
    return call.port == "other"


def _open(folder: str) -> TwinWorld:
    from cli.worldfile import folder_refused
    from providers.twin import WorldError, open_world

    try:
        return open_world(Path(folder))
    except WorldError as error:
        raise folder_refused(folder, error) from error
