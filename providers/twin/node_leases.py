"""The Leases that kubelets renew every 10 s, told from the clock when somebody asks: nothing is written for them.

Invariant: a jump of virtual time makes no Lease stale; only a kubelet that stopped does.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from providers.ports import Body
from providers.twin.kinds import Kind
from providers.twin.store import SEP, Store

LEASE = ("coordination.k8s.io/v1", "Lease")
NAMESPACE = "kube-node-lease"
RENEWED_EVERY = 10.0
STOPPED = "kubelet-stopped"
"""The memory of since when a node's kubelet is silent; none while it runs."""

_NODES = SEP.join(("kube", "v1", "Node"))


def are_asked_for(kind: Kind, namespace: str | None) -> bool:
    """Whether objects of a kind, of one namespace or of all, include the nodes' Leases."""
    return (kind.stored, kind.name) == LEASE and namespace in (None, NAMESPACE)


def leases(store: Store, now: float) -> list[Body]:
    """The Lease of each node, as it is now, by name."""
    nodes = [store.get(key) for key in store.keys(_NODES)]
    return [_lease(node, store.get(f"mem|{STOPPED}|{node['metadata']['name']}"), now) for node in nodes]


def _lease(node: Body, stopped: float | None, now: float) -> Body:
    metadata = node["metadata"]
    last = now - now % RENEWED_EVERY
    renewed = last if stopped is None else min(last, stopped)
    owner = {"apiVersion": "v1", "kind": "Node", "name": metadata["name"], "uid": metadata["uid"]}
    spec: dict[str, Any] = {
        "holderIdentity": metadata["name"],
        "leaseDurationSeconds": 40,
        "renewTime": datetime.fromtimestamp(renewed, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    return {
        "apiVersion": LEASE[0],
        "kind": LEASE[1],
        "metadata": {
            "name": metadata["name"],
            "namespace": NAMESPACE,
            "uid": str(uuid.uuid5(uuid.UUID(metadata["uid"]), NAMESPACE)),
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
            "ownerReferences": [owner],
        },
        "spec": spec,
    }
