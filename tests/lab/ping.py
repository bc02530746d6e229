"""A continuous ping whose answers are matched one by one: what a guest noticed, in milliseconds.

Invariant: the probe is a process of its own, so that a busy tester is not mistaken for a dead network.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .netns import LabError

_PROGRAM = Path(__file__).with_name("probe.py")


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the probes. Times are milliseconds."""

    sent: int
    lost: int
    lost_ms: float
    longest_gap_ms: float


class Ping:
    """A running probe; `stop` ends it and tells what it saw."""

    def __init__(self, namespace: str, target: str, folder: Path, *, every: float = 0.001) -> None:
        # The folder is only there to be seen in the command line, by which the lab knows its own processes.
        argv = (
            "ip",
            "netns",
            "exec",
            namespace,
            sys.executable,
            "-I",
            str(_PROGRAM),
            target,
            str(every),
            f"{folder}/",
        )
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "started\n":
            raise LabError(f"no probe: {self._process.communicate()[1].strip()}")

    def __enter__(self) -> Ping:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()

    def stop(self) -> Tally:
        """End probing; waits half a second for the last answers."""
        out, err = self._process.communicate(timeout=30)
        if self._process.returncode:
            raise LabError(f"the probe failed: {err.strip()}")
        return Tally(**json.loads(out))
