"""A person's word on an action: told as such until something has looked at what the action was to change."""

from __future__ import annotations

import pytest
from support.planning import HOT, declared, make_world, planned

from plans.document import Plan
from plans.marks import marks
from plans.progress import StepState, progress

REMAP, REMOVE, PROVE = "worker-01/remap/vmnet", "worker-01/remove/br-vmdata", "worker-01/prove"
VERIFY, CORDON = "worker-01/verify", "worker-01/cordon"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    with make_world(tmp_path_factory.mktemp("twin") / "world") as world:
        return planned(world, declared(HOT))


def states(*steps: tuple[str, str], proven: bool = True) -> dict[str, StepState]:
    """Steps in the order in which they were begun or marked."""
    return {
        action: StepState(
            word, "ann: I looked", (proven and word == "done" and action == PROVE) or None, 0.0, (), order
        )
        for order, (action, word) in enumerate(steps, start=1)
    }


def marked(action: str) -> tuple[str, str]:
    return action, "marked-done"


def done(action: str) -> tuple[str, str]:
    return action, "done"


@pytest.mark.parametrize(
    ("steps", "by"),
    [
        ([marked(VERIFY)], ""),
        ([marked(REMAP), done(VERIFY)], VERIFY),
        ([marked(REMAP), done(PROVE)], PROVE),
        ([done(VERIFY), marked(REMAP)], ""),
        ([marked(REMOVE), done(PROVE)], ""),
        ([marked(REMOVE), marked(VERIFY)], ""),
        ([marked(REMOVE), (VERIFY, "failed")], ""),
        ([marked(REMAP), done("worker-02/verify")], ""),
        ([marked(VERIFY), done("look-back")], "look-back"),
        ([marked(CORDON), done(VERIFY), done("look-back")], ""),
        ([marked(PROVE), done(VERIFY), done("look-back")], ""),
    ],
    ids=[
        "nothing since", "its node was verified", "its node was proven", "verified before the word was given",
        "what was looked at before it in the plan", "another word", "a check that failed", "another node", "the look back",
        "nothing looks at a cordon", "a check is no proof of traffic",
    ],
)  # fmt: skip
def test_what_checks_a_marked_action(plan: Plan, steps: list[tuple[str, str]], by: str) -> None:
    first = next(action for action, word in steps if word == "marked-done")
    mark = marks(plan, states(*steps))[first]
    assert mark.checked_by == by
    assert str(mark) == "marked by hand 1970-01-01 00:00:00 UTC, ann: I looked; " + (
        f"verified since by {by}" if by else "not verified"
    )


@pytest.mark.parametrize(
    ("action", "later", "proven", "by"),
    [
        (CORDON, done(VERIFY), True, "run r2"),
        (REMAP, done(VERIFY), True, "run r2"),
        (REMAP, marked(VERIFY), True, ""),
        (REMAP, done("worker-02/verify"), True, ""),
        (PROVE, done(VERIFY), True, ""),
        (PROVE, done(PROVE), True, "run r2"),
        (PROVE, done(PROVE), False, ""),
    ],
)
def test_a_later_run_that_went_over_the_node_checks_it_too(
    plan: Plan, action: str, later: tuple[str, str], proven: bool, by: str
) -> None:
    runs = [("r2", plan, states(later, proven=proven))]
    assert marks(plan, states(marked(action)), runs)[action].checked_by == by


def test_a_row_that_rests_on_a_persons_word_is_not_told_as_done(plan: Plan) -> None:
    steps = states(marked(VERIFY), marked("worker-01/preflight"))
    (found, _) = progress(plan, steps)
    word = "marked by hand 1970-01-01 00:00:00 UTC, ann: I looked; not verified"
    assert (9, "Validate", "marked-done", f"{VERIFY}: {word}") in found.rows
    assert found.marked == (f"worker-01/preflight: {word}",), "it is in no row"
    assert found.unverified == 2


def test_a_row_whose_marked_action_was_checked_is_done(plan: Plan) -> None:
    (found, _) = progress(plan, states(marked(REMAP), done(VERIFY)))
    (row,) = [row for row in found.rows if row[0] == 8]
    assert row[2] == "done" and row[3].endswith(f"verified since by {VERIFY}")
    assert found.unverified == 0


def test_a_proof_that_somebody_marked_proves_nothing(plan: Plan) -> None:
    (found, _) = progress(plan, states(marked(PROVE)))
    assert found.proof == f"not proven ({PROVE} was marked by hand)"
