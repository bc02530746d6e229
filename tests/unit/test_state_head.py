"""The head of a run: another store that takes it in says the same of what is to do, and keeps little of what is done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plans.actions import Action
from plans.document import FORMAT, Plan, Target, canonical, sealed
from plans.errors import InputError, JournalError
from plans.ops import AnyOp, ObjectRef, Patch, Record, Wait
from state.head import Image, check, head_of, images_after, take_in
from state.journal import Journal, Outcome
from state.store import Store

RUN = "run-1"
IDENTITY = "cluster-1"


def some_action(name: str, *uses: str) -> Action:
    return Action(id=name, routine="verify@1", title=name, uses=uses, no_undo="a test")


PLAN = sealed(
    Plan(
        FORMAT,
        Target(IDENTITY, "SIMULATED"),
        "desired",
        (),
        (),
        (some_action("a"), some_action("b"), some_action("c", "a")),
    )
)
MOVE = Patch(label="move", title="move it", ref=ObjectRef("v1", "Node", "n"), patch={"spec": {"a": 1}})
LOOK = Record(label="before", title="look", views=("nodes",))
AWAIT = Wait(label="until", title="until it is", checks=(), deadline=1.0)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    made = [Store(tmp_path / name / "state.db", IDENTITY, create=True) for name in ("first", "second")]
    yield made[0], made[1]
    for store in made:
        store.close()


def did(journal: Journal, action: str, *ops: tuple[AnyOp, Any], end: str | None = "done") -> None:
    """One attempt of an action; a result of None is an op in doubt."""
    step = journal.begin_step(RUN, action, 1.0)
    for op, result in ops:
        ids = journal.intent(step, [op], 2.0)
        if result is not None:
            journal.outcomes(ids, [Outcome(op.label, "done", result)], 3.0)
    if end:
        journal.end_step(step, end, 4.0, f"{action} is {end}", True)


def moved_over(stores: tuple[Store, Store], **change: Any) -> Journal:
    """The second store, once it has the head of the first one's run."""
    first, second = stores
    head = json.loads(canonical(head_of(first, Journal(first).find_run(RUN), PLAN)))
    images = [replace(image, id=0) for image in images_after(first, RUN, 0)]
    take_in(second, {**head, **change}, canonical(PLAN), images, "")
    return Journal(second)


@pytest.fixture
def journal(stores: tuple[Store, Store]) -> Journal:
    made = Journal(stores[0])
    made.start_run(PLAN, RUN, 100.0, "ann", "0.1.0", "/files")
    return made


def told(journal: Journal, action: str, uses: tuple[str, ...] = ()) -> Any:
    return journal.done(RUN, action, 9, uses)


def test_the_run_and_its_plan_come_over(stores: tuple[Store, Store], journal: Journal) -> None:
    journal.set_run(RUN, "failed", "it broke")
    other = moved_over(stores)
    run = other.unfinished()
    assert run is not None and (run.id, run.status, run.began, run.who, run.message, run.source) == (
        RUN,
        "failed",
        100.0,
        "ann",
        "it broke",
        "",
    )
    assert other.plan_of(run) == PLAN


def test_what_is_done_in_doubt_and_to_do_is_the_same_there(
    stores: tuple[Store, Store], journal: Journal
) -> None:
    did(journal, "a", (LOOK, {"seen": [1]}), (MOVE, {}))
    did(journal, "b", (LOOK, {"seen": [2]}), (AWAIT, {}), (MOVE, None), end=None)
    other = moved_over(stores)
    for name in ("a", "b"):
        assert replace(other.steps(RUN)[name], id=0) == replace(journal.steps(RUN)[name], id=0)
    assert told(other, "b") == told(journal, "b")
    assert told(other, "b").outcomes["move"] == "doubt"
    assert told(other, "c", ("a",)).used["a"]["before"] == {"seen": [1]}
    assert set(other.acted(RUN)) == set(journal.acted(RUN)) == {"a", "b"}


def test_of_what_is_done_only_the_end_is_kept_and_what_will_be_read(
    stores: tuple[Store, Store], journal: Journal
) -> None:
    did(journal, "a", (LOOK, {"seen": [1]}), (MOVE, {}), *[(AWAIT, {})] * 50)
    did(journal, "b", (LOOK, {"seen": [2]}), (MOVE, {}), *[(AWAIT, {})] * 50)
    head = head_of(stores[0], journal.find_run(RUN), PLAN)
    kept = [(event["action"], event["op"]["op"]) for event in head["events"]]
    assert sorted(kept) == [("a", "patch"), ("a", "record"), ("b", "patch")]
    did(journal, "c", (MOVE, {}))
    over = head_of(stores[0], journal.find_run(RUN), PLAN)
    assert [(event["action"], event["op"]["op"]) for event in over["events"]] == [
        (name, "patch") for name in ("a", "b", "c")
    ]


def test_a_persons_word_comes_over(stores: tuple[Store, Store], journal: Journal) -> None:
    did(journal, "a", (MOVE, {}))
    did(journal, "b", (MOVE, {}))
    journal.mark(RUN, "a", "marked-not-done", "it is not", 5.0)
    journal.mark(RUN, "b", "marked-done", "it is", 5.0)
    other = moved_over(stores)
    assert told(other, "a").outcomes == {}
    assert [other.steps(RUN)[name].status for name in ("a", "b")] == ["marked-not-done", "marked-done"]
    assert other.begin_step(RUN, "a", 6.0).attempt == 3


def test_images_come_over_and_once(stores: tuple[Store, Store], journal: Journal) -> None:
    journal.keep_image(RUN, "a", "before", {"x": "ü"}, 7.0)
    for _ in range(2):
        other = moved_over(stores)
    assert other.image(RUN, "a", "before") == journal.image(RUN, "a", "before")
    assert len(images_after(stores[1], RUN, 0)) == 1


def test_a_newer_head_replaces_what_was_there(stores: tuple[Store, Store], journal: Journal) -> None:
    did(journal, "a", (MOVE, None), end=None)
    moved_over(stores)
    did(journal, "a", (MOVE, {}))
    other = moved_over(stores)
    assert other.steps(RUN)["a"].is_done
    assert len(other.runs()) == 1


def test_a_newer_head_leaves_a_run_where_it_stood_and_came_from(
    stores: tuple[Store, Store], journal: Journal
) -> None:
    second = Journal(stores[1])
    second.start_run(PLAN, RUN, 90.0, "ann", "0.1.0", "/mine")
    second.set_run(RUN, "done")
    second.start_run(PLAN, "run-2", 95.0, "ann", "0.1.0")
    second.set_run("run-2", "done")
    other = moved_over(stores)
    assert [(run.id, run.source) for run in other.runs()] == [("run-2", ""), (RUN, "/mine")]


def test_an_image_that_was_changed_is_refused_and_nothing_is_written(
    stores: tuple[Store, Store], journal: Journal
) -> None:
    head = json.loads(canonical(head_of(stores[0], journal.find_run(RUN), PLAN)))
    with pytest.raises(JournalError, match="before of a does not fit its hash"):
        take_in(stores[1], head, canonical(PLAN), [Image(0, "a", "before", 1.0, "0" * 64, "{}")], "")
    assert Journal(stores[1]).runs() == []


def test_a_head_that_makes_no_sense_is_refused_and_nothing_is_written(
    stores: tuple[Store, Store], journal: Journal
) -> None:
    with pytest.raises(JournalError, match="makes no sense"):
        moved_over(stores, events=[{"action": "a"}])
    assert Journal(stores[1]).runs() == []


@pytest.mark.parametrize("key", ["format", "plan_format"])
def test_a_head_of_another_version_is_refused_with_that_version(
    stores: tuple[Store, Store], journal: Journal, key: str
) -> None:
    head = head_of(stores[0], journal.find_run(RUN), PLAN)
    check(head, "it")
    with pytest.raises(
        InputError, match=r"it was made by ovsplan 0.1.0, with .*format 99.*Finish that run with"
    ):
        check({**head, key: 99}, "it")
