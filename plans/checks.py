"""Checks: a path, a test, a value, and why it matters.

The one invariant: a check on something that was not observed neither holds nor fails. It cannot tell, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from plans.facts import Absent, Fact, Facts, Known, Later, Unknown, show, show_value

LONGEST_SHOWN = 120
"""Characters of one value that a person gets to see where it is not as expected: a document is not for a line."""

MOST_SHOWN = 4
"""How many differences of one document are told."""

Test = Literal["eq", "ne", "absent", "present", "has", "min", "subset_of"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be so.

    Tests: `eq`, `ne` compare with `value` (an absent fact differs from every value); `absent`, `present` take no
    value; `has`: a list holds every element of the list `value`; `min`: a number, or the length of a list, is at
    least `value`; `subset_of`: every element of a list is in the list `value`.
    """

    path: str
    test: Test
    value: Any = None
    why: str = ""

    def __str__(self) -> str:
        match self.test:
            case "eq":
                return f"{self.path} is {show_value(self.value)}"
            case "ne":
                return f"{self.path} is not {show_value(self.value)}"
            case "absent" | "present":
                return f"{self.path} is {self.test}"
            case "has":
                return f"{self.path} has {_elements(self.value)}" if self.value else f"{self.path} is there"
            case "min":
                return f"{self.path} is at least {self.value}"
            case "subset_of":
                only = _elements(self.value)
                return f"{self.path} has nothing but {only}" if self.value else f"{self.path} is empty"


@dataclass(frozen=True, slots=True)
class Holds:
    """The check is met."""


@dataclass(frozen=True, slots=True)
class Fails:
    """The check is not met: `found` is what is there instead, as people read it.

    `differences`: of a document that was to be equal, each place where it is not.
    """

    check: Check
    found: str
    differences: tuple[str, ...] = ()

    def __str__(self) -> str:
        why = f" ({self.check.why})" if self.check.why else ""
        if self.differences:
            return f"{self.check.path} is not as expected: {'; '.join(_few(self.differences))}{why}"
        return f"expected: {self.check}; found: {self.found}{why}"

    @property
    def lines(self) -> list[str]:
        """What differs, by path: what was expected -> what is there."""
        path, why = self.check.path, f" ({self.check.why})" if self.check.why else ""
        if self.differences:
            return _few([f"{path}: {difference}" for difference in self.differences])
        expected = str(self.check).removeprefix(f"{path} ").removeprefix("is ")
        return [f"{path}: {expected} -> {self.found}{why}"]


@dataclass(frozen=True, slots=True)
class CannotTell:
    """The fact is unknown, or known only after apply."""

    check: Check
    why: str

    def __str__(self) -> str:
        return f"cannot tell whether {self.check}: {self.why}"


Verdict = Holds | Fails | CannotTell


def judge(check: Check, facts: Facts) -> Verdict:
    """Decide one check."""
    fact = facts.get(check.path)
    if isinstance(fact, Unknown):
        return CannotTell(check, fact.why)
    if isinstance(fact, Later):
        return CannotTell(check, f"known after {fact.action}")
    if _met(check, fact):
        return Holds()
    if check.test == "eq" and isinstance(fact, Known) and isinstance(check.value, dict):
        return Fails(check, show(fact), tuple(_differences(check.value, fact.value)))
    is_document = isinstance(fact, Known) and isinstance(fact.value, dict)
    return Fails(check, "there" if check.test == "absent" and is_document else _in_short(show(fact)))


def judge_all(checks: Iterable[Check], facts: Facts) -> list[Fails | CannotTell]:
    """Every check that does not hold, in order. Empty: all hold."""
    verdicts = (judge(check, facts) for check in checks)
    return [verdict for verdict in verdicts if not isinstance(verdict, Holds)]


def _met(check: Check, fact: Fact) -> bool:
    if isinstance(fact, Absent):
        return check.test in ("absent", "ne")
    assert isinstance(fact, Known)
    value = fact.value
    match check.test:
        case "eq":
            return bool(value == check.value)
        case "ne":
            return bool(value != check.value)
        case "absent":
            return False
        case "present":
            return True
        case "has":
            return all(_as_json(e) in value for e in check.value)
        case "min":
            return bool((len(value) if isinstance(value, list) else value) >= check.value)
        case "subset_of":
            return all(e in [_as_json(v) for v in check.value] for e in value)


def _differences(expected: Any, found: Any, at: str = "") -> Iterator[str]:
    """Each place, as a dotted path, where two JSON values differ: expected -> found."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted({*expected, *found}, key=str):
            path = f"{at}.{key}" if at else str(key)
            yield from _differences(expected.get(key, _NOTHING), found.get(key, _NOTHING), path)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _differences(one, other, f"{at}[{number}]")
    elif expected != found:
        yield f"{at}: {_short(expected)} -> {_short(found)}"


_NOTHING = object()


def _short(value: Any) -> str:
    return "absent" if value is _NOTHING else _in_short(show_value(value))


def _in_short(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]} …"


def _few(lines: Sequence[str]) -> list[str]:
    more = len(lines) - MOST_SHOWN
    return [*lines[:MOST_SHOWN], *([f"and {more} more"] if more > 0 else [])]


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _elements(values: Any) -> str:
    return ", ".join(" ".join(str(v) for v in e) if isinstance(e, list | tuple) else str(e) for e in values)
