"""Two laptops and a lost one, on a real API server: one applies at a time, and a run outlives its state database."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.lives import Halt, kill_when

from engine.lease import LEASE, Lease, current
from plans.errors import Locked
from providers.kubernetes import connect
from providers.kubernetes.clock import SystemClock
from state.lock import Holder

from .jobs import SPACE, Job, clean, make_job
from .server import ApiServer, CannotRun, binaries

SECOND_NODE = ("step-begun", 12)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A server of our own: the Lease and the nodes are one for the whole cluster."""
    try:
        binaries()
    except CannotRun as reason:
        pytest.skip(f"no API server: {reason}")
    with ApiServer.up(tmp_path_factory.mktemp("laptops")) as made:
        yield made


@pytest.fixture
def job(server: ApiServer, tmp_path: Path) -> Iterator[Job]:
    made = make_job(server, tmp_path / "job")
    yield made
    clean(server)


@pytest.fixture
def halt() -> Iterator[Halt]:
    made = Halt()
    yield made
    made.close()


def somebody(name: str) -> Holder:
    return Holder(f"token-{name}", name, "elsewhere", "boot", 7, "1:1", "ovsplan apply", 0.0, 0.0)


def cordoned(job: Job) -> list[str]:
    items = job.server.call("GET", job.server.path("v1", "Node"))["items"]
    return [item["metadata"]["name"] for item in items if item["spec"].get("unschedulable")]


def test_two_folders_never_apply_at_the_same_time(job: Job, halt: Halt) -> None:
    first = job.begin("admin", "apply", boundary=halt.at("intent", 4))
    halt.await_reached(first)
    before = job.mappings()
    second = job.run("admin", "apply", "--state", "second/state.db")
    assert second.code == 6, second.text
    assert f"pid {first.pid}" in second.err and "another apply acts on this cluster" in second.err
    assert job.mappings() == before
    halt.go_on()
    ended = first.wait()
    assert ended.code == 0, ended.text
    assert "No changes." in job.run("admin", "apply", "--state", "second/state.db").out


def test_a_lost_laptop_loses_nothing(job: Job) -> None:
    killed = job.run("admin", "apply", boundary=kill_when(*SECOND_NODE))
    assert killed.code == -signal.SIGKILL, killed.text
    assert cordoned(job) == ["worker-02"]
    shutil.rmtree(job.folder / ".ovsplan")
    status = job.run("admin", "status")
    assert "interrupted" in status.out and "from the copy in the cluster" in status.out, status.text
    ended = job.run("admin", "apply")
    assert ended.code == 0, ended.text
    assert "Took over the Lease" in ended.out and "Restored run" in ended.out
    assert all("vmnet:br-phy" in mapping for mapping in job.mappings())
    assert cordoned(job) == []


def test_the_lease_is_what_the_server_says_it_is(server: ApiServer, job: Job) -> None:
    """Compare-and-swap, takeover and release, by two clients."""
    kubeconfig = str(server.kubeconfig("admin"))
    ann, bob = (connect("admin", kubeconfig)[0] for _ in range(2))
    try:
        with Lease(ann, SystemClock(), somebody("ann")) as held:
            found = server.call("GET", server.path(LEASE.api, LEASE.kind, SPACE, LEASE.name))
            assert found["spec"]["renewTime"] == found["spec"]["acquireTime"]
            with pytest.raises(Locked, match="ann on elsewhere"), Lease(bob, SystemClock(), somebody("bob")):
                pass
            held.renew()
            held.guard()
            late = Lease(bob, SystemClock(), somebody("bob"), wall=lambda: 1e11)
            with late:
                assert "not seen for" in late.taken_from
                held.renew()
                with pytest.raises(Locked, match="held by bob"):
                    held.guard()
        assert current(ann) is None
    finally:
        ann.close()
        bob.close()
