"""KubeVirt's life of a virtual machine: a VirtualMachine wants a VMI or not, a VMI wants a launcher pod and a node.

Invariant: a VMI that belongs to a VirtualMachine is made and deleted for its run strategy alone, or on a request in
`status.stateChangeRequests`; a deleted VMI is gone once its guest has had `timings.stop` to shut down.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from providers.ports import AlreadyExists, Body, Create, Delete, JsonPatch, MergePatch, NotFound, Ref
from providers.twin import hotplug, multus
from providers.twin.admission import FINAL, VMI
from providers.twin.launchers import NODE_NAME, VM_NAME, launcher, launchers, wanted_cards
from providers.twin.networks import KUBEVIRT
from providers.twin.stage import Stage

MACHINE = "VirtualMachine"
FINALIZER = "foregroundDeleteVirtualMachine"
_SYSTEMS = {
    "linux": {"id": "rhel", "name": "Red Hat Enterprise Linux"},
    "windows": {"id": "mswindows", "name": "Microsoft Windows"},
}
_RESTART = "a non-live-updatable field was changed in the template spec"


def machine(namespace: str, name: str) -> Ref:
    return Ref(KUBEVIRT, MACHINE, name, namespace)


def instance(namespace: str, name: str) -> Ref:
    return Ref(KUBEVIRT, VMI, name, namespace)


def strategy_of(vm: Body) -> str:
    spec = vm["spec"]
    return str(spec.get("runStrategy") or ("Always" if spec.get("running") else "Halted"))


def owned_by(vmi: Body, kind: str) -> Mapping[str, Any] | None:
    references = vmi["metadata"].get("ownerReferences", ())
    return next((ref for ref in references if ref["kind"] == kind), None)


def owner_of(vm: Body) -> dict[str, Any]:
    """The owner reference of a VMI that belongs to a VirtualMachine."""
    return {
        "apiVersion": KUBEVIRT,
        "kind": MACHINE,
        "name": vm["metadata"]["name"],
        "uid": vm["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def reconcile_machine(stage: Stage, namespace: str, name: str) -> None:
    """One look at a VirtualMachine: start or stop its VMI, then say how it stands."""
    vm = stage.cluster.get(machine(namespace, name))
    vmi = stage.cluster.get(instance(namespace, name))
    if vm is None:
        # Nobody collects what is left without its owner here, as the controller's finalizer does it.
        if vmi is not None and owned_by(vmi, MACHINE) and not vmi["metadata"].get("deletionTimestamp"):
            _stop(stage, namespace, name)
        return
    if vmi is not None and not owned_by(vmi, MACHINE):
        return
    if vmi is None and _starts(vm):
        _start(stage, vm)
    elif vmi is not None and not vmi["metadata"].get("deletionTimestamp") and _stops(vm, vmi):
        if strategy_of(vm) == "RerunOnFailure" and vmi.get("status", {}).get("phase") == "Failed":
            asked = {"stateChangeRequests": [{"action": "Start"}]}
            vm = stage.cluster.write(
                MergePatch(machine(namespace, name), {"status": asked}, subresource="status")
            )
        _stop(stage, namespace, name)
    guest = stage.cluster.get(instance(namespace, name))
    if guest is not None and not guest["metadata"].get("deletionTimestamp"):
        hotplug.take_over(stage, vm, guest)
        guest = stage.cluster.get(instance(namespace, name))
    _report(stage, vm, guest)


def _requests(vm: Body, action: str) -> list[Any]:
    return [ask for ask in vm.get("status", {}).get("stateChangeRequests", ()) if ask["action"] == action]


def _starts(vm: Body) -> bool:
    """Whether a VM without a VMI is to get one."""
    if vm["metadata"].get("deletionTimestamp"):
        return False
    strategy = strategy_of(vm)
    match strategy:
        case "Always" | "Once":
            return True
        case "RerunOnFailure":
            # After a clean end it stays down; it starts when it comes from another strategy, or is asked to.
            came_from = vm.get("status", {}).get("runStrategy")
            return came_from != strategy or bool(_requests(vm, "Start"))
        case "Manual":
            return bool(_requests(vm, "Start"))
    return False


def _stops(vm: Body, vmi: Body) -> bool:
    phase = vmi.get("status", {}).get("phase")
    match strategy_of(vm):
        case "Always" | "RerunOnFailure":
            return phase in FINAL or _asked_to_stop(vm, vmi)
        case "Manual" | "Once":
            return _asked_to_stop(vm, vmi)
        case "Halted":
            return True
    return False


def _asked_to_stop(vm: Body, vmi: Body) -> bool:
    return any(ask.get("uid") in (None, vmi["metadata"]["uid"]) for ask in _requests(vm, "Stop"))


def _stop(stage: Stage, namespace: str, name: str) -> None:
    with suppress(NotFound):
        stage.cluster.write(Delete(instance(namespace, name)))


def _start(stage: Stage, vm: Body) -> None:
    metadata = vm["metadata"]
    template = vm["spec"]["template"]
    labels = {**(template.get("metadata") or {}).get("labels", {}), VM_NAME: metadata["name"]}
    body = {
        "metadata": {"labels": labels, "ownerReferences": [owner_of(vm)], "finalizers": [FINALIZER]},
        "spec": template["spec"],
    }
    with suppress(AlreadyExists):
        stage.cluster.write(Create(instance(metadata["namespace"], metadata["name"]), body))


def _report(stage: Stage, vm: Body, vmi: Body | None) -> None:
    """Write the VM's status, and take the requests off that have been met."""
    status = vm.get("status", {})
    wanted = machine_status(vm, vmi)
    asked = status.get("stateChangeRequests") or []
    open_requests = [ask for ask in asked if not _is_met(ask, vmi)]
    wanted["stateChangeRequests"] = open_requests or None
    if any(status.get(name) != value for name, value in wanted.items()):
        ref = machine(vm["metadata"]["namespace"], vm["metadata"]["name"])
        with suppress(NotFound):
            stage.cluster.write(MergePatch(ref, {"status": wanted}, subresource="status"))


def _is_met(ask: Mapping[str, Any], vmi: Body | None) -> bool:
    if ask["action"] == "Start":
        return vmi is not None and not vmi["metadata"].get("deletionTimestamp")
    return vmi is None or ask.get("uid") not in (None, vmi["metadata"]["uid"])


def machine_status(vm: Body, vmi: Body | None) -> dict[str, Any]:
    """What a VirtualMachine's status says while its VMI is as given."""
    ready = _is_ready(vmi)
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    if vmi is None:
        condition |= {"reason": "VMINotExists", "message": "VMI does not exist"}
    elif not ready:
        condition |= {"reason": "GuestNotRunning", "message": "Guest VM is not reported as running"}
    others = [_restart_required()] if vmi is not None and _differs(vm, vmi) else []
    return {
        "created": vmi is not None,
        "ready": ready,
        "printableStatus": _printable(vm, vmi),
        "runStrategy": strategy_of(vm),
        "observedGeneration": vm["metadata"].get("generation", 1),
        "conditions": [condition, *others],
    }


def _restart_required() -> dict[str, str]:
    return {"type": "RestartRequired", "status": "True", "message": _RESTART}


def _is_ready(vmi: Body | None) -> bool:
    return (
        vmi is not None
        and vmi.get("status", {}).get("phase") == "Running"
        and not vmi["metadata"].get("deletionTimestamp")
    )


def _printable(vm: Body, vmi: Body | None) -> str:
    if vmi is None:
        return "Starting" if _starts(vm) else "Stopped"
    status = vmi.get("status", {})
    if vmi["metadata"].get("deletionTimestamp"):
        return "Stopping"
    if status.get("phase") in FINAL:
        return "Stopped"
    if status.get("phase") != "Running":
        unfit = any(
            c["type"] == "PodScheduled" and c["status"] == "False" for c in status.get("conditions", ())
        )
        return "ErrorUnschedulable" if unfit else "Starting"
    move = status.get("migrationState") or {}
    return "Migrating" if move.get("startTimestamp") and not move.get("completed") else "Running"


def _differs(vm: Body, vmi: Body) -> bool:
    """Whether the template has what the guest gets only by a restart."""
    return hotplug.restart_required(vm["spec"]["template"].get("spec") or {}, vmi["spec"])


def reconcile_instance(stage: Stage, namespace: str, name: str) -> float | None:
    """One step of a VMI on its way up or down; the change it makes brings the next."""
    vmi = stage.cluster.get(instance(namespace, name))
    if vmi is None:
        return None
    if vmi["metadata"].get("deletionTimestamp"):
        return _shut_down(stage, vmi)
    match vmi.get("status", {}).get("phase"):
        case None | "" | "Pending":
            _launch(stage, vmi)
        case "Scheduling":
            _await_launcher(stage, vmi)
        case "Scheduled":
            return _boot(stage, vmi)
    return None


def _ref(vmi: Body) -> Ref:
    return instance(vmi["metadata"]["namespace"], vmi["metadata"]["name"])


def _shut_down(stage: Stage, vmi: Body) -> float | None:
    asked = datetime.fromisoformat(vmi["metadata"]["deletionTimestamp"]).timestamp()
    ran = vmi.get("status", {}).get("phase") in ("Running", "Scheduled")
    due = asked + (stage.settings.vm_stop if ran else 0.0)
    if stage.clock.now() < due:
        return due
    if FINALIZER in vmi["metadata"].get("finalizers", ()):
        at = vmi["metadata"]["finalizers"].index(FINALIZER)
        path = f"/metadata/finalizers/{at}"
        operations = ({"op": "test", "path": path, "value": FINALIZER}, {"op": "remove", "path": path})
        stage.cluster.write(JsonPatch(_ref(vmi), operations))
    return None


def _launch(stage: Stage, vmi: Body) -> None:
    if (gone := multus.missing(stage.cluster, wanted_cards(vmi))) is not None:
        _cannot_launch(stage, vmi, gone)
        return
    status = {
        "phase": "Scheduling",
        "conditions": [{"type": "Ready", "status": "False", "reason": "GuestNotRunning"}],
    }
    stage.cluster.write(MergePatch(_ref(vmi), {"status": status}))
    pod = launcher(vmi, "first")
    with suppress(AlreadyExists):
        stage.cluster.write(
            Create(Ref("v1", "Pod", pod["metadata"]["name"], vmi["metadata"]["namespace"]), pod)
        )


def _cannot_launch(stage: Stage, vmi: Body, nad: str) -> None:
    """What virt-controller says of a guest on a NAD that is not there: it makes no launcher pod for it, and tries again."""
    why = f"failed to render launch manifest: failed to locate network attachment definition {nad}"
    said = {"type": "Synchronized", "status": "False", "reason": "FailedCreate", "message": why}
    if said not in vmi.get("status", {}).get("conditions", ()):
        not_ready = {"type": "Ready", "status": "False", "reason": "GuestNotRunning"}
        status = {"phase": "Pending", "conditions": [not_ready, said]}
        stage.cluster.write(MergePatch(_ref(vmi), {"status": status}))


def launch_waiting(stage: Stage) -> None:
    """There is a NAD more: a guest that has no launcher yet may have waited for it."""
    for vmi in stage.cluster.list(KUBEVIRT, "VirtualMachineInstance").items:
        if vmi.get("status", {}).get("phase") == "Pending" and not vmi["metadata"].get("deletionTimestamp"):
            _launch(stage, vmi)


def _await_launcher(stage: Stage, vmi: Body) -> None:
    metadata = vmi["metadata"]
    pods = launchers(stage.cluster, metadata["namespace"], metadata["uid"])
    if not pods:
        return
    pod = pods[0]
    unfit = [
        condition
        for condition in pod.get("status", {}).get("conditions", ())
        if condition["type"] == "PodScheduled" and condition["status"] == "False"
    ]
    if pod.get("status", {}).get("phase") == "Running":
        node = pod["spec"]["nodeName"]
        status = {
            "phase": "Scheduled",
            "nodeName": node,
            "activePods": {pod["metadata"]["uid"]: node},
            "conditions": [{"type": "Ready", "status": "False", "reason": "GuestNotRunning"}],
        }
        labels = {"labels": {NODE_NAME: node}}
        stage.cluster.write(MergePatch(_ref(vmi), {"metadata": labels, "status": status}))
    elif unfit and unfit[0] not in vmi["status"].get("conditions", ()):
        others = [c for c in vmi["status"].get("conditions", ()) if c["type"] != "PodScheduled"]
        stage.cluster.write(MergePatch(_ref(vmi), {"status": {"conditions": [*others, *unfit]}}))


def _boot(stage: Stage, vmi: Body) -> float | None:
    made = datetime.fromisoformat(vmi["metadata"]["creationTimestamp"]).timestamp()
    due = made + stage.settings.vm_start
    if stage.clock.now() < due:
        return due
    blocked = stage.recall("blocked", f"{vmi['metadata']['namespace']}/{vmi['metadata']['name']}")
    live = blocked or {"type": "LiveMigratable", "status": "True"}
    said = dict(
        told_by_guest_agent(stage.guest_agent(f"{vmi['metadata']['namespace']}/{vmi['metadata']['name']}"))
    )
    plugged = {multus.interface_of(n["name"]) for n in vmi["spec"].get("networks", ()) if "multus" in n}
    status = {
        "phase": "Running",
        "interfaces": hotplug.report(vmi, plugged),
        "conditions": [{"type": "Ready", "status": "True"}, live, *said.pop("conditions", ())],
        "migrationMethod": "BlockMigration" if blocked else "LiveMigration",
        **said,
    }
    stage.cluster.write(MergePatch(_ref(vmi), {"status": status}))
    return None


def told_by_guest_agent(guest_agent: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What a VMI's status says besides once its guest agent is connected."""
    if guest_agent is None:
        return {}
    connected = {"type": "AgentConnected", "status": "True"}
    return {"guestOSInfo": dict(_SYSTEMS[guest_agent["os"]]), "conditions": [connected]}


def notice_lost_launcher(stage: Stage, namespace: str, name: str) -> None:
    """A guest whose pod was taken away has been shut down with it."""
    vmi = stage.cluster.get(instance(namespace, name))
    if vmi is None or vmi.get("status", {}).get("phase") != "Running":
        return
    active = vmi["status"].get("activePods", {})
    pods = launchers(stage.cluster, namespace, vmi["metadata"]["uid"])
    if active and not any(pod["metadata"]["uid"] in active for pod in pods):
        ready = [c for c in vmi["status"].get("conditions", ()) if c["type"] != "Ready"]
        down = {"type": "Ready", "status": "False", "reason": "PodTerminating"}
        status = {"phase": "Succeeded", "conditions": [*ready, down]}
        stage.cluster.write(MergePatch(_ref(vmi), {"status": status}))
