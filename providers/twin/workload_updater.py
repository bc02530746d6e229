"""KubeVirt's workload updater: a VMI that has to migrate for what its VM now says is migrated, where that is allowed.

Invariant: one migration at a time per VMI, and only while `workloadUpdateMethods` of the KubeVirt object has LiveMigrate.
Source: KubeVirt 1.6, pkg/virt-controller/watch/workload-updater.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

from providers.ports import AlreadyExists, Body, Create, Ref, Refused
from providers.twin.admission import VMI
from providers.twin.evacuation import MIGRATION, is_under_way
from providers.twin.hotplug import REQUIRED
from providers.twin.networks import KUBEVIRT
from providers.twin.stage import Stage

MEMORY = "workload-updater"
THROTTLE = 5.0
BACKOFF = 30.0
ANNOTATION = "kubevirt.io/workloadUpdateMigration"


def reconcile(stage: Stage, namespace: str, name: str) -> float | None:
    """Migrate the VMI if it is to; returns the instant at which to look again."""
    key = f"{namespace} {name}"
    vmi = stage.cluster.get(Ref(KUBEVIRT, VMI, name, namespace))
    if vmi is None or not _has_to_migrate(vmi) or not _is_allowed(stage):
        stage.keep(MEMORY, key, None)
        return None
    now = stage.clock.now()
    due = (stage.recall(MEMORY, key) or {"due": now + THROTTLE})["due"]
    if now < due:
        stage.keep(MEMORY, key, {"due": due})
        return float(due)
    if is_under_way(stage, namespace, name):
        return None
    stage.keep(MEMORY, key, {"due": now + BACKOFF})
    suffix = hashlib.sha256(f"{vmi['metadata']['uid']}/update/{now}".encode()).hexdigest()[:5]
    ref = Ref(KUBEVIRT, MIGRATION, f"kubevirt-workload-update-{suffix}", namespace)
    # Refused: somebody else's migration of it has begun, which comes to the same.
    with suppress(AlreadyExists, Refused):
        body = {"metadata": {"annotations": {ANNOTATION: ""}}, "spec": {"vmiName": name}}
        stage.cluster.write(Create(ref, body))
    return now + BACKOFF


def _has_to_migrate(vmi: Body) -> bool:
    status = vmi.get("status", {})
    holds = {c["type"]: c["status"] for c in status.get("conditions", ())}
    return (
        status.get("phase") == "Running"
        and holds.get(REQUIRED) == "True"
        and holds.get("LiveMigratable") == "True"
    )


def _is_allowed(stage: Stage) -> bool:
    return any(
        "LiveMigrate"
        in ((item.get("spec") or {}).get("workloadUpdateStrategy") or {}).get("workloadUpdateMethods", ())
        for item in stage.cluster.list(KUBEVIRT, "KubeVirt").items
    )
