"""Cordon and uncordon, remembering who did it.

A node that somebody else cordoned is left cordoned (H19): who cordoned it stands in an annotation on the node
itself, written in the same patch, so that it is not forgotten with the laptop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plans.actions import Action, Done, Finished, Invocation, Next, Perform, Stop, routine
from plans.facts import ABSENT, KNOWN_AFTER_APPLY, Facts, Known, Later, Unknown
from plans.ops import ObjectRef, Patch
from plans.readings.cluster import CORDONED_BY


def cordon(node: str) -> Action:
    """Take a node out of scheduling."""
    args = {"node": node}
    return Action(
        id=f"{node}/cordon", routine="cordon@1", title="take it out of scheduling, in this run's name", node=node, args=args, reads=(f"node:{node}",),
        undo=(Invocation("uncordon@1", args, (f"node:{node}",)),), rows=(3,),
    )  # fmt: skip


def uncordon(node: str) -> Action:
    """Put a node back, if it was this run that took it out."""
    args = {"node": node}
    return Action(
        id=f"{node}/uncordon", routine="uncordon@1", title="put it back, if this run cordoned it", node=node, args=args, reads=(f"node:{node}",),
        no_undo="it only takes back this run's own cordon", rows=(10,),
    )  # fmt: skip


def cordon_op(node: str, run: str, facts: Facts) -> Patch:
    """The patch that cordons, in the name of a run."""
    return Patch(
        label="cordon",
        title=f"cordon {node}",
        ref=ObjectRef("v1", "Node", node),
        patch={"metadata": {"annotations": {CORDONED_BY: run}}, "spec": {"unschedulable": True}},
        resource_version=_version(node, facts),
        commands=(
            f"oc adm cordon {node}",
            f"oc annotate node {node} {CORDONED_BY}={'ovsplan' if run == KNOWN_AFTER_APPLY else run}",
        ),
        changes=(
            (f"node/{node}/unschedulable", Known(True)),
            (f"node/{node}/cordoned-by", Known(run)),
            (f"node/{node}/resource-version", Later("the patch", "the API server sets it")),
        ),
    )


@routine("cordon@1")
def step_cordon(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Cordon, unless the node is cordoned already, by us or by somebody else."""
    node = args["node"]
    cordoned = facts.get(f"node/{node}/unschedulable")
    if not isinstance(cordoned, Known):
        return _stop(node, cordoned)
    if cordoned.value:
        ours = facts.value(f"node/{node}/cordoned-by") == done.run
        return Finished(
            "" if ours else "cordoned by somebody else already: left so, and not uncordoned later"
        )
    return Perform((cordon_op(node, done.run, facts),))


@routine("uncordon@1")
def step_uncordon(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Uncordon what this run cordoned, and nothing else."""
    node = args["node"]
    cordoned = facts.get(f"node/{node}/unschedulable")
    if not isinstance(cordoned, Known):
        return _stop(node, cordoned)
    if not cordoned.value:
        return Finished()
    if facts.value(f"node/{node}/cordoned-by") != done.run:
        return Finished("stays cordoned: this run did not cordon it")
    return Perform((uncordon_op(node, facts),))


def uncordon_op(node: str, facts: Facts) -> Patch:
    """The patch that takes this run's cordon back."""
    return Patch(
        label="uncordon",
        title=f"uncordon {node}",
        ref=ObjectRef("v1", "Node", node),
        patch={"metadata": {"annotations": {CORDONED_BY: None}}, "spec": {"unschedulable": None}},
        resource_version=_version(node, facts),
        commands=(f"oc adm uncordon {node}", f"oc annotate node {node} {CORDONED_BY}-"),
        changes=(
            (f"node/{node}/unschedulable", Known(False)),
            (f"node/{node}/cordoned-by", ABSENT),
            (f"node/{node}/resource-version", Later("the patch", "the API server sets it")),
        ),
    )


def _version(node: str, facts: Facts) -> str | None:
    version = facts.get(f"node/{node}/resource-version")
    return str(version.value) if isinstance(version, Known) else None


def _stop(node: str, fact: object) -> Stop:
    if isinstance(fact, Unknown):
        return Stop(f"cannot tell whether {node} is cordoned: {fact.why}", unsure=True)
    return Stop(f"there is no node {node} any more", moved=True)
