"""Two applies begin at the same instant, on one state database and one world: exactly one acts."""

from __future__ import annotations

import multiprocessing
import shutil
import time
from pathlib import Path

import pytest

from crash.lives import Ended, Halt, Job, effects, is_done, is_mutating, job_of
from crash.others import NETWORK, small_world

RACES = 100
HEATS = 4


def one_node(folder: Path) -> Job:
    spec = small_world(nodes={"worker-01": {}})
    spec["vms"] = {name: vm for name, vm in spec["vms"].items() if vm["node"] == "worker-01"}
    return job_of(folder, spec, {"network.yaml": NETWORK})


def race(job: Job, head_start: float) -> list[Ended]:
    """Two applies that start together, the second after `head_start` seconds; how they ended."""
    line = multiprocessing.get_context("fork").Barrier(2)

    def late() -> None:
        line.wait()
        # No condition to await: which moment of the first run the second one meets is what the races differ in.
        time.sleep(head_start)

    runners = [job.begin("apply", before=line.wait), job.begin("apply", before=late)]
    return [runner.wait() for runner in runners]


@pytest.mark.parametrize("heat", range(HEATS))
def test_of_two_applies_at_once_exactly_one_acts(heat: int, tmp_path: Path) -> None:
    alone = one_node(tmp_path / "alone")
    assert alone.apply().code == 0
    once = effects(alone.log())
    for n in range(heat, RACES, HEATS):
        job = one_node(tmp_path / str(n))
        ended = race(job, head_start=n * 0.002)
        report = "\n".join(one.text for one in ended)
        acted = {call.pid for call in job.log() if is_mutating(call) and is_done(call)}
        assert not any(one.crashed for one in ended), report
        assert len(acted) == 1, report
        assert effects(job.log()) == once, report
        (winner, loser) = sorted(ended, key=lambda one: "Apply complete" not in one.out)
        assert winner.code == 0, report
        assert loser.code in (4, 6) or (loser.code == 0 and "No changes." in loser.out), report
        assert loser.code == 0 or len(loser.err.strip().splitlines()) >= 1, report
        shutil.rmtree(job.folder)


def test_the_refused_one_names_the_holder_and_the_ways_out(hot: Job, halt: Halt) -> None:
    first = hot.begin("apply", boundary=halt.at("intent", 3))
    halt.await_reached(first)
    second = hot.apply()
    halt.go_on()
    assert first.wait().code == 0
    assert second.code == 6
    for words in (f"pid {first.pid}", "`ovsplan apply", "`ovsplan stop`", "`ovsplan force-unlock`"):
        assert words in second.err
