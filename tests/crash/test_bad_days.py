"""Bad days of a run by policies: what other people and dead controllers do to it, what it says, and how it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from crash.lives import ROOT, Ended, Job, at, job_of, kill_when
from crash.others import pairs
from providers.ports import Create, Delete, MergePatch, Ref

NNCP = ("nmstate.io/v1", "NodeNetworkConfigurationPolicy")
NNCE = ("nmstate.io/v1beta1", "NodeNetworkConfigurationEnactment")
OWN = "br-vmdata-migrated-worker-02"
FIRST_NODE_DONE = ("step-done", 9)


def site(folder: Path, **spec: Any) -> Job:
    """The whole of examples/nncp, with `spec` laid upon its world's."""
    example = ROOT / "examples" / "nncp"
    document = yaml.safe_load((example / "world.yaml").read_text())
    document["spec"] |= spec
    return job_of(folder, document, {"vmnet.yaml": (example / "hot" / "vmnet.yaml").read_text()})


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return site(tmp_path / "job")


def crash_in_the_second_node(job: Job) -> None:
    """Die when worker-02's policy has moved its mapping, before the rest of its bracket."""
    ended = job.apply(boundary=kill_when("step-done", 12))
    assert ended.code == -9, ended.text


def policies(job: Job) -> list[str]:
    with job.world() as world:
        return [item["metadata"]["name"] for item in world.cluster.list(*NNCP).items]


def well_done(job: Job, ended: Ended) -> None:
    assert ended.code == 0, ended.text
    with job.world() as world:
        shown = world.show()
        assert {node: pairs(world, node)["vmnet"] for node in shown["nodes"]} == dict.fromkeys(
            shown["nodes"], "br-phy"
        )
    assert [name for name, vm in shown["vms"].items() if not vm["reachable"]] == []
    assert [
        name for name, node in shown["nodes"].items() if "br-vmdata" in node["bridges"] or node["cordoned"]
    ] == []
    assert policies(job) == ["br-vmdata-migrated"]


def test_a_policy_that_somebody_edits_meanwhile_is_not_overwritten(job: Job) -> None:
    crash_in_the_second_node(job)
    theirs = {
        "spec": {
            "desiredState": {
                "ovn": {"bridge-mappings": [{"localnet": "vmnet", "bridge": "br-vmdata", "state": "present"}]}
            }
        }
    }
    with job.world() as world:
        world.tick(10)
        world.edit().cluster.write(MergePatch(Ref(*NNCP, OWN), theirs))
        world.tick(10)
        assert pairs(world, "worker-02")["vmnet"] == "br-vmdata"
    ended = job.apply()
    assert ended.code in (3, 4), ended.text
    assert "worker-02/prove" in ended.err, ended.err
    with job.world() as world:
        assert pairs(world, "worker-02")["vmnet"] == "br-vmdata"
        assert world.show()["nodes"]["worker-02"]["cordoned"]


def test_an_enactment_deleted_by_hand_is_said_and_can_be_mended(job: Job) -> None:
    crash_in_the_second_node(job)
    with job.world() as world:
        world.tick(10)
        world.controllers_off("nmstate-operator")
        world.edit().cluster.write(Delete(Ref(*NNCE, f"worker-02.{OWN}")))
    ended = job.apply()
    assert ended.code == 3, ended.text
    assert f"policy {OWN} on worker-02" in ended.err
    assert f"`oc delete nncp {OWN}`" in ended.err


def test_a_handler_that_never_comes_is_waited_for_and_then_named(tmp_path: Path) -> None:
    job = site(tmp_path / "job")
    crashed = job.apply(boundary=kill_when(*FIRST_NODE_DONE))
    assert crashed.code == -9
    with job.world() as world:
        world.controllers_off("nmstate-operator")
    ended = job.apply()
    assert ended.code == 3, ended.text
    assert "worker-02/remap/vmnet" in ended.err and f"policy {OWN}" in ended.err
    assert OWN not in policies(job), "a policy that nobody has enacted is not left to strike later"
    with job.world() as world:
        shown = world.show()
        assert pairs(world, "worker-02")["vmnet"] == "br-vmdata"
    assert shown["nodes"]["worker-02"]["cordoned"] and not shown["nodes"]["worker-03"]["cordoned"]
    assert all(vm["reachable"] for vm in shown["vms"].values())


def test_a_node_that_is_deleted_stops_the_run_before_it_is_touched(job: Job) -> None:
    assert job.apply(boundary=kill_when(*FIRST_NODE_DONE)).code == -9
    delete_node(job, "worker-02")
    ended = job.apply()
    assert ended.code == 4, ended.text
    assert GONE in ended.err


def test_a_node_that_is_deleted_in_the_middle_of_its_turn_is_not_waited_for(job: Job) -> None:
    """Its handler will enact nothing any more, however long that is waited for."""
    crash_in_the_second_node(job)
    delete_node(job, "worker-02")
    began = clock(job)
    ended = job.apply()
    assert ended.code == 3, ended.text
    assert GONE in ended.err and "still waiting [6" not in ended.out
    assert clock(job) - began < 60


GONE = "worker-02 is not a node of the cluster any more. For good: `ovsplan abandon`, then plan anew"


def delete_node(job: Job, name: str) -> None:
    with job.world() as world:
        world.edit().cluster.write(Delete(Ref("v1", "Node", name)))


def clock(job: Job) -> float:
    with job.world() as world:
        return world.clock.now()


def test_a_new_label_meanwhile_applies_everything_anew_and_harms_nothing(job: Job) -> None:
    crash_in_the_second_node(job)
    with job.world() as world:
        for node in ("worker-01", "worker-02"):
            world.edit().cluster.write(
                MergePatch(Ref("v1", "Node", node), {"metadata": {"labels": {"zone": "b"}}})
            )
        world.tick(30)
    well_done(job, job.apply())


def test_a_policy_that_comes_back_after_it_was_withdrawn_is_told(job: Job) -> None:
    with job.world() as world:
        (old,) = world.cluster.list(*NNCP).items
    assert job.apply(boundary=kill_when("step-done", 2)).code == -9
    body: dict[str, Any] = {"metadata": {"name": "br-vmdata"}, "spec": old["spec"]}
    with job.world() as world:
        world.edit().cluster.write(Create(Ref(*NNCP, "br-vmdata"), body))
        world.tick(30)
    ended = job.apply()
    assert ended.code in (3, 4), ended.text
    assert "policy/br-vmdata" in ended.err or "policy br-vmdata" in ended.err


def test_a_gateway_that_answers_no_ping_costs_time_and_nothing_else(tmp_path: Path) -> None:
    folder = ROOT / "examples" / "nncp"
    document = yaml.safe_load((folder / "world.yaml").read_text())
    document["spec"]["probes"] = {"gateway": "down"}
    job = job_of(tmp_path / "job", document, {"vmnet.yaml": (folder / "hot" / "vmnet.yaml").read_text()})
    well_done(job, job.apply())


def test_a_replaced_policy_that_is_back_stops_every_further_node(job: Job) -> None:
    with job.world() as world:
        (old,) = world.cluster.list(*NNCP).items
    assert job.apply(boundary=kill_when(*FIRST_NODE_DONE)).code == -9
    with job.world() as world:
        world.edit().cluster.write(
            Create(Ref(*NNCP, "br-vmdata"), {"metadata": {"name": "br-vmdata"}, "spec": old["spec"]})
        )
        world.tick(1)
    ended = job.apply()
    assert ended.code == 4, ended.text
    assert "worker-02/preflight" in ended.err and "policy/br-vmdata" in ended.err
    assert policies(job) == ["br-vmdata", "br-vmdata-migrated-worker-01"]


def role(value: str | None) -> dict[str, Any]:
    return {"metadata": {"labels": {"node-role.kubernetes.io/worker": value}}}


def test_a_node_that_joins_meanwhile_is_not_changed_at_one_stroke(tmp_path: Path) -> None:
    folder = ROOT / "examples" / "nncp"
    document = yaml.safe_load((folder / "world.yaml").read_text())
    document["spec"]["nodes"]["worker-04"] = {"ovn": "23.03.1"}
    job = job_of(tmp_path / "job", document, {"vmnet.yaml": (folder / "hot" / "vmnet.yaml").read_text()})
    with job.world() as world:
        world.edit().cluster.write(MergePatch(Ref("v1", "Node", "worker-04"), role(None)))
    assert job.apply(boundary=kill_when(*FIRST_NODE_DONE)).code == -9
    with job.world() as world:
        world.edit().cluster.write(MergePatch(Ref("v1", "Node", "worker-04"), role("")))
    ended = job.apply()
    assert ended.code == 4, ended.text
    assert "worker-04 came under policy br-vmdata-migrated" in ended.err
    with job.world() as world:
        assert pairs(world, "worker-04")["vmnet"] == "br-vmdata"
    assert "br-vmdata-migrated" not in policies(job)


def led(example: Path) -> dict[str, Any]:
    """The network of examples/half-way, by the strategy of labels."""
    by = {
        "by": "nncp",
        "policy": "br-vmdata-migrated",
        "strategy": "labelled",
        "label": "balance-slb-migrated",
    }
    (network,) = yaml.safe_load_all((example / "desired" / "vmnet.yaml").read_text())
    return {**network, "spec": {**network["spec"], "delivery": by}}


def test_a_node_that_gets_the_label_too_early_is_not_changed_before_its_turn(tmp_path: Path) -> None:
    example = ROOT / "examples" / "half-way"
    document = yaml.safe_load((example / "world.yaml").read_text())
    job = job_of(tmp_path / "job", document, {"vmnet.yaml": yaml.safe_dump(led(example))})
    assert job.apply(boundary=kill_when("step-done", 1)).code == -9
    with job.world() as world:
        early = {"metadata": {"labels": {"balance-slb-migrated": "mapped"}}}
        world.edit().cluster.write(MergePatch(Ref("v1", "Node", "worker-03"), early))
    ended = job.apply()
    assert ended.code == 4, ended.text
    assert "worker-03 came under policy br-vmdata-migrated-mapping" in ended.err
    with job.world() as world:
        assert pairs(world, "worker-03")["vmnet"] == "br-vmdata"
    assert "br-vmdata-migrated-mapping" not in policies(job)


def test_a_policy_of_somebody_elses_with_our_name_is_left_alone(job: Job) -> None:
    theirs = {"ovn": {"bridge-mappings": [{"localnet": "storage", "bridge": "br-phy", "state": "present"}]}}
    spec = {"nodeSelector": {"kubernetes.io/hostname": "worker-02"}, "desiredState": theirs}
    with job.world() as world:
        world.edit().cluster.write(
            Create(Ref(*NNCP, OWN), {"metadata": {"labels": {"team": "storage"}}, "spec": spec})
        )
        world.tick(30)
    ended = job.apply()
    assert ended.code == 7, ended.text
    assert f"policy {OWN} is there, and ovsplan did not make it" in " ".join(ended.out.split())
    with job.world() as world:
        kept = world.cluster.get(Ref(*NNCP, OWN))
    assert kept is not None and kept["spec"] == spec and kept["metadata"]["labels"] == {"team": "storage"}


def test_another_name_for_the_policy_takes_the_policies_of_the_abandoned_run_along(job: Job) -> None:
    crash_in_the_second_node(job)
    assert OWN in policies(job) and "br-vmdata-migrated-worker-01" in policies(job)
    assert job.run("abandon", job.latest().id, "--reason", "another name").code == 0
    with job.world() as world:
        world.tick(10)
        for node in world.show()["nodes"]:
            world.edit().cluster.write(MergePatch(Ref("v1", "Node", node), {"spec": {"unschedulable": None}}))
    desired = job.folder / "vmnet.yaml"
    desired.write_text(desired.read_text().replace("policy: br-vmdata-migrated", "policy: vmnet"))
    planned = job.run("plan")
    assert f"- policy/{OWN}: map vmnet to br-phy" in planned.out
    ended = job.apply()
    assert ended.code == 0, ended.text
    assert policies(job) == ["vmnet"]
    with job.world() as world:
        assert all(pairs(world, node)["vmnet"] == "br-phy" for node in world.show()["nodes"])
    assert "No changes." in job.run("plan").out


def kubelet_goes(job: Job) -> None:
    """A handler's probe fails from now on: it rolls NetworkManager back, and not the mapping, and tries again."""
    ready = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    with job.world() as world:
        world.edit().cluster.write(MergePatch(Ref("v1", "Node", "worker-01"), ready, subresource="status"))


CORDONED = ("step-done", 4)


def test_an_attempt_that_fails_is_told_at_once_and_leaves_the_vms_their_path(job: Job) -> None:
    ended = job.apply(boundary=at(*CORDONED, lambda: kubelet_goes(job)))
    assert ended.code == 3, ended.text
    told = [line for line in ended.out.splitlines() if "attempt 1 of 5 failed" in line]
    assert "still waiting [24" in told[0], "the handler's probes take 240 s"
    assert "attempt 1 of 5 failed, its handler tries again; vmnet is mapped to br-phy" in ended.err
    with job.world() as world:
        assert pairs(world, "worker-01")["vmnet"] == "br-phy"
        assert all(vm["reachable"] for vm in world.show()["vms"].values())
    assert OWN.replace("02", "01") not in policies(job)


@pytest.mark.parametrize("ovn", ["23.03.1", "25.03.0"])
def test_vms_that_go_dark_while_a_handler_tries_again_are_not_left_so(ovn: str, tmp_path: Path) -> None:
    job = site(tmp_path / "job", ovn=ovn)
    gone: list[str] = []

    def uplink_goes(_: str) -> None:
        if gone or list(Job(Path.cwd()).steps())[-1:] != ["worker-01/remap/vmnet"]:
            return
        if [event.label for event in Job(Path.cwd()).events("worker-01/remap/vmnet")][-1:] == ["enacted"]:
            gone.append("br-phy")
            with job.world() as world:
                for nic in ("ens33", "ens34"):
                    world.set_nic("worker-01", nic, "down")

    def meanwhile(name: str) -> None:
        first(name)
        uplink_goes(name)

    first = at(*CORDONED, lambda: kubelet_goes(job))
    ended = job.apply(boundary=meanwhile)
    assert ended.code == 4, ended.text
    assert "still waiting" not in ended.out, "the handler would be tried for minutes"
    assert "bridge br-phy on worker-01 has no uplink" in ended.err and "mapped to br-vmdata" in ended.err
    with job.world() as world:
        assert pairs(world, "worker-01")["vmnet"] == "br-vmdata"
        world.tick(10)
        assert all(vm["reachable"] for vm in world.show()["vms"].values())
    assert [label for label in labels(job) if label.startswith("rescue:announce:")], "a VM may be silent"
    assert "rescue" not in ended.err and "without network" not in ended.err


def labels(job: Job) -> list[str]:
    return [event.label for event in job.events("worker-01/remap/vmnet")]


def test_what_is_left_of_the_cluster_is_named_after_a_plan_of_one_node(job: Job) -> None:
    assert job.run("plan", "--node", "worker-01", "--out", "p.json").code == 0
    ended = job.run("apply", "p.json", "--auto-approve")
    assert ended.code == 3, ended.text
    assert "Not all that is declared was done: policy/br-vmdata-migrated was blocked" in ended.err


def test_with_the_hazard_accepted_the_nodes_that_have_the_label_are_awaited_before_any_turn(
    tmp_path: Path,
) -> None:
    """H07: they move when the policy is written; the next node is not begun while one of them is under way."""
    example = ROOT / "examples" / "half-way"
    document = yaml.safe_load((example / "world.yaml").read_text())
    document["spec"]["nodes"]["worker-03"]["labels"]["balance-slb-migrated"] = "mapped"
    job = job_of(tmp_path / "job", document, {"vmnet.yaml": yaml.safe_dump(led(example))})
    ended = job.apply("--accept-hazard", "H07")
    assert ended.code == 3, ended.text  # worker-03 is left out, and with it the end
    assert "before the first node 1 VM (default/sensor-1)" in ended.out
    awaited = "waiting for: policy br-vmdata-migrated-mapping enacted on worker-03"
    assert ended.out.index(awaited) < ended.out.index("worker-02/preflight")
    with job.world() as world:
        assert {node: pairs(world, node)["vmnet"] for node in world.show()["nodes"]} == dict.fromkeys(
            world.show()["nodes"], "br-phy"
        )
