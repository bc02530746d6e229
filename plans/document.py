"""The plan document: a plan as data, canonical and self-checking.

Same inputs give the same bytes: keys sorted, nothing of the clock, nothing of the machine. The digest covers all of
it, so a plan file that was edited by hand is told from one that was reviewed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from plans.actions import Action
from plans.errors import InputError

FORMAT = 2
"""The version of the plan document. A reader refuses one that it does not know."""


@dataclass(frozen=True, slots=True)
class Target:
    """The cluster that a plan is for. `identity` never changes for it; `title` is the screen's first line."""

    identity: str
    title: str


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One hazard found. `accepted`: by the user, by id. `way_out` says what to do instead.

    `leaves_out`: the addresses of changes that are left out of the plan when it is accepted, because to make them all
    the same would be to break what they are for.
    """

    id: str
    level: Literal["block", "warn"]
    node: str
    objects: tuple[str, ...]
    message: str
    way_out: str
    accepted: bool = False
    leaves_out: tuple[str, ...] = ()

    @property
    def blocks(self) -> bool:
        """Whether it stops the plan."""
        return self.level == "block" and not self.accepted


@dataclass(frozen=True, slots=True)
class ShownChange:
    """One change as the plan shows it: by which delivery, and why by that one."""

    address: str
    verb: Literal["+", "~", "-", "-/+"]
    before: str
    after: str
    why: str
    delivery: str = ""
    delivery_why: str = ""
    phase: str = "node"


@dataclass(frozen=True, slots=True)
class ShownBlocked:
    """One change that is wanted and can't be made, with every reason."""

    address: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What the plan says of one node. `unreadable` is why nothing could be told of it.

    `ways`: how VMs leave, where it needs saying; `restarting`: those that are stopped and started elsewhere; `proof`: by what
    its new path is proven; `reboots`: the node itself restarts; `labels`: how each label by which it is led
    changes.
    """

    node: str
    shape: str
    why: str
    delivery: str
    changes: tuple[ShownChange, ...]
    blocked: tuple[ShownBlocked, ...]
    leaving: tuple[str, ...]
    staying: tuple[str, ...]
    dark: tuple[str, ...]
    affected: tuple[str, ...]
    unreadable: str = ""
    ways: tuple[str, ...] = ()
    restarting: tuple[str, ...] = ()
    proof: str = ""
    reboots: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole plan. `actions` stand in the order in which they run; `cluster` are the changes that belong to no node.

    `afterwards`: what a person has to know once it is done, a sentence each.
    """

    format: int
    target: Target
    desired_digest: str
    nodes: tuple[NodePlan, ...]
    findings: tuple[Finding, ...]
    actions: tuple[Action, ...]
    cluster: tuple[ShownChange, ...] = ()
    cluster_blocked: tuple[ShownBlocked, ...] = ()
    afterwards: tuple[str, ...] = ()
    digest: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.actions

    @property
    def is_partial(self) -> bool:
        """Whether something that is wanted is left out, so that an apply of it can't end with "done"."""
        return bool(self.cluster_blocked) or any(n.unreadable or n.blocked for n in self.nodes)

    def blocking(self) -> list[Finding]:
        """The hazards that stop it."""
        return [f for f in self.findings if f.blocks]

    def action(self, name: str) -> Action | None:
        """The action of that id."""
        return next((a for a in self.actions if a.id == name), None)


def canonical(value: Any) -> str:
    """JSON with one spelling. Of a dataclass the planner's private fields are left out."""
    return _ENCODER.encode(value)


def _as_object(value: Any) -> dict[str, Any]:
    """A dataclass as the object that its JSON is."""
    if not is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"no JSON: {value!r}")
    return {name: getattr(value, name) for name in _fields_of(type(value))}


@cache
def _fields_of(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass that its JSON has."""
    names = [f.name for f in fields(kind)]
    return tuple(name for name in names if name != "changes" or "op" not in names)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_as_object)


def pieces(plan: Plan) -> Iterator[str]:
    """The text of `canonical`, bit by bit: that of a large plan and its values as JSON are never held whole."""
    opening = "{"
    for name in sorted(_fields_of(Plan)):
        value = getattr(plan, name)
        yield f'{opening}"{name}":'
        if isinstance(value, tuple):
            yield "["
            for number, element in enumerate(value):
                yield f"{',' if number else ''}{canonical(element)}"
            yield "]"
        else:
            yield canonical(value)
        opening = ","
    yield "}"


def sealed(plan: Plan) -> Plan:
    """The plan with its digest."""
    return replace(plan, digest=_digest(plan))


def _digest(plan: Plan) -> str:
    found = hashlib.sha256()
    for piece in pieces(replace(plan, digest="")):
        found.update(piece.encode())
    return found.hexdigest()


def write(plan: Plan) -> str:
    """The plan file's text, whole; `lines` for a large one."""
    return "".join(lines(plan))


def lines(plan: Plan) -> Iterator[str]:
    """The plan file's text, bit by bit."""
    yield from pieces(plan)
    yield "\n"


_ADAPTER: TypeAdapter[Plan] | None = None


def _adapter() -> TypeAdapter[Plan]:
    global _ADAPTER
    if _ADAPTER is None:
        _ADAPTER = TypeAdapter(Plan)
    return _ADAPTER


def read(text: str, source: str) -> Plan:
    """The plan in a plan file's text. Raises InputError for anything but a plan as this program wrote it."""
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise InputError(
            f"{source} is not a plan file: it is not JSON ({error}). Make one with `ovsplan plan --out FILE`."
        ) from error
    if not isinstance(raw, dict) or "format" not in raw or "actions" not in raw:
        raise InputError(
            f"{source} is not a plan file: it has no plan in it. Make one with `ovsplan plan --out FILE`."
        )
    if raw["format"] != FORMAT:
        raise InputError(
            f"{source} has plan format {raw['format']}; this version of ovsplan reads format {FORMAT}. "
            "Use the version that made it, or plan again."
        )
    try:
        plan = _adapter().validate_python(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{source} is damaged: {where}: {first['msg']}. Plan again.") from error
    del raw
    if plan.digest != _digest(plan):
        raise InputError(
            f"{source} was changed after it was made: its digest does not fit. What was reviewed is not what it says; plan again."
        )
    return plan
