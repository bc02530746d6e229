"""What a plan predicted is what its run did: the same ops in the same order, and the world that it foretold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.planning import COLD, HOT, declared, make_world, observed, planned

from cli.wiring import Failures
from engine.execute import Executor, Signals
from engine.reach import Reporter
from plans.actions import Action
from plans.document import Plan
from plans.facts import KNOWN_AFTER_APPLY, Facts, show
from providers.interpreters import Interpreter
from providers.twin import TwinWorld
from state.journal import Journal
from state.store import Store

STAY = HOT + (
    "---\napiVersion: ovsplan.io/v1alpha1\nkind: Rollout\nmetadata: {name: tonight}\n"
    "spec: {evacuate: {vms: {default/web-1: stay}}}\n"
)
SILENT = {"vms": {"default/web-1": {"silent": True}}}
TWO = {"vms": {"default/web-3": {"node": "worker-01", "networks": {"net": {"nad": "default/vlan224"}}}}}
UNMAPPED = {"nodeDefaults": {"mappings": "physnet:br-ex,storage:br-storage"}}
SITUATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "hot": (HOT, {}),
    "hot, two on a node": (HOT, TWO),
    "hot, a silent VM": (HOT, SILENT),
    "hot, ovn-controller is down": (HOT, {"controllers": {"ovn-controller": "off"}}),
    "hot, ovn-controller just started": (HOT, {"ovnStarted": 3}),
    "cold": (COLD, {}),
    "cold, two on a node": (COLD, TWO),
    "some stay": (STAY, TWO),
    "orphaned": (HOT, {"nodeDefaults": {"nics": {"bond0": "down"}}}),
    "unmapped": (HOT, UNMAPPED),
    "cordoned by somebody else": (COLD, {"nodes": {"worker-02": {"cordoned": True}, "worker-03": {}}}),
}


@dataclass(frozen=True, slots=True)
class Applied:
    """A run that is over; `after` has what was there when each action ended."""

    plan: Plan
    journal: Journal
    after: Mapping[str, Facts]
    world: TwinWorld
    desired: str


class Looking(Reporter):
    """Looks at the whole world when an action has ended."""

    def __init__(self, world: TwinWorld, desired: str) -> None:
        self._world, self._desired = world, declared(desired)
        self.after: dict[str, Facts] = {}

    def action_ends(self, action: Action, status: str, note: str, seconds: float) -> None:
        self.after[action.id] = observed(self._world, self._desired)


@pytest.fixture(scope="module")
def stores() -> Iterator[list[Any]]:
    """What has to be closed when the runs have been looked at."""
    opened: list[Any] = []
    yield opened
    for one in opened:
        one.close()


@pytest.fixture(scope="module", params=SITUATIONS)
def applied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, stores: list[Any]
) -> Applied:
    text, over = SITUATIONS[request.param]
    folder: Path = tmp_path_factory.mktemp("run")
    world, store = make_world(folder / "world", over), Store(folder / "state.db", "c", create=True)
    stores += [world, store]
    plan = planned(world, declared(text))
    journal = Journal(store)
    run = journal.start_run(plan, "run-1", world.clock.now(), "ann", "0")
    looking = Looking(world, text)
    Executor(
        Interpreter(world),
        Failures(),
        world.clock,
        journal,
        run,
        plan,
        reporter=looking,
        signals=Signals(),
    ).execute()
    return Applied(plan, journal, looking.after, world, text)


NEEDLESS = ("unless ovn-controller was first", "once more")
"""Of what was foretold, only what OVN or vswitchd did by themselves may be left out."""


def test_every_op_that_changes_the_world_was_foretold_and_no_other_was_done(applied: Applied) -> None:
    for action in applied.plan.actions:
        events = applied.journal.events("run-1", action.id)
        done = [str(e.op["title"]) for e in events if e.op["op"] not in ("wait", "record")]
        foretold = [op.title for op in action.ops if op.op not in ("wait", "record")]
        assert [title for title in _without(foretold, done) if not title.endswith(NEEDLESS)] == [], action.id


def _without(foretold: list[str], done: list[str]) -> list[str]:
    """What of `foretold` was not done; fails when something else was, or in another order."""
    left, rest = [], list(done)
    for title in foretold:
        if rest[:1] == [title]:
            rest.pop(0)
        else:
            left.append(title)
    assert rest == [], f"{done} is not within {foretold}"
    return left


def test_each_action_left_the_world_as_it_was_foretold(applied: Applied) -> None:
    told = 0
    for action in applied.plan.actions:
        for effect in action.effects:
            # br-int also has the ports of VMs, which come and go as they migrate.
            if effect.after != KNOWN_AFTER_APPLY and not effect.path.endswith("/bridge/br-int"):
                found = show(applied.after[action.id].get(effect.path))
                assert found == effect.after, f"{action.id}: {effect.path}"
                told += 1
    assert told > 5


def test_a_second_plan_has_nothing_to_do(applied: Applied) -> None:
    again = planned(applied.world, declared(applied.desired))
    assert again.is_empty and not again.is_partial


def test_every_vm_is_reachable_afterwards(applied: Applied) -> None:
    for vm in applied.after["inventory"].value("cluster/vms"):
        assert applied.world.reachable(vm) == (True, ""), vm
