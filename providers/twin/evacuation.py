"""KubeVirt's evacuation controller: a VMI marked for evacuation is migrated off its node.

Invariant: one migration at a time per VMI, and after one that failed none for `BACKOFF` seconds.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

from providers.ports import AlreadyExists, Create, Ref, Refused
from providers.twin.admission import FINAL, VMI
from providers.twin.networks import KUBEVIRT
from providers.twin.stage import Stage

MIGRATION = "VirtualMachineInstanceMigration"
MEMORY = "evacuation"
BACKOFF = 20.0


def reconcile(stage: Stage, namespace: str, name: str) -> float | None:
    """Migrate the VMI if it is to leave its node; returns the instant at which to try again."""
    vmi = stage.cluster.get(Ref(KUBEVIRT, VMI, name, namespace))
    status = (vmi or {}).get("status", {})
    node = status.get("evacuationNodeName")
    key = f"{namespace} {name}"
    if vmi is None or not node or node != status.get("nodeName") or status.get("phase") != "Running":
        stage.keep(MEMORY, key, None)
        return None
    if vmi["spec"].get("evictionStrategy") == "External" or is_under_way(stage, namespace, name):
        return None
    last = stage.recall(MEMORY, key)
    now = stage.clock.now()
    if last is not None and now < last["at"] + BACKOFF:
        return float(last["at"]) + BACKOFF
    stage.keep(MEMORY, key, {"at": now})
    suffix = hashlib.sha256(f"{vmi['metadata']['uid']}/{node}/{now}".encode()).hexdigest()[:5]
    ref = Ref(KUBEVIRT, MIGRATION, f"kubevirt-evacuation-{suffix}", namespace)
    # Refused: somebody else's migration of it has begun, which comes to the same.
    with suppress(AlreadyExists, Refused):
        stage.cluster.write(Create(ref, {"spec": {"vmiName": name}}))
    return now + BACKOFF


def is_under_way(stage: Stage, namespace: str, name: str) -> bool:
    """Whether a migration of the VMI has not come to its end."""
    moves = stage.cluster.list(KUBEVIRT, MIGRATION, namespace=namespace).items
    return any(
        move["spec"].get("vmiName") == name and move.get("status", {}).get("phase") not in FINAL
        for move in moves
    )
