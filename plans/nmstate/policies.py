"""Policies of ours: their bodies, and the ops that write and await them.

The one invariant: success is the enactment of that node at that generation, never the policy's own status, which may
be stale, or count a node that was ignored as done (H38).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from plans.actions import Action, Done, Next, Perform, Stop
from plans.checks import Check
from plans.desired import VMNetwork
from plans.facts import ABSENT, Absent, Facts, Known, Later, Unknown
from plans.nmstate import documents
from plans.nmstate.names import mapping_name, node_name, shared_name
from plans.ops import AnyOp, Apply, Changes, Delete, Edit, ObjectRef, Patch, Record, Wait

POLICY = ("nmstate.io/v1", "NodeNetworkConfigurationPolicy")
ENACTMENT = ("nmstate.io/v1beta1", "NodeNetworkConfigurationEnactment")
STATE = ("nmstate.io/v1beta1", "NodeNetworkState")

HOSTNAME = "kubernetes.io/hostname"
FIELD_MANAGER = "ovsplan"
OURS = "app.kubernetes.io/managed-by"

MADE_FOR = "ovsplan.io/network"
"""The annotation on a policy that a VMNetwork's run writes: the network's name, which no label's value may be too long for.

A policy of the files has none: nothing but the files says when it goes.
"""

SEEN_DEADLINE = 60.0
"""Seconds for a handler to begin: one whose API connection rode on a moved uplink may be blind for 36 s (H62)."""

PROBE_MINUTES = 2
"""How long a handler waits for a gateway, or a name server, that does not answer, before every apply (H61)."""

APPLY_DEADLINE = 300.0
"""Seconds for one node: 5 normally, 27 per failing verification, 120 more per probe that does not answer (H61)."""

REAPPLY_SETTLE = 1.0
"""Seconds before an enactment is believed after a label's change: until then it may still be the one from before."""

EDIT_DEADLINE = 200.0
"""Seconds for a policy in progress to come to an end: until then the API server refuses edits of its spec."""

EDITS = 3
"""How often a policy is written in one step before it is taken that somebody else edits it."""

ATTEMPTS = 5
"""How often a handler tries one generation of a policy before it gives up (measured)."""

IN_PROGRESS = "is still in progress"
"""What the admission rule says of an edit that comes too early (H39)."""

BETWEEN, MAPPED, DONE = "migrating", "mapped", "true"
"""The values of a node's label: no policy's, the mapping's, and the one that says that the node is done."""

OVER = ("available", "failed", "aborted")
"""The states of an enactment that do not change by themselves. `retrying` is none of them."""


def final_document(network: VMNetwork, with_bridge: bool = True) -> dict[str, Any]:
    """What holds of a network for good: where the localnet rides, what was made for it, and what is no more.

    Without `with_bridge` a bridge that is made is left as it is on each node.
    """
    mapped = documents.mapped(network.name, network.bridge)
    if network.ports and with_bridge and not network.is_labelled:
        made = documents.with_bridge(network.bridge, [{"name": port} for port in network.ports])
        mapped = documents.union(made, mapped)
    old = network.replaced_bridge
    return documents.union(mapped, documents.without_bridge(old)) if old else mapped


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
    return is_applied(facts, _own_body(args))


def enforce_op(label: str, args: Mapping[str, Any], facts: Facts) -> Apply | Patch:
    """The op that brings the policy of a step into force on its node."""
    if args.get("label"):
        return label_op(label, args, args["label"]["value"], facts)
    op = apply_op(label, _own_body(args))
    anew = (state_path(args["node"], args["policy"]), Known("waiting"))
    return replace(op, changes=(*op.changes, anew))


def _own_body(args: Mapping[str, Any]) -> dict[str, Any]:
    """The policy of one node; one of the files is made for no network."""
    selector = {HOSTNAME: args["hostname"]}
    return body(args["policy"], selector, args["document"], network=args.get("network", ""))


def retract_op(label: str, args: Mapping[str, Any], facts: Facts) -> Delete | Patch:
    """The op after which no policy of a step tries anything on its node any more."""
    if args.get("label"):
        return label_op(label, args, BETWEEN, facts)
    return delete_op(label, args["policy"], facts, (args["node"],))


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


def label_op(label: str, args: Mapping[str, Any], value: str, facts: Facts) -> Patch:
    """The op that sets a node's label. Any change of a label makes the handler apply all that match the node anew."""
    node, key = args["node"], args["label"]["key"]
    labels = facts.value(f"node/{node}/labels", {})
    version = facts.get(f"node/{node}/resource-version")
    others = [name for name in _matching(facts, {**labels, key: value}) if name != args["policy"]]
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


def selected(facts: Facts, selector: Mapping[str, str]) -> list[str]:
    """The nodes that a selector matches now."""
    return [
        node
        for node in facts.value("cluster/nodes", [])
        if all(facts.value(f"node/{node}/labels", {}).get(key) == value for key, value in selector.items())
    ]


def _matching(facts: Facts, labels: Mapping[str, str]) -> list[str]:
    """The policies that select a node with these labels."""
    found = []
    for name in facts.value("cluster/policies") or []:
        selector = (facts.value(f"policy/{name}") or {}).get("selector", {})
        if all(labels.get(k) == v for k, v in selector.items()):
            found.append(name)
    return found


def await_others(label: str, args: Mapping[str, Any], facts: Facts) -> Wait | None:
    """A wait until all that a label's change has applied anew on a node is enacted again; None when there is nothing."""
    node = args["node"]
    labels = facts.value(f"node/{node}/labels", {})
    others = [name for name in _matching(facts, labels) if name != args["policy"]]
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


def ref(name: str) -> ObjectRef:
    """A policy by name."""
    return ObjectRef(*POLICY, name)


def body(
    name: str,
    selector: Mapping[str, str],
    document: Mapping[str, Any],
    at_once: int | str | None = None,
    network: str = "",
) -> dict[str, Any]:
    """A policy as it is applied: `at_once` is maxUnavailable, `network` the VMNetwork that it is made for."""
    spec: dict[str, Any] = {"nodeSelector": dict(selector), "desiredState": dict(document)}
    if at_once is not None:
        spec["maxUnavailable"] = at_once
    return {
        "apiVersion": POLICY[0],
        "kind": POLICY[1],
        "metadata": {
            "name": name,
            "labels": {OURS: FIELD_MANAGER},
            **({"annotations": {MADE_FOR: network}} if network else {}),
        },
        "spec": spec,
    }


def is_applied(facts: Facts, wanted: Mapping[str, Any]) -> bool:
    """Whether the policy is there with the spec of a body."""
    have = facts.value(f"policy/{wanted['metadata']['name']}")
    return bool(have) and have["selector"] == wanted["spec"]["nodeSelector"] and documents.same(
        have["document"], wanted["spec"]["desiredState"]
    ) and have["at_once"] == wanted["spec"].get("maxUnavailable")  # fmt: skip


def is_ours(facts: Facts, name: str) -> bool:
    """Whether a policy is there that ovsplan has made."""
    return bool((facts.value(f"policy/{name}") or {}).get("ours"))


def exists(facts: Facts, name: str) -> bool:
    """Whether the policy is there."""
    return isinstance(facts.get(f"policy/{name}"), Known)


def write_op(label: str, wanted: Mapping[str, Any], facts: Facts) -> Apply | Edit:
    """The op that brings a policy to what is wanted: applied, if it is ours or not there yet, else adopted."""
    name = wanted["metadata"]["name"]
    have = facts.value(f"policy/{name}")
    return adopt_op(label, wanted, facts) if have and not have["ours"] else apply_op(label, wanted)


def adopt_op(label: str, wanted: Mapping[str, Any], facts: Facts) -> Edit:
    """The op that takes over a policy that somebody made by hand: its spec replaced whole, at the version read.

    An apply would leave the keys that they own, of the selector too (H59).
    """
    name, spec = wanted["metadata"]["name"], wanted["spec"]
    version = facts.get(f"policy/{name}/version")
    have = facts.value(f"policy/{name}") or {}
    operations = [{"op": "replace", "path": "/spec", "value": dict(spec)}]
    for part, known in (("labels", "labelled"), ("annotations", "annotated")):
        operations += _marks(f"/metadata/{part}", wanted["metadata"].get(part, {}), bool(have.get(known)))
    return Edit(
        label=label,
        title=f"adopt policy {name}, its spec replaced: {documents.in_words(spec['desiredState'])}",
        ref=ref(name),
        operations=tuple(operations),
        resource_version=str(version.value) if isinstance(version, Known) else None,
        again_if=IN_PROGRESS,
        commands=(
            f"oc patch nncp {name} --type=json -p {shlex.quote(json.dumps(operations, sort_keys=True))}",
        ),
        changes=_written(wanted),
    )


def _marks(path: str, marks: Mapping[str, str], has_others: bool) -> list[dict[str, Any]]:
    """The operations that add marks to an object's labels or annotations and leave those that are there."""
    if marks and not has_others:
        return [{"op": "add", "path": path, "value": dict(marks)}]
    return [{"op": "add", "path": f"{path}/{key.replace('/', '~1')}", "value": marks[key]} for key in marks]


def apply_op(label: str, wanted: Mapping[str, Any]) -> Apply:
    """The op that writes a policy whole: as its only owner, server-side apply drops what it held before (H59)."""
    name, spec = wanted["metadata"]["name"], wanted["spec"]
    manifest = shlex.quote(json.dumps(wanted, sort_keys=True))
    return Apply(
        label=label,
        title=f"apply policy {name}: {documents.in_words(spec['desiredState'])}",
        ref=ref(name),
        body=dict(wanted),
        again_if=IN_PROGRESS,
        commands=(f"echo {manifest} | oc apply --server-side --field-manager={FIELD_MANAGER} -f -",),
        changes=_written(wanted),
    )


def _written(wanted: Mapping[str, Any]) -> Changes:
    metadata, spec = wanted["metadata"], wanted["spec"]
    name = metadata["name"]
    have = {
        "uid": "",
        "generation": 0,
        "selector": spec["nodeSelector"],
        "document": spec["desiredState"],
        "at_once": spec.get("maxUnavailable"),
        "owner": "",
        "ours": True,
        "labelled": True,
        "annotated": bool(metadata.get("annotations")),
        "network": metadata.get("annotations", {}).get(MADE_FOR, ""),
    }
    return (
        (f"policy/{name}", Known(have)),
        (f"policy/{name}/editable", Known(True)),
        (f"policy/{name}/version", Later("the patch", "the API server sets it")),
        *((path, Known([])) for path in by_node(name)[1:]),
    )


def delete_op(label: str, name: str, facts: Facts, nodes: tuple[str, ...] = ()) -> Delete:
    """The op that deletes a policy. That reverts nothing on any node (H08)."""
    have = facts.value(f"policy/{name}") or {}
    gone: Changes = (
        (f"policy/{name}", ABSENT),
        *((path, Known([])) for path in by_node(name)),
        *((f"enactment/{node}/{name}/state", ABSENT) for node in nodes),
    )
    return Delete(
        label=label,
        title=f"delete policy {name}",
        ref=ref(name),
        uid=have.get("uid") or None,
        commands=(f"oc delete nncp {name}",),
        changes=gone,
    )


def state_path(node: str, name: str) -> str:
    """Where the state of an enactment stands, judged by the policy's current generation."""
    return f"enactment/{node}/{name}/state"


def setback_path(node: str, name: str) -> str:
    """Where it stands how many attempts at a policy have failed, while its handler tries again."""
    return f"enactment/{node}/{name}/setback"


def state(facts: Facts, node: str, name: str) -> str:
    """The state of an enactment: `waiting` until the handler has begun with the current generation."""
    fact = facts.get(state_path(node, name))
    return (
        str(fact.value) if isinstance(fact, Known) else "waiting" if isinstance(fact, Absent) else "unknown"
    )


def by_node(name: str) -> tuple[str, str, str]:
    """Where it stands on which nodes a policy has an enactment, an available one, and one that has failed for good."""
    return f"policy/{name}/enacted-on", f"policy/{name}/available-on", f"policy/{name}/failed-on"


def failure(facts: Facts, node: str, name: str) -> str:
    """What the handler says of a failed enactment, in one line."""
    found = state(facts, node, name)
    if found == "waiting":
        return (
            f"policy {name} on {node}: its handler has not begun with it, or its enactment was deleted by hand. "
            f"See that nmstate-handler runs on {node}; `oc delete nncp {name}` and `ovsplan apply` make it anew"
        )
    texts = (facts.value(f"enactment/{node}/{name}/{part}") for part in ("setback", "message"))
    text = next(filter(None, texts), "it gives no reason")
    return f"policy {name} on {node} is {found}: {text}"


def await_enactment(
    label: str,
    node: str,
    name: str,
    changes: Changes = (),
    deadline: float = APPLY_DEADLINE,
    unless: tuple[Check, ...] = (),
) -> Wait:
    """Wait until the node's handler is done with the policy, well or badly; or until one of `unless` holds."""
    path = state_path(node, name)
    return Wait(
        label=label,
        title=f"policy {name} enacted on {node}",
        checks=(
            Check(path, "eq", "available", f"policy {name} on {node}: its enactment is not Available yet"),
        ),
        unless=(*(Check(path, "eq", over) for over in OVER[1:]), *unless),
        deadline=deadline,
        tells=setback_path(node, name),
        changes=changes,
    )


def await_everywhere(label: str, nodes: Sequence[str], name: str) -> Wait:
    """Wait until a policy is Available on all nodes, which obey it one by one, or has failed on one of them.

    It ends too when no further node comes in the time that one may take, however many are left.
    """
    _, available, failed = by_node(name)
    why = f"policy {name}: its enactment is not Available on every node yet"
    return Wait(
        label=label,
        title=f"policy {name} enacted on {len(nodes)} nodes"
        if len(nodes) > 1
        else f"policy {name} enacted on {nodes[0]}",
        checks=(Check(available, "has", list(nodes), why),),
        unless=(Check(failed, "min", 1),),
        deadline=SEEN_DEADLINE + APPLY_DEADLINE,
        progress=available,
    )


def not_editable(args: Mapping[str, Any], facts: Facts, done: Done) -> Perform | Stop | None:
    """A wait, while the policy of a step can't be edited; None when it can, or need not be."""
    name = args["policy"]
    editable = facts.get(f"policy/{name}/editable")
    if args.get("label") or not isinstance(editable, Known) or editable.value:
        return None
    if "editable" in done.outcomes:
        return Stop(
            f"policy {name} does not come to an end: its spec can't be edited while it is in progress"
        )
    return Perform((await_editable("editable", name),))


def await_ended(label: str, node: str, name: str) -> Wait:
    """Wait until nothing of a deleted policy is left on a node: an apply that runs is completed, also after the delete."""
    why = "what is left of it would be taken for the policy's next life"
    return Wait(
        label=label,
        title=f"policy {name} ended on {node}",
        checks=(Check(state_path(node, name), "absent", why=why),),
        deadline=EDIT_DEADLINE,
    )


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


def await_editable(label: str, name: str) -> Wait:
    """Wait until the API server takes edits of the policy's spec again."""
    path = f"policy/{name}/editable"
    return Wait(
        label=label,
        title=f"policy {name} no longer in progress",
        checks=(Check(path, "eq", True, "an edit of a policy in progress is refused (H39)"),),
        deadline=EDIT_DEADLINE,
    )
