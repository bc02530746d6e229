"""Reading which images are on the nodes already, by pods that run on every one.

Fact: `cluster/images`, by node: an `image` that has `sleep`, and the `pod` that it was read from. A pod that does not run says
nothing of what is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plans.facts import Fact, Json, Known
from plans.ops import ListRequest
from plans.readings.maintenance import POD

PODS = (
    ("openshift-ovn-kubernetes", ("app", "ovnkube-node"), "ovn-controller"),
    ("openshift-multus", ("app", "multus"), "kube-multus"),
)
"""Namespace, label and container of pods whose images have the usual programs; the first is preferred."""

REQUESTS = tuple(
    ListRequest(
        *POD,
        keep=("metadata.name", "metadata.namespace", "spec.nodeName", "spec.containers", "status.phase"),
        namespace=namespace,
        labels=(label,),
    )
    for namespace, label, _ in PODS
)


def parse(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`cluster/images`."""
    found: dict[str, dict[str, str]] = {}
    for (_, _, container), items in zip(PODS, replies, strict=True):
        for item in items:
            images = {c["name"]: c.get("image", "") for c in item["spec"]["containers"]}
            if item.get("status", {}).get("phase") == "Running" and images.get(container):
                pod = f"{item['metadata']['namespace']}/{item['metadata']['name']}"
                there = {"image": images[container], "pod": pod}
                found.setdefault(item["spec"].get("nodeName", ""), there)
    return {"cluster/images": Known(found)}
