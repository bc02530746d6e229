"""Cards that come into a VM that runs, or leave it: in place, by a migration, or only by a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from providers.ports import MergePatch, Ref
from providers.twin import TwinWorld, WorldError
from twin.worlds import KUBEVIRT, MIGRATION, make, migrate, phase, spec, vmi

TALKER_VM = Ref(KUBEVIRT, "VirtualMachine", "talker", "default")
NETWORKS = {
    name: {"localnet": "vmnet", "vlan": vlan, "mtu": 9000}
    for name, vlan in (("default/vlan224", 224), ("default/vlan300", 300))
}
IN_PLACE = {"controllers": {"dynamic-networks": "on"}}
BY_HAND = {"kubevirt": {"workloadUpdateMethods": []}}


def world_of(folder: Path, **changes: Any) -> TwinWorld:
    return make(folder, networks=NETWORKS, **changes)


def template(world: TwinWorld) -> Any:
    vm = world.cluster.get(TALKER_VM)
    assert vm is not None
    return vm["spec"]["template"]["spec"]


def rewire(world: TwinWorld, change: Callable[[list[Any], list[Any]], None]) -> None:
    """Change the networks and interfaces of the talker's template."""
    spec = template(world)
    change(spec["networks"], spec["domain"]["devices"]["interfaces"])
    world.cluster.write(MergePatch(TALKER_VM, {"spec": {"template": {"spec": spec}}}))


def add(networks: list[Any], interfaces: list[Any], **more: Any) -> None:
    networks.append({"name": "net2", "multus": {"networkName": "vlan300"}})
    interfaces.append({"name": "net2", **(more or {"bridge": {}})})


def take_out(networks: list[Any], interfaces: list[Any]) -> None:
    interfaces[1]["state"] = "absent"


def sources(world: TwinWorld) -> dict[str, str]:
    return {entry["name"]: entry["infoSource"] for entry in vmi(world, "talker")["status"]["interfaces"]}


def required(world: TwinWorld) -> str | None:
    """What the guest's MigrationRequired says; None when it is not there."""
    conditions = vmi(world, "talker")["status"]["conditions"]
    return next((c["status"] for c in conditions if c["type"] == "MigrationRequired"), None)


def restart_required(world: TwinWorld) -> bool:
    vm = world.cluster.get(TALKER_VM)
    assert vm is not None
    return "RestartRequired" in [c["type"] for c in vm["status"]["conditions"]]


def moves(world: TwinWorld) -> list[str]:
    return [m["metadata"]["name"] for m in world.cluster.list(KUBEVIRT, MIGRATION).items]


def test_a_new_card_comes_by_a_migration_that_kubevirt_makes_itself(tmp_path: Path) -> None:
    with world_of(tmp_path / "w") as world:
        before = vmi(world, "talker")["metadata"]["uid"]
        rewire(world, add)
        assert [n["name"] for n in vmi(world, "talker")["spec"]["networks"]] == ["default", "net", "net2"]
        assert (required(world), "net2" in sources(world), restart_required(world)) == ("False", False, False)
        world.tick(14)
        assert required(world) == "False"
        world.tick(2)
        assert (required(world), moves(world)) == ("True", [])
        world.tick(5)
        assert [name.rpartition("-")[0] for name in moves(world)] == ["kubevirt-workload-update"]
        for _ in range(50):
            world.tick(0.1)
            assert world.reachable("default/talker") == (True, "")
        found = vmi(world, "talker")
        assert (found["metadata"]["uid"], found["status"]["nodeName"]) == (before, "worker-02")
        assert sources(world)["net2"] == "domain, multus-status"
        assert required(world) is None


def test_a_new_card_comes_in_place_where_somebody_plugs_it(tmp_path: Path) -> None:
    with world_of(tmp_path / "w", **IN_PLACE) as world:
        rewire(world, add)
        world.tick(30)
        assert sources(world)["net2"] == "domain, multus-status"
        assert (required(world), moves(world)) == (None, [])
        assert world.reachable("default/talker") == (True, "")


def test_where_kubevirt_may_not_migrate_it_waits_for_somebody_who_does(tmp_path: Path) -> None:
    with world_of(tmp_path / "w", **BY_HAND) as world:
        rewire(world, add)
        world.tick(600)
        assert (required(world), moves(world)) == ("True", [])
        migrate(world, "talker", "by-hand")
        world.tick(10)
        assert phase(world, "by-hand") == "Succeeded"
        assert sources(world)["net2"] == "domain, multus-status" and required(world) is None


def test_a_guest_that_cannot_move_waits_for_ever(tmp_path: Path) -> None:
    stays = {**spec()["vms"]["default/talker"], "migratable": "DisksNotLiveMigratable: PVC a is not shared"}
    with world_of(tmp_path / "w", vms={"default/talker": stays}) as world:
        rewire(world, add)
        world.tick(600)
        assert (required(world), moves(world), "net2" in sources(world)) == ("True", [], False)


def test_a_migration_that_fails_is_made_again(tmp_path: Path) -> None:
    with world_of(tmp_path / "w") as world:
        node = Ref("v1", "Node", "worker-02")
        world.cluster.write(MergePatch(node, {"spec": {"unschedulable": True}}))
        rewire(world, add)
        world.tick(330)
        assert "Failed" in [phase(world, name) for name in moves(world)]
        world.cluster.write(MergePatch(node, {"spec": {"unschedulable": None}}))
        world.tick(60)
        assert sources(world)["net2"] == "domain, multus-status"


@pytest.mark.parametrize("how", [{}, IN_PLACE])
def test_an_absent_card_goes_and_kubevirt_takes_its_entries_out(how: dict[str, Any], tmp_path: Path) -> None:
    with world_of(tmp_path / "w", **how) as world:
        rewire(world, take_out)
        assert restart_required(world) is False
        if not how:
            assert (sources(world)["net"], required(world)) == ("multus-status", "False")
            assert len(template(world)["networks"]) == 2
        world.tick(40)
        assert set(sources(world)) == {"default"} and required(world) is None
        assert [n["name"] for n in template(world)["networks"]] == ["default"]
        assert [n["name"] for n in vmi(world, "talker")["spec"]["networks"]] == ["default"]
        node = vmi(world, "talker")["status"]["nodeName"]
        found = world.show()["nodes"][node]["bridges"]["br-int"]["ports"]
        others = 1 if node == "worker-01" else 0  # the silent VM's
        assert len([name for name in found if name.endswith(("_1", "_2"))]) == others


def another_model(networks: list[Any], interfaces: list[Any]) -> None:
    interfaces[1]["model"] = "e1000e"


def another_network(networks: list[Any], interfaces: list[Any]) -> None:
    networks[1]["multus"]["networkName"] = "default/vlan300"


def no_entries(networks: list[Any], interfaces: list[Any]) -> None:
    del networks[1], interfaces[1]


@pytest.mark.parametrize("change", [another_model, another_network, no_entries])
def test_what_is_changed_in_place_or_just_left_out_needs_a_restart(
    change: Callable[[list[Any], list[Any]], None], tmp_path: Path
) -> None:
    with world_of(tmp_path / "w") as world:
        before = vmi(world, "talker")["spec"]
        rewire(world, change)
        world.tick(60)
        assert restart_required(world) and vmi(world, "talker")["spec"] == before
        assert (required(world), moves(world)) == (None, [])


def test_a_card_that_needs_a_device_asks_for_its_migration_at_once(tmp_path: Path) -> None:
    with world_of(tmp_path / "w", **BY_HAND) as world:
        rewire(world, lambda networks, interfaces: add(networks, interfaces, sriov={}))
        assert required(world) == "True"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"vmRolloutStrategy": "Sometimes"}, "vmRolloutStrategy"),
        ({"workloadUpdateMethods": ["Reboot"]}, "workloadUpdateMethods"),
        ({"liveUpdate": True}, "liveUpdate"),
    ],
)
def test_a_world_file_that_is_wrong_about_kubevirt_names_the_field(
    given: dict[str, Any], field: str, tmp_path: Path
) -> None:
    with pytest.raises(WorldError, match=field):
        make(tmp_path / "w", kubevirt=given)
