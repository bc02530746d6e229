"""Hazards of nodes: those that are down, and those that somebody else holds."""

from __future__ import annotations

from plans.document import Finding
from plans.hazards import Scene
from plans.readings.cluster import CORDONED_BY


def another_node_down(scene: Scene) -> list[Finding]:
    """H18: taking one more node down breaks quorum or capacity."""
    if not scene.brackets:
        return []
    return [
        Finding("H18", "block", node, (f"node/{node}",),
                f"{node} is not Ready: no other node is taken out of service meanwhile", f"bring {node} back first")
        for node in scene.facts.value("cluster/not-ready", [])
    ]  # fmt: skip


def stale_lease(scene: Scene) -> list[Finding]:
    """H18: a node that is Ready by its own word may have died in the last 40 s; or only its clock is wrong."""
    down = scene.facts.value("cluster/not-ready", [])
    suspects = scene.facts.value("cluster/kubelets", {}) if scene.brackets else {}
    return [
        Finding("H18", "warn", node, (f"node/{node}",), f"{node} says that it is Ready; {why}",
                "look at that node's kubelet, and at its clock")
        for node, why in suspects.items() if node not in down
    ]  # fmt: skip


def machines_updating(scene: Scene) -> list[Finding]:
    """H18: a pool of machines that is being updated takes nodes down by itself."""
    if not scene.brackets:
        return []
    return [
        Finding("H18", "block", "", (), f"{pool} is being updated: it cordons and restarts nodes by itself meanwhile", "wait until it is updated, or pause it")
        for pool in scene.facts.value("cluster/rollouts") or []
    ]  # fmt: skip


def cordoned_by_others(scene: Scene) -> list[Finding]:
    """H18, H19: a node that somebody else cordoned counts as no capacity, and stays cordoned."""
    own = {b.node: b for b in scene.brackets}
    found = []
    for node in scene.facts.value("cluster/cordoned", []) if scene.brackets else []:
        bracket = own.get(node)
        note = "its own changes are made, " if bracket else ""
        unproven = bracket is not None and bracket.shape == "cold" and not bracket.has_canary
        found.append(
            Finding(
                "H19", "warn", node, (f"node/{node}",),
                f"{node} is cordoned by {_holder(scene, node)}: {note}no VM is sent to it, and it stays cordoned"
                + ("; no VM can return to it, so its new path stays not proven" if unproven else ""),
                _way_out(scene, node),
            )
        )  # fmt: skip
    return found


def _holder(scene: Scene, node: str) -> str:
    """Who cordoned it: somebody else, or an earlier run of ours that did not end."""
    run = scene.facts.value(f"node/{node}/cordoned-by")
    return f"run {run}, which never uncordoned it" if run else "somebody else"


def _way_out(scene: Scene, node: str) -> str:
    uncordon = f"`oc adm uncordon {node}` and `oc annotate node {node} {CORDONED_BY}-`"
    if scene.facts.value(f"node/{node}/cordoned-by"):
        return f"{uncordon} first: nobody else will, and this run takes it for somebody's"
    return f"nothing to do, or `oc adm uncordon {node}` first if that cordon is a leftover"


FINDERS = (another_node_down, stale_lease, machines_updating, cordoned_by_others)
