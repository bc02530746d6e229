"""Policies of ours that came to no good end, and what is done about them after a failure."""

from __future__ import annotations

import pytest

import plans.kinds
from plans.actions import Done, Finished, Next, Perform, Stop, find_routine
from plans.facts import ABSENT, Facts, Known, Unknown
from plans.nmstate.enactments import state_path
from plans.nmstate.enforcing import BETWEEN
from plans.nmstate.policies import EDITS
from plans.ops import Patch

assert plans.kinds  # its routines are registered by its import

KEY = "br-vmdata-migrated"
ARGS = {"node": "worker-01", "policy": "ovsplan-x", "label": {"key": KEY, "value": "yes"}}
ROUTINES = ("policy-remove-bridge@1", "enact-policy@1")


def rescue(routine: str, state: str, *, label: str = "yes", attempts: int = 0) -> Next:
    """What follows a failure while the policy's enactment is in that state."""
    told = Unknown("no route to host") if state == "unknown" else Known(state) if state else ABSENT
    facts = Facts({
        "node/worker-01/labels": Known({KEY: label}),
        state_path("worker-01", "ovsplan-x"): told,
        "policy/*": ABSENT,
        "cluster/policies": Known([]),
    })  # fmt: skip
    found = find_routine(routine).rescue
    assert found is not None
    return found(ARGS, facts, Done("run-1", attempts={"withdraw": attempts}))


@pytest.mark.parametrize("routine", ROUTINES)
@pytest.mark.parametrize("state", ["failed", "aborted", "retrying", "waiting", ""])
def test_a_policy_that_came_to_no_good_end_is_taken_from_its_node(routine: str, state: str) -> None:
    found = rescue(routine, state)
    assert isinstance(found, Perform)
    (op,) = found.ops
    assert isinstance(op, Patch) and op.patch == {"metadata": {"labels": {KEY: BETWEEN}}}


@pytest.mark.parametrize("routine", ROUTINES)
@pytest.mark.parametrize(("state", "label"), [("available", "yes"), ("unknown", "yes"), ("failed", "no")])
def test_one_that_the_node_obeys_or_is_not_told_to_is_left(routine: str, state: str, label: str) -> None:
    assert rescue(routine, state, label=label) == Finished()


@pytest.mark.parametrize("routine", ROUTINES)
def test_one_that_somebody_else_wants_is_left_to_him(routine: str) -> None:
    found = rescue(routine, "failed", attempts=EDITS)
    assert isinstance(found, Stop) and "somebody else wants it" in found.why
