"""Policies: what one says, whom it selects, and the ops that write and delete it.

The one invariant: a policy is written whole. Of one that somebody else made, that is at the version that was read.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from plans.desired import VMNetwork
from plans.facts import ABSENT, Facts, Known, Later, Unknown
from plans.nmstate import documents
from plans.nmstate.enactments import by_node
from plans.ops import Apply, Changes, Delete, Edit, ObjectRef

POLICY = ("nmstate.io/v1", "NodeNetworkConfigurationPolicy")

FIELD_MANAGER = "ovsplan"
OURS = "app.kubernetes.io/managed-by"
HOSTNAME = "kubernetes.io/hostname"

MADE_FOR = "ovsplan.io/network"
"""The annotation on a policy that a VMNetwork's run writes: the network's name, which no label's value may be too long for.

A policy of the files has none: nothing but the files says when it goes.
"""

EDITS = 3
"""How often a policy is written in one step before it is taken that somebody else edits it."""

IN_PROGRESS = "is still in progress"
"""What the admission rule says of an edit that comes too early (H39)."""


def final_document(network: VMNetwork, with_bridge: bool = True) -> dict[str, Any]:
    """What holds of a network for good: where the localnet rides, what was made for it, and what is no more.

    Without `with_bridge` a bridge that is made is left as it is on each node.
    """
    mapped = documents.mapped(network.name, network.bridge)
    if network.ports and with_bridge and not network.is_labelled:
        made = documents.with_bridge(network.bridge, [{"name": port} for port in network.ports])
        mapped = documents.union(made, mapped)
    old = network.replaced_bridge
    return documents.union(mapped, documents.without_bridge(old)) if old else mapped


def ref(name: str) -> ObjectRef:
    """A policy by name."""
    return ObjectRef(*POLICY, name)


def body(
    name: str,
    selector: Mapping[str, str],
    document: Mapping[str, Any],
    at_once: int | str | None = None,
    network: str = "",
) -> dict[str, Any]:
    """A policy as it is applied: `at_once` is maxUnavailable, `network` the VMNetwork that it is made for."""
    spec: dict[str, Any] = {"nodeSelector": dict(selector), "desiredState": dict(document)}
    if at_once is not None:
        spec["maxUnavailable"] = at_once
    return {
        "apiVersion": POLICY[0],
        "kind": POLICY[1],
        "metadata": {
            "name": name,
            "labels": {OURS: FIELD_MANAGER},
            **({"annotations": {MADE_FOR: network}} if network else {}),
        },
        "spec": spec,
    }


def is_applied(facts: Facts, wanted: Mapping[str, Any]) -> bool:
    """Whether the policy is there with the spec of a body."""
    have = facts.value(f"policy/{wanted['metadata']['name']}")
    return bool(have) and have["selector"] == wanted["spec"]["nodeSelector"] and documents.same(
        have["document"], wanted["spec"]["desiredState"]
    ) and have["at_once"] == wanted["spec"].get("maxUnavailable")  # fmt: skip


def is_ours(facts: Facts, name: str) -> bool:
    """Whether a policy is there that ovsplan has made."""
    return bool((facts.value(f"policy/{name}") or {}).get("ours"))


def exists(facts: Facts, name: str) -> bool:
    """Whether the policy is there."""
    return isinstance(facts.get(f"policy/{name}"), Known)


def selected(facts: Facts, selector: Mapping[str, str]) -> list[str]:
    """The nodes that a selector matches now."""
    return [
        node
        for node in facts.value("cluster/nodes", [])
        if all(facts.value(f"node/{node}/labels", {}).get(key) == value for key, value in selector.items())
    ]


def matching(facts: Facts, labels: Mapping[str, str]) -> list[str]:
    """The policies that select a node with these labels."""
    found = []
    for name in facts.value("cluster/policies") or []:
        selector = (facts.value(f"policy/{name}") or {}).get("selector", {})
        if all(labels.get(k) == v for k, v in selector.items()):
            found.append(name)
    return found


def write_op(label: str, wanted: Mapping[str, Any], facts: Facts) -> Apply | Edit:
    """The op that brings a policy to what is wanted: applied, if it is ours or not there yet, else adopted."""
    name = wanted["metadata"]["name"]
    have = facts.value(f"policy/{name}")
    return adopt_op(label, wanted, facts) if have and not have["ours"] else apply_op(label, wanted)


def adopt_op(label: str, wanted: Mapping[str, Any], facts: Facts) -> Edit:
    """The op that takes over a policy that somebody made by hand: its spec replaced whole, at the version read.

    An apply would leave the keys that they own, of the selector too (H59).
    """
    name, spec = wanted["metadata"]["name"], wanted["spec"]
    version = facts.get(f"policy/{name}/version")
    have = facts.value(f"policy/{name}") or {}
    operations = [{"op": "replace", "path": "/spec", "value": dict(spec)}]
    for part, known in (("labels", "labelled"), ("annotations", "annotated")):
        operations += _marks(f"/metadata/{part}", wanted["metadata"].get(part, {}), bool(have.get(known)))
    return Edit(
        label=label,
        title=f"adopt policy {name}, its spec replaced: {documents.in_words(spec['desiredState'])}",
        ref=ref(name),
        operations=tuple(operations),
        resource_version=str(version.value) if isinstance(version, Known) else None,
        again_if=IN_PROGRESS,
        commands=(
            f"oc patch nncp {name} --type=json -p {shlex.quote(json.dumps(operations, sort_keys=True))}",
        ),
        changes=_written(wanted),
    )


def _marks(path: str, marks: Mapping[str, str], has_others: bool) -> list[dict[str, Any]]:
    """The operations that add marks to an object's labels or annotations and leave those that are there."""
    if marks and not has_others:
        return [{"op": "add", "path": path, "value": dict(marks)}]
    return [{"op": "add", "path": f"{path}/{key.replace('/', '~1')}", "value": marks[key]} for key in marks]


def apply_op(label: str, wanted: Mapping[str, Any]) -> Apply:
    """The op that writes a policy whole: as its only owner, server-side apply drops what it held before (H59)."""
    name, spec = wanted["metadata"]["name"], wanted["spec"]
    manifest = shlex.quote(json.dumps(wanted, sort_keys=True))
    return Apply(
        label=label,
        title=f"apply policy {name}: {documents.in_words(spec['desiredState'])}",
        ref=ref(name),
        body=dict(wanted),
        again_if=IN_PROGRESS,
        commands=(f"echo {manifest} | oc apply --server-side --field-manager={FIELD_MANAGER} -f -",),
        changes=_written(wanted),
    )


def _written(wanted: Mapping[str, Any]) -> Changes:
    metadata, spec = wanted["metadata"], wanted["spec"]
    name = metadata["name"]
    have = {
        "uid": "",
        "generation": 0,
        "selector": spec["nodeSelector"],
        "document": spec["desiredState"],
        "at_once": spec.get("maxUnavailable"),
        "owner": "",
        "ours": True,
        "labelled": True,
        "annotated": bool(metadata.get("annotations")),
        "network": metadata.get("annotations", {}).get(MADE_FOR, ""),
    }
    return (
        (f"policy/{name}", Known(have)),
        (f"policy/{name}/editable", Known(True)),
        (f"policy/{name}/version", Later("the patch", "the API server sets it")),
        *((path, Known([])) for path in by_node(name)[1:]),
    )


def delete_op(label: str, name: str, facts: Facts, nodes: tuple[str, ...] = ()) -> Delete:
    """The op that deletes a policy. That reverts nothing on any node (H08)."""
    have = facts.value(f"policy/{name}") or {}
    gone: Changes = (
        (f"policy/{name}", ABSENT),
        *((path, Known([])) for path in by_node(name)),
        *((f"enactment/{node}/{name}/state", ABSENT) for node in nodes),
    )
    return Delete(
        label=label,
        title=f"delete policy {name}",
        ref=ref(name),
        uid=have.get("uid") or None,
        commands=(f"oc delete nncp {name}",),
        changes=gone,
    )


def not_yet(facts: Facts, node: str, document: documents.Document) -> str:
    """What a policy would change on a node, in words; empty when the node is as it says."""
    has, bridges = (
        facts.get(f"node/{node}/ovs/mappings"),
        facts.value(f"node/{node}/ovs", {}).get("bridges", {}),
    )
    if not isinstance(has, Known):
        return "it cannot be told what" + (f": {has.why}" if isinstance(has, Unknown) else "")
    said = [
        f"{localnet} is on {has.value.get(localnet, 'no bridge')}, not on {bridge}"
        for localnet, bridge in sorted(documents.mapped_pairs(document).items())
        if has.value.get(localnet) != bridge
    ]
    said += [f"{b} is there" for b in documents.removed_bridges(document) if b in bridges]
    return "; ".join(said)
