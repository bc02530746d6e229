"""Requests of the port as HTTP calls. Pure.

Invariant: every call that writes asks for strict field validation and names its field manager, where the API takes
them; none replaces an object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Unpack
from urllib.parse import quote

from providers.ports import Apply, Body, Create, Delete, JsonPatch, MergePatch, Ref, Refused, Selectors, Write

MANAGER = "ovsplan"
"""The field manager of every write but an Apply, which brings its own."""

PAGE = 500
"""Objects in one page of a list."""

_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"
_APPLY_PATCH = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Resource:
    """How a kind is served. `subresources` gives the (apiVersion, kind) that each takes, where it is another one."""

    api: str
    plural: str
    namespaced: bool
    kept: bool
    """False for reviews, which are answered and forgotten: they have no names."""
    subresources: Mapping[str, tuple[str, str] | None]


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request. `title` is what messages call it: the verb and the object.

    `harmless` is one that stores nothing though it is no GET: a dry run, a review.
    """

    title: str
    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: Any = None
    content: str = _JSON
    harmless: bool = False

    @property
    def writes(self) -> bool:
        """Whether something may have happened when no answer comes."""
        return self.method != "GET" and not self.harmless


def root(api: str) -> str:
    """Where an apiVersion is served."""
    return f"/api/{api}" if "/" not in api else f"/apis/{api}"


def reading(resource: Resource, ref: Ref) -> Call:
    """Get one object."""
    return Call(f"get {ref}", "GET", _path(resource, ref))


def page(resource: Resource, kind: str, continued: str, **selectors: Unpack[Selectors]) -> Call:
    """One page of a list; `continued` is the token that the page before gave."""
    query = [("limit", str(PAGE)), *_selected(selectors)]
    if continued:
        query.append(("continue", continued))
    return Call(f"list {kind}", "GET", _collection(resource, selectors.get("namespace")), tuple(query))


def watching(resource: Resource, kind: str, since: str, seconds: int, **selectors: Unpack[Selectors]) -> Call:
    """The changes after `since`, for so many seconds."""
    query = [("watch", "1"), ("resourceVersion", since), ("timeoutSeconds", str(seconds))]
    query += _selected(selectors)
    return Call(f"watch {kind}", "GET", _collection(resource, selectors.get("namespace")), tuple(query))


def _selected(selectors: Selectors) -> list[tuple[str, str]]:
    given = (("labelSelector", selectors.get("labels")), ("fieldSelector", selectors.get("fields")))
    return [
        (name, ",".join(f"{key}={value}" for key, value in selector.items()))
        for name, selector in given
        if selector
    ]


def writing(resource: Resource, request: Write, *, dry_run: bool) -> Call:
    """Any write. Raises Refused for what the API would take for another object than `request` names."""
    return replace(_written(resource, request, dry_run), harmless=dry_run or not resource.kept)


def _written(resource: Resource, request: Write, dry_run: bool) -> Call:
    ref = request.ref
    if resource.kept and resource.namespaced != bool(ref.namespace):
        scope = "is in a namespace, and none is given" if resource.namespaced else "is in no namespace"
        raise Refused(f"{ref}: a {ref.kind} {scope}")
    match request:
        case Create(body=body, subresource=""):
            made = _named(ref, body) if resource.kept else {**body, "apiVersion": ref.api, "kind": ref.kind}
            path = _collection(resource, ref.namespace)
            return Call(f"create {ref}", "POST", path, _query(dry_run), made)
        case Create(body=body, subresource=sub):
            own = str(body.get("apiVersion", ref.api)), str(body.get("kind", ref.kind))
            api, kind = resource.subresources.get(sub) or own
            made = _named(Ref(api, kind, ref.name, ref.namespace), body)
            return Call(f"create {sub} of {ref}", "POST", _path(resource, ref, sub), _query(dry_run), made)
        case MergePatch(patch=patch, subresource=sub):
            title = f"patch {sub} of {ref}" if sub else f"patch {ref}"
            at = _at_version(patch, request.resource_version)
            return Call(title, "PATCH", _path(resource, ref, sub), _query(dry_run), at, _MERGE_PATCH)
        case JsonPatch(operations=operations, resource_version=version):
            test = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
            steps = [*([test] if version is not None else []), *operations]
            return Call(f"patch {ref}", "PATCH", _path(resource, ref), _query(dry_run), steps, _JSON_PATCH)
        case Apply(body=body, manager=manager, force=force):
            query = (*_query(dry_run, manager), *((("force", "true"),) if force else ()))
            return Call(f"apply {ref}", "PATCH", _path(resource, ref), query, _named(ref, body), _APPLY_PATCH)
        case Delete():
            return Call(f"delete {ref}", "DELETE", _path(resource, ref), (), _options(request, dry_run))


def _query(dry_run: bool, manager: str = MANAGER) -> tuple[tuple[str, str], ...]:
    strict = (("fieldManager", manager), ("fieldValidation", "Strict"))
    return (*strict, ("dryRun", "All")) if dry_run else strict


def _options(request: Delete, dry_run: bool) -> Body:
    wanted = {"uid": request.uid, "resourceVersion": request.resource_version}
    preconditions = {name: value for name, value in wanted.items() if value is not None}
    return {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Background",
        **({"preconditions": preconditions} if preconditions else {}),
        # In the body: a server that gets options there looks at none in the URL.
        **({"dryRun": ["All"]} if dry_run else {}),
    }


def _at_version(patch: Body, version: str | None) -> Body:
    if version is None:
        return patch
    return {**patch, "metadata": {**(patch.get("metadata") or {}), "resourceVersion": version}}


def _named(ref: Ref, body: Body) -> Body:
    """The body with the names of `ref`: a create has the object's name nowhere else."""
    metadata = dict(body.get("metadata") or {})
    for field, name in (("name", ref.name), ("namespace", ref.namespace)):
        if metadata.get(field) not in (None, name):
            raise Refused(
                f"{ref}: the {field} of the object ({metadata[field]}) does not match the {field} of the "
                f"request ({name})"
            )
        if name is not None:
            metadata[field] = name
    return {**body, "apiVersion": ref.api, "kind": ref.kind, "metadata": metadata}


def _collection(resource: Resource, namespace: str | None) -> str:
    where = f"/namespaces/{quote(namespace, safe='')}" if namespace and resource.namespaced else ""
    return f"{root(resource.api)}{where}/{resource.plural}"


def _path(resource: Resource, ref: Ref, subresource: str = "") -> str:
    tail = f"/{subresource}" if subresource else ""
    return f"{_collection(resource, ref.namespace)}/{quote(ref.name, safe='')}{tail}"
