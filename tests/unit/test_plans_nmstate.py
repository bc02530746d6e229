"""The rules about nmstate's documents, and about which policies an earlier run left."""

from __future__ import annotations

from typing import Any

import pytest
from support.planning import declared

from plans.actions import Done, Perform, Stop, find_routine
from plans.facts import ABSENT, Facts, Known
from plans.nmstate import documents
from plans.nmstate.former import former

NETWORK = """
apiVersion: ovsplan.io/v1alpha1
kind: VMNetwork
metadata: {name: vmnet}
spec: {bridge: br-phy, nodes: {rack: a}, delivery: {policy: second}, replaces: {bridge: br-vmdata, policies: [named]}}
"""
GONE, DONE = documents.without_bridge("br-vmdata"), documents.mapped("vmnet", "br-phy")
FIRST = {"kubernetes.io/hostname": "first.example.com"}
RACK = {"rack": "a"}


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (DONE, GONE, []),
        (
            documents.mapped("vmnet", "br-vmdata"),
            GONE,
            ["localnet vmnet: on br-vmdata against br-vmdata absent"],
        ),
        (
            GONE,
            documents.mapped("vmnet", "br-vmdata"),
            ["localnet vmnet: on br-vmdata against br-vmdata absent"],
        ),
        (
            documents.union(DONE, GONE),
            documents.mapped("vmnet", "br-vmdata"),
            ["localnet vmnet: br-phy against br-vmdata"],
        ),
        (documents.unmapped("vmnet"), GONE, []),
    ],
)
def test_a_mapping_to_a_bridge_that_another_policy_takes_away_is_a_contradiction(
    one: Any, other: Any, said: list[str]
) -> None:
    assert documents.contradictions(one, other) == said


def left(
    name: str,
    selector: dict[str, str],
    document: Any,
    *,
    ours: bool = True,
    state: str = "available",
    made_for: str = "vmnet",
) -> Facts:
    """Two nodes, of which the network selects the first, and one policy."""
    have = {"ours": ours, "selector": selector, "document": document, "owner": "", "network": made_for}
    return Facts(
        {
            "cluster/nodes": Known(["node-1", "node-2"]),
            "node/node-1/labels": Known({**FIRST, **RACK}),
            "node/node-2/labels": Known({"kubernetes.io/hostname": "node-2"}),
            "cluster/policies": Known([name]),
            f"policy/{name}": Known(have),
            f"enactment/node-1/{name}/state": Known(state) if state else ABSENT,
        }
    )


@pytest.mark.parametrize("made_for", ["", "other"])
def test_only_the_mark_of_the_network_tells_that_it_was_made_for_it(made_for: str) -> None:
    """A policy of other files says the same things of one node, and carries no mark."""
    assert former(declared(NETWORK), left("first-node-1", FIRST, DONE, made_for=made_for)) == []
    assert former(declared(NETWORK), left("first", RACK, DONE, made_for=made_for)) == []


def test_a_policy_that_an_earlier_run_left_is_found_by_its_mark() -> None:
    found = former(declared(NETWORK), left("first-node-1", FIRST, documents.union(DONE, GONE)))
    assert [(f.name, f.single, f.in_the_way) for f in found] == [("first-node-1", True, False)]
    shared = former(declared(NETWORK), left("first", RACK, DONE))
    assert [(f.name, f.single, f.in_the_way) for f in shared] == [("first", False, False)]


@pytest.mark.parametrize(
    ("document", "state"),
    [(documents.mapped("vmnet", "br-vmdata"), "available"), (DONE, "failed"), (DONE, "retrying"), (DONE, "")],
)
def test_one_that_says_otherwise_or_is_not_over_is_in_the_way(document: Any, state: str) -> None:
    found = former(declared(NETWORK), left("first-node-1", FIRST, document, state=state))
    assert [f.in_the_way for f in found] == [True]


def test_one_of_a_node_that_is_no_more_is_found_too() -> None:
    found = former(declared(NETWORK), left("second-node-9", {"kubernetes.io/hostname": "node-9"}, GONE))
    assert [(f.name, f.in_the_way) for f in found] == [("second-node-9", False)]


@pytest.mark.parametrize(
    ("name", "selector", "document", "ours"),
    [
        pytest.param("first-node-1", FIRST, DONE, False, id="somebody else's"),
        pytest.param("second-node-1", FIRST, DONE, True, id="the one that this network writes"),
        pytest.param("second", RACK, DONE, True, id="its shared one"),
        pytest.param("named", RACK, DONE, True, id="one that is replaced by name"),
        pytest.param("first-node-2", {"kubernetes.io/hostname": "node-2"}, DONE, True, id="of another node"),
        pytest.param("first", {"rack": "b"}, DONE, True, id="of other nodes"),
        pytest.param("first", RACK, documents.union(DONE, documents.mapped("b", "br-b")), True, id="of two localnets"),
        pytest.param("first", RACK, documents.union(DONE, documents.with_bridge("br-b", [])), True, id="of another bridge"),
        pytest.param("first", RACK, GONE, True, id="of no localnet, for many nodes"),
        pytest.param("first-node-1", FIRST, documents.without_bridge("br-b"), True, id="of another bridge alone"),
        pytest.param("first-node-1", FIRST, {}, True, id="of nothing"),
    ],
)  # fmt: skip
def test_what_is_not_surely_of_an_earlier_run_is_left_alone(
    name: str, selector: dict[str, str], document: Any, ours: bool
) -> None:
    assert former(declared(NETWORK), left(name, selector, document, ours=ours)) == []


LED = {
    "policy": "p-mapping",
    "selector": {"led": "mapped"},
    "document": documents.mapped("vmnet", "br-phy"),
    "network": "vmnet",
}


def test_a_plan_of_before_the_nodes_were_looked_at_still_writes_its_policy() -> None:
    """Its action does not read the nodes, so that nothing is known of them."""
    read = Facts({"cluster/nmstate": Known(True), "policy/*": ABSENT})
    prepare = find_routine("prepare-policy@1").step
    assert isinstance(prepare(LED, read, Done("run")), Perform)
    told = prepare({**LED, "selected": []}, read, Done("run"))
    assert isinstance(told, Stop) and told.unsure
