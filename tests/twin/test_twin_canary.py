"""Emptied nodes in the twin: canaries that prove them, VMs that leave by a restart, pods that are evicted.

Each job is applied as the program does it, in processes of its own that can be killed.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from crash.lives import ROOT, Ended, Job, job_of, kill_when
from crash.others import small_world

from providers.ports import MergePatch, Ref
from twin.worlds import KUBEVIRT

NETWORK = """\
apiVersion: ovsplan.io/v1alpha1
kind: VMNetwork
metadata: {{name: vmnet}}
spec:
  bridge: br-phy
  replaces: {{bridge: br-vmdata}}
  networks: {{default/vlan224: {{vlan: 224, mtu: 9000{gateway}}}}}
"""
ROLLOUT = """\
apiVersion: ovsplan.io/v1alpha1
kind: Rollout
metadata: {{name: tonight}}
spec: {{{spec}}}
"""
CANARY = "evacuate: {}, proof: {canary: {image: tools}}"
KILLED = -signal.SIGKILL
BUDGET = Ref("policy/v1", "PodDisruptionBudget", "web", "default")


def job(folder: Path, rollout: str, *, asks: str = "", answers: str = "", **world: Any) -> Job:
    """A job; `asks`: the gateway that is declared, `answers`: the one that is there."""
    network = {"localnet": "vmnet", "vlan": 224, "mtu": 9000, **({"gateway": answers} if answers else {})}
    spec = small_world(networks={"default/vlan224": network}, **world)
    gateway = f", gateway: {asks}" if asks else ""
    texts = {"network.yaml": NETWORK.format(gateway=gateway), "rollout.yaml": ROLLOUT.format(spec=rollout)}
    return job_of(folder / "job", spec, texts)


def canaries(made: Job) -> list[str]:
    labels = {"app.kubernetes.io/managed-by": "ovsplan"}
    with made.world() as world:
        found = world.cluster.list("v1", "Pod", labels=labels).items
        return [pod["metadata"]["name"] for pod in found]


def calls(made: Job, *words: str) -> list[str]:
    told = [f"{call.port} {call.verb} {call.text}" for call in made.log()]
    return [call for call in told if all(word in call for word in words)]


def created(made: Job) -> int:
    """How many canaries were really made: the rehearsal of a plan asks for each as well."""
    return len([call for call in calls(made, "cluster create Pod") if call.endswith("}")])


def test_a_canary_is_seen_and_asks_the_gateway_before_anybody_returns(tmp_path: Path) -> None:
    made = job(tmp_path, CANARY, asks="192.0.2.1", answers="192.0.2.1")
    ended = made.apply()
    assert ended.code == 0, ended.text
    assert "192.0.2.1 answers in default/vlan224 (VLAN 224)" in ended.out
    assert "worker-01/prove" not in ended.out, "the wire is proven: no VM has to go first"
    assert canaries(made) == [] and created(made) == 2
    log = [f"{call.port} {call.verb} {call.text}" for call in made.log()]
    gone = next(i for i, call in enumerate(log) if call.startswith("cluster delete Pod"))
    uncordoned = next(i for i, call in enumerate(log) if '"unschedulable":null' in call)
    assert gone < uncordoned
    assert "not proven" not in made.run("status").out
    with made.world() as world:
        assert all(world.reachable(vm)[0] for vm in small_world()["vms"])


def test_without_a_gateway_the_first_vm_that_returns_proves_the_wire(tmp_path: Path) -> None:
    made = job(tmp_path, CANARY)
    ended = made.apply()
    assert ended.code == 0, ended.text
    assert "seen: a canary on default/vlan224" in ended.out
    assert "returns first, pinned to worker-01" in ended.out
    assert canaries(made) == [] and not calls(made, "add-flow")


def test_a_gateway_that_does_not_answer_keeps_the_node_cordoned_and_empty(tmp_path: Path) -> None:
    made = job(tmp_path, CANARY, asks="192.0.2.1", answers="192.0.2.254")
    ended = made.apply()
    assert ended.code == 3, ended.text
    assert "192.0.2.1 does not answer in default/vlan224 (VLAN 224) by br-phy of worker-01" in ended.err
    assert canaries(made) == []
    with made.world() as world:
        shown = world.show()
        assert shown["nodes"]["worker-01"]["cordoned"]
        assert shown["vms"]["default/talker-1"]["node"] == "worker-02"


@pytest.mark.parametrize("effect", ["kill", "kill-after"])
@pytest.mark.parametrize(
    "call",
    ["cluster * create Pod *}", "shell * add-flow *", "shell * packet-out *", "cluster * delete Pod *"],
)
def test_killed_while_the_canary_stands_the_next_apply_removes_it(
    call: str, effect: str, tmp_path: Path
) -> None:
    made = job(tmp_path, CANARY, asks="192.0.2.1", answers="192.0.2.1")
    made.fault(call, 1, effect)
    ended = made.apply()
    assert ended.code == KILLED, ended.text
    again = made.apply()
    assert again.code == 0, again.text
    assert canaries(made) == []


def test_a_canary_of_a_run_that_was_given_up_goes_before_the_next_one(tmp_path: Path) -> None:
    made = job(tmp_path, CANARY, asks="192.0.2.1", answers="192.0.2.1")
    made.fault("shell * packet-out *", 1, "kill")
    assert made.apply().code == KILLED
    assert len(canaries(made)) == 1
    assert made.run("abandon", made.latest().id).code == 0
    with made.world() as world:
        node = Ref("v1", "Node", "worker-01")
        world.cluster.write(MergePatch(node, {"spec": {"unschedulable": None}}))
    ended = made.apply()
    assert ended.code == 0, ended.text
    assert "remove canaries that an earlier run left" in ended.out
    assert canaries(made) == []


def test_a_node_that_was_cordoned_since_the_plan_stops_the_first_that_counted_on_it(tmp_path: Path) -> None:
    made = job(tmp_path, "evacuate: {}", nodes={"worker-01": {}, "worker-02": {}, "worker-03": {}})
    assert made.run("plan", "--out", "tonight.plan").code == 0
    with made.world() as world:
        world.cluster.write(MergePatch(Ref("v1", "Node", "worker-03"), {"spec": {"unschedulable": True}}))
    ended = made.apply("tonight.plan")
    assert ended.code == 4, ended.text
    assert "cordoned since the plan" in ended.err and "worker-03" in ended.err
    assert not [
        call for call in calls(made, '"unschedulable":true') if "ovsplan.io" in call and "dry run" not in call
    ]


MAC = "0a:58:87:fb:b8:27"
FRAME = "ffffffffffff0a5887fbb827080600010800060400010a5887fbb82700000000000000000000c00002"
DUMP = ("ovs-ofctl", "dump-flows", "br-phy", "cookie=0x6f7673706c616e/-1")


def test_answers_of_the_gateway_alone_are_counted(tmp_path: Path) -> None:
    made = job(tmp_path, CANARY, answers="192.0.2.1")
    with made.world() as world:
        shell = world.shell("worker-01")

        def ask(last: int) -> None:
            flow = f"arp,dl_vlan=224,arp_op=2,arp_spa=192.0.2.{last},dl_dst={MAC},actions=normal"
            head = "cookie=0x6f7673706c616e,hard_timeout=120,priority=65000,"
            assert shell.run(("ovs-ofctl", "add-flow", "br-phy", head + flow), timeout=5).rc == 0
            packet = f"in_port=1 packet={FRAME}{last:02x} actions=mod_vlan_vid:224,normal"
            assert shell.run(("ovs-ofctl", "packet-out", "br-phy", packet), timeout=5).rc == 0

        ask(1)
        ask(9)
        _, *lines = shell.run(DUMP, timeout=5).out.splitlines()
        assert [line.partition("table=0, ")[2] for line in lines] == [
            f"n_packets={n}, n_bytes={n * 46}, hard_timeout=120, idle_age=0, priority=65000,arp,dl_vlan=224,"
            f"dl_dst={MAC},arp_spa=192.0.2.{last},arp_op=2 actions=NORMAL"
            for last, n in ((1, 1), (9, 0))
        ]
        world.set_nic("worker-01", "ens33", "down")
        world.set_nic("worker-01", "ens34", "down")
        ask(1)
        assert "n_packets=1" not in shell.run(DUMP, timeout=5).out
        world.tick(121)
        assert shell.run(DUMP, timeout=5).out.splitlines() == ["NXST_FLOW reply (xid=0x4):"]


RESTART = "evacuate: {vms: {default/talker-1: restart}}"
STUBBORN = {"migratable": "DisksNotLiveMigratable: PVC data is not shared", "runStrategy": "RerunOnFailure"}


def restarting(folder: Path) -> Job:
    vms = small_world()["vms"]
    vms["default/talker-1"] |= STUBBORN
    return job(folder, RESTART, vms=vms)


def stands(made: Job, name: str) -> tuple[Any, Any, Any]:
    """Run strategy, what is noted on the VM, and whether its guest runs."""
    with made.world() as world:
        vm = world.cluster.get(Ref(KUBEVIRT, "VirtualMachine", name, "default"))
        vmi = world.cluster.get(Ref(KUBEVIRT, "VirtualMachineInstance", name, "default"))
    assert vm is not None
    noted = vm["metadata"].get("annotations", {}).get("ovsplan.io/run-strategy")
    return vm["spec"].get("runStrategy"), noted, vmi is not None and vmi["status"]["phase"] == "Running"


def test_a_vm_that_cannot_migrate_is_restarted_off_each_node_and_runs_as_before(tmp_path: Path) -> None:
    made = restarting(tmp_path)
    ended = made.apply()
    assert ended.code == 0, ended.text
    assert "restarted elsewhere: default/talker-1" in ended.out
    assert stands(made, "talker-1") == ("RerunOnFailure", None, True)
    with made.world() as world:
        assert world.reachable("default/talker-1") == (True, "")


@pytest.mark.parametrize("nth", range(1, 4))
@pytest.mark.parametrize("effect", ["kill", "kill-after"])
def test_killed_in_the_middle_of_a_restart_the_vm_is_started_again(
    nth: int, effect: str, tmp_path: Path
) -> None:
    made = restarting(tmp_path)
    made.fault("cluster * patch VirtualMachine *}", nth, effect)
    ended = made.apply()
    assert ended.code == KILLED, ended.text
    again = made.apply()
    assert again.code == 0, again.text
    assert stands(made, "talker-1") == ("RerunOnFailure", None, True)


def test_after_a_failure_no_vm_is_left_stopped(tmp_path: Path) -> None:
    made = restarting(tmp_path)
    made.fault("cluster * patch VirtualMachine *}", 2, "fail")
    ended = made.apply()
    assert ended.code == 3, ended.text
    assert stands(made, "talker-1") == ("RerunOnFailure", None, True)


def anybody(folder: Path, rollout: str, *, unmovable: bool = False) -> Job:
    """A job whose VMs leave by a restart although nobody names them."""
    spec = small_world()
    for vm in spec["vms"].values():
        vm |= STUBBORN if unmovable else {}
    return job(folder, rollout, vms=spec["vms"])


def restarted(made: Job) -> int:
    return len(calls(made, "patch VirtualMachine ", "Halted"))


@pytest.mark.parametrize("more", ["return: none", "return: none, reboot: true", "return: origin"])
@pytest.mark.parametrize("unmovable", [False, True])
def test_vms_that_the_run_itself_restarted_onto_the_next_node_leave_that_by_a_restart_too(
    more: str, unmovable: bool, tmp_path: Path
) -> None:
    made = anybody(tmp_path, f"evacuate: {{default: restart, {more}}}", unmovable=unmovable)
    ended = made.apply()
    assert ended.code == 0, ended.text
    with made.world() as world:
        vms = world.show()["vms"]
    assert all(vm["reachable"] for vm in vms.values()), vms
    assert {stands(made, key.partition("/")[2])[1:] for key in vms} == {(None, True)}
    assert restarted(made) > (0 if "origin" in more else len(vms))
    back = calls(made, "create VirtualMachineInstanceMigration")
    assert bool(back) is ("origin" in more and not unmovable), back


def test_a_vm_whose_node_somebody_cordoned_does_not_come_back_and_is_restarted_off_the_next_node(
    tmp_path: Path,
) -> None:
    example = ROOT / "examples" / "uplink-alive"
    world = yaml.safe_load((example / "world.yaml").read_text())
    rollout = ROLLOUT.format(spec="evacuate: {default: restart}")
    network = (example / "cold" / "vmnet.yaml").read_text().partition("---")[0]
    made = job_of(tmp_path / "job", world, {"vmnet.yaml": network, "rollout.yaml": rollout})
    ended = made.apply("--accept-hazard", "H14")
    assert ended.code == 0, ended.text
    with made.world() as world:
        vms = world.show()["vms"]
    assert all(vm["reachable"] for vm in vms.values()) and vms["default/web-3"]["node"] != "worker-03", vms


@pytest.mark.parametrize("nth", range(1, 8))
@pytest.mark.parametrize("effect", ["kill", "kill-after"])
def test_killed_while_it_restarts_a_vm_that_came_meanwhile_that_is_started_again(
    nth: int, effect: str, tmp_path: Path
) -> None:
    made = anybody(tmp_path, "evacuate: {default: restart, return: none}")
    made.fault("cluster * patch VirtualMachine *}", nth, effect)
    assert made.apply().code == KILLED
    again = made.apply()
    assert again.code == 0, again.text
    with made.world() as world:
        vms = world.show()["vms"]
    assert {stands(made, key.partition("/")[2])[1:] for key in vms} == {(None, True)}
    assert all(vm["reachable"] for vm in vms.values()), vms


OWNER = [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": True}]
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web-1", "namespace": "default", "labels": {"app": "web"}, "ownerReferences": OWNER},
    "spec": {"nodeName": "worker-01", "containers": [{"name": "web", "image": "web"}]},
}
PDB = {
    "apiVersion": "policy/v1",
    "kind": "PodDisruptionBudget",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 1},
}


def pods(made: Job) -> list[str]:
    with made.world() as world:
        return [p["metadata"]["name"] for p in world.cluster.list("v1", "Pod", labels={"app": "web"}).items]


def allow(made: Job, number: int) -> None:
    status = {"disruptionsAllowed": number, "observedGeneration": 1}
    running = {"status": {"phase": "Running"}}
    with made.world() as world:
        world.cluster.write(MergePatch(BUDGET, {"status": status}, subresource="status"))
        if pods(made):
            # A budget protects only what runs.
            world.cluster.write(
                MergePatch(Ref("v1", "Pod", "web-1", "default"), running, subresource="status")
            )


def test_pods_leave_only_when_the_rollout_says_so(tmp_path: Path) -> None:
    stays = job(tmp_path / "a", "evacuate: {}", objects=[POD])
    assert stays.apply().code == 0 and pods(stays) == ["web-1"]
    leaves = job(tmp_path / "b", "evacuate: {pods: evict}", objects=[POD])
    ended = leaves.apply()
    assert ended.code == 0, ended.text
    assert pods(leaves) == [] and "1 pod(s) evicted" in ended.out


def test_a_budget_that_says_no_is_waited_for_and_told_and_never_overridden(tmp_path: Path) -> None:
    made = job(tmp_path, "evacuate: {pods: evict}", objects=[POD, PDB])
    allow(made, 0)
    ended: Ended = made.apply()
    assert ended.code == 3, ended.text
    assert "pod default/web-1 may not be evicted" in ended.err
    assert "Cannot evict pod as it would violate the pod's disruption budget" in ended.err
    assert pods(made) == ["web-1"]
    allow(made, 1)
    again = made.apply()
    assert again.code == 0, again.text
    assert pods(made) == []


def test_killed_between_two_requests_the_eviction_goes_on(tmp_path: Path) -> None:
    made = job(tmp_path, "evacuate: {pods: evict}", objects=[POD, PDB])
    allow(made, 0)
    made.fault("cluster * create Pod default/web-1*}", 3, "kill-after")
    assert made.apply().code == KILLED
    allow(made, 1)
    assert made.apply().code == 0
    assert pods(made) == []


def test_killed_at_any_commit_of_the_canary_the_end_is_the_same(tmp_path: Path) -> None:
    made = job(tmp_path, CANARY, asks="192.0.2.1", answers="192.0.2.1")
    for nth in (8, 9, 10):
        code = made.apply(boundary=kill_when("intent", nth)).code
        assert code in (KILLED, 0)
    assert made.apply().code == 0
    assert canaries(made) == []


def daemon_of(node: str, image: str) -> dict[str, Any]:
    """OVN-Kubernetes' pod on a node, as it has run there for long."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"ovnkube-node-{node}",
            "namespace": "openshift-ovn-kubernetes",
            "labels": {"app": "ovnkube-node"},
        },
        "spec": {"nodeName": node, "containers": [{"name": "ovn-controller", "image": image}]},
        "status": {"phase": "Running"},
    }


def test_without_a_named_image_a_canary_is_of_one_that_is_on_its_node_already(tmp_path: Path) -> None:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "openshift-ovn-kubernetes"}}
    objects = [space, daemon_of("worker-01", "ovn:1"), daemon_of("worker-02", "ovn:2")]
    made = job(tmp_path, "evacuate: {}, proof: {canary: {}}", objects=objects)
    ended = made.apply()
    assert ended.code == 0, ended.text
    put = [call for call in calls(made, "cluster create Pod", "canary") if call.endswith("}")]
    assert ['"image":"ovn:1"' in put[0], '"image":"ovn:2"' in put[1], len(put)] == [True, True, 2]
    assert canaries(made) == []


def test_without_any_image_nothing_is_begun(tmp_path: Path) -> None:
    made = job(tmp_path, "evacuate: {}, proof: {canary: {}}")
    ended = made.apply()
    assert ended.code == 1, ended.text
    assert "none can be told that is on worker-01 already" in " ".join(ended.err.split())
    assert "rollout.yaml:4" in ended.err
    assert not calls(made, "cluster patch")
