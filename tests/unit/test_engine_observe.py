"""Observing: each view is asked once, what could not be asked is unknown, and nothing is changed by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.planning import HOT, declared, make_world, planned

from engine.observe import observe, observe_for_plan, values
from plans.facts import Facts, Known, Unknown
from plans.ops import CommandRequest, ListRequest
from plans.readings import NoReply
from providers.interpreters import Interpreter


class Counting:
    """Hands that count what they are asked."""

    def __init__(self, hands: Interpreter) -> None:
        self._hands = hands
        self.asked: list[Any] = []
        self.journeys: list[Any] = []

    def await_news(self, requests: Any, seconds: float) -> bool:
        return False

    def ask(self, requests: Any) -> Any:
        self.asked += requests
        self.journeys.append(requests)
        return self._hands.ask(requests)

    def perform(self, op: Any) -> Any:
        raise AssertionError("observing performs nothing")


def test_a_view_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    with make_world(tmp_path / "world") as world:
        hands = Counting(Interpreter(world))
        observe(hands, world.clock, ["nodes", "ovs:worker-01", "nodes"])
    assert len(hands.asked) == 3


def test_only_the_nodes_that_a_network_selects_are_read(tmp_path: Path) -> None:
    one = HOT.replace("{bridge: br-phy,", "{bridge: br-phy, nodes: {zone: north},")
    with make_world(tmp_path / "world", {"nodes": {"worker-02": {"labels": {"zone": "north"}}}}) as world:
        hands = Counting(Interpreter(world))
        facts = observe_for_plan(hands, world.clock, declared(one))
    assert {request.node for request in hands.asked if hasattr(request, "node")} == {"worker-02"}
    assert isinstance(facts.get("node/worker-02/ovs"), Known)
    assert isinstance(facts.get("node/worker-01/ovs"), Unknown)


@pytest.mark.parametrize("kind", ["VirtualMachineInstance", "NetworkAttachmentDefinition"])
def test_a_list_that_a_node_cannot_be_planned_without_is_named_with_what_is_wrong_with_it(
    tmp_path: Path, kind: str
) -> None:
    with make_world(tmp_path / "world") as world:
        world.add_fault(f"cluster * list {kind}", nth=1, effect="fail")
        nodes = planned(world, declared(HOT)).nodes
    assert {node.unreadable for node in nodes} == {
        f"{kind}s could not be listed: cluster: connection refused (injected)"
    }


def test_a_node_that_does_not_answer_spoils_nothing_of_the_others(tmp_path: Path) -> None:
    with make_world(tmp_path / "world", {"nodes": {"worker-02": {"reachable": False}}}) as world:
        facts = observe_for_plan(Interpreter(world), world.clock, declared(HOT))
    assert facts.value("node/worker-01/ovs/mapping/vmnet") == "br-vmdata"
    assert facts.get("node/worker-02/ovs/mapping/vmnet") == Unknown("worker-02: no route to host")
    assert facts.value("node/worker-02/ready") is True


def test_planning_changes_nothing_in_the_world(tmp_path: Path) -> None:
    with make_world(tmp_path / "world") as world:
        before = world.show()
        observe_for_plan(Interpreter(world), world.clock, declared(HOT))
        verbs = {call.verb for call in world.log()}
        assert world.show() == before
    assert "write" not in verbs


def test_a_cluster_that_does_not_answer_makes_every_fact_unknown() -> None:
    class Silent:
        def await_news(self, requests: Any, seconds: float) -> bool:
            return False

        def ask(self, requests: Any) -> list[Any]:
            return [NoReply("connection refused")] * len(requests)

        def perform(self, op: Any) -> Any:
            raise AssertionError

    class Now:
        def now(self) -> float:
            return 0.0

        def wait_until(self, instant: float) -> None:
            raise AssertionError

    facts = observe(Silent(), Now(), ["nodes", "vms"])
    assert facts and all(fact == Unknown("connection refused") for fact in facts.values())
    assert Facts(facts).get("node/worker-01/ready") == Unknown("connection refused")


def test_a_record_keeps_what_is_known_and_nothing_else() -> None:
    assert values({"a": Known([1]), "b": Unknown("x")}) == {"a": [1]}


POLICY_WORLD = {
    "nmstate": "2.2.62",
    "nodeDefaults": {
        "bridges": {"br-phy": {"madeBy": "networkmanager"}, "br-vmdata": {"madeBy": "networkmanager"}}
    },
    "nodes": {"worker-02": {"mappings": "physnet:br-ex,vmnet:br-phy", "labels": {"zone": "done"}}},
}


def test_profiles_and_a_ping_are_asked_along_and_count_where_a_policy_will_change_a_node(
    tmp_path: Path,
) -> None:
    keep = HOT.replace(", replaces: {bridge: br-vmdata}", "")
    with make_world(tmp_path / "world", POLICY_WORLD) as world:
        hands = Counting(Interpreter(world))
        facts = observe_for_plan(hands, world.clock, declared(keep))
    journeys = [
        {request.node for request in asked if not isinstance(request, ListRequest)}
        for asked in hands.journeys
    ]
    assert [nodes for nodes in journeys if nodes] == [{"worker-01", "worker-02"}]
    assert facts.value("node/worker-01/ping/198.51.100.1") is True
    assert isinstance(facts.get("node/worker-01/profiles"), Known)
    assert not isinstance(facts.get("node/worker-02/profiles"), Known)
    assert not isinstance(facts.get("node/worker-02/ping/198.51.100.1"), Known)


def test_without_nmstate_no_node_is_asked_for_profiles_or_a_ping(tmp_path: Path) -> None:
    with make_world(tmp_path / "world") as world:
        hands = Counting(Interpreter(world))
        observe_for_plan(hands, world.clock, declared(HOT))
    assert not {r.argv[0] for r in hands.asked if isinstance(r, CommandRequest)} & {"nmcli", "ping"}
