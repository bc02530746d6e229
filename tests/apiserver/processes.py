"""Daemons of one test cluster: started, ended, and ended too when the tests die without ending them.

Invariant: only a process whose command line names the cluster's own folder is ever signalled.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

_PORTS = range(20000, 32000)
"""Below the ports that the system gives to outgoing connections: one of those could take a stopped server's port."""

_WARDEN = """
while read -r pid; do pids="$pids $pid"; done
for pid in $pids; do grep -qaF "$0" "/proc/$pid/cmdline" && kill -9 "$pid"; done
"""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on now."""
    found: list[int] = []
    for port in random.sample(_PORTS, 200):
        if len(found) < count and _is_free(port):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Daemons:
    """The running programs of the cluster in `folder`, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        # It reads until the other end of the pipe is closed, which the system does for us whatever we die of.
        self._warden = subprocess.Popen(
            ("sh", "-c", _WARDEN, str(folder)),
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(self, name: str, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a program whose command line names the folder; what it says goes to NAME.log there."""
        assert any(str(self._folder) in word for word in argv), f"{name} could not be told from another's"
        with open(self.log(name), "ab") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._running[name] = process
        assert self._warden.stdin is not None
        self._warden.stdin.write(f"{process.pid}\n".encode())
        self._warden.stdin.flush()
        return process

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def signal(self, name: str, number: int) -> None:
        self._running[name].send_signal(number)

    def end(self, name: str) -> None:
        """Kill it, and return when it is dead. Nothing if it does not run."""
        process = self._running.pop(name, None)
        if process is not None:
            process.kill()
            process.wait()

    def end_all(self) -> None:
        for name in reversed(list(self._running)):
            self.end(name)
        # Killed before its pipe is closed: there is nothing left for it to do, and the numbers may be others' by now.
        self._warden.kill()
        self._warden.wait()
        if self._warden.stdin is not None:
            self._warden.stdin.close()


def tail(path: Path, lines: int = 8) -> str:
    """The last lines of a log."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if os.path.exists(path) else ""
