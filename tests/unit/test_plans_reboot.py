"""Reboot and settle, step by step, on facts alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from plans.actions import Done, Finished, Perform, Stop
from plans.checks import Check
from plans.facts import ABSENT, Fact, Facts, Known, Unknown
from plans.maintenance.reboot import STRICTLY, TRIES, step_reboot, step_settle
from plans.ops import Patch, Record, Run, Wait
from plans.readings import NoReply, reading

ARGS = {"node": "w", "own_cordon": True}
NOW = 1_768_438_800.0
NOTE = {"run": "r1", "boot": "boot-1", "heard": NOW}


def facts(**boot: Fact) -> Facts:
    """A node in boot-1 that is empty and Ready; `boot` replaces facts below `boot/`."""
    seen = {
        "id": Known("boot-1"),
        "note": ABSENT,
        "heard": Known(NOW),
        "state": Known("up"),
        "version": Known("7"),
    }
    below = {f"node/w/boot/{name}": fact for name, fact in {**seen, **boot}.items()}
    held = {"node/w/unschedulable": Known(True), "node/w/cordoned-by": Known("r1")}
    return Facts({"node/w/vms": Known([]), "node/w/ready": Known(True), **held, **below})


def done(outcomes: dict[str, str] | None = None, attempts: dict[str, int] | None = None, **more: Any) -> Done:
    return Done("r1", outcomes or {}, more.get("results", {}), attempts or {}, more.get("used", {}))


def ops(found: object) -> list[object]:
    assert isinstance(found, Perform), found
    return list(found.ops)


def only(found: object) -> Any:
    (op,) = ops(found)
    return op


def test_what_is_there_is_recorded_and_the_boot_written_down_before_anything_is_asked_for() -> None:
    first = only(step_reboot(ARGS, facts(), done()))
    assert isinstance(first, Record) and set(first.views) == {"ovs:w", "boot:w", "daemons:w", "enactments:w"}
    second = only(step_reboot(ARGS, facts(), done({"before": "done"}, results={"before": {}})))
    assert isinstance(second, Patch) and second.resource_version == "7"
    assert json.loads(second.patch["metadata"]["annotations"]["ovsplan.io/reboot"]) == NOTE
    third = only(step_reboot(ARGS, facts(note=Known(NOTE)), done({"note": "done"}, {"note": 1})))
    assert isinstance(third, Run) and third.argv == ("systemctl", "reboot")


def test_a_note_that_another_run_left_counts_for_nothing() -> None:
    old = facts(note=Known({**NOTE, "run": "r0", "boot": "boot-0"}))
    assert isinstance(only(step_reboot(ARGS, old, done())), Record)


REQUESTS = {
    "before the note": (ABSENT, done({"before": "done"}, results={"before": {}})),
    "the first": (Known(NOTE), done({"note": "done"}, {"note": 1})),
    "resumed": (Known(NOTE), done({"note": "done", "went:0": "timed-out"})),
    "repeated": (Known(NOTE), done({"note": "done", "went:1": "timed-out"}, {"note": 1, "ask": 1})),
}
each_request = pytest.mark.parametrize(("note", "so_far"), REQUESTS.values(), ids=REQUESTS)


def requesting(note: Fact, so_far: Done, *changes: tuple[str, Fact], own_cordon: bool = True) -> object:
    return step_reboot({**ARGS, "own_cordon": own_cordon}, facts(note=note).with_changes(changes), so_far)


@each_request
def test_a_node_with_a_vm_on_it_is_not_rebooted(note: Fact, so_far: Done) -> None:
    assert isinstance(only(requesting(note, so_far)), Patch | Run)
    found = requesting(note, so_far, ("node/w/vms", Known(["default/web"])))
    assert isinstance(found, Stop) and found.moved
    assert found.why.startswith("default/web on w would die with it: it is not rebooted. ")
    assert "`oc adm cordon w`" in found.why and "live-migrate every VM that is on it" in found.why


@each_request
@pytest.mark.parametrize(
    ("path", "fact", "why"),
    [
        ("unschedulable", Known(False), "w was uncordoned, and may be given a VM at any time: "),
        ("cordoned-by", ABSENT, "w is cordoned by somebody else now: "),
        ("cordoned-by", Known("r2"), "w is cordoned by run r2 now: "),
    ],
)
def test_a_node_that_this_run_does_not_hold_any_more_is_not_rebooted(
    note: Fact, so_far: Done, path: str, fact: Fact, why: str
) -> None:
    found = requesting(note, so_far, (f"node/w/{path}", fact))
    assert isinstance(found, Stop) and found.moved and found.why.startswith(why)
    assert "`oc annotate --overwrite node w ovsplan.io/cordoned-by=r1`" in found.why


@each_request
def test_a_node_that_somebody_else_cordoned_beforehand_stays_theirs(note: Fact, so_far: Done) -> None:
    theirs = ("node/w/cordoned-by", ABSENT)
    assert isinstance(only(requesting(note, so_far, theirs, own_cordon=False)), Patch | Run)
    freed = requesting(note, so_far, theirs, ("node/w/unschedulable", Known(False)), own_cordon=False)
    assert isinstance(freed, Stop) and freed.moved and "annotate" not in freed.why


@each_request
@pytest.mark.parametrize("path", ["node/w/vms", "node/w/unschedulable"])
def test_what_could_not_be_asked_is_no_leave_to_reboot(note: Fact, so_far: Done, path: str) -> None:
    found = requesting(note, so_far, (path, Unknown("no route")))
    assert isinstance(found, Stop) and found.unsure and "no route" in found.why


LIMITED = {"over": ["shop/known"]}
OVER = {"budget": "shop/web", "allowed": 0, "why": "it needs 2 healthy pod(s) and has 2"}


def budgets(*over: str) -> tuple[tuple[str, Fact], ...]:
    """The budgets of the node that would not let it restart."""
    told = [{**OVER, "budget": name, "pods": [{"pod": f"{name}-1", "way": "evict"}]} for name in over]
    return (("node/w/budgets", Known(told)), ("node/w/over-budget", Known(list(over))))


@each_request
def test_a_budget_that_the_plan_did_not_name_is_waited_for(note: Fact, so_far: Done) -> None:
    limited = {**ARGS, **LIMITED}
    seen = facts(note=note)
    assert isinstance(
        only(step_reboot(limited, seen.with_changes(budgets("shop/known")), so_far)), Patch | Run
    )
    held = seen.with_changes(budgets("shop/known", "shop/web"))
    wait = only(step_reboot(limited, held, so_far))
    assert isinstance(wait, Wait) and wait.deadline == 600
    assert wait.checks[0].path == "node/w/over-budget"
    late = done({**so_far.outcomes, "budgets": "timed-out"}, dict(so_far.attempts))
    found = step_reboot(limited, held, late)
    assert isinstance(found, Stop) and found.why == (
        "w is not restarted: disruption budget shop/web lets 0 of its pods be away (it needs 2 healthy pod(s) and has 2), "
        "and on w are shop/web-1 (H64)"
    )


@each_request
def test_a_budget_that_could_not_be_asked_is_no_leave_to_reboot(note: Fact, so_far: Done) -> None:
    mute = facts(note=note).with_changes([("node/w/over-budget", Unknown("no route"))])
    assert isinstance(only(step_reboot({**ARGS, **LIMITED}, mute, so_far)), Wait)
    late = done({**so_far.outcomes, "budgets": "timed-out"}, dict(so_far.attempts))
    found = step_reboot({**ARGS, **LIMITED}, mute, late)
    assert isinstance(found, Stop) and "no route" in found.why
    # The plan could not ask either, and said so.
    assert isinstance(only(step_reboot(ARGS, mute, so_far)), Patch | Run)


def test_a_node_whose_boot_is_not_known_is_not_rebooted() -> None:
    found = step_reboot(ARGS, facts(id=Unknown("no route")), done())
    assert isinstance(found, Stop) and found.unsure and "no route" in found.why


@pytest.mark.parametrize("outcome", ["done", "doubt"])
def test_once_asked_another_boot_is_awaited_and_nothing_asked_again(outcome: str) -> None:
    asked = done({"note": "done", "ask": outcome}, {"note": 1, "ask": 1})
    found = only(step_reboot(ARGS, facts(note=Known(NOTE)), asked))
    assert isinstance(found, Wait)
    assert found.checks == (Check("node/w/boot/id", "ne", "boot-1", "w has not booted anew yet"),)


def test_who_resumes_waits_before_asking_as_it_may_have_been_asked_for() -> None:
    resumed = done({"note": "done"})
    assert isinstance(only(step_reboot(ARGS, facts(note=Known(NOTE)), resumed)), Wait)


def after_wait(tries: int, ready: Fact) -> object:
    waited = done({"note": "done", f"went:{tries}": "timed-out"}, {"note": 1, "ask": tries})
    seen = facts(note=Known(NOTE)).with_changes([("node/w/ready", ready)])
    return step_reboot(ARGS, seen, waited)


def test_only_a_node_that_plainly_stayed_up_is_asked_again() -> None:
    assert isinstance(only(after_wait(1, Known(True))), Run)
    for ready in (Known(False), Unknown("its kubelet has not renewed its Lease for 90 s")):
        assert isinstance(only(after_wait(1, ready)), Wait)


def test_a_node_that_never_hears_stops_the_line_with_the_way_out() -> None:
    found = after_wait(TRIES, Known(True))
    assert isinstance(found, Stop) and f"it was asked {TRIES} times" in found.why
    assert "It stays cordoned" in found.why and "oc adm uncordon w" in found.why


def test_silence_of_the_api_is_waited_through() -> None:
    silent = facts(id=Unknown("connection refused"), note=Unknown("connection refused"))
    record = {"before": {"node/w/boot/id": "boot-1"}}
    found = only(step_reboot(ARGS, silent, done({"note": "done", "ask": "done"}, {"ask": 1}, results=record)))
    assert isinstance(found, Wait) and found.checks[0].test == "present"
    waited = done({"note": "done", "reached": "timed-out"}, results=record)
    gone = step_reboot(ARGS, silent, waited)
    assert isinstance(gone, Stop) and gone.unsure and "connection refused" in gone.why


def test_a_new_boot_is_not_the_end_before_the_node_is_up() -> None:
    booted = facts(note=Known(NOTE), id=Known("boot-2"), state=Known("not Ready: no CNI"))
    assert isinstance(only(step_reboot(ARGS, booted, done({"note": "done"}))), Wait)
    late = step_reboot(ARGS, booted, done({"note": "done", "up": "timed-out"}))
    assert isinstance(late, Stop) and "is not up 600 s later: not Ready: no CNI" in late.why
    up = facts(note=Known(NOTE), id=Known("boot-2"))
    assert step_reboot(ARGS, up, done({"note": "done"})) == Finished(
        "rebooted: boot id boot-1 before, boot-2 now"
    )


BEFORE = {
    "node/w/boot/heard": NOW,
    "node/w/boot/schedulable": "true",
    "node/w/daemons": ["multus"],
    "node/w/enacted": ["br-phy"],
    "node/w/enacting": ["old: failed"],
    "node/w/ovs/mappings": {"physnet": "br-ex", "vmnet": "br-phy"},
}
SETTLE = {"node": "w", "checks": [["node/w/ovs/bridge/br-phy/uplinks", "min", 1, ""]]}


def settled(**changes: Fact) -> Facts:
    """A node that came back whole; a key's `_` stands for `/`."""
    whole: dict[str, Fact] = {
        "boot/schedulable": Known("true"),
        "daemon/multus": Known(NOW + 60),
        "enacted/br-phy": Known(NOW + 90),
        "enacting": Known(["old: failed"]),
        "ovs/mappings": Known({"physnet": "br-ex", "vmnet": "br-phy"}),
        "ovs/bridge/br-phy/uplinks": Known(["ens33"]),
        "ovn/version": Known("25.03"),
    }
    whole |= {name.replace("_", "/"): fact for name, fact in changes.items()}
    booted = facts(note=Known(NOTE), id=Known("boot-2"))
    return booted.with_changes([(f"node/w/{path}", fact) for path, fact in whole.items()])


def settling(**outcomes: str) -> Done:
    return done(outcomes, used={"w/reboot": {"before": BEFORE}})


def test_when_all_is_as_before_the_note_goes_and_that_is_the_end() -> None:
    note = only(step_settle(SETTLE, settled(), settling()))
    assert isinstance(note, Patch) and note.patch == {
        "metadata": {"annotations": {"ovsplan.io/reboot": None}}
    }
    without = settled().with_changes([("node/w/boot/note", ABSENT)])
    assert step_settle(SETTLE, without, settling()) == Finished(
        "2 daemon(s) Ready again; 1 policy applied again; 6 checks hold"
    )


@pytest.mark.parametrize(
    ("missing", "awaited"),
    [
        ({"daemon_multus": Known(NOW - 60)}, "node/w/daemon/multus"),
        ({"daemon_multus": ABSENT}, "node/w/daemon/multus"),
        ({"boot_schedulable": Known("false")}, "node/w/boot/schedulable"),
        ({"enacted_br-phy": Known(NOW - 600)}, "node/w/enacted/br-phy"),
        ({"enacting": Known(["br-phy: progressing", "old: failed"])}, "node/w/enacting"),
        ({"ovn_version": Unknown("no route")}, "node/w/ovn/version"),
        ({"ovs_mappings": Known({"vmnet": "br-phy"})}, "node/w/ovs/mappings"),
        ({"ovs_bridge_br-phy_uplinks": Known([])}, "node/w/ovs/bridge/br-phy/uplinks"),
    ],
)
def test_what_was_ready_or_applied_before_counts_for_nothing_after(missing: Any, awaited: str) -> None:
    found = only(step_settle(SETTLE, settled(**missing), settling()))
    assert isinstance(found, Wait) and [check.path for check in found.checks] == [awaited]
    in_vain = step_settle(SETTLE, settled(**missing), settling(daemons="timed-out", settled="timed-out"))
    assert isinstance(in_vain, Stop) and "not as before the reboot" in in_vain.why
    assert "It stays cordoned" in in_vain.why


def read(view: str, *replies: Any) -> Facts:
    return Facts(reading(view, NOW).facts(replies))


def text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def node(boot: str, ready: str, heartbeat: float, note: dict[str, Any] | None = NOTE) -> list[Any]:
    notes = {"ovsplan.io/reboot": json.dumps(note)} if note else {}
    condition = {"type": "Ready", "status": ready, "lastHeartbeatTime": text(heartbeat), "message": "no CNI"}
    status = {"nodeInfo": {"bootID": boot}, "conditions": [condition]}
    return [{"metadata": {"name": "w", "annotations": notes, "resourceVersion": "7"}, "status": status}]


def lease(at: float) -> list[Any]:
    return [{"metadata": {"name": "w"}, "spec": {"renewTime": text(at)}}]


@pytest.mark.parametrize(
    ("leases", "seen", "state"),
    [
        (lease(NOW + 80), node("boot-2", "True", NOW + 70), "up"),
        (NoReply("forbidden"), node("boot-2", "True", NOW + 70), "up"),
        (
            lease(NOW + 80),
            node("boot-1", "True", NOW + 70),
            "it runs as it did before the reboot was asked for",
        ),
        (lease(NOW + 80), node("boot-2", "False", NOW + 70), "not Ready: no CNI"),
        (
            lease(NOW + 80),
            node("boot-2", "True", NOW - 5),
            "its kubelet has not said since the reboot that it is Ready",
        ),
        (
            lease(NOW - 5),
            node("boot-2", "True", NOW + 70),
            "its kubelet has not renewed its Lease since the reboot",
        ),
    ],
)
def test_a_node_is_up_when_another_boot_said_that_it_is_ready_and_its_lease_is_fresh(
    leases: Any, seen: Any, state: str
) -> None:
    assert read("boot:w", leases, seen).value("node/w/boot/state") == state


def test_the_last_word_of_a_kubelet_is_its_lease_or_its_heartbeat() -> None:
    assert read("boot:w", lease(NOW), node("b", "True", NOW - 200)).value("node/w/boot/heard") == NOW
    assert read("boot:w", [], node("b", "True", NOW - 200)).value("node/w/boot/heard") == NOW - 200


@pytest.mark.parametrize("words", ["", "nonsense", "[]", '{"boot": "x"}'])
def test_what_somebody_else_wrote_there_is_no_note(words: str) -> None:
    seen = node("b", "True", NOW, None)
    seen[0]["metadata"]["annotations"]["ovsplan.io/reboot"] = words
    assert read("boot:w", [], seen).get("node/w/boot/note") == ABSENT


def pod(app: str, ready: str, since: float, owner: str = "DaemonSet") -> Any:
    metadata = {"name": f"{app}-x", "labels": {"app": app}, "ownerReferences": [{"kind": owner}]}
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": text(since)}
    return {"metadata": metadata, "status": {"conditions": [condition]}}


def test_daemons_are_pods_of_daemonsets_and_ready_since_their_last_change() -> None:
    pods = [pod("multus", "True", NOW), pod("ovnkube-node", "False", NOW), pod("multus", "True", NOW, "Job")]
    seen = read("daemons:w", [*pods, pod("web", "True", NOW)])
    assert seen.value("node/w/daemons") == ["multus", "ovnkube-node"]
    assert (seen.value("node/w/daemon/multus"), seen.get("node/w/daemon/ovnkube-node")) == (NOW, ABSENT)


def test_containers_that_all_started_anew_tell_it_as_well_as_the_condition() -> None:
    def running(*started: float) -> Any:
        found = pod("multus", "True", NOW - 600)
        states = [{"name": "c", "state": {"running": {"startedAt": text(at)}}} for at in started]
        found["status"]["containerStatuses"] = states
        return read("daemons:w", [found]).value("node/w/daemon/multus")

    assert running(NOW + 60, NOW + 70) == NOW + 60
    assert running(NOW + 60, NOW - 700) == NOW - 600, "one of them ran on"


def enactment(policy: str, condition: str, generation: int, at: float = NOW) -> Any:
    told = [{"type": condition, "status": "True", "lastHeartbeatTime": text(at)}]
    labels = {"nmstate.io/policy": policy, "nmstate.io/node": "w"}
    return {
        "metadata": {"name": f"w.{policy}", "labels": labels},
        "status": {"policyGeneration": generation, "conditions": told},
    }


def test_only_what_is_available_at_its_generation_is_applied() -> None:
    policies = [{"metadata": {"name": name, "generation": 2}} for name in ("a", "b", "c")]
    found = [
        enactment("a", "Available", 2),
        enactment("b", "Available", 1),
        enactment("c", "Failing", 2),
        enactment("gone", "Available", 1),
    ]
    seen = read("enactments:w", policies, found)
    assert (seen.value("node/w/enacted"), seen.value("node/w/enacted/a")) == (["a"], NOW)
    assert seen.value("node/w/enacting") == ["b: waiting", "c: failed"]
    assert read("enactments:w", None, None).value("node/w/enacted") == []


def test_a_time_that_is_the_same_as_before_is_not_later() -> None:
    seen = settled(daemon_multus=Known(NOW))
    assert isinstance(only(step_settle(SETTLE, seen, settling())), Wait) and STRICTLY > 0
