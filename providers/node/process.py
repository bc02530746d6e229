"""Programs of this machine that end in time, or are ended.

Invariant: no program outlives the wait for it, whatever ends the wait, and neither do its children.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

_REAP = 5.0
_SIGNALLED = 128


class OutOfTime(Exception):
    """The program had not ended when its time was up; it was killed."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that ended by itself; a signal that ended it counts as 128 + its number, as in a shell."""

    rc: int
    out: bytes
    err: bytes


def finish(
    argv: Sequence[str], *, timeout: float, stdin: bytes = b"", environment: Mapping[str, str] | None = None
) -> Ended:
    """Run a program to its end, with at most `timeout` seconds. Raises OutOfTime, and OSError when it can't start."""
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    with process:
        try:
            out, err = process.communicate(stdin or None, timeout=timeout)
        except subprocess.TimeoutExpired as exc:
            end(process)
            raise OutOfTime(f"{argv[0]} did not end within {timeout:g} s and was killed") from exc
        except BaseException:
            # Whatever ends the wait, Ctrl-C included, no program is left running behind it.
            end(process)
            raise
    rc = process.returncode if process.returncode >= 0 else _SIGNALLED - process.returncode
    return Ended(rc, out, err)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the program with its children; whoever holds its pipes closes them."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=_REAP)
