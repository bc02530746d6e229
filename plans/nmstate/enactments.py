"""What came of a policy: the enactment of each node, and the waits for it.

The one invariant: success is the enactment of that node at that generation, never the policy's own status, which may
be stale, or count a node that was ignored as done (H38).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plans.actions import Done, Perform, Stop
from plans.checks import Check
from plans.facts import Absent, Facts, Known
from plans.ops import Changes, Wait

ENACTMENT = ("nmstate.io/v1beta1", "NodeNetworkConfigurationEnactment")
STATE = ("nmstate.io/v1beta1", "NodeNetworkState")

SEEN_DEADLINE = 60.0
"""Seconds for a handler to begin: one whose API connection rode on a moved uplink may be blind for 36 s (H62)."""

PROBE_MINUTES = 2
"""How long a handler waits for a gateway, or a name server, that does not answer, before every apply (H61)."""

APPLY_DEADLINE = 300.0
"""Seconds for one node: 5 normally, 27 per failing verification, 120 more per probe that does not answer (H61)."""

EDIT_DEADLINE = 200.0
"""Seconds for a policy in progress to come to an end: until then the API server refuses edits of its spec."""

ATTEMPTS = 5
"""How often a handler tries one generation of a policy before it gives up (measured)."""

OVER = ("available", "failed", "aborted")
"""The states of an enactment that do not change by themselves. `retrying` is none of them."""


def state_path(node: str, name: str) -> str:
    """Where the state of an enactment stands, judged by the policy's current generation."""
    return f"enactment/{node}/{name}/state"


def setback_path(node: str, name: str) -> str:
    """Where it stands how many attempts at a policy have failed, while its handler tries again."""
    return f"enactment/{node}/{name}/setback"


def by_node(name: str) -> tuple[str, str, str]:
    """Where it stands on which nodes a policy has an enactment, an available one, and one that has failed for good."""
    return f"policy/{name}/enacted-on", f"policy/{name}/available-on", f"policy/{name}/failed-on"


def state(facts: Facts, node: str, name: str) -> str:
    """The state of an enactment: `waiting` until the handler has begun with the current generation."""
    fact = facts.get(state_path(node, name))
    return (
        str(fact.value) if isinstance(fact, Known) else "waiting" if isinstance(fact, Absent) else "unknown"
    )


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


def await_ended(label: str, node: str, name: str) -> Wait:
    """Wait until nothing of a deleted policy is left on a node: an apply that runs is completed, also after the delete."""
    why = "what is left of it would be taken for the policy's next life"
    return Wait(
        label=label,
        title=f"policy {name} ended on {node}",
        checks=(Check(state_path(node, name), "absent", why=why),),
        deadline=EDIT_DEADLINE,
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


def await_editable(label: str, name: str) -> Wait:
    """Wait until the API server takes edits of the policy's spec again."""
    path = f"policy/{name}/editable"
    return Wait(
        label=label,
        title=f"policy {name} no longer in progress",
        checks=(Check(path, "eq", True, "an edit of a policy in progress is refused (H39)"),),
        deadline=EDIT_DEADLINE,
    )
