"""Exports: policies as they were before a run, out of its before-images, and as somebody puts them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plans.nmstate.policies import POLICY

MADE_BY_PEOPLE = ("name", "labels", "annotations")
"""What of an object's metadata is its maker's; the rest is the API server's."""

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def policies_in(image: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The policies in a before-image, by name, each as a manifest."""
    found: dict[str, dict[str, Any]] = {}
    for one in image.get("raw", ()):
        request = one["request"]
        if (request.get("api"), request.get("kind")) == POLICY:
            found |= {item["metadata"]["name"]: manifest(item) for item in one["reply"] or ()}
    return found


def manifest(policy: Mapping[str, Any]) -> dict[str, Any]:
    """A policy as `oc create -f` and `oc replace -f` take it: without what the API server and the operator wrote."""
    metadata = {key: policy["metadata"][key] for key in MADE_BY_PEOPLE if policy["metadata"].get(key)}
    notes = {k: v for k, v in metadata.pop("annotations", {}).items() if not _is_operators(k)}
    return {
        "apiVersion": POLICY[0],
        "kind": POLICY[1],
        "metadata": {**metadata, **({"annotations": notes} if notes else {})},
        "spec": policy["spec"],
    }


def _is_operators(annotation: str) -> bool:
    return annotation.startswith("nmstate.io/") or annotation == LAST_APPLIED
