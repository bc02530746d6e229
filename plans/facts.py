"""Facts: what is known about the world, path by path.

A fact is Known, Absent, or Unknown with a reason; a *predicted* fact may also be Later. Unknown is never Absent: code
that needs a value must say what it does with the other answers, which is why there is no plain `get` of a value.

Paths look like `node/worker-01/ovs/mapping/vmnet`. A path ending in `/*` says what every path below it is when it is
not listed: a node whose database was read whole has `node/worker-01/ovs/*` Absent; one that could not be read has it
Unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NewType

Json = Any
"""Plain JSON: dict, list, str, int, float, bool, None."""

FactPath = NewType("FactPath", str)
NodeName = NewType("NodeName", str)

KNOWN_AFTER_APPLY = "(known after apply)"


@dataclass(frozen=True, slots=True)
class Known:
    """The value, as plain JSON."""

    value: Json


@dataclass(frozen=True, slots=True)
class Absent:
    """Asked, and there is none."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Could not be asked, or the answer made no sense: `why` says which."""

    why: str


@dataclass(frozen=True, slots=True)
class Later:
    """Only the run can know. `action` brings it about, within `rule`, a sentence for people."""

    action: str
    rule: str


Fact = Known | Absent | Unknown | Later
ABSENT = Absent()


class Facts:
    """A set of facts. Read-only; `with_changes` makes the next one without copying the old."""

    __slots__ = ("_below", "_own")

    def __init__(self, own: Mapping[str, Fact], below: Facts | None = None) -> None:
        self._own = own
        self._below = below

    def get(self, path: str) -> Fact:
        """The fact at `path`; an unlisted path takes the nearest `/*` above it, or is Unknown."""
        found = self._exact(path)
        if found is not None:
            return found
        parent = path
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            found = self._exact(f"{parent}/*")
            if found is not None:
                return found
        return Unknown(f"{path} was not observed")

    def value(self, path: str, default: Json = None) -> Json:
        """The value of a Known fact, else `default`. For display and for optional detail only."""
        fact = self.get(path)
        return fact.value if isinstance(fact, Known) else default

    def with_changes(self, changes: Iterable[tuple[str, Fact]]) -> Facts:
        """These facts with some replaced; a chain deeper than 32 is flattened."""
        layer = dict(changes)
        depth, base = 0, self
        while base._below is not None and depth < 32:
            base, depth = base._below, depth + 1
        if depth < 32:
            return Facts(layer, self)
        return Facts({**dict(self.items()), **layer})

    def items(self) -> Iterator[tuple[str, Fact]]:
        """Every listed path once, with its newest fact."""
        seen: set[str] = set()
        layer: Facts | None = self
        while layer is not None:
            for path, fact in layer._own.items():
                if path not in seen:
                    seen.add(path)
                    yield path, fact
            layer = layer._below

    def _exact(self, path: str) -> Fact | None:
        layer: Facts | None = self
        while layer is not None:
            found = layer._own.get(path)
            if found is not None:
                return found
            layer = layer._below
        return None


class Draft(Facts):
    """Facts that a planner changes in place as it walks the plan: cheap for long plans."""

    __slots__ = ("_layer",)

    def __init__(self, base: Facts) -> None:
        self._layer: dict[str, Fact] = {}
        super().__init__(self._layer, base)

    def change(self, changes: Iterable[tuple[str, Fact]]) -> None:
        """Replace some facts from here on."""
        self._layer.update(changes)


@dataclass(frozen=True, slots=True)
class Observation:
    """Facts together with whose they are. `identity` names the cluster by what never changes."""

    identity: str
    facts: Facts


def show(fact: Fact) -> str:
    """A fact as people read it."""
    match fact:
        case Known(value):
            return show_value(value)
        case Absent():
            return "absent"
        case Unknown(why):
            return f"unknown ({why})"
        case Later():
            return KNOWN_AFTER_APPLY


def show_value(value: Json) -> str:
    """A JSON value as people read it: bare text, lists joined by commas."""
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(show_value(v) for v in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{k}={show_value(v)}" for k, v in sorted(value.items())) or "none"
    return str(value)
