"""The twin's controllers against ports that are served to them from outside, in real time, with real commands."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from providers.ports import Create, Delete, MergePatch, Ref, Unreachable, World
from providers.twin import TwinWorld, init_world, open_world
from providers.twin.outside import OutsideNode, OutsideRunner, OutsideStage, outside_controllers
from providers.twin.scheduler import Scheduler
from twin.worlds import migrate, phase, spec, vmi

POLICY = "NodeNetworkConfigurationPolicy"
ENACTMENT = "NodeNetworkConfigurationEnactment"
STATE = "NodeNetworkState"
NODES = ("worker-01", "worker-02")
OFF = ("scheduler", "kubelet", "kubevirt", "nmstate-operator")
MAPPING = {"ovn": {"bridge-mappings": [{"localnet": "vmnet", "bridge": "br-phy", "state": "present"}]}}


def policy(world: World, name: str, desired: dict[str, Any], **more: Any) -> Ref:
    ref = Ref("nmstate.io/v1", POLICY, name)
    world.cluster.write(Create(ref, {"spec": {"desiredState": desired, **more}}))
    return ref


def available(body: Any) -> str | None:
    conditions = (body or {}).get("status", {}).get("conditions", ())
    return next(
        (f"{c['status']} {c.get('message', '')}" for c in conditions if c["type"] == "Available"), None
    )


def enactment(world: World, node: str, name: str) -> Any:
    return world.cluster.get(Ref("nmstate.io/v1beta1", ENACTMENT, f"{node}.{name}"))


def await_(holds: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `holds` says once it is true; checked every few milliseconds."""
    never = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if found := holds():
            return found
        never.wait(0.02)
    raise AssertionError("it did not come true in time")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TwinWorld]:
    init_world(
        spec(apis={"nmstate": "present"}, controllers=dict.fromkeys(OFF, "off"), timings={"migration": 0.2}),
        tmp_path / "world",
    )
    with open_world(tmp_path / "world", wall_clock=True) as made:
        yield made


@pytest.fixture
def stage(world: TwinWorld, tmp_path: Path) -> OutsideStage:
    """The world from outside, with a program called nmstatectl on each node."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "nmstatectl"
    fake = Path(__file__).with_name("fake_nmstatectl.py")
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -E -S {fake} "$@"\n')
    program.chmod(0o755)
    nodes = {}
    for node in NODES:
        (tmp_path / node).mkdir()
        path = f"PATH={programs}:{os.environ['PATH']}"
        prefix = ("env", path, f"NMSTATE_FAKE={tmp_path / node}")
        nodes[node] = OutsideNode(prefix, world.edit().ovsdb(node))
    return OutsideStage(world.edit().cluster, nodes)


def run(stage: OutsideStage) -> OutsideRunner:
    return OutsideRunner(stage, outside_controllers())


def commands(tmp_path: Path, node: str) -> list[str]:
    return (tmp_path / node / "log").read_text().splitlines()


def test_a_policy_becomes_available_through_the_program_on_the_node(
    world: TwinWorld, stage: OutsideStage, tmp_path: Path
) -> None:
    with run(stage).running():
        ref = policy(world, "map", MAPPING)
        await_(lambda: available(world.cluster.get(ref)) == "True 2/2 nodes successfully configured")
        for node in NODES:
            assert enactment(world, node, "map")["status"]["desiredState"] == {"interfaces": [], **MAPPING}
            assert "apply --no-commit --timeout 480" in commands(tmp_path, node)
            assert commands(tmp_path, node).count("commit") == 1
        state = Ref("nmstate.io/v1beta1", STATE, "worker-01")
        await_(lambda: "ovn" in world.cluster.get(state)["status"]["currentState"])


def test_a_policy_that_the_program_refuses_is_tried_again_and_then_deleted(
    world: TwinWorld, stage: OutsideStage
) -> None:
    with run(stage).running():
        desired = {"interfaces": [{"name": "missing0", "type": "ethernet", "state": "up"}]}
        ref = policy(world, "bad", desired, nodeSelector={"kubernetes.io/hostname": "worker-01"})
        await_(
            lambda: (
                (enactment(world, "worker-01", "bad") or {}).get("status", {}).get("retryCount") == {"1": 2}
            )
        )
        world.cluster.write(Delete(ref))
        await_(lambda: enactment(world, "worker-01", "bad") is None)


def test_what_was_there_before_the_start_is_taken_up(world: TwinWorld, stage: OutsideStage) -> None:
    ref = policy(world, "map", MAPPING, nodeSelector={"kubernetes.io/hostname": "worker-02"})
    with run(stage).running():
        await_(lambda: available(world.cluster.get(ref)) == "True 1/1 nodes successfully configured")


def test_a_vm_migrates(world: TwinWorld, stage: OutsideStage) -> None:
    with run(stage).running():
        migrate(world, "talker", "m")
        await_(lambda: phase(world, "m") == "Succeeded")
    assert vmi(world, "talker")["status"]["nodeName"] == "worker-02"
    assert world.reachable("default/talker") == (True, "")


def test_an_api_that_is_away_for_a_while_costs_nothing_but_time(
    world: TwinWorld, stage: OutsideStage
) -> None:
    down = threading.Event()

    class Away:
        def __getattr__(self, verb: str) -> Any:
            def call(*args: Any, **named: Any) -> Any:
                if down.is_set():
                    raise Unreachable("connection refused")
                return getattr(world.edit().cluster, verb)(*args, **named)

            return call

    beyond = OutsideStage(Away(), stage._nodes)  # type: ignore[arg-type]
    with run(beyond).running():
        await_(lambda: world.cluster.get(Ref("nmstate.io/v1beta1", STATE, "worker-01")))
        down.set()
        ref = policy(world, "map", MAPPING)
        threading.Event().wait(0.3)
        assert enactment(world, "worker-01", "map") is None
        down.clear()
        await_(lambda: available(world.cluster.get(ref)) == "True 2/2 nodes successfully configured")


def test_writes_that_fail_now_and_then_are_made_again_and_counted_once(
    world: TwinWorld, stage: OutsideStage
) -> None:
    cluster = world.edit().cluster
    turns = itertools.count()

    class Flaky:
        def __getattr__(self, verb: str) -> Any:
            def call(*args: Any, **named: Any) -> Any:
                if verb == "write" and next(turns) % 3 == 2:
                    raise Unreachable("connection refused")
                return getattr(cluster, verb)(*args, **named)

            return call

    beyond = OutsideStage(Flaky(), stage._nodes)  # type: ignore[arg-type]
    bad = {"interfaces": [{"name": "missing0", "type": "ethernet", "state": "up"}]}
    with run(beyond).running():
        ref = policy(world, "map", MAPPING, maxUnavailable=1)
        await_(lambda: available(world.cluster.get(ref)) == "True 2/2 nodes successfully configured")
        refused = policy(world, "bad", bad, nodeSelector={"kubernetes.io/hostname": "worker-01"})
        await_(
            lambda: (
                (enactment(world, "worker-01", "bad") or {}).get("status", {}).get("retryCount") == {"1": 2}
            )
        )
    assert world.cluster.get(refused)["status"]["unavailableNodeCountMap"] == {"1": 1}


def test_a_controller_that_breaks_is_heard_of(world: TwinWorld, stage: OutsideStage) -> None:
    class Broken(Scheduler):
        def reconcile(self, stage: Any, key: str) -> float | None:
            raise RuntimeError("broken")

    runner = OutsideRunner(stage, [Broken()])
    runner.start()
    await_(lambda: runner.failed)
    with pytest.raises(RuntimeError, match="broken"):
        runner.stop()


def test_a_handler_that_starts_again_applies_everything_again(
    world: TwinWorld, stage: OutsideStage, tmp_path: Path
) -> None:
    runner = run(stage)
    with runner.running():
        ref = policy(world, "map", MAPPING)
        await_(lambda: available(world.cluster.get(ref)) == "True 2/2 nodes successfully configured")
        runner.restart_handler("worker-01")
        await_(lambda: commands(tmp_path, "worker-01").count("commit") == 2)
        assert commands(tmp_path, "worker-02").count("commit") == 1


def test_a_node_that_is_not_known_has_no_handler(world: TwinWorld, stage: OutsideStage) -> None:
    only = OutsideStage(world.edit().cluster, {"worker-01": stage._nodes["worker-01"]})
    with run(only).running():
        ref = policy(world, "map", MAPPING)
        await_(lambda: available(world.cluster.get(ref)) == "True 1/1 nodes successfully configured")


def test_a_label_that_changes_is_seen(world: TwinWorld, stage: OutsideStage) -> None:
    with run(stage).running():
        ref = policy(world, "map", MAPPING, nodeSelector={"x/vmdata": "br-phy"})
        await_(lambda: enactment(world, "worker-01", "map") is None and available(world.cluster.get(ref)))
        labels = {"metadata": {"labels": {"x/vmdata": "br-phy"}}}
        world.cluster.write(MergePatch(Ref("v1", "Node", "worker-01"), labels))
        await_(lambda: available(world.cluster.get(ref)) == "True 1/1 nodes successfully configured")
