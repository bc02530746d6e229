"""One API server for the whole session, shared by the tests here, and a twin beside it for each test of both.

Invariant: a test makes what it needs in a namespace, or under a name prefix, of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from providers.kubernetes import KubernetesCluster, connect
from providers.ports import Body, Cluster, Create, Ref
from providers.twin import init_world, open_world

from .server import ApiServer, CannotRun, binaries

KUBEVIRT = "kubevirt.io/v1"
NMSTATE = "nmstate.io/v1"
_numbers = count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Skips where none can be built, with the reason."""
    try:
        binaries()
    except CannotRun as reason:
        pytest.skip(f"no API server: {reason}")
    audit = {"rules": [{"level": "Metadata", "omitStages": ["RequestReceived"]}]}
    with ApiServer.up(tmp_path_factory.mktemp("apiserver"), audit=audit) as server:
        yield server


@pytest.fixture(scope="session")
def admin(server: ApiServer) -> Iterator[KubernetesCluster]:
    """The API server through the port, as somebody who may do everything."""
    cluster, _, _ = connect("admin", str(server.kubeconfig("admin")))
    yield cluster
    cluster.close()


@dataclass(frozen=True, slots=True)
class Side:
    """A cluster behind the port, and a namespace in it that nobody else uses."""

    cluster: Cluster
    space: str

    def map(self, name: str) -> Ref:
        return Ref("v1", "ConfigMap", name, self.space)

    def policy(self, name: str) -> Ref:
        return Ref(NMSTATE, "NodeNetworkConfigurationPolicy", f"{self.space}-{name}")

    def vmi(self, name: str) -> Ref:
        return Ref(KUBEVIRT, "VirtualMachineInstance", name, self.space)

    def pod(self, name: str) -> Ref:
        return Ref("v1", "Pod", name, self.space)

    def now(self, ref: Ref) -> Body:
        """The object as it is; it has to be there."""
        found = self.cluster.get(ref)
        assert found is not None, f"there is no {ref}"
        return found

    def version(self, ref: Ref) -> str:
        return str(self.now(ref)["metadata"]["resourceVersion"])


@pytest.fixture(params=["twin", "real"])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    """The twin, and the real API server: what is tested of one holds for the other."""
    if request.param == "real":
        yield Side(request.getfixturevalue("admin"), request.getfixturevalue("space"))
        return
    with _twin(tmp_path / "world") as cluster:
        yield Side(cluster, _new_space(cluster))


@pytest.fixture
def space(admin: KubernetesCluster) -> str:
    """A namespace of the API server's that nobody else uses."""
    return _new_space(admin)


@pytest.fixture(scope="session")
def kubelet(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A node of the API server's on which commands really run, where a `virt-probe` says that nobody answers."""
    folder = tmp_path_factory.mktemp("programs")
    said = "2 packets transmitted, 0 received, 100% packet loss, time 1001ms"
    (folder / "virt-probe").write_text(f'#!/bin/sh\necho "{said}"\necho "as a guest" >&2\nexit 1\n')
    (folder / "virt-probe").chmod(0o755)
    server.add_nodes({"exec-01": ("env", f"PATH={folder}:{os.environ['PATH']}")})
    return "exec-01"


@contextmanager
def _twin(folder: Path) -> Iterator[Cluster]:
    init_world({"nodes": {"worker-01": {}}, "apis": {"nmstate": "present", "metallb": "present"}}, folder)
    with open_world(folder) as world:
        yield world.cluster


def _new_space(cluster: Cluster) -> str:
    name = f"t{next(_numbers)}"
    cluster.write(Create(Ref("v1", "Namespace", name), {}))
    return name
