"""Order: actions after what they need, always in the same sequence, and a cycle is named."""

from __future__ import annotations

import random

import pytest

from plans.actions import Action, Need
from plans.errors import PlanError
from plans.order import graph, order, reduced, serialise


def action(name: str, *needs: str) -> Action:
    return Action(id=name, routine="verify@1", title=name, needs=tuple(Need(n, "because") for n in needs))


def ids(actions: list[Action]) -> list[str]:
    return [a.id for a in actions]


def test_each_action_comes_after_what_it_needs() -> None:
    assert ids(order([action("c", "b"), action("b", "a"), action("a")])) == ["a", "b", "c"]


def test_ties_keep_the_order_in_which_they_were_given() -> None:
    assert ids(order([action("z"), action("a"), action("m", "a")])) == ["z", "a", "m"]


def test_the_order_of_a_plan_does_not_depend_on_luck() -> None:
    actions = [action(str(n), *(str(m) for m in range(n) if m % 3 == 0)) for n in range(30)]
    expected = ids(order(actions))
    for seed in range(5):
        shuffled = [
            Action(id=a.id, routine=a.routine, title=a.title, needs=tuple(random.Random(seed).sample(a.needs, len(a.needs))))
            for a in actions
        ]  # fmt: skip
        assert ids(order(shuffled)) == expected


def test_a_cycle_is_named() -> None:
    with pytest.raises(PlanError) as refused:
        order([action("a", "c"), action("b", "a"), action("c", "b"), action("free")])
    told = str(refused.value)
    assert told.startswith("the plan has a cycle: ")
    assert set(told.removeprefix("the plan has a cycle: ").split(" -> ")) == {"a", "b", "c"}


def test_a_need_that_is_not_in_the_plan_is_named() -> None:
    with pytest.raises(PlanError, match=r"^a needs lost, which is not in the plan$"):
        order([action("a", "lost")])


def test_two_actions_of_one_id_are_refused() -> None:
    with pytest.raises(PlanError, match="two actions have the same id"):
        order([action("a"), action("a")])


def test_a_node_begins_after_the_node_before_it_has_ended() -> None:
    chain = serialise([action("inventory")], [[action("1/a"), action("1/b", "1/a")], [action("2/a")]], [])
    assert [need.action for need in chain[1].needs] == ["inventory"]
    assert [(need.action, need.reason) for need in chain[3].needs] == [("1/b", "one node at a time")]
    assert graph(chain).has_edge("1/b", "2/a")


def test_what_is_shown_of_a_bracket_has_no_edge_that_others_imply() -> None:
    assert sorted(reduced([action("a"), action("b", "a"), action("c", "a", "b")]).edges) == [
        ("a", "b"),
        ("b", "c"),
    ]
