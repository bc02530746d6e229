"""Several commands on one journey: a script that runs them one after the other, and what each of them came to.

Invariant: every command has its own time, its own two outputs and its own end. They are told apart by a token that is
drawn for the one journey, so that whatever a command writes, it is taken for nobody else's.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Sequence

from providers.node.remote import KILL_AFTER, LONGEST
from providers.ports import Command, Finished, InDoubt, PortError

_SAY_END = (
    'token=$1; late=; trap late=1 TERM; shift; "$@"; rc=$?; '
    '[ "$late" ] || printf "\\n%s %d\\n" "$token" "$rc"; exit "$rc"'
)
"""Runs a command and says how it ended, unless its time had ended it."""

_ASK = """\
say_end={say_end}
ask() {{
    bound=$1; shift
    timeout -k {kill_after} "$bound" {environment} sh -c "$say_end" sh {token} "$@" </dev/null
    rc=$?
    printf '\\n%s over %d\\n' {token} "$rc"
    printf '\\n%s over\\n' {token} >&2
}}
"""
_NOT_BEGUN = (125, 126, 127)

Run = Callable[[Sequence[str], float], Finished]
"""Runs words, with so many seconds for their end to be heard of. Raises a PortError."""

Lead = Callable[[Command], Sequence[str]]
"""The words before a command's own, which lead on to where its program is."""


def _straight(command: Command) -> Sequence[str]:
    return ()


def run_all(
    commands: Sequence[Command],
    environment: Sequence[str],
    run: Run,
    alone: Callable[[Command], Finished],
    lead: Lead = _straight,
) -> list[Finished | PortError]:
    """What each command came to, in order: by `run` together, or each `alone` where together is no gain, or too long."""
    token = secrets.token_hex(16)
    text = script(commands, environment, token, lead)
    if len(commands) <= 1 or len(text.encode()) > LONGEST:
        return [attempted(alone, command) for command in commands]
    try:
        told = run(["sh", "-c", text], sum(command.timeout for command in commands))
    except PortError as error:
        return [error] * len(commands)
    return unpacked(commands, token, told)


def attempted(alone: Callable[[Command], Finished], command: Command) -> Finished | PortError:
    """What a command came to by itself; an error is returned."""
    try:
        return alone(command)
    except PortError as error:
        return error


def script(
    commands: Sequence[Command], environment: Sequence[str], token: str, lead: Lead = _straight
) -> str:
    """For a POSIX shell on the node; it needs coreutils' timeout. `environment` are words before each command."""
    asking = _ASK.format(
        say_end=shlex.quote(_SAY_END),
        kill_after=KILL_AFTER,
        environment=shlex.join(environment),
        token=token,
    )
    return asking + "\n".join(shlex.join(["ask", f"{c.timeout:.2f}", *lead(c), *c.argv]) for c in commands)


def unpacked(commands: Sequence[Command], token: str, told: Finished) -> list[Finished | PortError]:
    """What the script came to, command by command. InDoubt: its time ended the command, or the script was ended."""
    outs, errs = told.out.split(f"\n{token} over "), told.err.split(f"\n{token} over\n")
    ends = [tail.partition("\n") for tail in outs[1:]]
    # What precedes a command's output is the end of the one before it.
    written = [outs[0], *(rest for _, _, rest in ends)]
    found: list[Finished | PortError] = []
    for number, command in enumerate(commands):
        if number < min(len(ends), len(errs) - 1):
            found.append(_ended(command, token, written[number], errs[number], int(ends[number][0])))
        else:
            found.append(InDoubt(f"{command.argv[0]}: the shell that was to run it ended: {_why(told)}"))
    return found


def _ended(command: Command, token: str, out: str, err: str, code: int) -> Finished | PortError:
    body, said, rc = out.rpartition(f"\n{token} ")
    if said:
        return Finished(int(rc), body, err)
    if code in _NOT_BEGUN:
        return Finished(code, out, err)
    return InDoubt(f"{command.argv[0]} did not end within {command.timeout:g} s and was ended")


def _why(told: Finished) -> str:
    return told.err.strip().rpartition("\n")[2] or f"exit code {told.rc}"
