"""What goes wrong on purpose, what survives it, and what the log says of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from providers.ports import Conflict, InDoubt, MergePatch, Ref, Unreachable
from providers.twin import TwinWorld, open_world
from twin.worlds import BUMP, DATABASE, make, migrate, phase, select, transact

NODE = Ref("v1", "Node", "worker-01")
CORDON = MergePatch(NODE, {"spec": {"unschedulable": True}})
ROOT = Path(__file__).parents[2]


def cordoned(world: TwinWorld) -> bool:
    return bool(world.show()["nodes"]["worker-01"]["cordoned"])


def test_fail_does_nothing_and_fires_once(world: TwinWorld) -> None:
    world.add_fault("cluster * patch Node worker-01*", nth=1, effect="fail")
    with pytest.raises(Unreachable):
        world.cluster.write(CORDON)
    assert not cordoned(world)
    world.cluster.write(CORDON)
    assert cordoned(world)
    assert world.faults()[0].fired


def test_the_nth_match_from_now_on_is_hit_and_no_other(world: TwinWorld) -> None:
    transact(world, "worker-01", BUMP)
    world.add_fault("ovsdb worker-01 transact *mutate*", nth=2, effect="fail")
    transact(world, "worker-01", BUMP)
    transact(world, "worker-02", BUMP)
    select(world, "worker-01", DATABASE)
    with pytest.raises(Unreachable):
        transact(world, "worker-01", BUMP)
    transact(world, "worker-01", BUMP)
    assert [call.outcome for call in world.log() if "fault" in call.outcome] == ["not done; fault: fail"]


def test_hang_uses_up_the_time_of_the_call(world: TwinWorld) -> None:
    world.add_fault("ovsdb *", nth=1, effect="hang")
    before = world.clock.now()
    with pytest.raises(InDoubt):
        transact(world, "worker-01", BUMP, timeout=7)
    assert world.clock.now() - before == pytest.approx(7)
    world.add_fault("cluster *", nth=1, effect="hang")
    with pytest.raises(InDoubt):
        world.cluster.write(CORDON)
    assert world.clock.now() - before == pytest.approx(37)
    assert not cordoned(world)


def test_a_lost_reply_leaves_the_thing_done(world: TwinWorld) -> None:
    world.add_fault("cluster * patch *", nth=1, effect="lose-reply")
    with pytest.raises(InDoubt):
        world.cluster.write(CORDON)
    assert cordoned(world)
    assert world.log()[-1].outcome == "ok; fault: lose-reply"


def test_somebody_else_meets_no_faults_and_is_logged_as_such(world: TwinWorld) -> None:
    world.add_fault("*", nth=1, effect="fail")
    world.edit().cluster.write(CORDON)
    assert cordoned(world)
    assert world.log()[-1].port == "other"
    assert not world.faults()[0].fired


def test_every_call_is_logged_reads_and_failures_too(world: TwinWorld) -> None:
    world.cluster.get(NODE)
    with pytest.raises(Conflict):
        world.cluster.write(MergePatch(NODE, {"spec": {}}, "1"))
    transact(world, "worker-01", {"op": "select", "table": "Nope", "where": []})
    world.shell("worker-02").run(["ovs-appctl", "fdb/show", "br-nope"], timeout=1)
    world.clock.wait_until(world.clock.now() + 1)
    calls = [(call.port, call.node, call.verb, call.outcome.split(":")[0]) for call in world.log()]
    assert calls == [
        ("cluster", "-", "get", "ok"),
        ("cluster", "-", "patch", "Conflict"),
        ("ovsdb", "worker-01", "transact", "error"),
        ("shell", "worker-02", "run", "rc 2"),
        ("clock", "-", "wait", "ok"),
    ]
    assert {call.pid for call in world.log()} == {os.getpid()}
    assert [call.seq for call in world.log()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("effect", "nth"), [("explode", 1), ("fail", 0)])
def test_a_fault_that_makes_no_sense_is_refused(world: TwinWorld, effect: str, nth: int) -> None:
    with pytest.raises(ValueError):
        world.add_fault("*", nth=nth, effect=effect)


def test_an_unreachable_node_answers_nothing(tmp_path: Path) -> None:
    with make(tmp_path / "w", nodes={"worker-01": {}, "worker-02": {"reachable": False}}) as world:
        with pytest.raises(Unreachable, match="worker-02: no route to host"):
            transact(world, "worker-02", BUMP)
        with pytest.raises(Unreachable):
            world.shell("worker-02").run(["ovn-appctl", "-t", "ovn-controller", "version"], timeout=1)
        with pytest.raises(Unreachable):
            world.ovsdb("worker-99")
        world.set_reachable("worker-02", True)
        assert transact(world, "worker-02", BUMP) == [{"count": 1}]


def child(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    program = f"""
from pathlib import Path
from providers.ports import MergePatch, Ref
from providers.twin import open_world
world = open_world(Path({str(folder)!r}))
cordon = MergePatch(Ref("v1", "Node", "worker-01"), {{"spec": {{"unschedulable": True}}}})
{code}
"""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(("effect", "done"), [("kill", False), ("kill-after", True)])
def test_the_caller_is_killed_before_or_after(
    world: TwinWorld, tmp_path: Path, effect: str, done: bool
) -> None:
    world.add_fault("cluster * patch *", nth=1, effect=effect)
    dead = child(tmp_path / "world", "world.cluster.write(cordon); print('survived')")
    assert (dead.returncode, dead.stdout) == (-signal.SIGKILL, "")
    assert cordoned(world) is done
    assert effect in world.log()[-1].outcome
    again = child(tmp_path / "world", "world.cluster.write(cordon); print('survived')")
    assert (again.returncode, again.stdout) == (0, "survived\n"), again.stderr
    assert cordoned(world)


def test_a_process_killed_anywhere_leaves_a_world_that_goes_on(world: TwinWorld, tmp_path: Path) -> None:
    """The work of a migration is in the killed process, and whatever it left is carried on by this one."""
    program = f"""
from pathlib import Path
from providers.twin import open_world
world = open_world(Path({str(tmp_path / "world")!r}))
print("up", flush=True)
while True:
    world.tick(0.0005)
"""
    migrate(world, "talker", "m")
    for pause in (0.02, 0.05, 0.09):
        with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"up\n"
            time.sleep(pause)
            worker.kill()
        before = world.clock.now()
        world.tick(0.1)
        assert world.clock.now() == pytest.approx(before + 0.1)
    world.tick(10)
    assert phase(world, "m") == "Succeeded"
    assert world.reachable("default/talker") == (True, "")


def test_two_processes_see_each_other_and_lose_nothing(world: TwinWorld, tmp_path: Path) -> None:
    code = """
for _ in range(100):
    world.ovsdb("worker-01").transact("Open_vSwitch", [
        {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}], timeout=5)
"""
    (before,) = select(world, "worker-01", DATABASE)
    worker = subprocess.Popen(
        [sys.executable, "-c", f"import pathlib, providers.twin\n"
         f"world = providers.twin.open_world(pathlib.Path({str(tmp_path / 'world')!r}))\n{code}"],
        cwd=ROOT,
    )  # fmt: skip
    for _ in range(100):
        transact(world, "worker-01", BUMP)
    assert worker.wait(timeout=60) == 0
    (after,) = select(world, "worker-01", DATABASE)
    assert after["next_cfg"] == before["next_cfg"] + 200
    assert len({call.pid for call in world.log()}) == 2


def test_threads_of_one_process_share_a_world(world: TwinWorld) -> None:
    (before,) = select(world, "worker-01", DATABASE)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: transact(world, "worker-01", BUMP), range(80)))
    assert results == [[{"count": 1}]] * 80
    (after,) = select(world, "worker-01", DATABASE)
    assert after["next_cfg"] == before["next_cfg"] + 80


def test_a_compare_and_swap_of_two_openers_has_one_winner(world: TwinWorld, tmp_path: Path) -> None:
    with open_world(tmp_path / "world") as second:
        node = second.cluster.get(NODE)
        assert node is not None
        version = node["metadata"]["resourceVersion"]
        world.cluster.write(MergePatch(NODE, {"spec": {"unschedulable": True}}, version))
        with pytest.raises(Conflict):
            second.cluster.write(MergePatch(NODE, {"spec": {"taints": []}}, version))


def test_a_world_is_as_it_was_left(tmp_path: Path) -> None:
    with make(tmp_path / "w") as world:
        world.cluster.write(CORDON)
        migrate(world, "talker", "m")
        world.tick(2)
        shown, log = world.show(), world.log()
    with open_world(tmp_path / "w") as again:
        assert (again.show(), again.log()) == (shown, log)
        again.tick(10)
        assert phase(again, "m") == "Succeeded"


def test_on_the_walls_clock_time_passes_by_itself(tmp_path: Path) -> None:
    make(tmp_path / "w", timings={"migration": 0.2}).close()
    with open_world(tmp_path / "w", wall_clock=True) as world:
        assert abs(world.clock.now() - time.time()) < 1
        migrate(world, "talker", "m")
        assert phase(world, "m") == "Running"
        row = {"next_cfg": 99}
        wait = {
            "op": "wait", "timeout": 50, "table": DATABASE, "where": [], "columns": ["next_cfg"], "until": "==",
            "rows": [row],
        }  # fmt: skip
        start = time.monotonic()
        assert transact(world, "worker-01", wait)[0]["error"] == "timed out"
        assert 0.04 < time.monotonic() - start < 5
        world.clock.wait_until(time.time() + 1.3)
        assert phase(world, "m") == "Succeeded"
