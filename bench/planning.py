"""How long a plan takes, by the number of nodes, in clusters that are alike but for their size.

Invariant: the answers of the cluster are made up here, and everything after them (reading, diff, order, hazards,
prediction, document) is the program's own; nothing of a plan is made up.
"""

from __future__ import annotations

import gc
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import correlation, linear_regression
from typing import Any

from bench.results import Bar, Result
from engine.observe import observe_for_plan
from plans.document import Target, write
from plans.nmstate.ownership import NM_MARK
from plans.ops import AnyOp, CommandRequest, ListRequest, SelectRequest
from plans.planner import make_plan
from plans.readings import AnyRequest, NoReply, Reply
from providers.interpreters import Interpreter
from tests.support.planning import COLD, HOT, declared, make_world
from tests.support.switches import INNER, OUTER, interface, patch, rows

_SIZES = (100, 300, 1000)
_TWIN_SIZES = (10, 30, 100)
_VMS = 5
_STARTED = 1_768_000_000
_WORKER = {"node-role.kubernetes.io/worker": ""}
OVN_VERSION = "ovn-controller 23.03.1\n"
DATAPATH = f"""\
netdev@ovs-netdev: hit:1 missed:1
  br-int:
    br-int 65534/1: (tap)
    {INNER} 1/none: (patch: peer={OUTER})
  br-vmdata:
    bond0 1/2: (system)
    {OUTER} 2/none: (patch: peer={INNER})
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """`engine.reach.Hands` of a cluster of `size` nodes with five VMs each, all of them on br-vmdata."""

    size: int

    def await_news(self, requests: Any, seconds: float) -> bool:
        return False

    def ask(self, requests: Sequence[AnyRequest]) -> list[Reply]:
        return [self._reply(request) for request in requests]

    def _reply(self, request: AnyRequest) -> Reply:
        match request:
            case ListRequest(kind=kind):
                return self._objects(kind)
            case SelectRequest(tables=tables):
                found = switch()
                return {table: found[table] for table in tables}
            case CommandRequest(argv=("ovs-appctl", "dpif/show")):
                return DATAPATH
            case CommandRequest(argv=("ovn-appctl", *_)):
                return OVN_VERSION
        return NoReply(f"nobody answers {request}")

    def perform(self, op: AnyOp) -> tuple[str, Any]:
        raise NotImplementedError("planning changes nothing")

    def _objects(self, kind: str) -> list[dict[str, Any]]:
        names = [f"worker-{number:04d}" for number in range(1, self.size + 1)]
        match kind:
            case "Node":
                return [_node(name) for name in names]
            case "VirtualMachineInstance":
                return [
                    _vmi(number * _VMS + i, name) for number, name in enumerate(names) for i in range(_VMS)
                ]
            case "NetworkAttachmentDefinition":
                return [_network()]
        return []


@dataclass(frozen=True, slots=True)
class StillClock:
    """One instant."""

    def now(self) -> float:
        return float(_STARTED + 3600)

    def wait_until(self, instant: float) -> None:
        raise NotImplementedError("planning waits for nothing")


def measure() -> Result:
    """Time plans of growing clusters; the sizes take turns, two rounds, the better of each counts."""
    seconds = {name: _best_of_two(text) for name, text in (("hot", HOT), ("cold", COLD))}
    table = [
        (
            f"{size:,}",
            *(f"{seconds[name][size]:.2f}" for name in seconds),
            f"{seconds['hot'][size] / size * 1000:.2f}",
        )
        for size in _SIZES
    ]
    twin = ", ".join(f"{size} nodes {_observe_twin(size):.2f} s" for size in _TWIN_SIZES)
    return Result(
        f"planning: seconds by nodes, {_VMS} VMs a node",
        ("nodes", "hot", "cold", "hot, ms a node"),
        tuple(table),
        tuple(Bar(f"{name}: exponent", _exponent(found), 1.15) for name, found in seconds.items()),
        (*(f"{name}: {_fit(found)}" for name, found in seconds.items()), f"observing a twin, apart: {twin}"),
    )


def _best_of_two(text: str) -> dict[int, float]:
    found: dict[int, float] = {}
    for _ in range(2):
        for size in _SIZES:
            found[size] = min(found.get(size, math.inf), plan_seconds(size, text))
    return found


def plan_seconds(size: int, text: str) -> float:
    """Seconds from facts to the plan file's text."""
    desired = declared(text)
    facts = observe_for_plan(Cluster(size), StillClock(), desired)
    gc.collect()
    began = time.perf_counter()
    plan = make_plan(desired, facts, Target("bench", "bench"))
    text = write(plan)
    taken = time.perf_counter() - began
    assert len(plan.nodes) == size and not plan.blocking() and plan.actions[-2].ops, "not a plan to be timed"
    return taken


def _observe_twin(size: int) -> float:
    """Seconds to read all that a plan of a twin looks at."""
    names = [f"worker-{number:04d}" for number in range(1, size + 1)]
    net = {"net": {"nad": "default/vlan224"}}
    vms = {
        f"default/vm-{number}-{i}": {"node": name, "networks": net}
        for number, name in enumerate(names)
        for i in range(_VMS)
    }
    gone = {
        "nodes": {"worker-01": None, "worker-02": None},
        "vms": {"default/web-1": None, "default/web-2": None},
    }
    over = {"nodes": {**gone["nodes"], **{name: {} for name in names}}, "vms": {**gone["vms"], **vms}}
    with tempfile.TemporaryDirectory(prefix="ovsplan-bench-") as folder, ExitStack() as stack:
        world = make_world(Path(folder) / "world", over)
        stack.callback(world.close)
        began = time.perf_counter()
        observe_for_plan(Interpreter(world), world.clock, declared(HOT))
        return time.perf_counter() - began


def _exponent(seconds: Mapping[int, float]) -> float:
    """Of seconds = a * nodes ** exponent."""
    return _line([math.log(size) for size in seconds], [math.log(value) for value in seconds.values()])[0]


def _fit(seconds: Mapping[int, float]) -> str:
    slope, intercept, r2 = _line(list(seconds), list(seconds.values()))
    return f"seconds = {slope * 1000:.2f} ms * nodes {intercept:+.2f} s, R^2 = {r2:.4f}"


def _line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    slope, intercept = linear_regression(x, y)
    return slope, intercept, correlation(x, y) ** 2


def _node(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": _WORKER, "resourceVersion": "1"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"memory": "64Gi"},
        },
    }


def _vmi(number: int, node: str) -> dict[str, Any]:
    mac = f"02:00:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    return {
        "metadata": {"namespace": "default", "name": f"vm-{number:05d}", "uid": f"uid-{number}"},
        "spec": {
            "domain": {"memory": {"guest": "2Gi"}},
            "networks": [{"name": "net", "multus": {"networkName": "default/vlan224"}}],
        },
        "status": {
            "phase": "Running",
            "nodeName": node,
            "interfaces": [{"name": "net", "mac": mac}],
            "conditions": [{"type": "LiveMigratable", "status": "True"}],
        },
    }


def _network() -> dict[str, Any]:
    config = {"topology": "localnet", "name": "vlan224", "physicalNetworkName": "vmnet", "vlanID": 224}
    return {"metadata": {"namespace": "default", "name": "vlan224"}, "spec": {"config": json.dumps(config)}}


def switch(owner: str = "") -> dict[str, list[Any]]:
    """A node's database; `owner` is the profile of NetworkManager's that made its bridges."""
    tables = rows(
        {
            "br-int": {"br-int": [interface("br-int", "internal")], INNER: [patch(INNER, OUTER)]},
            "br-ex": {"br-ex": [interface("br-ex", "internal")]},
            "br-phy": {
                "br-phy": [interface("br-phy", "internal")],
                "ovs-bond": [interface("ens33"), interface("ens34")],
            },
            "br-vmdata": {
                "br-vmdata": [interface("br-vmdata", "internal")],
                "bond0": [interface("bond0")],
                OUTER: [patch(OUTER, INNER)],
            },
        },
        "physnet:br-ex,vmnet:br-vmdata",
    )
    for bridge in tables["Bridge"]:
        if bridge["name"] == "br-int":
            bridge["external_ids"] = ["map", [["ovn-startup-ts", str(_STARTED * 1000)]]]
        elif owner:
            bridge["external_ids"] = ["map", [[NM_MARK, owner]]]
    return tables
