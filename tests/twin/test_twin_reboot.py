"""Reboots: what the twin makes of one, and a whole apply that reboots each node that it emptied."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from crash.lives import ROOT, Boundary, Job, job_of

from providers.ports import Create, MergePatch, Ref, Unreachable
from providers.twin import Call, TwinWorld, open_world
from twin.worlds import KUBEVIRT, NEW, OUTER, VMI, bridge_of, carry_out, make, mapping, select

NODE = Ref("v1", "Node", "worker-01")


def daemon(app: str, node: str) -> dict[str, Any]:
    """A DaemonSet's pod on a node."""
    owner = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "name": app,
        "uid": f"{app}-uid",
        "controller": True,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{app}-{node}",
            "namespace": "default",
            "labels": {"app": app},
            "ownerReferences": [owner],
        },
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none"}]},
    }


def start(world: TwinWorld, app: str, node: str) -> Ref:
    ref = Ref("v1", "Pod", f"{app}-{node}", "default")
    world.cluster.write(Create(ref, daemon(app, node)))
    world.tick(1)
    return ref


def condition(world: TwinWorld, ref: Ref) -> tuple[str, str]:
    found = world.cluster.get(ref)
    assert found is not None
    ready = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    return str(ready["status"]), str(ready.get("lastTransitionTime", ""))


def boot_id(world: TwinWorld) -> str:
    found = world.cluster.get(NODE)
    assert found is not None
    return str(found["status"]["nodeInfo"]["bootID"])


def reboot(world: TwinWorld) -> None:
    assert world.shell("worker-01").run(["systemctl", "reboot"], timeout=10).rc == 0


def test_a_node_that_reboots_is_lost_after_forty_seconds_and_comes_back_in_steps(tmp_path: Path) -> None:
    with make(tmp_path / "world") as world:
        pod, before = start(world, "multus", "worker-01"), boot_id(world)
        reboot(world)
        with pytest.raises(Unreachable):
            select(world, "worker-01", "Bridge")
        with pytest.raises(Unreachable):
            reboot(world)
        seen = []
        for seconds in (39, 1, 79, 1, 9, 1, 19, 1):
            world.tick(seconds)
            seen.append((condition(world, NODE)[0], boot_id(world) != before, condition(world, pod)[0]))
    assert seen == [
        ("True", False, "True"),
        ("Unknown", False, "False"),
        ("Unknown", False, "False"),
        ("False", True, "False"),
        ("False", True, "False"),
        ("True", True, "False"),
        ("True", True, "False"),
        ("True", True, "True"),
    ]


def test_a_fast_reboot_never_shows_a_node_that_is_not_ready(tmp_path: Path) -> None:
    with make(tmp_path / "world", timings={"reboot": 25, "nodeReady": 0}) as world:
        before, seen = boot_id(world), set()
        reboot(world)
        for _ in range(60):
            world.tick(1)
            seen.add(condition(world, NODE)[0])
        assert boot_id(world) != before
    assert seen == {"True"}


def test_what_is_on_disk_survives_and_what_only_ran_does_not(tmp_path: Path) -> None:
    flow = f"cookie=0x1,hard_timeout=600,priority=1,arp,dl_vlan=224,arp_op=2,arp_spa=192.0.2.1,dl_dst={'02:' * 5}02,actions=normal"
    with make(tmp_path / "world", vms={}) as world:
        carry_out(world, "worker-01", mapping(NEW))
        assert world.shell("worker-01").run(["ovs-ofctl", "add-flow", "br-phy", flow], timeout=5).rc == 0
        bridges = [row["name"] for row in select(world, "worker-01", "Bridge")]
        reboot(world)
        world.tick(200)
        (root,) = select(world, "worker-01", "Open_vSwitch")
        assert dict(root["external_ids"][1])["ovn-bridge-mappings"] == NEW
        assert [row["name"] for row in select(world, "worker-01", "Bridge")] == bridges
        assert bridge_of(world, "worker-01", "patch-br-ex_worker-01-to-br-int") == "br-ex"
        dumped = world.shell("worker-01").run(
            ["ovs-ofctl", "dump-flows", "br-phy", "cookie=0x1/-1"], timeout=5
        )
        assert "cookie=0x1," not in dumped.out


def test_a_guest_that_is_left_on_the_node_dies_with_it(tmp_path: Path) -> None:
    with make(tmp_path / "world") as world:
        talker = Ref(KUBEVIRT, VMI, "talker", "default")
        assert bridge_of(world, "worker-01", OUTER) == "br-vmdata"
        before = world.cluster.get(talker)
        reboot(world)
        world.tick(60)
        after = world.cluster.get(talker)
        assert before is not None and after is not None
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        world.tick(200)
        assert bridge_of(world, "worker-01", OUTER) is None


NODES = ("worker-01", "worker-02")
DAEMONS = ("multus", "ovnkube-node")
ROLLOUT = """\
apiVersion: ovsplan.io/v1alpha1
kind: Rollout
metadata: {name: tonight}
spec:
  evacuate: {reboot: true}
"""
KILLED = -signal.SIGKILL
ASKED = "run systemctl reboot"


def job_with(folder: Path, **timings: float) -> Job:
    """Two nodes whose bridge a policy made, with daemons, and a VM beside that uses no localnet."""
    example = ROOT / "examples" / "nncp"
    world = yaml.safe_load((example / "world.yaml").read_text())
    spec = world["spec"]
    del spec["nodes"]["worker-03"], spec["vms"]["default/sensor-1"]
    spec["objects"] = [one for one in spec["objects"] if one["kind"] == "NodeNetworkConfigurationPolicy"]
    spec["vms"]["default/aside"] = {"node": "worker-01", "memory": "1Gi"}
    spec["timings"] = timings
    job = job_of(
        folder, world, {"vmnet.yaml": (example / "cold" / "vmnet.yaml").read_text(), "rollout.yaml": ROLLOUT}
    )
    with job.world() as made:
        for node in NODES:
            for app in DAEMONS:
                start(made, app, node)
    return job


def boots(job: Job) -> dict[str, str]:
    with job.world() as world:
        return {
            node["metadata"]["name"]: node["status"]["nodeInfo"]["bootID"]
            for node in world.cluster.list("v1", "Node").items
        }


def asked(job: Job) -> list[tuple[str, str]]:
    """On which node a reboot was asked for, and what came of it."""
    return [(call.node, call.outcome) for call in job.log() if f"{call.verb} {call.text}" == ASKED]


def calls_of(log: tuple[Call, ...], *parts: str) -> list[float]:
    return [call.at for call in log if all(part in f"{call.port} {call.verb} {call.text}" for part in parts)]


def assert_whole(job: Job, before: dict[str, str]) -> None:
    """Both nodes are changed, were rebooted, and nothing of the work is left on them."""
    after = boots(job)
    assert [node for node in NODES if after[node] == before[node]] == []
    with job.world() as world:
        shown = world.show()
        for node in world.cluster.list("v1", "Node").items:
            notes = node["metadata"].get("annotations") or {}
            assert [key for key in notes if key.startswith("ovsplan.io/")] == []
    assert {name: node["mapping"] for name, node in shown["nodes"].items()} == dict.fromkeys(NODES, NEW)
    assert [name for name, node in shown["nodes"].items() if node["cordoned"]] == []
    homes = {name: vm["node"] for name, vm in shown["vms"].items() if vm["reachable"]}
    assert homes == {"default/web-1": NODES[0], "default/web-2": NODES[1], "default/aside": NODES[0]}


@pytest.mark.parametrize("timings", [{}, {"reboot": 25, "nodeReady": 0}], ids=["slow", "fast"])
def test_each_emptied_node_is_rebooted_and_is_as_it_was_made(
    timings: dict[str, float], tmp_path: Path
) -> None:
    job = job_with(tmp_path / "job", **timings)
    before = boots(job)
    ended = job.apply()
    assert ended.code == 0, ended.text
    assert_whole(job, before)
    assert asked(job) == [(node, "ok") for node in NODES]
    notes = {action: step.note for action, step in job.steps().items()}
    assert notes["worker-01/reboot"].startswith(f"rebooted: boot id {before['worker-01']} before, ")
    assert notes["worker-01/settle"].startswith("2 daemon(s) Ready again; 1 policy applied again; ")
    log = job.log()
    noted = calls_of(log, "patch Node worker-01", "ovsplan.io/reboot", "heard")[0]
    (gone,) = calls_of(log, "patch Node worker-01", '"ovsplan.io/reboot":null')
    (freed,) = calls_of(log, "patch Node worker-01", '"unschedulable":null')
    went = next(call.at for call in log if call.node == "worker-01" and call.text == "systemctl reboot")
    assert noted <= went < gone <= freed
    assert gone - went > timings.get("reboot", 120) + timings.get("nodeReady", 10) + 20, (
        "the daemons were awaited"
    )


def within(action: str, nth: int) -> Boundary:
    """Die at the `nth` commit of the journal from the beginning of an action of the first node."""
    seen, inside = -1, False

    def at(name: str) -> None:
        nonlocal seen, inside
        if name == "step-begun":
            inside = is_now(action)
        seen += inside
        if inside and seen == nth:
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()

    return at


def is_now(action: str) -> bool:
    """In the child: whether the action is the last that was begun."""
    steps = Job(Path.cwd()).steps()
    return list(steps)[-1] == action


COMMITS = [("reboot", nth) for nth in range(13)] + [("settle", nth) for nth in range(8)]
"""Each time that the journal is written to in the two actions."""


@pytest.mark.parametrize("lost", [False, True], ids=["journal kept", "journal lost"])
def test_killed_at_any_moment_it_is_rebooted_once_and_all_ends_the_same(lost: bool, tmp_path: Path) -> None:
    """Each moment once: every other one with the journal lost besides."""
    wrong = {}
    for part, nth in COMMITS[int(lost) :: 2]:
        job = job_with(tmp_path / f"{part}-{nth}", reboot=45, nodeReady=5, podsReady=5)
        before = boots(job)
        first = job.apply(boundary=within(f"worker-01/{part}", nth))
        assert first.code == KILLED, (part, nth, first.text)
        if lost:
            shutil.rmtree(job.state.parent)
        second = job.apply()
        assert second.code == 0, (part, nth, second.text)
        assert_whole(job, before)
        if asked(job) != [(node, "ok") for node in NODES]:
            wrong[part, nth] = asked(job)
        shutil.rmtree(job.folder)
    assert wrong == {}


def test_killed_as_the_node_goes_down_with_its_folder_gone_it_finds_its_place(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job")
    before = boots(job)
    job.fault(f"shell worker-01 {ASKED}", 1, "kill-after")
    assert job.apply().code == KILLED
    status = job.run("status").out
    assert "6  Reboot                       begun  worker-01/reboot" in status
    assert "VMs without network now: none" in status and "Cannot tell" not in status, "no VM is on it"
    shutil.rmtree(job.state.parent)
    with job.world() as world:
        world.tick(60)
        node = world.cluster.get(NODE)
        assert node is not None and condition(world, NODE)[0] == "Unknown"
        assert json.loads(node["metadata"]["annotations"]["ovsplan.io/reboot"])["boot"] == before["worker-01"]
    ended = job.apply()
    assert ended.code == 0, ended.text
    assert_whole(job, before)
    assert len(asked(job)) == 2


def test_a_request_whose_answer_is_lost_is_not_made_again(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job")
    before = boots(job)
    job.fault(f"shell worker-01 {ASKED}", 1, "lose-reply")
    ended = job.apply()
    assert ended.code == 0, ended.text
    assert_whole(job, before)
    assert len(asked(job)) == 2


def test_a_request_that_never_arrived_is_made_again_once_the_node_has_plainly_stayed_up(
    tmp_path: Path,
) -> None:
    job = job_with(tmp_path / "job")
    before = boots(job)
    job.fault(f"shell worker-01 {ASKED}", 1, "hang")
    ended = job.apply()
    assert ended.code == 0, ended.text
    assert_whole(job, before)
    times = [call.at for call in job.log() if call.node == "worker-01" and call.text == "systemctl reboot"]
    assert len(times) == 2 and times[1] - times[0] >= 300


def test_an_api_that_answers_nothing_meanwhile_is_waited_for(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job")
    before = boots(job)

    def silence(name: str) -> None:
        if name == "intent" and is_now("worker-01/reboot") and not before.get("silenced"):
            events = Job(Path.cwd()).events("worker-01/reboot")
            if events[-1].label == "went:1":
                before["silenced"] = "yes"
                with open_world(Path("world")) as world:
                    for _ in range(120):
                        world.add_fault("cluster - list Node *worker-01", nth=1, effect="fail")

    ended = job.apply(boundary=silence)
    assert ended.code == 0, ended.text
    assert_whole(job, before)
    with job.world() as world:
        assert len([fault for fault in world.faults() if fault.fired]) == 120


def test_a_node_that_does_not_come_back_stops_the_line_and_stays_cordoned(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job", reboot=100_000)
    ended = job.apply()
    assert ended.code == 3, ended.text
    said = " ".join(ended.text.split())
    assert (
        "worker-01 went down and is not back after 30 minutes. It stays cordoned. Look at its console" in said
    )
    assert "`ovsplan apply` goes on from here" in said and "oc adm uncordon worker-01" in said
    with job.world() as world:
        shown = world.show()["nodes"]
        assert (shown["worker-01"]["cordoned"], shown["worker-02"]["cordoned"]) == (True, False)
        assert shown["worker-02"]["mapping"] != NEW
        world.tick(100_000)
    ended = job.apply()
    assert [node for node, _ in asked(job)][:1] == ["worker-01"] and asked(job).count(
        ("worker-01", "ok")
    ) == 1
    with job.world() as world:
        assert not world.show()["nodes"]["worker-01"]["cordoned"], ended.text


def test_what_did_not_survive_the_reboot_stops_the_line(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job")

    def undo(name: str) -> None:
        if name == "step-begun" and is_now("worker-01/settle"):
            with open_world(Path("world")) as world:
                carry_out(world.edit(), "worker-01", mapping("vmnet:br-phy"))

    ended = job.apply(boundary=undo)
    assert ended.code == 3, ended.text
    said = " ".join(ended.text.split())
    assert "not as before the reboot within 15 minutes" in said
    assert "node/worker-01/ovs/mappings is not as expected: physnet" in said
    with job.world() as world:
        assert world.show()["nodes"]["worker-01"]["cordoned"]


def test_a_daemon_that_is_not_ready_again_is_named(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job", podsReady=5_000)
    ended = job.apply()
    assert ended.code == 3, ended.text
    assert "multus of worker-01 is not Ready since the reboot" in " ".join(ended.text.split())


def test_a_vm_that_was_told_to_stay_is_an_error_at_its_line(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job")
    stays = ROLLOUT.replace("{reboot: true}", "{reboot: true, vms: {default/aside: stay}}")
    (job.folder / "rollout.yaml").write_text(stays)
    ended = job.run("plan")
    assert ended.code == 1
    said = " ".join(ended.text.split())
    assert "rollout.yaml:5" in said and "default/aside stays on worker-01, which is to be rebooted" in said


BUDGET = Ref("policy/v1", "PodDisruptionBudget", "multus", "default")


def allow(world: TwinWorld, number: int) -> None:
    """How many pods its controller lets be away."""
    status = {"observedGeneration": 1, "disruptionsAllowed": number, "desiredHealthy": 1, "currentHealthy": 2}
    world.edit().cluster.write(MergePatch(BUDGET, {"status": status}, subresource="status"))


def with_budget(folder: Path, number: int) -> Job:
    """A job whose DaemonSet multus has a budget, and a pod on either node."""
    job = job_with(folder)
    with job.world() as world:
        spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "multus"}}}
        world.edit().cluster.write(Create(BUDGET, {"spec": spec}))
        allow(world, number)
    return job


def test_pods_that_a_budget_protects_are_named_before_anything_is_restarted(tmp_path: Path) -> None:
    job = with_budget(tmp_path / "job", 0)
    said = " ".join(job.run("plan").out.split())
    assert "H64 BLOCKS: worker-01 restarts, and default/multus-worker-01 with it" in said
    assert "disruption budget default/multus lets none of its pods be away now" in said
    assert job.apply().code != 0 and asked(job) == []
    known = job.apply("--accept-hazard", "H64")
    assert known.code == 0, known.text
    assert [node for node, _ in asked(job)] == list(NODES)


def test_a_budget_that_has_become_tight_since_the_plan_is_waited_for_and_told(tmp_path: Path) -> None:
    job = with_budget(tmp_path / "job", 1)

    def tighten(name: str) -> None:
        if name == "step-begun" and is_now("worker-02/reboot"):
            with open_world(Path("world")) as world:
                allow(world, 0)

    ended = job.apply(boundary=tighten)
    assert ended.code == 3, ended.text
    assert (
        "worker-02 is not restarted: disruption budget default/multus lets 0 of its pods be away" in ended.err
    )
    assert [node for node, _ in asked(job)] == ["worker-01"]
    with job.world() as world:
        allow(world, 1)
    again = job.apply()
    assert again.code == 0, again.text
    assert [node for node, _ in asked(job)] == list(NODES)


def test_a_vm_that_came_to_the_node_meanwhile_is_not_taken_down(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job")

    def arrive(name: str) -> None:
        if name == "step-begun" and is_now("worker-01/reboot"):
            with open_world(Path("world")) as world:
                ref = Ref(KUBEVIRT, VMI, "aside", "default")
                world.edit().cluster.write(MergePatch(ref, {"status": {"nodeName": "worker-01"}}))

    ended = job.apply(boundary=arrive)
    assert ended.code == 4, ended.text
    assert "default/aside" in ended.text and asked(job) == []


def test_a_vm_that_came_home_while_nobody_applied_is_not_taken_down(tmp_path: Path) -> None:
    """Whoever finds the run dead may put the node back to work."""
    job = job_with(tmp_path / "job")
    before = boots(job)
    job.fault(f"shell worker-01 {ASKED}", 1, "kill")
    assert job.apply().code == KILLED
    with job.world() as world:
        world.edit().cluster.write(MergePatch(NODE, {"spec": {"unschedulable": None}}))
        metadata = {"name": "home", "namespace": "default"}
        wish = {"vmiName": "web-1", "addedNodeSelector": {"kubernetes.io/hostname": "worker-01"}}
        migration = {
            "apiVersion": KUBEVIRT,
            "kind": "VirtualMachineInstanceMigration",
            "metadata": metadata,
            "spec": wish,
        }
        ref = Ref(KUBEVIRT, "VirtualMachineInstanceMigration", "home", "default")
        world.edit().cluster.write(Create(ref, migration))
        world.tick(120)
        assert world.show()["vms"]["default/web-1"]["node"] == "worker-01"
    ended = job.apply()
    assert ended.code == 4, ended.text
    said = " ".join(ended.text.split())
    assert "default/web-1 on worker-01 would die with it: it is not rebooted" in said
    assert "`oc adm cordon worker-01`" in said and boots(job) == before
    with job.world() as world:
        assert world.show()["vms"]["default/web-1"]["reachable"]


def test_a_vm_that_came_while_a_lost_request_was_waited_for_is_not_taken_down(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job")
    before = boots(job)
    job.fault(f"shell worker-01 {ASKED}", 1, "hang")

    def arrive(name: str) -> None:
        if name != "intent" or not is_now("worker-01/reboot"):
            return
        if Job(Path.cwd()).events("worker-01/reboot")[-1].label == "went:1":
            with open_world(Path("world")) as world:
                ref = Ref(KUBEVIRT, VMI, "aside", "default")
                world.edit().cluster.write(MergePatch(ref, {"status": {"nodeName": "worker-01"}}))

    ended = job.apply(boundary=arrive)
    assert ended.code == 4, ended.text
    assert "default/aside on worker-01 would die with it" in " ".join(ended.text.split())
    assert boots(job) == before and len(asked(job)) == 1
