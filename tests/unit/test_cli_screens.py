"""What somebody reads at two in the morning: what differs, what to type next, and nothing that says nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from crash.lives import ROOT, Ended, Job, job_of, kill_when
from crash.others import NETWORK, ROLLOUT, add_vm, set_pair, small_world

from providers.ports import Create, Delete, MergePatch, Ref

POLICY = ("nmstate.io/v1", "NodeNetworkConfigurationPolicy")
BEFORE_LOOK_BACK = ("step-done", 24)
EVACUATED = ("step-done", 4)


def example(folder: Path, name: str, files: str, **changes: Any) -> Job:
    """A job of an example, its world's spec changed at the top."""
    document = yaml.safe_load((ROOT / "examples" / name / "world.yaml").read_text())
    document["spec"] |= changes
    return job_of(
        folder / "job",
        document,
        {"vmnet.yaml": (ROOT / "examples" / name / files / "vmnet.yaml").read_text()},
    )


@pytest.fixture
def nncp(tmp_path: Path) -> Job:
    return example(tmp_path, "nncp", "hot")


def differences(ended: Ended) -> list[str]:
    """The lines of the error that name a path."""
    return [line.strip() for line in ended.err.splitlines() if re.match(r" +(node|policy|nad)/", line)]


def test_the_look_back_tells_what_differs_by_path_and_dumps_no_document(nncp: Job) -> None:
    with nncp.world() as world:
        (old,) = world.cluster.list(*POLICY).items
    assert nncp.apply(boundary=kill_when(*BEFORE_LOOK_BACK)).code == -9
    with nncp.world() as world:
        set_pair(world, "worker-01", "vmnet", "br-ex")
        again = {"metadata": {"name": "br-vmdata"}, "spec": old["spec"]}
        world.edit().cluster.write(Create(Ref(*POLICY, "br-vmdata"), again))
    ended = nncp.apply()
    assert ended.code == 4
    assert differences(ended) == [
        "policy/br-vmdata: absent -> there (this run took it away; with it back, it is obeyed again)",
        "node/worker-01/ovs/mapping/vmnet: br-phy -> br-ex",
    ]
    assert max(map(len, ended.out.splitlines())) < 160
    assert "generation" not in ended.text and "desiredState" not in ended.text


def test_a_network_that_was_edited_since_is_told_by_its_field(tmp_path: Path) -> None:
    job = example(tmp_path, "new-cluster", "desired")
    assert job.apply(boundary=kill_when(*BEFORE_LOOK_BACK)).code == -9
    nad = Ref("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", "vlan224", "default")
    with job.world() as world:
        config = world.cluster.get(nad)["spec"]["config"].replace('"vlanID": 224', '"vlanID": 225')
        world.edit().cluster.write(MergePatch(nad, {"spec": {"config": config}}))
    assert differences(job.apply()) == ["nad/default/vlan224/config: vlanID: 224 -> 225"]


def test_a_plan_of_a_policy_alone_looks_back_at_what_the_policy_maps(nncp: Job) -> None:
    assert nncp.apply().code == 0
    with nncp.world() as world:
        world.edit().cluster.write(Delete(Ref(*POLICY, "br-vmdata-migrated")))
    assert nncp.apply(boundary=kill_when("step-done", 2)).code == -9
    with nncp.world() as world:
        set_pair(world, "worker-02", "vmnet", "br-ex")
    ended = nncp.apply()
    assert ended.code == 4, ended.text
    assert differences(ended) == ["node/worker-02/ovs/mapping/vmnet: br-phy -> br-ex"]


def test_a_failure_is_timed_by_the_worlds_clock(tmp_path: Path) -> None:
    job = example(tmp_path, "nncp", "hot", controllers={"nmstate-operator": "off"})
    ended = job.apply()
    assert ended.code == 3, ended.text
    (seconds,) = re.findall(r"failed after (\d+)\.\ds", ended.out)
    assert int(seconds) >= 60


def test_a_vm_that_comes_to_an_emptied_node_has_its_way_out_printed_and_it_works(tmp_path: Path) -> None:
    job = job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK, "rollout.yaml": ROLLOUT})
    assert job.apply(boundary=kill_when(*EVACUATED)).code == -9
    with job.world() as world:
        add_vm(world, "newcomer", "worker-01", "02:00:00:00:e0:99", like="talker-2")
        world.tick(30)
    ended = job.apply()
    run = job.latest().id
    assert ended.code == 4
    assert "`virtctl migrate newcomer -n default`" in ended.err
    commands = (
        f"  ovsplan abandon {run} --twin world\n"
        "  oc adm uncordon worker-01; oc annotate node worker-01 ovsplan.io/cordoned-by-\n"
        f"  ovsplan plan {job.folder} --twin world\n"
    )
    assert commands in ended.out
    assert commands in job.run("status").out

    assert job.run("abandon", run).code == 0
    free = {"metadata": {"annotations": {"ovsplan.io/cordoned-by": None}}, "spec": {"unschedulable": None}}
    with job.world() as world:
        world.edit().cluster.write(MergePatch(Ref("v1", "Node", "worker-01"), free))
    assert job.apply().code == 0
    with job.world() as world:
        shown = world.show()
    assert all(vm["reachable"] for vm in shown["vms"].values())
    assert not any(node["cordoned"] for node in shown["nodes"].values())
    assert "No changes." in job.run("plan").out


def test_status_tells_the_clusters_part_and_nothing_that_says_nothing(nncp: Job) -> None:
    assert nncp.apply().code == 0
    told = nncp.run("status").out
    assert re.search(
        r"policy/br-vmdata-migrated/finalise +done  policy br-vmdata-migrated is Available", told
    )
    assert re.search(r"policy/br-vmdata/withdraw +done", told)
    assert told.count("--inventory") == 1
    assert "VMs without network now: none" in told
    assert "Cannot tell" not in told


def test_a_localnet_without_vms_that_is_mapped_to_nothing_is_new(tmp_path: Path) -> None:
    planned = example(tmp_path, "new-cluster", "desired").run("plan").out
    assert "worker-01  new, by nncp: no VM is on what is mapped here for the first time" in planned
    assert "orphaned" not in planned


BACKUP_BRIDGE = """\
apiVersion: nmstate.io/v1
kind: NodeNetworkConfigurationPolicy
metadata: {name: backup}
spec:
  nodeSelector: {node-role.kubernetes.io/worker: ""}
  desiredState:
    interfaces:
      - {name: br-backup, type: ovs-bridge, state: up, bridge: {allow-extra-patch-ports: true, port: [{name: ens40}]}}
"""


def test_nodes_on_which_no_path_of_vms_moves_are_not_called_unproven(tmp_path: Path) -> None:
    job = example(tmp_path, "nncp", "hot")
    (job.folder / "vmnet.yaml").write_text(BACKUP_BRIDGE.replace("ens40", "eno9"))
    with job.world() as world:
        for node in world.show()["nodes"]:
            world.set_nic(node, "eno9", "up")
    ended = job.apply()
    assert ended.code == 0, ended.text
    assert "proven" not in ended.text and "proven" not in job.run("status").out
    assert "0 checks hold" not in ended.out


def test_a_canary_needs_no_image_where_a_node_has_one(tmp_path: Path) -> None:
    job = example(tmp_path, "nncp", "cold")
    rollout = (ROOT / "examples" / "nncp" / "cold" / "rollout.yaml").read_text()
    (job.folder / "rollout.yaml").write_text(f"{rollout}  proof: {{canary: {{}}}}\n")
    planned = job.run("plan")
    assert planned.code == 0, planned.text
    assert planned.out.count("proof: a canary before VMs return (of registry.example.com/ovn:1") == 3


def test_a_plan_that_is_blocked_tells_its_hazards_once(tmp_path: Path) -> None:
    spec = small_world(nodes={"worker-01": {"ready": False}, "worker-02": {}})
    ended = job_of(tmp_path / "job", spec, {"network.yaml": NETWORK}).apply()
    assert ended.code == 7
    assert ended.text.count("H18 BLOCKS") == 1 and "H18" not in ended.err


def test_a_command_in_a_way_out_stands_on_one_line(tmp_path: Path) -> None:
    job = example(tmp_path, "nncp", "hot")
    with job.world() as world:
        set_pair(world, "worker-01", "storage=br-storage,odd", "br-ex")
    told = job.run("plan").out
    assert re.search(r"`ovs-vsctl set Open_vSwitch \. external_ids:ovn-bridge-mappings=\S+`", told)
