"""An ovsdb-server of one's own, which a test may stop, kill and start again."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from .waiting import await_true

_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
_TOOLS = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class OvsdbServer:
    """The daemon of one run directory."""

    def __init__(self, rundir: Path) -> None:
        self.rundir = rundir
        rundir.mkdir(parents=True)
        self._run("ovsdb-tool", "create", f"{rundir}/conf.db", _SCHEMA)
        self.start()
        self._run("ovs-vsctl", f"--db=unix:{rundir}/db.sock", "--no-wait", "init")

    @property
    def pid(self) -> int:
        return int((self.rundir / "ovsdb-server.pid").read_text())

    def start(self) -> None:
        folder = self.rundir
        self._run(
            *("ovsdb-server", "-vconsole:off", f"{folder}/conf.db", f"--remote=punix:{folder}/db.sock"),
            *(f"--pidfile={folder}/ovsdb-server.pid", "--detach", "--no-chdir"),
        )

    def stop(self) -> None:
        """End it, if it runs."""
        pidfile = self.rundir / "ovsdb-server.pid"
        if not pidfile.exists():
            return
        os.kill(self.pid, signal.SIGCONT)
        os.kill(self.pid, signal.SIGTERM)
        await_true(lambda: not pidfile.exists(), "ovsdb-server ends")

    def _run(self, *argv: str) -> None:
        subprocess.run(
            argv, check=True, env={**os.environ, "PATH": _TOOLS, "OVS_RUNDIR": str(self.rundir)}, timeout=30
        )
