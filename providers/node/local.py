"""Programs of this machine, run behind a prefix (`ip netns exec NAME`, `nsenter -t PID -m -n`) beside one set of OVS daemons.

Invariant: a command that may have run is never reported as one that did not. Unreachable is raised only
when the program itself was not started; a command cut short by its deadline is InDoubt.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from providers.node.process import OutOfTime, finish
from providers.ovsdb.client import UnixOvsdb
from providers.ports import Finished, InDoubt, Nodes, NodeShell, Ovsdb, Refused, Unreachable

_NO_NAMESPACE = re.compile(
    r'(Cannot open network namespace|setting the network namespace) "|nsenter: (cannot open|reassociate to) '
)
_OF_THE_MACHINE = ("systemctl", "reboot", "shutdown")
_NOT_FOUND = 127
_NOT_EXECUTABLE = 126


class LocalShell:
    """`providers.ports.NodeShell` for a node whose daemons are processes of this machine.

    `rundir` is where they keep their sockets and pidfiles, so that plain `ovs-appctl` and `ovs-ofctl` find
    them.
    """

    def __init__(self, exec_prefix: Sequence[str], rundir: str) -> None:
        self._prefix = tuple(exec_prefix)
        folders = ("OVS_RUNDIR", "OVS_LOGDIR", "OVN_RUNDIR", "OVN_LOGDIR")
        self._environment = dict.fromkeys(folders, rundir)

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Finished:
        """Run to its end; see `providers.ports.NodeShell`. Raises Refused for what would restart this machine."""
        if argv[0].rpartition("/")[2] in _OF_THE_MACHINE:
            raise Refused(
                f"{argv[0]}: a node that is reached by `local` is a part of this machine, and no machine itself"
            )
        try:
            ended = finish(
                [*self._prefix, *argv], timeout=timeout, stdin=stdin, environment=self._environment
            )
        except OSError as exc:
            return self._not_started(argv, exc)
        except OutOfTime as exc:
            raise InDoubt(f"{argv[0]} did not end within {timeout:g} s and was killed") from exc
        done = Finished(ended.rc, ended.out.decode(errors="replace"), ended.err.decode(errors="replace"))
        return self._behind_prefix(argv, done)

    def _not_started(self, argv: Sequence[str], exc: OSError) -> Finished:
        if self._prefix:
            raise Unreachable(f"{self._prefix[0]}: {exc.strerror}") from exc
        rc = _NOT_FOUND if isinstance(exc, FileNotFoundError) else _NOT_EXECUTABLE
        return Finished(rc, "", f"{argv[0]}: {exc.strerror}")

    def _behind_prefix(self, argv: Sequence[str], done: Finished) -> Finished:
        """`ip netns exec` and `nsenter` report their own failures in the command's place; tell the two apart."""
        if not self._prefix or done.rc == 0:
            return done
        if _NO_NAMESPACE.match(done.err):
            raise Unreachable(done.err.strip())
        failed = f'exec of "{argv[0]}" failed: '
        if done.err.startswith(failed):
            missing = done.err.startswith(failed + os.strerror(2))
            return Finished(_NOT_FOUND if missing else _NOT_EXECUTABLE, "", done.err)
        return done


class LocalNodes(Nodes):
    """Nodes by name, each with its prefix and run directory; `stranger` is said of any other, with its `{node}`."""

    def __init__(self, ways: Mapping[str, tuple[Sequence[str], str]], stranger: str) -> None:
        self._shells = {name: LocalShell(prefix, rundir) for name, (prefix, rundir) in ways.items()}
        self._ovsdbs = {name: UnixOvsdb(f"{rundir}/db.sock") for name, (_, rundir) in ways.items()}
        self._stranger = stranger

    def shell(self, node: str) -> NodeShell:
        """The node's shell. Raises Unreachable for a node that is not among them."""
        if node not in self._shells:
            raise Unreachable(self._stranger.format(node=node))
        return self._shells[node]

    def ovsdb(self, node: str) -> Ovsdb:
        """The node's database. Raises Unreachable for a node that is not among them."""
        if node not in self._ovsdbs:
            raise Unreachable(self._stranger.format(node=node))
        return self._ovsdbs[node]
