"""The annotations by which a pod asks Multus for cards, and by which Multus says which ones the pod has.

Invariant: what `MADE` lists is on the node; it is written after the ports, by whoever plugged them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from providers.ports import Body, Cluster, Ref
from providers.twin.networks import NAD_API

ASKED = "k8s.v1.cni.cncf.io/networks"
MADE = "k8s.v1.cni.cncf.io/network-status"
_CLUSTER = {"name": "ovn-kubernetes", "interface": "eth0", "default": True, "dns": {}}


@dataclass(frozen=True, slots=True)
class Card:
    """A card of a pod: on which NAD (`namespace/name`), under which name inside the pod."""

    nad: str
    interface: str = ""
    mac: str = ""


def interface_of(network: str) -> str:
    """The card's name inside the launcher pod: KubeVirt's, from the name that the VM gives to the network."""
    return f"pod{hashlib.sha256(network.encode()).hexdigest()[:11]}"


def asked_for(pod: Body) -> tuple[Card, ...]:
    """The cards that a pod asks for, in either of the forms that Multus reads."""
    metadata = pod["metadata"]
    text = metadata.get("annotations", {}).get(ASKED, "")
    if text.lstrip().startswith("["):
        return tuple(
            Card(
                f"{entry.get('namespace') or metadata['namespace']}/{entry['name']}",
                entry.get("interface", ""),
                entry.get("mac", ""),
            )
            for entry in json.loads(text)
        )
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, interface = part.partition("@")
        found.append(Card(name if "/" in name else f"{metadata['namespace']}/{name}", interface))
    return tuple(found)


def missing(cluster: Cluster, cards: Iterable[Card]) -> str | None:
    """The first NAD (`namespace/name`) of these cards that is not there."""
    for card in cards:
        space, _, name = card.nad.partition("/")
        if cluster.get(Ref(NAD_API, "NetworkAttachmentDefinition", name, space)) is None:
            return card.nad
    return None


def asking(cards: Iterable[Card]) -> str:
    """The annotation that asks for cards."""
    return json.dumps([
        {"namespace": space, "name": name, "interface": card.interface, "mac": card.mac}
        for card in cards
        for space, _, name in (card.nad.partition("/"),)
    ])  # fmt: skip


def made_for(pod: Body) -> tuple[Card, ...] | None:
    """The cards that a pod has beside the one on the cluster's network; None while Multus has not said so."""
    text = pod["metadata"].get("annotations", {}).get(MADE)
    if text is None:
        return None
    entries = [entry for entry in json.loads(text) if not entry.get("default")]
    return tuple(Card(entry["name"], entry.get("interface", ""), entry.get("mac", "")) for entry in entries)


def saying(cards: Iterable[Card]) -> str:
    """The annotation that says which cards were made."""
    made = [
        {"name": card.nad, "interface": card.interface, "mac": card.mac, "dns": {}}
        for card in cards
    ]  # fmt: skip
    return json.dumps([_CLUSTER, *made])
