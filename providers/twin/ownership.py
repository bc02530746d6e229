"""Who owns which field: what server-side apply merges by, as `metadata.managedFields` keeps it.

Invariant: a set of fields is read from and written to the API's own form (FieldsV1). Maps merge key by key; a list is
one value, but for those that the schema calls a map or a set, and, of the built-in kinds, those in `_KEYED`.

Whatever is not an `Apply` is written by one manager, `client`. As long as nobody applies, all fields are its own
anyway: ownership is kept from the first apply on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from providers.twin.kinds import Kind

CLIENT = "client"
Path = tuple[str, ...]
Fields = frozenset[Path]

# The API server fills these in; nobody owns them.
_SYSTEM = frozenset(
    [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "selfLink",
    ]
)
_KEYED: Mapping[str, tuple[str, ...]] = {
    "f:containers": ("name",),
    "f:initContainers": ("name",),
    "f:volumes": ("name",),
    "f:env": ("name",),
    "f:conditions": ("type",),
}


@dataclass(frozen=True, slots=True)
class Owner:
    """One entry of `managedFields`. `operation` is Apply or Update."""

    manager: str
    operation: str
    subresource: str
    fields: Fields
    time: str = ""

    @property
    def identity(self) -> tuple[str, str, str]:
        return self.manager, self.operation, self.subresource


class Shape:
    """How the lists and maps of one kind merge."""

    def __init__(self, kind: Kind) -> None:
        self._schema = kind.schema

    def keys(self, path: Path) -> tuple[str, ...] | None:
        """The keys that tell the items of the list at `path` apart; none of them for a set; None for one value."""
        if path == ("f:metadata", "f:ownerReferences"):
            return ("uid",)
        if path == ("f:metadata", "f:finalizers"):
            return ()
        if self._schema is None:
            return _KEYED.get(path[-1]) if path else None
        schema = self._at(path)
        match schema.get("x-kubernetes-list-type"):
            case "map":
                return tuple(schema["x-kubernetes-list-map-keys"])
            case "set":
                return ()
        return None

    def is_one(self, path: Path) -> bool:
        """Whether the map at `path` is one value."""
        return self._schema is not None and self._at(path).get("x-kubernetes-map-type") == "atomic"

    def _at(self, path: Path) -> Mapping[str, Any]:
        schema: Any = self._schema
        for element in path:
            if element.startswith("f:"):
                inside = schema.get("properties", {})
                schema = inside.get(element[2:], schema.get("additionalProperties", {}))
            else:
                schema = schema.get("items", {})
            if not isinstance(schema, Mapping):
                return {}
        found: Mapping[str, Any] = schema
        return found


def fields_of(body: Mapping[str, Any], shape: Shape) -> Fields:
    """All fields that somebody can own in an object, or in a part of one."""
    found = set(_walk({k: v for k, v in body.items() if k not in ("apiVersion", "kind")}, (), shape))
    return frozenset(path for path in found if path != () and not _is_system(path))


def _is_system(path: Path) -> bool:
    return path[0] == "f:metadata" and (len(path) == 1 or path[1][2:] in _SYSTEM)


def _walk(value: Any, path: Path, shape: Shape) -> Iterator[Path]:
    if isinstance(value, Mapping) and value and not shape.is_one(path):
        for name, item in value.items():
            yield from _walk(item, (*path, f"f:{name}"), shape)
        return
    keys = shape.keys(path) if isinstance(value, list) else None
    if keys is None:
        yield path
        return
    for item in value:
        at = (*path, _element(item, keys))
        yield at
        if isinstance(item, Mapping):
            yield from _walk(item, at, shape)


def _element(item: Any, keys: tuple[str, ...]) -> str:
    if not keys:
        return "v:" + json.dumps(item)
    named = {key: item[key] for key in keys if key in item} if isinstance(item, Mapping) else item
    return "k:" + json.dumps(named, separators=(",", ":"))


def _is_element(item: Any, element: str) -> bool:
    want = json.loads(element[2:])
    if element.startswith("v:"):
        return bool(item == want)
    return isinstance(item, Mapping) and all(item.get(key) == value for key, value in want.items())


def value_at(body: Any, path: Path) -> Any:
    """What stands at `path`, or None."""
    for element in path:
        if element.startswith("f:"):
            body = body.get(element[2:]) if isinstance(body, Mapping) else None
        else:
            items = body if isinstance(body, list) else []
            body = next((item for item in items if _is_element(item, element)), None)
    return body


def without(body: Any, path: Path) -> Any:
    """A copy without what stands at `path`; what is left empty by that goes too."""
    element, rest = path[0], path[1:]
    if element.startswith("f:"):
        name = element[2:]
        if not isinstance(body, Mapping) or name not in body:
            return body
        inner = without(body[name], rest) if rest else None
        kept = {key: value for key, value in body.items() if key != name}
        return kept if inner in (None, {}, []) else {**body, name: inner}
    if not isinstance(body, list):
        return body
    if not rest:
        return [item for item in body if not _is_element(item, element)]
    return [without(item, rest) if _is_element(item, element) else item for item in body]


def overlay(live: Any, wanted: Any, shape: Shape, path: Path = ()) -> Any:
    """`live` with all that `wanted` says."""
    if isinstance(wanted, Mapping) and isinstance(live, Mapping) and not shape.is_one(path):
        added = {
            key: overlay(live.get(key), value, shape, (*path, f"f:{key}")) for key, value in wanted.items()
        }
        return {**live, **added}
    keys = shape.keys(path) if isinstance(wanted, list) and isinstance(live, list) else None
    if keys is None:
        return wanted
    merged = list(live)
    for item in wanted:
        element = _element(item, keys)
        at = next((n for n, have in enumerate(merged) if _is_element(have, element)), None)
        if at is None:
            merged.append(item)
        else:
            merged[at] = overlay(merged[at], item, shape, (*path, element))
    return merged


def owners_of(body: Mapping[str, Any]) -> list[Owner]:
    return [
        Owner(
            entry["manager"],
            entry["operation"],
            entry.get("subresource", ""),
            frozenset(_decode(entry.get("fieldsV1", {}), ())),
            entry.get("time", ""),
        )
        for entry in body.get("metadata", {}).get("managedFields", ())
    ]


def entries(owners: list[Owner], api: str) -> list[dict[str, Any]]:
    """`managedFields` for these owners; those who own nothing are not in it."""
    return [
        {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": api,
            "time": owner.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _encode(owner.fields),
            **({"subresource": owner.subresource} if owner.subresource else {}),
        }
        for owner in sorted(owners, key=lambda owner: (owner.operation, owner.manager, owner.subresource))
        if owner.fields
    ]


def _encode(fields: Fields) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    branching = {path[:length] for path in fields for length in range(1, len(path))}
    for path in sorted(fields):
        branch = tree
        for element in path:
            branch = branch.setdefault(element, {})
        if path in branching:
            branch["."] = {}
    return tree


def _decode(tree: Mapping[str, Any], path: Path) -> Iterator[Path]:
    if path and (not tree or "." in tree):
        yield path
    for element, inner in tree.items():
        if element != ".":
            yield from _decode(inner, (*path, element))


def shown(path: Path) -> str:
    """A field as messages name it: `.spec.maxUnavailable`, `.spec.containers[name="a"].image`."""
    parts = []
    for element in path:
        inside = json.loads(element[2:]) if not element.startswith("f:") else None
        if inside is None:
            parts.append(f".{element[2:]}")
        elif element.startswith("k:"):
            parts.append("[" + ",".join(f"{key}={json.dumps(value)}" for key, value in inside.items()) + "]")
        else:
            parts.append(f"[={json.dumps(inside)}]")
    return "".join(parts)


def taken_over(
    owners: list[Owner], by: Owner, before: Mapping[str, Any], after: Mapping[str, Any], shape: Shape
) -> list[Owner]:
    """The owners after `by` wrote `after` by something else than an apply: what changed is its own now."""
    had, has = fields_of(before, shape), fields_of(after, shape)
    changed = frozenset(path for path in has if value_at(before, path) != value_at(after, path))
    lost = (had - has) | changed
    kept = [_with(owner, owner.fields - lost) for owner in owners if owner.identity != by.identity]
    mine = next((owner for owner in owners if owner.identity == by.identity), None)
    fields = ((mine.fields - lost) if mine else frozenset()) | changed
    if mine is not None and fields == mine.fields and not changed:
        return [*kept, mine]
    return [*kept, _with(by, fields)]


def _with(owner: Owner, fields: Fields) -> Owner:
    return Owner(owner.manager, owner.operation, owner.subresource, fields, owner.time)


def first_owners(body: Mapping[str, Any], kind: Kind, shape: Shape) -> list[Owner]:
    """The owners of an object that nobody has applied yet: `client`, of everything."""
    fields = fields_of(body, shape)
    status = frozenset(path for path in fields if path[0] == "f:status") if kind.status else frozenset()
    time = str(body.get("metadata", {}).get("creationTimestamp", ""))
    return [
        Owner(CLIENT, "Update", "", fields - status, time),
        Owner(CLIENT, "Update", "status", status, time),
    ]


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply comes to. `conflicts`: the fields that other owners hold with another value, by owner."""

    body: dict[str, Any]
    owners: list[Owner]
    conflicts: list[tuple[Owner, list[Path]]]


def apply(
    live: Mapping[str, Any], wanted: Mapping[str, Any], owners: list[Owner], by: Owner, shape: Shape
) -> Applied:
    """Server-side apply of `wanted`, all that the owner `by` wants, to `live`."""
    fields = fields_of(wanted, shape)
    mine = next((owner for owner in owners if owner.identity == by.identity), None)
    others = [owner for owner in owners if owner.identity != by.identity]
    body: dict[str, Any] = overlay(live, wanted, shape)
    held = frozenset().union(*(owner.fields for owner in others))
    for path in sorted((mine.fields if mine else frozenset()) - fields - held, key=len, reverse=True):
        if not _covers(path, fields | held):
            body = without(body, path)
    disputed = []
    for owner in others:
        paths = [p for p in sorted(owner.fields & fields) if value_at(live, p) != value_at(body, p)]
        if paths:
            disputed.append((owner, paths))
    lost = frozenset(path for _, paths in disputed for path in paths)
    left = [_with(owner, owner.fields - lost) for owner in others]
    unchanged = mine is not None and mine.fields == fields
    me = mine if mine is not None and unchanged else _with(by, fields)
    return Applied(body, [*left, me], disputed)


def _covers(path: Path, fields: Fields) -> bool:
    """Whether something inside `path` is still wanted by somebody."""
    return any(other[: len(path)] == path for other in fields)


def conflict_text(conflicts: list[tuple[Owner, list[Path]]], said: Callable[[Owner], str]) -> str:
    """The server's words for an apply that was not forced."""
    count = sum(len(paths) for _, paths in conflicts)
    if count == 1:
        owner, (path,) = conflicts[0]
        return f"Apply failed with 1 conflict: conflict with {said(owner)}: {shown(path)}"
    lines = []
    for owner, paths in conflicts:
        lines.append(f"conflicts with {said(owner)}:")
        lines += [f"- {shown(path)}" for path in paths]
    return f"Apply failed with {count} conflicts: " + "\n".join(lines)
