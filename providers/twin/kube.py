"""The Kubernetes API over the store: versions, conflicts, patches, server-side apply, subresources, admission.

Invariant: every object carries the resourceVersion of the write that made it so, and versions only grow; a write
that changes nothing makes no version and no event.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Unpack

from providers.ports import (
    AlreadyExists,
    Apply,
    Body,
    Conflict,
    Create,
    Delete,
    Expired,
    JsonPatch,
    Listing,
    MergePatch,
    NotFound,
    Owned,
    Ref,
    Refused,
    Selectors,
    Write,
)
from providers.twin import admission, node_leases, ownership, validation
from providers.twin.kinds import Kind, kind_of
from providers.twin.ownership import CLIENT, Owner, Shape
from providers.twin.patching import Inapplicable, json_patch, merge
from providers.twin.stage import Change
from providers.twin.store import SEP, Store

FINAL = admission.FINAL
USER = "twin"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_NOT_CHANGED_BY_CALLERS = ("name", "namespace", "uid", "creationTimestamp", "generation", "deletionTimestamp")
_SELECTABLE = {
    "Pod": ("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "status.phase"),
    "Namespace": ("status.phase",),
    "Node": ("spec.unschedulable",),
    "Event": ("involvedObject.kind", "involvedObject.name", "involvedObject.namespace", "reason", "type"),
    "Secret": ("type",),
}


def group_of(kind: Kind) -> str:
    return SEP.join(("kube", kind.stored, kind.name))


def key_of(kind: Kind, name: str, namespace: str | None) -> str:
    # A space sorts before all that names are made of, so that keys sort by namespace, then name.
    return SEP.join((group_of(kind), f"{namespace or ''} {name}"))


def stamp(at: float) -> str:
    """An instant as Kubernetes writes it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Api:
    """The API server's verbs. Objects it returns are the store's own: the port copies them for outsiders."""

    def __init__(self, store: Store, now: Callable[[], float], notify: Callable[[Change], None]) -> None:
        self._store = store
        self._now = now
        self._notify = notify

    def _kind(self, api: str, name: str) -> Kind:
        return kind_of(api, name, self._store.get("meta|apis"))

    def get(self, ref: Ref) -> Body | None:
        kind = self._kind(ref.api, ref.kind)
        found = self._store.get(key_of(kind, ref.name, ref.namespace))
        if found is None and node_leases.are_asked_for(kind, ref.namespace):
            leases = node_leases.leases(self._store, self._now())
            found = next((lease for lease in leases if lease["metadata"]["name"] == ref.name), None)
        return None if found is None else _as_asked(kind, found)

    def list(
        self, api: str, kind: str, *, keep: Sequence[str] = (), **selectors: Unpack[Selectors]
    ) -> Listing:
        known = self._kind(api, kind)
        _check_selector(known, selectors.get("fields") or {})
        namespace = selectors.get("namespace")
        items = []
        for key in self._store.keys(group_of(known)):
            if namespace is not None and not key.rpartition(SEP)[2].startswith(f"{namespace} "):
                continue
            items.append(self._store.get(key))
        if node_leases.are_asked_for(known, namespace):
            items = sorted([*items, *node_leases.leases(self._store, self._now())], key=_place)
        items = [_as_asked(known, item) for item in items if selects(item, selectors)]
        return Listing(tuple(_kept(item, keep) if keep else item for item in items), str(self.version))

    @property
    def version(self) -> int:
        return int(self._store.get("meta|version"))

    def events(self, api: str, kind: str, since: int) -> tuple[tuple[int, str, str], ...]:
        """The (version, type, JSON) of every change after `since`. Raises Expired when that is too long ago."""
        known = self._kind(api, kind)
        oldest = self._store.get("meta|oldest") or 0
        if 0 < since < oldest:
            raise Expired(f"too old resource version: {since} ({oldest})")
        return self._store.events(known.stored, kind, since)

    def write(self, request: Write, dry_run: bool = False) -> Body:
        kind = self._kind(request.ref.api, request.ref.kind)
        match request:
            case Create() if not kind.kept:
                return _reviewed(kind, request.body)
            case Create() if request.subresource:
                return self._post(kind, request, dry_run)
            case Create():
                return self._create(kind, request.ref, request.body, None, dry_run)
            case MergePatch():
                return self._merge_patch(kind, request, dry_run)
            case JsonPatch():
                return self._json_patch(kind, request, dry_run)
            case Apply():
                return self._apply(kind, request, dry_run)
            case Delete():
                return self._delete(kind, request, dry_run)

    def _create(
        self, kind: Kind, ref: Ref, given: Body, owners: Sequence[Owner] | None, dry_run: bool
    ) -> Body:
        body = merge(None, given)
        metadata = body.get("metadata") or {}
        _check_names(kind, ref, metadata)
        spaces = self._kind("v1", "Namespace")
        if ref.namespace and self._store.get(key_of(spaces, ref.namespace, None)) is None:
            raise NotFound(f'namespaces "{ref.namespace}" not found')
        if self._store.get(key_of(kind, ref.name, ref.namespace)) is not None:
            raise AlreadyExists(f'{kind.resource} "{ref.name}" already exists')
        if kind.status and kind.name != "Node":
            body.pop("status", None)
        if kind.name in ("Pod", "Namespace"):
            body["status"] = {"phase": "Pending" if kind.name == "Pod" else "Active"}
        validation.check(kind, ref.name, body, None)
        admission.admit(self, kind, ref, body, None)
        kept = ownership.entries(list(owners), ref.api) if owners else None
        made = {
            **body,
            "apiVersion": kind.stored,
            "kind": kind.name,
            "metadata": {
                **metadata,
                "name": ref.name,
                **({"namespace": ref.namespace} if ref.namespace else {}),
                "uid": self._uid(ref),
                "creationTimestamp": stamp(self._now()),
                **({"generation": 1} if _is_counted(kind) else {}),
                **({"managedFields": kept} if kept else {}),
            },
        }
        return self._commit("ADDED", kind, ref, made, dry_run)

    def _uid(self, ref: Ref) -> str:
        if (ref.kind, ref.name) == ("Namespace", "kube-system"):
            # By this UID a cluster is known, so a world that is made anew is another one, whatever its file.
            return str(uuid.uuid4())
        seed = uuid.UUID(self._store.get("meta|seed"))
        return str(uuid.uuid5(seed, f"{ref.api}|{ref}|{self.version}"))

    def _post(self, kind: Kind, request: Create, dry_run: bool) -> Body:
        pod = self._must(kind, request.ref)
        match kind.name, request.subresource:
            case "Pod", "eviction":
                return self._evict(kind, request.ref, pod, dry_run)
            case "Pod", "binding":
                return self._bind(kind, request, pod, dry_run)
        raise NotFound("the server could not find the requested resource")

    def _evict(self, kind: Kind, ref: Ref, pod: Body, dry_run: bool) -> Body:
        mark, refused = admission.eviction_mark(self, pod, dry_run) if self._has_kubevirt() else (None, None)
        if mark is not None:
            self.write(mark)
        if refused is not None:
            raise refused
        budget = admission.budget_of(self, pod)
        if budget is not None:
            self._spend(budget, dry_run)
        self._delete(kind, Delete(ref), dry_run)
        return {"apiVersion": "v1", "kind": "Status", "status": "Success", "code": 201}

    def _has_kubevirt(self) -> bool:
        return bool((self._store.get("meta|apis") or {}).get("kubevirt", True))

    def _spend(self, budget: Body, dry_run: bool) -> None:
        metadata = budget["metadata"]
        ref = Ref("policy/v1", "PodDisruptionBudget", metadata["name"], metadata["namespace"])
        left = {"disruptionsAllowed": budget["status"]["disruptionsAllowed"] - 1}
        self.write(MergePatch(ref, {"status": left}, subresource="status"), dry_run)

    def _bind(self, kind: Kind, request: Create, pod: Body, dry_run: bool) -> Body:
        if pod["spec"].get("nodeName"):
            bound = f'pod {request.ref.name} is already assigned to node "{pod["spec"]["nodeName"]}"'
            raise Conflict(f'Operation cannot be fulfilled on pods/binding "{request.ref.name}": {bound}')
        conditions = [c for c in pod["status"].get("conditions", ()) if c["type"] != "PodScheduled"]
        conditions.append({"type": "PodScheduled", "status": "True"})
        spec = {**pod["spec"], "nodeName": request.body["target"]["name"]}
        made = {**pod, "spec": spec, "status": {**pod["status"], "conditions": conditions}}
        self._commit("MODIFIED", kind, request.ref, made, dry_run)
        return {"apiVersion": "v1", "kind": "Status", "status": "Success", "code": 201}

    def _merge_patch(self, kind: Kind, request: MergePatch, dry_run: bool) -> Body:
        have = self._must(kind, request.ref)
        if request.subresource and not (request.subresource == "status" and kind.status):
            raise NotFound(f'{kind.resource} "{request.ref.name}" not found')
        asked = request.patch.get("metadata") or {}
        self._check_version(kind, have, request.resource_version, asked.get("resourceVersion"))
        made = merge(have, request.patch)
        if request.subresource == "status":
            made = {**have, "status": made["status"]} if "status" in made else dict(have)
        return self._change(kind, request.ref, have, made, request.subresource, dry_run)

    def _json_patch(self, kind: Kind, request: JsonPatch, dry_run: bool) -> Body:
        have = self._must(kind, request.ref)
        self._check_version(kind, have, request.resource_version)
        try:
            made = json_patch(_as_asked(kind, have), request.operations)
        except Inapplicable:
            # The server does not say which operation, nor why.
            raise Refused("the server rejected our request due to an error in our request") from None
        self._check_version(kind, have, made["metadata"].get("resourceVersion"))
        return self._change(kind, request.ref, have, {**made, "apiVersion": kind.stored}, "", dry_run)

    def _check_version(self, kind: Kind, have: Body, *wanted: str | None) -> None:
        metadata = have["metadata"]
        if any(version is not None and version != metadata["resourceVersion"] for version in wanted):
            raise Conflict(
                f'Operation cannot be fulfilled on {kind.resource} "{metadata["name"]}": the object has been '
                "modified; please apply your changes to the latest version and try again"
            )

    def _change(
        self, kind: Kind, ref: Ref, have: Body, made: dict[str, Any], subresource: str, dry_run: bool
    ) -> Body:
        """Store `made` in the place of `have`, by another way than an apply."""
        made = self._settled(kind, ref, have, made, subresource)
        owners = ownership.owners_of(have)
        if owners and made != have:
            by = Owner(CLIENT, "Update", subresource, frozenset(), stamp(self._now()))
            now_owned = ownership.taken_over(owners, by, have, made, Shape(kind))
            made["metadata"]["managedFields"] = ownership.entries(now_owned, kind.stored)
        return self._store_change(kind, ref, have, made, dry_run)

    def _settled(
        self, kind: Kind, ref: Ref, have: Body, made: dict[str, Any], subresource: str
    ) -> dict[str, Any]:
        """`made` without what a caller can't set here; checked."""
        metadata = have["metadata"]
        for name in ("name", "namespace", "uid"):
            if made["metadata"].get(name) != metadata.get(name):
                raise Refused(
                    f'{kind.qualified} "{ref.name}" is invalid: metadata.{name}: Invalid value: '
                    f'"{made["metadata"].get(name)}": field is immutable'
                )
        own = {
            name: metadata[name] for name in ("resourceVersion", *_NOT_CHANGED_BY_CALLERS) if name in metadata
        }
        others = {
            name: value for name, value in made["metadata"].items() if name not in _NOT_CHANGED_BY_CALLERS
        }
        made = {**made, "metadata": {**others, **own}}
        if "managedFields" in metadata:
            made["metadata"]["managedFields"] = metadata["managedFields"]
        if kind.status and not subresource:
            made = _with_status(made, have)
        if made != have:
            validation.check(kind, ref.name, made, have)
            if not subresource:
                admission.admit(self, kind, ref, made, have)
        return made

    def _store_change(self, kind: Kind, ref: Ref, have: Body, made: dict[str, Any], dry_run: bool) -> Body:
        if made == have:
            return _as_asked(kind, have)
        if _is_counted(kind) and _counts(kind, have, made):
            generation = have["metadata"].get("generation", 1) + 1
            made = {**made, "metadata": {**made["metadata"], "generation": generation}}
        ended = made["metadata"].get("deletionTimestamp") and not made["metadata"].get("finalizers")
        return self._commit("DELETED" if ended else "MODIFIED", kind, ref, made, dry_run)

    def _apply(self, kind: Kind, request: Apply, dry_run: bool) -> Body:
        ref, shape = request.ref, Shape(kind)
        wanted = merge(None, request.body)
        metadata = wanted.get("metadata") or {}
        if not request.manager:
            said = "fieldManager: Required value: is required for apply patch"
            raise Refused(f'PatchOptions.meta.k8s.io "" is invalid: {said}')
        if metadata.get("managedFields"):
            raise Refused("metadata.managedFields must be nil")
        if kind.status:
            wanted.pop("status", None)
        by = Owner(request.manager, "Apply", "", frozenset(), stamp(self._now()))
        have = self._store.get(key_of(kind, ref.name, ref.namespace))
        validation.check_typed(kind, ref.name, ref.namespace, wanted)
        if have is None:
            fields = ownership.fields_of(wanted, shape)
            owners = [Owner(request.manager, "Apply", "", fields, by.time)]
            return self._create(kind, ref, wanted, owners, dry_run)
        self._check_version(kind, have, metadata.get("resourceVersion"))
        _check_match(ref, metadata)
        before = ownership.owners_of(have) or ownership.first_owners(have, kind, shape)
        plain = {key: value for key, value in wanted.items() if key not in ("apiVersion", "kind")}
        done = ownership.apply(have, plain, before, by, shape)
        if done.conflicts and not request.force:
            raise Owned(ownership.conflict_text(done.conflicts, _named(kind)))
        made = self._settled(kind, ref, have, done.body, "")
        made["metadata"]["managedFields"] = ownership.entries(done.owners, kind.stored)
        return self._store_change(kind, ref, have, made, dry_run)

    def _delete(self, kind: Kind, request: Delete, dry_run: bool) -> Body:
        ref = request.ref
        have = self._must(kind, ref)
        metadata = have["metadata"]
        said = f'Operation cannot be fulfilled on {kind.qualified} "{ref.name}": the '
        for what, want, found, so in (
            ("UID", request.uid, metadata["uid"], "deleted and then recreated"),
            ("ResourceVersion", request.resource_version, metadata["resourceVersion"], "modified"),
        ):
            if want is not None and want != found:
                raise Conflict(
                    f"{said}{what} in the precondition ({want}) does not match the {what} in record ({found}). "
                    f"The object might have been {so}"
                )
        if dry_run:
            return _as_asked(kind, have)
        if metadata.get("finalizers"):
            if not metadata.get("deletionTimestamp"):
                marks: dict[str, Any] = {
                    "deletionTimestamp": stamp(self._now()),
                    "deletionGracePeriodSeconds": 0,
                }
                if _is_counted(kind):
                    marks["generation"] = metadata.get("generation", 1) + 1
                self._commit("MODIFIED", kind, ref, {**have, "metadata": {**metadata, **marks}}, dry_run)
        else:
            self._commit("DELETED", kind, ref, have, dry_run)
        return _as_asked(kind, have)

    def _must(self, kind: Kind, ref: Ref) -> dict[str, Any]:
        have: dict[str, Any] | None = self._store.get(key_of(kind, ref.name, ref.namespace))
        if have is None:
            raise NotFound(f'{kind.resource} "{ref.name}" not found')
        return have

    def _commit(self, event: str, kind: Kind, ref: Ref, made: dict[str, Any], dry_run: bool) -> Body:
        if dry_run:
            return _as_asked(kind, made)
        version = self.version + 1
        made = {**made, "metadata": {**made["metadata"], "resourceVersion": str(version)}}
        self._store.put("meta|version", version)
        key = key_of(kind, ref.name, ref.namespace)
        if event == "DELETED":
            self._store.drop(key)
        else:
            self._store.put(key, made)
        self._store.record_event(version, event, kind.stored, kind.name, made)
        self._notify(Change(ref.kind, ref.name, ref.namespace or "", made, event == "DELETED"))
        return _as_asked(kind, made)


def _place(body: Body) -> tuple[str, str]:
    return body["metadata"].get("namespace", ""), body["metadata"]["name"]


def _as_asked(kind: Kind, body: Body) -> Body:
    return body if kind.api == kind.stored else {**body, "apiVersion": kind.api}


def _with_status(made: dict[str, Any], have: Body) -> dict[str, Any]:
    """`made` with the status that the object has."""
    rest = {name: value for name, value in made.items() if name != "status"}
    return {**rest, "status": have["status"]} if "status" in have else rest


def _is_counted(kind: Kind) -> bool:
    """Whether objects of the kind have a generation."""
    return kind.schema is not None or kind.name in ("Pod", "PodDisruptionBudget")


def _counts(kind: Kind, have: Body, made: Body) -> bool:
    """Whether a change raises the generation. Without a status subresource, a change of the status does so too."""
    if kind.schema is None:
        return have.get("spec") != made.get("spec")
    aside = ("metadata", "status") if kind.status else ("metadata",)
    names = (have.keys() | made.keys()) - set(aside)
    return any(have.get(name) != made.get(name) for name in names)


def _named(kind: Kind) -> Callable[[Owner], str]:
    def said(owner: Owner) -> str:
        part = f' with subresource "{owner.subresource}"' if owner.subresource else ""
        version = f" using {kind.stored}" if owner.operation == "Update" else ""
        return f'"{owner.manager}"{part}{version}'

    return said


def _reviewed(kind: Kind, body: Body) -> Body:
    """The answer to a question about oneself: the one user of a twin may do anything."""
    if kind.name == "SelfSubjectAccessReview":
        status: dict[str, Any] = {"allowed": True}
    else:
        status = {"userInfo": {"username": USER, "groups": ["system:authenticated"]}}
    return {**body, "apiVersion": kind.api, "kind": kind.name, "status": status}


def selects(body: Body, selectors: Selectors) -> bool:
    """Whether a list or a watch with these selectors is about an object."""
    namespace, metadata = selectors.get("namespace"), body["metadata"]
    have = metadata.get("labels", {})
    return (
        (namespace is None or metadata.get("namespace") == namespace)
        and all(have.get(name) == value for name, value in (selectors.get("labels") or {}).items())
        and all(_field(body, path) == value for path, value in (selectors.get("fields") or {}).items())
    )


def _check_selector(kind: Kind, fields: Mapping[str, str]) -> None:
    for path in fields:
        if path not in ("metadata.name", "metadata.namespace", *_SELECTABLE.get(kind.name, ())):
            raise Refused(f"field label not supported: {path}")


def _field(body: Body, path: str) -> str:
    found: Any = body
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return "" if found is None else str(found).lower() if isinstance(found, bool) else str(found)


def _kept(body: Body, keep: Sequence[str]) -> Body:
    """An object with nothing but the paths to keep, and what it is called."""
    names = ("name", "namespace", "uid", "resourceVersion")
    metadata = {name: body["metadata"][name] for name in names if name in body["metadata"]}
    kept: dict[str, Any] = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata}
    for path in keep:
        source: Any = body
        target = kept
        *way, last = path.split(".")
        for part in way:
            source = source.get(part) if isinstance(source, Mapping) else None
            if isinstance(source, Mapping):
                target = target.setdefault(part, {})
        if isinstance(source, Mapping) and last in source:
            target[last] = source[last]
    return kept


def _check_match(ref: Ref, metadata: Mapping[str, Any]) -> None:
    for name, want in (("name", ref.name), ("namespace", ref.namespace)):
        if metadata.get(name) not in (None, want):
            raise Refused(
                f"the {name} of the object ({metadata[name]}) does not match the {name} on the URL ({want})"
            )


def _check_names(kind: Kind, ref: Ref, metadata: Mapping[str, Any]) -> None:
    if kind.namespaced != bool(ref.namespace):
        raise Refused(
            f"{ref}: an empty namespace may not be set during creation"
            if not ref.namespace
            else f"{ref}: {ref.kind} is not namespaced"
        )
    if not _NAME.fullmatch(ref.name) or len(ref.name) > 253:
        raise Refused(
            f'{kind.qualified} "{ref.name}" is invalid: metadata.name: Invalid value: "{ref.name}": a lowercase '
            "RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
            "end with an alphanumeric character"
        )
    if metadata.get("resourceVersion"):
        raise Refused("resourceVersion should not be set on objects to be created")
    _check_match(ref, metadata)
