"""`python -m tests.lab.main up | down | kubelet`: the lab for a person, and its kubelet as a process.

Invariant: what a command needs to know is in the lab's folder; nothing is passed from one to the next.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import yaml

from . import daemons
from .kubelet import Kubelet
from .lab import Lab, take_down
from .netns import LabError

_DEFAULT_WORLD = Path(__file__).with_name("world.yaml")
_DEFAULT_FOLDER = Path(tempfile.gettempdir()) / "ovsplan-lab"


def main() -> int:
    """Run one command; the exit code is 1 when the lab could not do it."""
    arguments = _parser().parse_args()
    commands = {"up": _up, "down": _down, "kubelet": _kubelet}
    try:
        commands[arguments.command](arguments)
    except LabError as exc:
        print(f"lab: {exc}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab.main", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="build the lab of a World file and write its target file")
    up.add_argument("world", nargs="?", type=Path, default=_DEFAULT_WORLD)
    down = commands.add_parser("down", help="end the lab and delete its folder")
    kubelet = commands.add_parser("kubelet", help="be kubelet for a lab that runs (`up` starts one)")
    for command in (up, down, kubelet):
        command.add_argument("--dir", type=Path, default=_DEFAULT_FOLDER)
    return parser


def _up(arguments: argparse.Namespace) -> None:
    if lacking := daemons.lacking():
        raise LabError(f"this machine lacks {', '.join(lacking)}")
    lab = Lab.up(yaml.safe_load(arguments.world.read_text()), arguments.dir)
    print(f"The lab is up. Target file: {lab.target}")


def _down(arguments: argparse.Namespace) -> None:
    take_down(arguments.dir)


def _kubelet(arguments: argparse.Namespace) -> None:
    lab = Lab.attach(arguments.dir)
    kubelet = Kubelet(lab.cluster, lab.wiring, lab.spec.migration_seconds)
    (lab.place.folder / "kubelet.pid").write_text(str(os.getpid()))
    kubelet.run(until=lambda: not lab.place.spec.exists())


if __name__ == "__main__":
    sys.exit(main())
