"""What the API's patches do to plain JSON: RFC 7386 (merge) and RFC 6902 (JSON patch).

Invariant: what is handed in is never altered; every result is a value of its own where it differs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

_MISSING = object()


class Inapplicable(Exception):
    """An operation of a JSON patch does not apply: a failed test, or a path that is not there."""


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386: null deletes, objects merge, everything else replaces."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def json_patch(target: Any, operations: Sequence[Mapping[str, Any]]) -> Any:
    """RFC 6902, in order, all or nothing. Raises Inapplicable."""
    document = copy.deepcopy(target)
    for operation in operations:
        document = _carry_out(document, operation)
    return document


def _carry_out(document: Any, operation: Mapping[str, Any]) -> Any:
    path = _parts(operation.get("path"))
    match operation.get("op"):
        case "test":
            # As the API server's library has it: null is also what a missing path holds.
            if _find(document, path) != operation.get("value"):
                raise Inapplicable(operation["path"])
            return document
        case "add":
            return _put(document, path, copy.deepcopy(operation.get("value")), insert=True)
        case "replace":
            # RFC 6902 wants the target to exist; the API server does not mind.
            return _put(document, path, copy.deepcopy(operation.get("value")), insert=False)
        case "remove":
            _must(document, path)
            return _remove(document, path)
        case "copy" | "move" as op:
            source = _parts(operation.get("from"))
            value = copy.deepcopy(_must(document, source))
            if op == "move":
                document = _remove(document, source)
            return _put(document, path, value, insert=True)
    raise Inapplicable(f"unknown operation {operation.get('op')!r}")


def _parts(pointer: Any) -> list[str]:
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise Inapplicable(f"not a JSON pointer: {pointer!r}")
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _step(value: Any, part: str) -> Any:
    if isinstance(value, Mapping):
        return value.get(part, _MISSING)
    if isinstance(value, list) and part.isdigit() and int(part) < len(value):
        return value[int(part)]
    return _MISSING


def _walk(document: Any, path: Sequence[str]) -> Any:
    for part in path:
        document = _step(document, part)
    return document


def _find(document: Any, path: Sequence[str]) -> Any:
    found = _walk(document, path)
    return None if found is _MISSING else found


def _must(document: Any, path: Sequence[str]) -> Any:
    found = _walk(document, path)
    if found is _MISSING:
        raise Inapplicable("/".join(path))
    return found


def _put(document: Any, path: Sequence[str], value: Any, insert: bool) -> Any:
    if not path:
        return value
    parent, last = _must(document, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list) and _fits(last, len(parent) + insert):
        at = len(parent) if last == "-" else int(last)
        parent[at : at if insert else at + 1] = [value]
    else:
        raise Inapplicable("/".join(path))
    return document


def _fits(part: str, length: int) -> bool:
    return part == "-" or (part.isdigit() and int(part) < length)


def _remove(document: Any, path: Sequence[str]) -> Any:
    if not path:
        raise Inapplicable("the whole document")
    parent = _must(document, path[:-1])
    if isinstance(parent, dict):
        del parent[path[-1]]
    else:
        del parent[int(path[-1])]
    return document
