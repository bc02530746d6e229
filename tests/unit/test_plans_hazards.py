"""Accepting hazards: by an id that exists, each for itself, and only those that block."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.planning import HOT, TARGET, declared, make_world, observed, planned

from plans.errors import InputError
from plans.planner import make_plan

SICK = {"nodes": {"worker-02": {"ready": False, "mappings": "vmnet:br-vmdata"}}}


@pytest.mark.parametrize("name", ["H00", "H64", "h18", "H1", "18", "H018", "all", ""])
def test_what_is_no_hazards_id_is_refused(tmp_path: Path, name: str) -> None:
    with make_world(tmp_path / "world") as world:
        facts = observed(world, declared(HOT))
    with pytest.raises(InputError, match=f"--accept-hazard {name}: hazards are H01 to H"):
        make_plan(declared(HOT), facts, TARGET, accepted=[name])


def test_a_plan_is_blocked_until_every_hazard_is_accepted(tmp_path: Path) -> None:
    with make_world(tmp_path / "world", SICK) as world:
        left = [
            sorted({f.id for f in planned(world, declared(HOT), accepted=accepted).blocking()})
            for accepted in ([], ["H01"], ["H18"], ["H01", "H18"])
        ]
    assert left == [["H01", "H18"], ["H18"], ["H01"], []]


def test_accepting_what_was_not_found_accepts_nothing(tmp_path: Path) -> None:
    with make_world(tmp_path / "world") as world:
        plan = planned(world, declared(HOT), accepted=["H18", "H47"])
    assert not any(finding.accepted for finding in plan.findings)
