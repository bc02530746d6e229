"""The kubelet of every node, with virt-handler and the CNI plugin: what happens on the node a pod is put on.

Invariant: a pod's ports are on br-int of its node from just before it is Running until it is deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import count
from typing import Any

from providers.ports import AlreadyExists, Body, Create, MergePatch, Ref
from providers.twin import multus, ovs_view, reboots
from providers.twin.multus import Card
from providers.twin.networks import IFACE_ID, KUBEVIRT, MAC, NAD_API, VM, network_of
from providers.twin.ovs_view import CALL, DATABASE, INTEGRATION
from providers.twin.stage import Change, Settings, Stage

VM_NAME = "vm.kubevirt.io/name"
_OPEN_TO_ALL = ("default", "openshift-multus", "openshift-sriov-network-operator", "openshift-cnv")


LIFE: Mapping[str, Callable[[Stage, str], float | None]] = {
    "heard": reboots.judge,
    "down": reboots.go_down,
    "up": reboots.come_up,
    "ready": reboots.get_ready,
    "pods": reboots.start_pods,
}
"""What becomes of a node, by the first word of the key."""


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
        if change.kind == "NetworkAttachmentDefinition" and not change.deleted:
            yield "networks", 0.0
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
        elif what == "networks":
            _start_waiting(stage)
        elif what in LIFE:
            return LIFE[what](stage, *rest)
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
    if (gone := multus.missing(stage.cluster, multus.asked_for(pod))) is not None:
        _report_no_network(stage, pod, gone)
        return
    cards = _with_addresses(pod)
    plug(stage, pod, cards)
    stage.cluster.write(MergePatch(ref, {"metadata": {"annotations": {multus.MADE: multus.saying(cards)}}}))
    ready = {"type": "Ready", "status": "True"}
    conditions = [c for c in pod["status"].get("conditions", ()) if c["type"] != "Ready"]
    status = {"phase": "Running", "conditions": [*conditions, ready]}
    stage.cluster.write(MergePatch(ref, {"status": status}, subresource="status"))


def _start_waiting(stage: Stage) -> None:
    """There is a NAD more: a pod that is not up yet may have waited for it."""
    for pod in stage.cluster.list("v1", "Pod").items:
        if pod["spec"].get("nodeName") and pod.get("status", {}).get("phase") == "Pending":
            _start(stage, pod["metadata"]["namespace"], pod["metadata"]["name"])


def _foreign_network(pod: Body) -> str | None:
    """The namespace of a NAD that multus does not give to pods of this one."""
    own = pod["metadata"]["namespace"]
    spaces = [card.nad.partition("/")[0] for card in multus.asked_for(pod)]
    return next((space for space in spaces if space not in (own, *_OPEN_TO_ALL)), None)


def _report_isolation(stage: Stage, pod: Body, foreign: str) -> None:
    metadata = pod["metadata"]
    own = metadata["namespace"]
    why = (
        "namespace isolation enabled, annotation violates permission, "
        f"pod is in namespace {own} but refers to target namespace {foreign}"
    )
    _warn(stage, pod, "sandbox", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {why}")


def _report_no_network(stage: Stage, pod: Body, nad: str) -> None:
    """What Multus and the kubelet say of a pod on a NAD that is not there: its containers are not made until it is."""
    space, _, name = nad.partition("/")
    why = (
        f"cannot find a network-attachment-definition ({name}) in namespace ({space}): "
        f'network-attachment-definitions.k8s.cni.cncf.io "{name}" not found'
    )
    _warn(stage, pod, "network", "NoNetworkFound", why)
    _warn(stage, pod, "sandbox", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {why}")


def _warn(stage: Stage, pod: Body, word: str, reason: str, message: str) -> None:
    metadata = pod["metadata"]
    own = metadata["namespace"]
    body = {
        "type": "Warning",
        "reason": reason,
        "message": message,
        "involvedObject": {"kind": "Pod", "namespace": own, "name": metadata["name"], "uid": metadata["uid"]},
    }
    with suppress(AlreadyExists):
        stage.cluster.write(Create(Ref("v1", "Event", f"{metadata['name']}.{word}", own), body))


def _with_addresses(pod: Body) -> tuple[Card, ...]:
    """The cards that a pod asks for. One for which it names no address gets one that only depends on pod and NAD."""
    uid = pod["metadata"]["uid"]

    def address(card: Card) -> str:
        digest = hashlib.sha256(f"{uid}/{card.nad}".encode()).digest()
        return ":".join(f"{byte:02x}" for byte in (0x0A, 0x58, *digest[:4]))

    return tuple(Card(c.nad, c.interface, c.mac or address(c)) for c in multus.asked_for(pod))


def _marks(stage: Stage, pod: Body, card: Card) -> dict[str, str] | None:
    """What the CNI plugin writes on the port of a card; None when its NAD makes no localnet network."""
    metadata = pod["metadata"]
    space, _, name = card.nad.partition("/")
    nad = stage.cluster.get(Ref(NAD_API, "NetworkAttachmentDefinition", name, space))
    network = network_of(nad) if nad is not None else None
    if network is None:
        return None
    vm = metadata.get("labels", {}).get(VM_NAME)
    marks = {IFACE_ID: f"{network.prefix}{metadata['namespace']}_{metadata['name']}", MAC: card.mac}
    return {**marks, VM: f"{metadata['namespace']}/{vm}"} if vm else marks


def plug(stage: Stage, pod: Body, cards: Sequence[Card]) -> None:
    """Add a port to br-int for each of a pod's cards that is on a localnet network."""
    marked = [marks for card in cards if (marks := _marks(stage, pod, card)) is not None]
    if not marked:
        return
    digest = hashlib.sha256(pod["metadata"]["uid"].encode()).hexdigest()[:12]
    bridge = ovs_view.read(stage.ovsdb(pod["spec"]["nodeName"])).bridges.get(INTEGRATION)
    taken = set(bridge.ports) if bridge else set()
    names = (name for number in count(1) if (name := f"{digest}_{number}") not in taken)
    operations: list[dict[str, Any]] = []
    for port, marks in zip(names, marked, strict=False):
        row = {"name": port, "external_ids": ["map", [[key, value] for key, value in marks.items()]]}
        operations += ovs_view.insert_port(INTEGRATION, port, [row])
    _change(stage, pod["spec"]["nodeName"], operations)


def unplug_cards(stage: Stage, pod: Body, cards: Sequence[Card]) -> None:
    """Take the ports of some of a pod's cards off br-int."""
    gone = {marks[IFACE_ID] for card in cards if (marks := _marks(stage, pod, card)) is not None}
    _remove(stage, pod["spec"]["nodeName"], lambda port: port in gone)


def unplug(stage: Stage, node: str, namespace: str, name: str) -> None:
    """Take a deleted pod's ports off br-int."""
    _remove(stage, node, lambda port: port.endswith(f"_{namespace}_{name}"))


def _remove(stage: Stage, node: str, is_gone: Callable[[str], bool]) -> None:
    """Take the ports off br-int whose names in OVN are gone."""
    bridge = ovs_view.read(stage.ovsdb(node)).bridges.get(INTEGRATION)
    if bridge is None:
        return
    gone = [
        ovs_view.remove_port(bridge, port)
        for port in bridge.ports.values()
        if any(is_gone(iface.external_ids.get(IFACE_ID, "")) for iface in port.interfaces)
    ]
    _change(stage, node, gone)


def _change(stage: Stage, node: str, operations: Sequence[dict[str, Any]]) -> None:
    if operations:
        stage.ovsdb(node).transact(DATABASE, [*operations, ovs_view.BUMP], timeout=CALL)


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
