"""Signals, `stop` and `force-unlock` reach a run under way; it ends where it may be resumed, and says how."""

from __future__ import annotations

import signal

import pytest

from crash.lives import Ended, Halt, Job, effects, is_mutating
from crash.others import pairs


def ends_well(job: Job, ended: Ended) -> None:
    """The rest is done by a plain `apply`, and nothing of it twice."""
    assert "resumes" in ended.out + ended.err
    last = job.apply()
    assert last.code == 0, last.text
    assert "Resuming run" in last.out
    assert max(effects(job.log()).values()) == 1
    assert "No changes." in job.run("plan").out


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_one_signal_lets_the_op_in_flight_finish(hot: Job, halt: Halt, signum: int, code: int) -> None:
    life = hot.begin("apply", boundary=halt.at("intent", 4))
    halt.await_reached(life)
    before = len([call for call in hot.log() if is_mutating(call)])
    life.kill(signum)
    life.await_printed("stopping after the op in flight", "err")
    halt.go_on()
    ended = life.wait()
    assert ended.code == code, ended.text
    assert len([call for call in hot.log() if is_mutating(call)]) > before
    assert all(event.outcome for name in hot.steps() for event in hot.events(name))
    assert hot.latest().status == "stopped"
    ends_well(hot, ended)


@pytest.mark.parametrize(
    ("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_two_signals_stop_at_once_and_leave_the_op_in_doubt(
    hot: Job, halt: Halt, signum: int, code: int
) -> None:
    life = hot.begin("apply", boundary=halt.at("intent", 4))
    halt.await_reached(life)
    before = len([call for call in hot.log() if is_mutating(call)])
    life.kill(signum)
    life.await_printed("stopping after the op in flight", "err")
    life.kill(signum)
    ended = life.wait()
    assert ended.code == code, ended.text
    assert "in doubt" in ended.err
    assert len([call for call in hot.log() if is_mutating(call)]) == before
    ends_well(hot, ended)


def test_a_signal_ends_a_wait_at_once(cold: Job, halt: Halt) -> None:
    """A migration takes seconds of the world's time, and the person at the keyboard waits for none of them."""
    with cold.world() as world:
        world.controllers_off("kubevirt")
    life = cold.begin("apply", boundary=halt.at("intent", 4))
    halt.await_reached(life)
    assert cold.events("worker-01/evacuate")[-1].op["op"] == "wait"
    life.kill(signal.SIGINT)
    life.await_printed("stopping after the op in flight", "err")
    halt.go_on()
    with cold.world() as world:
        began = world.clock.now()
    assert life.wait().code == 130
    with cold.world() as world:
        assert world.clock.now() - began < 5


def test_stop_from_another_terminal(hot: Job, halt: Halt) -> None:
    life = hot.begin("apply", boundary=halt.at("intent", 4))
    halt.await_reached(life)
    asked = hot.run("stop")
    assert asked.code == 0, asked.text
    assert f"pid {life.pid}" in asked.out
    halt.go_on()
    ended = life.wait()
    assert ended.code == 3, ended.text
    assert "ovsplan stop" in ended.err
    with hot.world() as world:
        assert pairs(world, "worker-02")["vmnet"] == "br-vmdata"
    ends_well(hot, ended)


def test_there_is_nothing_to_stop_when_nothing_runs(hot: Job) -> None:
    assert hot.apply().code == 0
    ended = hot.run("stop")
    assert ended.code == 1
    assert "nothing to stop" in ended.err


@pytest.mark.parametrize("at", ["intent", "outcome", "step-begun", "step-done"])
def test_whoever_loses_the_lock_stops_before_the_next_step(hot: Job, halt: Halt, at: str) -> None:
    life = hot.begin("apply", boundary=halt.at(at, 3))
    halt.await_reached(life)
    unlocked = hot.run("force-unlock", "--force")
    assert unlocked.code == 0
    assert f"pid {life.pid}" in unlocked.out
    steps = hot.steps()
    halt.go_on()
    ended = life.wait()
    assert ended.code == 6, ended.text
    assert not ended.crashed
    assert "force-unlock" in ended.err
    assert hot.steps() == steps
    ends_well(hot, ended)


def test_the_lock_of_a_dead_process_is_no_obstacle(hot: Job, halt: Halt) -> None:
    life = hot.begin("apply", boundary=halt.at("intent", 4))
    halt.await_reached(life)
    life.kill(signal.SIGKILL)
    ended = life.wait()
    assert ended.code == -signal.SIGKILL
    last = hot.apply()
    assert last.code == 0, last.text
