"""The journal: what was written before and after each op comes back, and nothing of it can be rewritten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from plans.actions import Action
from plans.checks import Check
from plans.document import FORMAT, Plan, Target, sealed, write
from plans.errors import InputError, JournalError, Locked
from plans.ops import ObjectRef, Patch, Record, Run, Wait
from state.journal import Journal, Outcome
from state.lock import Lock, force_unlock, who_am_i
from state.store import Store

IDENTITY = "cluster-1"


def some_plan(name: str = "a") -> Plan:
    action = Action(id=f"n/{name}", routine="verify@1", title="verify", no_undo="it changes nothing")
    return sealed(Plan(FORMAT, Target(IDENTITY, "SIMULATED"), "desired", (), (), (action,)))


def patch_op(label: str) -> Patch:
    return Patch(label=label, title=label, ref=ObjectRef("v1", "Node", "n"), patch={"spec": {}})


def run_op(label: str) -> Run:
    return Run(label=label, title=label, node="n", argv=("ovs-ofctl", "packet-out"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state.db", IDENTITY, create=True)
    yield opened
    opened.close()


@pytest.fixture
def journal(store: Store) -> Journal:
    return Journal(store)


def begun(journal: Journal, run: str = "run-1", plan: Plan | None = None) -> str:
    journal.start_run(plan or some_plan(), run, 100.0, "ann", "0.1.0", "/files\n/more")
    return run


def test_a_run_comes_back_with_its_plan(journal: Journal) -> None:
    begun(journal)
    (run,) = journal.runs()
    assert (run.id, run.status, run.began, run.who, run.source) == (
        "run-1",
        "running",
        100.0,
        "ann",
        "/files\n/more",
    )
    assert write(journal.plan_of(run)) == write(some_plan())


def test_an_unfinished_run_bars_the_next_one_and_names_both_ways_out(journal: Journal) -> None:
    begun(journal)
    with pytest.raises(JournalError) as refused:
        begun(journal, "run-2")
    assert str(refused.value) == (
        "run run-1 is not finished: `ovsplan apply` resumes it, `ovsplan abandon run-1` gives it up."
    )
    assert [run.id for run in journal.runs()] == ["run-1"]


@pytest.mark.parametrize("status", ["stopped", "failed", "moved", "running"])
def test_a_run_that_did_not_end_is_found_again(journal: Journal, status: str) -> None:
    begun(journal)
    journal.set_run("run-1", status, "why")
    found = journal.unfinished()
    assert found is not None and (found.id, found.message) == ("run-1", "why")


def test_a_run_that_is_over_lets_the_next_one_begin(journal: Journal) -> None:
    for number, end in enumerate(("done", "partial")):
        begun(journal, f"run-{number}")
        journal.set_run(f"run-{number}", end, ended=200.0)
    begun(journal, "given-up")
    journal.abandon("given-up", "wrong night", 300.0)
    assert journal.unfinished() is None
    assert [run.id for run in journal.runs()] == ["given-up", "run-1", "run-0"]
    assert journal.runs()[0].message == "wrong night"


def test_a_run_is_found_by_the_beginning_of_its_id(journal: Journal) -> None:
    begun(journal, "20260115-a")
    journal.set_run("20260115-a", "done")
    begun(journal, "20260116-b")
    assert journal.find_run("20260115").id == "20260115-a"
    with pytest.raises(InputError, match=r"^more than one run '2026' .*the latest: 20260116-b, 20260115-a$"):
        journal.find_run("2026")
    with pytest.raises(InputError, match=r"^no run 'x' "):
        journal.find_run("x")
    journal.set_run("20260116-b", "done")
    begun(journal, "20260116-bb")
    assert journal.find_run("20260116-b").id == "20260116-b", "a whole id is no beginning of another"


def test_an_intent_without_an_outcome_is_in_doubt(journal: Journal) -> None:
    begun(journal)
    step = journal.begin_step("run-1", "n/a", 101.0)
    journal.intent(step, [run_op("one"), run_op("two")], 102.0)
    assert journal.done("run-1", "n/a", step.attempt).outcomes == {"one": "doubt", "two": "doubt"}
    assert [(e.label, e.outcome, e.intent_at) for e in journal.events("run-1", "n/a")] == [
        ("one", None, 102.0),
        ("two", None, 102.0),
    ]


def test_the_outcomes_of_a_burst_come_back_with_their_results(journal: Journal) -> None:
    begun(journal)
    step = journal.begin_step("run-1", "n/a", 101.0)
    ids = journal.intent(step, [run_op("one"), run_op("two"), run_op("three")], 102.0)
    journal.outcomes(ids, [Outcome("one", "done", {"x": [1]}), Outcome("two", "failed", message="no")], 103.0)
    done = journal.done("run-1", "n/a", step.attempt)
    assert done.outcomes == {"one": "done", "two": "failed", "three": "not-begun"}
    assert done.results == {"one": {"x": [1]}}
    assert done.attempts == {"one": 1, "two": 1, "three": 1}
    assert [e.message for e in journal.events("run-1", "n/a")] == ["", "no", ""]


def test_of_an_earlier_attempt_only_what_was_done_for_good_counts(journal: Journal) -> None:
    begun(journal)
    first = journal.begin_step("run-1", "n/a", 101.0)
    wait = Wait(label="healthy", title="w", checks=(Check("p", "present"),), deadline=1)
    burst = [patch_op("moved"), patch_op("lost"), wait, patch_op("doubtful")]
    ids = journal.intent(first, burst, 102.0)
    ends = [Outcome("moved", "done"), Outcome("lost", "failed"), Outcome("healthy", "done")]
    journal.outcomes(ids[:3], ends, 103.0)
    journal.end_step(first, "failed", 104.0, "x")
    second = journal.begin_step("run-1", "n/a", 105.0)
    assert second.attempt == 2
    done = journal.done("run-1", "n/a", second.attempt)
    assert (done.outcomes, done.attempts) == ({"moved": "done", "doubtful": "doubt"}, {})


def test_an_announcement_of_an_earlier_attempt_may_have_been_overtaken(journal: Journal) -> None:
    begun(journal)
    first = journal.begin_step("run-1", "n/a", 101.0)
    journal.outcomes(journal.intent(first, [run_op("announce")], 102.0), [Outcome("announce", "done")], 103.0)
    assert journal.done("run-1", "n/a", first.attempt).has("announce")
    second = journal.begin_step("run-1", "n/a", 105.0)
    assert journal.done("run-1", "n/a", second.attempt).outcomes == {}


def test_nothing_counts_that_lies_before_a_persons_not_done(journal: Journal) -> None:
    begun(journal)
    first = journal.begin_step("run-1", "n/a", 101.0)
    journal.outcomes(journal.intent(first, [patch_op("moved")], 102.0), [Outcome("moved", "done")], 103.0)
    journal.mark("run-1", "n/a", "marked-not-done", "undone by hand", 104.0)
    again = journal.begin_step("run-1", "n/a", 105.0)
    assert journal.done("run-1", "n/a", again.attempt).outcomes == {}


def test_an_action_sees_the_results_of_those_it_uses(journal: Journal) -> None:
    begun(journal)
    step = journal.begin_step("run-1", "n/remap", 101.0)
    ids = journal.intent(step, [Record(label="before", title="r")], 102.0)
    journal.outcomes(ids, [Outcome("before", "done", {"fdb": []})], 103.0)
    assert journal.done("run-1", "n/prove", 1, ["n/remap"]).used == {"n/remap": {"before": {"fdb": []}}}


def test_the_latest_attempt_of_each_action_is_told(journal: Journal) -> None:
    begun(journal)
    journal.end_step(journal.begin_step("run-1", "n/a", 101.0), "failed", 102.0, "no answer")
    journal.end_step(journal.begin_step("run-1", "n/a", 103.0), "done", 104.0, "seen: web-1", True)
    row = journal.steps("run-1")["n/a"]
    assert (row.attempt, row.status, row.note, row.proven, row.is_done) == (
        2,
        "done",
        "seen: web-1",
        True,
        True,
    )


@pytest.mark.parametrize(("word", "over"), [("marked-done", True), ("marked-not-done", False)])
def test_a_persons_word_stands_with_its_reason_and_in_the_audit(
    journal: Journal, store: Store, word: str, over: bool
) -> None:
    begun(journal)
    journal.mark("run-1", "n/a", word, "done by hand", 110.0)
    row = journal.steps("run-1")["n/a"]
    assert (row.status, row.note, row.is_done) == (word, f"{who_am_i()}: done by hand", over)
    with store.read() as db:
        audit = [r.what for r in db.execute(text("SELECT what FROM audit"))]
    assert audit == [f"mark n/a of run run-1 {word.removeprefix('marked-')}: done by hand"]


def test_a_stop_is_asked_once_and_forgotten_when_the_run_goes_on(journal: Journal) -> None:
    begun(journal)
    assert journal.stop_requested("run-1") is None
    journal.request_stop("run-1", "ann", 1.0)
    journal.request_stop("run-1", "bob", 2.0)
    assert journal.stop_requested("run-1") == "ann"
    journal.set_run("run-1", "stopped")
    assert journal.stop_requested("run-1") == "ann"
    journal.set_run("run-1", "running")
    assert journal.stop_requested("run-1") is None


def test_a_before_image_comes_back_with_its_hash(journal: Journal) -> None:
    begun(journal)
    digest = journal.keep_image("run-1", "inventory", "inventory", {"b": 1, "a": [2]}, 5.0)
    assert journal.image("run-1", "inventory", "inventory") == (5.0, digest, '{"a":[2],"b":1}')
    assert journal.image("run-1", "inventory", "other") is None


def test_a_second_image_of_the_same_name_does_not_replace_the_first(journal: Journal) -> None:
    begun(journal)
    journal.keep_image("run-1", "inventory", "inventory", "first", 5.0)
    journal.keep_image("run-1", "inventory", "inventory", "second", 6.0)
    found = journal.image("run-1", "inventory", "inventory")
    assert found is not None and found[2] == '"first"'


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("images", "UPDATE images SET content = 'x'"),
        ("images", "DELETE FROM images"),
        ("plans", "UPDATE plans SET document = 'x'"),
        ("plans", "DELETE FROM plans"),
        ("audit", "UPDATE audit SET what = 'x'"),
        ("audit", "DELETE FROM audit"),
    ],
)
def test_images_plans_and_the_audit_cannot_be_rewritten(
    journal: Journal, store: Store, table: str, change: str
) -> None:
    begun(journal)
    journal.keep_image("run-1", "inventory", "inventory", "x", 5.0)
    journal.mark("run-1", "n/a", "marked-done", "why", 1.0)
    with pytest.raises(JournalError, match=f"{table} are immutable"), store.write() as db:
        db.execute(text(change))


def test_an_image_that_was_tampered_with_is_not_believed(journal: Journal, store: Store) -> None:
    begun(journal)
    journal.keep_image("run-1", "inventory", "inventory", "x", 5.0)
    with store.write() as db:
        db.execute(text("DROP TRIGGER images_no_update"))
        db.execute(text("UPDATE images SET content = '\"y\"'"))
    with pytest.raises(
        JournalError, match=r"the before-image inventory of inventory .* it was tampered with"
    ):
        journal.image("run-1", "inventory", "inventory")


def test_a_plan_that_was_tampered_with_is_not_carried_out(journal: Journal, store: Store) -> None:
    begun(journal)
    with store.write() as db:
        db.execute(text("DROP TRIGGER plans_no_update"))
        db.execute(text("UPDATE plans SET document = replace(document, 'n/a', 'n/b')"))
    with pytest.raises(InputError, match="was changed after it was made"):
        journal.plan_of(journal.runs()[0])


def test_a_run_without_its_plan_is_a_damaged_database(journal: Journal, store: Store) -> None:
    begun(journal)
    with store.write() as db:
        db.execute(text("DROP TRIGGER plans_no_delete"))
        db.execute(text("DELETE FROM plans"))
    with pytest.raises(JournalError, match="has run run-1 and not its plan"):
        journal.plan_of(journal.runs()[0])


def test_who_lost_the_lock_writes_nothing_more(store: Store) -> None:
    with Lock(store, "ovsplan apply") as lock:
        fenced = Journal(store, lock)
        begun(fenced)
        step = fenced.begin_step("run-1", "n/a", 1.0)
        force_unlock(store)
        for write_something in (
            lambda: fenced.intent(step, [run_op("one")], 2.0),
            lambda: fenced.set_run("run-1", "done"),
            lambda: fenced.begin_step("run-1", "n/b", 2.0),
            lambda: fenced.end_step(step, "done", 2.0),
            lambda: fenced.keep_image("run-1", "n/a", "x", {}, 2.0),
        ):
            with pytest.raises(Locked, match="was taken away"):
                write_something()
    reader = Journal(store)
    assert reader.events("run-1", "n/a") == []
    assert (reader.runs()[0].status, list(reader.steps("run-1"))) == ("running", ["n/a"])


def test_what_may_have_changed_the_world_is_told_apart_from_what_only_looked(journal: Journal) -> None:
    begun(journal)
    step = journal.begin_step("run-1", "n/a", 101.0)
    look = Record(label="look", title="look", views=("nodes",))
    words = {"done": "done", "first": "first", "doubt": "doubt", "failed": "failed"}
    for name, word in words.items():
        ids = journal.intent(step, [patch_op(name), look], 102.0)
        journal.outcomes(ids, [Outcome(name, word), Outcome("look", "done")], 103.0)
    journal.intent(step, [patch_op("open")], 104.0)
    assert journal.acted("run-1") == {"n/a": ["done", "first", "doubt", "open"]}


def test_of_an_earlier_attempt_a_look_in_doubt_says_nothing_and_what_was_first_lasts(
    journal: Journal,
) -> None:
    begun(journal)
    step = journal.begin_step("run-1", "n/a", 101.0)
    look = Record(label="look", title="look", views=("nodes",))
    ids = journal.intent(step, [patch_op("mine"), look], 102.0)
    journal.outcomes(ids, [Outcome("mine", "first"), Outcome("look", "doubt")], 103.0)
    assert journal.done("run-1", "n/a", 2).outcomes == {"mine": "first"}
    assert journal.done("run-1", "n/a", 1).outcomes == {"mine": "first", "look": "doubt"}


def test_giving_a_run_up_stands_in_the_audit(journal: Journal, store: Store) -> None:
    begun(journal)
    journal.abandon("run-1", "another night", 105.0)
    (run,) = journal.runs()
    assert (run.status, run.message, run.ended) == ("abandoned", "another night", 105.0)
    with store.read() as db:
        assert db.execute(text("SELECT what FROM audit")).scalars().all() == [
            "abandon run run-1: another night"
        ]
