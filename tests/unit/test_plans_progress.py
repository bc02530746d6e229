"""How a run stands: one word per node, the procedure's rows, and who has no network now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.edits import apply_edit
from support.planning import COLD, HOT, declared, make_world, observed, planned
from support.switches import OUTER

from plans.actions import Action
from plans.document import Plan
from plans.facts import Facts, Known, Unknown
from plans.progress import (
    CHECKLIST,
    NOT_IN_PLAN,
    StepState,
    node_word,
    progress,
    still_cordoned,
    vms_without_network,
)

DONE, FAILED, BEGUN, WAITING = (StepState(w) for w in ("done", "failed", "begun", "waiting"))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    with make_world(tmp_path_factory.mktemp("twin") / "world") as world:
        return planned(world, declared(HOT))


@pytest.mark.parametrize(
    ("states", "word"),
    [
        ([WAITING, WAITING], "not started"),
        ([DONE, WAITING], "under way"),
        ([BEGUN, WAITING], "under way"),
        ([DONE, FAILED, WAITING], "failed"),
        ([DONE, StepState("marked-done")], "done"),
        ([DONE, StepState("marked-not-done")], "under way"),
    ],
)
def test_a_word_for_a_node(states: list[StepState], word: str) -> None:
    assert node_word(states) == word


def rows(plan: Plan, states: dict[str, StepState], node: str = "worker-01") -> dict[str, str]:
    (found,) = [n for n in progress(plan, states) if n.node == node]
    return {title: word for _, title, word, _ in found.rows}


def test_every_row_of_the_procedure_is_told_and_what_is_no_part_of_the_plan_says_so(plan: Plan) -> None:
    told = rows(plan, {})
    assert list(told) == list(CHECKLIST.values())
    assert [title for title, word in told.items() if word == NOT_IN_PLAN] == [
        "Migrate VMs (optional)",
        "Run balance-slb migration",
        "Reboot",
    ]
    assert {word for word in told.values() if word != NOT_IN_PLAN} == {"waiting"}


def test_a_reboot_has_its_own_row_until_the_node_has_settled(tmp_path: Path) -> None:
    with make_world(tmp_path / "world") as world:
        rebooting = planned(world, declared(COLD.replace("evacuate: {}", "evacuate: {reboot: true}")))

    def told(**states: StepState) -> tuple[str, str]:
        found = progress(rebooting, {f"worker-01/{name}": state for name, state in states.items()})[0]
        return next((word, detail) for number, _, word, detail in found.rows if number == 6)

    assert told() == ("waiting", "")
    assert told(reboot=BEGUN) == ("begun", "worker-01/reboot")
    assert told(reboot=DONE, settle=BEGUN) == ("begun", "worker-01/settle")
    assert told(reboot=DONE, settle=DONE)[0] == "done"


def _of(plan: Plan, node: str) -> list[Action]:
    return [a for a in plan.actions if a.node in ("", node)]


def test_a_row_is_done_when_its_actions_are(plan: Plan) -> None:
    told = rows(plan, {a.id: DONE for a in _of(plan, "worker-01")})
    assert {word for word in told.values() if word != NOT_IN_PLAN} == {"done"}
    assert rows(plan, {a.id: DONE for a in _of(plan, "worker-01")}, "worker-02")["Cordon node"] == "waiting"


def test_a_failure_is_told_in_its_row_with_the_action_and_its_reason(plan: Plan) -> None:
    states = {
        "inventory": DONE,
        "worker-01/cordon": DONE,
        "worker-01/remap/vmnet": StepState("failed", "no answer"),
    }
    (found, _) = progress(plan, states)
    assert found.word == "failed"
    assert (8, "Add bridge-mapping", "failed", "worker-01/remap/vmnet: no answer") in found.rows


@pytest.mark.parametrize(
    ("state", "proof"),
    [
        (None, "not proven"),
        (StepState("done", "seen: default/web-1", True), "proven"),
        (StepState("done", "cannot tell (silent): default/web-1"), "not proven (cannot tell (silent): default/web-1)"),
    ],
)  # fmt: skip
def test_a_path_is_proven_by_traffic_alone(plan: Plan, state: StepState | None, proof: str) -> None:
    (found, _) = progress(plan, {"worker-01/prove": state} if state else {})
    assert found.proof == proof


SILENT = "seen: default/web-1; cannot tell (silent): default/a in default/n2, default/b in default/n1"
LATE = "seen: default/web-1; cannot tell (not back yet): default/a in default/n2; 2 VM(s) back"


@pytest.mark.parametrize(
    ("note", "untold"),
    [
        ("seen: default/web-1", ()),
        (SILENT, (("default/n1", ("default/b",)), ("default/n2", ("default/a",)))),
        (LATE, (("default/n2", ("default/a",)),)),
    ],
)
def test_of_whom_nothing_was_heard_is_told_by_network(plan: Plan, note: str, untold: object) -> None:
    (found, _) = progress(plan, {"worker-01/prove": StepState("done", note, True)})
    assert (found.untold, found.bridges) == (untold, ("br-phy",) if untold else ())
    assert found.proof == "proven"


def test_a_network_in_which_a_gateway_answered_later_is_told(plan: Plan) -> None:
    asked = {"vm": "default/a", "gateway": "192.0.2.1", "nad": "default/n2", "system": "linux"}
    back = Action(
        id="worker-01/ping-returned", routine="ping-returned@1", title="", node="worker-01", args={"pings": [asked]}
    )  # fmt: skip
    asking = replace(plan, actions=(*plan.actions, back))
    steps = {"worker-01/prove": StepState("done", LATE, True)}
    for note, left in (
        ("the gateway answers default/a (192.0.2.1)", 0),
        ("cannot tell by a ping of x: y", 1),
    ):
        answered = {"worker-01/ping-returned": StepState("done", note, None)}
        assert len(progress(asking, steps | answered)[0].untold) == left


CORDON = StepState("done", acted=("cordon",))


@pytest.mark.parametrize(
    ("steps", "held"),
    [
        ({"cordon": CORDON}, True),
        ({"cordon": StepState("begun", acted=("cordon",))}, True),
        ({"cordon": DONE}, False),
        ({"cordon": CORDON, "uncordon": StepState("failed", acted=("uncordon",))}, True),
        ({"cordon": CORDON, "uncordon": DONE}, False),
        ({"cordon": CORDON, "uncordon": DONE, "ping-returned": StepState("failed", acted=("cordon",))}, True),
        ({"cordon": CORDON, "uncordon": DONE, "ping-returned": StepState("done", acted=("cordon",))}, False),
    ],
    ids=["it", "perhaps", "somebody else", "not freed", "freed", "held again", "held again and freed"],
)
def test_which_nodes_a_run_may_have_left_cordoned(
    plan: Plan, steps: dict[str, StepState], held: bool
) -> None:
    last = Action(id="worker-01/ping-returned", routine="ping-returned@1", title="", node="worker-01")
    found = still_cordoned(
        replace(plan, actions=(*plan.actions, last)),
        {f"worker-01/{name}": step for name, step in steps.items()},
    )
    assert found == (["worker-01"] if held else [])


def test_vms_whose_path_is_broken_now_are_named_with_the_reason(tmp_path: Path, plan: Plan) -> None:
    with make_world(tmp_path / "world", {"controllers": {"ovn-controller": "off"}}) as world:
        apply_edit(world, {"node": "worker-01", "del-port": {"bridge": "br-vmdata", "port": OUTER}})
        apply_edit(world, {"node": "worker-02", "links": {"bond0": "down"}})
        dark, unknown = vms_without_network(plan, observed(world, declared(HOT)))
    assert dark == [
        f"default/web-1 on worker-01: broken: port {OUTER} is missing",
        "default/web-2 on worker-02: its bridge br-vmdata has no uplink that works",
    ]
    assert unknown == []


def test_of_a_node_that_cannot_be_read_nothing_is_claimed(plan: Plan) -> None:
    facts = Facts({f"node/{n}/ovs": Unknown("no route to host") for n in ("worker-01", "worker-02")})
    assert vms_without_network(plan, facts) == (
        [],
        ["worker-01: no route to host", "worker-02: no route to host"],
    )


def test_of_a_node_that_cannot_be_read_and_has_no_vm_there_is_nothing_to_tell(plan: Plan) -> None:
    facts = Facts({f"node/{n}/ovs": Unknown(f"{n}: no route") for n in ("worker-01", "worker-02")})
    emptied = facts.with_changes([("node/worker-01/vms", Known([]))])
    assert vms_without_network(plan, emptied) == ([], ["worker-02: no route"])
