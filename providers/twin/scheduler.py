"""kube-scheduler: it gives a pod a node, or says why none fits.

Invariant: only `spec.nodeName` and the condition PodScheduled of pods without a node are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from providers.ports import Body, Create, MergePatch, Ref
from providers.twin.spec import bytes_of
from providers.twin.stage import Change, Settings, Stage

HOSTNAME = "kubernetes.io/hostname"
_RETRY = "retry"
_DONE = ("Succeeded", "Failed")


class Scheduler:
    name = "scheduler"

    def keys(self, change: Change, settings: Settings) -> Iterable[tuple[str, float]]:
        body = change.body or {}
        if change.kind == "Pod" and not change.deleted and not body.get("spec", {}).get("nodeName"):
            yield f"{change.namespace} {change.name}", 0.0
        elif change.kind == "Node" or (change.kind == "Pod" and change.deleted):
            yield _RETRY, 0.0

    def reconcile(self, stage: Stage, key: str) -> float | None:
        for waiting in list(stage.remembered(self.name)) if key == _RETRY else [key]:
            _schedule(stage, waiting)
        return None


def _schedule(stage: Stage, key: str) -> None:
    namespace, name = key.split(" ")
    ref = Ref("v1", "Pod", name, namespace)
    pod = stage.cluster.get(ref)
    if pod is None or pod["spec"].get("nodeName"):
        stage.keep(Scheduler.name, key, None)
        return
    nodes = stage.cluster.list("v1", "Node").items
    used = _memory_used(stage)
    reasons: Counter[str] = Counter()
    fitting = []
    for node in nodes:
        why = _unfit(node, pod, used)
        if why is None:
            fitting.append(((used[_name(node)] / _allocatable(node)), _name(node)))
        else:
            reasons[why] += 1
    if fitting:
        stage.keep(Scheduler.name, key, None)
        _bind(stage, ref, min(fitting)[1])
        return
    stage.keep(Scheduler.name, key, True)
    waiting = {
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": _message(len(nodes), reasons),
    }  # fmt: skip
    if waiting not in pod.get("status", {}).get("conditions", ()):
        status = {"conditions": _with(pod, waiting)}
        stage.cluster.write(MergePatch(ref, {"status": status}, subresource="status"))


def _bind(stage: Stage, pod: Ref, node: str) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
    stage.cluster.write(Create(pod, body, subresource="binding"))


def _with(pod: Body, condition: Mapping[str, Any]) -> list[Any]:
    others = pod.get("status", {}).get("conditions", ())
    return [*(c for c in others if c["type"] != condition["type"]), condition]


def _message(total: int, reasons: Counter[str]) -> str:
    parts = ", ".join(f"{count} {why}" for why, count in sorted(reasons.items()))
    return (
        f"0/{total} nodes are available: {parts}. preemption: 0/{total} nodes are available: "
        f"{total} Preemption is not helpful for scheduling."
    )


def _name(node: Body) -> str:
    return str(node["metadata"]["name"])


def _allocatable(node: Body) -> int:
    return bytes_of(node.get("status", {}).get("allocatable", {}).get("memory", "")) or 1


def requested(pod: Body) -> int:
    """The memory that a pod's containers ask for, in bytes."""
    asks = (c.get("resources", {}).get("requests", {}) for c in pod["spec"].get("containers", ()))
    return sum(bytes_of(ask["memory"]) for ask in asks if "memory" in ask)


def _memory_used(stage: Stage) -> Counter[str]:
    used: Counter[str] = Counter()
    for pod in stage.cluster.list("v1", "Pod").items:
        node = pod["spec"].get("nodeName")
        if node and pod.get("status", {}).get("phase") not in _DONE:
            used[node] += requested(pod)
    return used


def _unfit(node: Body, pod: Body, used: Mapping[str, int]) -> str | None:
    labels = node["metadata"].get("labels", {})
    if not _ready(node):
        return "node(s) had untolerated taint {node.kubernetes.io/not-ready: }"
    if node.get("spec", {}).get("unschedulable"):
        return "node(s) were unschedulable"
    selector = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(name) != value for name, value in selector.items()):
        return "node(s) didn't match Pod's node affinity/selector"
    if labels.get(HOSTNAME) in _kept_away(pod):
        return "node(s) didn't match pod anti-affinity rules"
    if used.get(_name(node), 0) + requested(pod) > _allocatable(node):
        return "Insufficient memory"
    return None


def _ready(node: Body) -> bool:
    conditions = node.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _kept_away(pod: Body) -> set[str]:
    """The hostnames that a pod's required node affinity excludes."""
    rules = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
    terms = rules.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", ())
    return {
        value
        for term in terms
        for rule in term.get("matchExpressions", ())
        if rule["key"] == HOSTNAME and rule["operator"] == "NotIn"
        for value in rule["values"]
    }
