"""A run whose process died: history tells it as status does, and its copy in the cluster is not forgotten."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from crash.lives import Ended, Job, job_of, kill_at, live
from crash.others import NETWORK, small_world

from engine.copies import Copies

ELSEWHERE = ("--state", "elsewhere.db")


@pytest.fixture
def dead(tmp_path: Path) -> Job:
    """A job with a run that was killed."""
    job = job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK})
    ended = job.apply(boundary=kill_at(12))
    assert ended.code == -signal.SIGKILL, ended.text
    return job


def copy_status(job: Job) -> str:
    with job.world() as world:
        found = Copies(world.cluster, world.clock).latest()
    assert found is not None
    return found.status


def abandon(job: Job, *args: str) -> Ended:
    return live(job.folder, "abandon", job.latest().id, *args).wait()


def test_history_tells_a_dead_run_as_status_does(dead: Job) -> None:
    assert f"Run {dead.latest().id}: interrupted" in dead.run("status").out
    told = live(dead.folder, "history").wait().out
    assert f"{dead.latest().id}  interrupted" in told and "running" not in told
    (row,) = json.loads(live(dead.folder, "history", "--json").wait().out)["runs"]
    assert row["status"] == "interrupted"


def test_a_run_that_is_carried_out_is_running_in_history(tmp_path: Path) -> None:
    job = job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK})
    seen: list[str] = []

    def look(_: str) -> None:
        if not seen and (job.folder / ".ovsplan" / "state.db").exists():
            seen.append(live(job.folder, "history").wait().out)
            (job.folder / "seen").write_text(seen[0])

    assert job.apply(boundary=look).code == 0
    assert "  running  " in (job.folder / "seen").read_text()


def test_abandoning_without_a_target_says_what_the_cluster_still_believes(dead: Job) -> None:
    ended = abandon(dead)
    assert ended.code == 0, ended.text
    assert "copy in the cluster" in ended.out and f"`ovsplan abandon {dead.latest().id}`" in ended.out
    assert copy_status(dead) == "running"


def test_the_copy_of_a_run_that_was_abandoned_before_can_be_told(dead: Job) -> None:
    assert abandon(dead, "--reason", "first word").code == 0
    told = abandon(dead, "--twin", "world")
    assert told.code == 0, told.text
    assert "its copy in the cluster is told now" in told.out
    assert copy_status(dead) == "abandoned"
    assert dead.latest().message == "first word"
    again = abandon(dead, "--twin", "world")
    assert again.code == 0, again.text
    assert "is told now" not in again.out


def test_a_plan_from_elsewhere_tells_of_the_run_that_apply_would_resume(dead: Job) -> None:
    ended = dead.run("plan", *ELSEWHERE)
    assert ended.code == 0, ended.text
    assert f"Note: run {dead.latest().id}, begun" in ended.err and "is not finished" in ended.err
    assert not (dead.folder / "elsewhere.db").exists()
    abandon(dead, "--twin", "world")
    assert "not finished" not in dead.run("plan", *ELSEWHERE).err


def test_a_copy_that_cannot_be_read_does_not_stop_a_plan_and_is_not_taken_for_none(dead: Job) -> None:
    with dead.world() as world:
        world.add_fault("cluster * list *", nth=1, effect="fail")
    ended = dead.run("plan", *ELSEWHERE)
    assert ended.code == 0, ended.text
    assert "unfinished run can't be told: cluster: connection refused (injected)" in ended.err
