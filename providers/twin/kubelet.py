"""The kubelet of every node, with virt-handler and the CNI plugin: what happens on the node a pod is put on.

Invariant: a pod's ports are on br-int of its node from just before it is Running until it is deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

from providers.ports import AlreadyExists, Body, Create, MergePatch, Ref
from providers.twin import ovs_view, reboots
from providers.twin.networks import IFACE_ID, KUBEVIRT, MAC, NAD_API, VM, attachments, mac_of, network_of
from providers.twin.ovs_view import CALL, DATABASE, INTEGRATION
from providers.twin.stage import Change, Settings, Stage

VM_NAME = "vm.kubevirt.io/name"
_OPEN_TO_ALL = ("default", "openshift-multus", "openshift-sriov-network-operator", "openshift-cnv")


class Kubelet:
    name = "kubelet"

    def keys(self, change: Change, settings: Settings) -> Iterable[tuple[str, float]]:
        body = change.body or {}
        if change.kind == "Pod":
            node = body.get("spec", {}).get("nodeName")
            if change.deleted and node:
                yield f"unplug {node} {change.namespace} {change.name}", 0.0
            elif node and body.get("status", {}).get("phase") == "Pending":
                yield f"pod {change.namespace} {change.name}", 0.0
        if change.kind == "kubelet":
            yield f"heard {change.name}", 0.0
        if change.kind == "VirtualMachineInstance" and not change.deleted:
            move = body.get("status", {}).get("migrationState") or {}
            if (
                move.get("startTimestamp")
                and not move.get("targetNodeDomainDetected")
                and not move.get("completed")
            ):
                yield f"copy {change.namespace} {change.name}", settings.migration

    def reconcile(self, stage: Stage, key: str) -> float | None:
        what, *rest = key.split(" ")
        if what == "unplug":
            unplug(stage, *rest)
        elif what == "pod":
            _start(stage, *rest)
        elif what == "heard":
            return reboots.judge(stage, *rest)
        else:
            return _hand_over(stage, *rest)
        return None


def _start(stage: Stage, namespace: str, name: str) -> None:
    ref = Ref("v1", "Pod", name, namespace)
    pod = stage.cluster.get(ref)
    if pod is None or pod["status"].get("phase") != "Pending":
        return
    foreign = _foreign_network(pod) if stage.settings.multus_isolation else None
    if foreign is not None:
        _report_isolation(stage, pod, foreign)
        return
    plug(stage, pod)
    ready = {"type": "Ready", "status": "True"}
    conditions = [c for c in pod["status"].get("conditions", ()) if c["type"] != "Ready"]
    status = {"phase": "Running", "conditions": [*conditions, ready]}
    stage.cluster.write(MergePatch(ref, {"status": status}, subresource="status"))


def _foreign_network(pod: Body) -> str | None:
    """The namespace of a NAD that multus does not give to pods of this one."""
    own = pod["metadata"]["namespace"]
    named = pod["metadata"].get("annotations", {}).get("k8s.v1.cni.cncf.io/networks", "")
    spaces = [reference.partition("/")[0] for reference in named.split(",") if "/" in reference]
    return next((space for space in spaces if space not in (own, *_OPEN_TO_ALL)), None)


def _report_isolation(stage: Stage, pod: Body, foreign: str) -> None:
    metadata = pod["metadata"]
    own = metadata["namespace"]
    why = (
        "namespace isolation enabled, annotation violates permission, "
        f"pod is in namespace {own} but refers to target namespace {foreign}"
    )
    body = {
        "type": "Warning",
        "reason": "FailedCreatePodSandBox",
        "message": f"Failed to create pod sandbox: {why}",
        "involvedObject": {"kind": "Pod", "namespace": own, "name": metadata["name"], "uid": metadata["uid"]},
    }
    with suppress(AlreadyExists):
        stage.cluster.write(Create(Ref("v1", "Event", f"{metadata['name']}.sandbox", own), body))


def _cards(stage: Stage, pod: Body) -> list[dict[str, str]]:
    """What the CNI plugin writes on each port of a pod: of the VM whose launcher it is, or its own."""
    metadata = pod["metadata"]
    namespace, vm = metadata["namespace"], metadata.get("labels", {}).get(VM_NAME)
    suffix = f"{namespace}_{metadata['name']}"
    if vm:
        vmi = stage.cluster.get(Ref(KUBEVIRT, "VirtualMachineInstance", vm, namespace))
        if vmi is None:
            return []
        return [
            {IFACE_ID: f"{network.prefix}{suffix}", MAC: mac_of(vmi, interface), VM: f"{namespace}/{vm}"}
            for interface, network in attachments(stage.cluster, vmi)
        ]
    named = metadata.get("annotations", {}).get("k8s.v1.cni.cncf.io/networks", "")
    found = []
    for reference in filter(None, (part.strip() for part in named.split(","))):
        space, _, name = reference.rpartition("/")
        nad = stage.cluster.get(Ref(NAD_API, "NetworkAttachmentDefinition", name, space or namespace))
        network = network_of(nad) if nad is not None else None
        if network is not None:
            digest = hashlib.sha256(f"{metadata['uid']}/{network.name}".encode()).digest()
            mac = ":".join(f"{byte:02x}" for byte in (0x0A, 0x58, *digest[:4]))
            found.append({IFACE_ID: f"{network.prefix}{suffix}", MAC: mac})
    return found


def plug(stage: Stage, pod: Body) -> None:
    """Add a port to br-int for each localnet network of the pod."""
    metadata = pod["metadata"]
    operations: list[dict[str, Any]] = []
    for number, ids in enumerate(_cards(stage, pod), 1):
        port = f"{hashlib.sha256(metadata['uid'].encode()).hexdigest()[:12]}_{number}"
        row = {"name": port, "external_ids": ["map", [[key, value] for key, value in ids.items()]]}
        operations += ovs_view.insert_port(INTEGRATION, port, [row])
    if operations:
        ovsdb = stage.ovsdb(pod["spec"]["nodeName"])
        ovsdb.transact(DATABASE, [*operations, ovs_view.BUMP], timeout=CALL)


def unplug(stage: Stage, node: str, namespace: str, name: str) -> None:
    """Take a deleted pod's ports off br-int."""
    view = ovs_view.read(stage.ovsdb(node))
    bridge = view.bridges.get(INTEGRATION)
    if bridge is None:
        return
    suffix = f"_{namespace}_{name}"
    gone = [
        ovs_view.remove_port(bridge, port)
        for port in bridge.ports.values()
        if any(iface.external_ids.get(IFACE_ID, "").endswith(suffix) for iface in port.interfaces)
    ]
    if gone:
        stage.ovsdb(node).transact(DATABASE, [*gone, ovs_view.BUMP], timeout=CALL)


def _hand_over(stage: Stage, namespace: str, name: str) -> float | None:
    """The guest's memory has been copied: from here on it runs on the target."""
    ref = Ref(KUBEVIRT, "VirtualMachineInstance", name, namespace)
    vmi = stage.cluster.get(ref)
    move = ((vmi or {}).get("status", {}).get("migrationState")) or {}
    if not move.get("startTimestamp") or move.get("targetNodeDomainDetected") or move.get("completed"):
        return None
    due = datetime.fromisoformat(move["startTimestamp"]).timestamp() + stage.settings.migration
    if stage.clock.now() < due:
        return due
    stage.cluster.write(MergePatch(ref, {"status": {"migrationState": {"targetNodeDomainDetected": True}}}))
    return None
