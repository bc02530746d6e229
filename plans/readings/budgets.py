"""Reading disruption budgets: which pods of a node each protects, and how many of its pods may be away.

Facts: `node/<n>/budgets`: each budget that protects a pod which is Ready on the node: `budget` (`ns/name`), `allowed`, `why`
it allows so many, and `pods`, each with its way out of a drained node; `node/<n>/over-budget`: the budgets that allow
fewer than the node has of their pods. Pods that leave with their VM, canaries, and pods that are over or end are left out.
Invariant: a budget that was not counted since it was changed allows none, as the API server itself has it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from plans.facts import Fact, Json, Known
from plans.labels import selects
from plans.ops import ListRequest
from plans.readings.cluster import NODE_REQUEST
from plans.readings.kubelets import ready_condition
from plans.readings.maintenance import leaves_by_itself, pod_request, way_of

REQUEST = ListRequest(
    "policy/v1",
    "PodDisruptionBudget",
    keep=("metadata.name", "metadata.namespace", "metadata.generation", "spec.selector", "status"),
)


def requests(node: str = "") -> tuple[ListRequest, ...]:
    """The pods of one node and all budgets; without a node those of all, and the nodes."""
    return (pod_request(node), REQUEST) if node else (NODE_REQUEST, pod_request(), REQUEST)


def parse(node: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """The budgets of `node`, or of all nodes when it is empty; then `cluster/budgets` too: all their names."""
    pods, budgets = replies[-2:]
    nodes = [node] if node else [item["metadata"]["name"] for item in replies[0]]
    in_space: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for budget in budgets:
        in_space[budget["metadata"]["namespace"]].append(budget)
    on: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for pod in pods:
        labels, where = pod["metadata"].get("labels") or {}, pod.get("spec", {}).get("nodeName", "")
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        for budget in in_space[namespace] if _counts(pod) else ():
            if selects(budget.get("spec", {}).get("selector"), labels):
                told = on[where].setdefault(f"{namespace}/{budget['metadata']['name']}", _told(budget))
                told["pods"].append({"pod": f"{namespace}/{name}", "way": way_of(pod)[0]})
    facts: dict[str, Fact] = {}
    for where in nodes:
        found = sorted(on[where].values(), key=lambda told: str(told["budget"]))
        over = [told["budget"] for told in found if len(told["pods"]) > told["allowed"]]
        facts |= {f"node/{where}/budgets": Known(found), f"node/{where}/over-budget": Known(over)}
    if not node:
        facts["cluster/budgets"] = Known(
            sorted(f"{s}/{b['metadata']['name']}" for s in in_space for b in in_space[s])
        )
    return facts


def _counts(pod: Mapping[str, Any]) -> bool:
    """Whether a budget counts the pod as healthy, and the node's restart would end it."""
    going = "deletionTimestamp" in pod["metadata"]
    return not going and not leaves_by_itself(pod) and ready_condition(pod).get("status") == "True"


def _told(budget: Mapping[str, Any]) -> dict[str, Any]:
    metadata, status = budget["metadata"], budget.get("status") or {}
    is_counted = status.get("observedGeneration", 0) >= metadata.get("generation", 1)
    needs, has = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
    return {
        "budget": f"{metadata['namespace']}/{metadata['name']}",
        "allowed": int(status.get("disruptionsAllowed", 0)) if is_counted else 0,
        "why": f"it needs {needs} healthy pod(s) and has {has}"
        if is_counted
        else "its pods are not counted yet",
        "pods": [],
    }
