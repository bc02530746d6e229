"""Targets: from an option to a World and the words that name it.

The one invariant: no world is assumed. Exactly one of --twin, --context and --target (or OVSPLAN_TARGET,
a target file) says which world is meant, and a world that cannot name its cluster is not opened.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from cli.targetfile import LocalNode, PodPart, SshPart, Target, beside, read_target
from cli.worldfile import folder_refused
from plans.desired.source import Document, Loc
from plans.desired.validation import nearest
from plans.errors import InputError, Problem
from providers.kubernetes.clock import SystemClock
from providers.ports import Answer, Clock, Cluster, Nodes, NodeShell, Ovsdb, PortError, Question, Ref, World

if TYPE_CHECKING:
    from providers.twin import TwinWorld

VARIABLE = "OVSPLAN_TARGET"


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """What people and stores call a target. `title` follows `Target: `; `identity` outlives every path."""

    kind: Literal["simulated", "mixed", "cluster"]
    title: str
    identity: str


def open_target(
    *, twin: str | None, context: str | None, target: str | None, kubeconfig: str | None = None
) -> tuple[TargetInfo, World]:
    """The world that the options name, open. Raises InputError."""
    options = {"--twin": twin, "--context": context, "--target": target}
    if empty := [option for option, value in {**options, "--kubeconfig": kubeconfig}.items() if value == ""]:
        raise InputError(f"{' and '.join(empty)}: given, and empty. Say what it is, or leave it out.")
    given = {option: value for option, value in options.items() if value}
    if kubeconfig and "--context" not in given:
        raise InputError(
            f"--kubeconfig {kubeconfig}: not used without --context. Give --context NAME as well, or leave it out."
        )
    if not given and os.environ.get(VARIABLE):
        given = {"--target": os.environ[VARIABLE]}
    if not given:
        raise InputError(
            "no target: there is no default world. Give --context NAME (a context of your kubeconfig), "
            f"--twin DIR (a simulated cluster) or --target FILE (a target file), or set {VARIABLE} to a target file."
        )
    if len(given) > 1:
        raise InputError(f"found {' and '.join(given)}; a command has one target. Give one of them.")
    ((option, value),) = given.items()
    if option == "--context":
        return _open_context(value, kubeconfig)
    return _open_twin(value) if option == "--twin" else _open_file(value)


class _Closing(Nodes, Protocol):
    """A way that leaves something behind unless it is closed."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class _JoinedWorld:
    """A Kubernetes API, and nodes that are reached by other means than it simulates."""

    cluster: Cluster
    clock: Clock
    nodes: Nodes

    def ovsdb(self, node: str) -> Ovsdb:
        return self.nodes.ovsdb(node)

    def shell(self, node: str) -> NodeShell:
        return self.nodes.shell(node)

    def ask(self, node: str, questions: Sequence[Question]) -> list[Answer]:
        return self.nodes.ask(node, questions)


def _open_twin(folder: str) -> tuple[TargetInfo, World]:
    world = _twin_world(folder, wall_clock=False)
    title = f"SIMULATED twin world {world.name!r} ({_shown(folder)})"
    return TargetInfo("simulated", title, _identity(world.cluster, folder)), world


def _open_context(context: str, kubeconfig: str | None) -> tuple[TargetInfo, World]:
    from providers.kubernetes.connect import connect
    from providers.kubernetes.kubeconfig import ConnectError
    from providers.node.pod import PodNodes

    try:
        cluster, title, identity = connect(context, kubeconfig)
    except ConnectError as error:
        raise InputError(f"--context {context}: {error}") from error
    nodes = _closed_at_exit(PodNodes(cluster, cluster.api_client))
    world = _JoinedWorld(cluster, SystemClock(), nodes)
    return TargetInfo("cluster", f"{title}, nodes by pod exec", identity), world


def _open_file(path: str) -> tuple[TargetInfo, World]:
    target, document = read_target(path)
    if target.cluster.twin is None:
        return _open_cluster_file(path, target, document)
    folder = beside(path, target.cluster.twin)
    if target.via == "twin":
        return _open_twin(folder)
    twin = _twin_world(folder, wall_clock=True)
    _check_nodes(twin.cluster, target, document)
    world = _JoinedWorld(twin.cluster, twin.clock, _nodes(target, path, twin.cluster))
    title = f"twin API at {_shown(folder)}, {_called(target)} ({path})"
    return TargetInfo("mixed", title, _identity(twin.cluster, path)), world


def _open_cluster_file(path: str, target: Target, document: Document) -> tuple[TargetInfo, World]:
    from providers.kubernetes.connect import connect
    from providers.kubernetes.kubeconfig import ConnectError
    from providers.node.pod import PodNodes, PodSettings

    kubeconfig = target.cluster.kubeconfig
    try:
        cluster, title, identity = connect(
            target.cluster.context or "", beside(path, kubeconfig) if kubeconfig else None
        )
    except ConnectError as error:
        raise InputError([document.problem(("cluster", "context"), str(error))]) from error
    _check_nodes(cluster, target, document)
    if target.via == "pod":
        settings = PodSettings(**(target.nodes.pod or PodPart()).model_dump(exclude_none=True))
        nodes: Nodes = _closed_at_exit(PodNodes(cluster, cluster.api_client, settings))
    else:
        nodes = _nodes(target, path, cluster)
    info = TargetInfo(
        "mixed" if target.via == "local" else "cluster", f"{title}, {_called(target)} ({path})", identity
    )
    return info, _JoinedWorld(cluster, SystemClock(), nodes)


def _called(target: Target) -> str:
    if target.via == "local":
        count = len(target.nodes.local or {})
        return f"real Open vSwitch and OVN on {count} node{'' if count == 1 else 's'}"
    return "nodes by pod exec" if target.via == "pod" else "nodes by ssh"


def _check_nodes(cluster: Cluster, target: Target, document: Document) -> None:
    ssh = target.nodes.ssh
    loc: Loc = ("nodes", "local") if target.via == "local" else ("nodes", "ssh", "hosts")
    named = list(target.nodes.local or (ssh.hosts if ssh else {}))
    if not named:
        return
    with _asking(document.path):
        nodes = cluster.list("v1", "Node", keep=("metadata.name",)).items
    known = [str(node["metadata"]["name"]) for node in nodes]
    if strangers := [name for name in named if name not in known]:
        raise InputError([_stranger(document, (*loc, name), known) for name in strangers])


def _stranger(document: Document, loc: Loc, known: list[str]) -> Problem:
    where = ".".join(str(step) for step in loc[:-1])
    name = str(loc[-1])
    message = f"{where}: the cluster has no node {name!r}.{nearest(name, known) or ' Remove it.'}"
    return document.problem(loc, message, at_key=True)


def _nodes(target: Target, path: str, cluster: Cluster) -> Nodes:
    if target.via == "local":
        return _local_nodes(path, target.nodes.local or {})
    return _closed_at_exit(_ssh_nodes(path, target.nodes.ssh or SshPart(), cluster))


def _local_nodes(path: str, local: Mapping[str, LocalNode]) -> Nodes:
    from providers.node.local import LocalNodes

    # Absolute: the daemons' control programs take the folder from their environment, wherever they run.
    ways = {name: (node.exec, str(Path(beside(path, node.rundir)).resolve())) for name, node in local.items()}
    return LocalNodes(ways, f"{path} names no way to node {{node}}; add it under nodes.local")


def _ssh_nodes(path: str, part: SshPart, cluster: Cluster) -> _Closing:
    from providers.node.addresses import host_of
    from providers.node.remote import RUNDIR
    from providers.node.ssh import SshNodes
    from providers.node.ssh_connection import SshSettings

    files = {
        name: str(Path(beside(path, value)).absolute()) if value else None
        for name, value in (("identity", part.identity), ("known_hosts", part.known_hosts))
    }
    settings = SshSettings(user=part.user, port=part.port, jump=part.jump, sudo=part.sudo, **files)
    return SshNodes(settings, host_of(cluster, part.hosts), rundir=part.rundir or RUNDIR)


_C = TypeVar("_C", bound=_Closing)


def _closed_at_exit(nodes: _C) -> _C:
    def close() -> None:
        try:
            nodes.close()
        except PortError as error:
            # Too late for an exit code: it was the last thing to do, and what is left ends by itself.
            print(f"warning: a debug pod is left for a while: {error}", file=sys.stderr)

    atexit.register(close)
    return nodes


def _twin_world(folder: str, *, wall_clock: bool) -> TwinWorld:
    from providers.twin import WorldError, open_world

    try:
        return open_world(Path(folder), wall_clock=wall_clock)
    except WorldError as error:
        raise folder_refused(folder, error) from error


def _identity(cluster: Cluster, where: str) -> str:
    """The cluster behind an API: the uid of kube-system, which is made once in a cluster's life."""
    with _asking(where):
        namespace = cluster.get(Ref("v1", "Namespace", "kube-system"))
    if namespace is None:
        raise InputError(
            [Problem(where, 0, 0, "no cluster: it has no namespace kube-system. Check the target.")]
        )
    return f"cluster {namespace['metadata']['uid']}"


@contextmanager
def _asking(where: str) -> Iterator[None]:
    try:
        yield
    except PortError as error:
        message = f"the cluster does not say what it is: {error}. Check the target."
        raise InputError([Problem(where, 0, 0, message)]) from error


def _shown(folder: str) -> str:
    """A folder as a reader takes it for one."""
    path = str(Path(folder))
    return path if path.startswith(("/", ".")) else f"./{path}"
