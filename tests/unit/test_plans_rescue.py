"""What follows a policy that failed: where the localnet is led, and what is said of VMs that stay dark."""

from __future__ import annotations

from typing import Any

import pytest
from support.switches import INNER, OUTER, interface, patch, switch

from plans import ovs
from plans.actions import Done, Finished, Next, find_routine
from plans.facts import ABSENT, Facts, Known, Unknown
from plans.ops import Transact
from plans.remap.hot import MOVES
from unit.test_plans_remap import ARGS, MAC, NODE, labels, ops, stopped, world

POLICY = {**ARGS, "policy": "p", "hostname": NODE, "document": {}, "cold": False}
DOWN = [interface("ens33", link_state="down")]
ANNOUNCE = f"announce:{MAC}:224"
MOVED = ("rescue:move", f"rescue:insert:{OUTER}", "rescue:look-again:0")
BEFORE = {"before": "done", "policy": "done", "move": "done", ANNOUNCE: "done"}
"""What the step itself has done by then."""


def on(
    bridge: str, mapped: str | None = None, pair: bool = True, phy: Any = DOWN, old: Any = None
) -> ovs.View:
    """A switch with the patch pair on one bridge and the mapping on `mapped`; br-phy has lost its link."""
    old = [interface("bond0")] if old is None else old
    bridges: dict[str, Any] = {
        "br-phy": {"br-phy": [interface("br-phy", "internal")], "ovs-bond": phy},
        "br-vmdata": {"br-vmdata": [interface("br-vmdata", "internal")], "bond0": old},
    }
    if pair:
        bridges[bridge][OUTER] = [patch(OUTER, INNER)]
    return switch(f"physnet:br-ex,vmnet:{mapped or bridge}", **bridges)


def facts_of(view: ovs.View, vms: tuple[str, ...] = ("default/web-1",)) -> Facts:
    facts = world(view, vms, **{f"enactment__{NODE}__p__state": ABSENT, "policy__p": ABSENT})
    running = [(f"vm/{vm}", Known({**facts.value(f"vm/{vm}"), "phase": "Running"})) for vm in vms]
    return facts.with_changes(running)


def rescued(facts: Facts, done: tuple[str, ...] = (), moves: int = 1) -> Next:
    rescue = find_routine("policy-remap@1").rescue
    assert rescue is not None
    attempts = dict.fromkeys([*BEFORE, *done], 1) | ({"rescue:move": moves} if "rescue:move" in done else {})
    return rescue(POLICY, facts, Done("run-1", {**BEFORE, **dict.fromkeys(done, "done")}, {}, attempts))


def test_mapping_and_port_go_back_in_one_guarded_transaction() -> None:
    move, insert, look = ops(rescued(facts_of(on("br-phy"))))
    assert [move.label, insert.label, look.label] == list(MOVED)
    assert isinstance(move, Transact)
    assert move.title == f"map vmnet to br-vmdata and take {OUTER} away"
    waits = [o for o in move.operations if o["op"] == "wait"]
    assert {o["table"] for o in waits} == {"Open_vSwitch", "Bridge"}, "others' writes are not lost"


def test_a_port_that_an_old_ovn_left_behind_follows_the_mapping() -> None:
    move = ops(rescued(facts_of(on("br-phy", mapped="br-vmdata"))))[0]
    assert move.title == f"take {OUTER} away"


def test_its_vms_are_announced_once_more_and_the_pair_is_awaited() -> None:
    back = facts_of(on("br-vmdata"))
    assert labels(rescued(back, MOVED)) == [f"rescue:{ANNOUNCE}"]
    told = (*MOVED, f"rescue:{ANNOUNCE}")
    assert labels(rescued(back, told)) == ["rescue:seen:0:1"]
    end = rescued(back, (*told, "rescue:seen:0:1", "rescue:seen:0:2"))
    assert labels(end) == ["rescue:look-again:0"]


@pytest.mark.parametrize(
    "view",
    [on("br-phy", phy=[interface("ens33")]), on("br-vmdata", mapped="br-phy", phy=[interface("ens33")])],
)
def test_vms_that_have_a_path_are_left_alone(view: ovs.View) -> None:
    assert rescued(facts_of(view)) == Finished(f"vmnet is mapped to br-phy on {NODE}")


def test_an_empty_node_is_led_back_too() -> None:
    assert ops(rescued(facts_of(on("br-phy"), vms=())))[0].label == "rescue:move"


def test_vms_without_any_bridge_to_go_to_are_named_with_the_way_out() -> None:
    end = rescued(facts_of(on("br-phy", old=DOWN)))
    assert end == Finished(
        "vmnet is mapped to br-phy, which has no uplink; without network now on w: default/web-1 "
        "(move them to another node: `virtctl migrate -n default web-1`)"
    )


def test_a_move_that_somebody_takes_back_each_time_ends_with_the_commands() -> None:
    stop = stopped(rescued(facts_of(on("br-phy")), MOVED, moves=MOVES))
    assert "somebody else wants it otherwise" in stop.why
    assert f"without network now on {NODE}: default/web-1 (by hand: `[{NODE}] ovs-vsctl " in stop.why
    assert f"del-port br-phy {OUTER}" in stop.why and "virtctl migrate -n default web-1" in stop.why


def test_of_a_node_that_does_not_answer_the_vms_that_may_be_dark_are_named() -> None:
    facts = facts_of(on("br-phy")).with_changes([(f"node/{NODE}/ovs", Unknown("no route to host"))])
    stop = stopped(rescued(facts))
    assert stop.unsure and "may be without network on w: default/web-1" in stop.why


def foreseen(facts: Facts) -> list[str]:
    on_failure = find_routine("policy-remap@1").on_failure
    assert on_failure is not None
    other = {"name": "vlan300", "localnet": "vmnet", "vlan": 300, "mtu": 9000}
    both = [("cluster/networks", Known(["default/vlan224", "default/vlan300"]))]
    return [
        op.title
        for op in on_failure(POLICY, facts.with_changes([*both, ("network/default/vlan300", Known(other))]))
    ]


def test_a_plan_shows_of_all_networks_those_that_the_node_has_or_its_vms_need() -> None:
    up = [interface("ens33")]
    for view in (on("br-vmdata", phy=up), on("br-vmdata", phy=up, pair=False)):
        titles = foreseen(facts_of(view))
        assert f"insert {OUTER} on br-phy, unless ovn-controller was first" in titles
        assert f"map vmnet to br-vmdata and take {OUTER} away" in titles
        assert not any("vlan300" in title for title in titles)


def test_of_a_node_without_any_a_plan_shows_all_networks_for_whichever_comes() -> None:
    titles = foreseen(facts_of(on("br-vmdata", phy=[interface("ens33")], pair=False), vms=()))
    assert f"insert {OUTER} on br-phy, unless ovn-controller was first" in titles
    assert any("vlan300" in title for title in titles)
