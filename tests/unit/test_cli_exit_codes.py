"""Exit codes are a contract: each error has the code of docs/exit-codes.md, and the places where they meet."""

from __future__ import annotations

import gc
import re
import signal
from pathlib import Path

import pytest
from crash.lives import ROOT, Job, at, is_mutating, job_of
from crash.others import NETWORK, ROLLOUT, small_world

from cli.exits import code_for
from plans import errors
from providers.ports import Forbidden
from state.store import Store

CODES: dict[int, list[BaseException]] = {
    1: [
        errors.InputError("x"),
        errors.PlanError("x"),
        errors.JournalError("x"),
        errors.OvsplanError("x"),
        Forbidden("x"),
    ],
    3: [errors.ActionFailed("x"), errors.Interrupted("x", 0)],
    4: [errors.WorldMoved("x")],
    5: [errors.Declined("x")],
    6: [errors.Locked("x")],
    7: [errors.HazardError("x")],
    129: [errors.Interrupted("x", signal.SIGHUP)],
    130: [errors.Interrupted("x", signal.SIGINT)],
    143: [errors.Interrupted("x", signal.SIGTERM)],
}


@pytest.mark.parametrize(("code", "error"), [(code, e) for code, several in CODES.items() for e in several])
def test_each_error_has_its_code(code: int, error: BaseException) -> None:
    assert code_for(error) == code


def test_a_defect_has_none_and_keeps_its_traceback() -> None:
    assert code_for(KeyError("x")) is None


def test_the_page_lists_every_code_and_no_other() -> None:
    rows = re.findall(r"^\| ([0-9, ]+) \|", (ROOT / "docs" / "exit-codes.md").read_text(), re.M)
    assert {int(code) for row in rows for code in row.split(",")} == {0, 2, *CODES}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK})


def test_what_is_wanted_and_blocked_counts_as_a_change_and_an_apply_of_it_is_not_done(job: Job) -> None:
    with job.world() as world:
        for node in ("worker-01", "worker-02"):
            world.set_reachable(node, False)
    assert job.run("plan").code == 0
    assert job.run("plan", "--detailed-exitcode").code == 2
    assert job.run("plan", "--out", "plan.json").code == 0
    assert job.apply("plan.json").code == 3
    assert not job.state.exists()


def test_a_plan_file_with_a_hazard_is_refused_with_each_of_its_ways_out(tmp_path: Path) -> None:
    spec = small_world(nodes={"worker-01": {}, "worker-02": {"ready": False}})
    job = job_of(tmp_path / "job", spec, {"network.yaml": NETWORK, "rollout.yaml": ROLLOUT})
    assert job.run("plan", "--out", "plan.json").code == 7
    ended = job.apply("plan.json")
    assert ended.code == 7
    assert (
        "H18: worker-02 is not Ready: no other node is taken out of service meanwhile. Way out: bring "
        in ended.err
    )
    assert re.search(
        r"To go on all the same:(?: --accept-hazard H\d\d)* --accept-hazard H18$", ended.err.strip()
    )
    assert not any(is_mutating(call) for call in job.log()) and not job.state.exists()


def test_a_cluster_that_does_not_answer_is_an_error_and_changes_nothing(job: Job) -> None:
    for nth in range(1, 30):
        job.fault("cluster * list Node*", nth, "fail")
    ended = job.run("plan")
    assert (ended.code, ended.crashed) == (1, False)
    assert "connection refused" in ended.err


def _fill_up() -> None:
    """Give the state database of this process no page more, as a disk that is full."""
    for store in [found for found in gc.get_objects() if isinstance(found, Store)]:
        with store.read() as db:
            db.exec_driver_sql("PRAGMA max_page_count = 1")  # never less than it has


def test_a_state_database_that_is_full_in_the_middle_of_a_run_stops_it_resumably(job: Job) -> None:
    ended = job.apply(boundary=at("step-begun", 3, _fill_up))
    assert (ended.code, ended.crashed) == (3, False), ended.text
    assert any(is_mutating(call) for call in job.log())
    assert "database or disk is full" in ended.err
    (line,) = [line for line in ended.out.splitlines() if line.startswith("Next: ")]
    assert f"`ovsplan apply --twin world` resumes run {job.latest().id}" in line
    assert job.apply().code == 0
