"""The process is killed at every commit of its journal, and at every call that changes the world; and resumes.

Enumerated, not sampled: each test takes every CHUNKS-th place, so that several processes can share the work.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from crash.lives import EXAMPLES, Ended, Job, departures, kill_at, make_job, uninterrupted

CHUNKS = 4
KILLED = -signal.SIGKILL


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("example", EXAMPLES)
def test_killed_at_any_commit_it_resumes_to_the_uninterrupted_end(
    example: str, chunk: int, tmp_path: Path
) -> None:
    whole = uninterrupted(example)
    wrong: dict[str, list[str]] = {}
    for n in range(chunk, len(whole.boundaries), CHUNKS):
        job = make_job(tmp_path / str(n), example)
        first = job.apply(boundary=kill_at(n))
        place = f"commit {n} ({whole.boundaries[n]})"
        wrong[place] = _resumed(job, first, example)
        shutil.rmtree(job.folder)
    assert {place: found for place, found in wrong.items() if found} == {}


@pytest.mark.parametrize("effect", ["kill", "kill-after"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_killed_at_any_call_inside_a_burst_it_resumes_to_the_uninterrupted_end(
    example: str, effect: str, tmp_path: Path
) -> None:
    wrong: dict[str, list[str]] = {}
    for match, nth in uninterrupted(example).mutating():
        job = make_job(tmp_path / str(len(wrong)), example)
        job.fault(match, nth, effect)
        wrong[f"{match} #{nth}"] = _resumed(job, job.apply(), example)
        shutil.rmtree(job.folder)
    assert {place: found for place, found in wrong.items() if found} == {}


def _resumed(job: Job, first: Ended, example: str) -> list[str]:
    if first.code != KILLED:
        return [f"it was not killed: {first.text}"]
    return departures(job, job.apply(), uninterrupted(example))


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_enumeration_meets_every_sort_of_commit_and_of_call(example: str) -> None:
    whole = uninterrupted(example)
    assert {*whole.boundaries} == {"step-begun", "intent", "image", "outcome", "step-done", "run-done"}
    assert whole.code == 0
    assert all(vm["reachable"] for vm in whole.picture["vms"].values())
    assert len({pattern for pattern, _ in whole.mutating()}) >= 3
