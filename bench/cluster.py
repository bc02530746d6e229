"""What a plan of a large cluster costs on a real API server: requests, seconds, memory; and the first sign of life.

Invariant: requests are counted in the server's own audit log, on both sides; the nodes' switches answer at once on
both, so that neither is charged for what a node does. The other side is the procedure's loop: every question to every
node is an `oc debug node/NODE`, which makes a pod, awaits it, enters it and deletes it.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, cast

from bench import site
from bench.reading import DESIRED, PROFILE
from bench.results import Bar, CannotRun, Result, spread
from plans.readings import NoReply, reading
from providers.interpreters import Interpreter
from providers.kubernetes import KubernetesCluster, connect
from providers.kubernetes.calls import PAGE
from providers.kubernetes.pod_exec import Container, Execs
from providers.node.pod import PodNodes
from providers.ports import World
from tests.apiserver.server import Answered, ApiServer, binaries
from tests.apiserver.server import CannotRun as NoServer

_NODES, _VMS_PER_NODE = 1000, 5
_PLANS, _STARTS, _SAMPLED = 3, 7, 10
_FIRST_LINE = 0.5
_AUDIT = {"rules": [{"level": "Metadata", "omitStages": ["RequestReceived"]}]}
_HOSTS = (
    ("openshift-multus", {"app": "multus"}, "kube-multus"),
    ("openshift-ovn-kubernetes", {"app": "ovnkube-node"}, "ovn-controller"),
)
_TOOLS = "/apis/image.openshift.io/v1/namespaces/openshift/imagestreamtags/tools:latest"

LOOP = {
    "the mappings": ("ovs-vsctl", "get", "Open_vSwitch", ".", "external_ids:ovn-bridge-mappings"),
    "the bridges": ("ovs-vsctl", "list-br"),
    "the bond": ("ovs-appctl", "bond/show", "ovs-bond"),
}
"""What the procedure's loops ask of each node, one `oc debug` each, and a plan reads too."""

_CREATE_AWAIT_ENTER_DELETE = 4
"""The requests without which no pod can be made, awaited, entered and deleted."""

_PROGRAMS = {
    "chroot": 'shift\nexec "$@"',
    "ovsdb-client": "echo '[{\"rows\":[]}]'",
    "ovs-vsctl": "echo vmnet:br-vmdata",
    "ovs-appctl": "echo system@ovs-system:",
    "ovn-appctl": "echo ovn-controller 25.03.0",
    "nmcli": f"echo {PROFILE}",
    "ping": "echo 1 packets transmitted, 1 received",
    "pidof": "exit 1",
}


@dataclass
class Measured:
    """What was seen, in the order in which it was seen. Seconds are of each turn."""

    plans: list[dict[str, Any]] = field(default_factory=list)
    requests: list[Counter[str]] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    ours: list[float] = field(default_factory=list)
    debug: list[float] = field(default_factory=list)
    trips: tuple[float, float] = (0.0, 0.0)
    """Requests for one node: ours, for all that a plan asks it; and the loop's."""

    finding: int = 0
    """Requests before the first node is entered: which pods there are."""


def measure(nodes: int = _NODES) -> Result:
    """Fill a server, plan it whole in processes of their own, and ask some nodes in both ways."""
    try:
        binaries()
    except NoServer as why:
        raise CannotRun(str(why)) from why
    with (
        tempfile.TemporaryDirectory(prefix="ovsplan-bench-") as folder,
        ApiServer.up(Path(folder) / "api", audit=_AUDIT) as server,
    ):
        seen = Measured()
        fill(server, nodes, _VMS_PER_NODE)
        seen.sizes = _sizes(server)
        for _ in range(_PLANS):
            with _counted(server) as requests:
                seen.plans.append(_planned(server))
            seen.requests.append(requests)
        seen.first = [_first_line(server, Path(folder)) for _ in range(_STARTS)]
        _ask_both_ways(server, seen, Path(folder) / "programs")
        return _result(seen, nodes)


def fill(server: ApiServer, nodes: int, vms_per_node: int) -> None:
    """Make the objects of a cluster of so many nodes."""
    generation = server.create(site.policy())["metadata"]["generation"]
    server.create_all(site.all_objects(nodes, vms_per_node))
    server.create_all(site.enactment(number, generation) for number in range(1, nodes + 1))


def _planned(server: ApiServer) -> dict[str, Any]:
    words = [sys.executable, "-m", "bench.reading", str(server.kubeconfig("admin"))]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout))


def _first_line(server: ApiServer, folder: Path) -> float:
    """Seconds from the start of `ovsplan plan` to the first thing that it says, on either stream."""
    (folder / "desired.yaml").write_text(DESIRED)
    script = Path(sys.executable).with_name("ovsplan")
    words = [str(script), "plan", "desired.yaml", "--context", "admin"]
    words += ["--kubeconfig", str(server.kubeconfig("admin"))]
    began = time.perf_counter()
    with subprocess.Popen(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as plan:
        assert plan.stdout is not None
        line = plan.stdout.readline()
        taken = time.perf_counter() - began
        # Before it gets to the nodes, which have nothing here that could be asked.
        plan.kill()
    assert line == "Planning for the cluster of context admin ...\n", line
    return taken


@contextmanager
def _counted(server: ApiServer) -> Iterator[Counter[str]]:
    """The requests that the server saw within the block, by verb and resource. Not counted: what a kubelet would do (a status),
    and what the server says to itself."""
    before = {event["auditID"] for event in server.audited()}
    found: Counter[str] = Counter()
    yield found
    # An exec and a watch have two events each: one when they begin.
    for event in {
        event["auditID"]: event for event in server.audited() if event["auditID"] not in before
    }.values():
        about = event.get("objectRef") or {}
        if event["user"]["username"] == "admin" and about.get("subresource") != "status":
            found[f"{event['verb']} {about.get('subresource') or about.get('resource') or 'discovery'}"] += 1


def _ask_both_ways(server: ApiServer, seen: Measured, programs: Path) -> None:
    """Some nodes, in turn by what a plan asks of each, and by the procedure's loop."""
    names = [f"asked-{number:02d}" for number in range(1, _SAMPLED + 1)]
    # The programs answer at once on both sides: what differs between the two is the way to them.
    programs.mkdir()
    for name, does in _PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{does}\n")
        (programs / name).chmod(0o755)
    server.add_nodes(dict.fromkeys(names, ("env", f"PATH={programs}:{os.environ['PATH']}")))
    for namespace, labels, container in _HOSTS:
        server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        for name in names:
            server.create(_pod(namespace, f"{container}-{name}", name, container, labels))
    cluster, _, _ = connect("admin", str(server.kubeconfig("admin")))
    nodes, execs = PodNodes(cluster, cluster.api_client), Execs(cluster.api_client)
    with _counted(server) as finding:
        _observe(nodes, names[0])
    _loop(server, cluster, execs, names[0])
    ours: Counter[str] = Counter()
    theirs: Counter[str] = Counter()
    for name in names:
        with _counted(server) as requests:
            began = time.perf_counter()
            _observe(nodes, name)
            seen.ours.append(time.perf_counter() - began)
        ours += requests
        with _counted(server) as requests:
            seen.debug.append(_loop(server, cluster, execs, name))
        theirs += requests
    cluster.close()
    seen.trips = (ours.total() / len(names), theirs.total() / len(names))
    seen.finding = finding.total() - round(seen.trips[0])


def _observe(nodes: PodNodes, node: str) -> None:
    """What a plan asks of a node."""
    views = (f"ovs:{node}", f"ovn:{node}", f"dp:{node}", f"profiles:{node}", f"ping:{node}:192.0.2.1")
    requests = [request for view in views for request in reading(view, 0.0).requests]
    replies = Interpreter(cast(World, nodes)).ask(requests)  # of a world only its nodes are asked here
    assert not any(isinstance(reply, NoReply) for reply in replies), replies


def _loop(server: ApiServer, cluster: KubernetesCluster, execs: Execs, node: str) -> float:
    """What the procedure asks of a node; the seconds that it took."""
    return sum(_debug(server, cluster, execs, node, words) for words in LOOP.values())


def _debug(
    server: ApiServer, cluster: KubernetesCluster, execs: Execs, node: str, words: Sequence[str]
) -> float:
    """The requests of `oc debug node/NODE -- chroot /host COMMAND`, without the image's start; the seconds they took."""
    pod = _pod("default", f"{node}-debug", node, "container-00", {})
    path = server.path("v1", "Pod", "default", f"{node}-debug")
    began = time.perf_counter()
    server.call("GET", server.path("v1", "Node", None, node))
    with suppress(Answered):  # there are no image streams here; it is asked all the same
        server.call("GET", _TOOLS)
    server.call("POST", server.path("v1", "Pod", "default"), {**pod, "status": {}})
    fields = {"metadata.name": f"{node}-debug"}
    since = cluster.list("v1", "Pod", namespace="default", fields=fields).resource_version
    paused = time.perf_counter()
    server.set_status(pod, pod["status"])
    pause = time.perf_counter() - paused
    next(cluster.watch("v1", "Pod", since=since, timeout=20, namespace="default", fields=fields))
    # It reads the log, which this kubelet does not keep; one request either way.
    execs.run(Container("default", f"{node}-debug", "container-00"), words, stdin=b"", timeout=20)
    server.call("DELETE", path, {"gracePeriodSeconds": 0})
    return time.perf_counter() - began - pause


def _pod(namespace: str, name: str, node: str, container: str, labels: dict[str, str]) -> site.Object:
    status = {"name": container, "image": "none", "imageID": "none", "ready": True, "restartCount": 0}
    running = {**status, "state": {"running": {"startedAt": "2026-01-15T01:00:00Z"}}}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": container, "image": "none"}]},
        "status": {"phase": "Running", "containerStatuses": [running]},
    }  # fmt: skip


def _sizes(server: ApiServer) -> dict[str, int]:
    """Bytes of one object of each of the kinds that there are many of."""
    kinds = (
        ("v1", "Node"), ("kubevirt.io/v1", "VirtualMachineInstance"), ("nmstate.io/v1beta1", "NodeNetworkState"),
        ("nmstate.io/v1beta1", "NodeNetworkConfigurationEnactment"),
    )  # fmt: skip
    found = {}
    for api, kind in kinds:
        (item,) = server.call("GET", f"{server.path(api, kind)}?limit=1")["items"]
        found[kind] = len(json.dumps(item))
    return found


def _result(seen: Measured, nodes: int) -> Result:
    requests, lists = int(median(r.total() for r in seen.requests)), seen.requests[0]
    asked, visited = seen.plans[0]["asked"], seen.plans[0]["visited"]
    finding = seen.finding * math.ceil(nodes / PAGE)
    ours, theirs = requests + finding + visited * seen.trips[0], nodes * seen.trips[1]
    least = nodes * len(LOOP) * _CREATE_AWAIT_ENTER_DELETE
    seconds = {name: [plan["seconds"][name] for plan in seen.plans] for name in seen.plans[0]["seconds"]}
    peaks = [plan["mib"]["peak"] for plan in seen.plans]
    sizes = ", ".join(f"{kind} {size / 1000:.0f} kB" for kind, size in seen.sizes.items())
    dry = sum(number for what, number in lists.items() if what.startswith(("create", "patch", "delete")))
    rows = [
        ("requests for all that the API tells", str(len(seen.plans)), _numbers([r.total() for r in seen.requests])),
        ("of these dry runs and reviews", "1", f"{dry:,}"),
        ("questions to nodes", "1", f"{asked:,}"),
        ("ways to nodes for them, an exec each", "1", f"{visited:,}"),
        ("requests to find the pods that lead there, at most", "1", f"{finding:,}"),
        *((f"seconds: {name}", str(len(taken)), spread(taken, 2)) for name, taken in seconds.items()),
        ("seconds of a processor, in all", str(len(seen.plans)), spread([plan["cpu"] for plan in seen.plans], 1)),
        ("MiB, at most", str(len(peaks)), spread(peaks, 0)),
        ("of these before the first list", "1", f"{seen.plans[0]['mib']['before']:.0f}"),
        ("ms to the first line of `ovsplan plan`", str(len(seen.first)), spread([s * 1000 for s in seen.first], 0)),
        ("requests a node: ours", str(len(seen.ours)), f"{seen.trips[0]:.1f}"),
        (f"requests a node: {len(LOOP)} of `oc debug`", str(len(seen.debug)), f"{seen.trips[1]:.1f}"),
        ("ms a node: ours", str(len(seen.ours)), spread([s * 1000 for s in seen.ours], 0)),
        (f"ms a node: {len(LOOP)} of `oc debug`, its image there and running at once", str(len(seen.debug)),
         spread([s * 1000 for s in seen.debug], 0)),
    ]  # fmt: skip
    return Result(
        f"cluster: one plan of {nodes:,} nodes and {nodes * _VMS_PER_NODE:,} VMs on a real API server, by policies",
        ("what", "n", "median (min-max)"),
        tuple(rows),
        (
            Bar("round trips: ours to those of the procedure's loop", ours / theirs, 0.1),
            Bar("seconds to the first line", median(seen.first), _FIRST_LINE),
        ),
        (
            f"round trips: {ours:,.0f} of ours, all of the API's requests included, for the whole switch, the datapath's "
            f"ports, OVN's version, NetworkManager's profiles and a ping of the gateway; {theirs:,.0f} of the loop, {theirs / ours:.1f} times ours, for {', '.join(LOOP)}, "
            "an `oc debug` each",
            f"had an `oc debug` only the {_CREATE_AWAIT_ENTER_DELETE} requests that it cannot do without (make a pod, await "
            f"it, enter it, delete it): {least:,}, {least / ours:.1f} times ours",
            f"objects: {sizes}; the plan: {seen.plans[0]['actions']:,} actions, {seen.plans[0]['text'] / 1e6:.0f} MB",
            f"requests: {_most(lists)}",
        ),
    )


def _numbers(values: Sequence[int]) -> str:
    return spread(values, 0) if len(set(values)) > 1 else f"{values[0]:,}"


def _most(requests: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in requests.most_common(12))
