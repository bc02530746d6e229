"""The life of a live migration, its limits and its refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from providers.ports import Create, Delete, MergePatch, Ref, Refused
from providers.twin import TwinWorld
from twin.worlds import (
    KUBEVIRT,
    MIGRATION,
    SILENT,
    announce,
    learned,
    make,
    migrate,
    phase,
    spec,
    vmi,
)

POD = "Pod"


def phases(world: TwinWorld, name: str, since: str) -> list[str]:
    events = world.cluster.watch(KUBEVIRT, MIGRATION, since=since, timeout=60)
    found = [e.object.get("status", {}).get("phase") for e in events if e.object["metadata"]["name"] == name]
    return [str(phase) for phase in dict.fromkeys(found)]


def cordon(world: TwinWorld, node: str) -> None:
    world.cluster.write(MergePatch(Ref("v1", "Node", node), {"spec": {"unschedulable": True}}))


def pods_of(world: TwinWorld, vm: str) -> list[Any]:
    uid = vmi(world, vm)["metadata"]["uid"]
    return list(world.cluster.list("v1", POD, labels={"kubevirt.io/created-by": uid}).items)


def many(count: int, nodes: int = 3) -> dict[str, Any]:
    names = [f"worker-{number:02d}" for number in range(1, nodes + 1)]
    network = {"net": {"nad": "default/vlan224"}}
    vms = {f"default/vm-{n}": {"node": names[n % (nodes - 1)], "networks": network} for n in range(count)}
    return {"nodes": {name: {} for name in names}, "vms": vms}


def test_a_migration_goes_through_its_phases(world: TwinWorld) -> None:
    since = world.cluster.list(KUBEVIRT, MIGRATION).resource_version
    start = world.clock.now()
    migrate(world, "talker", "m")
    assert phase(world, "m") == "Running"
    assert vmi(world, "talker")["status"]["nodeName"] == "worker-01"
    assert phases(world, "m", since) == [
        "None", "Pending", "Scheduling", "Scheduled", "PreparingTarget", "TargetReady", "Running", "Succeeded",
    ]  # fmt: skip
    status = vmi(world, "talker")["status"]
    assert status["nodeName"] == status["migrationState"]["targetNode"] == "worker-02"
    assert status["migrationState"]["completed"] is True
    assert status["migrationState"]["startTimestamp"] < status["migrationState"]["endTimestamp"]
    (pod,) = pods_of(world, "talker")
    assert status["activePods"] == {pod["metadata"]["uid"]: "worker-02"}
    assert (
        pod["metadata"]["labels"]["kubevirt.io/migrationJobUID"] == status["migrationState"]["migrationUid"]
    )
    assert world.clock.now() >= start + 4


def test_the_vm_is_reachable_all_along_and_learned_on_the_target(world: TwinWorld) -> None:
    migrate(world, "talker", "m")
    for _ in range(50):
        world.tick(0.1)
        assert world.reachable("default/talker") == (True, "")
    assert learned(world, "worker-02", "br-vmdata").keys() == {"02:00:00:00:e0:0b"}


def test_a_silent_vm_is_announced_when_it_arrives(world: TwinWorld) -> None:
    migrate(world, "silent", "m")
    world.tick(3.9)
    assert world.show()["vms"]["default/silent"]["node"] == "worker-01"
    assert world.reachable("default/silent")[0]
    world.tick(0.2)
    assert world.show()["vms"]["default/silent"]["node"] == "worker-02"
    assert world.reachable("default/silent") == (True, "")
    assert learned(world, "worker-02", "br-vmdata")[SILENT][1] == 0


def test_the_source_port_is_unplugged(world: TwinWorld) -> None:
    def plugged(node: str) -> list[str]:
        ports = world.show()["nodes"][node]["bridges"]["br-int"]["ports"]
        return [name for name in ports if name.endswith("_1")]

    assert (len(plugged("worker-01")), len(plugged("worker-02"))) == (2, 0)
    migrate(world, "talker", "m")
    assert (len(plugged("worker-01")), len(plugged("worker-02"))) == (2, 1)
    world.tick(10)
    assert (len(plugged("worker-01")), len(plugged("worker-02"))) == (1, 1)


def test_no_more_than_two_leave_a_node_and_five_the_cluster_at_once(tmp_path: Path) -> None:
    with make(tmp_path / "w", **many(12)) as world:
        for number in range(12):
            migrate(world, f"vm-{number}", f"m-{number}")

        def running() -> list[str]:
            found = [(f"vm-{n}", phase(world, f"m-{n}")) for n in range(12)]
            return [vm for vm, now in found if now not in ("Pending", "Succeeded")]

        sources = [vmi(world, vm)["status"]["nodeName"] for vm in running()]
        assert sorted(sources) == ["worker-01", "worker-01", "worker-02", "worker-02"]
        world.tick(60)
        assert {phase(world, f"m-{n}") for n in range(12)} == {"Succeeded"}


def test_the_cluster_limit_holds_over_many_nodes(tmp_path: Path) -> None:
    with make(tmp_path / "w", **many(8, nodes=5), limits={"migrationsPerCluster": 3}) as world:
        for number in range(8):
            migrate(world, f"vm-{number}", f"m-{number}")
        assert [phase(world, f"m-{n}") for n in range(8)].count("Running") == 3


def test_a_cordoned_node_takes_no_vm_and_the_pod_says_why(world: TwinWorld) -> None:
    cordon(world, "worker-02")
    migrate(world, "talker", "m")
    world.tick(10)
    assert phase(world, "m") == "Scheduling"
    (waiting,) = [pod for pod in pods_of(world, "talker") if not pod["spec"].get("nodeName")]
    (condition,) = waiting["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == (
        "PodScheduled",
        "False",
        "Unschedulable",
    )
    assert condition["message"].startswith(
        "0/2 nodes are available: 1 node(s) didn't match pod anti-affinity rules, 1 node(s) were unschedulable."
    )
    world.cluster.write(MergePatch(Ref("v1", "Node", "worker-02"), {"spec": {"unschedulable": None}}))
    world.tick(10)
    assert phase(world, "m") == "Succeeded"


def test_after_five_minutes_without_a_node_the_migration_fails_and_the_vm_stays(world: TwinWorld) -> None:
    cordon(world, "worker-02")
    migrate(world, "talker", "m")
    world.tick(299)
    assert phase(world, "m") == "Scheduling"
    world.tick(2)
    assert phase(world, "m") == "Failed"
    assert len(pods_of(world, "talker")) == 1
    assert vmi(world, "talker")["status"]["nodeName"] == "worker-01"
    migrate(world, "talker", "again")
    assert phase(world, "again") == "Scheduling"


def test_a_node_without_enough_memory_is_passed_over(tmp_path: Path) -> None:
    nodes = {"worker-01": {}, "worker-02": {"memory": "1Gi"}}
    with make(tmp_path / "w", nodes=nodes) as world:
        migrate(world, "talker", "m")
        waiting = next(pod for pod in pods_of(world, "talker") if not pod["spec"].get("nodeName"))
        assert "1 Insufficient memory" in waiting["status"]["conditions"][0]["message"]


def test_the_least_loaded_node_is_chosen_then_the_first_by_name(tmp_path: Path) -> None:
    nodes = {f"worker-0{n}": {} for n in range(1, 5)}
    busy = {"default/other": {"node": "worker-02", "networks": {}}}
    with make(tmp_path / "w", nodes=nodes, vms={**spec()["vms"], **busy}) as world:
        migrate(world, "talker", "m")
        world.tick(10)
        assert vmi(world, "talker")["status"]["nodeName"] == "worker-03"


def test_a_selector_pins_the_target(tmp_path: Path) -> None:
    with make(tmp_path / "w", nodes={f"worker-0{n}": {} for n in range(1, 4)}) as world:
        migrate(world, "talker", "m", target="worker-03")
        world.tick(10)
        assert vmi(world, "talker")["status"]["nodeName"] == "worker-03"


def test_a_vm_that_cannot_migrate_is_refused_with_its_reason(tmp_path: Path) -> None:
    vms = {
        "default/fixed": {"node": "worker-01", "migratable": "DisksNotLiveMigratable: PVC data is not shared"}
    }
    with make(tmp_path / "w", vms=vms) as world:
        with pytest.raises(
            Refused, match=r"Cannot migrate VMI, Reason: DisksNotLiveMigratable.*PVC data is not shared"
        ):
            migrate(world, "fixed", "m")
        assert phase(world, "m") is None


def test_a_second_migration_of_a_vm_is_refused_while_the_first_is_under_way(world: TwinWorld) -> None:
    migrate(world, "talker", "m")
    with pytest.raises(Refused, match="in-flight migration detected"):
        migrate(world, "talker", "n")
    world.tick(10)
    migrate(world, "talker", "n")


def test_a_vm_that_does_not_exist_is_refused(world: TwinWorld) -> None:
    with pytest.raises(Refused):
        migrate(world, "nobody", "m")
    with pytest.raises(Refused):
        world.cluster.write(Create(Ref(KUBEVIRT, MIGRATION, "m", "default"), {"spec": {}}))


def test_deleting_a_migration_cancels_it(world: TwinWorld) -> None:
    migrate(world, "talker", "m")
    world.tick(2)
    world.cluster.write(Delete(Ref(KUBEVIRT, MIGRATION, "m", "default")))
    world.tick(10)
    status = vmi(world, "talker")["status"]
    assert status["nodeName"] == "worker-01"
    assert status["migrationState"]["failed"] is True
    assert len(pods_of(world, "talker")) == 1
    assert world.reachable("default/talker") == (True, "")
    migrate(world, "talker", "n")
    world.tick(10)
    assert vmi(world, "talker")["status"]["nodeName"] == "worker-02"
    assert vmi(world, "talker")["status"]["migrationState"].get("failed") is None


def test_two_vms_of_one_name_move_apart(tmp_path: Path) -> None:
    network = {"net": {"nad": "default/vlan224"}}
    vms = {f"{space}/web": {"node": "worker-01", "networks": network} for space in ("blue", "green")}
    with make(tmp_path / "w", vms=vms) as world:
        migrate(world, "web", "m", namespace="green")
        world.tick(10)
        shown = world.show()["vms"]
        assert (shown["blue/web"]["node"], shown["green/web"]["node"]) == ("worker-01", "worker-02")
        assert shown["blue/web"]["reachable"] and shown["green/web"]["reachable"]


@pytest.mark.parametrize(
    ("off", "stuck"), [("kubevirt", None), ("scheduler", "Scheduling"), ("kubelet", "Scheduling")]
)
def test_without_one_controller_a_migration_stops_where_that_one_acts(
    tmp_path: Path, off: str, stuck: str | None
) -> None:
    with make(tmp_path / "w", controllers={off: "off"}) as world:
        migrate(world, "talker", "m")
        world.tick(60)
        assert phase(world, "m") == stuck
        assert vmi(world, "talker")["status"]["nodeName"] == "worker-01"


def test_a_silent_vm_announced_from_where_it_is_not_goes_dark(world: TwinWorld) -> None:
    migrate(world, "silent", "m")
    world.tick(10)
    announce(world, "worker-01", "br-vmdata", SILENT)
    assert not world.reachable("default/silent")[0]
