"""Ops: single things done to the world, as concrete, versioned data.

An op knows no kind and no rule; the interpreters in `providers/` perform it as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import Field

from plans.checks import Check
from plans.facts import KNOWN_AFTER_APPLY, Fact, Json

Changes = tuple[tuple[str, Fact], ...]


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """The name of one Kubernetes object. `api` is its apiVersion."""

    api: str
    kind: str
    name: str
    namespace: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace + '/' if self.namespace else ''}{self.name}"


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Ask for all objects of a kind, of those paths that `keep` names (all, when it names none).

    `optional`: the answer is null, not an error, when the API server serves no such kind. `labels` and `fields` select.
    """

    api: str
    kind: str
    keep: tuple[str, ...] = ()
    optional: bool = False
    namespace: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    ask: Literal["list"] = "list"


@dataclass(frozen=True, slots=True)
class SelectRequest:
    """Ask one node's Open vSwitch database for tables, whole rows, in one transaction."""

    node: str
    tables: tuple[str, ...]
    ask: Literal["select"] = "select"


@dataclass(frozen=True, slots=True)
class CommandRequest:
    """Ask by a command on a node that changes nothing. `fine`: the exit codes with which it has answered."""

    node: str
    argv: tuple[str, ...]
    fine: tuple[int, ...] = (0,)
    ask: Literal["command"] = "command"


Request = Annotated[ListRequest | SelectRequest | CommandRequest, Field(discriminator="ask")]


@dataclass(frozen=True, kw_only=True)
class _Named:
    """What every op has. `label` is unique within its action, and is how the journal and a `step` function speak of it.

    `changes` is what the op is believed to change: the planner applies it to its predicted facts; it is not part of the
    plan document, whose actions state their effects.
    """

    label: str
    title: str
    changes: Changes = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class _Typed(_Named):
    """An op that a person could do as well: `commands` says it for a shell."""

    commands: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Transact(_Typed):
    """One OVSDB transaction on a node, after which vswitchd has done it (`cur_cfg` awaited) when `settle`.

    An operation that fails with the error `tolerate` leaves the op done: somebody else was first, which is as good.
    """

    node: str
    operations: tuple[Json, ...]
    settle: bool = True
    tolerate: str = ""
    op: Literal["transact"] = "transact"


@dataclass(frozen=True, kw_only=True)
class Patch(_Typed):
    """A JSON merge patch of one object, guarded by its resourceVersion."""

    ref: ObjectRef
    patch: Json
    resource_version: str | None = None
    op: Literal["patch"] = "patch"


@dataclass(frozen=True, kw_only=True)
class Create(_Typed):
    """Create one object. Its name is deterministic, so "already exists" means that it is ours and the op is done.

    With `subresource`, the body is posted to that of an existing object (a Pod's `eviction`).
    """

    ref: ObjectRef
    body: Json
    subresource: str = ""
    op: Literal["create"] = "create"


@dataclass(frozen=True, kw_only=True)
class Apply(_Typed):
    """Server-side apply of one object as ovsplan's own: it is created when it is not there.

    What was applied before and is left out now goes; a field that somebody else holds is a refusal, never overwritten.
    A refusal that contains `again_if` is a race that was lost: read again, decide again.
    """

    ref: ObjectRef
    body: Json
    again_if: str = ""
    op: Literal["apply"] = "apply"


@dataclass(frozen=True, kw_only=True)
class Edit(_Typed):
    """A JSON patch of one object at a resourceVersion: for a subtree that has to be replaced whole.

    `again_if` is as in `Apply`.
    """

    ref: ObjectRef
    operations: tuple[Json, ...]
    resource_version: str | None = None
    again_if: str = ""
    op: Literal["edit"] = "edit"


@dataclass(frozen=True, kw_only=True)
class Delete(_Typed):
    """Delete one object, of that UID if one is given. An object that is gone already makes the op done."""

    ref: ObjectRef
    uid: str | None = None
    op: Literal["delete"] = "delete"


@dataclass(frozen=True, kw_only=True)
class Run(_Typed):
    """A short command on a node that may be repeated without harm."""

    node: str
    argv: tuple[str, ...]
    op: Literal["run"] = "run"


@dataclass(frozen=True, slots=True)
class InContainer:
    """One command in a container of a pod; `key` is what its answer is kept under."""

    key: str
    namespace: str
    pod: str
    container: str
    argv: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Exec(_Typed):
    """Commands in containers, all at the same time, which only look and may be repeated.

    The result has, by key, what each came to (`rc`, `out`, `err`), or `why` it could not be run: neither fails the op.
    `deadline` is in seconds, for all of them together.
    """

    runs: tuple[InContainer, ...]
    deadline: float
    op: Literal["exec"] = "exec"


@dataclass(frozen=True, kw_only=True)
class Wait(_Named):
    """Wait until every check holds, or any of `unless` does, or `deadline` seconds have passed.

    With `at_least` seconds it does not believe a sight any earlier. A wait changes nothing; it ends early on Ctrl-C. What
    it could not see before its deadline is for `step` to judge. `tells`: the path of a text that a person wants to see
    meanwhile. `progress`: the path of a list that a check wants to have elements: the deadline begins anew with each that comes.
    """

    checks: tuple[Check, ...]
    deadline: float
    unless: tuple[Check, ...] = ()
    at_least: float = 0.0
    tells: str = ""
    progress: str = ""
    op: Literal["wait"] = "wait"


@dataclass(frozen=True, kw_only=True)
class Record(_Named):
    """Keep what is there now: a before-image, immutable and hashed, in the journal.

    Its result, the facts of `views`, is given to later steps. With `again_after` seconds the views are read a second
    time; the result is then the second reading, and the first stands at each path with `@first` added.
    """

    views: tuple[str, ...] = ()
    requests: tuple[Request, ...] = ()
    again_after: float = 0.0
    op: Literal["record"] = "record"


Op = Annotated[
    Transact | Patch | Create | Apply | Edit | Delete | Run | Exec | Wait | Record, Field(discriminator="op")
]
AnyOp = Transact | Patch | Create | Apply | Edit | Delete | Run | Exec | Wait | Record

READ_ONLY = (Exec, Wait, Record)


def target(op: AnyOp) -> str:
    """What an op acts on, as text: a node, an object's kind and namespace, or nothing."""
    match op:
        case Transact(node=node) | Run(node=node):
            return f"node {node}"
        case Patch(ref=ref) | Apply(ref=ref) | Edit(ref=ref) | Delete(ref=ref):
            return str(ref)
        case Create(ref=ref):
            return f"{ref.kind} in {ref.namespace}"
        case _:
            return ""


def shape(op: AnyOp) -> str:
    """What must be the same in the plan and in the run: which op, on what, doing what to which tables or fields.

    Values are left out: they are what the plan may show as known after apply.
    """
    head, parts = _shape(op)
    return f"{head} {' '.join(sorted(parts))}".strip()


def fits(op: AnyOp, planned: Iterable[AnyOp]) -> bool:
    """Whether an op is one that a plan showed, or does less than one: never more, and on nothing else.

    A patch that the plan shows of an object that only the run knows is of any one of that kind and namespace.
    """
    head, parts = _shape(op)
    heads = {head}
    if isinstance(op, Patch):
        heads.add(_shape(replace(op, ref=replace(op.ref, name=KNOWN_AFTER_APPLY)))[0])
    return any(other in heads and parts <= shown for other, shown in map(_shape, planned))


def _shape(op: AnyOp) -> tuple[str, frozenset[str]]:
    match op:
        case Transact(operations=operations):
            parts = frozenset(_operation_shape(o) for o in operations if o["op"] not in ("wait", "select"))
            return f"transact {target(op)}", parts
        case Patch(patch=patch):
            return f"patch {target(op)} " + " ".join(_leaf_paths(patch)), frozenset()
        case Apply(body=body):
            return f"apply {target(op)}", frozenset(_leaf_paths(body))
        case Edit(operations=operations):
            edits = frozenset(f"{o['op']}:{o['path']}" for o in operations if o["op"] != "test")
            return f"edit {target(op)}", edits
        case Run(argv=argv):
            return f"run {target(op)} {argv[0]} {argv[1] if len(argv) > 1 else ''}", frozenset()
        case Exec(runs=runs):
            return "exec", frozenset(f"{r.namespace}/{r.container}: {' '.join(r.argv)}" for r in runs)
        case _:
            return f"{op.op} {target(op)}".strip(), frozenset()


def _operation_shape(operation: Json) -> str:
    columns = sorted(operation.get("row", {})) or sorted({m[0] for m in operation.get("mutations", ())})
    return f"{operation['op']}:{operation['table']}({','.join(columns)})"


def _leaf_paths(value: Json, prefix: str = "") -> list[str]:
    if not isinstance(value, dict):
        return [prefix]
    return [
        leaf
        for key in sorted(value)
        for leaf in _leaf_paths(value[key], f"{prefix}.{key}" if prefix else key)
    ]


def as_commands(op: AnyOp) -> tuple[str, ...]:
    """The op as a person would do it: on the bastion with `oc`, or on the node with its own tools."""
    match op:
        case Transact(node=node, commands=commands) | Run(node=node, commands=commands):
            return tuple(f"[{node}] {command}" for command in commands)
        case Patch() | Create() | Apply() | Edit() | Delete() | Exec():
            return op.commands
        case Wait(checks=checks, deadline=deadline, progress=progress):
            limit = f"{deadline:g} s without any progress" if progress else f"{deadline:g} s"
            return (f"# wait, at most {limit}, until " + " and ".join(str(c) for c in checks),)
        case Record(title=title):
            return (f"# {title}",)
