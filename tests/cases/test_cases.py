"""Runs every case file: `<kind>/<situation>.yaml`.

A case says `about` (the situation, and why the plan is right), `desired` (the files' text), `world` (laid upon
base.yaml), `edits` (what was done by hand), `only` and `accept` (--node, --accept-hazard), and under `expect` all that
the plan says. Adding a case needs no Python: write it without `expect`, run with OVSPLAN_WRITE_CASES=1, and read what
was written before you believe it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from support.edits import apply_edit
from support.planning import declared, make_world, planned

from cli.render.plan import render_plan
from plans.actions import Action, find_routine
from plans.document import Plan, read, write
from plans.errors import OvsplanError
from plans.kinds import CLUSTER_KINDS, KINDS
from plans.ops import AnyOp, Create, Patch, Run, Transact, shape
from plans.readings.cluster import NAD, VM
from plans.readings.l2advertisements import ADVERTISEMENT

HERE = Path(__file__).parent
CASES = {f"{path.parent.name}/{path.stem}": path for path in sorted(HERE.glob("*/*.yaml"))}
PLANNED = [name for name, path in CASES.items() if "\n  error:" not in path.read_text()]
WRITE = bool(os.environ.get("OVSPLAN_WRITE_CASES"))
EXPECT = "\nexpect:\n"
FIELDS = {"about", "desired", "world", "edits", "only", "accept", "expect"}

Outcome = Plan | OvsplanError


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The plan of each case, or the error in its place; made once, however many tests look at it."""
    made: dict[str, Outcome] = {}

    def outcome(name: str) -> Outcome:
        if name not in made:
            made[name] = _plan(load(name), tmp_path_factory.mktemp("case") / "world")
        return made[name]

    return outcome


def load(name: str) -> dict[str, Any]:
    case: dict[str, Any] = yaml.safe_load(CASES[name].read_text())
    assert not set(case) - FIELDS, f"{name}: unknown fields {sorted(set(case) - FIELDS)}"
    return case


def _plan(case: Mapping[str, Any], folder: Path) -> Outcome:
    with make_world(folder, case.get("world")) as world:
        for edit in case.get("edits", ()):
            apply_edit(world, edit)
        try:
            desired = declared(case["desired"])
            return planned(world, desired, accepted=case.get("accept", ()), only=case.get("only", ()))
        except OvsplanError as error:
            return error


def test_every_kind_has_its_cases() -> None:
    assert {name.partition("/")[0] for name in CASES} == {*KINDS, *CLUSTER_KINDS}


@pytest.mark.parametrize("name", CASES)
def test_the_plan_is_what_the_case_expects(name: str, outcomes: Any) -> None:
    told = tell(outcomes(name))
    if WRITE:
        _rewrite(CASES[name], told)
    expected = load(name).get("expect")
    assert expected is not None, f"{name} expects nothing yet: see the head of this file"
    assert told.pop("text", None) == expected.pop("text", None)
    assert told == expected


def tell(outcome: Outcome) -> dict[str, Any]:
    """All that a plan says, as a case file writes it. What is empty is left out."""
    if isinstance(outcome, OvsplanError):
        return {"error": str(outcome)}
    told = {
        "changes": [
            {"address": c.address, "verb": c.verb, "before": c.before, "after": c.after}
            for c in (*outcome.cluster, *(c for node in outcome.nodes for c in node.changes))
        ],
        "blocked": {b.address: list(b.reasons) for node in outcome.nodes for b in node.blocked}
        | {f"node/{node.node}": [node.unreadable] for node in outcome.nodes if node.unreadable}
        | {b.address: list(b.reasons) for b in outcome.cluster_blocked},
        "hazards": [_hazard(f.id, f.level, f.accepted, f.node) for f in outcome.findings],
        "actions": {action.id: list(_ops(action)) for action in outcome.actions},
        "text": _plain(render_plan(outcome)),
    }
    return {field: value for field, value in told.items() if value}


def _hazard(name: str, level: str, accepted: bool, node: str) -> str:
    return " ".join(filter(None, [name, "accepted" if accepted else level, node]))


def _ops(action: Action) -> Iterator[str]:
    yield from (op.title for op in action.ops)
    yield from (f"if needed: {op.title}" for op in action.contingent)
    yield from (f"on failure: {op.title}" for op in action.on_failure)


def _plain(text: str) -> str:
    return click.unstyle(text) + "\n"


def _rewrite(path: Path, told: Mapping[str, Any]) -> None:
    """Replace the `expect` of a case file; all above it stays as it was written."""
    head = (path.read_text() + "\n").partition(EXPECT)[0].rstrip("\n")
    facts = {field: value for field, value in told.items() if field != "text"}
    body = yaml.safe_dump(facts, sort_keys=False, width=1000, allow_unicode=True) if facts else ""
    if "text" in told:
        body += "text: |\n" + _indented(told["text"])
    path.write_text(f"{head}\n{EXPECT}" + _indented(body))


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" if line else "\n" for line in text.splitlines())


# What holds for every plan, whatever the situation.


@pytest.fixture
def plan(name: str, outcomes: Any) -> Plan:
    made = outcomes(name)
    assert isinstance(made, Plan)
    return made


def _every_op(plan: Plan) -> list[AnyOp]:
    return [op for a in plan.actions for op in (*a.ops, *a.contingent, *a.on_failure)]


@pytest.mark.parametrize("name", PLANNED)
def test_every_transaction_is_guarded_before_it_changes_anything(plan: Plan) -> None:
    for op in _every_op(plan):
        if isinstance(op, Transact):
            assert _is_guarded(op), f"{op.title}: {op.operations}"


def _is_guarded(op: Transact) -> bool:
    """A `wait` first; or, where a map's key was absent, the insert and then a `wait` for our own value (H49)."""
    first, second, *_ = op.operations
    if first["op"] == "wait":
        return bool(first["timeout"] == 0)
    inserts_only = all(
        m[1] == "insert" and m[2][0] == "map" for m in first.get("mutations", [["", "", [""]]])
    )
    return first["op"] == "mutate" and inserts_only and second["op"] == "wait" and second["timeout"] == 0


@pytest.mark.parametrize("name", PLANNED)
def test_no_plan_changes_a_nad_or_a_vm_that_nobody_declared(plan: Plan) -> None:
    written = {op.ref.kind for op in _every_op(plan) if isinstance(op, Patch | Create)}
    asked_for = {"network": NAD[1], "attachment": VM[1], "l2advertisement": ADVERTISEMENT[1]}
    declared = {
        kind
        for name, kind in asked_for.items()
        if any(c.address.startswith(f"{name}/") for c in plan.cluster)
    }
    restarted = {VM[1] for node in plan.nodes if node.restarting}
    beside = {"Pod"} if any(a.routine in ("canary@1", "evict@1") for a in plan.actions) else set()
    assert written <= {"Node", "VirtualMachineInstanceMigration", *declared, *restarted, *beside}
    programs = {op.argv[:2] for op in _every_op(plan) if isinstance(op, Run)}
    rebooted = {("systemctl", "reboot")} if any(a.routine == "reboot@1" for a in plan.actions) else set()
    assert programs <= {("ovs-ofctl", "packet-out"), ("ovs-ofctl", "add-flow"), *rebooted}


@pytest.mark.parametrize("name", PLANNED)
def test_every_action_can_be_undone_or_says_why_not(plan: Plan) -> None:
    for action in plan.actions:
        assert bool(action.undo) != bool(action.no_undo), action.id
        for invocation in action.undo:
            find_routine(invocation.routine)
        if plan.blocking():
            continue  # a blocked plan is not predicted: it has no ops, and no undo of them
        lame = [command for command in action.undo_commands if command.startswith("# no commands")]
        assert not lame, f"{action.id}: {lame}"


@pytest.mark.parametrize("name", PLANNED)
def test_a_label_means_one_thing_within_its_action(plan: Plan) -> None:
    """The journal speaks of ops by label: the same one twice is the same op tried again, never another."""
    for action in plan.actions:
        meanings: dict[str, set[str]] = {}
        for op in (*action.ops, *action.contingent):
            meanings.setdefault(op.label, set()).add(f"{op.title}: {shape(op)}")
        assert all(len(found) == 1 for found in meanings.values()), action.id


@pytest.mark.parametrize("name", PLANNED)
def test_the_inventory_comes_first_and_each_action_after_what_it_needs(plan: Plan) -> None:
    seen: set[str] = set()
    for action in plan.actions:
        assert seen or action.id == "inventory"
        assert {need.action for need in action.needs} <= seen, action.id
        seen.add(action.id)


@pytest.mark.parametrize("name", PLANNED)
def test_a_plan_file_gives_the_same_plan_back(plan: Plan) -> None:
    text = write(plan)
    assert write(read(text, "plan.json")) == text


@pytest.mark.parametrize("name", PLANNED)
def test_no_line_of_the_text_ends_in_blanks(plan: Plan) -> None:
    assert [line for line in _plain(render_plan(plan)).splitlines() if line != line.rstrip()] == []
