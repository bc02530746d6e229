"""Facts: what was not asked is never taken for absent."""

from __future__ import annotations

import pytest

from plans.facts import ABSENT, Draft, Fact, Facts, Known, Later, Unknown, show

NODE = {
    "node/a/ovs/*": ABSENT,
    "node/a/ovs/mapping/vmnet": Known("br-phy"),
    "node/b/ovs/*": Unknown("no route"),
}


def test_a_path_below_a_whole_reading_is_absent_when_unlisted() -> None:
    assert Facts(NODE).get("node/a/ovs/mapping/storage") == ABSENT


def test_a_path_below_a_failed_reading_is_unknown_with_its_reason() -> None:
    assert Facts(NODE).get("node/b/ovs/mapping/vmnet") == Unknown("no route")


def test_a_path_that_nobody_asked_for_is_unknown_and_not_absent() -> None:
    assert Facts(NODE).get("node/c/ovs/mapping/vmnet") == Unknown("node/c/ovs/mapping/vmnet was not observed")


def test_the_nearest_star_decides() -> None:
    facts = Facts({"a/*": ABSENT, "a/b/*": Unknown("malformed")})
    assert facts.get("a/b/c/d") == Unknown("malformed")
    assert facts.get("a/x") == ABSENT


def test_a_default_never_stands_for_a_value() -> None:
    facts = Facts({**NODE, "later": Later("the run", "somewhere")})
    assert [facts.value(p, "default") for p in ("node/a/ovs/x", "node/b/ovs/x", "later")] == ["default"] * 3
    assert facts.value("node/a/ovs/mapping/vmnet", "default") == "br-phy"


def test_changes_leave_the_facts_that_they_were_made_from_alone() -> None:
    before = Facts(NODE)
    after = before.with_changes([("node/a/ovs/mapping/vmnet", Known("br-new"))])
    assert before.value("node/a/ovs/mapping/vmnet") == "br-phy"
    assert after.value("node/a/ovs/mapping/vmnet") == "br-new"


def test_a_long_chain_of_changes_keeps_the_newest_and_the_oldest() -> None:
    facts = Facts({"first": Known(0), "n": Known(-1)})
    for n in range(100):
        facts = facts.with_changes([("n", Known(n)), (f"n/{n}", Known(n))])
    assert (facts.value("first"), facts.value("n"), facts.value("n/0"), facts.value("n/99")) == (0, 99, 0, 99)
    assert dict(facts.items())["n"] == Known(99)


def test_a_draft_changes_in_place_and_not_its_base() -> None:
    base = Facts({"n": Known(1)})
    draft = Draft(base)
    draft.change([("n", ABSENT)])
    assert (draft.get("n"), base.get("n")) == (ABSENT, Known(1))


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        (Known("br-phy"), "br-phy"),
        (Known(""), '""'),
        (Known(True), "yes"),
        (Known([]), "none"),
        (Known(["a", 2]), "a, 2"),
        (Known({"vmnet": "br-phy", "a": "b"}), "a=b, vmnet=br-phy"),
        (ABSENT, "absent"),
        (Unknown("no route to host"), "unknown (no route to host)"),
        (Later("the run", "a schedulable node"), "(known after apply)"),
    ],
)
def test_a_fact_as_people_read_it(fact: Fact, text: str) -> None:
    assert show(fact) == text
