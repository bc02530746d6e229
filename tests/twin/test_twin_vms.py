"""Virtual machines that start, stop and are evicted, and the networks their NADs make or don't."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from providers.ports import Busy, Create, Delete, JsonPatch, MergePatch, NotFound, Ref, Refused
from providers.twin import TwinWorld, WorldError
from twin.worlds import KUBEVIRT, TALKER, make, migrate, phase, spec, vmi

TALKER_VM = Ref(KUBEVIRT, "VirtualMachine", "talker", "default")
TALKER_VMI = Ref(KUBEVIRT, "VirtualMachineInstance", "talker", "default")
NADS = "k8s.cni.cncf.io/v1"


def vm(world: TwinWorld, name: str = "talker", namespace: str = "default") -> Any:
    return world.cluster.get(Ref(KUBEVIRT, "VirtualMachine", name, namespace))


def run(world: TwinWorld, strategy: str, ref: Ref = TALKER_VM) -> None:
    world.cluster.write(MergePatch(ref, {"spec": {"runStrategy": strategy}}))


def printable(world: TwinWorld, name: str = "talker") -> str:
    return str(vm(world, name)["status"]["printableStatus"])


def launchers(world: TwinWorld, name: str = "talker", namespace: str = "default") -> list[Any]:
    labels = {"kubevirt.io": "virt-launcher", "vm.kubevirt.io/name": name}
    return list(world.cluster.list("v1", "Pod", namespace=namespace, labels=labels).items)


def evict(world: TwinWorld, pod: Any, *, dry_run: bool = False) -> Any:
    metadata = pod["metadata"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": metadata["name"]}}
    ref = Ref("v1", "Pod", metadata["name"], metadata["namespace"])
    return world.cluster.write(Create(ref, body, subresource="eviction"), dry_run=dry_run)


def ask(world: TwinWorld, action: str) -> None:
    found = vmi(world, "talker")
    request = {"action": action, **({"uid": found["metadata"]["uid"]} if found and action == "Stop" else {})}
    patch = {"status": {"stateChangeRequests": [request]}}
    world.cluster.write(MergePatch(TALKER_VM, patch, subresource="status"))


def test_a_halted_vm_shuts_down_and_comes_back_with_its_address(world: TwinWorld) -> None:
    run(world, "Halted")
    assert printable(world) == "Stopping"
    assert launchers(world)
    world.tick(5)
    assert (vmi(world, "talker"), launchers(world), printable(world)) == (None, [], "Stopped")
    assert world.reachable("default/talker")[0] is False
    run(world, "Always")
    assert printable(world) == "Starting"
    world.tick(10)
    assert printable(world) == "Running"
    found = vmi(world, "talker")
    (pod,) = launchers(world)
    assert found["status"]["nodeName"] == pod["spec"]["nodeName"]
    assert found["status"]["activePods"] == {pod["metadata"]["uid"]: pod["spec"]["nodeName"]}
    assert {card["name"]: card["mac"] for card in found["status"]["interfaces"]}["net"] == TALKER
    world.tick(1)
    assert world.reachable("default/talker") == (True, "")


def test_a_vm_starts_on_a_node_that_takes_it(world: TwinWorld) -> None:
    world.cluster.write(MergePatch(Ref("v1", "Node", "worker-01"), {"spec": {"unschedulable": True}}))
    run(world, "Halted")
    world.tick(5)
    run(world, "Always")
    world.tick(10)
    assert vmi(world, "talker")["status"]["nodeName"] == "worker-02"
    migrate(world, "silent", "m")
    world.tick(10)
    assert phase(world, "m") == "Succeeded"


def test_a_vm_that_fits_nowhere_says_so_and_starts_when_it_fits(world: TwinWorld) -> None:
    for node in ("worker-01", "worker-02"):
        world.cluster.write(MergePatch(Ref("v1", "Node", node), {"spec": {"unschedulable": True}}))
    run(world, "Halted")
    world.tick(5)
    run(world, "Always")
    world.tick(30)
    assert printable(world) == "ErrorUnschedulable"
    world.cluster.write(MergePatch(Ref("v1", "Node", "worker-02"), {"spec": {"unschedulable": None}}))
    world.tick(10)
    assert printable(world) == "Running"


@pytest.mark.parametrize(
    ("strategy", "ended", "comes_back"),
    [
        ("Always", "Succeeded", True),
        ("Always", "Failed", True),
        ("RerunOnFailure", "Failed", True),
        ("RerunOnFailure", "Succeeded", False),
        ("Once", "Failed", False),
        ("Manual", "Succeeded", False),
    ],
)
def test_what_a_run_strategy_makes_of_a_guest_that_ended(
    world: TwinWorld, strategy: str, ended: str, comes_back: bool
) -> None:
    run(world, strategy)
    before = vmi(world, "talker")["metadata"]["uid"]
    world.cluster.write(MergePatch(TALKER_VMI, {"status": {"phase": ended}}))
    world.tick(30)
    after = vmi(world, "talker")
    restarted = after is not None and after["metadata"]["uid"] != before
    assert restarted is comes_back


def test_a_manual_vm_does_what_it_is_asked_to(world: TwinWorld) -> None:
    run(world, "Manual")
    ask(world, "Stop")
    world.tick(5)
    assert (vmi(world, "talker"), printable(world)) == (None, "Stopped")
    assert "stateChangeRequests" not in vm(world)["status"]
    world.tick(60)
    assert vmi(world, "talker") is None
    ask(world, "Start")
    world.tick(10)
    assert printable(world) == "Running"
    assert "stateChangeRequests" not in vm(world)["status"]


def test_another_network_in_the_template_needs_a_restart(world: TwinWorld) -> None:
    networks = vm(world)["spec"]["template"]["spec"]["networks"]
    changed = [networks[0], {"name": "net", "multus": {"networkName": "default/other"}}]
    operation = {"op": "replace", "path": "/spec/template/spec/networks", "value": changed}
    world.cluster.write(JsonPatch(TALKER_VM, (operation,)))
    conditions = {c["type"]: c["status"] for c in vm(world)["status"]["conditions"]}
    assert conditions == {"Ready": "True", "RestartRequired": "True"}
    assert vmi(world, "talker")["spec"]["networks"] == networks
    world.cluster.write(Delete(TALKER_VMI))
    world.tick(20)
    assert vmi(world, "talker")["spec"]["networks"] == changed
    assert [c["type"] for c in vm(world)["status"]["conditions"]] == ["Ready"]


def test_a_vm_says_running_or_run_strategy(world: TwinWorld) -> None:
    with pytest.raises(Refused, match="mutually exclusive"):
        world.cluster.write(MergePatch(TALKER_VM, {"spec": {"running": True}}))
    operation = {"op": "remove", "path": "/spec/template/spec/networks/1"}
    with pytest.raises(Refused, match=r"interfaces\[1\]\.name 'net' not found"):
        world.cluster.write(JsonPatch(TALKER_VM, (operation,)))


def test_a_deleted_vm_takes_its_instance_along(world: TwinWorld) -> None:
    world.cluster.write(Delete(TALKER_VM))
    world.tick(5)
    assert vmi(world, "talker") is None
    assert launchers(world) == []


def test_a_world_holds_vms_that_are_halted_and_instances_without_a_vm(tmp_path: Path) -> None:
    vms = {
        "default/off": {"runStrategy": "Halted", "networks": {"net": {"nad": "default/vlan224"}}},
        "default/bare": {"node": "worker-01", "vm": False},
    }
    with make(tmp_path / "world", vms=vms) as world:
        assert (vmi(world, "off"), printable(world, "off")) == (None, "Stopped")
        assert vm(world, "bare") is None
        assert vmi(world, "bare")["status"]["phase"] == "Running"
        world.cluster.write(Delete(Ref(KUBEVIRT, "VirtualMachineInstance", "bare", "default")))
        world.tick(60)
        assert vmi(world, "bare") is None
        run(world, "Always", Ref(KUBEVIRT, "VirtualMachine", "off", "default"))
        world.tick(11)
        assert world.reachable("default/off") == (True, "")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"vms": {"default/a": {"node": "worker-01", "runStrategy": "Sometimes"}}}, "runStrategy"),
        ({"vms": {"default/a": {"runStrategy": "Always"}}}, "node"),
        ({"vms": {"default/a": {"node": "worker-01", "evictionStrategy": "Fly"}}}, "evictionStrategy"),
        ({"apis": {"nmstate": "maybe"}}, "apis"),
        ({"apis": {"kubevirt": "absent"}}, "vms"),
    ],
)
def test_a_world_file_that_is_wrong_names_the_field(
    tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(WorldError, match=field):
        make(tmp_path / "world", **changes)


def test_evicting_a_guest_that_can_move_migrates_it(world: TwinWorld) -> None:
    (pod,) = launchers(world)
    with pytest.raises(Busy, match='Eviction triggered evacuation of VMI "default/talker"'):
        evict(world, pod, dry_run=True)
    assert "evacuationNodeName" not in vmi(world, "talker")["status"]
    with pytest.raises(Busy):
        evict(world, pod)
    assert vmi(world, "talker")["status"]["evacuationNodeName"] == "worker-01"
    (move,) = world.cluster.list(KUBEVIRT, "VirtualMachineInstanceMigration").items
    assert move["metadata"]["name"].startswith("kubevirt-evacuation-")
    world.tick(10)
    found = vmi(world, "talker")["status"]
    assert found["nodeName"] == "worker-02"
    assert "evacuationNodeName" not in found
    with pytest.raises(NotFound):
        evict(world, pod)


def blocked(folder: Path, strategy: str) -> TwinWorld:
    talker = spec()["vms"]["default/talker"]
    stays = {
        **talker,
        "migratable": "DisksNotLiveMigratable: PVC a is not shared",
        "evictionStrategy": strategy,
    }
    return make(folder, vms={"default/talker": stays})


def test_evicting_a_guest_that_must_move_and_cannot_is_put_off_for_ever(tmp_path: Path) -> None:
    with blocked(tmp_path / "world", "LiveMigrate") as world:
        (pod,) = launchers(world)
        with pytest.raises(Busy, match="configured with an eviction strategy but is not live-migratable"):
            evict(world, pod)
        world.tick(600)
        assert vmi(world, "talker")["status"]["nodeName"] == "worker-01"


def test_evicting_a_guest_that_need_not_move_shuts_it_down(tmp_path: Path) -> None:
    with blocked(tmp_path / "world", "LiveMigrateIfPossible") as world:
        before = vmi(world, "talker")["metadata"]["uid"]
        world.cluster.write(MergePatch(Ref("v1", "Node", "worker-01"), {"spec": {"unschedulable": True}}))
        (pod,) = launchers(world)
        assert evict(world, pod)["status"] == "Success"
        world.tick(30)
        after = vmi(world, "talker")
        assert after["metadata"]["uid"] != before
        assert after["status"]["nodeName"] == "worker-02"
        assert {c["type"]: c["status"] for c in after["status"]["conditions"]}["LiveMigratable"] == "False"


def test_an_evacuation_that_fails_is_tried_again(world: TwinWorld) -> None:
    world.cluster.write(MergePatch(Ref("v1", "Node", "worker-02"), {"spec": {"unschedulable": True}}))
    (pod,) = launchers(world)
    with pytest.raises(Busy):
        evict(world, pod)
    world.tick(310)
    moves = world.cluster.list(KUBEVIRT, "VirtualMachineInstanceMigration").items
    assert sorted(m["status"]["phase"] for m in moves) == ["Failed", "Scheduling"]
    world.cluster.write(MergePatch(Ref("v1", "Node", "worker-02"), {"spec": {"unschedulable": None}}))
    world.tick(30)
    assert vmi(world, "talker")["status"]["nodeName"] == "worker-02"


def put_pod(world: TwinWorld) -> Any:
    ref = Ref("v1", "Pod", "web", "default")
    body = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    return world.cluster.write(Create(ref, body))


def put_budget(world: TwinWorld, status: dict[str, Any] | None = None) -> None:
    ref = Ref("policy/v1", "PodDisruptionBudget", "pdb", "default")
    world.cluster.write(
        Create(ref, {"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}})
    )
    if status is not None:
        world.cluster.write(MergePatch(ref, {"status": status}, subresource="status"))


def test_a_pod_without_a_budget_is_evicted(world: TwinWorld) -> None:
    pod = put_pod(world)
    assert evict(world, pod, dry_run=True)["status"] == "Success"
    assert world.cluster.get(Ref("v1", "Pod", "web", "default")) is not None
    assert evict(world, pod)["status"] == "Success"
    assert world.cluster.get(Ref("v1", "Pod", "web", "default")) is None


def test_a_budget_that_nobody_has_counted_puts_an_eviction_off(world: TwinWorld) -> None:
    pod = put_pod(world)
    put_budget(world)
    with pytest.raises(
        Busy, match="The disruption budget pdb is still being processed by the server"
    ) as busy:
        evict(world, pod)
    assert busy.value.retry_after == 10


def test_a_budget_allows_as_many_evictions_as_it_says(world: TwinWorld) -> None:
    pod = put_pod(world)
    counted = {"observedGeneration": 1, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
    put_budget(world, {**counted, "disruptionsAllowed": 0})
    with pytest.raises(Busy, match="The disruption budget pdb needs 1 healthy pods and has 1 currently"):
        evict(world, pod)
    ref = Ref("policy/v1", "PodDisruptionBudget", "pdb", "default")
    world.cluster.write(MergePatch(ref, {"status": {"disruptionsAllowed": 1}}, subresource="status"))
    evict(world, pod)
    budget = world.cluster.get(ref)
    assert budget is not None
    assert budget["status"]["disruptionsAllowed"] == 0


LOCALNET = {
    "cniVersion": "0.4.0",
    "name": "vlan300",
    "type": "ovn-k8s-cni-overlay",
    "topology": "localnet",
    "netAttachDefName": "default/vlan300",
    "physicalNetworkName": "vmnet",
    "vlanID": 300,
}


def warnings(world: TwinWorld) -> list[str]:
    events = world.cluster.list("v1", "Event", fields={"reason": "InvalidConfig", "type": "Warning"}).items
    return [str(event["message"]).removeprefix("Failed to parse network config: ") for event in events]


def put_nad(world: TwinWorld, config: object, name: str = "vlan300") -> None:
    text = config if isinstance(config, str) else json.dumps(config)
    world.cluster.write(
        Create(Ref(NADS, "NetworkAttachmentDefinition", name, "default"), {"spec": {"config": text}})
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "default"}, "invalid name in in secondary network netconf (default)"),
        ({"netAttachDefName": ""}, "missing NADName in secondary network netconf"),
        (
            {"netAttachDefName": "default/other"},
            "net-attach-def name (default/vlan300) is inconsistent with config (default/other)",
        ),
        ({"role": "primary"}, 'unexpected network field "role"'),
        ({"ipam": {"type": "dhcp"}}, "IPAM key is not supported"),
        ({"vlanID": "300"}, "json: cannot unmarshal string into Go struct field NetConf.vlanID of type int"),
        (
            {"subnets": "192.0.2.0/24", "excludeSubnets": "198.51.100.0/28"},
            "the provided network subnets 192.0.2.0/24 do not contain excluded subnets 198.51.100.0/28",
        ),
        (
            {"name": "vlan224", "vlanID": 225},
            "NAD default/vlan300 CNI config does not match that of network vlan224",
        ),
    ],
)
def test_a_nad_that_ovn_kubernetes_cannot_use_gets_a_warning(
    world: TwinWorld, change: dict[str, Any], words: str
) -> None:
    put_nad(world, {**LOCALNET, **change})
    (said,) = warnings(world)
    assert words in said


def test_a_good_nad_or_another_plugins_gets_none(world: TwinWorld) -> None:
    put_nad(world, LOCALNET)
    put_nad(world, {"type": "bridge", "name": "default"}, "foreign")
    assert warnings(world) == []
    put_nad(world, "{", "broken")
    (said,) = warnings(world)
    assert said.startswith("error parsing Network Attachment Definition default/broken: ")


def test_a_vm_on_a_nad_that_is_not_there_waits_for_it(world: TwinWorld) -> None:
    run(world, "Halted")
    world.tick(30)
    world.cluster.write(Delete(Ref(NADS, "NetworkAttachmentDefinition", "vlan224", "default")))
    run(world, "Always")
    world.tick(60)
    waiting = vmi(world, "talker")
    assert launchers(world) == [] and world.reachable("default/talker")[0] is False
    assert waiting["status"]["phase"] == "Pending"
    said = {c["type"]: c.get("message", "") for c in waiting["status"]["conditions"]}
    assert said["Synchronized"].endswith("failed to locate network attachment definition default/vlan224")
    put_nad(world, {**LOCALNET, "name": "vlan224", "netAttachDefName": "default/vlan224"}, "vlan224")
    world.tick(60)
    assert vmi(world, "talker")["status"]["phase"] == "Running"


def test_a_pod_on_a_nad_that_is_not_there_waits_for_it(world: TwinWorld) -> None:
    ref = Ref("v1", "Pod", "canary", "default")
    asked = {"k8s.v1.cni.cncf.io/networks": "vlan300"}
    spec = {"nodeName": "worker-01", "containers": [{"name": "a", "image": "a"}]}
    world.cluster.write(Create(ref, {"metadata": {"annotations": asked}, "spec": spec}))
    world.tick(10)
    pod = world.cluster.get(ref)
    assert pod is not None and pod["status"]["phase"] == "Pending"
    reasons = {e["reason"] for e in world.cluster.list("v1", "Event", namespace="default").items}
    assert {"NoNetworkFound", "FailedCreatePodSandBox"} <= reasons
    put_nad(world, LOCALNET)
    world.tick(10)
    pod = world.cluster.get(ref)
    assert pod is not None and pod["status"]["phase"] == "Running"


def test_multus_keeps_a_foreign_network_from_a_pod_when_it_isolates(tmp_path: Path) -> None:
    nads = {"nets/vlan224": {"localnet": "vmnet", "vlan": 224, "mtu": 9000}}
    vms = {"vms/a": {"runStrategy": "Halted", "networks": {"net": {"nad": "nets/vlan224"}}}}
    for isolation in (True, False):
        with make(tmp_path / str(isolation), networks=nads, vms=vms, multusIsolation=isolation) as world:
            run(world, "Always", Ref(KUBEVIRT, "VirtualMachine", "a", "vms"))
            world.tick(30)
            assert (vmi(world, "a", "vms")["status"]["phase"] == "Running") is not isolation
            said = [event["message"] for event in world.cluster.list("v1", "Event", namespace="vms").items]
            assert any("namespace isolation enabled" in message for message in said) is isolation
