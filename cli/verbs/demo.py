"""`ovsplan demo`: the whole story on a simulated cluster, by the real commands and with their real output."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import as_file, files
from pathlib import Path

import click

from cli.exits import DONE, STOPPED
from plans.errors import OvsplanError

STORY: tuple[tuple[str, str, int], ...] = (
    (
        "A simulated cluster: three workers, six VMs, br-phy ready, VM traffic still on br-vmdata.",
        "twin init world.yaml world",
        DONE,
    ),
    ("The desired state, checked.", "validate desired", DONE),
    (
        "The plan, kept in a file. Nothing is changed by it.",
        "plan desired --twin world --out tonight.json",
        DONE,
    ),
    (
        "Something will go wrong: the first change of worker-02's switch will fail.",
        "twin fault world --match 'ovsdb worker-02 transact *mutate*' --effect fail",
        DONE,
    ),
    (
        "The plan, carried out, until worker-02 fails. Its exit code is 3: stopped, resumable.",
        "apply tonight.json --twin world",
        STOPPED,
    ),
    ("Where it stands.", "status --twin world", DONE),
    ("The same command again: it resumes the approved plan where it stopped.", "apply --twin world", DONE),
    ("The proof: nothing is left to do …", "plan desired --twin world --detailed-exitcode", DONE),
    ("… and every VM is reached, the silent one too.", "twin show world", DONE),
)


@click.command("demo")
@click.option(
    "--dir",
    "folder",
    metavar="DIR",
    help="Work there and leave everything behind; else in a temporary folder.",
)
def command(folder: str | None) -> None:
    """Plan, apply, fail on the second node, resume and prove: on a simulated cluster, in seconds."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="ovsplan-demo-") as temporary:
            _tell(Path(temporary))
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    _tell(Path(folder))


def _tell(folder: Path) -> None:
    with as_file(files("examples") / "uplink-alive") as example:
        shutil.copy(example / "world.yaml", folder / "world.yaml")
        shutil.copytree(example / "cold", folder / "desired", dirs_exist_ok=True)
    # A target or a state of the user's own has no place in the demo.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OVSPLAN_")}
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        environment["FORCE_COLOR"] = "1"
    environment["PYTHONUNBUFFERED"] = "1"
    for said, line, expected in STORY:
        click.secho(f"\n# {said}", fg="cyan")
        click.secho(f"$ ovsplan {line}", bold=True)
        sys.stdout.flush()
        ended = subprocess.run(
            [sys.executable, "-m", "cli.main", *shlex.split(line)], cwd=folder, env=environment, check=False
        )
        if ended.returncode != expected:
            raise OvsplanError(
                f"the demo went wrong: `ovsplan {line}` ended with {ended.returncode}, not {expected}"
            )
    click.secho("\n# That was the whole story. Where to go on: README.md, docs/desired-state.md.", fg="cyan")
