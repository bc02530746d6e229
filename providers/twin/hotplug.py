"""KubeVirt's network controllers: cards that come into the template of a VM that runs, or are declared absent in it.

The VM's half takes them over into the VMI; the VMI's half asks Multus for them by the launcher pod's annotation,
reports the cards that the guest has, and says that a migration is required when nobody has plugged them in place
within `GRACE`. Invariant: an absent card is taken out of a spec only when nobody reports it any more.
Source: KubeVirt 1.6, pkg/network/controllers, migration and vmliveupdate. `vmRolloutStrategy` has no say in it there,
unlike for CPU and memory; it is up to `workloadUpdateMethods` whether the migration comes by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from providers.ports import Body, MergePatch, NotFound, Ref
from providers.twin import multus
from providers.twin.admission import VMI
from providers.twin.kube import stamp
from providers.twin.launchers import launchers, wanted_cards
from providers.twin.networks import ABSENT, KUBEVIRT, mac_of
from providers.twin.stage import Stage

GRACE = 15.0
"""Seconds for which a card may be plugged in place before a migration is asked for."""

REQUIRED = "MigrationRequired"
_DOMAIN, _MULTUS = "domain", "multus-status"
_HOTPLUGGED = ("bridge", "sriov")


def interfaces_of(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The interfaces of a VM's template, or of a VMI."""
    return [dict(entry) for entry in spec.get("domain", {}).get("devices", {}).get("interfaces") or ()]


def _networks_of(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [dict(entry) for entry in spec.get("networks") or ()]


def _by_name(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in entries}


def restart_required(template: Mapping[str, Any], guest: Mapping[str, Any]) -> bool:
    """Whether a template says of the guest's cards what only a restart brings: one that is gone or changed in place."""
    wanted, have = _by_name(_networks_of(template)), _by_name(_networks_of(guest))
    gained = any("pod" in n for n in wanted.values()) and not any("pod" in n for n in have.values())
    cards = _by_name([{**entry, "state": ""} for entry in interfaces_of(template)])
    now = [{**entry, "state": ""} for entry in interfaces_of(guest)]
    return (
        gained
        or any(cards.get(entry["name"]) != entry for entry in now)
        or any(wanted.get(name) != network for name, network in have.items())
    )


def take_over(stage: Stage, vm: Body, vmi: Body) -> None:
    """The VM's half: new cards, and new states, go into the VMI; what is absent and gone leaves both specs."""
    reported = {entry["name"] for entry in vmi.get("status", {}).get("interfaces", ())}
    template, guest = vm["spec"]["template"]["spec"], vmi["spec"]
    there = _by_name(interfaces_of(guest))
    cards = {name: card for name, card in there.items() if not _is_detached(card, reported)}
    networks = {name: entry for name, entry in _by_name(_networks_of(guest)).items() if name in cards}
    wanted = _by_name(_networks_of(template))
    for card in interfaces_of(template):
        name, state = card["name"], card.get("state", "")
        if name not in there and state != ABSENT and any(kind in card for kind in _HOTPLUGGED):
            cards[name], networks[name] = card, wanted[name]
        elif name in cards and cards[name].get("state", "") not in (state, ABSENT):
            cards[name] = {**cards[name], "state": state}
    _write(stage, Ref(KUBEVIRT, VMI, *_key(vmi)), guest, [*cards.values()], [*networks.values()])
    left = [c for c in interfaces_of(template) if not _is_detached(c, {*reported, *there})]
    names = {card["name"] for card in left}
    ref = Ref(KUBEVIRT, "VirtualMachine", *_key(vm))
    _write(stage, ref, template, left, [n for n in _networks_of(template) if n["name"] in names])


def _key(body: Body) -> tuple[str, str]:
    return body["metadata"]["name"], body["metadata"]["namespace"]


def _is_detached(card: Mapping[str, Any], reported: set[str]) -> bool:
    return card.get("state") == ABSENT and card["name"] not in reported


def _write(
    stage: Stage,
    ref: Ref,
    spec: Mapping[str, Any],
    cards: list[dict[str, Any]],
    networks: list[dict[str, Any]],
) -> None:
    """Write the two lists of a spec, if its interfaces have changed."""
    if cards == interfaces_of(spec):
        return
    lists = {"networks": networks, "domain": {"devices": {"interfaces": cards}}}
    patch = {"spec": lists if ref.kind == VMI else {"template": {"spec": lists}}}
    with suppress(NotFound):
        stage.cluster.write(MergePatch(ref, patch))


def reconcile(stage: Stage, namespace: str, name: str) -> float | None:
    """The VMI's half, once its guest runs; returns the instant at which nobody may plug in place any more."""
    vmi = stage.cluster.get(Ref(KUBEVIRT, VMI, name, namespace))
    if (
        vmi is None
        or vmi.get("status", {}).get("phase") != "Running"
        or vmi["metadata"].get("deletionTimestamp")
    ):
        return None
    pod = _active_pod(stage, vmi)
    made = multus.made_for(pod) if pod is not None else None
    if pod is None or made is None:
        return None
    wanted = wanted_cards(vmi)
    if wanted != multus.asked_for(pod):
        note = {"metadata": {"annotations": {multus.ASKED: multus.asking(wanted)}}}
        stage.cluster.write(MergePatch(Ref("v1", "Pod", pod["metadata"]["name"], namespace), note))
    reported = report(vmi, {card.interface for card in made})
    before = next((c for c in vmi["status"].get("conditions", ()) if c["type"] == REQUIRED), None)
    condition = _required(vmi, reported, before, stage.clock.now())
    others = [c for c in vmi["status"].get("conditions", ()) if c["type"] != REQUIRED]
    status = {"interfaces": reported, "conditions": [*others, *([condition] if condition else [])]}
    if any(vmi["status"].get(field) != value for field, value in status.items()):
        stage.cluster.write(MergePatch(Ref(KUBEVIRT, VMI, name, namespace), {"status": status}))
    if condition is not None and condition["status"] == "False":
        return _since(condition) + GRACE
    return None


def _active_pod(stage: Stage, vmi: Body) -> Body | None:
    """The launcher in which the guest runs."""
    active = vmi["status"].get("activePods", {})
    pods = launchers(stage.cluster, vmi["metadata"]["namespace"], vmi["metadata"]["uid"])
    node = vmi["status"].get("nodeName")
    return next(
        (p for p in pods if p["metadata"]["uid"] in active and p["spec"].get("nodeName") == node), None
    )


def report(vmi: Body, made: set[str]) -> list[dict[str, Any]]:
    """`status.interfaces` while the launcher has the cards `made`: what the guest has, and what it has lost already."""
    multus_networks = {n["name"] for n in vmi["spec"].get("networks", ()) if "multus" in n}
    before = _by_name(list(vmi.get("status", {}).get("interfaces", ())))
    found = []
    for card in interfaces_of(vmi["spec"]):
        name = card["name"]
        plugged = multus.interface_of(name) in made
        if name in multus_networks and not plugged:
            continue
        sources = set(filter(None, before.get(name, {}).get("infoSource", "").split(", "))) - {
            _DOMAIN,
            _MULTUS,
        }
        sources |= ({_MULTUS} if plugged else set()) | (set() if card.get("state") == ABSENT else {_DOMAIN})
        found.append(
            {
                **before.get(name, {}),
                "name": name,
                "mac": mac_of(vmi, name),
                "infoSource": ", ".join(sorted(sources)),
            }
        )
    return found


def _required(
    vmi: Body, reported: list[dict[str, Any]], before: Mapping[str, Any] | None, now: float
) -> dict[str, Any] | None:
    """The condition that the guest has to migrate: True at once or when its grace is over, None when it has not to."""
    have = _by_name(reported)
    missing = [c for c in interfaces_of(vmi["spec"]) if c.get("state") != ABSENT and c["name"] not in have]
    if not missing and not any(_DOMAIN not in entry["infoSource"] for entry in reported):
        return None
    if before is None:
        before = {"type": REQUIRED, "status": "False", "reason": "AutoMigrationPending"}
        before = {**before, "lastTransitionTime": stamp(now)}
    over = any("sriov" in card for card in missing) or now >= _since(before) + GRACE
    if before["status"] == "True" or not over:
        return dict(before)
    return {
        **before,
        "status": "True",
        "reason": "AutoMigrationDueToLiveUpdate",
        "lastTransitionTime": stamp(now),
    }


def _since(condition: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(condition["lastTransitionTime"]).timestamp()
