"""The roles of deploy/rbac.yaml on a real API server with RBAC on: they suffice, and nothing beyond them is used."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crash.lives import Ended

from cli.main import run
from providers.kubernetes import connect
from providers.ports import Forbidden, Ref, Unreachable

from .jobs import (
    CLUSTER_ROLES,
    SPACE,
    Job,
    allowed_by,
    bind,
    clean,
    done_by,
    install,
    make_job,
    roles,
)
from .server import ApiServer, CannotRun, binaries

MULTUS = "openshift-multus"
READER = (("ClusterRole", "ovsplan-reader"), ("Role", "ovsplan-reader"))
WRITER = (*READER, ("ClusterRole", "ovsplan-writer"), ("Role", "ovsplan-writer"))
READS = ("get", "list", "watch")
AUDIT = {"rules": [{"level": "Metadata", "omitStages": ["RequestReceived"]}]}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A server with the roles, and users `reader` and `writer` who have no more than them."""
    try:
        binaries()
    except CannotRun as reason:
        pytest.skip(f"no API server: {reason}")
    with ApiServer.up(tmp_path_factory.mktemp("rbac"), audit=AUDIT) as server:
        install(server)
        bind(server, "reader", ["ovsplan-reader"], ["ovsplan-reader"])
        bind(server, "writer", CLUSTER_ROLES, CLUSTER_ROLES)
        yield server


@pytest.fixture
def job(guarded: ApiServer, tmp_path: Path) -> Iterator[Job]:
    made = make_job(guarded, tmp_path / "job")
    yield made
    clean(guarded)


def multus(node: str) -> dict[str, Any]:
    """The pod by which nodes are reached, as it runs on every one."""
    state = {"name": "kube-multus", "image": "none", "imageID": "none", "ready": True, "restartCount": 0}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": MULTUS, "name": f"multus-{node}", "labels": {"app": "multus"}},
        "spec": {"nodeName": node, "containers": [{"name": "kube-multus", "image": "none"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [{**state, "state": {"running": {"startedAt": "2025-01-01T00:00:00Z"}}}],
        },
    }


def beyond(server: ApiServer, user: str, role: tuple[tuple[str, str], ...]) -> set[tuple[str, str, str]]:
    """What a user did that the roles do not allow."""
    return {(verb, group, resource) for verb, group, resource, _, _ in done_by(server, user)} - allowed_by(
        role
    )


def test_an_apply_does_with_the_writers_role_and_uses_nothing_beyond_it(job: Job) -> None:
    ended = job.run("writer", "apply")
    assert ended.code == 0, ended.text
    assert all("vmnet:br-phy" in mapping for mapping in job.mappings())
    done = done_by(job.server, "writer")
    assert {
        ("patch", "", "nodes"),
        ("create", "coordination.k8s.io", "leases"),
        ("patch", "", "secrets"),
    } <= {line[:3] for line in done}
    assert [line for line in done if line[4] == 403] == []
    assert beyond(job.server, "writer", WRITER) == set()


def test_what_is_kept_of_it_is_in_our_own_namespace_only(job: Job) -> None:
    assert job.run("writer", "apply").code == 0
    touched = {
        namespace
        for verb, _, resource, namespace, _ in done_by(job.server, "writer")
        if resource in ("secrets", "leases") and verb not in READS
    }
    assert touched == {SPACE}


def test_a_reader_is_told_by_the_plan_what_an_apply_would_need(job: Job) -> None:
    planned = job.run("reader", "plan")
    assert planned.code == 0, planned.text
    assert "Warning: reader may not patch nodes, which an apply of this plan needs." in planned.err
    assert "reader may not create secrets in namespace ovsplan" in planned.err
    said = " ".join(planned.out.split())
    assert "H63 note: the API server could not be asked about 2 writes of Node" in said
    assert 'User "reader" cannot patch resource "nodes"' in said
    assert beyond(job.server, "reader", READER) == {("patch", "", "nodes")}, "tried, and refused"


def test_a_reader_without_a_way_to_the_nodes_plans_what_can_be_known(
    job: Job, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the command itself: nodes by pods, in which a reader may not run anything."""
    job.server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": MULTUS}})
    for number in (1, 2):
        job.server.create(multus(f"worker-0{number}"))
    kubeconfig = str(job.server.kubeconfig("reader"))
    code = run(["plan", str(job.folder), "--context", "reader", "--kubeconfig", kubeconfig])
    printed = capfd.readouterr().out
    assert code == 0, printed
    assert "worker-01" in printed and "worker-02" in printed
    assert 'User "reader" cannot get resource "pods/exec"' in " ".join(printed.split())
    assert "No changes can be made: what is wanted is blocked" in printed


def test_a_verb_taken_away_is_one_sentence_before_anything_is_done(job: Job) -> None:
    lesser = copy.deepcopy(next(r for r in roles() if r["metadata"]["name"] == "ovsplan-writer"))
    lesser["metadata"]["name"] = "no-nodes"
    lesser["rules"] = [rule for rule in lesser["rules"] if rule["resources"] != ["nodes"]]
    job.server.create(lesser)
    bind(job.server, "halfway", ["ovsplan-reader", "no-nodes"], CLUSTER_ROLES)
    ended = job.run("halfway", "apply")
    assert ended.code == 1, ended.text
    assert "permissions are missing; nothing was changed:" in ended.err
    assert [line.strip() for line in ended.err.splitlines() if "may not" in line] == [
        "halfway may not patch nodes"
    ]
    writes = [line for line in done_by(job.server, "halfway") if line[0] not in ("get", "list", "watch")]
    assert {line[2] for line in writes} == {"selfsubjectaccessreviews", "selfsubjectreviews", "nodes"}
    assert {line[4] for line in writes if line[2] == "nodes"} == {403}, "a dry run, refused"
    assert not (job.folder / ".ovsplan").exists()


def test_who_may_not_write_secrets_applies_without_a_copy(job: Job) -> None:
    bind(job.server, "bare", CLUSTER_ROLES, [])
    lease = copy.deepcopy(
        next(r for r in roles() if r["kind"] == "Role" and "writer" in r["metadata"]["name"])
    )
    lease["metadata"]["name"] = "lease-only"
    lease["rules"] = [rule for rule in lease["rules"] if rule["resources"] == ["leases"]]
    job.server.create(lease)
    bind(job.server, "bare", [], [], made=[lease])
    refused = job.run("bare", "apply")
    assert refused.code == 1, refused.text
    assert 'User "bare" cannot list resource "secrets"' in refused.err and "--no-copy" in refused.err
    ended = job.run("bare", "apply", "--no-copy")
    assert ended.code == 0, ended.text
    assert "Copy of this run" not in ended.out


def test_without_the_lease_nobody_applies(job: Job) -> None:
    bind(job.server, "loner", CLUSTER_ROLES, [])
    ended = job.run("loner", "apply", "--no-copy")
    assert ended.code == 1, ended.text
    assert "loner may not create leases.coordination.k8s.io in namespace ovsplan" in ended.err
    assert all("vmnet:br-vmdata" in mapping for mapping in job.mappings())


# Asking gateways from inside VMs.

VM_NETWORK = """\
apiVersion: ovsplan.io/v1alpha1
kind: VMNetwork
metadata: {name: vmnet}
spec: {bridge: br-phy, replaces: {bridge: br-vmdata}, networks: {default/vlan224: {vlan: 224, mtu: 9000, gateway: 192.0.2.1}}}
"""


@pytest.fixture
def guest(job: Job) -> Iterator[Ref]:
    """A VM on worker-01 whose guest agent is connected; the pod that it runs in."""
    (job.folder / "network.yaml").write_text(VM_NETWORK)
    nic = {"name": "net", "bridge": {}, "macAddress": "02:00:00:00:e0:a1"}
    vmi: dict[str, Any] = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "domain": {"devices": {"interfaces": [nic]}},
            "networks": [{"name": "net", "multus": {"networkName": "vlan224"}}],
        },
        "status": {
            "phase": "Running",
            "nodeName": "worker-01",
            "conditions": [{"type": "AgentConnected", "status": "True"}],
        },
    }
    pod = Ref("v1", "Pod", "virt-launcher-web-bcdfg", "default")
    job.server.create(vmi)
    job.server.add_pod("default", pod.name, "worker-01", {"kubevirt.io": "virt-launcher"})
    yield pod
    job.server.call("DELETE", job.server.path("v1", "Pod", "default", pod.name) + "?gracePeriodSeconds=0")
    job.server.call("DELETE", job.server.path("kubevirt.io/v1", "VirtualMachineInstance", "default", "web"))


def proof_of(planned: Ended) -> str:
    return next(line.strip() for line in planned.out.splitlines() if "proof:" in line)


def test_who_may_not_exec_where_vms_run_is_told_that_the_plan_does_without(job: Job, guest: Ref) -> None:
    planned = job.run("writer", "plan")
    assert planned.code == 0, planned.text
    assert "no ping from inside (default/web: no right to exec in pods of namespace default)" in proof_of(
        planned
    )
    assert "may not" not in planned.err, "a plan that does without it needs no more than before"
    cluster, _, _ = connect("writer", str(job.server.kubeconfig("writer")))
    with pytest.raises(Forbidden, match="pods/exec in namespace default"):
        cluster.exec(guest, "main", ["true"], timeout=30)
    cluster.close()


def test_the_guest_readers_role_is_all_that_asking_takes(job: Job, guest: Ref) -> None:
    bind(job.server, "asker", [*CLUSTER_ROLES, "ovsplan-guest-reader"], CLUSTER_ROLES)
    planned = job.run("asker", "plan")
    assert planned.code == 0, planned.text
    assert "a ping of 192.0.2.1 by the guest agent of default/web" in proof_of(planned)
    cluster, _, _ = connect("asker", str(job.server.kubeconfig("asker")))
    with pytest.raises(Unreachable):
        cluster.exec(guest, "main", ["true"], timeout=30)  # worker-01 is no more than an object here
    cluster.close()
    allowed = (*WRITER, ("ClusterRole", "ovsplan-guest-reader"))
    assert beyond(job.server, "asker", allowed) == set()
