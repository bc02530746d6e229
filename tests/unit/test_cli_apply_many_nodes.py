"""What a run asks for one node does not grow with the others, nor does what its end asks for all of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from crash.lives import job_of, live
from support.planning import HOT, world_spec

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


def asked_while_hot(folder: Path, nodes: int) -> Counter[str]:
    """All requests of an apply to so many nodes with a VM each; a list of all objects of a kind is `all KIND`."""
    names = {f"worker-{number:02d}": f"default/web-{number}" for number in range(1, nodes + 1)}
    net = {"net": {"nad": "default/vlan224"}}
    spec = world_spec() | {
        "nodes": {name: {} for name in names},
        "vms": {vm: {"node": name, "networks": net} for name, vm in names.items()},
    }
    job = job_of(folder, spec, {"network.yaml": HOT})
    ended = live(job.folder, "apply", "--twin", "world", "--auto-approve", "--no-copy").wait()
    assert ended.code == 0, ended.text
    found: Counter[str] = Counter()
    for call in job.log():
        kind, *limits = call.text.split(" ", 1)
        narrow = any(
            limit.startswith(("metadata.name=", "kubevirt.io/")) for limit in " ".join(limits).split()
        )
        wide = call.port == "cluster" and call.verb == "list" and not narrow
        found[f"all {kind}" if wide else f"{call.port} {call.verb}"] += 1
    return found


def test_a_node_costs_the_same_requests_whatever_the_others(tmp_path: Path) -> None:
    """A list of a kind is as long as the cluster is large: each one too many for a node makes a run quadratic."""
    one, two, three = (asked_while_hot(tmp_path / str(nodes), nodes) for nodes in (1, 2, 3))
    for each in (one, two, three):
        del each["cluster patch"]  # the Lease is renewed by the wall's clock
    assert three - two == two - one
    wide = {name: count for name, count in (two - one).items() if name.startswith("all ")}
    assert wide["all Node"] <= 2 and wide["all Lease"] <= 2
    assert wide["all VirtualMachineInstance"] <= 9 and wide["all NetworkAttachmentDefinition"] <= 9
