"""`apply` and `status`: approval, the screens, what is left out, and how a run is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from crash.lives import Ended, Halt, Job, effects, is_mutating, job_of, kill_when, live
from crash.others import NETWORK, ROLLOUT, small_world


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK})


def answered(job: Job, answer: str) -> Ended:
    """An apply by somebody who sits at a terminal and types `answer`."""
    ours, theirs = os.openpty()

    def sit_down() -> None:
        os.dup2(theirs, 0)
        sys.stdin = os.fdopen(0, closefd=False)

    life = live(job.folder, "apply", "--twin", "world", before=sit_down)
    os.write(ours, f"{answer}\n".encode())
    ended = life.wait()
    os.close(ours)
    os.close(theirs)
    return ended


@pytest.mark.parametrize("answer", ["", "y", "YES", "Yes", "yes please", "no"])
def test_only_yes_is_accepted(answer: str, job: Job) -> None:
    ended = answered(job, answer)
    assert ended.code == 5, ended.text
    assert "Only 'yes' will be accepted" in ended.out
    assert "Nothing was changed" in ended.err
    assert not any(is_mutating(call) for call in job.log())
    assert not job.state.exists()


def test_yes_is_accepted(job: Job) -> None:
    ended = answered(job, "yes")
    assert ended.code == 0, ended.text
    assert "Apply complete. 0 added, 2 changed, 2 destroyed." in ended.out


def test_without_a_terminal_somebody_has_to_have_approved_and_nothing_is_even_read(job: Job) -> None:
    ended = live(job.folder, "apply", "--twin", "world").wait()
    assert ended.code == 1
    assert "--auto-approve" in ended.err and "plan file" in ended.err
    read = [f"{call.port} {call.verb} {call.text}" for call in job.log()]
    assert [call for call in read if not call.startswith(("cluster get ", "cluster list Secret "))] == []
    assert not job.state.exists()


def test_a_second_apply_has_nothing_to_do(job: Job) -> None:
    assert job.apply().code == 0
    before = effects(job.log())
    ended = job.apply()
    assert (ended.code, "No changes." in ended.out) == (0, True)
    assert effects(job.log()) == before


def test_every_screen_begins_with_the_target(job: Job) -> None:
    screens: list[Callable[[], Ended]] = [
        lambda: job.run("plan"),
        lambda: job.apply(boundary=kill_when("intent", 4)),
        lambda: job.run("status"),
        job.apply,
        lambda: job.run("status"),
        lambda: job.run("show", job.latest().id),
    ]
    for screen in screens:
        assert screen().out.splitlines()[0] == "Target: SIMULATED twin world 'job' (./world)".replace(
            "job", "world"
        )


def test_a_node_that_cannot_be_read_is_left_out_and_the_rest_is_done(job: Job) -> None:
    with job.world() as world:
        world.set_reachable("worker-01", False)
    planned = job.run("plan")
    assert planned.code == 0
    assert "worker-01" in planned.out and "no route to host" in planned.out
    ended = job.apply()
    assert ended.code == 3, ended.text
    assert "worker-01" in ended.err
    with job.world() as world:
        shown = world.show()["nodes"]
    assert "vmnet:br-phy" in shown["worker-02"]["mapping"]
    assert "vmnet:br-vmdata" in shown["worker-01"]["mapping"]
    status = job.run("status")
    assert "partial" in status.out
    with job.world() as world:
        world.set_reachable("worker-01", True)
    assert job.apply().code == 0
    assert "No changes." in job.run("plan").out


def test_nothing_can_be_done_when_no_node_can_be_read(job: Job) -> None:
    with job.world() as world:
        for node in ("worker-01", "worker-02"):
            world.set_reachable(node, False)
    ended = job.apply()
    assert ended.code == 3, ended.text
    assert not any(is_mutating(call) for call in job.log())


def test_status_before_during_and_after(job: Job) -> None:
    before = job.run("status")
    assert before.code == 1
    assert "no state database" in before.err

    halt = Halt()
    life = job.begin("apply", boundary=halt.at("intent", 4))
    halt.await_reached(life)
    during = job.run("status")
    assert "running" in during.out
    assert "In flight: worker-01/remap/vmnet" in during.out
    assert "not started" in during.out
    assert "`ovsplan stop`" in during.out
    life.kill(9)
    life.wait()
    halt.close()

    doubtful = job.run("status")
    assert "In doubt (its process is gone): worker-01/remap/vmnet" in doubtful.out
    assert "Next: `ovsplan apply --twin world` resumes" in doubtful.out

    assert job.apply().code == 0
    after = job.run("status")
    assert "not started" not in after.out
    assert "VMs without network now: none" in after.out
    assert "says whether anything is left to do" in after.out
    assert "not in this plan" in after.out


def test_status_names_the_vms_without_network(tmp_path: Path) -> None:
    """An orphaned start: they are dark before anything is done, and `status` tells so in the middle of the run."""
    spec = small_world()
    nics = {name: link for name, link in spec["nodeDefaults"]["nics"].items() if name != "bond0"}
    spec["nodeDefaults"] = {**spec["nodeDefaults"], "nics": nics}
    job = job_of(tmp_path / "job", spec, {"network.yaml": NETWORK})
    job.apply(boundary=kill_when("step-done", 8))
    status = job.run("status")
    assert "default/talker-2 on worker-02" in status.out
    assert "default/talker-1" not in status.out.partition("VMs without network now")[2]


def test_a_failed_node_is_told_with_its_undo_and_the_next_command(tmp_path: Path) -> None:
    job = job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK, "rollout.yaml": ROLLOUT})
    job.fault("ovsdb worker-02 transact *mutate*", 1, "fail")
    ended = job.apply()
    assert ended.code == 3, ended.text
    recap = ended.out.partition("Recap")[2]
    assert "worker-01  done" in recap and "worker-02  failed" in recap
    assert "Manual undo on worker-02" in recap
    assert "oc adm uncordon worker-02" in recap
    assert "`ovsplan apply --twin world` resumes" in recap
    with job.world() as world:
        assert world.show()["nodes"]["worker-02"]["cordoned"]


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_status_prints_the_manual_undo_where_a_run_stopped(how: str, tmp_path: Path) -> None:
    job = job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK, "rollout.yaml": ROLLOUT})
    if how == "stopped":
        job.fault("ovsdb worker-01 transact *mutate*", 1, "fail")
        stopped = job.apply()
        assert stopped.code == 3, stopped.text
    else:
        assert job.apply(boundary=kill_when("step-done", 4)).code == -9
    status = job.run("status").out
    undo = status.partition("Manual undo on worker-01")[2].partition("Next: ")[0].splitlines()
    (uncordon,) = [i for i, line in enumerate(undo) if "oc adm uncordon worker-01" in line]
    home = "virtctl migrate -n default talker-1 --addedNodeSelector kubernetes.io/hostname=worker-01"
    (back,) = [i for i, line in enumerate(undo) if home in line]
    assert uncordon < back, "a cordoned node takes no VM"
    assert "worker-02" not in "".join(undo)
    if how == "stopped":
        assert status.partition("Manual undo")[2].partition("Next: ")[0].strip() in stopped.out
    assert job.apply().code == 0
    assert "Manual undo" not in job.run("status").out
    assert "Manual undo" not in job.run("status", "--run", job.latest().id).out


def test_status_of_a_run_that_was_given_up_prints_no_undo(tmp_path: Path) -> None:
    job = job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK, "rollout.yaml": ROLLOUT})
    assert job.apply(boundary=kill_when("step-done", 4)).code == -9
    assert "Manual undo" in job.run("status").out
    assert job.run("abandon", job.latest().id).code == 0
    assert "Manual undo" not in job.run("status").out
