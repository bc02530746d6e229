"""Nodes reached by ssh: the shell, and the database through a forwarded socket where the login may open it.

Invariant: nothing is sent to a host whose key is not known already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from providers.node.bundle import run_all
from providers.node.remote import ANSWER, RUNDIR, bounded, environment, judged
from providers.node.ssh_connection import Connection, SshFolder, SshSettings
from providers.ovsdb.client import UnixOvsdb
from providers.ovsdb.over_shell import OverShellOvsdb, ask_together
from providers.ports import (
    Answer,
    Body,
    Command,
    Finished,
    InDoubt,
    Nodes,
    NodeShell,
    Ovsdb,
    PortError,
    Question,
    Unreachable,
)


class SshShell:
    """`providers.ports.NodeShell` by ssh; Refused besides, when sudo is wanted and asks for a password."""

    def __init__(self, connection: Connection, *, sudo: bool, environment: Sequence[str] = ()) -> None:
        self._connection = connection
        self._sudo = sudo
        self._environment = environment

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Finished:
        """Run to its end; see `providers.ports.NodeShell`."""
        deadline = time.monotonic() + timeout
        self._connection.connect(deadline)
        begun = time.monotonic()
        bound = deadline - begun
        words = bounded([*self._environment, *argv], bound)
        finished = self._run(words, stdin, deadline + ANSWER)
        return judged(argv, finished, late=time.monotonic() - begun >= bound, timeout=timeout)

    def run_all(self, commands: Sequence[Command]) -> list[Finished | PortError]:
        """See `providers.ovsdb.over_shell.BundlingShell`: all of them in one session."""

        def run(words: Sequence[str], seconds: float) -> Finished:
            self._connection.connect(time.monotonic() + max(command.timeout for command in commands))
            return self._run(words, b"", time.monotonic() + seconds + ANSWER)

        def alone(command: Command) -> Finished:
            return self.run(command.argv, timeout=command.timeout)

        return run_all(commands, self._environment, run, alone)

    def _run(self, words: Sequence[str], stdin: bytes, deadline: float) -> Finished:
        ended = self._connection.command(words, sudo=self._sudo, stdin=stdin, deadline=deadline)
        return Finished(ended.rc, ended.out.decode(errors="replace"), ended.err.decode(errors="replace"))


class SshOvsdb:
    """`providers.ports.Ovsdb` through a forwarded socket when the login may open it, else by the shell."""

    def __init__(self, node: str, connection: Connection, shell: NodeShell, rundir: str) -> None:
        self._node = node
        self._connection = connection
        self._rundir = rundir
        self._by_shell = OverShellOvsdb(node, shell, rundir)
        self._shell_only = False
        self._forwarded: UnixOvsdb | None = None
        self._lock = threading.Lock()

    def transact(self, database: str, operations: Sequence[Body], *, timeout: float) -> list[Any]:
        """See `providers.ports.Ovsdb`."""
        deadline = time.monotonic() + timeout
        try:
            way = self._way(deadline)
        except InDoubt as exc:
            # Only looking for the way is in doubt: the transaction was not sent.
            raise Unreachable(str(exc)) from exc
        return way.transact(database, operations, timeout=max(deadline - time.monotonic(), 0.0))

    def close(self) -> None:
        """Hang up. The next transaction connects again."""
        forwarded, self._forwarded = self._forwarded, None
        if forwarded is not None:
            forwarded.close()

    def _way(self, deadline: float) -> Ovsdb:
        with self._lock:
            if self._shell_only:
                return self._by_shell
            if self._forwarded is None or not self._connection.stands:
                self.close()
                self._forwarded = self._forward(deadline)
                self._shell_only = self._forwarded is None
            return self._forwarded or self._by_shell

    def _forward(self, deadline: float) -> UnixOvsdb | None:
        socket = f"{self._rundir}/db.sock"
        plain = SshShell(self._connection, sudo=False)
        asked = plain.run(["test", "-r", socket, "-a", "-w", socket], timeout=deadline - time.monotonic())
        if asked.rc:
            return None
        forwarded = UnixOvsdb(
            self._connection.forward(socket, deadline),
            greet=True,
            called=f"ovsdb-server of node {self._node}",
        )
        try:
            forwarded.transact("Open_vSwitch", [], timeout=deadline - time.monotonic())
        except Unreachable:
            # sshd may forbid forwarding (AllowStreamLocalForwarding), and does not say so before the first use.
            forwarded.close()
            return None
        return forwarded


class SshNodes(Nodes):
    """Every node by ssh.

    `host_of` gives the host for a node, and may raise a PortError; `{node}` in `rundir` is the node's name.
    """

    def __init__(self, settings: SshSettings, host_of: Callable[[str], str], *, rundir: str = RUNDIR) -> None:
        self._settings = settings
        self._host_of = host_of
        self._rundir = rundir
        self._folder: SshFolder | None = None
        self._connections: dict[str, Connection] = {}
        self._ovsdbs: dict[str, SshOvsdb] = {}
        self._lock = threading.Lock()

    def shell(self, node: str) -> NodeShell:
        """The node's shell. Connects when first used."""
        return self._shell(node)

    def ovsdb(self, node: str) -> Ovsdb:
        """The node's database. Connects when first used."""
        connection, shell = self._connection(node), self._shell(node)
        with self._lock:
            if node not in self._ovsdbs:
                self._ovsdbs[node] = SshOvsdb(node, connection, shell, self._rundir_of(node))
            return self._ovsdbs[node]

    def ask(self, node: str, questions: Sequence[Question]) -> list[Answer]:
        """One session for all of them; see `providers.ports.Nodes`."""
        try:
            shell = self._shell(node)
        except PortError as error:
            return [error] * len(questions)
        return ask_together(shell, OverShellOvsdb(node, shell, self._rundir_of(node)), questions)

    def close(self) -> None:
        """Hang up everywhere, and leave nothing behind."""
        with self._lock:
            for ovsdb in self._ovsdbs.values():
                ovsdb.close()
            for connection in self._connections.values():
                connection.let_go()
            for connection in self._connections.values():
                connection.close()
            if self._folder is not None:
                self._folder.remove()
            self._ovsdbs, self._connections, self._folder = {}, {}, None

    def _shell(self, node: str) -> SshShell:
        return SshShell(
            self._connection(node), sudo=self._settings.sudo, environment=environment(self._rundir_of(node))
        )

    def _rundir_of(self, node: str) -> str:
        return self._rundir.replace("{node}", node)

    def _connection(self, node: str) -> Connection:
        with self._lock:
            known = self._connections.get(node)
        if known is not None:
            return known
        host = self._host_of(node)
        with self._lock:
            if self._folder is None:
                self._folder = SshFolder(self._settings)
            return self._connections.setdefault(node, Connection(node, host, self._settings, self._folder))
