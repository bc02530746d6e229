"""The twin's controllers at work on the real API server: operators that can't run here, their rules and their writes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from providers.kubernetes import KubernetesCluster, connect
from providers.ports import Create, Delete, JsonPatch, MergePatch, Ref, Refused
from providers.twin.outside import (
    SETTINGS,
    OutsideNode,
    OutsideRunner,
    OutsideStage,
    outside_controllers,
)

from .conftest import KUBEVIRT, NMSTATE
from .server import ApiServer, CannotRun, binaries

BETA = "nmstate.io/v1beta1"
POLICY = "NodeNetworkConfigurationPolicy"
ENACTMENT = "NodeNetworkConfigurationEnactment"
NODES = ("worker-01", "worker-02")
MAPPING = {"ovn": {"bridge-mappings": [{"localnet": "vmnet", "bridge": "br-phy", "state": "present"}]}}
LOOK_EVERY = 0.05
QUICK = replace(SETTINGS, vm_start=0.5, vm_stop=0.2, migration=0.5)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesCluster]:
    """An API server of its own: the controllers would meddle with what other tests make."""
    try:
        binaries()
    except CannotRun as reason:
        pytest.skip(f"no API server: {reason}")
    with ApiServer.up(tmp_path_factory.mktemp("controlled")) as server:
        found, _, _ = connect("admin", str(server.kubeconfig("admin")))
        for node in NODES:
            body = {"metadata": {"labels": {"kubernetes.io/hostname": node}}}
            found.write(Create(Ref("v1", "Node", node), body))
            ready = {"type": "Ready", "status": "True"}
            status = {
                "conditions": [ready],
                "allocatable": {"memory": "64Gi"},
                "capacity": {"memory": "64Gi"},
            }
            found.write(MergePatch(Ref("v1", "Node", node), {"status": status}, subresource="status"))
        yield found
        found.close()


@pytest.fixture
def runner(cluster: KubernetesCluster, tmp_path: Path) -> Iterator[OutsideRunner]:
    """The controllers, with a program called nmstatectl on each node."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "nmstatectl"
    fake = Path(__file__).parents[1] / "twin" / "fake_nmstatectl.py"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -E -S {fake} "$@"\n')
    program.chmod(0o755)
    nodes = {}
    for node in NODES:
        (tmp_path / node).mkdir()
        path = f"PATH={programs}:{os.environ['PATH']}"
        nodes[node] = OutsideNode(("env", path, f"NMSTATE_FAKE={tmp_path / node}"))
    runner = OutsideRunner(OutsideStage(cluster, nodes, QUICK), outside_controllers(), log=print)
    with runner.running():
        yield runner


def await_(holds: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `holds` says, once it is true."""
    never = threading.Event()
    for _ in range(int(seconds / LOOK_EVERY)):
        if found := holds():
            return found
        never.wait(LOOK_EVERY)
    raise AssertionError("it did not come true in time")


def said(body: Any, kind: str) -> str:
    conditions = (body or {}).get("status", {}).get("conditions", ())
    return next((f"{c['status']} {c.get('message', '')}" for c in conditions if c["type"] == kind), "")


def test_a_policy_goes_its_way(cluster: KubernetesCluster, runner: OutsideRunner) -> None:
    """From its creation, through an edit that has to wait, to its end."""
    ref = Ref(NMSTATE, POLICY, "map")
    cluster.write(Create(ref, {"spec": {"desiredState": MAPPING}}))
    edit = JsonPatch(ref, ({"op": "replace", "path": "/spec/desiredState", "value": {"interfaces": []}},))
    with pytest.raises(Refused, match="is still in progress"):
        cluster.write(edit)
    await_(lambda: said(cluster.get(ref), "Available") == "True 2/2 nodes successfully configured")
    enactment = cluster.get(Ref(BETA, ENACTMENT, "worker-02.map"))
    assert enactment is not None
    assert enactment["status"]["desiredState"] == {"interfaces": [], **MAPPING}
    assert enactment["status"]["policyGeneration"] == 1
    assert enactment["metadata"]["labels"] == {"nmstate.io/policy": "map", "nmstate.io/node": "worker-02"}
    state = Ref(BETA, "NodeNetworkState", "worker-02")
    await_(lambda: (cluster.get(state) or {}).get("status", {}).get("currentState", {}).get("ovn"))
    cluster.write(edit)
    await_(
        lambda: (
            (cluster.get(Ref(BETA, ENACTMENT, "worker-01.map")) or {})["status"]["policyGeneration"] == 2
            and said(cluster.get(ref), "Available") == "True 2/2 nodes successfully configured"
        )
    )
    cluster.write(Delete(ref))
    await_(lambda: not cluster.list(BETA, ENACTMENT).items)


def test_a_policy_that_nmstate_refuses_is_retried_and_may_be_edited_in_the_pause(
    cluster: KubernetesCluster, runner: OutsideRunner
) -> None:
    ref = Ref(NMSTATE, POLICY, "bad")
    refused = {"interfaces": [{"name": "missing0", "type": "ethernet", "state": "up"}]}
    selector = {"kubernetes.io/hostname": "worker-01"}
    cluster.write(Create(ref, {"spec": {"desiredState": refused, "nodeSelector": selector}}))
    await_(lambda: said(cluster.get(ref), "Degraded") == "True 1/1 nodes failed to configure")

    def edited() -> bool:
        try:
            cluster.write(
                JsonPatch(ref, ({"op": "replace", "path": "/spec/desiredState", "value": MAPPING},))
            )
        except Refused:
            return False
        return True

    await_(edited)
    await_(lambda: said(cluster.get(ref), "Available") == "True 1/1 nodes successfully configured")
    cluster.write(Delete(ref))


def test_a_machine_is_started_moved_given_a_card_and_stopped(
    cluster: KubernetesCluster, runner: OutsideRunner
) -> None:
    cluster.write(Create(Ref("v1", "Namespace", "vms"), {}))
    vm, vmi = (Ref(KUBEVIRT, kind, "web", "vms") for kind in ("VirtualMachine", "VirtualMachineInstance"))
    pod_card = {"name": "default", "masquerade": {}}
    cluster.write(Create(vm, {"spec": {"runStrategy": "Always", "template": {"spec": wired([pod_card])}}}))

    def status() -> Any:
        return (cluster.get(vmi) or {}).get("status") or {}

    def move(name: str) -> None:
        ref = Ref(KUBEVIRT, "VirtualMachineInstanceMigration", name, "vms")
        cluster.write(Create(ref, {"spec": {"vmiName": "web"}}))
        await_(lambda: (cluster.get(ref) or {}).get("status", {}).get("phase") == "Succeeded")

    def rewire(card: dict[str, Any]) -> None:
        cluster.write(MergePatch(vm, {"spec": {"template": {"spec": wired([pod_card, card])}}}))
        await_(lambda: said(cluster.get(vmi), "MigrationRequired").startswith("False"))

    def sources() -> dict[str, str]:
        return {entry["name"]: entry["infoSource"] for entry in status().get("interfaces", ())}

    first = await_(lambda: status().get("phase") == "Running" and status()["nodeName"])
    move("move")
    assert status()["nodeName"] in NODES and status()["nodeName"] != first
    await_(lambda: len(cluster.list("v1", "Pod", namespace="vms").items) == 1)
    cluster.write(
        Create(
            Ref("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", "net2", "vms"),
            {"spec": {"config": "{}"}},
        )
    )
    rewire({"name": "net2", "bridge": {}})
    move("plug")
    await_(lambda: sources().get("net2") == "domain, multus-status")
    rewire({"name": "net2", "bridge": {}, "state": "absent"})
    assert sources()["net2"] == "multus-status"
    move("unplug")
    await_(
        lambda: (
            (cluster.get(vm) or {})["spec"]["template"]["spec"]["networks"] == wired([pod_card])["networks"]
        )
    )
    assert sources() == {"default": "domain"}
    cluster.write(MergePatch(vm, {"spec": {"runStrategy": "Halted"}}))
    await_(lambda: cluster.get(vmi) is None and not cluster.list("v1", "Pod", namespace="vms").items)


def wired(cards: list[dict[str, Any]]) -> dict[str, Any]:
    """A VM's template with these cards: the one called default on the pod network, the others on NADs of their names."""
    networks = [
        {"name": card["name"], **({"pod": {}} if card["name"] == "default" else {"multus": {"networkName": card["name"]}})}
        for card in cards
    ]  # fmt: skip
    return {"domain": {"memory": {"guest": "2Gi"}, "devices": {"interfaces": cards}}, "networks": networks}
