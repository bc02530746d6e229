"""Nodes reached by `exec` in pods that are on them already, or else in a debug pod of our own.

Invariant: a command for a node runs in a pod whose `spec.nodeName` is that node, of a namespace that only the
cluster's own operators write to: a pod is never chosen by a label alone, for anybody may set one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from providers.kubernetes.pod_exec import Container, Execs
from providers.node.bundle import attempted, run_all
from providers.node.debug_pod import DebugPods
from providers.node.remote import ANSWER, RUNDIR, bounded, environment, judged
from providers.ovsdb.over_shell import OverShellOvsdb, ask_together
from providers.ports import (
    Answer,
    Body,
    Cluster,
    Command,
    Finished,
    InDoubt,
    Nodes,
    NodeShell,
    NotFound,
    Ovsdb,
    PortError,
    Question,
    Unreachable,
)

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

_OVN = (_OVNKUBE, _MULTUS)
_BESIDE_OVN = (
    *("sh", "-c", 'pid=$(pidof -s ovn-controller) || exec "$@"; exec nsenter -t "$pid" -m -- "$@"', "sh"),
)
_LACKING = (126, 127)

_Begin = Callable[[Container, Sequence[str]], Finished]


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

        def begin(container: Container, enter: Sequence[str]) -> Finished:
            begun = time.monotonic()
            bound = deadline - begun
            if bound <= 0:
                raise Unreachable(f"node {self._node}: no time left to run {argv[0]}")
            words = bounded([*enter, *self._environment, *argv], bound)
            finished = self._execs.run(container, words, stdin=stdin, timeout=bound + ANSWER)
            return judged(argv, finished, late=time.monotonic() - begun >= bound, timeout=timeout)

        return self._in_pod(_order(argv[0]), deadline, begin)

    def run_all(self, commands: Sequence[Command]) -> list[Finished | PortError]:
        """See `providers.ovsdb.over_shell.BundlingShell`: one exec, in the pod from which the whole node is reached."""

        def run(words: Sequence[str], seconds: float) -> Finished:
            deadline = time.monotonic() + max(command.timeout for command in commands)

            def begin(container: Container, enter: Sequence[str]) -> Finished:
                return self._execs.run(container, [*enter, *words], stdin=b"", timeout=seconds + ANSWER)

            return self._in_pod((_MULTUS,), deadline, begin)

        def alone(command: Command) -> Finished:
            return self.run(command.argv, timeout=command.timeout)

        try:
            places, node = self._places, self._node
            apart = not places.has(node, _MULTUS) and places.has(node, _OVNKUBE)
        except PortError as error:
            return [error] * len(commands)
        if apart:
            return [attempted(alone, command) for command in commands]
        ends = run_all(commands, self._environment, run, alone, _lead)
        return [
            attempted(alone, command)
            if _is_lacking(end) and _order(command.argv[0])[0] is not _MULTUS
            else end
            for command, end in zip(commands, ends, strict=True)
        ]

    def _in_pod(self, hosts: tuple[_Host, ...], deadline: float, begin: _Begin) -> Finished:
        """What `begin` comes to in the first of `hosts` that is there, or in the one that took its place meanwhile."""
        try:
            return begin(*self._found(hosts, deadline))
        except NotFound:
            # The pod was replaced since it was found; nothing ran in it.
            self._places.forget(self._node)
        try:
            return begin(*self._found(hosts, deadline))
        except NotFound as exc:
            raise Unreachable(f"node {self._node}: {exc}") from exc

    def _found(self, hosts: tuple[_Host, ...], deadline: float) -> tuple[Container, tuple[str, ...]]:
        try:
            return self._places.find(self._node, hosts, deadline)
        except InDoubt as exc:
            # A debug pod may have been made or not; the command was not begun.
            raise Unreachable(f"node {self._node}: {exc}") from exc


class PodNodes(Nodes):
    """Every node by pods of its own, with the rights of `api`; `cluster` is the same API behind its port."""

    def __init__(self, cluster: Cluster, api: ApiClient, settings: PodSettings | None = None) -> None:
        self._settings = settings or PodSettings()
        self._debug = DebugPods(cluster, self._settings.namespace, self._settings.image)
        self._places = _Places(cluster, self._debug)
        self._execs = Execs(api)

    def shell(self, node: str) -> NodeShell:
        """The node's shell. Looks for a pod when first used."""
        return self._shell(node)

    def ovsdb(self, node: str) -> Ovsdb:
        """The node's database, by the ovsdb-client that its pod leads to."""
        return OverShellOvsdb(node, self._shell(node), self._rundir_of(node))

    def ask(self, node: str, questions: Sequence[Question]) -> list[Answer]:
        """One exec for all of them, where one pod of the node can answer all; see `providers.ports.Nodes`."""
        shell = self._shell(node)
        return ask_together(shell, OverShellOvsdb(node, shell, self._rundir_of(node)), questions)

    def close(self) -> None:
        """Delete the debug pods that were made. Raises a PortError when one could not be deleted."""
        self._debug.close()

    def _shell(self, node: str) -> PodShell:
        return PodShell(node, self._places, self._execs, self._rundir_of(node))

    def _rundir_of(self, node: str) -> str:
        return self._settings.rundir.replace("{node}", node)


class _Places:
    """Which container leads to a node. Each kind of pod is listed once for all nodes, and again when one is missed."""

    def __init__(self, cluster: Cluster, debug: DebugPods) -> None:
        self._cluster = cluster
        self._debug = debug
        self._found: dict[_Host, tuple[float, Mapping[str, Container]]] = {}
        self._lock = threading.Lock()

    def find(self, node: str, hosts: Sequence[_Host], deadline: float) -> tuple[Container, tuple[str, ...]]:
        """The container of the first of `hosts` that is on `node`, and the words that lead on from there."""
        self._debug.collect()
        for host in hosts:
            if container := self._on(host, node):
                return container, host.enter
        return self._debug.on(node, deadline), _DEBUG_ENTER

    def has(self, node: str, host: _Host) -> bool:
        """Whether a pod of that kind is on `node`."""
        return self._on(host, node) is not None

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
        return _OVN
    if name.startswith(("ovs-", "ovsdb-")):
        return (_MULTUS, _OVNKUBE)
    if name.startswith(("nmcli", "nmstatectl")):
        return (_MULTUS, _NMSTATE)
    return (_MULTUS,)


def _lead(command: Command) -> Sequence[str]:
    """How a program is found from the host: OVN's are in the container of ovn-controller, if that runs in one."""
    return _BESIDE_OVN if _order(command.argv[0]) == _OVN else ()


def _is_lacking(end: Finished | PortError) -> bool:
    """Whether there was no such program where it was looked for."""
    return isinstance(end, Finished) and end.rc in _LACKING


def _runs(pod: Body, container: str) -> bool:
    if pod["metadata"].get("deletionTimestamp") or not pod["spec"].get("nodeName"):
        return False
    statuses: Sequence[Mapping[str, Any]] = pod.get("status", {}).get("containerStatuses", ())
    return any(status["name"] == container and "running" in status.get("state", {}) for status in statuses)
