"""Nodes reached by `exec` in pods that are on them already, or else in a debug pod of our own.

Invariant: a command for a node runs in a pod whose `spec.nodeName` is that node, of a namespace that only the
cluster's own operators write to: a pod is never chosen by a label alone, for anybody may set one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from providers.kubernetes.pod_exec import Container, Execs
from providers.node.debug_pod import DebugPods
from providers.node.remote import ANSWER, RUNDIR, bounded, environment, judged
from providers.ovsdb.over_shell import OverShellOvsdb
from providers.ports import Body, Cluster, Finished, InDoubt, NodeShell, NotFound, Ovsdb, Unreachable

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

_FRESH = 5.0
"""Seconds for which "no such pod on that node" is believed without asking again."""


@dataclass(frozen=True, slots=True)
class _Host:
    """A kind of pod that runs on every node. `enter` leads from its container to what its commands need."""

    namespace: str
    label: tuple[str, str]
    container: str
    enter: tuple[str, ...] = ()


_MULTUS = _Host("openshift-multus", ("app", "multus"), "kube-multus", ("chroot", "/hostroot"))
_OVNKUBE = _Host("openshift-ovn-kubernetes", ("app", "ovnkube-node"), "ovn-controller")
_NMSTATE = _Host("openshift-nmstate", ("component", "kubernetes-nmstate-handler"), "nmstate-handler")
_DEBUG_ENTER = ("chroot", "/host")


@dataclass(frozen=True, slots=True)
class PodSettings:
    """Where debug pods are made, and of which image; `{node}` in `rundir` is the node's name."""

    namespace: str = "kube-system"
    image: str | None = None
    rundir: str = RUNDIR


class PodShell:
    """`providers.ports.NodeShell` by exec in a pod; Forbidden and Unauthorized besides."""

    def __init__(self, node: str, places: _Places, execs: Execs, rundir: str) -> None:
        self._node = node
        self._places = places
        self._execs = execs
        self._environment = environment(rundir)

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Finished:
        """Run to its end; see `providers.ports.NodeShell`."""
        deadline = time.monotonic() + timeout
        try:
            return self._once(argv, stdin, deadline, timeout)
        except NotFound:
            # The pod was replaced since it was found; nothing ran in it.
            self._places.forget(self._node)
        try:
            return self._once(argv, stdin, deadline, timeout)
        except NotFound as exc:
            raise Unreachable(f"node {self._node}: {exc}") from exc

    def _once(self, argv: Sequence[str], stdin: bytes, deadline: float, timeout: float) -> Finished:
        try:
            container, enter = self._places.find(self._node, argv[0], deadline)
        except InDoubt as exc:
            # A debug pod may have been made or not; the command was not begun.
            raise Unreachable(f"node {self._node}: {exc}") from exc
        begun = time.monotonic()
        bound = deadline - begun
        if bound <= 0:
            raise Unreachable(f"node {self._node}: no time left to run {argv[0]}")
        words = bounded([*enter, *self._environment, *argv], bound)
        finished = self._execs.run(container, words, stdin=stdin, timeout=bound + ANSWER)
        return judged(argv, finished, late=time.monotonic() - begun >= bound, timeout=timeout)


class PodNodes:
    """Every node by pods of its own, with the rights of `api`; `cluster` is the same API behind its port."""

    def __init__(self, cluster: Cluster, api: ApiClient, settings: PodSettings | None = None) -> None:
        self._settings = settings or PodSettings()
        self._debug = DebugPods(cluster, self._settings.namespace, self._settings.image)
        self._places = _Places(cluster, self._debug)
        self._execs = Execs(api)

    def shell(self, node: str) -> NodeShell:
        """The node's shell. Looks for a pod when first used."""
        return PodShell(node, self._places, self._execs, self._rundir_of(node))

    def ovsdb(self, node: str) -> Ovsdb:
        """The node's database, by the ovsdb-client that its pod leads to."""
        return OverShellOvsdb(node, self.shell(node), self._rundir_of(node))

    def close(self) -> None:
        """Delete the debug pods that were made. Raises a PortError when one could not be deleted."""
        self._debug.close()

    def _rundir_of(self, node: str) -> str:
        return self._settings.rundir.replace("{node}", node)


class _Places:
    """Which container leads to a node. Each kind of pod is listed once for all nodes, and again when one is missed."""

    def __init__(self, cluster: Cluster, debug: DebugPods) -> None:
        self._cluster = cluster
        self._debug = debug
        self._found: dict[_Host, tuple[float, Mapping[str, Container]]] = {}
        self._lock = threading.Lock()

    def find(self, node: str, program: str, deadline: float) -> tuple[Container, tuple[str, ...]]:
        """The container in which `program` is run for `node`, and the words that lead on from there."""
        self._debug.collect()
        for host in _order(program):
            if container := self._on(host, node):
                return container, host.enter
        return self._debug.on(node, deadline), _DEBUG_ENTER

    def forget(self, node: str) -> None:
        """What was known of the node's pods has turned out to be old."""
        with self._lock:
            self._found.clear()
        self._debug.forget(node)

    def _on(self, host: _Host, node: str) -> Container | None:
        with self._lock:
            at, found = self._found.get(host, (0.0, {}))
            if node not in found and time.monotonic() - at > _FRESH:
                found = self._list(host)
                self._found[host] = (time.monotonic(), found)
            return found.get(node)

    def _list(self, host: _Host) -> Mapping[str, Container]:
        key, value = host.label
        keep = ("metadata", "spec.nodeName", "status.phase", "status.containerStatuses")
        pods = self._cluster.list("v1", "Pod", namespace=host.namespace, labels={key: value}, keep=keep).items
        return {
            pod["spec"]["nodeName"]: Container(host.namespace, pod["metadata"]["name"], host.container)
            for pod in pods
            if _runs(pod, host.container)
        }


def _order(program: str) -> tuple[_Host, ...]:
    """OVN's programs are in its own pods only; the rest is the host's, or at least brought along by a pod."""
    name = program.rpartition("/")[2]
    if name.startswith("ovn-"):
        return (_OVNKUBE, _MULTUS)
    if name.startswith(("ovs-", "ovsdb-")):
        return (_MULTUS, _OVNKUBE)
    if name.startswith(("nmcli", "nmstatectl")):
        return (_MULTUS, _NMSTATE)
    return (_MULTUS,)


def _runs(pod: Body, container: str) -> bool:
    if pod["metadata"].get("deletionTimestamp") or not pod["spec"].get("nodeName"):
        return False
    statuses: Sequence[Mapping[str, Any]] = pod.get("status", {}).get("containerStatuses", ())
    return any(status["name"] == container and "running" in status.get("state", {}) for status in statuses)
