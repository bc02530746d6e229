"""Kubelet, CNI and QEMU for pods on networks: ports on real nodes follow the pods of the twin's API.

Invariant: level-triggered. Every pass compares what the API says with what was plugged, so a kubelet that was
away catches up, and one that comes twice does nothing the second time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.ports import Body, Cluster, Conflict, MergePatch, NotFound, PortError, Ref

from . import inventory
from .inventory import Pod
from .netns import LabError
from .wiring import Wiring, arp_request, gateway, send

_TALK_EVERY = 1.0
_RETRY = 0.2


@dataclass
class Kubelet:
    """Plays all nodes' kubelets. `migration_seconds` is how long a guest's memory takes to be copied."""

    cluster: Cluster
    wiring: Wiring
    migration_seconds: float
    _held: dict[str, Pod] = field(default_factory=dict)
    _copies: dict[str, float] = field(default_factory=dict)
    _next_talk: float = 0.0

    def run(self, until: Callable[[], bool]) -> None:
        """Pass after pass until told to stop, each as soon as a pod changes, a copy is done or a guest may speak."""
        self.wiring.clear(self.wiring.spec.nodes, self._look()[1].values())
        while not until():
            try:
                since = self.once()
                next(self.cluster.watch("v1", "Pod", since=since, timeout=self._idle()), None)
            except (LabError, PortError) as exc:
                # A frozen or restarted daemon, an API server on its way up: a real kubelet says so and tries again.
                print(f"kubelet: {exc}", flush=True)
                time.sleep(_RETRY)

    def once(self) -> str:
        """One pass; returns the version of the pods it saw."""
        vmis, pods, version = self._look()
        for key in sorted(self._held.keys() - pods.keys()):
            self.wiring.unplug(self._held.pop(key))
        for key, pod in pods.items():
            if key not in self._held:
                self._start(pod)
        for vm, vmi in vmis.items():
            self._copy(vm, vmi, pods)
        self._talk(vmis, pods)
        return version

    def _look(self) -> tuple[dict[str, Body], dict[str, Pod], str]:
        # The pods first: what changes while the rest is read is then seen by the watch.
        version = self.cluster.list("v1", "Pod").resource_version
        vmis = inventory.instances(self.cluster)
        return vmis, inventory.pods(self.cluster, vmis, inventory.networks(self.cluster)), version

    def _idle(self) -> float:
        """Seconds until something is to be done without being asked."""
        due = [self._next_talk, *(started + self.migration_seconds for started in self._copies.values())]
        return min(_TALK_EVERY, max(0.0, min(due) - time.monotonic()))

    def _start(self, pod: Pod) -> None:
        """Plug the pod and report it. Unless it is a migration's target, its guest runs here from now on."""
        self.wiring.add_switches(pod.nics)
        self.wiring.add_guest(pod)
        self.wiring.plug(pod)
        if pod.phase == "Pending":
            if pod.vm and not pod.migration:
                self.wiring.activate(pod, ())
            self._report_running(pod)
        self._held[pod.key] = pod

    def _copy(self, vm: str, vmi: Body, pods: Mapping[str, Pod]) -> None:
        """Move the guest when its memory has been copied: first the hand-over, then the word to the API."""
        state = vmi.get("status", {}).get("migrationState") or {}
        uid = state.get("migrationUid", "")
        if not uid or state.get("completed") or state.get("failed") or state.get("targetNodeDomainDetected"):
            self._copies.pop(vm, None)
            return
        target = next((pod for pod in pods.values() if pod.migration == uid), None)
        if target is None or target.key not in self._held:
            return
        started = self._copies.setdefault(vm, time.monotonic())
        if time.monotonic() >= started + self.migration_seconds:
            others = [pod for pod in pods.values() if pod.vm == vm and pod.key != target.key]
            self.wiring.activate(target, others)
            self._patch(Ref(*inventory.VMI, vm.split("/")[1], vm.split("/")[0]), _DETECTED)

    def _report_running(self, pod: Pod) -> None:
        ref = Ref("v1", "Pod", pod.name, pod.namespace)
        body = self.cluster.get(ref)
        if body is None:
            return
        kept = [each for each in body.get("status", {}).get("conditions", []) if each["type"] != "Ready"]
        conditions = [*kept, {"type": "Ready", "status": "True"}]
        self._patch(ref, {"status": {"phase": "Running", "conditions": conditions}}, "status")

    def _patch(self, ref: Ref, patch: Mapping[str, Any], subresource: str = "") -> None:
        try:
            self.cluster.write(MergePatch(ref, patch, subresource=subresource))
        except (Conflict, NotFound):
            # Deleted or changed under us; the next pass sees what is there now.
            return

    def _talk(self, vmis: Mapping[str, Body], pods: Mapping[str, Pod]) -> None:
        """A guest that is not silent says something every second, so that the switch never forgets it."""
        if time.monotonic() < self._next_talk:
            return
        self._next_talk = time.monotonic() + _TALK_EVERY
        for vm in vmis:
            pod = next((pod for pod in pods.values() if pod.vm == vm and pod.key in self._held), None)
            if pod is None or self.wiring.spec.silent.get(vm, False):
                continue
            for nic in pod.nics:
                question = arp_request(nic.mac, self.wiring.address(vm, nic), gateway(nic.vlan))
                send(self.wiring.place.guest(vm), nic.guest, question)


_DETECTED = {"status": {"migrationState": {"targetNodeDomainDetected": True}}}
