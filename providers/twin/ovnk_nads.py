"""OVN-Kubernetes' watch over NetworkAttachmentDefinitions: a Warning event for each that it can't use.

Invariant: a NAD that is all right gets no event, and nothing is ever written on the NAD itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from providers.ports import AlreadyExists, Body, Create, NotFound, Ref
from providers.twin.kube import stamp
from providers.twin.nad_rules import Broken, contradicts, parse
from providers.twin.networks import NAD_API
from providers.twin.stage import Change, Settings, Stage

NAD = "NetworkAttachmentDefinition"


class OvnkNads:
    name = "ovn-kubernetes"

    def keys(self, change: Change, settings: Settings) -> Iterable[tuple[str, float]]:
        if change.kind == NAD and not change.deleted:
            yield f"{change.namespace} {change.name}", 0.0

    def reconcile(self, stage: Stage, key: str) -> float | None:
        namespace, name = key.split(" ")
        nad = stage.cluster.get(Ref(NAD_API, NAD, name, namespace))
        if nad is None:
            return None
        why = _fault(stage, nad, f"{namespace}/{name}")
        if why and stage.recall(self.name, key) != {"version": nad["metadata"]["resourceVersion"]}:
            stage.keep(self.name, key, {"version": nad["metadata"]["resourceVersion"]})
            _warn(stage, nad, f"Failed to parse network config: {why}")
        return None


def _fault(stage: Stage, nad: Body, key: str) -> str:
    try:
        config = parse((nad.get("spec") or {}).get("config"), key)
    except Broken as error:
        return str(error)
    if config is None:
        return ""
    for other in stage.cluster.list(NAD_API, NAD).items:
        its = _config_of(other)
        if other["metadata"]["uid"] == nad["metadata"]["uid"] or its is None:
            continue
        if its["name"] == config["name"] and contradicts(its, config):
            return f"NAD {key} CNI config does not match that of network {config['name']}"
    return ""


def _config_of(nad: Body) -> Mapping[str, Any] | None:
    metadata = nad["metadata"]
    try:
        return parse((nad.get("spec") or {}).get("config"), f"{metadata['namespace']}/{metadata['name']}")
    except Broken:
        return None


def _warn(stage: Stage, nad: Body, message: str) -> None:
    metadata = nad["metadata"]
    at = stamp(stage.clock.now())
    digest = hashlib.sha256(f"{metadata['uid']}/{metadata['resourceVersion']}".encode()).hexdigest()[:16]
    body = {
        "type": "Warning",
        "reason": "InvalidConfig",
        "message": message,
        "involvedObject": {"kind": NAD, "namespace": metadata["namespace"], "name": metadata["name"]},
        "source": {"component": "ovnkube-cluster-manager"},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
    # The namespace may be gone by now, and with it whoever wanted to know.
    with suppress(AlreadyExists, NotFound):
        ref = Ref("v1", "Event", f"{metadata['name']}.{digest}", metadata["namespace"])
        stage.cluster.write(Create(ref, body))
