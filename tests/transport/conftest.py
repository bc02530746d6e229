"""The ways to a node, each with real programs at its other end.

Invariant: what a test starts is ended when the test is, and no file outside its folder is changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from providers.node.ssh import SshNodes
from providers.node.ssh_connection import SshSettings

from . import sshd
from .servers import OvsdbServer
from .sshd import Sshd

NODE = "worker-01"


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """One sshd for all tests that leave it as it was."""
    if lacking := sshd.lacking():
        pytest.skip(f"no sshd: this machine lacks {', '.join(lacking)}")
    with sshd.running(tmp_path_factory.mktemp("sshd") / "a") as running:
        yield running


@pytest.fixture
def own_daemon(tmp_path: Path) -> Iterator[Sshd]:
    """An sshd that a test may stop or cut."""
    if lacking := sshd.lacking():
        pytest.skip(f"no sshd: this machine lacks {', '.join(lacking)}")
    with sshd.running(tmp_path / "sshd") as running:
        yield running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OvsdbServer]:
    """An ovsdb-server that a test may stop and kill."""
    if shutil.which("ovsdb-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
        pytest.skip("this machine lacks ovsdb-server")
    running = OvsdbServer(tmp_path / "run" / NODE)
    yield running
    running.stop()


def settings(daemon: Sshd, **changes: object) -> SshSettings:
    """How root enters `daemon`, but for `changes`."""
    given: dict[str, object] = {
        "user": "root",
        "port": daemon.port,
        "identity": str(daemon.identity),
        "known_hosts": str(daemon.known_hosts),
    }
    return SshSettings(**{**given, **changes})  # type: ignore[arg-type]


class SshMaker:
    """Makes ssh nodes that are closed at the end of the test."""

    def __init__(self, closing: ExitStack) -> None:
        self._closing = closing

    def __call__(self, daemon: Sshd, *, rundir: str = "/run/openvswitch", **changes: object) -> SshNodes:
        nodes = SshNodes(settings(daemon, **changes), lambda node: "127.0.0.1", rundir=rundir)
        self._closing.callback(nodes.close)
        return nodes


@pytest.fixture
def ssh() -> Iterator[SshMaker]:
    with ExitStack() as closing:
        yield SshMaker(closing)
