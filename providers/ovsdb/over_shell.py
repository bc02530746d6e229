"""An Open vSwitch database behind a node's shell: one `ovsdb-client transact` a transaction.

Invariant: as with a socket of our own, an error says whether the transaction can have happened. The program
says so itself when it could not connect (Unreachable); any other end without an answer is InDoubt.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from providers.ports import Body, Finished, InDoubt, NodeShell, Refused, Unreachable

LONGEST = 100_000
"""Bytes of one transaction: the kernel takes 128 KiB for one argument of a program, and this is one."""

_NOT_STARTED = (126, 127)


class OverShellOvsdb:
    """`providers.ports.Ovsdb` by the node's own ovsdb-client, for a node that gives a shell and no socket."""

    def __init__(self, node: str, shell: NodeShell, rundir: str) -> None:
        self._node = node
        self._shell = shell
        self._remote = f"unix:{rundir}/db.sock"

    def transact(self, database: str, operations: Sequence[Body], *, timeout: float) -> list[Any]:
        """See `providers.ports.Ovsdb`. Refused: longer than LONGEST bytes, or the server knows no such database."""
        request = json.dumps([database, *operations], separators=(",", ":"))
        if len(request) > LONGEST:
            raise Refused(
                f"node {self._node}: a transaction of {len(request)} bytes does not fit in a command line "
                f"({LONGEST} at most). Reach this node's database by a socket (nodes.via: ssh, without sudo)."
            )
        # Ended by the shell's bound, the program hangs up, and the server forgets a request that still waits.
        argv = ["ovsdb-client", "-vconsole:warn", "transact", self._remote, request]
        return self._results(self._shell.run(argv, timeout=timeout))

    def _results(self, done: Finished) -> list[Any]:
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
