"""Permissions: what a run needs of the API server's authoriser, read off its plan.

Pure. Invariant: whatever an action of the plan may ask or do, in a rescue or an undo of its own too, is covered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from plans.actions import Action
from plans.document import Plan
from plans.ops import (
    AnyOp,
    Apply,
    Create,
    Delete,
    Edit,
    ListRequest,
    Patch,
    Record,
    Wait,
)
from plans.readings import reading, view_of

_IRREGULAR = {
    "NetworkAttachmentDefinition": "network-attachment-definitions",
    "NodeNetworkConfigurationPolicy": "nodenetworkconfigurationpolicies",
}


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """One verb on one kind of object. No namespace: in all of them, or the kind has none."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""

    @property
    def words(self) -> str:
        """As a sentence goes on after "may not"."""
        what = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        what += f".{self.group}" if self.group else ""
        return f"{self.verb} {what}" + (f" in namespace {self.namespace}" if self.namespace else "")

    @property
    def everywhere(self) -> Permission:
        """The same in all namespaces."""
        return Permission(self.verb, self.group, self.resource, self.subresource)


def of_views(views: Iterable[str]) -> set[Permission]:
    """What reading these views needs of the API. Views of a node ask nothing of it, and what may stay unanswered is
    no need: a plan without it says what it cannot tell.
    """
    readings = [reading(view, 0.0) for view in views]
    requests = [request for one in readings for request in one.requests if request not in one.spare]
    return {_to_list(request) for request in requests if isinstance(request, ListRequest)}


def of_plan(plan: Plan) -> set[Permission]:
    """All that a run of the plan reads and writes of the cluster's objects."""
    found: set[Permission] = set()
    for action in plan.actions:
        found |= of_views(_views(action))
        for op in _ops(action):
            found |= _of_op(op)
    return found


def of_exec(namespaces: Iterable[str]) -> set[Permission]:
    """What it takes to find pods, and to run commands in those of some namespaces.

    No run needs it: what could not be asked is not known, and the plan says so.
    """
    found = {
        Permission(verb, "", "pods", "exec", space) for space in namespaces for verb in ("get", "create")
    }
    return found | ({Permission("list", "", "pods")} if found else set())


def of_own(*, lease: bool, copy: bool, namespace: str) -> set[Permission]:
    """What a run needs for the Lease, and for the copy of itself, in ovsplan's own namespace."""
    leases = ("get", "create", "patch") if lease else ()
    secrets = ("get", "list", "create", "patch", "delete") if copy else ()
    found = {Permission(verb, "coordination.k8s.io", "leases", namespace=namespace) for verb in leases}
    return found | {Permission(verb, "", "secrets", namespace=namespace) for verb in secrets}


def sentences(missing: Iterable[Permission], user: str) -> list[str]:
    """One for each permission that a user lacks; what is missing in many namespaces is said once."""
    spaces: dict[Permission, list[str]] = {}
    for permission in sorted(missing):
        spaces.setdefault(permission.everywhere, []).append(permission.namespace)
    return [f"{user} may not {_where(permission, found)}" for permission, found in spaces.items()]


def _where(permission: Permission, namespaces: list[str]) -> str:
    named = [name for name in namespaces if name]
    if not named or len(named) < len(namespaces):
        return permission.words
    shown = ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
    return f"{permission.words} in namespace{'s' if len(named) > 1 else ''} {shown}"


def plural(kind: str) -> str:
    """The resource of a kind, as RBAC names it."""
    if kind in _IRREGULAR:
        return _IRREGULAR[kind]
    word = kind.lower()
    return f"{word[:-1]}ies" if word.endswith("y") and word[-2] not in "aeiou" else f"{word}s"


def _views(action: Action) -> Iterator[str]:
    yield from action.reads
    yield from (view_of(check.path) for check in (*action.expect, *action.done_when))
    for invocation in action.undo:
        yield from invocation.reads
    for op in _ops(action):
        if isinstance(op, Wait):
            yield from (view_of(check.path) for check in (*op.checks, *op.unless))
        if isinstance(op, Record):
            yield from op.views


def _ops(action: Action) -> tuple[AnyOp, ...]:
    return (*action.ops, *action.contingent, *action.on_failure)


def _of_op(op: AnyOp) -> set[Permission]:
    match op:
        case Record(requests=requests):
            return {_to_list(request) for request in requests if isinstance(request, ListRequest)}
        case Create(ref=ref, subresource=subresource):
            return {_to("create", ref.api, ref.kind, ref.namespace, subresource)}
        case Patch(ref=ref):
            return {_to("patch", ref.api, ref.kind, ref.namespace)}
        case Apply(ref=ref):
            # An apply of an object that is not there is a create as well.
            return {_to(verb, ref.api, ref.kind, ref.namespace) for verb in ("create", "patch")}
        case Edit(ref=ref):
            return {_to(verb, ref.api, ref.kind, ref.namespace) for verb in ("get", "patch")}
        case Delete(ref=ref):
            return {_to(verb, ref.api, ref.kind, ref.namespace) for verb in ("get", "delete")}
    return set()


def _to_list(request: ListRequest) -> Permission:
    return _to("list", request.api, request.kind, request.namespace)


def _to(verb: str, api: str, kind: str, namespace: str | None, subresource: str = "") -> Permission:
    group = api.rpartition("/")[0]
    return Permission(verb, group, plural(kind), subresource, namespace or "")


def as_attributes(permission: Permission) -> Mapping[str, str]:
    """As a SelfSubjectAccessReview asks for it."""
    asked = {
        "verb": permission.verb,
        "group": permission.group,
        "resource": permission.resource,
        "subresource": permission.subresource,
        "namespace": permission.namespace,
    }
    return {name: value for name, value in asked.items() if value}
