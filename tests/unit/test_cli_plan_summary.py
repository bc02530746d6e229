"""The two lines that everybody reads: what is counted, and once each."""

from __future__ import annotations

from typing import Any

import click
import pytest

from cli.render.plan import render_plan, summary
from plans.actions import Action
from plans.document import FORMAT, Finding, NodePlan, Plan, ShownChange, Target


def change(verb: str, address: str = "node/n/bridge/b") -> ShownChange:
    return ShownChange(address, verb, "before", "after", "a reason")


def node(name: str, *verbs: str, **more: Any) -> NodePlan:
    fields = {"leaving": (), "staying": (), "dark": (), "affected": (), **more}
    return NodePlan(
        name, "hot", "because", "ovsdb", changes=tuple(change(v) for v in verbs), blocked=(), **fields
    )


def plan(*nodes: NodePlan, **more: Any) -> Plan:
    work = Action(id="inventory", routine="inventory@1", title="inventory", no_undo="it changes nothing")
    fields = {"findings": (), "actions": (work,), **more}
    return Plan(FORMAT, Target("a-cluster", "A CLUSTER"), "desired", nodes, **fields)


@pytest.mark.parametrize(
    ("made", "lines"),
    [
        (
            plan(node("a", "+", "+", "~"), node("b", "-")),
            ["Plan: 2 to add, 1 to change, 1 to destroy.", "Nodes: 2 (a, b)  Disruption: none"],
        ),
        (
            plan(node("a", "-/+"), cluster=(change("+"), change("~"), change("~"))),
            ["Plan: 2 to add, 2 to change, 1 to destroy.", "Nodes: 1 (a)  Disruption: none"],
        ),
        (
            plan(node("a", "~", affected=("default/x", "default/y")), node("b", "~", affected=("default/x",)), node("c", "~")),
            ["Plan: 0 to add, 3 to change, 0 to destroy.", "Nodes: 3 (a, b, c)  Disruption: vm-traffic on 2 nodes, 2 VMs"],
        ),
        (
            plan(node("a", "~", affected=("default/x",), reboots=True), node("b", unreadable="no route")),
            ["Plan: 0 to add, 1 to change, 0 to destroy.", "Nodes: 1 (a)  Disruption: vm-traffic on 1 node, 1 VM; 1 node restarts"],
        ),
        (
            plan(node("a", "~", reboots=True), node("b", "~", reboots=True)),
            ["Plan: 0 to add, 2 to change, 0 to destroy.", "Nodes: 2 (a, b)  Disruption: 2 nodes restart"],
        ),
        (
            plan(*(node(name, "~") for name in "abcdef")),
            ["Plan: 0 to add, 6 to change, 0 to destroy.", "Nodes: 6 (a, b, c, d, e, f)  Disruption: none"],
        ),
        (
            plan(*(node(name, "~") for name in "abcdefg")),
            ["Plan: 0 to add, 7 to change, 0 to destroy.", "Nodes: 7 (a, b, c, d, … g)  Disruption: none"],
        ),
    ],
)  # fmt: skip
def test_a_plan_is_counted(made: Plan, lines: list[str]) -> None:
    assert summary(made).splitlines() == lines


def test_a_hazard_of_many_nodes_is_told_of_three_and_the_rest_are_named() -> None:
    names = ["a", "b", "c", "d", "e"]
    hazards = tuple(Finding("H48", "warn", n, (), f"hot on {n}", "nothing to do") for n in reversed(names))
    told = click.unstyle(render_plan(plan(node("a", "~"), findings=hazards)))
    assert told.partition("Hazards\n")[2].partition("\n\n")[0].splitlines() == [
        "  H48 note: hot on a",
        "  H48 note: hot on b",
        "  H48 note: hot on c",
        "      (and the same for 2 more: d, e)",
        "      way out: nothing to do",
    ]


def test_what_blocks_comes_first_and_every_way_to_accept_it_is_named() -> None:
    hazards = (
        Finding("H03", "warn", "a", (), "a note", "look"),
        Finding("H14", "block", "b", (), "no room", "make room"),
        Finding("H18", "block", "c", (), "not Ready", "mend it"),
        Finding("H45", "block", "d", (), "taken", "none", accepted=True),
    )
    told = click.unstyle(render_plan(plan(node("a", "~"), findings=hazards)))
    heads = [line.strip() for line in told.splitlines() if line.startswith("  H")]
    assert heads == [
        "H14 BLOCKS: no room",
        "H18 BLOCKS: not Ready",
        "H03 note: a note",
        "H45 ACCEPTED: taken",
    ]
    assert told.endswith(
        "Blocked by H14, H18. Mend it as said above, or accept it by id: --accept-hazard H14 --accept-hazard H18"
    )
