"""Checks: each test on each sort of fact, and the text of what failed."""

from __future__ import annotations

from typing import Any

import pytest

from plans.checks import CannotTell, Check, Fails, Holds, judge, judge_all
from plans.facts import ABSENT, Facts, Known, Later, Unknown

FACTS = Facts(
    {
        "text": Known("br-phy"),
        "list": Known(["a", "b"]),
        "table": Known([["port", 224, "02:00"]]),
        "number": Known(15),
        "none": ABSENT,
        "unknown": Unknown("no route to host"),
        "later": Later("worker-01/evacuate", "somewhere"),
    }
)


@pytest.mark.parametrize(
    ("path", "test", "value", "met"),
    [
        ("text", "eq", "br-phy", True),
        ("text", "eq", "br-ex", False),
        ("none", "eq", "br-phy", False),
        ("text", "ne", "br-ex", True),
        ("text", "ne", "br-phy", False),
        ("none", "ne", "br-phy", True),
        ("none", "absent", None, True),
        ("text", "absent", None, False),
        ("text", "present", None, True),
        ("none", "present", None, False),
        ("list", "has", ["b"], True),
        ("list", "has", ["b", "c"], False),
        ("none", "has", ["b"], False),
        ("table", "has", [("port", 224, "02:00")], True),
        ("table", "has", [("port", 300, "02:00")], False),
        ("number", "min", 15, True),
        ("number", "min", 16, False),
        ("list", "min", 2, True),
        ("list", "min", 3, False),
        ("none", "min", 0, False),
        ("list", "subset_of", ["a", "b", "c"], True),
        ("list", "subset_of", ["a"], False),
        ("table", "subset_of", [("port", 224, "02:00")], True),
    ],
)
def test_each_test_on_what_is_known(path: str, test: Any, value: Any, met: bool) -> None:
    verdict = judge(Check(path, test, value), FACTS)
    assert isinstance(verdict, Holds if met else Fails)


@pytest.mark.parametrize("test", ["eq", "ne", "absent", "present", "has", "min", "subset_of"])
def test_what_was_not_observed_neither_holds_nor_fails(test: Any) -> None:
    asked = judge(Check("unknown", test, ["a"]), FACTS)
    assert isinstance(asked, CannotTell) and asked.why == "no route to host"
    ahead = judge(Check("later", test, ["a"]), FACTS)
    assert isinstance(ahead, CannotTell) and ahead.why == "known after worker-01/evacuate"


def test_what_failed_says_both_values_and_why_it_matters() -> None:
    check = Check("text", "eq", "br-vmdata", "somebody else moved it")
    assert str(judge(check, FACTS)) == ("expected: text is br-vmdata; found: br-phy (somebody else moved it)")
    assert str(judge(Check("none", "present"), FACTS)) == "expected: none is present; found: absent"
    assert str(judge(Check("unknown", "eq", 1), FACTS)) == (
        "cannot tell whether unknown is 1: no route to host"
    )


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (Check("p", "ne", True), "p is not yes"),
        (Check("p", "has", [["port", 224, "02:00"]]), "p has port 224 02:00"),
        (Check("p", "min", 15), "p is at least 15"),
        (Check("p", "subset_of", []), "p has nothing but nothing"),
        (Check("p", "absent"), "p is absent"),
    ],
)
def test_a_check_reads_as_a_sentence(check: Check, text: str) -> None:
    assert str(check) == text


def test_only_what_does_not_hold_is_told_and_in_order() -> None:
    checks = [Check("number", "min", 99), Check("text", "present"), Check("unknown", "present")]
    assert [v.check.path for v in judge_all(checks, FACTS)] == ["number", "unknown"]
