"""Which policy a node obeys: how one comes into force there, is awaited, and is taken back.

The one invariant: whether a policy is in force is judged by what the API holds now, its spec or the node's label, never by
what was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from plans.actions import Action, Done, Next, Perform, Stop
from plans.checks import Check
from plans.desired import VMNetwork
from plans.facts import Facts, Known, Later, Unknown
from plans.nmstate import policies
from plans.nmstate.enactments import (
    APPLY_DEADLINE,
    OVER,
    SEEN_DEADLINE,
    await_enactment,
    failure,
    not_editable,
    state,
    state_path,
)
from plans.nmstate.names import mapping_name, node_name, shared_name
from plans.nmstate.policies import EDITS, HOSTNAME
from plans.ops import AnyOp, Apply, Changes, Delete, ObjectRef, Patch, Record, Wait

REAPPLY_SETTLE = 1.0
"""Seconds before an enactment is believed after a label's change: until then it may still be the one from before."""

BETWEEN, MAPPED, DONE = "migrating", "mapped", "true"
"""The values of a node's label: no policy's, the mapping's, and the one that says that the node is done."""


def way(network: VMNetwork, node: str, facts: Facts, step: str) -> dict[str, Any]:
    """The arguments by which a step's policy comes into force on a node: one of its own, or a value of its label.

    `step` is `mapped` or `done`: with labels each has a policy of its own, which selects that value.
    """
    if network.is_labelled and network.spec.delivery:
        value = MAPPED if step == "mapped" else DONE
        name = mapping_name(network) if step == "mapped" else shared_name(network)
        label = {"key": network.spec.delivery.label, "value": value}
        return {"policy": name, "label": label, "network": network.name}
    hostname = facts.value(f"node/{node}/labels", {}).get(HOSTNAME, node)
    return {"policy": node_name(network, node), "hostname": hostname, "network": network.name}


def views(node: str, args: Mapping[str, Any]) -> tuple[str, ...]:
    """What the steps of a policy's action look at: with labels, all policies, for a label's change applies them anew."""
    return ("policies", "nodes") if args.get("label") else (f"enactment:{node}/{args['policy']}",)


def in_force(args: Mapping[str, Any], facts: Facts) -> bool:
    """Whether the policy of a step is the one that its node is told to obey."""
    if label := args.get("label"):
        labels = facts.value(f"node/{args['node']}/labels", {})
        return bool(labels.get(label["key"]) == label["value"])
    return policies.is_applied(facts, _own_body(args))


def enforce_op(label: str, args: Mapping[str, Any], facts: Facts) -> Apply | Patch:
    """The op that brings the policy of a step into force on its node."""
    if args.get("label"):
        return label_op(label, args, args["label"]["value"], facts)
    op = policies.apply_op(label, _own_body(args))
    anew = (state_path(args["node"], args["policy"]), Known("waiting"))
    return replace(op, changes=(*op.changes, anew))


def _own_body(args: Mapping[str, Any]) -> dict[str, Any]:
    """The policy of one node; one of the files is made for no network."""
    selector = {HOSTNAME: args["hostname"]}
    return policies.body(args["policy"], selector, args["document"], network=args.get("network", ""))


def retract_op(label: str, args: Mapping[str, Any], facts: Facts) -> Delete | Patch:
    """The op after which no policy of a step tries anything on its node any more."""
    if args.get("label"):
        return label_op(label, args, BETWEEN, facts)
    return policies.delete_op(label, args["policy"], facts, (args["node"],))


def withdraw(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    """What `taken_back` may do, for the plan to show."""
    return (retract_op("withdraw", args, facts),)


def taken_back(args: Mapping[str, Any], facts: Facts, done: Done) -> Next | None:
    """After a failure: the op by which a policy that came to no good end tries nothing more on its node.

    None when it tries nothing: each of its attempts would cut the node's VMs again (H37).
    """
    node, name = args["node"], args["policy"]
    if not in_force(args, facts) or state(facts, node, name) in ("available", "unknown"):
        return None
    if done.attempts.get("withdraw", 0) >= EDITS:
        return Stop(f"policy {name} comes back after it was taken from {node}: somebody else wants it")
    return Perform(withdraw(args, facts))


def enforced(
    args: Mapping[str, Any], facts: Facts, done: Done, changes: Changes = ()
) -> Perform | Stop | None:
    """The policy of a step brought into force and awaited; None when nmstate says that it is enacted.

    `changes` is what its enactment is believed to change on the node.
    """
    node, name = args["node"], args["policy"]
    if isinstance(served := facts.get("cluster/nmstate"), Unknown):
        return Stop(f"cannot tell how policy {name} stands: {served.why}", unsure=True)
    wait = await_enactment("enacted", node, name, changes, SEEN_DEADLINE + APPLY_DEADLINE)
    if in_force(args, facts):
        found, begun = state(facts, node, name), max(1, done.attempts.get("policy", 0))
        if found == "available":
            return None
        # A wait that came true, and is true no more, saw an enactment of the policy's former life.
        overdue = done.outcomes.get("enacted") == "timed-out" and done.attempts.get("enacted", 0) >= begun
        if found in OVER[1:] or overdue:
            return Stop(failure(facts, node, name))
        return Perform((wait,))
    if (editable := not_editable(args, facts, done)) is not None:
        return editable
    if "before" not in done.outcomes:
        views = (f"ovs:{node}",)
        return Perform((Record(label="before", title=f"record the switch of {node}", views=views),))
    if done.attempts.get("policy", 0) >= EDITS:
        return Stop(
            f"policy {name} was changed {EDITS} times after it was applied: somebody else edits it",
            moved=True,
        )
    return Perform((enforce_op("policy", args, facts), wait))


def label_op(label: str, args: Mapping[str, Any], value: str, facts: Facts) -> Patch:
    """The op that sets a node's label. Any change of a label makes the handler apply all that match the node anew."""
    node, key = args["node"], args["label"]["key"]
    labels = facts.value(f"node/{node}/labels", {})
    version = facts.get(f"node/{node}/resource-version")
    others = [name for name in policies.matching(facts, {**labels, key: value}) if name != args["policy"]]
    meaning = "which no policy selects" if value == BETWEEN else f"which policy {args['policy']} selects"
    if others:
        meaning += f"; {', '.join(others)} applied anew by that"
    return Patch(
        label=label,
        title=f"label {node} {key}={value}, {meaning}",
        ref=ObjectRef("v1", "Node", node),
        patch={"metadata": {"labels": {key: value}}},
        resource_version=str(version.value) if isinstance(version, Known) else None,
        commands=(f"oc label node {node} {key}={value} --overwrite",),
        changes=(
            (f"node/{node}/labels", Known({**labels, key: value})),
            (f"node/{node}/resource-version", Later("the patch", "the API server sets it")),
        ),
    )


def label_ways(node: str, actions: Sequence[Action], facts: Facts) -> tuple[str, ...]:
    """How the labels of a node change on its way, as people read it: one for each key."""
    ways: dict[str, list[str]] = {}
    for label in (action.args["label"] for action in actions if action.args.get("label")):
        key = label["key"]
        now = str(facts.value(f"node/{node}/labels", {}).get(key, "(none)"))
        steps = ways.setdefault(key, [now])
        steps += [label["value"]] if steps[-1] != label["value"] else []
    return tuple(f"{key}: {' -> '.join(steps)} ({BETWEEN} after a failure)" for key, steps in ways.items())


def await_others(label: str, args: Mapping[str, Any], facts: Facts) -> Wait | None:
    """A wait until all that a label's change has applied anew on a node is enacted again; None when there is nothing."""
    node = args["node"]
    labels = facts.value(f"node/{node}/labels", {})
    others = [name for name in policies.matching(facts, labels) if name != args["policy"]]
    if not args.get("label") or not others:
        return None
    checks = tuple(
        Check(state_path(node, name), "eq", "available", f"policy {name} is applied anew") for name in others
    )
    return Wait(
        label=label,
        title=f"{', '.join(others)} enacted anew on {node}",
        checks=checks,
        unless=tuple(Check(c.path, "eq", over) for c in checks for over in OVER[1:]),
        deadline=APPLY_DEADLINE,
        at_least=REAPPLY_SETTLE,
    )
