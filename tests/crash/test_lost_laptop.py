"""The state database is lost in the middle of a run: the next `apply` finds its place by the copy in the cluster."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from crash.lives import (
    EXAMPLES,
    Boundary,
    Ended,
    Halt,
    Job,
    departures,
    effects,
    is_mutating,
    job_of,
    kill_at,
    kill_when,
    live,
    make_job,
    uninterrupted,
)
from crash.others import NETWORK, small_world
from engine.copies import CHUNK, KEPT, Copies
from plans.document import FORMAT
from providers.ports import Apply, Body, Delete, MergePatch, Ref

CHUNKS, EVERY = 3, 3
KILLED = -signal.SIGKILL
SPACE = "ovsplan"
HOT_REMAP_2, COLD_REMAP_2 = 11, 14
"""Which action, counted from 1, moves the localnet on the second node."""


def secrets(job: Job, **labels: str) -> dict[str, Body]:
    """What is kept in the cluster, by name."""
    chosen = {f"ovsplan.io/{name}": value for name, value in labels.items()}
    with job.world() as world:
        found = world.edit().cluster.list("v1", "Secret", namespace=SPACE, labels=chosen).items
    return {secret["metadata"]["name"]: secret for secret in found}


def lose(job: Job) -> None:
    shutil.rmtree(job.state.parent)


def in_node_2(remap: int = HOT_REMAP_2) -> Boundary:
    """Die when the localnet was moved on the second node, and the copy in the cluster does not know it yet."""
    begun = outcomes = 0

    def at(name: str) -> None:
        nonlocal begun, outcomes
        begun += name == "step-begun"
        outcomes += name == "outcome" and begun == remap
        if outcomes == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def crash_and_lose(job: Job, remap: int = HOT_REMAP_2) -> str:
    """Die in the middle of node 2 and lose the state database; returns the run's id."""
    ended = job.apply(boundary=in_node_2(remap))
    assert ended.code == KILLED, ended.text
    with job.world() as world:
        assert world.show()["nodes"]["worker-02"]["cordoned"]
    run = job.latest().id
    lose(job)
    return run


def rewrite_head(job: Job, run: str, change: dict[str, Any]) -> None:
    """Let the head in the cluster be another version's."""
    with job.world() as world:
        cluster = world.edit().cluster
        copies = Copies(cluster, world.clock)
        found = copies.find(run)
        assert found is not None
        part = copies.write(run, found.journal.name, [json.dumps({**found.head, **change})])
        ref = Ref("v1", "Secret", f"run-{run}-head", SPACE)
        index = json.loads(base64.b64decode(secrets(job)[ref.name]["data"]["head"]))
        index["head"] = {"name": part.name, "chunks": part.chunks, "size": part.size, "sha256": part.sha256}
        data = {"head": base64.b64encode(json.dumps(index).encode()).decode()}
        cluster.write(MergePatch(ref, {"data": data}))


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("example", EXAMPLES)
def test_lost_at_any_commit_the_copy_leads_to_the_uninterrupted_end(
    example: str, chunk: int, tmp_path: Path
) -> None:
    """At every third commit of the journal, each in a world of its own."""
    whole = uninterrupted(example)
    wrong: dict[str, list[str]] = {}
    for n in range(chunk * EVERY, len(whole.boundaries), CHUNKS * EVERY):
        job = make_job(tmp_path / str(n), example)
        first = job.apply(boundary=kill_at(n))
        assert first.code == KILLED, first.text
        lose(job)
        wrong[f"commit {n} ({whole.boundaries[n]})"] = departures(job, job.apply(), whole)
        shutil.rmtree(job.folder)
    assert {place: found for place, found in wrong.items() if found} == {}


def test_killed_in_node_2_with_its_folder_gone_it_goes_on_and_says_so(cold: Job) -> None:
    run = crash_and_lose(cold, COLD_REMAP_2)
    announced = [call for call in cold.log() if "packet-out" in call.text and call.node == "worker-01"]
    ended = cold.apply()
    assert ended.code == 0, ended.text
    assert f"Restored run {run}" in ended.out and "from its copy in the cluster" in ended.out
    assert f"Resuming run {run}" in ended.out
    assert cold.latest().id == run
    with cold.world() as world:
        shown = world.show()
    assert [name for name, node in shown["nodes"].items() if node["cordoned"]] == []
    homes = {name: vm["node"] for name, vm in shown["vms"].items() if vm["reachable"]}
    assert homes == {f"default/{kind}-{n}": f"worker-0{n}" for kind in ("talker", "silent") for n in (1, 2)}
    assert max(effects(cold.log()).values()) == 1
    again = [call for call in cold.log() if "packet-out" in call.text and call.node == "worker-01"]
    assert again == announced, "what is done on node 1 was announced once, and is not again"


def test_the_before_images_come_back_as_they_were_taken(hot: Job) -> None:
    ended = hot.apply(boundary=in_node_2())
    assert ended.code == KILLED
    run = hot.latest().id
    with hot.journal() as journal:
        taken = journal.image(run, "inventory", "inventory")
    lose(hot)
    assert hot.apply().code == 0
    with hot.journal() as journal:
        assert taken is not None and journal.image(run, "inventory", "inventory") == taken
    shown = hot.run("show", run, "--inventory")
    assert json.loads(shown.out)["sha256"] == taken[1]


def test_another_laptop_resumes_with_files_of_the_same_words_and_no_others(hot: Job, tmp_path: Path) -> None:
    run = crash_and_lose(hot)
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "network.yaml").write_text(NETWORK.replace("br-vmdata", "br-storage"))
    before = [call for call in hot.log() if is_mutating(call)]
    refused = hot.apply(str(other))
    assert refused.code == 1
    assert f"run {run} is not finished" in refused.err
    assert [call for call in hot.log() if is_mutating(call)] == before
    (other / "network.yaml").write_text(NETWORK)
    ended = hot.apply(str(other))
    assert ended.code == 0, ended.text


def test_status_without_a_state_database_tells_of_the_copy(hot: Job) -> None:
    run = crash_and_lose(hot)
    told = hot.run("status")
    assert told.code == 0, told.text
    assert f"Run {run}: interrupted" in told.out
    assert "is not there: this is from the copy in the cluster" in told.out and " kB in Secrets" in told.out
    assert "worker-01  done" in told.out and "worker-02  under way" in told.out
    assert "`ovsplan apply --twin world` resumes" in told.out
    assert not hot.state.exists(), "looking makes no database"


def test_abandoning_a_run_whose_state_database_is_lost(hot: Job) -> None:
    run = crash_and_lose(hot)
    ended = live(hot.folder, "abandon", run, "--twin", "world", "--reason", "we begin anew").wait()
    assert ended.code == 0, ended.text
    assert "worker-02 may still be cordoned" in ended.out
    lose(hot)
    again = hot.apply()
    assert again.code != 1 and "Restored" not in again.out, again.text


def test_the_first_laptop_takes_in_what_the_second_did(hot: Job) -> None:
    ended = hot.apply(boundary=in_node_2())
    assert ended.code == KILLED
    run = hot.latest().id
    second = ["--state", "second/state.db"]
    assert hot.apply(*second, boundary=kill_when("step-done", 3)).code == KILLED
    told = hot.run("status")
    assert "It went on elsewhere since" in told.out
    last = hot.apply()
    assert last.code == 0, last.text
    assert f"Run {run} went on elsewhere since" in last.out
    assert max(effects(hot.log()).values()) == 1


def test_the_first_laptop_is_told_when_the_second_has_finished(hot: Job) -> None:
    assert hot.apply(boundary=in_node_2()).code == KILLED
    assert hot.apply("--state", "second/state.db").code == 0
    before = [call for call in hot.log() if is_mutating(call)]
    ended = hot.apply()
    assert ended.code == 0, ended.text
    assert "was ended elsewhere meanwhile" in ended.out
    assert hot.latest().status == "done"
    assert [call for call in hot.log() if is_mutating(call)] == before


def test_two_folders_never_apply_at_the_same_time(hot: Job, halt: Halt) -> None:
    first = hot.begin("apply", boundary=halt.at("intent", 4))
    halt.await_reached(first)
    before = [call for call in hot.log() if is_mutating(call)]
    second = hot.apply("--state", "second/state.db")
    assert second.code == 6, second.text
    assert f"pid {first.pid}" in second.err and "another apply acts on this cluster" in second.err
    assert "`ovsplan force-unlock`" in second.err
    assert [call for call in hot.log() if is_mutating(call)] == before
    told = hot.run("status", "--state", "third/state.db")
    assert "acting on the cluster now" in told.out and f"pid {first.pid}" in told.out
    halt.go_on()
    assert first.wait().code == 0


def test_whoever_loses_the_lease_stops_before_the_next_op(hot: Job, halt: Halt) -> None:
    first = hot.begin("apply", boundary=halt.at("step-begun", 3))
    halt.await_reached(first)
    kept = live(hot.folder, "force-unlock", "--twin", "world", "--state", "none.db").wait()
    assert kept.code == 6 and f"process {first.pid} lives" in kept.err
    taken = live(hot.folder, "force-unlock", "--force", "--twin", "world", "--state", "none.db").wait()
    assert taken.code == 0 and f"pid {first.pid}" in taken.out, taken.text
    # The heartbeat is what tells it, and the copy is what it may not write over: whichever comes first.
    with hot.world() as world:
        cluster = world.edit().cluster
        head = Ref("v1", "Secret", f"run-{hot.latest().id}-head", SPACE)
        found = cluster.get(head)
        assert found is not None
        index = json.loads(base64.b64decode(found["data"]["head"]))
        data = {"head": base64.b64encode(json.dumps({**index, "store": "another"}).encode()).decode()}
        cluster.write(MergePatch(head, {"data": data}))
    before = [call for call in hot.log() if is_mutating(call)]
    halt.go_on()
    ended = first.wait()
    assert ended.code == 6, ended.text
    assert [call for call in hot.log() if is_mutating(call)] == before
    assert hot.latest().status == "stopped"


def spoiled(job: Job, run: str) -> Ended:
    before = [call for call in job.log() if is_mutating(call)]
    ended = job.apply()
    assert ended.code == 1 and not ended.crashed, ended.text
    assert [call for call in job.log() if is_mutating(call)] == before
    return ended


@pytest.mark.parametrize("part", ["plan", "journal", "images"])
def test_a_missing_piece_is_named_with_a_way_out(hot: Job, part: str) -> None:
    run = crash_and_lose(hot)
    names = [name for name in secrets(hot, run=run) if f"-{part}" in name]
    assert names
    with hot.world() as world:
        for name in names:
            world.edit().cluster.write(Delete(Ref("v1", "Secret", name, SPACE)))
    ended = spoiled(hot, run)
    assert f"the copy of run {run} in namespace ovsplan is damaged" in ended.err
    assert f"run-{run}-{part}" in ended.err and "is missing" in ended.err
    assert "oc delete secret" in ended.err


@pytest.mark.parametrize("part", ["plan", "journal", "images"])
def test_a_piece_that_was_changed_is_told_by_its_hash(hot: Job, part: str) -> None:
    run = crash_and_lose(hot)
    with hot.world() as world:
        for name in [name for name in secrets(hot, run=run) if f"-{part}" in name]:
            data = {"data": base64.b64encode(b"something else").decode()}
            world.edit().cluster.write(MergePatch(Ref("v1", "Secret", name, SPACE), {"data": data}))
    ended = spoiled(hot, run)
    assert "does not fit its hash" in ended.err and f"part {part}" in ended.err


def test_a_head_that_is_none_is_said_to_be_damaged(hot: Job) -> None:
    run = crash_and_lose(hot)
    with hot.world() as world:
        ref = Ref("v1", "Secret", f"run-{run}-head", SPACE)
        world.edit().cluster.write(MergePatch(ref, {"data": {"head": base64.b64encode(b"{}").decode()}}))
    assert "its head can't be read" in spoiled(hot, run).err


@pytest.mark.parametrize("change", [{"plan_format": FORMAT + 1}, {"format": 99}])
def test_a_run_of_another_version_says_which_can_finish_it(hot: Job, change: dict[str, Any]) -> None:
    run = crash_and_lose(hot)
    with hot.world() as world:
        found = Copies(world.cluster, world.clock).find(run)
    assert found is not None
    rewrite_head(hot, run, {**change, "run": {**found.head["run"], "version": "9.8.7"}})
    ended = spoiled(hot, run)
    assert "Finish that run with ovsplan 9.8.7" in ended.err
    assert str(next(iter(change.values()))) in ended.err


def test_a_copy_of_another_cluster_is_not_taken_up(hot: Job, tmp_path: Path) -> None:
    run = crash_and_lose(hot)
    kept = secrets(hot)
    other = job_of(tmp_path / "other", small_world(), {"network.yaml": NETWORK})
    with other.world() as world:
        cluster = world.edit().cluster
        cluster.write(Apply(Ref("v1", "Namespace", SPACE), {}, "backup"))
        for name, secret in kept.items():
            body = {"metadata": {"labels": secret["metadata"]["labels"]}, "data": secret["data"]}
            cluster.write(Apply(Ref("v1", "Secret", name, SPACE), body, "backup"))
    ended = spoiled(other, run)
    assert "is of another cluster" in ended.err


def test_without_a_copy_a_lost_database_is_lost(hot: Job) -> None:
    ended = hot.apply("--no-copy", boundary=in_node_2())
    assert ended.code == KILLED
    assert secrets(hot) == {}
    assert hot.apply("--no-copy").code == 0
    assert secrets(hot) == {}


def test_the_number_of_writes_does_not_grow_with_the_ops(cold: Job) -> None:
    """At most two heads, of two Secrets each, for an action that acts, one of images, and one each for begin and end."""
    ended = cold.apply()
    assert ended.code == 0, ended.text
    with cold.journal() as journal:
        run = journal.runs()[0]
        acting, actions = journal.acted(run.id), journal.plan_of(run).actions
    written = [call for call in cold.log() if call.text.startswith("Secret ") and call.verb == "apply"]
    assert 0 < len(written) <= 5 * len(acting) + 5 < 5 * len(actions)
    sizes = [len(base64.b64decode(v)) for s in secrets(cold).values() for v in s["data"].values()]
    assert max(sizes) < CHUNK


def test_the_last_five_finished_copies_are_kept(tmp_path: Path) -> None:
    job = job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK})
    assert job.apply().code == 0
    with job.world() as world:
        copies = Copies(world.edit().cluster, world.clock)
        made = secrets(job, part="head")
        (head,) = made.values()
        for n in range(1, KEPT + 2):
            labels = {**head["metadata"]["labels"], "ovsplan.io/run": f"2025010{n}-000000-0000"}
            ref = Ref("v1", "Secret", f"run-2025010{n}-000000-0000-head", SPACE)
            copies._cluster.write(
                Apply(ref, {"metadata": {"labels": labels}, "data": head["data"]}, "ovsplan")
            )
        copies.prune()
    kept = sorted(
        secret["metadata"]["labels"]["ovsplan.io/run"] for secret in secrets(job, part="head").values()
    )
    assert len(kept) == KEPT
    assert kept[0] == "20250103-000000-0000"
