"""Reading one node around its reboot: which boot it is in, whether it is up, its daemons, and what its handler applied.

Facts: `node/<n>/boot/id`, `/note` (what a run wrote on the node before it asked for the reboot), `/heard` (when its
kubelet was heard last), `/state` (`up`, or what is missing), `/schedulable` (KubeVirt's word), `/version`;
`node/<n>/daemons` (the daemons that have a pod there), `node/<n>/daemon/<name>` → since when it is Ready;
`node/<n>/enacted` (the policies whose enactment is Available at its generation), `node/<n>/enacted/<policy>` → since
when; `node/<n>/enacting` (`policy: state` of the others). Times are seconds since the epoch by the node's own clock.
Invariant: what was Ready or Available before the reboot counts for nothing after it: times tell the two apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from plans.facts import ABSENT, Fact, Json, Known
from plans.nmstate.enactments import ENACTMENT
from plans.nmstate.policies import POLICY
from plans.ops import ListRequest
from plans.readings import nmstate
from plans.readings.kubelets import LEASE, LEASE_KEEP, NAMESPACE, heartbeat, instant, ready_condition, renewal
from plans.readings.maintenance import POD
from plans.readings.reply import NoReply

NOTE = "ovsplan.io/reboot"
"""The annotation on a node that a run reboots: {"boot": the boot id before, "heard": , "run": }."""

SCHEDULABLE = "kubevirt.io/schedulable"
UP = "up"

_DAEMONS = (
    ("app", "ovnkube-node"),
    ("app", "multus"),
    ("component", "kubernetes-nmstate-handler"),
    ("kubevirt.io", "virt-handler"),
)
"""The pods without which a node carries no VM, by label; each has the name of its label's value."""

_NODE_KEEP = (
    "metadata.name",
    "metadata.labels",
    "metadata.annotations",
    "metadata.resourceVersion",
    "status.nodeInfo",
    "status.conditions",
)
_POD_KEEP = (
    *("metadata.name", "metadata.labels", "metadata.ownerReferences"),
    *("status.conditions", "status.containerStatuses"),
)


def lease_request(node: str) -> ListRequest:
    """The Lease of one node's kubelet."""
    return ListRequest(*LEASE, keep=LEASE_KEEP, namespace=NAMESPACE, fields=(("metadata.name", node),))


def boot_requests(node: str) -> tuple[ListRequest, ListRequest]:
    """The node's Lease, and the node: the one to watch comes last."""
    return lease_request(node), ListRequest("v1", "Node", keep=_NODE_KEEP, fields=(("metadata.name", node),))


def parse_boot(node: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """What one node's object and Lease say of its boot. Without a Lease the object alone decides."""
    leases, items = replies
    at = f"node/{node}/boot"
    facts: dict[str, Fact] = {f"{at}/*": ABSENT}
    for item in items:
        metadata = item["metadata"]
        boot = item.get("status", {}).get("nodeInfo", {}).get("bootID")
        note = _note((metadata.get("annotations") or {}).get(NOTE))
        renewed = 0.0 if isinstance(leases, NoReply) else max((renewal(one) for one in leases), default=0.0)
        facts[f"{at}/id"] = Known(boot) if boot else ABSENT
        facts[f"{at}/note"] = Known(note) if note else ABSENT
        facts[f"{at}/heard"] = Known(max(renewed, heartbeat(item)))
        facts[f"{at}/state"] = Known(_state(item, boot, note or {}, renewed))
        facts[f"{at}/version"] = Known(metadata.get("resourceVersion"))
        if (word := (metadata.get("labels") or {}).get(SCHEDULABLE)) is not None:
            facts[f"{at}/schedulable"] = Known(word)
    return facts


def _note(text: str | None) -> dict[str, Any] | None:
    """A note of ours; None for none, and for what somebody else wrote there."""
    try:
        note = json.loads(text or "null")
    except ValueError:
        return None
    return note if isinstance(note, dict) and {"boot", "heard", "run"} <= note.keys() else None


def _state(item: Mapping[str, Any], boot: str | None, note: Mapping[str, Any], renewed: float) -> str:
    """H17: a new boot id, then Ready with a later heartbeat, then a Lease that was renewed since."""
    ready, heard = ready_condition(item), float(note.get("heard", 0.0))
    if boot == note.get("boot"):
        return "it runs as it did before the reboot was asked for"
    if ready.get("status") != "True":
        return f"not Ready: {ready.get('message') or ready.get('reason') or 'it does not say why'}"
    if 0.0 < heartbeat(item) <= heard:
        return "its kubelet has not said since the reboot that it is Ready"
    if 0.0 < renewed <= heard:
        return "its kubelet has not renewed its Lease since the reboot"
    return UP


def daemon_request(node: str) -> ListRequest:
    """The pods of one node."""
    return ListRequest(*POD, keep=_POD_KEEP, fields=(("spec.nodeName", node),))


def parse_daemons(node: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """Which daemons are there, and since when each is Ready; one with a pod that is not Ready is absent."""
    since: dict[str, list[float]] = {}
    for item in replies[0]:
        labels = item["metadata"].get("labels") or {}
        owners = {owner.get("kind") for owner in item["metadata"].get("ownerReferences") or ()}
        for key, name in _DAEMONS:
            if labels.get(key) == name and "DaemonSet" in owners:
                since.setdefault(name, []).append(_since(item))
    at = f"node/{node}/daemon"
    ready = {f"{at}/{name}": Known(min(times)) for name, times in since.items() if min(times) > 0}
    return {f"node/{node}/daemons": Known(sorted(since)), f"{at}/*": ABSENT, **ready}


def _since(pod: Mapping[str, Any]) -> float:
    """Since when a pod is Ready, or all of its containers have run, whichever is later; 0 for one that is not.

    A kubelet that restarts them fast may never say in between that the pod was not Ready.
    """
    ready = ready_condition(pod)
    if ready.get("status") != "True":
        return 0.0
    states = [status.get("state") or {} for status in pod.get("status", {}).get("containerStatuses") or ()]
    started = [instant((state.get("running") or {}).get("startedAt")) for state in states]
    return max(instant(ready.get("lastTransitionTime")), min(started, default=0.0))


def enactment_requests(node: str) -> tuple[ListRequest, ListRequest]:
    """All policies, by name and generation, and the enactments of one node."""
    keep = ("metadata.name", "metadata.generation")
    mine = ListRequest(
        *ENACTMENT, keep=nmstate.ENACTMENT_KEEP, optional=True, labels=(("nmstate.io/node", node),)
    )
    return ListRequest(*POLICY, keep=keep, optional=True), mine


def parse_enactments(node: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """Since when each policy is applied on the node; none where nmstate is not served."""
    policies, enactments = replies
    generations = {p["metadata"]["name"]: p["metadata"].get("generation", 0) for p in policies or ()}
    at, others = f"node/{node}/enacted", []
    facts: dict[str, Fact] = {f"{at}/*": ABSENT}
    for item in enactments or ():
        name = item["metadata"]["labels"]["nmstate.io/policy"]
        status = item.get("status", {})
        if name not in generations:
            continue  # its policy has gone: the operator takes it away
        current = status.get("policyGeneration") == generations[name]
        state = nmstate.state_of(status) if current else "waiting"
        if state == "available":
            facts[f"{at}/{name}"] = Known(_available_since(status))
        else:
            others.append(f"{name}: {state}")
    facts[at] = Known(sorted(path.removeprefix(f"{at}/") for path in facts if not path.endswith("/*")))
    facts[f"node/{node}/enacting"] = Known(sorted(others))
    return facts


def _available_since(status: Mapping[str, Any]) -> float:
    """When the handler last said so: it does after each apply, also when nothing changed (measured)."""
    told = next(c for c in status["conditions"] if c.get("type") == "Available")
    return instant(told.get("lastHeartbeatTime") or told.get("lastTransitionTime"))
