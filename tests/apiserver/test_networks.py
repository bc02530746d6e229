"""Networks, attachments and advertisements on the real API server: planned, and done by the program's own routines.

The operators that can't run here are the twin's controllers; the nodes are a twin's, on which everything is mapped
already. Invariant: what is asserted is what the API server says afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from engine.observe import observe, observe_for_plan
from plans.actions import Action, Done, Finished, Perform, Stop, find_routine
from plans.checks import judge_all
from plans.desired import load_desired
from plans.document import Plan, Target
from plans.facts import Facts
from plans.ops import AnyOp, Record, Wait
from plans.planner import make_plan
from plans.readings import view_of
from providers.interpreters import Interpreter, Lost
from providers.kubernetes import KubernetesCluster, connect
from providers.kubernetes.clock import SystemClock
from providers.ports import Clock, Cluster, Create, MergePatch, Nodes, NodeShell, Ovsdb, Ref
from providers.twin import TwinWorld, init_world, open_world
from providers.twin.outside import SETTINGS, OutsideNode, OutsideRunner, OutsideStage, outside_controllers
from providers.twin.ovnk_nads import OvnkNads

from .conftest import KUBEVIRT
from .server import ApiServer, CannotRun, binaries
from .test_controllers import await_

pytestmark = pytest.mark.apiserver

WORKER = {"node-role.kubernetes.io/worker": ""}
NAD = ("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition")
BRIDGES = {
    "br-phy": {"ports": {"ovs-bond": {"bond": ["ens33", "ens34"], "mode": "balance-slb"}}},
    "br-ex": {"ports": {}},
}
NODE = {
    "labels": WORKER,
    "mappings": "physnet:br-ex,vmnet:br-phy",
    "nics": {"ens33": "up", "ens34": "up"},
    "bridges": BRIDGES,
}
FILES = """\
apiVersion: ovsplan.io/v1alpha1
kind: VMNetwork
metadata: {name: vmnet}
spec:
  bridge: br-phy
  mtu: 9000
"""


@dataclass(frozen=True)
class Mixed(Nodes):
    """The real API, and a twin's nodes."""

    cluster: Cluster
    clock: Clock
    twin: TwinWorld

    def ovsdb(self, node: str) -> Ovsdb:
        return self.twin.ovsdb(node)

    def shell(self, node: str) -> NodeShell:
        return self.twin.shell(node)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixed]:
    """An API server of its own: the controllers would meddle with what other tests make."""
    try:
        binaries()
    except CannotRun as reason:
        pytest.skip(f"no API server: {reason}")
    folder = tmp_path_factory.mktemp("networks")
    init_world({"nodes": {"worker-01": NODE}}, folder / "world")
    with ApiServer.up(folder / "server") as server, open_world(folder / "world") as twin:
        cluster, _, _ = connect("admin", str(server.kubeconfig("admin")))
        _make_node(cluster)
        controllers = (*outside_controllers(), OvnkNads())
        quick = replace(SETTINGS, vm_start=0.3, vm_stop=0.2)
        with OutsideRunner(
            OutsideStage(cluster, {"worker-01": OutsideNode()}, quick), controllers, log=print
        ).running():
            yield Mixed(cluster, SystemClock(), twin)
        cluster.close()


def _make_node(cluster: KubernetesCluster) -> None:
    labels = {"kubernetes.io/hostname": "worker-01", **WORKER}
    cluster.write(Create(Ref("v1", "Node", "worker-01"), {"metadata": {"labels": labels}}))
    memory = {"memory": "64Gi"}
    status = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": memory, "capacity": memory}
    cluster.write(MergePatch(Ref("v1", "Node", "worker-01"), {"status": status}, subresource="status"))


def nad(name: str) -> Ref:
    return Ref(*NAD, name, "default")


def planned(world: Mixed, text: str) -> Plan:
    desired = load_desired([("network.yaml", text)])
    return make_plan(
        desired, observe_for_plan(Interpreter(world), world.clock, desired), Target("real", "real")
    )


def carry_out(world: Mixed, plan: Plan) -> dict[str, Finished | Stop]:
    """Every action of the cluster, to its end; the first that stops is the last."""
    ends: dict[str, Finished | Stop] = {}
    for action in plan.actions:
        if "/" in action.id and not action.node:
            ends[action.id] = _play(world, action)
            if isinstance(ends[action.id], Stop):
                break
    return ends


def _play(world: Mixed, action: Action) -> Finished | Stop:
    hands = Interpreter(world)
    outcomes: dict[str, str] = {}
    attempts: dict[str, int] = {}
    results: dict[str, Any] = {}
    while True:
        facts = Facts(observe(hands, world.clock, action.reads))
        done = Done("run-1", outcomes, results, attempts)
        upcoming = find_routine(action.routine).step(action.args, facts, done)
        if not isinstance(upcoming, Perform):
            return upcoming
        for op in upcoming.ops:
            attempts[op.label] = attempts.get(op.label, 0) + 1
            outcomes[op.label] = "done"
            if isinstance(op, Wait):
                outcomes[op.label] = _wait(world, op)
            elif isinstance(op, Record):
                read = observe(hands, world.clock, op.views)
                results[op.label] = {
                    path: fact.value for path, fact in read.items() if hasattr(fact, "value")
                }
            else:
                outcomes[op.label] = _perform(hands, op)


def _perform(hands: Interpreter, op: AnyOp) -> str:
    try:
        return hands.perform(op)[0]
    except Lost:
        return "failed"  # a controller wrote in between: the step reads again and decides again


def _wait(world: Mixed, op: Wait) -> str:
    views = sorted({view_of(check.path) for check in (*op.checks, *op.unless)})
    end = world.clock.now() + op.deadline
    while world.clock.now() < end:
        facts = Facts(observe(Interpreter(world), world.clock, views))
        if not judge_all(op.checks, facts) or any(not judge_all([check], facts) for check in op.unless):
            return "done"
        world.clock.wait_until(world.clock.now() + 0.05)
    return "timed-out"


def test_a_network_is_made_and_edited_as_our_own(world: Mixed) -> None:
    made = FILES + "  networks: {default/vlan101: {vlan: 101}}\n"
    ends = carry_out(world, planned(world, made))
    assert [type(end) for end in ends.values()] == [Finished], ends
    found = world.cluster.get(nad("vlan101"))
    assert found is not None and json.loads(found["spec"]["config"])["vlanID"] == 101
    assert planned(world, made).is_empty
    ends = carry_out(world, planned(world, made.replace("vlan: 101}", "vlan: 102}")))
    assert [type(end) for end in ends.values()] == [Finished], ends
    found = world.cluster.get(nad("vlan101"))
    assert found is not None and json.loads(found["spec"]["config"])["vlanID"] == 102
    assert {m["operation"] for m in found["metadata"]["managedFields"]} == {"Apply"}


def test_a_network_that_somebody_else_made_is_edited_and_then_removed(world: Mixed) -> None:
    config = {
        "type": "ovn-k8s-cni-overlay",
        "topology": "localnet",
        "name": "old",
        "netAttachDefName": "default/old",
    }
    body = {"metadata": {"labels": {"team": "net"}}, "spec": {"config": json.dumps(config)}}
    world.cluster.write(Create(nad("old"), body))
    ends = carry_out(world, planned(world, FILES + "  networks: {default/old: {vlan: 7}}\n"))
    assert [type(end) for end in ends.values()] == [Finished], ends
    found = world.cluster.get(nad("old"))
    assert found is not None and found["metadata"]["labels"] == {"team": "net"}
    assert json.loads(found["spec"]["config"])["physicalNetworkName"] == "vmnet"
    ends = carry_out(world, planned(world, FILES + "  networks: {default/old: {state: absent}}\n"))
    assert [type(end) for end in ends.values()] == [Finished] and world.cluster.get(nad("old")) is None


def test_a_refusal_of_ovn_kubernetes_is_found_among_the_events(world: Mixed) -> None:
    plan = planned(world, FILES + "  networks: {default/late: {vlan: 5}}\n")
    rival = {
        "type": "ovn-k8s-cni-overlay", "topology": "localnet", "name": "late", "netAttachDefName": "default/rival",
        "physicalNetworkName": "vmnet", "vlanID": 6,
    }  # fmt: skip
    world.cluster.write(Create(nad("rival"), {"spec": {"config": json.dumps(rival)}}))
    (end,) = carry_out(world, plan).values()
    assert isinstance(end, Stop) and "does not match that of network late" in end.why


@pytest.mark.parametrize("strategy", ["Always", "Manual"])
def test_a_vm_is_stopped_edited_and_started(strategy: str, world: Mixed) -> None:
    name = f"web-{strategy.lower()}"
    vm, vmi = (Ref(KUBEVIRT, kind, name, "default") for kind in ("VirtualMachine", "VirtualMachineInstance"))
    devices = {"interfaces": [{"name": "default", "masquerade": {}}]}
    inside = {
        "domain": {"memory": {"guest": "1Gi"}, "devices": devices},
        "networks": [{"name": "default", "pod": {}}],
    }
    world.cluster.write(Create(vm, {"spec": {"runStrategy": "Always", "template": {"spec": inside}}}))
    await_(lambda: ((world.cluster.get(vmi) or {}).get("status") or {}).get("phase") == "Running")
    world.cluster.write(MergePatch(vm, {"spec": {"runStrategy": strategy}}))
    text = (
        FILES
        + f"  networks: {{default/vms: {{vlan: 9}}}}\n  attachments: {{default/{name}: {{net1: default/vms}}}}\n"
    )
    plan = planned(world, text)
    ends = carry_out(world, plan)
    assert {type(end) for end in ends.values()} == {Finished}, ends
    machine, guest = world.cluster.get(vm), world.cluster.get(vmi)
    assert machine is not None and guest is not None
    assert machine["spec"]["runStrategy"] == strategy
    assert "ovsplan.io/run-strategy" not in machine["metadata"].get("annotations", {})
    assert guest["spec"]["networks"][1] == {"name": "net1", "multus": {"networkName": "default/vms"}}
    assert planned(world, text).cluster == ()


def test_an_advertisement_is_widened_then_narrowed(world: Mixed) -> None:
    world.cluster.write(Create(Ref("v1", "Namespace", "metallb-system"), {}))
    ref = Ref("metallb.io/v1beta1", "L2Advertisement", "l2-adv", "metallb-system")
    world.cluster.write(Create(ref, {"spec": {"interfaces": ["bond0.100"]}}))
    ends = carry_out(world, planned(world, FILES + "  l2Advertisements: {metallb-system/l2-adv: [br-ex]}\n"))
    assert [type(end) for end in ends.values()] == [Finished, Finished], ends
    found = world.cluster.get(ref)
    assert found is not None and found["spec"]["interfaces"] == ["br-ex"]
