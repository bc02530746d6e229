"""Checks: a path, a test, a value, and why it matters.

The one invariant: a check on something that was not observed neither holds nor fails. It cannot tell, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from plans.facts import Absent, Fact, Facts, Known, Later, Unknown, show, show_value

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
                return f"{self.path} has {_elements(self.value)}"
            case "min":
                return f"{self.path} is at least {self.value}"
            case "subset_of":
                return f"{self.path} has nothing but {_elements(self.value)}"


@dataclass(frozen=True, slots=True)
class Holds:
    """The check is met."""


@dataclass(frozen=True, slots=True)
class Fails:
    """The check is not met: `found` is what is there instead, as people read it."""

    check: Check
    found: str

    def __str__(self) -> str:
        why = f" ({self.check.why})" if self.check.why else ""
        return f"expected: {self.check}; found: {self.found}{why}"


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
    return Holds() if _met(check, fact) else Fails(check, show(fact))


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


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _elements(values: Any) -> str:
    return (
        ", ".join(" ".join(str(v) for v in e) if isinstance(e, list | tuple) else str(e) for e in values)
        or "nothing"
    )
