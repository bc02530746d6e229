"""What is kept of an object that a list read. Pure.

Invariant: what an object is called stays, whatever else is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_NAMES = ("name", "namespace", "uid", "resourceVersion")


def pruned(body: Mapping[str, Any], keep: Sequence[str]) -> dict[str, Any]:
    """The object with nothing but these dotted paths, and its names."""
    metadata = body["metadata"]
    kept: dict[str, Any] = {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "metadata": {name: metadata[name] for name in _NAMES if name in metadata},
    }
    for path in keep:
        _copy(path.split("."), body, kept)
    return kept


def _copy(path: Sequence[str], source: Mapping[str, Any], target: dict[str, Any]) -> None:
    first, *rest = path
    found = source.get(first)
    if not rest:
        if first in source:
            target[first] = found
    elif isinstance(found, Mapping):
        _copy(rest, found, target.setdefault(first, {}))
