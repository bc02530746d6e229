"""The objects of a twin, made again on another API server.

Invariant: what comes out is what the twin's cluster says, but for what every server gives by itself (UIDs, versions,
times); references by UID lead to the new object.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from providers.ports import AlreadyExists, Body, Cluster, Create, MergePatch, NotServed, Ref
from providers.twin.kinds import Kind, all_kinds

_FIRST = (
    "Namespace",
    "Node",
    "NetworkAttachmentDefinition",
    "VirtualMachine",
    "VirtualMachineInstance",
    "Pod",
)
"""Owners before what they own; the other kinds come between the nodes and these."""

_LEFT_OUT = ("Event",)
_GIVEN = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")


def copy_objects(source: Cluster, target: Cluster, without: Iterable[str] = ()) -> None:
    """Make the objects of all kinds, but for those named `without`, on `target`; one that is there stays."""
    renamed: dict[str, str] = {}
    for kind in _in_order():
        if kind.name in (*_LEFT_OUT, *without):
            continue
        for body in _listed(source, kind):
            made = _make(target, kind, _renamed(body, renamed))
            if made is not None:
                renamed[body["metadata"]["uid"]] = made["metadata"]["uid"]


def _in_order() -> list[Kind]:
    kinds = [kind for kind in all_kinds().values() if kind.kept and kind.api == kind.stored]
    return sorted(
        kinds, key=lambda kind: (_FIRST.index(kind.name) if kind.name in _FIRST else 1.5, kind.name)
    )


def _listed(source: Cluster, kind: Kind) -> Iterable[Body]:
    with suppress(NotServed):
        return source.list(kind.api, kind.name).items
    return ()


def _renamed(body: Body, names: dict[str, str]) -> dict[str, Any]:
    text = json.dumps(body)
    for old, new in names.items():
        text = text.replace(old, new)
    return dict(json.loads(text))


def _make(target: Cluster, kind: Kind, body: dict[str, Any]) -> Body | None:
    """Create the object, then its status where the API keeps it apart."""
    metadata = body["metadata"]
    ref = Ref(kind.api, kind.name, metadata["name"], metadata.get("namespace"))
    kept = {key: value for key, value in metadata.items() if key not in _GIVEN}
    with suppress(AlreadyExists):
        made = target.write(Create(ref, {**body, "metadata": kept}))
        if kind.status and body.get("status"):
            made = target.write(MergePatch(ref, {"status": body["status"]}, subresource="status"))
        return made
    return None
