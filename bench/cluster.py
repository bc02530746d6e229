"""What a plan of a large cluster costs on a real API server: requests, seconds, memory; and the first sign of life.

Invariant: requests are counted in the server's own audit log, on both sides; the nodes' switches answer at once on
both, so that neither is charged for what a node does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from statistics import median
from typing import Any

from bench import site
from bench.reading import DESIRED
from bench.results import Bar, CannotRun, Result, spread
from providers.kubernetes import KubernetesCluster, connect
from providers.kubernetes.pod_exec import Container, Execs
from providers.node.pod import PodNodes
from tests.apiserver.server import Answered, ApiServer, binaries
from tests.apiserver.server import CannotRun as NoServer

_NODES, _VMS_PER_NODE = 1000, 5
_PLANS, _STARTS, _SAMPLED = 3, 7, 10
_FIRST_LINE = 0.5
_AUDIT = {"rules": [{"level": "Metadata", "omitStages": ["RequestReceived"]}]}
_MULTUS = ("openshift-multus", {"app": "multus"}, "kube-multus")
_TOOLS = "/apis/image.openshift.io/v1/namespaces/openshift/imagestreamtags/tools:latest"
_MAPPINGS = ("ovs-vsctl", "get", "Open_vSwitch", ".", "external_ids:ovn-bridge-mappings")

QUESTIONS = ("the mappings", "the bridges", "the bond")
"""What the procedure asks each node by `oc debug`, and a plan reads too (its sections 4.3, 4.7 and 8.4)."""

MORE = ("the datapath's ports", "OVN's version")
"""What a plan asks each node besides."""


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
    """Requests for one question to one node: ours, and those of `oc debug`."""


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
        _wake(server)
        seen.sizes = _sizes(server)
        for _ in range(_PLANS):
            with _counted(server) as requests:
                seen.plans.append(_planned(server))
            seen.requests.append(requests)
        seen.first = [_first_line(server, Path(folder)) for _ in range(_STARTS)]
        _wake(server)
        _ask_both_ways(server, seen)
        return _result(seen, nodes)


def fill(server: ApiServer, nodes: int, vms_per_node: int) -> None:
    """Make the objects of a cluster of so many nodes."""
    generation = server.create(site.policy())["metadata"]["generation"]
    server.create_all(site.all_objects(nodes, vms_per_node))
    server.create_all(site.enactment(number, generation) for number in range(1, nodes + 1))


def _wake(server: ApiServer) -> None:
    """The server closes a connection that was idle for some minutes, which the next request on it would find out."""
    with suppress(HTTPException, OSError):
        server.call("GET", "/api")


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


def _ask_both_ways(server: ApiServer, seen: Measured) -> None:
    """One question to each of some nodes, in turn by our exec and by what `oc debug` does."""
    names = [f"asked-{number:02d}" for number in range(1, _SAMPLED + 1)]
    # Whatever is run there answers as a node does: what differs between the two is the way to it.
    server.add_nodes(dict.fromkeys(names, ("sh", "-c", "echo physnet:br-ex,vmnet:br-vmdata", "sh")))
    server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _MULTUS[0]}})
    for name in names:
        server.create(_pod(_MULTUS[0], f"multus-{name}", name, _MULTUS[2], _MULTUS[1]))
    cluster, _, _ = connect("admin", str(server.kubeconfig("admin")))
    nodes, execs = PodNodes(cluster, cluster.api_client), Execs(cluster.api_client)
    assert nodes.shell(names[0]).run(_MAPPINGS, timeout=20).rc == 0
    _debug(server, cluster, execs, names[0])
    ours: Counter[str] = Counter()
    theirs: Counter[str] = Counter()
    for name in names:
        with _counted(server) as requests:
            began = time.perf_counter()
            assert nodes.shell(name).run(_MAPPINGS, timeout=20).rc == 0
            seen.ours.append(time.perf_counter() - began)
        ours += requests
        with _counted(server) as requests:
            seen.debug.append(_debug(server, cluster, execs, name))
        theirs += requests
    cluster.close()
    seen.trips = (ours.total() / len(names), theirs.total() / len(names))


def _debug(server: ApiServer, cluster: KubernetesCluster, execs: Execs, node: str) -> float:
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
    execs.run(Container("default", f"{node}-debug", "container-00"), _MAPPINGS, stdin=b"", timeout=20)
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
    requests, asked = int(median(r.total() for r in seen.requests)), seen.plans[0]["asked"]
    ours, theirs = requests + asked * seen.trips[0], nodes * len(QUESTIONS + MORE) * seen.trips[1]
    of_text = nodes * len(QUESTIONS) * seen.trips[1]
    lists = seen.requests[0]
    seconds = {name: [plan["seconds"][name] for plan in seen.plans] for name in seen.plans[0]["seconds"]}
    peaks = [plan["mib"]["peak"] for plan in seen.plans]
    sizes = ", ".join(f"{kind} {size / 1000:.0f} kB" for kind, size in seen.sizes.items())
    dry = sum(number for what, number in lists.items() if what.startswith(("create", "patch", "delete")))
    rows = [
        ("requests for all that the API tells", str(len(seen.plans)), _numbers([r.total() for r in seen.requests])),
        ("of these dry runs and reviews", "1", f"{dry:,}"),
        ("questions to nodes, an exec each", "1", f"{asked:,}"),
        *((f"seconds: {name}", str(len(taken)), spread(taken, 2)) for name, taken in seconds.items()),
        ("seconds of a processor, in all", str(len(seen.plans)), spread([plan["cpu"] for plan in seen.plans], 1)),
        ("MiB, at most", str(len(peaks)), spread(peaks, 0)),
        ("of these before the first list", "1", f"{seen.plans[0]['mib']['before']:.0f}"),
        ("ms to the first line of `ovsplan plan`", str(len(seen.first)), spread([s * 1000 for s in seen.first], 0)),
        ("requests a question: ours", str(len(seen.ours)), f"{seen.trips[0]:.1f}"),
        ("requests a question: `oc debug`", str(len(seen.debug)), f"{seen.trips[1]:.1f}"),
        ("ms a question: ours", str(len(seen.ours)), spread([s * 1000 for s in seen.ours], 0)),
        ("ms a question: `oc debug`, its image there and running at once", str(len(seen.debug)),
         spread([s * 1000 for s in seen.debug], 0)),
    ]  # fmt: skip
    return Result(
        f"cluster: one plan of {nodes:,} nodes and {nodes * _VMS_PER_NODE:,} VMs on a real API server, by policies",
        ("what", "n", "median (min-max)"),
        tuple(rows),
        (
            Bar("round trips: ours to those of `oc debug` for the same questions", ours / theirs, 0.1),
            Bar("seconds to the first line", median(seen.first), _FIRST_LINE),
        ),
        (
            f"round trips: {ours:,.0f} of ours, the API's requests included; {theirs:,.0f} of `oc debug`, for "
            f"{', '.join(QUESTIONS + MORE)}",
            f"for {', '.join(QUESTIONS)} alone, as the procedure asks them: {of_text:,.0f}, "
            f"{of_text / ours:.1f} times ours",
            f"objects: {sizes}; the plan: {seen.plans[0]['actions']:,} actions, {seen.plans[0]['text'] / 1e6:.0f} MB",
            f"requests: {_most(lists)}",
        ),
    )


def _numbers(values: Sequence[int]) -> str:
    return spread(values, 0) if len(set(values)) > 1 else f"{values[0]:,}"


def _most(requests: Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in requests.most_common(12))
