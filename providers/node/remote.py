"""Commands that end by themselves on the far side, whatever becomes of the side that asked.

Invariant: a command that its bound has ended is InDoubt, and never mistaken for one that chose its exit code.
"""

from __future__ import annotations

from collections.abc import Sequence

from providers.ports import Finished, InDoubt

ANSWER = 2.0
"""Seconds for the news of a command's end to arrive."""

RUNDIR = "/run/openvswitch"
"""Where the daemons of a node keep their sockets, unless a target says otherwise."""

KILL_AFTER = 5
"""Seconds from the request to end until the kill."""

LONGEST = 100_000
"""Bytes of one word of a command: the kernel takes 128 KiB for one argument of a program."""

_BOUND_CODES = (124, 137)


def bounded(argv: Sequence[str], seconds: float) -> list[str]:
    """`argv` behind coreutils' timeout: asked to end after `seconds`, killed with its children 5 s later."""
    return ["timeout", "-k", str(KILL_AFTER), f"{max(seconds, 0.01):.2f}", *argv]


def judged(argv: Sequence[str], finished: Finished, *, late: bool, timeout: float) -> Finished:
    """What a bounded command came to. Raises InDoubt when its bound ended it: it is `late`, with that exit code."""
    if late and finished.rc in _BOUND_CODES:
        raise InDoubt(f"{argv[0]} did not end within {timeout:g} s and was ended")
    return finished


def environment(rundir: str) -> list[str]:
    """Words that make control programs look in `rundir`; none for the place where they look anyway."""
    return [] if rundir == RUNDIR else ["env", f"OVS_RUNDIR={rundir}", f"OVN_RUNDIR={rundir}"]
