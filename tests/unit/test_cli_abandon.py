"""Giving a run up: what it leaves in the cluster is named, and the command that stands there takes it away."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from cases.test_cases import load
from crash.lives import ROOT, Boundary, Ended, Job, job_of, kill_when, live
from support.planning import world_spec
from twin.test_twin_canary import CANARY
from twin.test_twin_canary import job as emptied
from twin.test_twin_reboot import ASKED, job_with

from providers.ports import Create, MergePatch, Ref
from unit.test_cli_apply_networks import ATTACHED, NOTE, get, job_for, somebody, vm_ref

POLICY = ("nmstate.io/v1", "NodeNetworkConfigurationPolicy")
MANUAL = {"vms": {"default/web-1": {"runStrategy": "Manual"}}}
VERIFIED = ("step-done", 8)
WITHDRAWN = ("step-done", 2)
UNCORDON = ("oc adm uncordon worker-01; oc annotate node worker-01 ovsplan.io/cordoned-by-",)


def nncp(folder: Path) -> Job:
    """The nodes of an example whose bridge a policy made, emptied before they are changed."""
    example = ROOT / "examples" / "nncp"
    files = {path.name: path.read_text() for path in (example / "cold").glob("*.yaml")}
    return job_of(folder / "job", yaml.safe_load((example / "world.yaml").read_text()), files)


def case(folder: Path, name: str) -> Job:
    found = load(name)
    return job_of(folder / "job", world_spec(found["world"]), {"desired.yaml": found["desired"]})


def policies(job: Job) -> dict[str, dict[str, Any]]:
    with job.world() as world:
        return {one["metadata"]["name"]: one for one in world.cluster.list(*POLICY).items}


def given_up(job: Job, boundary: Boundary) -> Ended:
    """What `abandon` says of a run that was killed at a commit."""
    assert job.apply(boundary=boundary).code == -9
    ended = job.run("abandon", job.latest().id)
    assert ended.code == 0, ended.text
    return ended


def follows(ended: Ended, beginning: str, *commands: str) -> str:
    """The line that begins so, after which exactly these commands stand."""
    lines = ended.out.splitlines()
    (at,) = [n for n, line in enumerate(lines) if line.startswith(beginning)]
    after = [line for line in lines[at + 1 : at + 2 + len(commands)] if line.startswith("  ")]
    assert after == [f"  {command}" for command in commands], ended.out
    return lines[at]


def test_what_a_run_has_moved_exported_and_made_is_named_with_what_takes_it_back(tmp_path: Path) -> None:
    job = nncp(tmp_path)
    original = policies(job)["br-vmdata"]
    ended = given_up(job, kill_when(*VERIFIED))
    follows(
        ended,
        "VMs that this run took off worker-01.",
        "virtctl migrate -n default web-1 --addedNodeSelector kubernetes.io/hostname=worker-01",
    )
    back = f"ovsplan show {job.latest().id} --export policy/br-vmdata"
    told = follows(ended, "Policy br-vmdata was exported and deleted", f"{back} | oc create -f -")
    assert "nothing has come in its place" in told
    assert "undoes what was done on worker-01 (H04)" in told and "worker-02" not in told
    told = follows(ended, "Made by this run for one node each", "oc delete nncp br-vmdata-migrated-worker-01")
    assert "the next run of the same files" in told
    assert follows(ended, "worker-01 may still be cordoned", *UNCORDON)

    printed = live(job.folder, *back.split()[1:]).wait()
    with job.world() as world:
        world.edit().cluster.write(Create(Ref(*POLICY, "br-vmdata"), json.loads(printed.out)))
    assert policies(job)["br-vmdata"]["spec"] == original["spec"]
    status = job.run("status").out
    assert f"    {back} | oc create -f -" in status and "virtctl migrate" in status


def test_before_any_node_is_changed_the_old_policy_can_come_back_and_changes_nothing(tmp_path: Path) -> None:
    ended = given_up(nncp(tmp_path), kill_when(*WITHDRAWN))
    told = follows(
        ended,
        "Policy br-vmdata was exported",
        *[line.strip() for line in ended.out.splitlines() if "--export" in line],
    )
    assert "changes nothing: no node of it was changed yet" in told
    assert (
        "virtctl migrate" not in ended.out and "cordon" not in ended.out and "one node each" not in ended.out
    )


def test_a_policy_that_the_run_adopted_is_told_with_what_it_was(tmp_path: Path) -> None:
    job = case(tmp_path, "policy/half-way-by-hand")
    before = policies(job)["br-vmdata-migrated"]
    plan = json.loads(job.run("plan", "--json").out)
    last = len(plan["actions"]) - 1
    ended = given_up(job, kill_when("step-done", last))
    back = f"ovsplan show {job.latest().id} --export policy/br-vmdata-migrated"
    told = follows(ended, "Policy br-vmdata-migrated was there before this run", f"{back} | oc replace -f -")
    assert "has replaced its spec" in told
    assert json.loads(live(job.folder, *back.split()[1:]).wait().out)["spec"] == before["spec"]
    assert policies(job)["br-vmdata-migrated"]["spec"] != before["spec"]
    assert "one node each" not in ended.out, "the run has dropped them itself"


def test_the_label_that_a_node_has_on_its_way_is_told_and_who_leads_it_on(tmp_path: Path) -> None:
    job, labelled = case(tmp_path, "policy/labelled"), "balance-slb-migrated=mapped"

    def when_mapped(name: str) -> None:
        if name == "step-done" and list(Job(Path.cwd()).steps())[-1].endswith("/remap/vmnet"):
            kill_when(name, 1)(name)

    ended = given_up(job, when_mapped)
    (line,) = [line for line in ended.out.splitlines() if labelled in line]
    assert line.endswith("the next run of the same files leads it on.")
    assert "oc delete nncp" in ended.out and "one node each" not in ended.out


def test_a_policy_that_was_never_there_has_no_export(tmp_path: Path) -> None:
    job = nncp(tmp_path)
    assert job.apply(boundary=kill_when(*WITHDRAWN)).code == -9
    ended = live(job.folder, "show", job.latest().id, "--export", "policy/br-date").wait()
    assert ended.code == 1
    assert "no export of policy br-date; there were: br-vmdata" in ended.err


def test_a_canary_that_still_stands_is_told(tmp_path: Path) -> None:
    job = emptied(tmp_path, CANARY)
    job.fault("cluster * create Pod *}", 1, "kill-after")
    assert job.apply().code == -9
    ended = job.run("abandon", job.latest().id)
    with job.world() as world:
        labels = {"app.kubernetes.io/managed-by": "ovsplan"}
        (pod,) = [p["metadata"]["name"] for p in world.cluster.list("v1", "Pod", labels=labels).items]
    told = follows(
        ended, f"Canary pod default/{pod} may still be on worker-01", f"oc delete pod {pod} -n default"
    )
    assert "the next run of the same files takes it away" in told


def test_the_note_of_a_restart_is_told(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job")
    job.fault(f"shell worker-01 {ASKED}", 1, "kill-after")
    assert job.apply().code == -9
    ended = job.run("abandon", job.latest().id)
    follows(
        ended,
        "worker-01 may still have the annotation ovsplan.io/reboot",
        "oc annotate node worker-01 ovsplan.io/reboot-",
    )


@pytest.fixture
def started(tmp_path: Path) -> Job:
    """A job whose run died when a VM was started again, and had not its run strategy back."""
    job = job_for(tmp_path, ATTACHED, MANUAL)
    job.fault('cluster - patch VirtualMachine default/web-1 *"Manual"*', 1, "kill")
    assert job.apply().code == -9
    vm = get(job, vm_ref("web-1"))
    assert (vm["spec"]["runStrategy"], vm["metadata"]["annotations"][NOTE]) == (
        "Always",
        "runStrategy=Manual",
    )
    return job


def test_a_vm_without_its_run_strategy_is_told_with_what_gives_it_back(started: Job) -> None:
    ended = started.run("abandon", started.latest().id)
    patch = {"metadata": {"annotations": {NOTE: None}}, "spec": {"runStrategy": "Manual"}}
    follows(
        ended,
        "VM default/web-1 was started again, and may not have its run strategy back",
        f"oc patch vm web-1 -n default --type merge -p '{json.dumps(patch)}'",
    )
    assert "virtctl start" not in ended.out, "it runs"


def test_with_a_target_a_vm_that_has_it_back_by_now_is_told_no_more(started: Job) -> None:
    patch = {"metadata": {"annotations": {NOTE: None}}, "spec": {"runStrategy": "Manual"}}
    somebody(started, MergePatch(vm_ref("web-1"), patch))
    ended = live(started.folder, "abandon", started.latest().id, "--twin", "world").wait()
    assert ended.code == 0 and "web-1" not in ended.out, ended.text


def test_the_copy_of_a_run_whose_state_database_is_lost_tells_of_the_stopped_vm(
    tmp_path: Path,
) -> None:
    job = job_for(tmp_path, ATTACHED, MANUAL)
    job.fault("cluster - patch VirtualMachine default/web-1 *template*", 1, "fail")
    job.fault("cluster - patch VirtualMachine default/web-1 *Always*", 1, "kill")
    assert job.apply().code == -9
    run = job.latest().id
    shutil.rmtree(job.state.parent)
    ended = live(job.folder, "abandon", run, "--twin", "world").wait()
    assert ended.code == 0, ended.text
    assert "VM default/web-1 was stopped by this run, and not started again" in ended.out, ended.text


def test_a_run_that_left_nothing_says_nothing_of_it(tmp_path: Path) -> None:
    ended = given_up(nncp(tmp_path), kill_when("step-done", 1))
    assert ended.out.splitlines()[0].endswith("is abandoned. Nothing was undone.")
    assert len(ended.out.splitlines()) == 2, ended.out
