"""Prediction: a routine is stepped to its end on the facts that the actions before it leave."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from plans import actions
from plans.actions import Action, Done, Finished, Invocation, Next, Perform, Routine, Step, Stop
from plans.checks import Check
from plans.errors import InputError, PlanError
from plans.facts import ABSENT, Facts, Known, Later, Unknown
from plans.ops import AnyOp, Record, Transact, Wait
from plans.predict import assumed, predict


def op(label: str, *changes: Any) -> Transact:
    return Transact(
        label=label, title=label, node="n", operations=(), changes=changes, commands=(f"do {label}",)
    )


def action(name: str, **more: Any) -> Action:
    return Action(id=name, routine=f"{name}@1", title=name, **{"no_undo": "a test", **more})


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Registers routines for one test: name → step, with `rescue` and `contingent`."""

    def add(name: str, step: Step, **more: Any) -> None:
        monkeypatch.setitem(actions._ROUTINES, f"{name}@1", Routine(f"{name}@1", step, **more))

    return add


def once(*ops: AnyOp) -> Step:
    """A step that performs its ops as one burst, then ends."""
    return lambda args, facts, done: Finished() if ops[0].label in done.outcomes else Perform(ops)


def test_an_action_shows_its_ops_and_what_they_change(register: Any) -> None:
    register("move", once(op("one", ("x", Known("b"))), op("two", ("x", Known("c")))))
    (made,) = predict([action("move")], Facts({"x": Known("a")}))
    assert [o.label for o in made.ops] == ["one", "two"]
    assert [(e.path, e.before, e.after) for e in made.effects] == [("x", "a", "c")]
    assert all(o.changes == () for o in made.ops)


def test_an_action_sees_the_world_as_those_before_it_leave_it(register: Any) -> None:
    register("first", once(op("one", ("x", Known("moved")))))
    register("second", lambda args, facts, done: Stop("x") if facts.value("x") != "moved" else Finished())
    first, second = predict([action("first"), action("second")], Facts({"x": Known("a")}))
    assert (len(first.ops), second.ops) == (1, ())


def test_a_plan_does_not_change_the_facts_that_it_is_made_from(register: Any) -> None:
    register("move", once(op("one", ("x", Known("b")))))
    facts = Facts({"x": Known("a")})
    predict([action("move")], facts)
    assert facts.value("x") == "a"


def test_a_step_that_stops_in_prediction_is_no_plan(register: Any) -> None:
    register("move", lambda args, facts, done: Stop("the bridge has no uplink"))
    with pytest.raises(PlanError, match=r"^move: the bridge has no uplink$"):
        predict([action("move")], Facts({}))


def test_a_step_that_never_ends_is_no_plan(register: Any) -> None:
    register("move", lambda args, facts, done: Perform((op("again"),)))
    with pytest.raises(PlanError, match=r"^move: no end after 500 steps$"):
        predict([action("move")], Facts({}))


def test_a_routine_that_this_version_lacks_is_named_with_those_it_has(register: Any) -> None:
    register("move", once(op("one")))
    newer = Action(id="move", routine="move@2", title="move", no_undo="a test")
    with pytest.raises(InputError, match=r"needs routine move@2, .*\(it knows move@1\)"):
        predict([newer], Facts({}))


def test_what_only_the_run_can_know_is_said_so(register: Any) -> None:
    register("leave", once(op("go", ("vm/a/node", Later("leave", "a schedulable node")))))
    (made,) = predict([action("leave")], Facts({"vm/a/node": Known("worker-01")}))
    assert made.effects[0].after == "(known after apply)"


@pytest.mark.parametrize(
    ("check", "fact"),
    [
        (Check("p", "eq", "on"), Known("on")),
        (Check("p", "absent"), ABSENT),
        (Check("p", "min", 15), Known(15)),
        (Check("p", "has", ["a"]), Known(["a"])),
    ],
)
def test_a_wait_is_taken_as_come_true(check: Check, fact: Any) -> None:
    wait = Wait(label="w", title="w", checks=(check,), deadline=1)
    assert dict(assumed(wait)) == {"p": fact}


def test_two_waits_for_one_list_come_true_together() -> None:
    checks = (Check("p", "has", ["a"]), Check("p", "has", ["b"]))
    assert dict(assumed(Wait(label="w", title="w", checks=checks, deadline=1))) == {"p": Known(["a", "b"])}


def test_what_a_record_saw_reaches_the_action_that_uses_it(register: Any) -> None:
    seen: list[Any] = []

    def use(args: Any, facts: Facts, done: Done) -> Next:
        seen.append(done.used["look"]["before"])
        return Finished()

    register("look", once(Record(label="before", title="look", views=("ovs:n",))))
    register("use", use)
    facts = Facts({"node/n/ovs/mapping/a": Known("b"), "node/m/ovs/mapping/a": Known("c"), "x": Unknown("y")})
    predict([action("look"), action("use", uses=("look",))], facts)
    assert seen == [{"node/n/ovs/mapping/a": "b"}]


def test_a_rescue_is_shown_and_changes_nothing_that_follows(register: Any) -> None:
    register("move", once(op("one")), rescue=once(op("back", ("x", Known("cordoned")))))
    register("after", lambda args, facts, done: Stop("x") if facts.value("x") != "free" else Finished())
    moved, _ = predict([action("move"), action("after")], Facts({"x": Known("free")}))
    assert [o.label for o in moved.on_failure] == ["back"]


def test_what_may_be_needed_is_shown_apart_from_what_will_be_done(register: Any) -> None:
    register("move", once(op("one")), contingent=lambda args, facts: (op("one"), op("rebuild")))
    (made,) = predict([action("move")], Facts({}))
    assert [o.label for o in made.contingent] == ["rebuild"]


def test_what_is_done_anyway_is_not_kept_once_more_under_another_label(register: Any) -> None:
    again, other = replace(op("one"), label="one:otherwise"), replace(op("one"), label="x", node="m")
    register("move", once(op("one")), contingent=lambda args, facts: (again, other))
    (made,) = predict([action("move")], Facts({}))
    assert [o.label for o in made.contingent] == ["x"]


def test_an_undo_is_told_on_the_world_as_the_action_leaves_it(register: Any) -> None:
    def back(args: Any, facts: Facts, done: Done) -> Next:
        return Perform((op("back", ("x", Known("a"))),)) if facts.value("x") == "b" else Finished()

    register("move", once(op("one", ("x", Known("b")))))
    register("back", back)
    undo = (Invocation("back@1", {}, ()),)
    (made,) = predict([action("move", undo=undo, no_undo="")], Facts({"x": Known("a")}))
    assert made.undo_commands == ("[n] do back",)
