"""From a World and desired files to a plan, as the command line goes there, without a terminal.

Invariant: nothing here decides anything; whatever a plan says is the program's own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from engine.observe import observe_for_plan
from plans.desired import Desired, load_desired
from plans.document import Plan, Target
from plans.facts import Facts
from plans.planner import make_plan
from providers.interpreters import Interpreter
from providers.twin import TwinWorld, init_world, open_world

BASE = Path(__file__).parents[1] / "cases" / "base.yaml"
TARGET = Target("the-cluster", "SIMULATED base")

HOT = """\
apiVersion: ovsplan.io/v1alpha1
kind: VMNetwork
metadata: {name: vmnet}
spec: {bridge: br-phy, replaces: {bridge: br-vmdata}}
"""
COLD = f"""\
{HOT}---
apiVersion: ovsplan.io/v1alpha1
kind: Rollout
metadata: {{name: tonight}}
spec: {{evacuate: {{}}}}
"""


def merged(base: Any, over: Any) -> Any:
    """`over` laid upon `base`: mappings field by field, null takes a field away, anything else replaces."""
    if not isinstance(base, Mapping) or not isinstance(over, Mapping):
        return over
    both = {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}
    return {key: value for key, value in both.items() if value is not None}


def world_spec(over: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The base world's spec with `over` laid upon it."""
    spec: dict[str, Any] = merged(yaml.safe_load(BASE.read_text())["spec"], over or {})
    return spec


def make_world(folder: Path, over: Mapping[str, Any] | None = None) -> TwinWorld:
    """A twin of the base world with `over` laid upon it."""
    init_world(world_spec(over), folder)
    return open_world(folder)


def declared(*texts: str) -> Desired:
    """Desired state from YAML texts."""
    return load_desired([(f"{'abcdefgh'[i]}.yaml", text) for i, text in enumerate(texts)])


def observed(world: TwinWorld, desired: Desired) -> Facts:
    """All that planning looks at."""
    return observe_for_plan(Interpreter(world), world.clock, desired)


def planned(
    world: TwinWorld, desired: Desired, *, accepted: Collection[str] = (), only: Collection[str] = ()
) -> Plan:
    """The plan for a world."""
    return make_plan(desired, observed(world, desired), TARGET, accepted=accepted, only=only)
