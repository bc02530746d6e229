"""The Kubernetes API of the twin."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from providers.ports import (
    AlreadyExists,
    Conflict,
    Create,
    Delete,
    MergePatch,
    NotFound,
    NotServed,
    Ref,
    Refused,
)
from providers.twin import TwinWorld
from twin.worlds import KUBEVIRT, TALKER, VMI, make, vmi

NODE = Ref("v1", "Node", "worker-01")
MAP = Ref("v1", "ConfigMap", "notes", "default")


def test_the_cluster_has_an_identity(world: TwinWorld) -> None:
    space = world.cluster.get(Ref("v1", "Namespace", "kube-system"))
    assert space is not None
    assert len(space["metadata"]["uid"]) == 36


def test_a_patch_merges_deletes_on_null_and_makes_a_new_version(world: TwinWorld) -> None:
    before = world.cluster.get(NODE)
    assert before is not None
    patched = world.cluster.write(MergePatch(NODE, {"spec": {"unschedulable": True}}))
    assert patched["spec"]["unschedulable"] is True
    assert patched["metadata"]["labels"] == before["metadata"]["labels"]
    assert int(patched["metadata"]["resourceVersion"]) > int(before["metadata"]["resourceVersion"])
    again = world.cluster.write(MergePatch(NODE, {"spec": {"unschedulable": None}}))
    assert "unschedulable" not in again["spec"]


def test_a_patch_that_changes_nothing_makes_no_version(world: TwinWorld) -> None:
    first = world.cluster.write(MergePatch(NODE, {"spec": {"unschedulable": True}}))
    assert world.cluster.write(MergePatch(NODE, {"spec": {"unschedulable": True}})) == first


def test_a_patch_at_an_old_version_conflicts_and_does_nothing(world: TwinWorld) -> None:
    before = world.cluster.get(NODE)
    assert before is not None
    version = before["metadata"]["resourceVersion"]
    world.edit().cluster.write(MergePatch(NODE, {"metadata": {"annotations": {"by": "somebody"}}}))
    for patch in (
        MergePatch(NODE, {"spec": {"unschedulable": True}}, version),
        MergePatch(NODE, {"metadata": {"resourceVersion": version}, "spec": {"unschedulable": True}}),
    ):
        with pytest.raises(Conflict):
            world.cluster.write(patch)
    after = world.cluster.get(NODE)
    assert after is not None
    assert "unschedulable" not in after["spec"]
    fresh = after["metadata"]["resourceVersion"]
    assert world.cluster.write(MergePatch(NODE, {"spec": {"unschedulable": True}}, fresh))["spec"][
        "unschedulable"
    ]


def test_create_fills_in_and_refuses_a_second_of_the_name(world: TwinWorld) -> None:
    made = world.cluster.write(Create(MAP, {"data": {"a": "b"}}))
    assert made["metadata"].keys() >= {"uid", "resourceVersion", "creationTimestamp"}
    assert (made["apiVersion"], made["kind"], made["metadata"]["name"]) == ("v1", "ConfigMap", "notes")
    with pytest.raises(AlreadyExists):
        world.cluster.write(Create(MAP, {"data": {}}))
    assert world.cluster.get(MAP) == made


def test_delete_checks_the_uid_and_a_second_one_finds_nothing(world: TwinWorld) -> None:
    made = world.cluster.write(Create(MAP, {}))
    with pytest.raises(Conflict):
        world.cluster.write(Delete(MAP, uid="another"))
    assert world.cluster.write(Delete(MAP, uid=made["metadata"]["uid"])) == made
    assert world.cluster.get(MAP) is None
    for request in (Delete(MAP), MergePatch(MAP, {"data": {}})):
        with pytest.raises(NotFound):
            world.cluster.write(request)
    assert world.cluster.write(Create(MAP, {}))["metadata"]["uid"] != made["metadata"]["uid"]


def test_a_dry_run_says_what_would_be_and_writes_nothing(world: TwinWorld) -> None:
    before = world.cluster.get(NODE)
    would = world.cluster.write(MergePatch(NODE, {"spec": {"unschedulable": True}}), dry_run=True)
    assert would["spec"]["unschedulable"] is True
    assert world.cluster.get(NODE) == before
    world.cluster.write(Create(MAP, {}), dry_run=True)
    assert world.cluster.get(MAP) is None
    with pytest.raises(NotFound):
        world.cluster.write(Delete(MAP), dry_run=True)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (Create(Ref("v1", "ConfigMap", "Upper", "default"), {}), Refused),
        (Create(Ref("v1", "ConfigMap", "a"), {}), Refused),
        (Create(Ref("v1", "ConfigMap", "a", "default"), {"metadata": {"name": "b"}}), Refused),
        (Create(Ref("v1", "ConfigMap", "a", "nowhere"), {}), NotFound),
        (Create(Ref("example.com/v1", "Thing", "a", "default"), {}), NotServed),
        (MergePatch(NODE, {"metadata": {"uid": "x"}}), Refused),
    ],
)
def test_what_the_api_does_not_take(
    world: TwinWorld, request_: Create | MergePatch, error: type[Exception]
) -> None:
    with pytest.raises(error):
        world.cluster.write(request_)


def test_lists_are_sorted_and_filtered(world: TwinWorld) -> None:
    for namespace, name in (("kube-system", "b"), ("default", "z"), ("default", "a")):
        body = {"metadata": {"labels": {"n": name}}}
        world.cluster.write(Create(Ref("v1", "ConfigMap", name, namespace), body))

    def names(**by: object) -> list[str]:
        found = world.cluster.list("v1", "ConfigMap", **by).items  # type: ignore[arg-type]
        return [f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in found]

    assert names() == ["default/a", "default/z", "kube-system/b"]
    assert names(namespace="default") == ["default/a", "default/z"]
    assert names(labels={"n": "b"}) == ["kube-system/b"]
    assert names(namespace="default", labels={"n": "b"}) == []


def test_a_kind_without_a_definition_is_not_an_empty_list(world: TwinWorld) -> None:
    with pytest.raises(NotServed):
        world.cluster.list("nmstate.io/v1", "NodeNetworkConfigurationPolicy")
    with pytest.raises(NotServed):
        world.cluster.get(Ref("nmstate.io/v1", "NodeNetworkConfigurationPolicy", "x"))


def test_a_watch_tells_what_came_after_and_ends_in_silence(world: TwinWorld) -> None:
    since = world.cluster.list("v1", "ConfigMap").resource_version
    world.cluster.write(Create(MAP, {"data": {"a": "1"}}))
    world.cluster.write(MergePatch(NODE, {"spec": {"unschedulable": True}}))
    world.cluster.write(MergePatch(MAP, {"data": {"a": "2"}}))
    world.cluster.write(Delete(MAP))
    before = world.clock.now()
    events = [
        (e.type, e.object["data"]["a"])
        for e in world.cluster.watch("v1", "ConfigMap", since=since, timeout=7)
    ]
    assert events == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]
    assert world.clock.now() - before == pytest.approx(7)


def test_what_a_caller_does_to_an_object_it_got_stays_with_the_caller(world: TwinWorld) -> None:
    vmi(world, "talker")["status"]["nodeName"] = "elsewhere"
    world.cluster.list(KUBEVIRT, VMI).items[0]["status"].clear()
    assert vmi(world, "talker")["status"]["nodeName"] == "worker-01"


def test_the_vm_objects_refer_to_each_other(world: TwinWorld) -> None:
    found = vmi(world, "talker")
    (pod,) = world.cluster.list(
        "v1", "Pod", labels={"kubevirt.io/created-by": found["metadata"]["uid"]}
    ).items
    assert found["status"]["activePods"] == {pod["metadata"]["uid"]: "worker-01"}
    assert pod["metadata"]["labels"]["kubevirt.io"] == "virt-launcher"
    asked, made = (
        json.loads(pod["metadata"]["annotations"][f"k8s.v1.cni.cncf.io/{word}"])
        for word in ("networks", "network-status")
    )
    assert [(card["namespace"], card["name"], card["mac"]) for card in asked] == [
        ("default", "vlan224", TALKER)
    ]
    assert [card["name"] for card in made] == ["ovn-kubernetes", "default/vlan224"]
    assert made[1]["interface"] == asked[0]["interface"]
    macs = {entry["name"]: entry["mac"] for entry in found["status"]["interfaces"]}
    assert macs["net"] == "02:00:00:00:e0:0b"
    assert world.cluster.get(Ref(KUBEVIRT, "VirtualMachine", "talker", "default")) is not None


def lease_of(world: TwinWorld, node: str) -> float:
    found = world.cluster.get(Ref("coordination.k8s.io/v1", "Lease", node, "kube-node-lease"))
    assert found is not None
    return datetime.fromisoformat(found["spec"]["renewTime"]).timestamp()


def test_every_kubelet_renews_its_lease_however_far_time_jumps(tmp_path: Path) -> None:
    with make(tmp_path / "world") as world:
        for seconds in (0, 7, 86_400):
            world.tick(seconds)
            listed = world.cluster.list("coordination.k8s.io/v1", "Lease", namespace="kube-node-lease").items
            assert [lease["metadata"]["name"] for lease in listed] == ["worker-01", "worker-02"]
            for node in ("worker-01", "worker-02"):
                assert 0 <= world.clock.now() - lease_of(world, node) <= 10


def test_a_kubelet_that_falls_silent_is_found_out_after_forty_seconds(tmp_path: Path) -> None:
    def ready() -> str:
        node = world.cluster.get(Ref("v1", "Node", "worker-01"))
        assert node is not None
        return str(next(c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready"))

    with make(tmp_path / "world") as world:
        world.set_kubelet("worker-01", False)
        last = lease_of(world, "worker-01")
        world.tick(39)
        assert (ready(), lease_of(world, "worker-01")) == ("True", last)
        world.tick(1)
        assert ready() == "Unknown"
        world.set_kubelet("worker-01", True)
        assert ready() == "True" and lease_of(world, "worker-01") > last
