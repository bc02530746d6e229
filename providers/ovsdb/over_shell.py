"""An Open vSwitch database behind a node's shell: one `ovsdb-client transact` a transaction.

Invariant: as with a socket of our own, an error says whether the transaction can have happened. The program
says so itself when it could not connect (Unreachable); any other end without an answer is InDoubt.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

from providers.node.remote import LONGEST
from providers.ports import (
    Answer,
    Body,
    Command,
    Finished,
    InDoubt,
    NodeShell,
    PortError,
    Question,
    Refused,
    Unreachable,
)

_NOT_STARTED = (126, 127)


class BundlingShell(Protocol):
    """A shell that takes several commands on one journey."""

    def run_all(self, commands: Sequence[Command]) -> list[Finished | PortError]:
        """What each came to, in order: its end, or what `run` would have raised for it. They change nothing."""
        ...


class OverShellOvsdb:
    """`providers.ports.Ovsdb` by the node's own ovsdb-client, for a node that gives a shell and no socket."""

    def __init__(self, node: str, shell: NodeShell, rundir: str) -> None:
        self._node = node
        self._shell = shell
        self._remote = f"unix:{rundir}/db.sock"

    def transact(self, database: str, operations: Sequence[Body], *, timeout: float) -> list[Any]:
        """See `providers.ports.Ovsdb`. Refused: longer than `remote.LONGEST` bytes, or the server knows no such database."""
        return self.results(self._shell.run(self.words(database, operations), timeout=timeout))

    def words(self, database: str, operations: Sequence[Body]) -> tuple[str, ...]:
        """The command that a transaction is. Raises Refused when it is longer than `remote.LONGEST` bytes."""
        request = json.dumps([database, *operations], separators=(",", ":"))
        if len(request) > LONGEST:
            raise Refused(
                f"node {self._node}: a transaction of {len(request)} bytes does not fit in a command line "
                f"({LONGEST} at most). Reach this node's database by a socket (nodes.via: ssh, without sudo)."
            )
        # Ended by the shell's bound, the program hangs up, and the server forgets a request that still waits.
        return ("ovsdb-client", "-vconsole:warn", "transact", self._remote, request)

    def results(self, done: Finished) -> list[Any]:
        """What that command's end says of the transaction. Raises as `transact` does."""
        told = " ".join(done.err.split()) or f"exit code {done.rc}"
        if done.rc == 0:
            return self._parsed(done.out)
        if done.rc in _NOT_STARTED:
            raise Unreachable(f"node {self._node} has no ovsdb-client that runs: {told}")
        if "failed to connect" in told:
            raise Unreachable(f"node {self._node}: {told}")
        if "transaction returned error" in told:
            raise Refused(f"node {self._node}: {told}")
        raise InDoubt(f"node {self._node}: ovsdb-client gave no answer to a transaction: {told}")

    def _parsed(self, answer: str) -> list[Any]:
        try:
            return list(json.loads(answer))
        except ValueError as exc:
            raise InDoubt(f"node {self._node}: ovsdb-client answered with no JSON: {answer[:80]!r}") from exc


def ask_together(shell: BundlingShell, ovsdb: OverShellOvsdb, questions: Sequence[Question]) -> list[Answer]:
    """`providers.ports.Nodes.ask` by one journey of `shell`, the transactions among the questions as commands too."""
    commands: dict[int, Command] = {}
    answers: dict[int, Answer] = {}
    for number, question in enumerate(questions):
        try:
            commands[number] = _command(ovsdb, question)
        except Refused as error:
            answers[number] = error
    for number, end in zip(commands, shell.run_all(list(commands.values())), strict=True):
        answers[number] = _answer(ovsdb, questions[number], end)
    return [answers[number] for number in range(len(questions))]


def _command(ovsdb: OverShellOvsdb, question: Question) -> Command:
    if isinstance(question, Command):
        return question
    return Command(ovsdb.words(question.database, question.operations), question.timeout)


def _answer(ovsdb: OverShellOvsdb, question: Question, end: Finished | PortError) -> Answer:
    if isinstance(question, Command) or isinstance(end, PortError):
        return end
    try:
        return ovsdb.results(end)
    except PortError as error:
        return error
