"""Nodes as the cluster sees them: whether their kubelets are heard, and what becomes of a node that is not.

Invariant: a node is lost `GRACE` seconds after its kubelet fell silent, and no sooner: a fast reboot never shows it.
"""

from __future__ import annotations

from typing import Any

from providers.ports import Body, MergePatch, Ref
from providers.twin.kube import stamp
from providers.twin.node_leases import STOPPED
from providers.twin.stage import Stage

GRACE = 40.0
"""Seconds of silence after which a node counts as lost (node-monitor-grace-period)."""


def judge(stage: Stage, node: str) -> float | None:
    """What the cluster makes of a kubelet's silence, and of hearing it again; returns when to judge anew."""
    stopped, now = stage.recall(STOPPED, node), stage.clock.now()
    have = stage.cluster.get(Ref("v1", "Node", node))
    if have is None:
        return None
    if stopped is None:
        if ready_of(have).get("status") == "Unknown":
            set_ready(stage, node, "True", "KubeletReady")
        return None
    if now < stopped + GRACE:
        return float(stopped + GRACE)
    if ready_of(have).get("status") != "Unknown":
        set_ready(stage, node, "Unknown", "NodeStatusUnknown")
    return None


def ready_of(body: Body) -> dict[str, Any]:
    """The Ready condition of a node or a pod; empty when it has none."""
    conditions = body.get("status", {}).get("conditions") or ()
    return next((dict(c) for c in conditions if c["type"] == "Ready"), {})


def set_ready(stage: Stage, node: str, status: str, reason: str, more: Body | None = None) -> None:
    """Write the node's Ready condition, and `more` of its status, at one go. Unknown is said without the kubelet."""
    ref = Ref("v1", "Node", node)
    have = stage.cluster.get(ref) or {}
    now = stamp(stage.clock.now())
    before = ready_of(have)
    ready = {"type": "Ready", "status": status, "reason": reason, "lastTransitionTime": now}
    heard = before.get("lastHeartbeatTime") if status == "Unknown" else now
    if heard:
        ready["lastHeartbeatTime"] = heard
    others = [c for c in have.get("status", {}).get("conditions") or () if c["type"] != "Ready"]
    patch = {"status": {"conditions": [*others, ready], **(more or {})}}
    stage.cluster.write(MergePatch(ref, patch, subresource="status"))
