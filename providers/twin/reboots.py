"""Nodes as the cluster sees them, and their reboots: whether kubelets are heard, what a reboot takes and brings back.

Invariant: a node is lost `GRACE` seconds after its kubelet fell silent, and no sooner: a fast reboot never shows it.
What is in a node's database or in NetworkManager's profiles survives a reboot; what only ran does not: pods and their
ports, flows, forwarding tables, OVN's patch ports, what nmstate had begun, and guests.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Any

from providers.ports import Body, MergePatch, NotServed, Ref
from providers.twin import forwarding, networkmanager, ovs_view
from providers.twin.kube import stamp
from providers.twin.launchers import LAUNCHER
from providers.twin.networks import IFACE_ID, KUBEVIRT, LOCALNET_PORT, running_on
from providers.twin.nmstate_operator import QUEUES, NmstateOperator
from providers.twin.node_leases import STOPPED
from providers.twin.ovn_controller import OvnController
from providers.twin.ovs_view import CALL, DATABASE, INTEGRATION
from providers.twin.stage import DOWN, UNITS, Stage
from providers.twin.vswitchd import Vswitchd

GRACE = 40.0
"""Seconds of silence after which a node counts as lost (node-monitor-grace-period)."""

KUBELET = "kubelet"
_RUNTIME = (forwarding.TABLE, forwarding.FLOWS, Vswitchd.name, QUEUES)
_VMI = "VirtualMachineInstance"


def ask(stage: Stage, node: str) -> None:
    """`systemctl reboot`: the node goes down as soon as this is answered."""
    if stage.recall(DOWN, node) is None:
        now = stage.clock.now()
        stage.keep(DOWN, node, {"since": now, "until": now + stage.settings.reboot})
        stage.remind(KUBELET, f"down {node}", now)


def go_down(stage: Stage, node: str) -> None:
    """Nothing runs on the node any more, guests neither."""
    down = stage.recall(DOWN, node)
    stage.keep(STOPPED, node, down["since"])
    stage.remind(KUBELET, f"heard {node}", down["since"] + GRACE)
    with suppress(NotServed):
        for vmi in stage.cluster.list(KUBEVIRT, _VMI).items:
            if running_on(vmi) == node:
                _kill(stage, vmi)
    for pod in _pods(stage, node):
        if pod["metadata"].get("labels", {}).items() >= LAUNCHER.items():
            _set_pod(stage, pod, "False", {"phase": "Failed"})
    stage.remind(KUBELET, f"up {node}", down["until"])


def come_up(stage: Stage, node: str) -> None:
    """The node has booted: its daemons start from what is on its disk, and its kubelet speaks under a new boot id."""
    for memory in (DOWN, STOPPED, *_RUNTIME):
        stage.keep(memory, node, None)
    for unit in [key for key in stage.remembered(UNITS) if key.startswith(f"{node} ")]:
        stage.keep(UNITS, unit, None)
    kept = networkmanager.recall(stage, node)
    if kept["bridges"]:
        fresh: dict[str, Any] = {"jobs": {}, "checkpoint": None, "lost": None, "undone": None}
        stage.keep(networkmanager.NAME, node, {**kept, **fresh})
    now = stage.clock.now()
    stage.keep(OvnController.name, node, {"started": now, "claims": {}, "local": {}})
    _start_switch(stage, node, now)
    have = stage.cluster.get(Ref("v1", "Node", node)) or {}
    before = have.get("status", {}).get("nodeInfo", {}).get("bootID") or str(uuid.UUID(int=0))
    boot = {"nodeInfo": {"bootID": str(uuid.uuid5(uuid.UUID(before), node))}}
    settings = stage.settings
    if settings.node_ready:
        set_ready(stage, node, "False", "KubeletNotReady", boot)
        stage.remind(KUBELET, f"ready {node}", now + settings.node_ready)
    else:
        set_ready(stage, node, "True", "KubeletReady", boot)
    for pod in _pods(stage, node):
        _set_pod(stage, pod, "False")
    stage.remind(KUBELET, f"pods {node}", now + settings.node_ready + settings.pods_ready)


def get_ready(stage: Stage, node: str) -> None:
    """The kubelet finds that everything that it needs is there."""
    if stage.recall(STOPPED, node) is None:
        set_ready(stage, node, "True", "KubeletReady")


def start_pods(stage: Stage, node: str) -> None:
    """The node's pods run again, the handler of nmstate among them: it takes up every policy."""
    for pod in _pods(stage, node):
        _set_pod(stage, pod, "True")
    stage.remind(NmstateOperator.name, f"restart {node}", stage.clock.now())


def _start_switch(stage: Stage, node: str, now: float) -> None:
    """The ports of pods went with their pods; OVN makes its own anew, and writes down when it began."""
    ovsdb = stage.ovsdb(node)
    view = ovs_view.read(ovsdb)
    gone = [
        ovs_view.remove_port(bridge, port)
        for bridge in view.bridges.values()
        for port in bridge.ports.values()
        if LOCALNET_PORT in port.external_ids or any(IFACE_ID in i.external_ids for i in port.interfaces)
    ]
    began = ["map", [["ovn-startup-ts", str(int(now * 1000))]]]
    stamps = [
        ["external_ids", "delete", ["set", ["ovn-startup-ts"]]],
        ["external_ids", "insert", began],
    ]
    where = [["name", "==", INTEGRATION]]
    noted = {"op": "mutate", "table": "Bridge", "where": where, "mutations": stamps}
    ovsdb.transact(DATABASE, [*gone, noted, ovs_view.BUMP], timeout=CALL)


def _kill(stage: Stage, vmi: Body) -> None:
    metadata = vmi["metadata"]
    others = [c for c in vmi["status"].get("conditions") or () if c["type"] != "Ready"]
    ended = {"type": "Ready", "status": "False", "reason": "GuestNotRunning"}
    status = {"phase": "Failed", "conditions": [*others, ended]}
    stage.cluster.write(
        MergePatch(Ref(KUBEVIRT, _VMI, metadata["name"], metadata["namespace"]), {"status": status})
    )


def _pods(stage: Stage, node: str) -> list[Body]:
    """The pods that the node's kubelet keeps running."""
    found = stage.cluster.list("v1", "Pod", fields={"spec.nodeName": node}).items
    return [pod for pod in found if pod.get("status", {}).get("phase") == "Running"]


def _set_pod(stage: Stage, pod: Body, ready: str, more: Body | None = None) -> None:
    metadata, status = pod["metadata"], pod.get("status", {})
    others = [c for c in status.get("conditions") or () if c["type"] != "Ready"]
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": stamp(stage.clock.now())}
    patch = {"status": {"conditions": [*others, condition], **(more or {})}}
    ref = Ref("v1", "Pod", metadata["name"], metadata["namespace"])
    stage.cluster.write(MergePatch(ref, patch, subresource="status"))


def judge(stage: Stage, node: str) -> float | None:
    """What the cluster makes of a kubelet's silence, and of hearing it again; returns when to judge anew."""
    stopped, now = stage.recall(STOPPED, node), stage.clock.now()
    have = stage.cluster.get(Ref("v1", "Node", node))
    if have is None:
        return None
    if stopped is None:
        if ready_of(have).get("status") == "Unknown":
            set_ready(stage, node, "True", "KubeletReady")
        return None
    if now < stopped + GRACE:
        return float(stopped + GRACE)
    if ready_of(have).get("status") != "Unknown":
        set_ready(stage, node, "Unknown", "NodeStatusUnknown")
        for pod in _pods(stage, node):
            _set_pod(stage, pod, "False")
    return None


def ready_of(body: Body) -> dict[str, Any]:
    """The Ready condition of a node or a pod; empty when it has none."""
    conditions = body.get("status", {}).get("conditions") or ()
    return next((dict(c) for c in conditions if c["type"] == "Ready"), {})


def set_ready(stage: Stage, node: str, status: str, reason: str, more: Body | None = None) -> None:
    """Write the node's Ready condition, and `more` of its status, at one go. Unknown is said without the kubelet."""
    ref = Ref("v1", "Node", node)
    have = stage.cluster.get(ref) or {}
    now = stamp(stage.clock.now())
    before = ready_of(have)
    ready = {"type": "Ready", "status": status, "reason": reason, "lastTransitionTime": now}
    heard = before.get("lastHeartbeatTime") if status == "Unknown" else now
    if heard:
        ready["lastHeartbeatTime"] = heard
    others = [c for c in have.get("status", {}).get("conditions") or () if c["type"] != "Ready"]
    patch = {"status": {"conditions": [*others, ready], **(more or {})}}
    stage.cluster.write(MergePatch(ref, patch, subresource="status"))
