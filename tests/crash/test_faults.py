"""Every call that changes the world fails, hangs, or loses its reply, once; the job ends as if nothing had been."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from crash.lives import Job, departures, make_job, uninterrupted

RESUMABLE = (3, 4)
PROCEDURES = ("hot", "cold")
"""An orphaned bridge is remapped by the hot one's steps."""


@pytest.mark.parametrize("effect", ["fail", "hang", "lose-reply"])
@pytest.mark.parametrize("example", PROCEDURES)
def test_any_call_that_goes_wrong_once_does_not_change_the_end(
    example: str, effect: str, tmp_path: Path
) -> None:
    wrong: dict[str, list[str]] = {}
    for match, nth in uninterrupted(example).mutating():
        job = make_job(tmp_path / str(len(wrong)), example)
        job.fault(match, nth, effect)
        wrong[f"{match} #{nth}"] = _after_the_fault(job, example)
        shutil.rmtree(job.folder)
    assert {place: found for place, found in wrong.items() if found} == {}


def _after_the_fault(job: Job, example: str) -> list[str]:
    first = job.apply()
    with job.world() as world:
        met = [fault for fault in world.faults() if fault.fired]
    if not met:
        return ["the call never came"]
    if first.crashed or first.code not in (0, *RESUMABLE):
        return [first.text]
    wrong = departures(job, job.apply() if first.code else first, uninterrupted(example))
    if "is cordoned" in first.err:
        # The line stopped with the node taken out of scheduling, as the plan shows: that is to be taken back.
        wrong = [line for line in wrong if not line.startswith("2 times: patch Node")]
    return wrong
