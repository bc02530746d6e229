"""Reading what emptying a node has to know: limits of migrations, rollouts under way, pods, canaries and their answers.

Facts: `cluster/migration-limits` (Absent without KubeVirt); `cluster/rollouts` (machine pools that are being updated);
`node/<n>/pods` (the pods that a drain looks at, each with its way out), `node/<n>/pod/<ns>/<name>` → UID of one that
is to be evicted; `node/<n>/canaries` (pods of ovsplan's on it), `node/<n>/canary/<ns>/<name>` and `/phase`;
`node/<n>/answers/<bridge>`: [gateway, VLAN] of each answer that a canary's flows have counted.
The one invariant: a pod is to be evicted only when `kubectl drain` without `--force` would evict it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from plans.facts import ABSENT, Fact, Json, Known
from plans.ops import CommandRequest, ListRequest
from plans.readings.machines import KUBEVIRT

POD = ("v1", "Pod")
MANAGED_BY = ("app.kubernetes.io/managed-by", "ovsplan")
CANARY = ("ovsplan.io/purpose", "canary")
RUN_LABEL = "ovsplan.io/run"

ANSWER_COOKIE = "0x6f7673706c616e"
"""Marks the flows that count answers: "ovsplan" in ASCII."""

PER_NODE, PER_CLUSTER = 2, 5
"""KubeVirt's own limits of migrations at once, where its object says nothing."""

LIMITS_REQUEST = ListRequest(
    *KUBEVIRT, keep=("metadata.name", "metadata.namespace", "spec.configuration.migrations"), optional=True
)
POOL_KEEP = ("metadata.name", "metadata.namespace", "status.conditions")
POOL_REQUESTS = (
    ListRequest("machineconfiguration.openshift.io/v1", "MachineConfigPool", keep=POOL_KEEP, optional=True),
    ListRequest("hypershift.openshift.io/v1beta1", "NodePool", keep=POOL_KEEP, optional=True),
)
_UPDATING = ("Updating", "UpdatingVersion", "UpdatingConfig", "UpdatingPlatformMachineTemplate")

POD_KEEP = (
    *("metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations"),
    *("metadata.ownerReferences", "metadata.deletionTimestamp", "spec.nodeName", "spec.volumes"),
    *("status.phase", "status.containerStatuses", "status.conditions"),
)
_MIRROR = "kubernetes.io/config.mirror"
_FOLLOWS = ("virt-launcher", "hotplug-disk")
_OVER = ("Succeeded", "Failed")
_FLOW = re.compile(r"n_packets=(\d+).*?arp_spa=([0-9.]+)")
_VLAN = re.compile(r"dl_vlan=(\d+)")


def parse_limits(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """How many migrations KubeVirt runs at once, and the NAD that carries them (empty: the pod network)."""
    for item in replies[0] or ():
        given = item.get("spec", {}).get("configuration", {}).get("migrations") or {}
        name = str(given.get("network") or "")
        if name and "/" not in name:
            name = f"{item['metadata']['namespace']}/{name}"
        limits = {
            "node": int(given.get("parallelOutboundMigrationsPerNode") or PER_NODE),
            "cluster": int(given.get("parallelMigrationsPerCluster") or PER_CLUSTER),
            "network": name,
        }
        return {"cluster/migration-limits": Known(limits)}
    return {"cluster/migration-limits": ABSENT}


def parse_pools(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`cluster/rollouts`: every pool of machines that its operator is updating now."""
    kinds = [request.kind for request in POOL_REQUESTS]
    found = [
        f"{kind} {item['metadata']['name']}"
        for kind, items in zip(kinds, replies, strict=True)
        for item in items or ()
        if any(
            c.get("type") in _UPDATING and c.get("status") == "True"
            for c in item.get("status", {}).get("conditions") or ()
        )
    ]
    return {"cluster/rollouts": Known(sorted(found))}


def pod_request(node: str = "") -> ListRequest:
    """The pods of one node, or of all."""
    return ListRequest(*POD, keep=POD_KEEP, fields=(("spec.nodeName", node),) if node else ())


def parse_pods(node: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """The pods of `node`, or of all nodes when it is empty."""
    on: dict[str, list[dict[str, str]]] = defaultdict(list)
    for item in replies[0]:
        if where := item.get("spec", {}).get("nodeName"):
            on[where].append(_drained(item))
    facts: dict[str, Fact] = {}
    for where in sorted(on) or ([node] if node else []):
        pods = sorted(on[where], key=lambda pod: pod["pod"])
        facts[f"node/{where}/pod/*"] = ABSENT
        facts[f"node/{where}/pods"] = Known(pods)
        facts |= {f"node/{where}/pod/{p['pod']}": Known(p["uid"]) for p in pods if p["way"] == "evict"}
    if not node:
        leaving = {p["pod"].partition("/")[0] for pods in on.values() for p in pods if p["way"] == "evict"}
        facts["cluster/evictable-namespaces"] = Known(sorted(leaving))
    return facts


def _drained(item: Mapping[str, Any]) -> dict[str, str]:
    """A pod with its way out of a drained node: `evict`, `skip` or `block`, and why."""
    metadata = item["metadata"]
    way, why = way_of(item)
    key = f"{metadata['namespace']}/{metadata['name']}"
    return {"pod": key, "uid": metadata.get("uid", ""), "way": way, "why": why}


def leaves_by_itself(item: Mapping[str, Any]) -> str:
    """Why nobody has to look after a pod when its node is emptied; empty when somebody has to."""
    labels = item["metadata"].get("labels") or {}
    if labels.get("kubevirt.io") in _FOLLOWS:
        return "it follows its VM"
    if labels.get(CANARY[0]) == CANARY[1]:
        return "it is a canary of ovsplan's"
    return "it is over" if item.get("status", {}).get("phase") in _OVER else ""


def way_of(item: Mapping[str, Any]) -> tuple[str, str]:
    """A pod's way out of a drained node, and why: `evict`, `skip` (it stays, or leaves by itself) or `block`."""
    metadata = item["metadata"]
    notes = metadata.get("annotations") or {}
    owner = next((o for o in metadata.get("ownerReferences") or () if o.get("controller")), None)
    if why := leaves_by_itself(item):
        return "skip", why
    if _MIRROR in notes:
        return "skip", "the node itself keeps it"
    if owner is not None and owner.get("kind") == "DaemonSet":
        return "skip", "its DaemonSet keeps one on each node"
    if owner is None:
        return "block", "nobody would make it again"
    if any("emptyDir" in volume for volume in item.get("spec", {}).get("volumes") or ()):
        return "block", "it would lose what it keeps in an emptyDir"
    return "evict", ""


def canary_request(node: str = "") -> ListRequest:
    """The canaries of one node, or of all."""
    return ListRequest(
        *POD, keep=POD_KEEP, labels=(MANAGED_BY, CANARY), fields=(("spec.nodeName", node),) if node else ()
    )


def parse_canaries(node: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """The canaries of `node`, or of all nodes when it is empty."""
    facts: dict[str, Fact] = {f"node/{node}/canary/*": ABSENT} if node else {}
    on: dict[str, list[dict[str, Json]]] = defaultdict(list)
    for item in replies[0]:
        metadata, where = item["metadata"], item.get("spec", {}).get("nodeName", "")
        key = f"{metadata['namespace']}/{metadata['name']}"
        on[where].append({
            "pod": key, "uid": metadata.get("uid", ""), "run": (metadata.get("labels") or {}).get(RUN_LABEL, ""),
            "going": "deletionTimestamp" in metadata, "why": _waits_for(item),
        })  # fmt: skip
        facts[f"node/{where}/canary/{key}"] = Known(metadata.get("uid", ""))
        facts[f"node/{where}/canary/{key}/phase"] = Known(item.get("status", {}).get("phase", "Pending"))
    for where in sorted({*on, node} - {""}):
        facts[f"node/{where}/canaries"] = Known(sorted(on[where], key=lambda pod: pod["pod"]))
    if not node:
        facts["cluster/canaries"] = Known(
            sorted(
                ({**pod, "node": where} for where, pods in on.items() for pod in pods), key=lambda p: p["pod"]
            )
        )
    return facts


def _waits_for(item: Mapping[str, Any]) -> str:
    """What keeps a pod from running, as the kubelet says it (`ErrImagePull: …`)."""
    for status in item.get("status", {}).get("containerStatuses") or ():
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting:
            return ": ".join(filter(None, [waiting.get("reason"), waiting.get("message")]))
    return ""


def answer_request(node: str, bridge: str) -> CommandRequest:
    """The flows that count answers on a bridge."""
    return CommandRequest(node, ("ovs-ofctl", "dump-flows", bridge, f"cookie={ANSWER_COOKIE}/-1"))


def parse_answers(node: str, bridge: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`node/<n>/answers/<bridge>`: [gateway, VLAN] of every flow that has counted a packet."""
    found = []
    for line in replies[0].splitlines():
        counted = _FLOW.search(line)
        if counted and int(counted[1]) > 0:
            vlan = _VLAN.search(line)
            found.append([counted[2], int(vlan[1]) if vlan else 0])
    return {f"node/{node}/answers/{bridge}": Known(sorted(found))}
