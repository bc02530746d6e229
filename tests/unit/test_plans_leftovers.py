"""What a run leaves: what may be there is told, also where nobody knows what came of an op."""

from __future__ import annotations

from typing import Any

import pytest

from plans.actions import Action
from plans.document import FORMAT, Plan, Target
from plans.leftovers import Deed, leftovers
from plans.nmstate.exports import manifest, policies_in
from plans.progress import StepState

NNCP, LABEL = "NodeNetworkConfigurationPolicy", "migrated"
OWN, OLD, SHARED = "new-w", "old", "new"
MAPPED = {"ovn": {"bridge-mappings": [{"localnet": "vmnet", "bridge": "br-phy", "state": "present"}]}}
BEFORE = {OLD: {"metadata": {"name": OLD}, "spec": {"desiredState": MAPPED}}}


def action(name: str, routine: str, node: str = "", address: str = "", **args: Any) -> Action:
    return Action(id=name, routine=routine, title=name, node=node, address=address, args=args)


WITHDRAW = action("policy/old/withdraw", "withdraw-policy@1", policy=OLD, nodes=["w"])
REMAP = action("w/remap/vmnet", "policy-remap@1", "w", "node/w/mapping/vmnet", policy=OWN)
CANARY = action("w/canary", "canary@1", "w")
REBOOT, SETTLE = action("w/reboot", "reboot@1", "w"), action("w/settle", "settle@1", "w")
EVACUATE = action("w/evacuate", "evacuate@1", "w")
WIDEN = Action(
    id="l2advertisement/m/a/widen",
    routine="set-interfaces@1",
    title="widen",
    undo_commands=("oc patch back",),
)
NARROW = action("l2advertisement/m/a/narrow", "set-interfaces@1")
FINALISE = action(
    "policy/new/finalise", "finalise-policy@1", policy=SHARED, document=MAPPED, drop=[OWN], nodes=["w"]
)
ACTIONS = (WITHDRAW, WIDEN, EVACUATE, REMAP, REBOOT, SETTLE, CANARY, FINALISE, NARROW)
PLAN = Plan(FORMAT, Target("c", "SIMULATED"), "desired", (), (), ACTIONS)


def deed(of: Action, op: str, kind: str, name: str, outcome: str | None = "done", **more: Any) -> Deed:
    ref = {"kind": kind, "name": name, "namespace": more.pop("namespace", None)}
    return Deed(of.id, more.pop("label", op), {"op": op, "ref": ref, **more}, outcome)


def told(*deeds: Deed, over: tuple[Action, ...] = ()) -> list[str]:
    """The commands of what is left, or the sentence where there is none."""
    steps = {one.action: StepState("failed", acted=(one.label,)) for one in deeds}
    steps |= {one.id: StepState("done", acted=steps.get(one.id, StepState("")).acted) for one in over}
    found = leftovers(PLAN, steps, deeds, BEFORE, "export {}")
    return [command for left in found for command in left.commands or (left.what,)]


def deleted(outcome: str | None = "done") -> Deed:
    return deed(WITHDRAW, "delete", NNCP, OLD, outcome)


def own(op: str, outcome: str | None = "done") -> Deed:
    return deed(REMAP, op, NNCP, OWN, outcome)


def noted(value: str | None, outcome: str | None = "done", of: Action = REBOOT) -> Deed:
    patch = {"metadata": {"annotations": {"ovsplan.io/reboot": value}}}
    return deed(of, "patch", "Node", "w", outcome, patch=patch)


def labelled(value: str, outcome: str | None = "done") -> Deed:
    return deed(REMAP, "patch", "Node", "w", outcome, patch={"metadata": {"labels": {LABEL: value}}})


def pod(op: str, outcome: str | None = "done") -> Deed:
    return deed(CANARY, op, "Pod", "canary-1", outcome, namespace="ns")


def strategy(word: str, note: str | None, outcome: str | None = "done") -> Deed:
    patch = {"metadata": {"annotations": {"ovsplan.io/run-strategy": note}}, "spec": {"runStrategy": "x"}}
    more = {"patch": patch if word != "start" else {"spec": {}}, "namespace": "ns", "label": f"{word}:ns/vm"}
    return deed(EVACUATE, "patch", "VirtualMachine", "vm", outcome, **more)


BACK, DROP_OWN = "export policy/old | oc create -f -", "oc delete nncp new-w"
FORGET, REMOVE = "oc annotate node w ovsplan.io/reboot-", "oc delete pod canary-1 -n ns"
STARTED = (strategy("stop", "runStrategy=Manual"), strategy("start", ""))
RESTORE = """oc patch vm vm -n ns --type merge -p '{"metadata": {"annotations": {"ovsplan.io/run-strategy": null}}, \
"spec": {"runStrategy": "Manual"}}'"""


@pytest.mark.parametrize(
    ("deeds", "over", "left"),
    [
        ([deleted()], (), [BACK]),
        ([deleted(None)], (), [BACK]),
        ([deleted("failed")], (), []),
        ([own("apply")], (), [DROP_OWN]),
        ([own("apply", "doubt")], (), [DROP_OWN]),
        ([own("apply", "failed")], (), []),
        ([own("apply"), own("delete", None)], (), [DROP_OWN]),
        ([own("apply"), own("delete")], (), []),
        ([own("apply"), own("delete"), own("apply")], (), [DROP_OWN]),
        ([own("apply"), deed(FINALISE, "delete", NNCP, OWN)], (), []),
        ([own("apply"), deed(FINALISE, "apply", NNCP, SHARED)], (FINALISE,), ["oc delete nncp new"]),
        ([deed(FINALISE, "edit", NNCP, OLD)], (), ["export policy/old | oc replace -f -"]),
        ([noted("{}")], (), [FORGET]),
        ([noted("{}", None)], (), [FORGET]),
        ([noted("{}"), noted(None, "doubt", SETTLE)], (), [FORGET]),
        ([noted("{}"), noted(None, "done", SETTLE)], (), []),
        ([noted("{}")], (REBOOT, SETTLE), []),
        ([labelled("mapped")], (), ["w has the label migrated=mapped of this run: the next run of the same files leads it on"]),
        ([labelled("mapped"), labelled("true")], (), []),
        ([pod("create", None)], (), [REMOVE]),
        ([pod("create"), pod("delete", "doubt")], (), [REMOVE]),
        ([pod("create"), pod("delete")], (), []),
        ([pod("create")], (CANARY,), []),
        ([*STARTED], (), [RESTORE]),
        ([*STARTED, strategy("restore", None, None)], (), [RESTORE]),
        ([*STARTED, strategy("restore", None)], (), []),
        ([strategy("stop", "runStrategy=Manual")], (), []),
        ([*STARTED], (EVACUATE,), []),
    ],
)  # fmt: skip
def test_what_is_left(deeds: list[Deed], over: tuple[Action, ...], left: list[str]) -> None:
    assert told(*deeds, over=over) == left


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "nothing has come in its place yet. Put back, it changes nothing: no node of it was changed yet."),
        ((own("apply"),), "nothing has come in its place yet. Put back, it undoes what was done on w (H04)."),
        ((own("apply"), deed(FINALISE, "apply", NNCP, SHARED)), "new came in its place. Put back, it undoes what was done on w"),
    ],
)  # fmt: skip
def test_what_comes_of_an_old_policy_that_is_put_back(more: tuple[Deed, ...], words: str) -> None:
    steps = {one.action: StepState("failed", acted=("x",)) for one in (deleted(), *more)}
    first = leftovers(PLAN, steps, [deleted(), *more], BEFORE, "export {}")
    assert any(words in left.what for left in first), [left.what for left in first]


def test_an_export_is_what_its_maker_said_and_no_more() -> None:
    served = {
        "metadata": {
            "name": OLD, "uid": "1", "resourceVersion": "7", "generation": 2, "labels": {"team": "net"},
            "annotations": {"nmstate.io/webhook-mutating-timestamp": "1", "example.com/why": "vms"},
        },
        "spec": {"desiredState": MAPPED}, "status": {"conditions": []},
    }  # fmt: skip
    assert manifest(served) == {
        "apiVersion": "nmstate.io/v1",
        "kind": NNCP,
        "metadata": {"name": OLD, "labels": {"team": "net"}, "annotations": {"example.com/why": "vms"}},
        "spec": {"desiredState": MAPPED},
    }
    raw = [
        {"request": {"api": "v1", "kind": "Node"}, "reply": [{"metadata": {"name": "w"}}]},
        {"request": {"api": "nmstate.io/v1", "kind": NNCP}, "reply": [served]},
    ]
    assert list(policies_in({"raw": raw})) == [OLD]
    assert policies_in({"raw": [{"request": {"api": "nmstate.io/v1", "kind": NNCP}, "reply": None}]}) == {}


def lists(of: Action, *interfaces: str, outcome: str | None = "done") -> Deed:
    patch = {"spec": {"interfaces": list(interfaces)}}
    return deed(of, "patch", "L2Advertisement", "a", outcome, namespace="m", patch=patch)


@pytest.mark.parametrize("outcome", ["done", "doubt", None])
def test_an_advertisement_that_was_widened_is_left_until_it_is_narrowed(outcome: str | None) -> None:
    wide = lists(WIDEN, "bond0.100", "br-ex", outcome=outcome)
    assert told(wide) == ["oc patch back"]
    assert told(wide, lists(NARROW, "br-ex")) == []
    assert told(wide, lists(NARROW, "br-ex", outcome="doubt")) == ["oc patch back"]


def test_an_advertisement_that_is_as_declared_is_not_left() -> None:
    plan = Plan(FORMAT, Target("c", "SIMULATED"), "desired", (), (), (WIDEN,))
    assert leftovers(plan, {}, [lists(WIDEN, "bond0.100", "br-ex")], BEFORE, "export {}") == []


def test_several_policies_of_single_nodes_are_told_as_several() -> None:
    other = action("v/remap/vmnet", "policy-remap@1", "v", policy="new-v")
    plan = Plan(FORMAT, Target("c", "SIMULATED"), "desired", (), (), (*ACTIONS, other))
    found = leftovers(plan, {}, [own("apply"), deed(other, "apply", NNCP, "new-v")], BEFORE, "export {}")
    assert [left.what for left in found if "stay:" in left.what and "drops them at its end" in left.what]


def test_the_command_of_an_export_may_have_braces() -> None:
    found = leftovers(PLAN, {}, [deleted()], BEFORE, "export {} --state 'x{a}.db'")
    assert found[0].commands == ("export policy/old --state 'x{a}.db' | oc create -f -",)
