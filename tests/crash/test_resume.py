"""What may happen between a crash and the `apply` that resumes: it goes on with the approved plan, or says why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from crash.lives import Ended, Job, effects, is_mutating, job_of, kill_when
from crash.others import NETWORK, ROLLOUT, add_vm, cordon, move_vm, pairs, set_pair, small_world
from state.lock import who_am_i

KILLED = -9
INTENT_OF_THE_MOVE = ("intent", 4)
FIRST_NODE_DONE = ("step-done", 8)


def crash(job: Job, where: tuple[str, int] = FIRST_NODE_DONE, *args: str) -> None:
    """Begin the job, and die at a commit: by default when the first node is done and the second is not begun."""
    ended = job.apply(*args, boundary=kill_when(*where))
    assert ended.code == KILLED, ended.text


def acts(job: Job, node: str = "") -> int:
    """How many calls that change something were made, to a node."""
    return sum(1 for call in job.log() if is_mutating(call) and node in f"{call.node} {call.text}")


def well_done(job: Job, ended: Ended) -> None:
    assert ended.code == 0, ended.text
    assert max(effects(job.log()).values()) == 1
    with job.world() as world:
        shown = world.show()
    assert [pairs for pairs in _localnets(shown, "vmnet") if pairs != "br-phy"] == []
    assert [name for name, vm in shown["vms"].items() if not vm["reachable"]] == []


def _localnets(shown: dict[str, dict[str, dict[str, str]]], localnet: str) -> list[str]:
    mappings = (node["mapping"] for node in shown["nodes"].values())
    return [dict(pair.split(":") for pair in text.split(","))[localnet] for text in mappings]


SECOND_NETWORK = NETWORK.replace("vmnet", "backup").replace("  replaces: {bridge: br-vmdata}\n", "")


@pytest.mark.parametrize(
    "text",
    [f"{NETWORK}---\n{SECOND_NETWORK}", NETWORK + "  nodes: {kubernetes.io/hostname: worker-01}\n"],
    ids=["another-network", "a-field"],
)
def test_what_the_files_gained_meanwhile_is_told_and_not_applied(hot: Job, text: str) -> None:
    crash(hot)
    (hot.folder / "network.yaml").write_text(text)
    ended = hot.apply()
    assert "files have changed since this plan was approved" in ended.out
    well_done(hot, ended)
    with hot.world() as world:
        assert pairs(world, "worker-01") == {"physnet": "br-ex", "vmnet": "br-phy", "storage": "br-storage"}
        assert pairs(world, "worker-02") == pairs(world, "worker-01")


def test_files_that_are_gone_meanwhile_are_not_needed(hot: Job) -> None:
    crash(hot)
    (hot.folder / "network.yaml").unlink()
    ended = hot.apply()
    assert "can't be read now" in ended.out
    well_done(hot, ended)


def test_another_plan_is_refused_until_this_one_is_over(hot: Job) -> None:
    assert hot.run("plan", "--node", "worker-02", "--out", "other.json").code == 0
    crash(hot, INTENT_OF_THE_MOVE)
    before = acts(hot)
    ended = hot.apply("other.json")
    assert ended.code == 1
    assert "`ovsplan apply` without a path resumes it" in ended.err
    assert f"`ovsplan abandon {hot.latest().id}`" in ended.err
    assert acts(hot) == before


def test_the_plan_file_of_the_run_itself_resumes_it(hot: Job) -> None:
    assert hot.run("plan", "--out", "this.json").code == 0
    crash(hot, INTENT_OF_THE_MOVE, "this.json")
    well_done(hot, hot.apply("this.json"))


@pytest.mark.parametrize("option", [("--node", "worker-01"), ("--accept-hazard", "H14")])
def test_a_run_is_resumed_as_it_was_approved(hot: Job, option: tuple[str, str]) -> None:
    crash(hot, INTENT_OF_THE_MOVE)
    before = acts(hot)
    ended = hot.apply(*option)
    assert ended.code == 1
    assert "as it was approved" in ended.err
    assert acts(hot) == before


def test_a_foreign_change_to_what_a_later_action_relies_on_stops_it_there(hot: Job) -> None:
    crash(hot)
    with hot.world() as world:
        set_pair(world, "worker-02", "vmnet", "br-storage")
    before = acts(hot, "worker-02")
    ended = hot.apply()
    assert ended.code == 4, ended.text
    assert "br-vmdata" in ended.err and "br-storage" in ended.err and "worker-02" in ended.err
    assert acts(hot, "worker-02") == before
    with hot.world() as world:
        assert pairs(world, "worker-02")["vmnet"] == "br-storage"
        set_pair(world, "worker-02", "vmnet", "br-vmdata")
    well_done(hot, hot.apply())


@pytest.mark.parametrize("where", [INTENT_OF_THE_MOVE, FIRST_NODE_DONE])
def test_a_foreign_change_to_what_nothing_relies_on_is_kept(hot: Job, where: tuple[str, int]) -> None:
    crash(hot, where)
    with hot.world() as world:
        for node in ("worker-01", "worker-02"):
            set_pair(world, node, "storage", "br-phy")
            set_pair(world, node, "theirs", "br-storage")
    well_done(hot, hot.apply())
    wanted = {"physnet": "br-ex", "vmnet": "br-phy", "storage": "br-phy", "theirs": "br-storage"}
    with hot.world() as world:
        assert (pairs(world, "worker-01"), pairs(world, "worker-02")) == (wanted, wanted)


@pytest.mark.parametrize("job", ["hot", "cold"])
def test_a_vm_that_appears_meanwhile_is_taken_care_of(job: str, request: pytest.FixtureRequest) -> None:
    made: Job = request.getfixturevalue(job)
    crash(made, INTENT_OF_THE_MOVE)
    with made.world() as world:
        add_vm(world, "newcomer", "worker-02", "02:00:00:00:e0:99", like="talker-2")
    well_done(made, made.apply())
    with made.world() as world:
        assert world.show()["vms"]["default/newcomer"]["node"] in ("worker-01", "worker-02")


def test_a_vm_that_was_moved_by_hand_meanwhile_is_taken_care_of(hot: Job) -> None:
    crash(hot, INTENT_OF_THE_MOVE)
    with hot.world() as world:
        move_vm(world, "default/talker-1", "worker-02", "by-hand")
    well_done(hot, hot.apply())


def test_a_node_that_becomes_unreachable_stops_the_line_until_it_is_back(hot: Job) -> None:
    crash(hot)
    with hot.world() as world:
        world.set_reachable("worker-02", False)
    ended = hot.apply()
    assert ended.code == 3, ended.text
    assert "no route to host" in ended.err
    assert acts(hot, "worker-02") == 0
    with hot.world() as world:
        world.set_reachable("worker-02", True)
    well_done(hot, hot.apply())


def test_a_node_that_becomes_unreachable_in_the_middle_of_its_remap(hot: Job) -> None:
    crash(hot, INTENT_OF_THE_MOVE)
    with hot.world() as world:
        world.set_reachable("worker-01", False)
    ended = hot.apply()
    assert ended.code == 3, ended.text
    with hot.world() as world:
        assert world.show()["nodes"]["worker-01"]["cordoned"], "a failed node stays cordoned"
        world.set_reachable("worker-01", True)
    well_done(hot, hot.apply())


def test_marked_done_is_skipped(hot: Job) -> None:
    crash(hot)
    marked = hot.run("mark", "worker-02/cordon", "done", "--reason", "the night shift keeps it empty")
    assert marked.code == 0, marked.text
    well_done(hot, hot.apply())
    assert acts(hot, "Node worker-02") == 0
    step = hot.steps()["worker-02/cordon"]
    assert (step.status, step.note) == ("marked-done", f"{who_am_i()}: the night shift keeps it empty")


def test_marked_not_done_is_done_again(hot: Job) -> None:
    crash(hot)
    with hot.world() as world:
        cordon(world, "worker-01")
        cordon(world, "worker-01", on=False)
    for action in ("worker-01/cordon", "worker-01/uncordon"):
        assert hot.run("mark", action, "not-done", "--reason", "somebody was at it").code == 0
    assert hot.apply().code == 0
    steps = hot.steps()
    assert [steps[f"worker-01/{name}"].status for name in ("cordon", "uncordon")] == ["done", "done"]
    assert steps["worker-01/cordon"].attempt > 1
    with hot.world() as world:
        assert not world.show()["nodes"]["worker-01"]["cordoned"]


def test_marks_need_an_unfinished_run_a_known_action_and_a_reason(hot: Job) -> None:
    crash(hot)
    unknown = hot.run("mark", "worker-09/cordon", "done", "--reason", "x")
    blank = hot.run("mark", "worker-02/cordon", "done", "--reason", " ")
    assert (unknown.code, blank.code) == (1, 1)
    assert "worker-02/cordon" in unknown.err
    assert "--reason" in blank.err
    assert hot.apply().code == 0
    over = hot.run("mark", "worker-02/cordon", "done", "--reason", "x")
    assert over.code == 1
    assert "no unfinished run" in over.err


def test_an_abandoned_run_is_never_resumed_and_the_rest_is_planned_anew(hot: Job) -> None:
    crash(hot, INTENT_OF_THE_MOVE)
    first = hot.latest().id
    ended = hot.run("abandon", first, "--reason", "we try another way")
    assert ended.code == 0, ended.text
    assert "oc adm uncordon worker-01" in ended.out
    with hot.world() as world:
        cordon(world, "worker-01", on=False)
    again = hot.apply()
    assert again.code == 0, again.text
    assert "Resuming" not in again.out
    assert hot.latest().id != first
    assert "No changes." in hot.run("plan").out
    refused = hot.run("abandon", first)
    assert refused.code == 1
    assert "nothing to abandon" in refused.err


def test_files_of_somewhere_else_do_not_resume_it(hot: Job, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "network.yaml").write_text(NETWORK)
    crash(hot, INTENT_OF_THE_MOVE)
    before = acts(hot)
    ended = hot.apply(str(tmp_path / "elsewhere"))
    assert ended.code == 1
    assert "is not finished" in ended.err
    assert acts(hot) == before


def test_a_step_done_once_is_not_done_again(hot: Job) -> None:
    crash(hot)
    attempts = {name: step.attempt for name, step in hot.steps().items()}
    well_done(hot, hot.apply())
    assert {name: hot.steps()[name].attempt for name in attempts} == attempts


def test_a_foreign_cordon_survives_a_crash(tmp_path: Path) -> None:
    spec = small_world(nodes={"worker-01": {"cordoned": True}, "worker-02": {}})
    job = job_of(tmp_path / "job", spec, {"network.yaml": NETWORK})
    crash(job, ("step-begun", 5))
    well_done(job, job.apply())
    with job.world() as world:
        shown = world.show()["nodes"]
    assert [shown[node]["cordoned"] for node in ("worker-01", "worker-02")] == [True, False]


def test_vms_that_pass_through_an_empty_node_do_not_stop_its_turn(tmp_path: Path) -> None:
    """They leave OVN's patch pair behind there, which the plan could not see (H51)."""
    rollout = ROLLOUT.replace("[worker-01, worker-02]", "[worker-01, worker-02, worker-03]")
    spec = small_world(nodes={"worker-01": {}, "worker-02": {"cordoned": True}, "worker-03": {}})
    job = job_of(tmp_path / "job", spec, {"network.yaml": NETWORK, "rollout.yaml": rollout})
    ended = job.apply()
    assert ended.code == 0, ended.text
    with job.world() as world:
        assert pairs(world, "worker-03")["vmnet"] == "br-phy"
    assert "No changes." in job.run("plan").out


@pytest.mark.parametrize("silent", [False, True])
def test_a_vm_that_comes_to_an_empty_node_meanwhile_moves_with_it(silent: bool, tmp_path: Path) -> None:
    order = ROLLOUT.replace("[worker-01, worker-02]", "[worker-01, worker-02, worker-03]")
    hot = order.replace("  evacuate: {default: live-migrate, return: origin}\n", "")
    spec = small_world(nodes={f"worker-0{number}": {} for number in (1, 2, 3)})
    job = job_of(tmp_path / "job", spec, {"network.yaml": NETWORK, "rollout.yaml": hot})
    crash(job, INTENT_OF_THE_MOVE)
    with job.world() as world:
        move_vm(world, "default/silent-1" if silent else "default/talker-1", "worker-03", "by-hand")
    well_done(job, job.apply())
