"""Programs of this machine, run behind a prefix (`ip netns exec NAME`) beside one set of OVS daemons.

Invariant: a command that may have run is never reported as one that did not. Unreachable is raised only
when the program itself was not started; a command cut short by its deadline is InDoubt.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

from providers.ports import Finished, InDoubt, Unreachable

_NO_NAMESPACE = re.compile(r'(Cannot open network namespace|setting the network namespace) "')
_NOT_FOUND = 127
_NOT_EXECUTABLE = 126
_REAP = 5.0


class LocalShell:
    """`providers.ports.NodeShell` for a node whose daemons are processes of this machine.

    `rundir` is where they keep their sockets and pidfiles, so that plain `ovs-appctl` and `ovs-ofctl` find
    them.
    """

    def __init__(self, exec_prefix: Sequence[str], rundir: str) -> None:
        self._prefix = tuple(exec_prefix)
        folders = ("OVS_RUNDIR", "OVS_LOGDIR", "OVN_RUNDIR", "OVN_LOGDIR")
        self._environment = dict.fromkeys(folders, rundir)

    def run(self, argv: Sequence[str], *, timeout: float) -> Finished:
        """Run to its end; see `providers.ports.NodeShell`."""
        try:
            process = subprocess.Popen(
                [*self._prefix, *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **self._environment},
                start_new_session=True,
            )
        except OSError as exc:
            return self._not_started(argv, exc)
        with process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired as exc:
                _end(process)
                raise InDoubt(f"{argv[0]} did not end within {timeout:g} s and was killed") from exc
            except BaseException:
                # Whatever ends the wait, Ctrl-C included, no command is left running behind it.
                _end(process)
                raise
        done = Finished(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
        return self._behind_prefix(argv, done)

    def _not_started(self, argv: Sequence[str], exc: OSError) -> Finished:
        if self._prefix:
            raise Unreachable(f"{self._prefix[0]}: {exc.strerror}") from exc
        rc = _NOT_FOUND if isinstance(exc, FileNotFoundError) else _NOT_EXECUTABLE
        return Finished(rc, "", f"{argv[0]}: {exc.strerror}")

    def _behind_prefix(self, argv: Sequence[str], done: Finished) -> Finished:
        """`ip netns exec` reports its own failures in the command's place; tell the two apart."""
        if not self._prefix or done.rc == 0:
            return done
        if _NO_NAMESPACE.match(done.err):
            raise Unreachable(done.err.strip())
        failed = f'exec of "{argv[0]}" failed: '
        if done.err.startswith(failed):
            missing = done.err.startswith(failed + os.strerror(2))
            return Finished(_NOT_FOUND if missing else _NOT_EXECUTABLE, "", done.err)
        return done


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the command with its children, which may hold its output open."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=_REAP)
