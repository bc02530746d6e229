"""Hazards of restarting a node: it asks no disruption budget."""

from __future__ import annotations

from plans.document import Finding
from plans.facts import Unknown
from plans.hazards import Scene
from plans.maintenance.budgets import Over, over


def broken_by_a_restart(scene: Scene) -> list[Finding]:
    """H64: pods that a disruption budget protects end with their node, more of them than it allows, and nobody asks it."""
    evacuate = scene.desired.rollout.spec.evacuate if scene.desired.rollout else None
    nodes = [bracket.node for bracket in scene.brackets if bracket.reboots]
    if evacuate is None or not nodes:
        return []
    findings = []
    for node in nodes:
        found = over(node, scene.facts, evacuate)
        if isinstance(found, Unknown):
            return [_cannot_tell(nodes, found)]
        findings += [_broken(node, one) for one in found]
    return findings


def _broken(node: str, one: Over) -> Finding:
    allowed = "none of its pods" if not one.allowed else f"{one.allowed} of its pods"
    ways = (
        [f"`evacuate.pods: evict` has {', '.join(one.evictable)} leave first, within the budget"]
        if one.evictable
        else []
    )
    ways += ["without `evacuate.reboot` nothing restarts", f"or have the budget allow {len(one.pods)}"]
    return Finding(
        "H64", "block", node, (f"budget/{one.budget}", *(f"pod/{pod}" for pod in one.pods)),
        f"{node} restarts, and {', '.join(one.pods)} with it: disruption budget {one.budget} lets {allowed} be away now "
        f"({one.why}), and a restart does not ask it",
        f"{'; '.join(ways)}. Accepted: {node} is restarted all the same",
    )  # fmt: skip


def _cannot_tell(nodes: list[str], unread: Unknown) -> Finding:
    return Finding(
        "H64", "warn", "", tuple(f"node/{node}" for node in nodes),
        f"cannot tell which pods of {', '.join(nodes)} a disruption budget protects: {unread.why}. They restart with their node",
        "make sure that the pods on these nodes may be away for minutes, or have them leave first: `evacuate.pods: evict`",
    )  # fmt: skip


FINDERS = (broken_by_a_restart,)
