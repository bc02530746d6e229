"""The nmstate operator of the twin against what the real one did on lab nodes.

Each number in a docstring is that of a finding made there; the samples are objects that it wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers.ports import Apply, Create, Delete, JsonPatch, MergePatch, Ref, Refused
from providers.twin import TwinWorld, WorldError, init_world, open_world
from twin import worlds
from twin.nmstate_worlds import (
    ABSENT,
    ENACTMENT,
    NODE1,
    OLD,
    POLICY,
    REFUSED,
    S47,
    SAMPLES,
    WORKER,
    create,
    dark_for,
    history,
    label,
    make,
    mapped,
    mapping_of,
    nnce,
    nnce_ref,
    nns,
    said,
    sample,
    set_ready,
    shape,
    states,
    switch,
    trues,
    until,
    version,
)
from twin.worlds import OUTER, bridge_of, carry_out, mapping, without

A = "23.03.1"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TwinWorld]:
    with make(tmp_path / "world") as made:
        yield made


def convert(world: TwinWorld, node: str) -> None:
    """Take a node to br-phy in the two steps that work."""
    name, selector = f"convert-{node}", {"kubernetes.io/hostname": node}
    ref = create(world, name, mapped("br-phy"), selector)
    until(world, ref, "Available", 10)
    world.cluster.write(MergePatch(ref, {"spec": {"desiredState": ABSENT}}))
    world.tick(0.05)
    until(world, ref, "Available", 10)
    world.cluster.write(Delete(ref))
    world.tick(0.1)
    assert "br-vmdata" not in world.show()["nodes"][node]["bridges"]


def edit(world: TwinWorld, ref: Ref, desired: dict[str, Any]) -> None:
    change = {"op": "replace", "path": "/spec/desiredState", "value": desired}
    world.cluster.write(JsonPatch(ref, (change,)))


def test_one_document_works_on_25_03_through_the_retry(world: TwinWorld) -> None:
    """Finding 1, and the objects at every moment of it (samples a-*)."""
    label(world, "node1", vmdata="br-phy")
    since, before = version(world, ENACTMENT), version(world, POLICY)
    ref = create(world, "vmdata-migrated", S47, {"x/vmdata": "br-phy"})
    dark = dark_for(world, 26.0)
    assert 0.25 <= dark <= 0.5
    dark += dark_for(world, 6.0)
    assert dark <= 0.5
    seen = [shape(body) for body in history(world, nnce_ref("node1", "vmdata-migrated"), since)]
    for name in ("a-nnce-new", "a-nnce-progressing", "a-nnce-retrying", "a-nnce-available"):
        assert sample(name) in seen, name
    assert states(history(world, nnce_ref("node1", "vmdata-migrated"), since)) == [
        "", "Progressing", "Failing,Progressing", "Progressing", "Available",
    ]  # fmt: skip
    policies = [shape(body) for body in history(world, ref, before)]
    for name in ("progressing", "retrying", "available"):
        assert sample(f"a-nncp-while-nnce-{name}") in policies, name
    # After the failure the policy says nothing until the second attempt has ended.
    assert states(history(world, ref, before)) == ["", "Progressing", "Degraded", "", "Available"]
    assert bridge_of(world, "node1", OUTER) == "br-phy"


def test_what_holds_its_status_keeps_the_time_of_its_last_change(world: TwinWorld) -> None:
    create(world, "old", OLD, NODE1)
    world.tick(5)
    label(world, "node1", some="thing")
    world.tick(0.5)
    conditions = {c["type"]: c for c in nnce(world, "node1", "old")["status"]["conditions"]}
    assert conditions["Progressing"]["status"] == "True"
    assert conditions["Aborted"]["lastTransitionTime"] < conditions["Aborted"]["lastHeartbeatTime"]
    assert conditions["Progressing"]["lastTransitionTime"] == conditions["Progressing"]["lastHeartbeatTime"]


def test_one_document_never_works_on_23_03(tmp_path: Path) -> None:
    """Finding 2, the end of it (samples c-3-*) and the event (e-5)."""
    with make(tmp_path / "world", ovn=A) as world:
        label(world, "node1", vmdata="br-phy")
        ref = create(world, "vmdata-migrated", S47, {"x/vmdata": "br-phy"})
        dark = dark_for(world, 152, 0.25)
        assert 110 <= dark <= 135
        enactment = shape(nnce(world, "node1", "vmdata-migrated"))
        _same_but_for_the_log(enactment, sample("c-3-nnce-exhausted"))
        assert shape(world.cluster.get(ref)) == sample("c-3-nncp-exhausted")
        assert mapping_of(world, "node1") == "physnet:br-ex,vmnet:br-phy"
        assert bridge_of(world, "node1", OUTER) == bridge_of(world, "node1", "bond0") == "br-vmdata"
        assert world.reachable("default/talker") == (True, "")
        (event,) = world.cluster.list("v1", "Event").items
        wanted = sample_event()
        assert {name: event[name] for name in wanted if name != "involvedObject"} == {
            name: value for name, value in wanted.items() if name != "involvedObject"
        }
        assert wanted["involvedObject"].items() <= event["involvedObject"].items()
        label(world, "node1", other="x")
        assert dark_for(world, 3) == 0


def sample_event() -> dict[str, Any]:
    return {name: value for name, value in SAMPLES["e-5-event-reconcilefailed"].items() if name != "metadata"}


def _same_but_for_the_log(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Equal, when of the one long message only the beginning and the end are compared."""
    for condition in wanted["status"]["conditions"]:
        if isinstance(condition.get("message"), dict):
            (other,) = [c for c in found["status"]["conditions"] if c["type"] == condition["type"]]
            assert other["message"].startswith(condition["message"]["begins"])
            assert condition["message"]["ends"] in other["message"]
            condition["message"] = other["message"]
    assert found == wanted


def test_two_steps_on_one_node_cost_milliseconds(world: TwinWorld) -> None:
    """Finding 3 (samples b-2, b-3)."""
    ref = create(world, "vmdata-node1", mapped("br-phy"), NODE1)
    assert dark_for(world, 4.0, 0.01) <= 0.02
    assert shape(world.cluster.get(ref)) == sample("b-2-nncp-node1-map")
    assert shape(nnce(world, "node1", "vmdata-node1")) == sample("b-2-nnce-node1-map")
    assert bridge_of(world, "node1", OUTER) == "br-phy"
    edit(world, ref, S47)
    assert dark_for(world, 4.0, 0.02) == 0
    assert shape(world.cluster.get(ref)) == sample("b-3-nncp-node1-absent")
    assert shape(nnce(world, "node1", "vmdata-node1")) == sample("b-3-nnce-node1-absent")
    assert "br-vmdata" not in world.show()["nodes"]["node1"]["bridges"]
    assert nnce(world, "node2", "vmdata-node1") is None


def test_on_23_03_the_mapping_is_available_while_the_patch_port_stays(tmp_path: Path) -> None:
    """Finding 4."""
    with make(tmp_path / "world", ovn=A) as world:
        ref = create(world, "vmdata-node1", mapped("br-phy"), NODE1)
        until(world, ref, "Available", 5)
        world.tick(5)
        assert bridge_of(world, "node1", OUTER) == "br-vmdata"
        carry_out(world, "node1", without(world, "node1", "br-vmdata", OUTER))
        world.tick(0.5)
        assert bridge_of(world, "node1", OUTER) == "br-phy"
        edit(world, ref, S47)
        world.tick(0.05)
        until(world, ref, "Available", 5)
        assert "br-vmdata" not in world.show()["nodes"]["node1"]["bridges"]


def test_deleting_a_policy_reverts_nothing(world: TwinWorld) -> None:
    """Finding 5: the enactment goes within milliseconds, the switch does not change (sample b-1)."""
    ref = create(world, "br-vmdata", OLD)
    until(world, ref, "Available", 12)
    assert shape(world.cluster.get(ref)) == sample("b-1-nncp-old-available")
    assert sorted(shape(nnce(world, "node1", "br-vmdata"))["status"]["conditions"], key=str) == sorted(
        sample("b-1-nnce-old-node1")["status"]["conditions"], key=str
    )
    before = switch(world, "node1")
    world.cluster.write(Delete(ref))
    assert nnce(world, "node1", "br-vmdata") is not None
    world.tick(0.02)
    assert nnce(world, "node1", "br-vmdata") is None
    assert dark_for(world, 3) == 0
    assert switch(world, "node1") == before


def test_the_shared_final_policy_changes_nothing_on_converted_nodes(world: TwinWorld) -> None:
    """Finding 5: nor do a label change and a restart of the handler, which apply it again (sample b-4)."""
    convert(world, "node1")
    convert(world, "node2")
    before = switch(world, "node1")
    ref = create(world, "vmdata-final", S47, WORKER, 1)
    assert 3 <= until(world, ref, "Available", 15) <= 12
    assert shape(world.cluster.get(ref)) == sample("b-4-nncp-final")
    beats = nnce(world, "node1", "vmdata-final")["status"]["conditions"][0]["lastHeartbeatTime"]
    label(world, "node1", some="thing")
    assert dark_for(world, 4) == 0
    again = nnce(world, "node1", "vmdata-final")["status"]["conditions"][0]["lastHeartbeatTime"]
    assert again > beats
    world.restart_handler("node1")
    assert dark_for(world, 4) == 0
    assert nnce(world, "node1", "vmdata-final")["status"]["conditions"][0]["lastHeartbeatTime"] > again
    assert trues(nnce(world, "node1", "vmdata-final")) == "Available"
    assert switch(world, "node1") == before


def test_two_policies_that_disagree_are_a_time_bomb(world: TwinWorld) -> None:
    """Finding 6: every label change burns a retry; after the fifth the old policy alone is applied."""
    create(world, "br-vmdata", OLD, NODE1)
    world.tick(5)
    create(world, "vmdata-migrated", S47, NODE1)
    world.tick(40)
    for burnt in range(1, 5):
        assert nnce(world, "node1", "vmdata-migrated")["status"]["retryCount"] == {"1": burnt}
        assert trues(nnce(world, "node1", "vmdata-migrated")) == "Available"
        assert bridge_of(world, "node1", OUTER) == "br-phy"
        label(world, "node1", round=str(burnt))
        world.tick(50)
    assert nnce(world, "node1", "vmdata-migrated")["status"]["retryCount"] == {"1": 5}
    assert trues(nnce(world, "node1", "vmdata-migrated")) == "Failing"
    label(world, "node1", round="last")
    world.tick(50)
    old = world.cluster.get(Ref("nmstate.io/v1", POLICY, "br-vmdata"))
    assert said(old, "Available") == "True 1/1 nodes successfully configured"
    assert bridge_of(world, "node1", OUTER) == "br-vmdata"
    assert mapping_of(world, "node1") == "physnet:br-ex,vmnet:br-vmdata"


def test_the_order_of_names_is_lost_where_a_slot_is_missing(world: TwinWorld) -> None:
    """Finding 7: on the node that finds no slot for the first policy, the second one goes before it."""
    create(world, "a-first", mapped("br-vmdata"), WORKER, 1)
    world.tick(12)
    create(
        world, "b-second", {"interfaces": [{"name": "ens33", "type": "ethernet", "state": "up"}]}, WORKER, 2
    )
    world.tick(12)
    since = version(world, ENACTMENT)
    for node in ("node1", "node2"):
        label(world, node, some="thing")
    world.tick(20)

    def begun(node: str, policy: str) -> int:
        seen = history(world, nnce_ref(node, policy), since)
        return next(int(b["metadata"]["resourceVersion"]) for b in seen if trues(b) == "Progressing")

    assert begun("node1", "a-first") < begun("node1", "b-second")
    assert begun("node2", "b-second") < begun("node2", "a-first")


def test_a_policy_can_be_available_and_the_vm_dead(world: TwinWorld) -> None:
    """Finding 8: bond0 is only a port in it, and there is no bond0 (sample d-1)."""
    convert(world, "node1")
    world.set_nic("node1", "bond0", "gone")
    world.tick(1)
    assert world.reachable("default/talker")[0]
    ref = create(world, "br-vmdata", OLD, NODE1)
    until(world, ref, "Available", 6)
    world.tick(1)
    assert shape(nnce(world, "node1", "br-vmdata"))["status"] == sample("d-1-nnce-old-on-converted")["status"]
    assert not world.reachable("default/talker")[0]
    state = nns(world, "node1")["status"]["currentState"]
    (bond,) = [i for i in state["interfaces"] if i["name"] == "bond0"]
    assert bond["type"] == "ovs-interface"
    world.cluster.write(Delete(ref))
    world.tick(2)
    assert not world.reachable("default/talker")[0]


def test_a_node_that_is_not_ready_is_ignored_and_configured_all_the_same(world: TwinWorld) -> None:
    """Finding 9."""
    set_ready(world, "node1", False)
    ref = create(world, "vmdata-node1", mapped("br-phy"), NODE1)
    world.tick(0.06)
    ignored = "True 0/1 nodes successfully configured, 1 nodes ignored due to NotReady state"
    assert said(world.cluster.get(ref), "Available") == ignored
    world.tick(5)
    assert mapping_of(world, "node1") == "physnet:br-ex,vmnet:br-phy"
    assert trues(nnce(world, "node1", "vmdata-node1")) == "Progressing"
    assert said(world.cluster.get(ref), "Available") == ignored


def test_a_node_that_is_not_ready_fails_the_probe_and_is_rolled_back(world: TwinWorld) -> None:
    """Finding 9: 243 s for each attempt; as soon as the node is Ready the next one succeeds."""
    first = create(world, "map", mapped("br-phy"), NODE1)
    until(world, first, "Available", 6)
    set_ready(world, "node1", False)
    create(world, "vmdata-node1", S47, NODE1)
    world.tick(60)
    assert "br-vmdata" not in world.show()["nodes"]["node1"]["bridges"]
    world.tick(63)
    assert "br-vmdata" in world.show()["nodes"]["node1"]["bridges"]
    assert mapping_of(world, "node1") == "physnet:br-ex,vmnet:br-phy"
    world.tick(118)
    assert "retryCount" not in nnce(world, "node1", "vmdata-node1")["status"]
    world.tick(3)
    assert nnce(world, "node1", "vmdata-node1")["status"]["retryCount"] == {"1": 1}
    set_ready(world, "node1", True)
    world.tick(5)
    assert trues(nnce(world, "node1", "vmdata-node1")) == "Available"


def test_after_an_edit_the_old_answer_stands_for_some_milliseconds(world: TwinWorld) -> None:
    """Finding 10: Available with the new generation; only the enactment's generation tells."""
    ref = create(world, "vmdata-node1", mapped("br-phy"), NODE1)
    until(world, ref, "Available", 6)
    edit(world, ref, S47)
    policy = world.cluster.get(ref)
    assert policy["metadata"]["generation"] == 2
    assert said(policy, "Available") == "True 1/1 nodes successfully configured"
    assert nnce(world, "node1", "vmdata-node1")["status"]["policyGeneration"] == 1
    world.tick(0.02)
    assert trues(world.cluster.get(ref)) != "Available"


def test_while_no_handler_runs_the_old_answer_stands_for_ever(world: TwinWorld) -> None:
    """Finding 10: and further edits are accepted."""
    ref = create(world, "vmdata-node1", mapped("br-phy"), NODE1)
    until(world, ref, "Available", 6)
    world.controllers_off("nmstate-operator")
    for desired in (S47, ABSENT):
        edit(world, ref, desired)
        world.tick(600)
        assert said(world.cluster.get(ref), "Available") == "True 1/1 nodes successfully configured"
    assert world.cluster.get(ref)["metadata"]["generation"] == 3
    fresh = create(world, "other", mapped("br-phy"), NODE1)
    world.tick(60)
    assert "status" not in world.cluster.get(fresh)
    with pytest.raises(Refused, match="is still in progress"):
        edit(world, fresh, S47)
    world.cluster.write(Delete(fresh))


def test_a_policy_that_comes_while_the_state_cannot_be_read_is_stuck(world: TwinWorld) -> None:
    """Finding 11: a label change of the node, and nothing else that passes by itself, gets it going."""
    carry_out(world, "node1", mapping("physnet:br-ex,vmnet"))
    world.tick(1)
    ref = create(world, "vmdata-node1", mapped("br-phy"), NODE1)
    world.tick(5)
    carry_out(world, "node1", mapping("physnet:br-ex,vmnet:br-vmdata"))
    world.tick(120)
    enactment = nnce(world, "node1", "vmdata-node1")
    assert enactment["status"] == {"desiredStateMetaInfo": {}}
    assert said(world.cluster.get(ref), "Progressing") == "True Policy is progressing 0/1 nodes finished"
    with pytest.raises(Refused, match="is still in progress"):
        edit(world, ref, S47)
    label(world, "node1", some="thing")
    assert until(world, ref, "Available", 6) <= 5


def test_a_policy_that_cannot_succeed_makes_the_vm_dark_five_times(world: TwinWorld) -> None:
    """Finding 12 (samples e-1-*)."""
    ref = create(world, "a-failing", ABSENT, NODE1)
    dark = dark_for(world, 160, 0.25)
    assert 110 <= dark <= 140
    _same_but_for_the_log(shape(nnce(world, "node1", "a-failing")), sample("e-1-nnce-failed"))
    assert shape(world.cluster.get(ref)) == sample("e-1-nncp-degraded")
    assert bridge_of(world, "node1", "bond0") == "br-vmdata"
    assert world.reachable("default/talker")[0]


def test_an_edit_is_accepted_only_in_the_pauses(world: TwinWorld) -> None:
    """Finding 13: it has five fresh attempts."""
    ref = create(world, "a-failing", ABSENT, NODE1)
    accepted = []
    while not accepted:
        world.tick(0.5)
        try:
            edit(world, ref, mapped("br-vmdata"))
        except Refused as refused:
            assert "policy a-failing is still in progress" in str(refused)
        else:
            accepted.append(trues(nnce(world, "node1", "a-failing")))
    assert accepted == ["Failing,Progressing"]
    until(world, ref, "Available", 10)
    assert nnce(world, "node1", "a-failing")["status"]["retryCount"] == {"1": 1}
    assert nnce(world, "node1", "a-failing")["status"]["desiredState"] == {
        "interfaces": [],
        **mapped("br-vmdata"),
    }


def test_metadata_may_change_at_any_time(world: TwinWorld) -> None:
    ref = create(world, "a-failing", ABSENT, NODE1)
    world.tick(5)
    world.cluster.write(MergePatch(ref, {"metadata": {"annotations": {"x/y": "1"}}}))


def test_a_delete_completes_the_apply_that_runs(world: TwinWorld) -> None:
    """Finding 13."""
    ref = create(world, "vmdata-node1", mapped("br-phy"), NODE1)
    world.tick(0.5)
    world.cluster.write(Delete(ref))
    assert mapping_of(world, "node1") == "physnet:br-ex,vmnet:br-vmdata"
    world.tick(0.1)
    assert nnce(world, "node1", "vmdata-node1") is not None
    world.tick(3)
    assert mapping_of(world, "node1") == "physnet:br-ex,vmnet:br-phy"
    assert nnce(world, "node1", "vmdata-node1") is None


def test_a_merge_patch_of_the_desired_state_keeps_its_old_keys(world: TwinWorld) -> None:
    """Finding 14: server-side apply by the owner, and JSON patch, drop them."""
    ref = create(world, "p", ABSENT, {"x/none": "here"})
    world.tick(1)
    world.cluster.write(MergePatch(ref, {"spec": {"desiredState": mapped("br-phy")}}))
    world.tick(1)
    assert world.cluster.get(ref)["spec"]["desiredState"] == S47
    edit(world, ref, mapped("br-phy"))
    assert world.cluster.get(ref)["spec"]["desiredState"] == mapped("br-phy")
    owned = Ref("nmstate.io/v1", POLICY, "owned")
    for desired in (ABSENT, mapped("br-phy")):
        body = {"spec": {"desiredState": desired, "nodeSelector": {"x/none": "here"}}}
        world.cluster.write(Apply(owned, body, "ovsplan"))
        world.tick(1)
    assert world.cluster.get(owned)["spec"]["desiredState"] == mapped("br-phy")


def test_who_waits_for_the_slot_of_a_failed_node_is_aborted(world: TwinWorld) -> None:
    """Section 5: after the other's fifth failure, when it looks again."""
    world.set_nic("node2", "only2", "up")
    create(world, "m", REFUSED, WORKER, 1)
    world.tick(20)
    assert trues(nnce(world, "node2", "m")) == "Pending"
    world.tick(60)
    assert (trues(nnce(world, "node1", "m")), trues(nnce(world, "node2", "m"))) == ("Failing", "Aborted")


def test_the_healthy_node_goes_from_available_to_aborted(world: TwinWorld) -> None:
    """Finding 15 (samples e-2-*): the other one has failed for good, keeps the only slot, and a label changes."""
    world.set_nic("node2", "only2", "up")
    ref = create(world, "m", REFUSED, {"x/member": "yes"}, 1)
    label(world, "node2", member="yes")
    world.tick(0.05)
    until(world, ref, "Available", 6)
    label(world, "node1", member="yes")
    world.tick(40)
    assert trues(nnce(world, "node2", "m")) == "Available"
    assert trues(nnce(world, "node1", "m")) == "Failing"
    since = version(world, ENACTMENT)
    label(world, "node2", some="thing")
    world.tick(0.5)
    seen = history(world, nnce_ref("node2", "m"), since)
    assert states(seen) == ["Pending", "Aborted"]
    assert shape(seen[-1]) == sample("e-2-nnce-node2-aborted")
    assert shape(world.cluster.get(ref)) == sample("e-2-nncp-failed-aborted")
    edit(world, ref, mapped("br-vmdata"))
    assert until(world, ref, "Available", 15) > 0


def test_a_gateway_that_does_not_answer_costs_two_minutes(tmp_path: Path) -> None:
    """Finding 16."""
    with make(tmp_path / "world", probes={"gateway": "down"}) as world:
        ref = create(world, "vmdata-node1", mapped("br-phy"), NODE1)
        world.tick(119)
        assert trues(nnce(world, "node1", "vmdata-node1")) == "Progressing"
        assert mapping_of(world, "node1") == "physnet:br-ex,vmnet:br-vmdata"
        assert until(world, ref, "Available", 10) <= 7


def test_a_refusal_at_once_is_tried_five_times_with_longer_and_longer_pauses(world: TwinWorld) -> None:
    """Section 5 (sample d-2): 1.4 s for each attempt, pauses of 1, 2, 4 and 8 s, nothing changed."""
    desired = {
        **OLD,
        "interfaces": [{"name": "bond7", "type": "ethernet", "state": "up"}, *OLD["interfaces"]],
    }
    since = version(world, ENACTMENT)
    before = switch(world, "node1")
    create(world, "br-vmdata", desired, NODE1)
    paused = 0.0
    while trues(nnce(world, "node1", "br-vmdata")) != "Failing":
        assert dark_for(world, 0.1, 0.1) == 0
        paused += 0.1 if trues(nnce(world, "node1", "br-vmdata")) == "Failing,Progressing" else 0
    assert 14.5 <= paused <= 16.5
    assert switch(world, "node1") == before
    enactment = nnce(world, "node1", "br-vmdata")
    _same_but_for_the_log(
        {
            **shape(enactment),
            "status": {
                k: v for k, v in shape(enactment)["status"].items() if k not in ("desiredState", "features")
            },
        },
        {
            **sample("d-2-nnce-fast-fail"),
            "status": {
                k: v for k, v in sample("d-2-nnce-fast-fail")["status"].items() if k != "desiredState"
            },
        },
    )
    assert "NmstateError: InvalidArgument: Ethernet interface bond7 does not exists" in str(
        said(enactment, "Failing")
    )
    seen = states(history(world, nnce_ref("node1", "br-vmdata"), since))
    assert seen == ["", *["Progressing", "Failing,Progressing"] * 4, "Progressing", "Failing"]


def test_others_go_before_a_policy_that_pauses(world: TwinWorld) -> None:
    """Section 5: a policy that comes during the first attempt is Available before the second."""
    create(world, "a-failing", ABSENT, NODE1)
    world.tick(5)
    ref = create(world, "b-healthy", mapped("br-vmdata"), NODE1)
    assert 20 <= until(world, ref, "Available", 40) <= 27
    assert nnce(world, "node1", "a-failing")["status"]["retryCount"] == {"1": 1}


def test_a_word_that_nmstate_does_not_know_fails_at_once(world: TwinWorld) -> None:
    """Section 5 (sample e-3): no attempt is counted, and no slot taken."""
    selector = {"kubernetes.io/hostname": "node2"}
    ref = create(world, "p-typo", {"interfacez": []}, selector)
    world.tick(1)
    _same_but_for_the_log(shape(nnce(world, "node2", "p-typo")), sample("e-3-nnce-typo"))
    assert "unavailableNodeCountMap" not in world.cluster.get(ref)["status"]
    assert trues(world.cluster.get(ref)) == "Degraded"


def test_a_node_without_a_slot_waits(world: TwinWorld) -> None:
    """Samples e-4-*."""
    before, since = version(world, POLICY), version(world, ENACTMENT)
    ref = create(world, "pend", mapped("br-phy"), WORKER, 1)
    world.tick(12)
    assert sample("e-4-nnce-pending") in [shape(b) for b in history(world, nnce_ref("node2", "pend"), since)]
    policies = [shape(body) for body in history(world, ref, before)]
    assert sample("e-4-nncp-progressing-one-pending") in policies
    assert trues(world.cluster.get(ref)) == "Available"
    assert states(history(world, nnce_ref("node2", "pend"), since))[-2:] == ["Progressing", "Available"]
    assert "unavailableNodeCountMap" not in world.cluster.get(ref)["status"]


def test_half_of_the_nodes_may_change_at_once_by_default(tmp_path: Path) -> None:
    with make(tmp_path / "world", nodes={f"node{n}": {} for n in range(1, 5)}) as world:
        ref = create(world, "shared", mapped("br-phy"))
        most = 0
        while trues(world.cluster.get(ref)) != "Available":
            world.tick(0.2)
            enactments = world.cluster.list("nmstate.io/v1beta1", ENACTMENT).items
            most = max(most, sum(trues(each) == "Progressing" for each in enactments))
        assert most == 2


def test_a_policy_without_nodes_is_ignored(world: TwinWorld) -> None:
    """Sample c-1."""
    ref = create(world, "vmdata-2-done", S47, {"x/vmdata": "br-phy"})
    world.tick(0.1)
    assert shape(world.cluster.get(ref)) == sample("c-1-nncp-ignored")


def test_a_label_that_no_longer_matches_takes_the_enactment_away(world: TwinWorld) -> None:
    """Section 4: the next policy follows in the same round."""
    label(world, "node1", vmdata="legacy")
    create(world, "a-legacy", mapped("br-vmdata"), {"x/vmdata": "legacy"})
    create(world, "b-mapped", mapped("br-phy"), {"x/vmdata": "mapped"})
    world.tick(5)
    assert trues(nnce(world, "node1", "a-legacy")) == "Available"
    label(world, "node1", vmdata="mapped")
    world.tick(0.05)
    assert nnce(world, "node1", "a-legacy") is None
    world.tick(4)
    assert trues(nnce(world, "node1", "b-mapped")) == "Available"


def test_a_label_change_touches_the_status_of_policies_that_do_not_match(world: TwinWorld) -> None:
    """Section 4."""
    ref = create(world, "elsewhere", mapped("br-phy"), {"kubernetes.io/hostname": "node2"})
    until(world, ref, "Available", 6)
    before = version(world, POLICY)
    label(world, "node1", some="thing")
    world.tick(0.1)
    assert states(history(world, ref, before)) == ["", "Available"]


def test_a_handler_that_dies_in_the_middle_starts_over(world: TwinWorld) -> None:
    """Section 4: the open checkpoint is rolled back by the next apply, which then succeeds."""
    ref = create(world, "vmdata-node1", mapped("br-phy"), NODE1)
    until(world, ref, "Available", 6)
    edit(world, ref, S47)
    world.tick(1.4)
    world.restart_handler("node1")
    assert trues(nnce(world, "node1", "vmdata-node1")) == "Progressing"
    world.tick(0.5)
    assert "br-vmdata" in world.show()["nodes"]["node1"]["bridges"]
    until(world, ref, "Available", 12)
    assert trues(nnce(world, "node1", "vmdata-node1")) == "Available"
    assert "br-vmdata" not in world.show()["nodes"]["node1"]["bridges"]


def test_an_enactment_that_is_deleted_by_hand_stays_away(world: TwinWorld) -> None:
    ref = create(world, "vmdata-node1", mapped("br-phy"), NODE1)
    until(world, ref, "Available", 6)
    world.cluster.write(Delete(nnce_ref("node1", "vmdata-node1")))
    world.tick(120)
    assert nnce(world, "node1", "vmdata-node1") is None
    label(world, "node1", some="thing")
    world.tick(5)
    assert trues(nnce(world, "node1", "vmdata-node1")) == "Available"


def test_the_state_of_a_node_follows_a_policy_and_a_label_but_not_the_switch(world: TwinWorld) -> None:
    """Section 6: 60 s and up to a tenth more after a change by hand, at once when the label is set to a new value."""

    def mapping_told() -> Any:
        return nns(world, "node1")["status"]["currentState"]["ovn"]["bridge-mappings"]

    state = nns(world, "node1")
    assert set(state["status"]["currentState"]) == {"dns-resolver", "interfaces", "ovn", "routes"}
    assert state["status"]["handlerNmstateVersion"] == "nmstatectl 2.2.62"
    assert state["status"]["hostNetworkManagerVersion"] == "1.52.1"
    assert [o["name"] for o in state["metadata"]["ownerReferences"]] == ["node1"]
    ref = create(world, "vmdata-node1", mapped("br-phy"), NODE1)
    until(world, ref, "Available", 6)
    world.tick(0.4)
    assert {"localnet": "vmnet", "bridge": "br-phy"} in mapping_told()
    world.tick(1)
    carry_out(world, "node1", mapping("physnet:br-ex,vmnet:br-vmdata"))
    world.tick(30)
    assert {"localnet": "vmnet", "bridge": "br-phy"} in mapping_told()
    forced = {"metadata": {"labels": {"nmstate.io/force-nns-refresh": "now"}}}
    world.cluster.write(MergePatch(Ref("nmstate.io/v1beta1", "NodeNetworkState", "node1"), forced))
    world.tick(0.3)
    assert {"localnet": "vmnet", "bridge": "br-vmdata"} in mapping_told()
    carry_out(world, "node1", mapping("physnet:br-ex,vmnet:br-phy"))
    world.cluster.write(MergePatch(Ref("nmstate.io/v1beta1", "NodeNetworkState", "node1"), forced))
    world.tick(50)
    assert {"localnet": "vmnet", "bridge": "br-vmdata"} in mapping_told()
    world.tick(20)
    assert {"localnet": "vmnet", "bridge": "br-phy"} in mapping_told()


def test_a_state_that_says_the_same_is_not_written_again(world: TwinWorld) -> None:
    before = nns(world, "node1")
    world.tick(300)
    assert nns(world, "node1") == before


def test_a_broken_mapping_freezes_the_state_until_it_is_mended(world: TwinWorld) -> None:
    """Section 6: the label has no effect meanwhile; afterwards it comes back by itself."""
    before = nns(world, "node1")["status"]
    carry_out(world, "node1", mapping("physnet:br-ex,vmnet"))
    world.tick(200)
    forced = {"metadata": {"labels": {"nmstate.io/force-nns-refresh": "now"}}}
    world.cluster.write(MergePatch(Ref("nmstate.io/v1beta1", "NodeNetworkState", "node1"), forced))
    world.tick(5)
    assert nns(world, "node1")["status"] == before
    carry_out(world, "node1", mapping("physnet:br-ex,vmnet:br-phy"))
    world.tick(31)
    found = nns(world, "node1")["status"]["currentState"]["ovn"]["bridge-mappings"]
    assert {"localnet": "vmnet", "bridge": "br-phy"} in found


def test_a_node_without_nmstate_has_no_handler(tmp_path: Path) -> None:
    with worlds.make(tmp_path / "world", apis={"nmstate": "present"}) as world:
        ref = create(world, "map", mapped("br-phy"), {})
        world.tick(5)
        assert said(world.cluster.get(ref), "Available") == ""
        assert world.cluster.list("nmstate.io/v1beta1", "NodeNetworkState").items == ()


def test_a_world_says_which_probes_are_dead(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match=r"probes\.gateway: expected up or down"):
        make(tmp_path / "world", probes={"gateway": "maybe"})


def test_a_policy_made_again_under_its_name_is_a_new_one(world: TwinWorld) -> None:
    ref = create(world, "map", mapped("br-phy"), NODE1)
    until(world, ref, "Available", 6)
    world.cluster.write(Delete(ref))
    world.cluster.write(Create(ref, {"spec": {"desiredState": mapped("br-vmdata"), "nodeSelector": NODE1}}))
    world.tick(5)
    assert mapping_of(world, "node1") == "physnet:br-ex,vmnet:br-vmdata"
    assert trues(world.cluster.get(ref)) == "Available"


def test_a_handler_that_starts_applies_each_policy_once(world: TwinWorld) -> None:
    """Also one that is made while it starts."""
    since = version(world, ENACTMENT)
    ref = create(world, "map", mapped("br-phy"), NODE1)
    world.restart_handler("node1")
    until(world, ref, "Available", 6)
    world.tick(6)
    assert states(history(world, nnce_ref("node1", "map"), since)) == ["", "Progressing", "Available"]


def test_a_world_that_slept_for_months_is_awake_at_once(tmp_path: Path) -> None:
    """On the wall's clock its handlers do not make up for each report that they have missed."""
    spec = {"nmstate": "2.2.62", "nodes": {"worker-01": {"nics": {"ens33": "up"}, "bridges": {}}}}
    init_world(spec, tmp_path / "world")
    with open_world(tmp_path / "world", wall_clock=True) as world:
        (report,) = world.cluster.list("nmstate.io/v1beta1", "NodeNetworkState").items
        assert report["metadata"]["name"] == "worker-01"
        assert len(world.log()) == 1
