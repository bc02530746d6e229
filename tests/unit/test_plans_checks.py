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
        (Check("p", "has", []), "p is there"),
        (Check("p", "subset_of", ["a", "b"]), "p has nothing but a, b"),
        (Check("p", "subset_of", []), "p is empty"),
        (Check("p", "absent"), "p is absent"),
    ],
)
def test_a_check_reads_as_a_sentence(check: Check, text: str) -> None:
    assert str(check) == text


def test_only_what_does_not_hold_is_told_and_in_order() -> None:
    checks = [Check("number", "min", 99), Check("text", "present"), Check("unknown", "present")]
    assert [v.check.path for v in judge_all(checks, FACTS)] == ["number", "unknown"]


def miss(test: Any, value: Any, found: Any) -> Fails:
    verdict = judge(Check("at", test, value), Facts({"at": Known(found)}))
    assert isinstance(verdict, Fails)
    return verdict


def test_two_documents_differ_by_path() -> None:
    expected = {"vlan": 224, "ovn": {"pairs": [{"to": "br-phy"}]}, "mtu": 9000}
    found = {"vlan": 225, "ovn": {"pairs": [{"to": "br-ex"}]}, "extra": True}
    told = [
        "extra: absent -> yes",
        "mtu: 9000 -> absent",
        "ovn.pairs[0].to: br-phy -> br-ex",
        "vlan: 224 -> 225",
    ]
    assert miss("eq", expected, found).lines == [f"at: {line}" for line in told]
    assert str(miss("eq", expected, found)) == f"at is not as expected: {'; '.join(told)}"


def test_of_many_differences_a_few_are_told() -> None:
    lines = miss("eq", dict.fromkeys("abcdefg", 1), dict.fromkeys("abcdefg", 2)).lines
    assert lines == [*(f"at: {key}: 1 -> 2" for key in "abcd"), "and 3 more"]


@pytest.mark.parametrize(
    ("test", "value", "found", "line"),
    [
        ("eq", "br-phy", "br-ex", "at: br-phy -> br-ex"),
        ("absent", None, {"spec": "long"}, "at: absent -> there"),
        ("absent", None, ["bond0"], "at: absent -> bond0"),
        ("min", 1, [], "at: at least 1 -> none"),
        ("subset_of", [], ["a"], "at: empty -> a"),
    ],
)
def test_what_is_missed_fits_a_line(test: Any, value: Any, found: Any, line: str) -> None:
    assert miss(test, value, found).lines == [line]
