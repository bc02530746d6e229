"""KubeVirt's virt-controller: migrations from Pending to Succeeded or Failed, and when to look at VMs (`vm.py`).

Invariant: at most `limits.migrationsPerCluster` migrations are under way, and `limits.outboundPerNode` from one
node; a VMI has one launcher pod, and a second one only while it migrates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from providers.ports import Body, Create, MergePatch, Ref
from providers.twin import evacuation, hotplug, vm, workload_updater
from providers.twin.admission import FINAL, VMI
from providers.twin.kube import stamp
from providers.twin.launchers import CREATED_BY, LAUNCHER, NODE_NAME, VM_NAME, delete_pod, launcher, launchers
from providers.twin.networks import KUBEVIRT
from providers.twin.scheduler import HOSTNAME
from providers.twin.stage import Change, Settings, Stage

MIGRATION = "VirtualMachineInstanceMigration"
JOB = "kubevirt.io/migrationJobUID"
UNSCHEDULED = 300.0
_WAITING = (None, "", "Pending")


class KubeVirt:
    name = "kubevirt"

    def keys(self, change: Change, settings: Settings) -> Iterable[tuple[str, float]]:
        body = change.body or {}
        key = f"{change.namespace} {change.name}"
        if change.kind == MIGRATION:
            if change.deleted or body.get("status", {}).get("phase") in FINAL:
                yield f"ended {key}", 0.0
            else:
                yield f"migration {key}", 0.0
        elif change.kind == VMI:
            yield from (
                (f"{what} {key}", 0.0) for what in (("gone",) if change.deleted else ("moved", "vmi"))
            )
            yield f"vm {key}", 0.0
        elif change.kind == vm.MACHINE:
            yield f"vm {key}", 0.0
        elif change.kind == "NetworkAttachmentDefinition" and not change.deleted:
            yield f"nad {key}", 0.0
        elif change.kind == "Pod":
            yield from ((what, 0.0) for what in _pod_keys(change))

    def reconcile(self, stage: Stage, key: str) -> float | None:
        what, namespace, name = key.split(" ")
        match what:
            case "vm":
                vm.reconcile_machine(stage, namespace, name)
            case "vmi":
                moments = (
                    vm.reconcile_instance(stage, namespace, name),
                    evacuation.reconcile(stage, namespace, name),
                    hotplug.reconcile(stage, namespace, name),
                    workload_updater.reconcile(stage, namespace, name),
                )
                return min((moment for moment in moments if moment is not None), default=None)
            case "nad":
                vm.launch_waiting(stage)
            case "lost":
                vm.notice_lost_launcher(stage, namespace, name)
            case "migration":
                return _migrate(stage, namespace, name)
            case "ended":
                _end(stage, namespace, name)
            case "gone":
                _remove_launchers(stage, namespace, name)
            case "moved":
                _continue(stage, namespace, stage.recall(VMI, f"{namespace} {name}"))
            case "pod":
                _continue(stage, namespace, stage.recall("pod", f"{namespace} {name}"))
        return None


def _pod_keys(change: Change) -> Iterable[str]:
    labels = (change.body or {}).get("metadata", {}).get("labels", {})
    if CREATED_BY not in labels:
        return
    if JOB in labels:
        yield f"pod {change.namespace} {change.name}"
    if not change.deleted:
        yield f"vmi {change.namespace} {labels.get(VM_NAME, '')}"
    if change.deleted:
        yield f"lost {change.namespace} {labels.get(VM_NAME, '')}"


def _continue(stage: Stage, namespace: str, migration: Any) -> None:
    if migration is not None:
        _migrate(stage, namespace, migration)


def _migration(namespace: str, name: str) -> Ref:
    return Ref(KUBEVIRT, MIGRATION, name, namespace)


def _phase(stage: Stage, namespace: str, name: str, phase: str) -> None:
    now = stamp(stage.clock.now())
    migration = stage.cluster.get(_migration(namespace, name)) or {}
    passed = [*migration.get("status", {}).get("phaseTransitionTimestamps", ())]
    passed.append({"phase": phase, "phaseTransitionTimestamp": now})
    status = {"phase": phase, "phaseTransitionTimestamps": passed}
    stage.cluster.write(MergePatch(_migration(namespace, name), {"status": status}, subresource="status"))


def _migrate(stage: Stage, namespace: str, name: str) -> float | None:
    """One step of one migration; the change it makes brings the next."""
    migration = stage.cluster.get(_migration(namespace, name))
    if migration is None or migration.get("status", {}).get("phase") in FINAL:
        return None
    vmi = stage.cluster.get(Ref(KUBEVIRT, VMI, migration["spec"]["vmiName"], namespace))
    if vmi is None or vmi["status"].get("phase") != "Running":
        _phase(stage, namespace, name, "Failed")
        return None
    phase = migration.get("status", {}).get("phase")
    match phase:
        case None | "":
            _phase(stage, namespace, name, "Pending")
        case "Pending":
            _admit(stage, namespace, name, migration, vmi)
        case "Scheduling":
            return _await_pod(stage, namespace, name)
        case "Scheduled":
            _phase(stage, namespace, name, "PreparingTarget")
        case "PreparingTarget":
            _phase(stage, namespace, name, "TargetReady")
        case "TargetReady":
            _begin_copy(stage, namespace, name, migration, vmi)
        case "Running":
            _complete(stage, namespace, name, migration, vmi)
    return None


def _admit(stage: Stage, namespace: str, name: str, migration: Body, vmi: Body) -> None:
    """Create the target pod when the limits allow; a migration that ends asks again for those that wait."""
    source = vmi["status"]["nodeName"]
    under_way = stage.recall("running", "all") or {}
    key = f"{namespace} {name}"
    limits = stage.settings
    if len(under_way) >= limits.per_cluster or list(under_way.values()).count(source) >= limits.per_node:
        stage.keep("waiting", "all", {**(stage.recall("waiting", "all") or {}), key: source})
        return
    waiting = {k: v for k, v in (stage.recall("waiting", "all") or {}).items() if k != key}
    stage.keep("waiting", "all", waiting)
    pod = launcher(vmi, migration["metadata"]["uid"])
    pod["metadata"]["labels"][JOB] = migration["metadata"]["uid"]
    pod["spec"]["nodeSelector"] = {**(migration["spec"].get("addedNodeSelector") or {})}
    pod["spec"]["affinity"] = _away_from(source)
    target = pod["metadata"]["name"]
    stage.keep("running", "all", {**under_way, key: source})
    stage.keep(VMI, f"{namespace} {vmi['metadata']['name']}", name)
    stage.keep("pod", f"{namespace} {target}", name)
    stage.keep("target", key, {"pod": target, "since": stage.clock.now(), "vmi": vmi["metadata"]["name"]})
    stage.cluster.write(Create(Ref("v1", "Pod", target, namespace), pod))
    _phase(stage, namespace, name, "Scheduling")


def _away_from(node: str) -> dict[str, Any]:
    rule = {"key": HOSTNAME, "operator": "NotIn", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def _await_pod(stage: Stage, namespace: str, name: str) -> float | None:
    target = stage.recall("target", f"{namespace} {name}")
    pod = stage.cluster.get(Ref("v1", "Pod", target["pod"], namespace)) if target else None
    if target is None or pod is None:
        _phase(stage, namespace, name, "Failed")
    elif pod["status"].get("phase") == "Running":
        _phase(stage, namespace, name, "Scheduled")
    elif not pod["spec"].get("nodeName"):
        deadline = float(target["since"]) + UNSCHEDULED
        if stage.clock.now() < deadline:
            return deadline
        _phase(stage, namespace, name, "Failed")
    return None


def _begin_copy(stage: Stage, namespace: str, name: str, migration: Body, vmi: Body) -> None:
    target = stage.recall("target", f"{namespace} {name}")
    pod = stage.cluster.get(Ref("v1", "Pod", target["pod"], namespace))
    if pod is None:
        _phase(stage, namespace, name, "Failed")
        return
    state = {
        "migrationUid": migration["metadata"]["uid"],
        "sourceNode": vmi["status"]["nodeName"],
        "targetNode": pod["spec"]["nodeName"],
        "targetPod": target["pod"],
        "startTimestamp": stamp(stage.clock.now()),
        **dict.fromkeys(("endTimestamp", "completed", "failed", "targetNodeDomainDetected", "abortStatus")),
    }
    active = {pod["metadata"]["uid"]: pod["spec"]["nodeName"]}
    ref = Ref(KUBEVIRT, VMI, vmi["metadata"]["name"], namespace)
    stage.cluster.write(MergePatch(ref, {"status": {"migrationState": state, "activePods": active}}))
    _phase(stage, namespace, name, "Running")


def _complete(stage: Stage, namespace: str, name: str, migration: Body, vmi: Body) -> None:
    move = vmi["status"].get("migrationState") or {}
    if move.get("migrationUid") != migration["metadata"]["uid"] or not move.get("targetNodeDomainDetected"):
        return
    target = stage.recall("target", f"{namespace} {name}")
    node = move["targetNode"]
    pod = stage.cluster.get(Ref("v1", "Pod", target["pod"], namespace))
    gone = [
        uid for uid in vmi["status"].get("activePods", {}) if pod is None or uid != pod["metadata"]["uid"]
    ]
    status = {
        "nodeName": node,
        "activePods": dict.fromkeys(gone),
        "evacuationNodeName": None,
        "migrationState": {"completed": True, "endTimestamp": stamp(stage.clock.now())},
    }
    labels = {"labels": {NODE_NAME: node}}
    ref = Ref(KUBEVIRT, VMI, vmi["metadata"]["name"], namespace)
    stage.cluster.write(MergePatch(ref, {"metadata": labels, "status": status}))
    _phase(stage, namespace, name, "Succeeded")
    for old in launchers(stage.cluster, namespace, vmi["metadata"]["uid"]):
        if old["metadata"]["name"] != target["pod"]:
            delete_pod(stage.cluster, namespace, old["metadata"]["name"])


def _end(stage: Stage, namespace: str, name: str) -> None:
    """A migration is over, or was deleted in its midst: clean up, and let the next one in."""
    key = f"{namespace} {name}"
    stage.keep(
        "running", "all", {k: v for k, v in (stage.recall("running", "all") or {}).items() if k != key}
    )
    stage.keep(
        "waiting", "all", {k: v for k, v in (stage.recall("waiting", "all") or {}).items() if k != key}
    )
    target = stage.recall("target", key)
    if target is not None:
        stage.keep("target", key, None)
        stage.keep(VMI, f"{namespace} {target['vmi']}", None)
        stage.keep("pod", f"{namespace} {target['pod']}", None)
        _undo(stage, namespace, target)
        evacuation.reconcile(stage, namespace, target["vmi"])
        workload_updater.reconcile(stage, namespace, target["vmi"])
    for waiting in stage.recall("waiting", "all") or {}:
        _migrate(stage, *waiting.split(" "))


def _undo(stage: Stage, namespace: str, target: Mapping[str, Any]) -> None:
    """After a migration that did not succeed: the target pod goes, the VMI says that it stayed."""
    ref = Ref(KUBEVIRT, VMI, target["vmi"], namespace)
    vmi = stage.cluster.get(ref)
    move = ((vmi or {}).get("status", {}).get("migrationState")) or {}
    if move.get("targetPod") == target["pod"] and move.get("completed"):
        return
    pod = stage.cluster.get(Ref("v1", "Pod", target["pod"], namespace))
    delete_pod(stage.cluster, namespace, target["pod"])
    if vmi is None or move.get("targetPod") != target["pod"]:
        return
    state = {"completed": True, "failed": True, "endTimestamp": stamp(stage.clock.now())}
    active = {pod["metadata"]["uid"]: None} if pod is not None else {}
    stage.cluster.write(MergePatch(ref, {"status": {"migrationState": state, "activePods": active}}))


def _remove_launchers(stage: Stage, namespace: str, name: str) -> None:
    labels = {**LAUNCHER, VM_NAME: name}
    if stage.cluster.get(Ref(KUBEVIRT, VMI, name, namespace)) is None:
        for pod in stage.cluster.list("v1", "Pod", namespace=namespace, labels=labels).items:
            delete_pod(stage.cluster, namespace, pod["metadata"]["name"])
