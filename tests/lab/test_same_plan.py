"""The same files, planner and executor on the twin and on real daemons: two plans that differ in observed values only.

Invariant: what is compared is the whole document; only what a target observes by itself is taken out first.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from deepdiff import DeepDiff

from cli.target import open_target
from engine.observe import observe_for_plan
from plans.desired import load_desired
from plans.document import Target, canonical
from plans.planner import make_plan
from providers.interpreters import Interpreter
from providers.twin import init_world

from .job import EXAMPLES, lab_of

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("needs_daemons")]

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
OBSERVED = {"ofport", "mtu", "link_state", "error", "uuid"} | {
    "ingress_policing_rate",
    "ingress_policing_burst",
    "bond_downdelay",
}
"""Columns of a restored bridge that only its own daemons can know, or that the twin does not keep."""


def document(example: str, desired: str, **where: str | None) -> Any:
    """The plan for a target, without what is observed: UUIDs, port numbers, and what daemons report of themselves."""
    info, world = open_target(**{"twin": None, "context": None, "target": None, **where})
    files = sorted((EXAMPLES / example / desired).glob("*.yaml"))
    wanted = load_desired([(file.name, file.read_text()) for file in files])
    facts = observe_for_plan(Interpreter(world), world.clock, wanted)
    plan = json.loads(canonical(make_plan(wanted, facts, Target(info.identity, "the target"))))
    text = re.sub(r"in_port=\d+", "in_port=N", UUID.sub("UUID", json.dumps(plan)))
    found = json.loads(text)
    return _stripped(
        {key: value for key, value in found.items() if key not in ("target", "digest", "findings")}
    )


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stripped(v) for key, v in value.items() if key not in OBSERVED and key != "rule"}
    if isinstance(value, list):
        return [_stripped(v) for v in value if not _is_told_by_daemons_alone(v)]
    return value


def _is_told_by_daemons_alone(value: Any) -> bool:
    """An effect on the ports of br-int, which are named by whoever plugs the VMs, or on the `mtu` column of a card."""
    path = str(value.get("path", "")) if isinstance(value, dict) else ""
    return path.endswith("/ovs/bridge/br-int") or "/ovs/mtu/" in path


@pytest.mark.parametrize(
    "example, desired", [("uplink-alive", "hot"), ("uplink-alive", "cold"), ("orphaned", "desired")]
)
def test_plans_for_twin_and_daemons_differ_in_observed_values_only(
    example: str, desired: str, tmp_path: Path
) -> None:
    twin = tmp_path / "twin"
    init_world(yaml.safe_load((EXAMPLES / example / "world.yaml").read_text()), twin)
    on_twin = document(example, desired, twin=str(twin))
    with lab_of(example, tmp_path) as lab:
        lab.steady()
        on_daemons = document(example, desired, target=str(lab.target))
    assert len(on_twin["actions"]) > 10
    assert DeepDiff(on_twin, on_daemons, ignore_order=False).to_dict() == {}
