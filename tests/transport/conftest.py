"""The ways to a node, each with real programs at its other end.

Invariant: what a test starts is ended when the test is, and no file outside its folder is changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kubernetes.config import new_client_from_config

from providers.kubernetes import KubernetesCluster
from providers.node.local import LocalNodes
from providers.node.pod import PodNodes, PodSettings
from providers.node.ssh import SshNodes
from providers.node.ssh_connection import SshSettings
from tests.apiserver.server import ApiServer, CannotRun, binaries

from . import pods, sshd
from .servers import OvsdbServer
from .sshd import OPERATOR, Sshd
from .ways import WAYS, Way

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


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One API server for all tests here: worker-01 with all pods, worker-02 with none, worker-03 with OVN's only."""
    try:
        binaries()
    except CannotRun as reason:
        pytest.skip(f"no API server: {reason}")
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    folder = tmp_path_factory.mktemp("api")
    prefix = pods.container_prefix(folder)
    with ApiServer.up(folder / "server") as server:
        worker = {"node-role.kubernetes.io/worker": ""}
        server.add_nodes({name: prefix for name in ("worker-01", "worker-02", "worker-03")}, worker)
        pods.add_namespaces(server)
        for kind in (pods.MULTUS, pods.OVNKUBE, pods.NMSTATE):
            pods.add(server, kind, "worker-01")
        pods.add(server, pods.OVNKUBE, "worker-03")
        yield server


class PodMaker:
    """Makes nodes reached by pods, which are closed at the end of the test."""

    def __init__(self, closing: ExitStack) -> None:
        self._closing = closing

    def __call__(self, api: ApiServer, user: str = "admin", **settings: Any) -> PodNodes:
        client = new_client_from_config(str(api.kubeconfig(user)))
        cluster = KubernetesCluster(client)
        self._closing.callback(cluster.close)
        nodes = PodNodes(cluster, client, PodSettings(**settings))
        self._closing.callback(nodes.close)
        return nodes


@pytest.fixture
def pod() -> Iterator[PodMaker]:
    with ExitStack() as closing:
        yield PodMaker(closing)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, server: OvsdbServer) -> Way:
    """A node by each way, beside an ovsdb-server of its own."""
    rundir = str(server.rundir)
    get = request.getfixturevalue
    if request.param == "local":
        nodes: Any = LocalNodes({NODE: ((), rundir)}, "no way to {node}")
    elif request.param == "pod":
        nodes = get("pod")(get("api"), rundir=rundir)
    elif request.param == "ssh":
        nodes = get("ssh")(get("daemon"), rundir=rundir)
    else:
        nodes = get("ssh")(get("daemon"), rundir=rundir, user=OPERATOR, sudo=True)
    return Way(request.param, nodes, NODE)
