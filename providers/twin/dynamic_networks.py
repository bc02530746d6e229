"""multus-dynamic-networks-controller: it plugs cards into pods that run, and unplugs them, as their annotation changes.

Invariant: it only touches ports of the pod whose annotation it read. A cluster need not have it, and OpenShift has not:
a world has it when its file says so (`controllers: {dynamic-networks: on}`).
"""

from __future__ import annotations

from collections.abc import Iterable

from providers.ports import MergePatch, Ref
from providers.twin import kubelet, multus
from providers.twin.stage import Change, Settings, Stage


class DynamicNetworks:
    name = "dynamic-networks"

    def keys(self, change: Change, settings: Settings) -> Iterable[tuple[str, float]]:
        body = change.body or {}
        if change.kind == "Pod" and not change.deleted and body.get("status", {}).get("phase") == "Running":
            yield f"{change.namespace} {change.name}", 0.0

    def reconcile(self, stage: Stage, key: str) -> float | None:
        namespace, name = key.split(" ")
        ref = Ref("v1", "Pod", name, namespace)
        pod = stage.cluster.get(ref)
        made = multus.made_for(pod) if pod is not None else None
        if pod is None or made is None:
            return None
        asked = multus.asked_for(pod)
        new, gone = [c for c in asked if c not in made], [c for c in made if c not in asked]
        if new or gone:
            kubelet.unplug_cards(stage, pod, gone)
            kubelet.plug(stage, pod, new)
            note = {"metadata": {"annotations": {multus.MADE: multus.saying(asked)}}}
            stage.cluster.write(MergePatch(ref, note))
        return None
