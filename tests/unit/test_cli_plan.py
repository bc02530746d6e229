"""`plan` and `show`: what they print, write and change (nothing)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from crash.lives import Ended, Job, is_mutating, job_of, live
from crash.others import NETWORK, ROLLOUT, set_pair, small_world

from engine.copies import Copies
from providers.ports import Forbidden


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK})


def files(job: Job) -> set[str]:
    ours = (path for path in job.folder.rglob("*") if not path.name.startswith(("out.", "err.", "world.db")))
    return {str(path.relative_to(job.folder)) for path in ours}


def test_planning_changes_nothing_and_makes_no_file(job: Job) -> None:
    before = files(job)
    ended = job.run("plan")
    assert ended.code == 0
    assert "Plan: 0 to add, 2 to change, 2 to destroy." in ended.out
    assert not any(is_mutating(call) for call in job.log())
    assert files(job) == before


def test_the_same_world_gives_the_same_bytes(job: Job) -> None:
    first, second = (job.run("plan", "--out", name) for name in ("one.json", "two.json"))
    assert (job.folder / "one.json").read_bytes() == (job.folder / "two.json").read_bytes()
    assert first.out.replace("one.json", "two.json") == second.out


def test_json_is_the_plan_file(job: Job) -> None:
    ended = job.run("plan", "--json", "--out", "plan.json")
    assert ended.out == (job.folder / "plan.json").read_text()
    document = json.loads(ended.out)
    assert document["format"] == 2
    assert [action["id"] for action in document["actions"]][:2] == ["inventory", "worker-01/preflight"]


def test_detailed_exit_codes(job: Job) -> None:
    assert job.run("plan", "--detailed-exitcode").code == 2
    assert job.apply().code == 0
    ended = job.run("plan", "--detailed-exitcode")
    assert (ended.code, "No changes." in ended.out) == (0, True)


def test_one_node_only(job: Job) -> None:
    ended = job.run("plan", "--node", "worker-02")
    assert "Nodes: 1 (worker-02)" in ended.out
    assert "worker-01" not in ended.out


def hazardous(tmp_path: Path) -> Job:
    """A VM that has to leave its node, and is too big for any other."""
    spec = small_world()
    spec["vms"]["default/talker-1"]["memory"] = "63Gi"
    return job_of(tmp_path / "job", spec, {"network.yaml": NETWORK, "rollout.yaml": ROLLOUT})


def test_a_hazard_blocks_until_it_is_accepted_by_id(tmp_path: Path) -> None:
    job = hazardous(tmp_path)
    planned, applied = job.run("plan"), job.apply()
    assert (planned.code, applied.code) == (7, 7)
    assert "--accept-hazard H14" in planned.out
    assert "H14 BLOCKS" in applied.out and "worker-01" in applied.out
    assert "hazards block this plan, see above; nothing was changed" in applied.err
    assert job.run("plan", "--accept-hazard", "H01").code == 7
    assert job.run("plan", "--accept-hazard", "H14").code == 0
    assert not any(is_mutating(call) for call in job.log())
    assert not job.state.exists()


def test_an_unwritable_place_for_the_plan_is_an_error(job: Job) -> None:
    ended = job.run("plan", "--out", "nowhere/plan.json")
    assert ended.code == 1
    assert "cannot write the plan to nowhere/plan.json" in ended.err


# show


@pytest.mark.parametrize("form", ["text", "json", "runbook"])
def test_a_plan_file_is_shown_in_three_forms(form: str, job: Job) -> None:
    assert job.run("plan", "--out", "plan.json").code == 0
    ended = job.run("show", "plan.json", "--format", form)
    assert ended.code == 0, ended.text
    expected = {
        "text": "Steps, one node at a time",
        "json": '"format":2',
        "runbook": "ovs-vsctl set Open_vSwitch . external_ids:ovn-bridge-mappings=",
    }
    assert expected[form] in ended.out
    assert ended.out.startswith("Target: SIMULATED") == (form != "json")


def test_a_run_is_shown_by_the_beginning_of_its_id_and_so_is_its_inventory(job: Job) -> None:
    assert job.apply().code == 0
    run = job.latest().id
    shown = job.run("show", run[:10])
    assert shown.out.startswith("Target: SIMULATED")
    assert "Plan: 0 to add, 2 to change, 2 to destroy." in shown.out
    inventory = json.loads(job.run("show", run, "--inventory").out)
    assert inventory["content"]["target"]["title"] in shown.out
    assert "br-vmdata" in json.dumps(inventory["content"])


def test_what_is_neither_a_file_nor_a_run_is_said_so(job: Job) -> None:
    nothing = job.run("show", "19990101")
    assert nothing.code == 1
    assert "no state database" in nothing.err
    assert job.apply().code == 0
    missing = job.run("show", "plan.json")
    assert missing.code == 1
    assert "plan.json: no such file" in missing.err
    unknown = job.run("show", "19990101")
    assert unknown.code == 1
    assert "no run '19990101'" in unknown.err and job.latest().id in unknown.err


# Plan files


def saved(job: Job) -> Path:
    assert job.run("plan", "--out", "plan.json").code == 0
    return job.folder / "plan.json"


def refused(job: Job, ended: Ended, *words: str) -> None:
    assert ended.code == 1, ended.text
    assert not ended.crashed
    assert [word for word in words if word not in ended.err] == []
    assert not any(is_mutating(call) for call in job.log())
    assert not job.state.exists()


def test_a_reviewed_plan_file_is_done_without_a_question(job: Job) -> None:
    saved(job)
    ended = live(job.folder, "apply", "plan.json", "--twin", "world").wait()
    assert ended.code == 0, ended.text
    assert "No changes." in job.run("plan").out


def test_a_plan_file_that_was_edited_by_hand_is_refused(job: Job) -> None:
    plan = saved(job)
    plan.write_text(plan.read_text().replace("worker-02", "worker-01"))
    refused(job, job.apply("plan.json"), "plan.json", "changed after it was made")
    assert job.run("show", "plan.json").code == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "not JSON"), ("{}", "no plan in it"), ('{"format": 99, "actions": []}', "plan format 99")],
)
def test_what_is_no_plan_file_is_refused(text: str, words: str, job: Job) -> None:
    (job.folder / "plan.json").write_text(text)
    refused(job, job.apply("plan.json"), "plan.json", words)


def test_a_plan_of_another_target_is_refused(job: Job, tmp_path: Path) -> None:
    other = job_of(tmp_path / "other", small_world(seed=7), {"network.yaml": NETWORK})
    plan = saved(other).rename(job.folder / "plan.json")
    refused(job, job.apply(plan.name), "another target", "Plan again")


def test_a_plan_file_keeps_its_own_nodes_and_hazards(job: Job) -> None:
    saved(job)
    refused(job, job.apply("plan.json", "--node", "worker-01"), "done as it was reviewed")


def test_a_plan_file_that_the_world_has_left_behind_stops_with_both_values(job: Job) -> None:
    saved(job)
    with job.world() as world:
        set_pair(world, "worker-01", "vmnet", "br-storage")
    ended = job.apply("plan.json")
    assert ended.code == 4, ended.text
    assert "br-vmdata" in ended.err and "br-storage" in ended.err
    assert not any(is_mutating(call) for call in job.log())


def test_whoever_may_not_look_for_copies_is_pointed_to_an_option_that_is_there(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfinished(_: Copies) -> None:
        raise Forbidden("list Secret: forbidden")

    monkeypatch.setattr(Copies, "unfinished", unfinished)
    ended = job.run("plan")
    assert ended.code == 0 and "`ovsplan apply --no-copy` neither looks for one" in ended.err, ended.text
