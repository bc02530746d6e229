"""Reading NetworkAttachmentDefinitions whole, what OVN-Kubernetes said of them, and which pods use them.

Facts: `cluster/nads`; for each NAD `nad/<ns>/<name>` (its uid, who keeps it), `/text` and `/config` of its spec (the
latter Absent when it is no JSON object), `/labels`, `/annotations`; read alone also `/version`, `/taken` (OVN-Kubernetes
has made a network of it, and writes so since 1.1) and `/events` (of each warning: name → how often, text); `cluster/nad-pods`:
NAD → pods that are no VM's; `cluster/nad-pods-by-node`: the same for each node. The one invariant: what one NAD says wrong never hides another.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from plans import nads
from plans.facts import ABSENT, Fact, Json, Known
from plans.ops import ListRequest
from plans.readings.cluster import NAD, NETWORKS_REQUEST
from plans.readings.nmstate import owner

FIELD_MANAGER = "ovsplan"
GENERATED = "k8s.ovn.org/user-defined-network"
"""The label of a NAD that a (Cluster)UserDefinedNetwork makes (H27)."""

TAKEN = "k8s.ovn.org/network-name"
USED = "k8s.v1.cni.cncf.io/networks"
REFUSAL = "InvalidConfig"

PODS_REQUEST = ListRequest(
    "v1",
    "Pod",
    keep=(
        *("metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations"),
        *("spec.nodeName", "status.phase"),
    ),
)


def requests_of(key: str) -> tuple[ListRequest, ListRequest]:
    """One NAD, and the warnings about it."""
    namespace, _, name = key.partition("/")
    about = (("involvedObject.name", name), ("reason", REFUSAL))
    return (
        ListRequest(*NAD, keep=NETWORKS_REQUEST.keep, namespace=namespace, fields=(("metadata.name", name),)),
        ListRequest("v1", "Event", keep=("metadata.name", "message", "count", "involvedObject"), namespace=namespace, fields=about),
    )  # fmt: skip


def parse_nads(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """Every NAD of the cluster."""
    facts: dict[str, Fact] = {"nad/*": ABSENT}
    for item in replies[0]:
        facts.update(_facts_of(_key(item), item))
    facts["cluster/nads"] = Known(sorted(_key(item) for item in replies[0]))
    return facts


def parse_one_nad(key: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """One NAD, with its version and the warnings about it."""
    at = f"nad/{key}"
    facts: dict[str, Fact] = {at: ABSENT, f"{at}/*": ABSENT}
    for item in replies[0]:
        facts.update(_facts_of(key, item))
        facts[f"{at}/version"] = Known(item["metadata"].get("resourceVersion"))
        if TAKEN in (item["metadata"].get("annotations") or {}):
            facts[f"{at}/taken"] = Known(True)
    warnings = {
        e["metadata"]["name"]: [e.get("count") or 1, str(e.get("message", ""))]
        for e in replies[1]
        if _is_about_nad(e)
    }
    facts[f"{at}/events"] = Known(warnings)
    return facts


def _is_about_nad(event: Mapping[str, Any]) -> bool:
    return event.get("involvedObject", {}).get("kind") in (None, "", NAD[1])


def _key(item: Mapping[str, Any]) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def _facts_of(key: str, item: Mapping[str, Any]) -> dict[str, Fact]:
    metadata, text = item["metadata"], (item.get("spec") or {}).get("config")
    controlled = any(reference.get("controller") for reference in metadata.get("ownerReferences") or ())
    labels = dict(metadata.get("labels") or {})
    try:
        config: Fact = Known(dict(nads.read_config(text)))
    except ValueError:
        config = ABSENT
    about = {
        "uid": metadata.get("uid", ""),
        "keeper": owner(metadata),
        "generated": controlled or GENERATED in labels,
        "applied": _is_applied_by_us(metadata),
    }
    return {
        f"nad/{key}": Known(about),
        f"nad/{key}/text": Known(text if isinstance(text, str) else ""),
        f"nad/{key}/config": config,
        f"nad/{key}/labels": Known(labels),
        f"nad/{key}/annotations": Known(dict(metadata.get("annotations") or {})),
    }


def _is_applied_by_us(metadata: Mapping[str, Any]) -> bool:
    """Whether a server-side apply of ours holds `spec.config`: then the next one may change it."""
    return any(
        entry.get("manager") == FIELD_MANAGER
        and entry.get("operation") == "Apply"
        and "f:config" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in metadata.get("managedFields") or ()
    )


def parse_pods(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`cluster/nad-pods`: each NAD that pods name, and those pods, and the same by node; the pods of VMs, and those that are over, left out."""
    users: dict[str, list[str]] = defaultdict(list)
    on: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for item in replies[0]:
        metadata = item["metadata"]
        if (metadata.get("labels") or {}).get("kubevirt.io") == "virt-launcher":
            continue
        if item.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            continue
        for nad in _named((metadata.get("annotations") or {}).get(USED, ""), metadata["namespace"]):
            users[nad].append(_key(item))
            if node := (item.get("spec") or {}).get("nodeName"):
                on[node][nad].append(_key(item))
    return {
        "cluster/nad-pods": Known(_sorted(users)),
        "cluster/nad-pods-by-node": Known({node: _sorted(found) for node, found in sorted(on.items())}),
    }


def _sorted(users: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {nad: sorted(pods) for nad, pods in sorted(users.items())}


def _named(text: str, namespace: str) -> list[str]:
    """The NADs of a pod's annotation: `[ns/]name[@interface], …`, or a JSON list of mappings."""
    if text.lstrip().startswith("["):
        try:
            entries = json.loads(text)
        except ValueError:
            return []
        return [
            f"{e.get('namespace') or namespace}/{e['name']}"
            for e in entries
            if isinstance(e, dict) and "name" in e
        ]
    names = [entry.strip().partition("@")[0] for entry in text.split(",") if entry.strip()]
    return [name if "/" in name else f"{namespace}/{name}" for name in names]
