"""What the end of a run asks does not grow with the nodes that it waits for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from crash.lives import job_of, live
from support.planning import world_spec

CASE = Path(__file__).parents[1] / "cases" / "policy" / "done-by-hand.yaml"
POLLED = ("NodeNetworkConfigurationPolicy", "NodeNetworkConfigurationEnactment")


def asked_at_the_end(folder: Path, nodes: int) -> Counter[str]:
    """The reads after a shared policy was applied to so many nodes, but for the looks of a wait, which cost by time."""
    case: Any = yaml.safe_load(CASE.read_text())
    spec = world_spec(case["world"])
    spec |= {"nodes": {f"worker-{number:02d}": {} for number in range(1, nodes + 1)}, "vms": {}}
    job = job_of(folder, spec, {"network.yaml": case["desired"]})
    ended = live(job.folder, "apply", "--twin", "world", "--auto-approve").wait()
    assert ended.code == 0, ended.text
    assert f"policy ovsplan-vmnet is Available on {nodes} nodes" in ended.out
    calls = [(call.verb, call.text.split()[0]) for call in job.log() if call.port == "cluster"]
    applied = next(i for i, (verb, kind) in enumerate(calls) if verb == "apply" and kind == POLLED[0])
    return Counter(
        kind for verb, kind in calls[applied:] if verb in ("get", "list") and kind not in (*POLLED, "Lease")
    )


def test_a_policy_for_all_nodes_is_awaited_on_all_of_them_at_once(tmp_path: Path) -> None:
    few, more = (asked_at_the_end(tmp_path / str(nodes), nodes) for nodes in (2, 7))
    assert few["Node"] > 0
    assert more == few
