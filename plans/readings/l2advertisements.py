"""Reading MetalLB's L2Advertisements.

Facts: `cluster/l2advertisements` (Absent when MetalLB is not served); for each `l2advertisement/<ns>/<name>` (its uid, who
keeps it) and `/interfaces`; read alone also `/version`. The one invariant: no interfaces means all of them, and is
a list of none here, never Absent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plans.facts import ABSENT, Fact, Json, Known
from plans.ops import ListRequest
from plans.readings.nmstate import owner

ADVERTISEMENT = ("metallb.io/v1beta1", "L2Advertisement")
REQUEST = ListRequest(*ADVERTISEMENT, keep=("metadata", "spec.interfaces"), optional=True)


def request_of(key: str) -> ListRequest:
    """One L2Advertisement."""
    namespace, _, name = key.partition("/")
    return ListRequest(
        *ADVERTISEMENT, keep=REQUEST.keep, namespace=namespace, fields=(("metadata.name", name),)
    )


def parse_advertisements(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """Every L2Advertisement of the cluster."""
    facts: dict[str, Fact] = {"l2advertisement/*": ABSENT}
    if replies[0] is None:
        return {**facts, "cluster/l2advertisements": ABSENT}
    for item in replies[0]:
        facts.update(_facts_of(_key(item), item))
    facts["cluster/l2advertisements"] = Known(sorted(_key(item) for item in replies[0]))
    return facts


def parse_one_advertisement(key: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """One L2Advertisement, and its version."""
    at = f"l2advertisement/{key}"
    facts: dict[str, Fact] = {at: ABSENT, f"{at}/*": ABSENT}
    for item in replies[0]:
        facts.update(_facts_of(key, item))
        facts[f"{at}/version"] = Known(item["metadata"].get("resourceVersion"))
    return facts


def _key(item: Mapping[str, Any]) -> str:
    return f"{item['metadata']['namespace']}/{item['metadata']['name']}"


def _facts_of(key: str, item: Mapping[str, Any]) -> dict[str, Fact]:
    metadata = item["metadata"]
    return {
        f"l2advertisement/{key}": Known({"uid": metadata.get("uid", ""), "keeper": owner(metadata)}),
        f"l2advertisement/{key}/interfaces": Known(list((item.get("spec") or {}).get("interfaces") or ())),
    }
