"""The four ports through which everything outside the program is reached.

Verbs on things, and no domain words: a port that knew how to "cordon" would make every provider, and the twin,
write that rule again. This module imports nothing of ours.

Every method may raise a `PortError`. The subclass tells the caller what it may do next, not what went wrong inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, Unpack

Body = Mapping[str, Any]
"""A Kubernetes object, or a part of one, as plain JSON."""


class PortError(Exception):
    """A port could not do what it was asked."""


class Unreachable(PortError):
    """The other side was not reached, or refused to work now: nothing happened there. Asking again may help."""


class InDoubt(PortError):
    """The request went out and no answer came back: it may have happened. Observe before asking again."""


class Conflict(PortError):
    """The object changed since it was read (HTTP 409 on a resourceVersion). Read again, then decide again."""


class AlreadyExists(PortError):
    """A create found an object of that name."""


class NotFound(PortError):
    """A patch or delete found no object of that name."""


class Refused(PortError):
    """The other side understood and said no (invalid, forbidden, an admission webhook). Asking again won't help."""


class Forbidden(Refused):
    """The caller has no right to do this (HTTP 403 of the authoriser); the message names verb, resource and user."""


class Unauthorized(Refused):
    """The caller is nobody to the API server (HTTP 401): the token has expired, or was never good."""


class Owned(Refused):
    """A server-side apply met fields that another field manager owns; the message names both."""


class NotServed(PortError):
    """The API server serves no such kind: no object of it can exist. Its operator is missing, or too old."""


class Busy(Unreachable):
    """The other side asked to be left alone for a while (HTTP 429): nothing happened. `retry_after` in seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Expired(PortError):
    """What a watch or a list was to continue from is too old (HTTP 410): list anew."""


@dataclass(frozen=True, slots=True)
class Ref:
    """The name of one Kubernetes object. `api` is its apiVersion, as in `v1` or `kubevirt.io/v1`."""

    api: str
    kind: str
    name: str
    namespace: str | None = None

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind} {where}{self.name}"


@dataclass(frozen=True, slots=True)
class Create:
    """Create `body` under `ref`. Raises AlreadyExists, Refused.

    With `subresource`, post `body` to that subresource of the existing object instead (`eviction` of a Pod): raises
    NotFound without the object, and Busy when the server asks to come back later (a disruption budget).
    """

    ref: Ref
    body: Body
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class MergePatch:
    """RFC 7386 merge patch. With `resource_version`, raises Conflict unless the object is still at that version.

    With `subresource` (`status`), patch that part of the object alone; a patch of the object itself leaves the status
    of a kind that has this subresource as it is. Raises NotFound when the kind has no such subresource.
    """

    ref: Ref
    patch: Body
    resource_version: str | None = None
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class JsonPatch:
    """RFC 6902 JSON patch: `operations` as they stand. With `resource_version`, raises Conflict unless it is still so.

    For what a merge patch can't do: replacing a subtree whole. Raises Refused when an operation does not apply.
    """

    ref: Ref
    operations: tuple[Body, ...]
    resource_version: str | None = None


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply: `body` is all that `manager` wants of the object, which is created when it is not there.

    What `manager` applied before and leaves out now goes. Raises Owned when another manager owns a field with another
    value, unless `force`.
    """

    ref: Ref
    body: Body
    manager: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the object. Raises Conflict when it has another `uid`, or is no longer at `resource_version`, if given."""

    ref: Ref
    uid: str | None = None
    resource_version: str | None = None


Write = Create | MergePatch | JsonPatch | Apply | Delete


@dataclass(frozen=True, slots=True)
class Listing:
    """The objects of one kind at one moment; `resource_version` is where a watch continues."""

    items: tuple[Body, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Event:
    """One change seen by a watch: `type` is ADDED, MODIFIED or DELETED."""

    type: str
    object: Body


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that ended by itself."""

    rc: int
    out: str
    err: str


class Selectors(TypedDict, total=False):
    """Which objects of a kind are meant: those of all namespaces unless one is given.

    `labels` and `fields` are equalities; the latter as far as the server supports them (`spec.nodeName` of Pods).
    """

    namespace: str | None
    labels: Mapping[str, str] | None
    fields: Mapping[str, str] | None


class Cluster(Protocol):
    """The Kubernetes API.

    Every write is checked strictly: an unknown field is Refused, never dropped. Every method may raise NotServed,
    Forbidden, Unauthorized, Unreachable or Busy; a write may raise InDoubt besides.
    """

    def get(self, ref: Ref) -> Body | None:
        """The object, or None when the API says that there is none. "Could not ask" raises."""
        ...

    def list(
        self, api: str, kind: str, *, keep: Sequence[str] = (), **selectors: Unpack[Selectors]
    ) -> Listing:
        """The objects of one kind that are selected, sorted by namespace and name.

        `keep` names dotted paths (`metadata`, `status.conditions`): the rest of each object is dropped as soon as it
        is read.
        """
        ...

    def watch(
        self, api: str, kind: str, *, since: str, timeout: float, **selectors: Unpack[Selectors]
    ) -> Iterator[Event]:
        """The changes after `since` (a resourceVersion); ends after `timeout` seconds without one. Raises Expired."""
        ...

    def write(self, request: Write, *, dry_run: bool = False) -> Body:
        """Carry out one write; returns the object as it is afterwards (for Delete: as it was)."""
        ...

    def exec(self, pod: Ref, container: str, argv: Sequence[str], *, timeout: float) -> Finished:
        """Run a command to its end in a container of a running pod, without input, within `timeout` seconds.

        No shell is involved. A program that is not there is an rc of 126 or more, or Unreachable, as the node's runtime
        has it. Raises NotFound (no such pod), Refused (no such container), Unreachable (nothing ran: the pod is over, say) or InDoubt (out of time, or the connection was lost while it ran).
        """
        ...


class Ovsdb(Protocol):
    """The Open vSwitch database of one node."""

    def transact(self, database: str, operations: Sequence[Body], *, timeout: float) -> list[Any]:
        """One RFC 7047 transaction; returns its `result` array as it is, errors of operations inside it.

        `timeout` is in seconds and covers the whole exchange, `wait` operations included.
        Raises Unreachable (nothing happened) or InDoubt (sent, not answered).
        """
        ...


@dataclass(frozen=True, slots=True)
class Command:
    """A command that only looks; `timeout` in seconds, from when it begins."""

    argv: tuple[str, ...]
    timeout: float


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction that only looks; `timeout` in seconds, from when it begins."""

    database: str
    operations: tuple[Body, ...]
    timeout: float


Question = Command | Transaction
Answer = Finished | list[Any] | PortError
"""What came of one question: a command's end, a transaction's results, or what would have been raised for it alone."""


class NodeShell(Protocol):
    """Commands on one node. No shell is involved: `argv` goes to the program as it stands."""

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Finished:
        """Run to its end, `stdin` then end of input given to it. An unknown program is rc 127.

        Raises Unreachable or InDoubt (out of time, or the connection was lost while it ran).
        """
        ...


class Clock(Protocol):
    """Time, in seconds since the epoch. Virtual where the whole world is."""

    def now(self) -> float:
        """The present instant."""
        ...

    def wait_until(self, instant: float) -> None:
        """Return at `instant`, or soon after."""
        ...


class Nodes(Protocol):
    """The nodes of a cluster, by name."""

    def ovsdb(self, node: str) -> Ovsdb:
        """The node's database. Raises Unreachable when no way to that node is known."""
        ...

    def shell(self, node: str) -> NodeShell:
        """The node's shell. Raises Unreachable when no way to that node is known."""
        ...

    def ask(self, node: str, questions: Sequence[Question]) -> list[Answer]:
        """Several questions to one node, answered in their order; one that fails hides none of the others.

        Raises nothing of its own. A way on which each exchange is a journey puts them together; then they may be
        asked in any order, and twice. Here, for the others: one by one.
        """
        return [_answer(self, node, question) for question in questions]


class World(Nodes, Protocol):
    """Everything a target gives access to."""

    @property
    def cluster(self) -> Cluster: ...

    @property
    def clock(self) -> Clock: ...


def _answer(nodes: Nodes, node: str, question: Question) -> Answer:
    try:
        match question:
            case Command(argv=argv, timeout=timeout):
                return nodes.shell(node).run(argv, timeout=timeout)
            case Transaction(database=database, operations=operations, timeout=timeout):
                return nodes.ovsdb(node).transact(database, operations, timeout=timeout)
    except PortError as error:
        return error
