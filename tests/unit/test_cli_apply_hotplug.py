"""Applies that plug cards into VMs that run on, and out of them, on a whole twin.

Invariant: what is asserted is read from the cluster and the nodes afterwards, or from the log of what was asked of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from crash.lives import Job, kill_at
from twin.worlds import select

from providers.ports import MergePatch, Ref
from unit.test_cli_apply_networks import (
    ATTACHED,
    VMNETWORK,
    cards,
    get,
    guest,
    job_for,
    somebody,
    vm_ref,
    written,
)

ROLLOUT = "---\napiVersion: ovsplan.io/v1alpha1\nkind: Rollout\nmetadata: {name: tonight}\nspec: {attach: hotplug}\n"
PLUGGED = ATTACHED + ROLLOUT
UNPLUGGED = f"{VMNETWORK}  attachments: {{default/web-1: {{vlan224-net: {{state: absent}}}}}}\n{ROLLOUT}"
NO_MIGRATIONS: Mapping[str, Any] = {"kubevirt": {"workloadUpdateMethods": []}}
IN_PLACE: Mapping[str, Any] = {"controllers": {"dynamic-networks": "on"}}


def migrations(job: Job) -> list[str]:
    with job.world() as world:
        found = world.cluster.list("kubevirt.io/v1", "VirtualMachineInstanceMigration").items
        return [f"{m['metadata']['name'].rpartition('-')[0]} {m['status']['phase']}" for m in found]


def ports(job: Job, vm: str) -> list[str]:
    """The networks that a VM has a port for on br-int, each with the node and the address it is on."""
    found = []
    with job.world() as world:
        for node in world.show()["nodes"]:
            for row in select(world, node, "Interface"):
                ids = dict(row["external_ids"][1])
                if ids.get("vm") == vm:
                    found.append(f"{ids['iface-id'].partition('_')[0]} {node} {ids['attached_mac']}")
    return sorted(found)


def reachable(job: Job, vm: str) -> tuple[bool, str]:
    with job.world() as world:
        world.tick(1.0)
        return world.reachable(vm)


def assert_it_ran_on(job: Job, before: Mapping[str, Any]) -> None:
    """The VM was written once, its cards alone, and its guest is the one that it was."""
    assert [sorted(patch["spec"]) for _, patch in written(job, "VirtualMachine")] == [["template"]]
    after = guest(job, "web-1")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["phase"] == "Running"


@pytest.mark.parametrize(
    ("world", "moved"),
    [
        ({}, ["kubevirt-workload-update Succeeded"]),
        (NO_MIGRATIONS, ["ovsplan Succeeded"]),
        (IN_PLACE, []),
    ],
)
def test_a_running_vm_gets_its_card_by_whichever_way_the_cluster_has(
    world: Mapping[str, Any], moved: list[str], tmp_path: Path
) -> None:
    job = job_for(tmp_path, PLUGGED, world)
    before = guest(job, "web-1")
    ended = job.apply()
    assert ended.code == 0, ended.text
    assert_it_ran_on(job, before)
    assert migrations(job) == moved
    after = guest(job, "web-1")
    assert (after["status"]["nodeName"] == before["status"]["nodeName"]) is not bool(moved)
    assert cards(after["spec"]) == {"vlan224-net": "default/vlan224", "net2": "default/vlan101"}
    told = {entry["name"]: entry for entry in after["status"]["interfaces"]}
    assert told["net2"]["infoSource"] == "domain, multus-status"
    node = after["status"]["nodeName"]
    wanted = [("vlan101", told["net2"]["mac"]), ("vlan224", told["vlan224-net"]["mac"])]
    assert ports(job, "default/web-1") == [f"{network} {node} {mac}" for network, mac in wanted]
    assert reachable(job, "default/web-1") == (True, "")
    again = job.apply()
    assert again.code == 0 and "No changes." in again.out, again.text


@pytest.mark.parametrize("world", [{}, NO_MIGRATIONS, IN_PLACE])
def test_a_running_vm_loses_its_card(world: Mapping[str, Any], tmp_path: Path) -> None:
    job = job_for(tmp_path, UNPLUGGED, world)
    before = guest(job, "web-1")
    ended = job.apply()
    assert ended.code == 0, ended.text
    assert_it_ran_on(job, before)
    (_, patch) = written(job, "VirtualMachine")[0]
    (gone,) = [
        i for i in patch["spec"]["template"]["spec"]["domain"]["devices"]["interfaces"] if "state" in i
    ]
    assert (gone["name"], gone["state"]) == ("vlan224-net", "absent")
    assert ports(job, "default/web-1") == []
    # KubeVirt itself takes out what it has unplugged.
    assert cards(get(job, vm_ref("web-1"))["spec"]["template"]["spec"]) == {}
    assert cards(guest(job, "web-1")["spec"]) == {}
    again = job.apply()
    assert again.code == 0 and "No changes." in again.out, again.text


@pytest.mark.parametrize("n", range(2, 14, 3))
def test_killed_at_any_commit_it_is_plugged_once(n: int, tmp_path: Path) -> None:
    job = job_for(tmp_path, PLUGGED, NO_MIGRATIONS)
    before = guest(job, "web-1")
    assert job.apply(boundary=kill_at(n)).code == -9
    ended = job.apply()
    assert ended.code == 0, ended.text
    assert_it_ran_on(job, before)
    assert migrations(job) == ["ovsplan Succeeded"]


def close(job: Job, word: bool | None) -> None:
    with job.world() as world:
        for node in world.show()["nodes"]:
            world.cluster.write(MergePatch(Ref("v1", "Node", node), {"spec": {"unschedulable": word}}))


def test_a_migration_that_failed_for_want_of_room_is_made_again_by_whoever_resumes(tmp_path: Path) -> None:
    job = job_for(tmp_path, PLUGGED, NO_MIGRATIONS)
    before = guest(job, "web-1")
    assert job.run("plan", "--out", "plan.json").code == 0
    close(job, True)
    ended = job.apply("plan.json")
    assert ended.code == 3 and "the migration of default/web-1 failed 3 times" in ended.text, ended.text
    close(job, None)
    again = job.apply()
    assert again.code == 0, again.text
    assert_it_ran_on(job, before)
    assert sorted(migrations(job)) == [*["ovsplan Failed"] * 3, "ovsplan Succeeded"]


def test_migrations_of_kubevirts_own_that_fail_one_after_the_other_are_told(tmp_path: Path) -> None:
    job = job_for(tmp_path, PLUGGED)
    before = guest(job, "web-1")
    assert job.run("plan", "--out", "plan.json").code == 0
    close(job, True)
    ended = job.apply("plan.json")
    assert ended.code == 3, ended.text
    said = " ".join(ended.text.split())
    assert "the migration of default/web-1 failed 3 times, so its cards are not plugged" in said
    assert "KubeVirt goes on trying by itself. `oc describe vmim -n default kubevirt-workload-update-" in said
    assert [m for m in migrations(job) if m.endswith("Failed")] == ["kubevirt-workload-update Failed"] * 3
    close(job, None)
    again = job.apply()
    assert again.code == 0, again.text
    assert_it_ran_on(job, before)


def test_without_live_updates_the_plan_says_that_the_vm_restarts(tmp_path: Path) -> None:
    job = job_for(tmp_path, PLUGGED, {"kubevirt": {"vmRolloutStrategy": "Stage"}})
    before = guest(job, "web-1")["metadata"]["uid"]
    said = " ".join(job.run("plan").out.split())
    assert (
        "no hotplug: KubeVirt's vmRolloutStrategy is not LiveUpdate: it is stopped, edited and started"
        in said
    )
    assert "1 VM (default/web-1)" in said
    assert job.apply().code == 0
    assert "net2" in cards(guest(job, "web-1")["spec"]) and migrations(job) == []
    assert guest(job, "web-1")["metadata"]["uid"] != before


def test_a_guest_that_cannot_be_plugged_into_is_told_and_a_restart_does_it(tmp_path: Path) -> None:
    job = job_for(tmp_path, PLUGGED)
    assert job.run("plan", "--out", "plan.json").code == 0
    before = guest(job, "web-1")["metadata"]["uid"]
    template = get(job, vm_ref("web-1"))["spec"]["template"]["spec"]
    template["domain"]["devices"]["interfaces"][1]["model"] = "e1000e"
    somebody(job, MergePatch(vm_ref("web-1"), {"spec": {"template": {"spec": template}}}))
    ended = job.apply("plan.json")
    assert ended.code == 3 and "RestartRequired" in ended.text and "attach: restart" in ended.text
    assert guest(job, "web-1")["metadata"]["uid"] == before
    (job.folder / "network.yaml").write_text(ATTACHED)
    assert job.run("abandon", job.latest().id).code == 0
    ended = job.apply()
    assert ended.code == 0, ended.text
    assert guest(job, "web-1")["metadata"]["uid"] != before
    assert "net2" in cards(guest(job, "web-1")["spec"])
