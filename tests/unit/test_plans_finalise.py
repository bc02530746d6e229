"""The policy for all nodes: awaited on all of them together, and a failure names its node."""

from __future__ import annotations

from typing import Any

from plans.actions import Done, Finished, Next, Perform, Stop
from plans.facts import Facts, Known
from plans.nmstate import enactments, policies
from plans.nmstate.steps import finalise
from plans.ops import Wait
from plans.readings.nmstate import parse_policies

NODES = ["n1", "n2", "n3"]
WANTED = policies.body("shared", {}, {"interfaces": []}, 1)
ARGS = {"policy": "shared", "selector": {}, "document": {"interfaces": []}, "at_once": 1, "nodes": NODES}


def enactment(node: str, condition: str, message: str = "", generation: int = 7) -> dict[str, Any]:
    labels = {"nmstate.io/node": node, "nmstate.io/policy": "shared"}
    conditions = [{"type": condition, "status": "True", "message": message}]
    return {
        "metadata": {"name": f"{node}.shared", "labels": labels},
        "status": {"policyGeneration": generation, "conditions": conditions},
    }


def ask(*enactments: dict[str, Any], drop: list[str] | None = None, **outcomes: str) -> Next:
    policy = {**WANTED, "metadata": {"name": "shared", "generation": 7}}
    nodes = {"cluster/nodes": Known(NODES), **{f"node/{node}/labels": Known({}) for node in NODES}}
    facts = Facts({**nodes, **parse_policies([[policy], list(enactments)])})
    return finalise({**ARGS, "drop": drop or []}, facts, Done("run", outcomes, {}, {}, {}))


def test_all_nodes_are_awaited_by_one_wait_that_reads_one_policy() -> None:
    upcoming = ask(enactment("n1", "Available"), enactment("n2", "Available", generation=6))
    assert isinstance(upcoming, Perform)
    (wait,) = upcoming.ops
    assert isinstance(wait, Wait)
    (check,) = wait.checks
    assert (check.path, check.test, check.value) == ("policy/shared/available-on", "has", NODES)
    assert wait.progress == check.path
    assert wait.deadline == enactments.SEEN_DEADLINE + enactments.APPLY_DEADLINE


def test_a_node_that_failed_is_named_with_its_reason_before_the_others_are_awaited() -> None:
    upcoming = ask(enactment("n2", "Failing", "NmstateError: no such card"))
    assert isinstance(upcoming, Stop)
    assert upcoming.why == "policy shared on n2 is failed: NmstateError: no such card"


def test_time_that_is_up_names_the_nodes_that_are_left() -> None:
    upcoming = ask(enactment("n1", "Available"), enactment("n2", "Progressing"), enacted="timed-out")
    assert isinstance(upcoming, Stop)
    assert upcoming.why.startswith("policy shared on n2 is progressing")
    assert upcoming.why.endswith("; still to come: n3")


def test_it_ends_when_it_is_available_on_all() -> None:
    upcoming = ask(*(enactment(node, "Available") for node in NODES))
    assert upcoming == Finished("policy shared is Available on 3 nodes")
