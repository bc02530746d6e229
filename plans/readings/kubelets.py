"""Reading kubelets by their Leases, which they renew every 10 s: a node's own word for Ready may be 40 s old.

Invariant: Leases are compared with each other and with the nodes' heartbeats, never with the clock of this machine. Each
node writes its own clock in its Lease, so one that looks stale is a suspicion and no more: Kubernetes itself goes by when it
saw a Lease change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from plans.facts import Fact, Json, Known, Unknown
from plans.ops import ListRequest
from plans.readings.reply import NoReply

LEASE = ("coordination.k8s.io/v1", "Lease")
NAMESPACE = "kube-node-lease"
LEASE_KEEP = ("metadata.name", "spec.renewTime")
LEASES_REQUEST = ListRequest(*LEASE, keep=LEASE_KEEP, namespace=NAMESPACE)

SILENT_AFTER = 40.0
"""Seconds after which a Lease counts as stale: Kubernetes' node-monitor-grace-period (40 s; 50 s since 1.32)."""


def stale(leases: Sequence[Json] | NoReply, nodes: Sequence[Json]) -> Fact:
    """`cluster/kubelets`: the nodes whose Lease looks stale, and what that may mean.

    A node without a Lease is none of them. Unknown when there is no Lease at all, or none could be read.
    """
    if isinstance(leases, NoReply):
        return Unknown(leases.why)
    renewed = {lease["metadata"]["name"]: at for lease in leases if (at := renewal(lease))}
    if not renewed:
        return Unknown(f"no node has a Lease in namespace {NAMESPACE}")
    names = [node["metadata"]["name"] for node in nodes]
    newest = _now(
        [max(heartbeat(node), renewed.get(name, 0.0)) for name, node in zip(names, nodes, strict=True)]
    )
    late = {name: newest - renewed.get(name, newest) for name in names}
    return Known(
        {
            name: f"its Lease is {age:.0f} s older than those of others: its kubelet is silent, or its clock is behind"
            for name, age in sorted(late.items())
            if age > SILENT_AFTER
        }
    )


def _now(heard: Sequence[float]) -> float:
    """The newest instant of which two nodes have heard: the clock of one node alone may run ahead."""
    latest = sorted(heard, reverse=True)
    agreed = (one for one, other in pairwise(latest) if one - other <= SILENT_AFTER)
    return next(agreed, latest[0])


def renewal(lease: Mapping[str, Any]) -> float:
    """When a kubelet renewed its Lease, in seconds since the epoch; 0 for one that never did."""
    return instant(lease.get("spec", {}).get("renewTime"))


def heartbeat(node: Mapping[str, Any]) -> float:
    """When a kubelet last said whether its node is Ready, in seconds since the epoch; 0 where nobody knows."""
    return instant(ready_condition(node).get("lastHeartbeatTime"))


def ready_condition(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """The Ready condition of a node or a pod; empty when it has none."""
    conditions = item.get("status", {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == "Ready"), {})


def instant(text: str | None) -> float:
    """A time of the API in seconds since the epoch; 0 for none. Raises ValueError on what is none."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0
