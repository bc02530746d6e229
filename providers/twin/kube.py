"""The Kubernetes API over the store: versions, conflicts, merge patches, admission.

Invariant: every object carries the resourceVersion of the write that made it so, and versions only grow; a write
that changes nothing makes no version and no event.
"""

from __future__ import annotations

import copy
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from providers.ports import (
    AlreadyExists,
    Body,
    Conflict,
    Create,
    Delete,
    Listing,
    MergePatch,
    NotFound,
    Ref,
    Refused,
    Write,
)
from providers.twin.networks import KUBEVIRT, NAD_API
from providers.twin.stage import Change
from providers.twin.store import SEP, Store

CLUSTER_SCOPED = frozenset({("v1", "Namespace"), ("v1", "Node")})
KINDS = CLUSTER_SCOPED | {
    ("v1", "ConfigMap"),
    ("v1", "Pod"),
    ("coordination.k8s.io/v1", "Lease"),
    (NAD_API, "NetworkAttachmentDefinition"),
    (KUBEVIRT, "VirtualMachine"),
    (KUBEVIRT, "VirtualMachineInstance"),
    (KUBEVIRT, "VirtualMachineInstanceMigration"),
}
FINAL = ("Succeeded", "Failed")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


def group_of(api: str, kind: str) -> str:
    return SEP.join(("kube", api, kind))


def key_of(ref: Ref) -> str:
    # A space sorts before all that names are made of, so that keys sort by namespace, then name.
    return SEP.join((group_of(ref.api, ref.kind), f"{ref.namespace or ''} {ref.name}"))


def stamp(at: float) -> str:
    """An instant as Kubernetes writes it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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


class Api:
    """The API server's verbs. Objects it returns are the store's own: the port copies them for outsiders."""

    def __init__(self, store: Store, now: Callable[[], float], notify: Callable[[Change], None]) -> None:
        self._store = store
        self._now = now
        self._notify = notify

    def get(self, ref: Ref) -> Body | None:
        found: Body | None = self._store.get(key_of(ref))
        return found

    def list(
        self, api: str, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Listing:
        self._know(api, kind)
        items = []
        for key in self._store.keys(group_of(api, kind)):
            if namespace is not None and not key.rpartition(SEP)[2].startswith(f"{namespace} "):
                continue
            item = self._store.get(key)
            if labels:
                have = item["metadata"].get("labels", {})
                if any(have.get(name) != value for name, value in labels.items()):
                    continue
            items.append(item)
        return Listing(tuple(items), str(self.version))

    @property
    def version(self) -> int:
        return int(self._store.get("meta|version"))

    def events(self, api: str, kind: str, since: int) -> tuple[tuple[int, str, str], ...]:
        """The (version, type, JSON) of every change after `since`."""
        self._know(api, kind)
        return self._store.events(api, kind, since)

    def write(self, request: Write, dry_run: bool = False) -> Body:
        self._know(request.ref.api, request.ref.kind)
        match request:
            case Create():
                return self._create(request, dry_run)
            case MergePatch():
                return self._patch(request, dry_run)
            case Delete():
                return self._delete(request, dry_run)

    def _know(self, api: str, kind: str) -> None:
        if (api, kind) not in KINDS:
            raise NotFound(f"the server could not find the requested resource ({api} {kind})")

    def _create(self, request: Create, dry_run: bool) -> Body:
        ref, body = request.ref, merge(None, request.body)
        metadata = body.get("metadata") or {}
        _check_names(ref, metadata)
        if ref.namespace and self._store.get(key_of(Ref("v1", "Namespace", ref.namespace))) is None:
            raise NotFound(f'namespaces "{ref.namespace}" not found')
        if self._store.get(key_of(ref)) is not None:
            raise AlreadyExists(f'{ref.kind} "{ref.name}" already exists')
        self._admit(ref, body)
        made = {
            **body,
            "apiVersion": ref.api,
            "kind": ref.kind,
            "metadata": {
                **metadata,
                "name": ref.name,
                **({"namespace": ref.namespace} if ref.namespace else {}),
                "uid": self._uid(ref),
                "creationTimestamp": stamp(self._now()),
                "generation": 1,
            },
        }
        return self._commit("ADDED", ref, made, dry_run)

    def _uid(self, ref: Ref) -> str:
        if (ref.kind, ref.name) == ("Namespace", "kube-system"):
            # By this UID a cluster is known, so a world that is made anew is another one, whatever its file.
            return str(uuid.uuid4())
        seed = uuid.UUID(self._store.get("meta|seed"))
        return str(uuid.uuid5(seed, f"{ref.api}|{ref}|{self.version}"))

    def _patch(self, request: MergePatch, dry_run: bool) -> Body:
        ref = request.ref
        have = self._must(ref)
        metadata = have["metadata"]
        asked = request.patch.get("metadata") or {}
        for version in (request.resource_version, asked.get("resourceVersion")):
            if version is not None and version != metadata["resourceVersion"]:
                raise Conflict(
                    f'Operation cannot be fulfilled on {ref.kind} "{ref.name}": the object has been modified '
                    f"(version {metadata['resourceVersion']}, not {version})"
                )
        for name in ("name", "namespace", "uid"):
            if name in asked and asked[name] != metadata.get(name):
                raise Refused(f"{ref}: metadata.{name}: field is immutable")
        made = merge(have, request.patch)
        made["metadata"] = {**made["metadata"], "resourceVersion": metadata["resourceVersion"]}
        if made == have:
            return have
        if made.get("spec") != have.get("spec"):
            made["metadata"]["generation"] = metadata.get("generation", 1) + 1
        return self._commit("MODIFIED", ref, made, dry_run)

    def _delete(self, request: Delete, dry_run: bool) -> Body:
        ref = request.ref
        have = self._must(ref)
        if request.uid is not None and request.uid != have["metadata"]["uid"]:
            raise Conflict(
                f"{ref} has the UID {have['metadata']['uid']}, not the {request.uid} of the precondition"
            )
        if not dry_run:
            self._commit("DELETED", ref, have, dry_run)
        return have

    def _must(self, ref: Ref) -> dict[str, Any]:
        have: dict[str, Any] | None = self._store.get(key_of(ref))
        if have is None:
            raise NotFound(f'{ref.kind} "{ref.name}" not found')
        return have

    def _commit(self, event: str, ref: Ref, made: dict[str, Any], dry_run: bool) -> Body:
        if dry_run:
            return made
        version = self.version + 1
        made = {**made, "metadata": {**made["metadata"], "resourceVersion": str(version)}}
        self._store.put("meta|version", version)
        if event == "DELETED":
            self._store.drop(key_of(ref))
        else:
            self._store.put(key_of(ref), made)
        self._store.record_event(version, event, ref.api, ref.kind, made)
        self._notify(Change(ref.kind, ref.name, ref.namespace or "", made, event == "DELETED"))
        return made

    def _admit(self, ref: Ref, body: dict[str, Any]) -> None:
        if ref.kind != "VirtualMachineInstanceMigration":
            return
        denied = 'admission webhook "migration-create-validator.kubevirt.io" denied the request: '
        name = (body.get("spec") or {}).get("vmiName")
        if not name:
            raise Refused(denied + "vmiName is missing")
        vmi = self._store.get(key_of(Ref(KUBEVIRT, "VirtualMachineInstance", name, ref.namespace)))
        if vmi is None:
            raise Refused(denied + f'the VMI "{ref.namespace}/{name}" does not exist')
        if vmi["status"].get("phase") in FINAL:
            raise Refused(denied + "Cannot migrate VMI in finalized state.")
        for condition in vmi["status"].get("conditions", ()):
            if condition["type"] == "LiveMigratable" and condition["status"] == "False":
                why = f"{condition['reason']}, Message: {condition.get('message', '')}"
                raise Refused(denied + f"Cannot migrate VMI, Reason: {why}")
        for other in self.list(ref.api, ref.kind, ref.namespace).items:
            if other["spec"]["vmiName"] == name and other.get("status", {}).get("phase") not in FINAL:
                raise Refused(
                    denied
                    + f"in-flight migration detected. Active migration job ({other['metadata']['uid']}) is "
                    f"currently already in progress for VMI {name}."
                )


def _check_names(ref: Ref, metadata: Mapping[str, Any]) -> None:
    if ((ref.api, ref.kind) in CLUSTER_SCOPED) == bool(ref.namespace):
        raise Refused(
            f"{ref}: an empty namespace may not be set during creation"
            if not ref.namespace
            else f"{ref}: {ref.kind} is not namespaced"
        )
    if not _NAME.fullmatch(ref.name) or len(ref.name) > 253:
        raise Refused(
            f"{ref.kind} {ref.name!r} is invalid: metadata.name: must be a lowercase RFC 1123 subdomain"
        )
    if metadata.get("resourceVersion"):
        raise Refused(f"{ref}: resourceVersion should not be set on objects to be created")
    for name, want in (("name", ref.name), ("namespace", ref.namespace)):
        if metadata.get(name) not in (None, want):
            raise Refused(
                f"{ref}: the {name} of the object ({metadata[name]}) does not match the request ({want})"
            )
