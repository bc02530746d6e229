"""Applies that make networks, attach VMs and change where MetalLB announces, on a whole twin.

Invariant: what is asserted is read from the cluster afterwards, or from the log of what was asked of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from crash.lives import Job, is_done, is_mutating, job_of, kill_at, kill_when
from support.planning import world_spec

from providers.ports import Create, Delete, MergePatch, Ref

NOTE = "ovsplan.io/run-strategy"
MAPPED = {"nodeDefaults": {"mappings": "physnet:br-ex,vmnet:br-phy,storage:br-storage"}}
VMNETWORK = """\
apiVersion: ovsplan.io/v1alpha1
kind: VMNetwork
metadata: {name: vmnet}
spec:
  bridge: br-phy
"""
NETWORK = f"{VMNETWORK}  networks: {{default/vlan101: {{vlan: 101, mtu: 9000}}}}\n"
ATTACHED = f"{NETWORK}  attachments: {{default/web-1: {{net2: default/vlan101}}}}\n"


def job_for(folder: Path, text: str, world: Mapping[str, Any] | None = None) -> Job:
    return job_of(folder / "job", world_spec({**MAPPED, **(world or {})}), {"network.yaml": text})


def vm_ref(name: str) -> Ref:
    return Ref("kubevirt.io/v1", "VirtualMachine", name, "default")


def nad_ref(name: str) -> Ref:
    return Ref("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", name, "default")


def advertisement(name: str = "l2-adv") -> Ref:
    return Ref("metallb.io/v1beta1", "L2Advertisement", name, "metallb-system")


def get(job: Job, ref: Ref) -> Any:
    with job.world() as world:
        return world.cluster.get(ref)


def somebody(job: Job, *writes: Create | Delete | MergePatch) -> None:
    """What others do to the cluster."""
    with job.world() as world:
        for write in writes:
            world.edit().cluster.write(write)
        world.tick(1.0)


def guest(job: Job, name: str) -> Any:
    return get(job, Ref("kubevirt.io/v1", "VirtualMachineInstance", name, "default"))


def cards(spec: Mapping[str, Any]) -> dict[str, str]:
    return {n["name"]: n["multus"]["networkName"] for n in spec["networks"] if "multus" in n}


def written(job: Job, kind: str) -> list[tuple[str, dict[str, Any]]]:
    """The writes of a kind that took effect: whose, and what."""
    found = []
    for call in job.log():
        words = call.text.split(" ")
        if call.port == "cluster" and is_mutating(call) and is_done(call) and words[0] == kind:
            found.append((words[1], json.loads(call.text[call.text.index("{") :])))
    return found


@pytest.mark.parametrize("strategy", ["Always", "Manual", "Once", "RerunOnFailure"])
def test_a_running_vm_has_its_card_and_runs_as_before(strategy: str, tmp_path: Path) -> None:
    job = job_for(tmp_path, ATTACHED, {"vms": {"default/web-1": {"runStrategy": strategy}}})
    before = guest(job, "web-1")["metadata"]["uid"]
    assert job.apply().code == 0
    vm, vmi = get(job, vm_ref("web-1")), guest(job, "web-1")
    assert (vm["spec"].get("runStrategy"), "running" in vm["spec"]) == (strategy, False)
    assert NOTE not in vm["metadata"].get("annotations", {})
    assert cards(vmi["spec"]) == {"vlan224-net": "default/vlan224", "net2": "default/vlan101"}
    assert vmi["status"]["phase"] == "Running" and vmi["metadata"]["uid"] != before
    again = job.apply()
    assert again.code == 0 and "No changes." in again.out, again.text


def test_a_vm_that_uses_running_never_gets_a_run_strategy(tmp_path: Path) -> None:
    job = job_for(tmp_path, ATTACHED)
    somebody(job, MergePatch(vm_ref("web-1"), {"spec": {"running": True, "runStrategy": None}}))
    assert job.apply().code == 0
    vm = get(job, vm_ref("web-1"))
    assert (vm["spec"].get("running"), "runStrategy" in vm["spec"]) == (True, False)
    assert guest(job, "web-1")["status"]["phase"] == "Running"


@pytest.mark.parametrize("strategy", ["Halted", "Manual"])
def test_a_vm_that_does_not_run_is_edited_and_not_started(strategy: str, tmp_path: Path) -> None:
    vms = {"default/web-1": {"runStrategy": "Halted", "node": None}}
    job = job_for(tmp_path, ATTACHED, {"vms": vms})
    somebody(job, MergePatch(vm_ref("web-1"), {"spec": {"runStrategy": strategy}}))
    assert job.apply().code == 0
    vm = get(job, vm_ref("web-1"))
    assert vm["spec"]["runStrategy"] == strategy and guest(job, "web-1") is None
    assert "net2" in cards(vm["spec"]["template"]["spec"])
    assert len(written(job, "VirtualMachine")) == 1


def test_what_else_the_template_says_survives_the_edit(tmp_path: Path) -> None:
    job = job_for(tmp_path, ATTACHED)
    before = get(job, vm_ref("web-1"))["spec"]["template"]["spec"]
    assert job.apply().code == 0
    after = get(job, vm_ref("web-1"))["spec"]["template"]["spec"]
    assert after["networks"][:2] == before["networks"]
    devices, were = after["domain"].pop("devices"), before["domain"].pop("devices")
    assert devices["interfaces"] == [*were["interfaces"], {"name": "net2", "bridge": {}}]
    assert after["domain"] == before["domain"]


def test_one_vm_is_up_again_before_the_next_is_stopped(tmp_path: Path) -> None:
    two = "{default/web-1: {net2: default/vlan101}, default/web-2: {net2: default/vlan101}}"
    job = job_for(tmp_path, f"{NETWORK}  attachments: {two}\n")
    assert job.apply().code == 0
    assert [name for name, _ in written(job, "VirtualMachine")] == ["default/web-1"] * 3 + [
        "default/web-2"
    ] * 3


def test_a_card_that_is_declared_absent_goes(tmp_path: Path) -> None:
    job = job_for(
        tmp_path, f"{VMNETWORK}  attachments: {{default/web-1: {{vlan224-net: {{state: absent}}}}}}\n"
    )
    assert job.apply().code == 0
    assert cards(get(job, vm_ref("web-1"))["spec"]["template"]["spec"]) == {}
    assert cards(guest(job, "web-1")["spec"]) == {}


def test_the_undo_of_a_removed_card_brings_its_address_back(tmp_path: Path) -> None:
    job = job_for(
        tmp_path, f"{VMNETWORK}  attachments: {{default/web-1: {{vlan224-net: {{state: absent}}}}}}\n"
    )
    assert job.run("plan", "--out", "plan.json").code == 0
    plan = json.loads((job.folder / "plan.json").read_text())
    (action,) = [a for a in plan["actions"] if a["routine"] == "attach@1"]
    assert any("02:00:00:00:e0:0b" in command for command in action["undo_commands"])


def test_a_vm_that_a_dead_run_holds_stopped_is_told_with_what_starts_it(tmp_path: Path) -> None:
    job = job_for(tmp_path, ATTACHED, {"vms": {"default/web-1": {"runStrategy": "Manual"}}})
    job.fault("cluster - patch VirtualMachine default/web-1 *template*", 1, "kill")
    assert job.apply().code == -9
    told = "VM default/web-1 was stopped by this run, and not started again"
    patch = {"metadata": {"annotations": {NOTE: None}}, "spec": {"runStrategy": "Manual"}}
    command = f"oc patch vm web-1 -n default --type merge -p '{json.dumps(patch)}'; virtctl start web-1"
    status = job.run("status").out
    assert told in status and command in status, status
    gone = job.run("abandon", job.latest().id)
    assert gone.code == 0 and told in gone.out and command in gone.out, gone.text
    somebody(job, MergePatch(vm_ref("web-1"), {**patch, "spec": {"runStrategy": "Always"}}))
    assert told not in job.run("status").out


def test_a_vm_is_started_again_when_its_edit_fails(tmp_path: Path) -> None:
    job = job_for(tmp_path, ATTACHED, {"vms": {"default/web-1": {"runStrategy": "Manual"}}})
    job.fault("cluster - patch VirtualMachine default/web-1 *template*", 1, "fail")
    ended = job.apply()
    assert ended.code == 3, ended.text
    vm = get(job, vm_ref("web-1"))
    assert vm["spec"]["runStrategy"] == "Manual" and NOTE not in vm["metadata"].get("annotations", {})
    assert guest(job, "web-1")["status"]["phase"] == "Running"
    assert job.apply().code == 0
    assert "net2" in cards(guest(job, "web-1")["spec"])


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_a_vm_is_not_stopped_for_a_network_that_is_gone_or_another(how: str, tmp_path: Path) -> None:
    job = job_for(tmp_path, ATTACHED)
    assert job.apply(boundary=kill_when("step-begun", 3)).code == -9
    nad, uid = get(job, nad_ref("vlan101")), guest(job, "web-1")["metadata"]["uid"]
    other = {"spec": {"config": nad["spec"]["config"].replace('"vlanID": 101', '"vlanID": 102')}}
    somebody(job, Delete(nad_ref("vlan101")) if how == "gone" else MergePatch(nad_ref("vlan101"), other))
    ended = job.apply()
    told = {
        "gone": "web-1 cannot start without network default/vlan101",
        "changed": "somebody has changed network default/vlan101 since the plan",
    }
    assert ended.code == 4 and told[how] in ended.err, ended.text
    assert guest(job, "web-1")["metadata"]["uid"] == uid and written(job, "VirtualMachine") == []
    recap = ended.out[ended.out.index("Recap") :]
    assert "the cluster  failed" in recap and "stopped at attachment/default/web-1/attach: " in recap, recap
    back = {"spec": nad["spec"]}
    ref = nad_ref("vlan101")
    somebody(job, Create(ref, back) if how == "gone" else MergePatch(ref, back))
    assert job.apply().code == 0
    assert "net2" in cards(guest(job, "web-1")["spec"])


def test_a_vm_is_not_stopped_again_for_a_network_that_went_after_a_failure(tmp_path: Path) -> None:
    job = job_for(tmp_path, ATTACHED)
    job.fault("cluster - patch VirtualMachine default/web-1 *template*", 1, "fail")
    assert job.apply().code == 3
    uid = guest(job, "web-1")["metadata"]["uid"]
    somebody(job, Delete(nad_ref("vlan101")))
    ended = job.apply()
    assert (
        ended.code == 4 and "web-1 was not stopped: expected: nad/default/vlan101 is present" in ended.err
    ), ended.text
    assert guest(job, "web-1")["metadata"]["uid"] == uid


@pytest.mark.parametrize("n", range(3, 31, 3))
def test_killed_at_any_commit_it_is_done_once_and_to_its_end(n: int, tmp_path: Path) -> None:
    job = job_for(tmp_path, ATTACHED, {"vms": {"default/web-1": {"runStrategy": "Manual"}}})
    assert job.apply(boundary=kill_at(n)).code == -9
    ended = job.apply()
    assert ended.code == 0, ended.text
    vm = get(job, vm_ref("web-1"))
    assert vm["spec"]["runStrategy"] == "Manual" and NOTE not in vm["metadata"].get("annotations", {})
    assert "net2" in cards(guest(job, "web-1")["spec"])
    assert len(written(job, "VirtualMachine")) == 4  # stop, edit, start, restore: none of them twice


def test_a_lost_journal_does_not_lose_how_a_stopped_vm_ran(tmp_path: Path) -> None:
    job = job_for(tmp_path, ATTACHED, {"vms": {"default/web-1": {"runStrategy": "Once"}}})

    def die_when_stopped(boundary: str) -> None:
        if boundary == "outcome" and NOTE in _annotations(job, "web-1"):
            kill_when("outcome", 1)(boundary)

    assert job.apply(boundary=die_when_stopped).code == -9
    assert get(job, vm_ref("web-1"))["spec"]["runStrategy"] == "Halted"
    shutil.rmtree(job.state.parent)
    with job.world() as world:  # the copy in the cluster is lost with it
        for secret in world.cluster.list("v1", "Secret").items:
            metadata = secret["metadata"]
            world.edit().cluster.write(Delete(Ref("v1", "Secret", metadata["name"], metadata["namespace"])))
    ended = job.apply()
    assert ended.code == 0, ended.text
    vm = get(job, vm_ref("web-1"))
    assert vm["spec"]["runStrategy"] == "Once" and NOTE not in vm["metadata"].get("annotations", {})
    assert "net2" in cards(guest(job, "web-1")["spec"])


def _annotations(job: Job, name: str) -> Mapping[str, str]:
    found: Mapping[str, str] = get(job, vm_ref(name))["metadata"].get("annotations") or {}
    return found


@pytest.mark.parametrize(
    ("note", "now", "after"),
    [
        ("running=true", {"runStrategy": "Halted"}, {"runStrategy": "Always"}),
        ("runStrategy=Manual", {"running": False, "runStrategy": None}, {"runStrategy": "Manual"}),
        ("runStrategy=Always", {"running": False, "runStrategy": None}, {"running": True}),
    ],
)
def test_a_stopped_vm_that_somebody_moved_to_the_other_field_is_restored_all_the_same(
    note: str, now: dict[str, Any], after: dict[str, Any], tmp_path: Path
) -> None:
    job = job_for(tmp_path, ATTACHED, {"vms": {"default/web-1": {"runStrategy": "Halted", "node": None}}})
    somebody(job, MergePatch(vm_ref("web-1"), {"metadata": {"annotations": {NOTE: note}}, "spec": now}))
    ended = job.apply()
    assert ended.code == 0, ended.text
    vm = get(job, vm_ref("web-1"))
    assert {field: vm["spec"][field] for field in ("running", "runStrategy") if field in vm["spec"]} == after
    assert NOTE not in _annotations(job, "web-1")
    assert guest(job, "web-1")["status"]["phase"] == "Running"


def test_a_run_strategy_that_changed_since_the_plan_stops_the_run_untouched(tmp_path: Path) -> None:
    job = job_for(tmp_path, ATTACHED)
    assert job.run("plan", "--out", "plan.json").code == 0
    somebody(job, MergePatch(vm_ref("web-1"), {"spec": {"runStrategy": "Manual"}}))
    ended = job.apply("plan.json")
    assert ended.code == 4 and "somebody has changed its run strategy" in ended.text
    assert written(job, "VirtualMachine") == []


def test_a_new_network_is_applied_as_ovsplans_own(tmp_path: Path) -> None:
    job = job_for(tmp_path, NETWORK)
    assert job.apply().code == 0
    made = get(job, nad_ref("vlan101"))
    assert json.loads(made["spec"]["config"])["vlanID"] == 101
    assert {m["manager"]: m["operation"] for m in made["metadata"]["managedFields"]} == {"ovsplan": "Apply"}
    (job.folder / "network.yaml").write_text(NETWORK.replace("vlan: 101", "vlan: 102"))
    assert job.apply().code == 0
    assert json.loads(get(job, nad_ref("vlan101"))["spec"]["config"])["vlanID"] == 102


def test_an_edit_keeps_what_others_wrote_on_the_network(tmp_path: Path) -> None:
    job = job_for(tmp_path, f"{VMNETWORK}  networks: {{default/vlan224: {{vlan: 225, mtu: 9000}}}}\n")
    marks = {"k8s.ovn.org/network-name": "vlan224", "k8s.ovn.org/network-id": "7"}
    config = json.loads(get(job, nad_ref("vlan224"))["spec"]["config"]) | {"cniVersion": "1.0.0", "dns": {}}
    patch = {
        "metadata": {"annotations": marks, "labels": {"team": "net"}},
        "spec": {"config": json.dumps(config)},
    }
    somebody(job, MergePatch(nad_ref("vlan224"), patch))
    assert job.apply().code == 7
    assert job.apply("--accept-hazard", "H26").code == 0
    after = get(job, nad_ref("vlan224"))
    assert json.loads(after["spec"]["config"]) == {**config, "vlanID": 225}
    assert (after["metadata"]["annotations"], after["metadata"]["labels"]) == (marks, {"team": "net"})


def test_a_refusal_of_ovn_kubernetes_stops_the_run_with_its_words(tmp_path: Path) -> None:
    job = job_for(tmp_path, NETWORK)
    assert job.run("plan", "--out", "plan.json").code == 0
    rival = json.loads(get(job, nad_ref("vlan224"))["spec"]["config"])
    rival |= {"name": "vlan101", "netAttachDefName": "default/rival", "vlanID": 7}
    somebody(job, Create(nad_ref("rival"), {"spec": {"config": json.dumps(rival)}}))
    ended = job.apply("plan.json")
    assert ended.code == 3
    assert "OVN-Kubernetes refuses network default/vlan101" in ended.text
    assert "does not match that of network vlan101" in ended.text


def test_an_old_refusal_is_not_taken_for_one_of_this_write(tmp_path: Path) -> None:
    job = job_for(tmp_path, f"{VMNETWORK}  networks: {{default/bad: {{vlan: 7, mtu: 9000}}}}\n")
    config = {
        "type": "ovn-k8s-cni-overlay",
        "topology": "localnet",
        "name": "bad",
        "physicalNetworkName": "vmnet",
    }
    somebody(job, Create(nad_ref("bad"), {"spec": {"config": json.dumps(config)}}))
    with job.world() as world:
        assert "InvalidConfig" in [e["reason"] for e in world.cluster.list("v1", "Event").items]
    ended = job.apply()
    assert ended.code == 0, ended.text


def test_a_network_that_somebody_begins_to_use_is_not_removed(tmp_path: Path) -> None:
    job = job_for(tmp_path, f"{VMNETWORK}  networks: {{default/spare: {{state: absent}}}}\n")
    config = json.loads(get(job, nad_ref("vlan224"))["spec"]["config"])
    config |= {"name": "spare", "netAttachDefName": "default/spare"}
    somebody(job, Create(nad_ref("spare"), {"spec": {"config": json.dumps(config)}}))
    assert job.run("plan", "--out", "plan.json").code == 0
    template = get(job, vm_ref("web-1"))["spec"]["template"]["spec"]
    template["networks"].append({"name": "net2", "multus": {"networkName": "spare"}})
    template["domain"]["devices"]["interfaces"].append({"name": "net2", "bridge": {}})
    somebody(job, MergePatch(vm_ref("web-1"), {"spec": {"template": {"spec": template}}}))
    ended = job.apply("plan.json")
    assert ended.code == 4 and "in use by VMs default/web-1" in ended.text
    assert get(job, nad_ref("spare")) is not None


def test_a_network_is_made_after_every_node_is_mapped(tmp_path: Path) -> None:
    mapped = {"nodeDefaults": {"mappings": "physnet:br-ex,vmnet:br-vmdata,storage:br-storage"}}
    job = job_for(tmp_path, f"{NETWORK}  replaces: {{bridge: br-vmdata}}\n", mapped)
    assert job.apply().code == 0
    log = [call for call in job.log() if is_mutating(call) and is_done(call)]
    made = next(i for i, call in enumerate(log) if call.text.startswith("NetworkAttachmentDefinition"))
    assert made > max(i for i, call in enumerate(log) if call.port == "ovsdb")


def advertise(job: Job, *interfaces: str) -> None:
    somebody(job, Create(advertisement(), {"spec": {"interfaces": list(interfaces)}}))


def test_metallb_never_announces_everywhere_and_always_somewhere(tmp_path: Path) -> None:
    text = f"{VMNETWORK}  l2Advertisements: {{metallb-system/l2-adv: [br-ex]}}\n"
    job = job_for(tmp_path, text, {"apis": {"metallb": "present"}})
    advertise(job, "bond0.100")
    assert job.apply().code == 0
    lists = [patch["spec"]["interfaces"] for _, patch in written(job, "L2Advertisement")]
    assert lists == [["bond0.100", "br-ex"], ["br-ex"]]
    assert get(job, advertisement())["spec"]["interfaces"] == ["br-ex"]


def test_an_interface_that_somebody_adds_meanwhile_is_not_dropped_unseen(tmp_path: Path) -> None:
    text = f"{VMNETWORK}  l2Advertisements: {{metallb-system/l2-adv: [br-ex]}}\n"
    job = job_for(tmp_path, text, {"apis": {"metallb": "present"}})
    advertise(job, "bond0.100")
    assert job.run("plan", "--out", "plan.json").code == 0
    somebody(job, MergePatch(advertisement(), {"spec": {"interfaces": ["bond0.100", "eth9"]}}))
    assert job.apply("plan.json").code == 4
    assert get(job, advertisement())["spec"]["interfaces"] == ["bond0.100", "eth9"]
