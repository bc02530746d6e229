"""One plan of a whole cluster in a process of its own: `python -m bench.reading KUBECONFIG`; prints what it took as JSON.

Invariant: everything but the nodes is the program's own, from the connection to the plan's text. A node answers at once,
and each bundle of questions to it counts as the one `exec` that it is on a real cluster.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.planning import DATAPATH, OVN_VERSION, switch
from cli.planning import lacks, plan_for
from cli.target import TargetInfo
from cli.wiring import LANES, Opened
from plans.document import Plan, lines
from plans.readings import AnyRequest, Reply
from providers.interpreters import Interpreter
from providers.kubernetes import KubernetesCluster, SystemClock, connect
from providers.ports import Answer, Finished, Nodes, Question
from tests.support.planning import declared

DESIRED = """\
apiVersion: ovsplan.io/v1alpha1
kind: VMNetwork
metadata: {name: vmnet}
spec:
  bridge: br-phy
  delivery: {by: nncp, policy: br-vmdata-migrated}
  replaces: {bridge: br-vmdata, policies: [br-vmdata]}
"""


PROFILE = "5b1d5e0c-6a0b-4f7e-9d57-0f3a54c1d001"
_SAID = {
    "ovs-appctl": DATAPATH,
    "ovn-appctl": OVN_VERSION,
    "nmcli": f"{PROFILE}\n",
    "ping": "1 packets transmitted, 1 received, 0% packet loss\n",
}


class Node:
    """A node's shell and its database: alike on all nodes. `asked` counts questions, `visited` the ways to the node."""

    def __init__(self) -> None:
        self.asked = self.visited = 0
        self._tables = switch(owner=PROFILE)

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Finished:
        """As `providers.ports.NodeShell`."""
        self.asked += 1
        return Finished(0, _SAID[argv[0]], "")

    def transact(self, database: str, operations: Sequence[Any], *, timeout: float) -> list[Any]:
        """As `providers.ports.Ovsdb`."""
        self.asked += 1
        # As from a socket: each node's rows are objects of their own.
        return list(json.loads(json.dumps([{"rows": self._tables[each["table"]]} for each in operations])))


@dataclass
class Site(Nodes):
    """`providers.ports.World`: the real API, and nodes that answer by themselves."""

    cluster: KubernetesCluster
    clock: SystemClock = field(default_factory=SystemClock)
    node: Node = field(default_factory=Node)

    def ovsdb(self, node: str) -> Node:
        """Any node's database."""
        return self.node

    def shell(self, node: str) -> Node:
        """Any node's shell."""
        return self.node

    def ask(self, node: str, questions: Sequence[Question]) -> list[Answer]:
        """As on a way that puts together what goes to one node."""
        self.node.visited += 1
        return super().ask(node, questions)


class Hands(Interpreter):
    """The interpreter; knows when it was last asked."""

    last = 0.0

    def ask(self, requests: Sequence[AnyRequest]) -> list[Reply]:
        replies = super().ask(requests)
        self.last = time.perf_counter()
        return replies


def main(kubeconfig: str) -> None:
    """Connect, read, plan, rehearse, ask for permissions."""
    started = time.perf_counter()
    cluster, title, identity = connect("admin", kubeconfig)
    connected, before = time.perf_counter(), _peak()
    site = Site(cluster)
    hands = Hands(site, LANES)
    opened = Opened(TargetInfo("cluster", title, identity), site, hands, "")
    plan = plan_for(opened, declared(DESIRED))
    assert not lacks(opened, plan, copy=True)
    size = sum(map(len, lines(plan)))  # as it is written: bit by bit
    ended = time.perf_counter()
    print(json.dumps({
        "seconds": {"connect": connected - started, "read": hands.last - connected, "plan": ended - hands.last},
        "cpu": time.process_time(),
        "mib": {"before": before, "peak": _peak()},
        "asked": site.node.asked,
        "visited": site.node.visited,
        "text": size,
        **_checked(plan),
    }))  # fmt: skip


def _checked(plan: Plan) -> dict[str, int]:
    """Raises when the plan is none to be measured: blocked, or without what is to be done."""
    if plan.blocking() or not plan.actions or any(node.blocked or node.unreadable for node in plan.nodes):
        why = [str(finding) for finding in plan.blocking()] or [str(node) for node in plan.nodes[:2]]
        raise SystemExit(f"not a plan to be measured: {why[:2]}")
    return {"nodes": len(plan.nodes), "actions": len(plan.actions)}


def _peak() -> float:
    """The most memory that this process has had, in MiB. Not by getrusage: that begins with what its parent had."""
    (line,) = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(sys.argv[1])
