"""Targets: from an option to a World and the words that name it.

The one invariant: no world is assumed. Exactly one of --twin, --context and --target (or OVSPLAN_TARGET,
a target file) says which world is meant, and a world that cannot name its cluster is not opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cli.files import only_document
from cli.worldfile import folder_refused
from plans.desired.models import Model
from plans.desired.source import Document
from plans.desired.validation import Wording, fit, nearest
from plans.errors import InputError, Problem
from providers.ports import Clock, Cluster, NodeShell, Ovsdb, PortError, Ref, Unreachable, World

if TYPE_CHECKING:
    from providers.twin import TwinWorld

VARIABLE = "OVSPLAN_TARGET"


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """What people and stores call a target. `title` follows `Target: `; `identity` outlives every path."""

    kind: Literal["simulated", "mixed"]
    title: str
    identity: str


class _Cluster(Model):
    twin: Annotated[str, Field(min_length=1)]


class _LocalNode(Model):
    exec: Annotated[tuple[str, ...], Field(strict=False)] = ()
    rundir: Annotated[str, Field(min_length=1)]


class _Nodes(Model):
    via: Literal["twin", "local"] = "twin"
    local: Mapping[str, _LocalNode] | None = None


class _Target(Model):
    cluster: _Cluster
    nodes: _Nodes = _Nodes()


_WORDING = Wording(
    expected={
        ("cluster",): "{twin: DIR}",
        ("cluster", "twin"): "the folder of a twin",
        ("nodes",): "{via: twin}, or {via: local, local: {NODE: {exec: [...], rundir: DIR}}}",
        ("nodes", "local"): "a mapping of nodes to {exec: [...], rundir: DIR}",
        ("nodes", "local", "*"): "{exec: [...], rundir: DIR}",
        ("nodes", "local", "*", "exec"): "a list: the command that leads into the node",
        ("nodes", "local", "*", "rundir"): "the folder with db.sock and the control sockets",
    },
    later_fields=frozenset(
        {("cluster", "context"), ("cluster", "kubeconfig"), ("nodes", "pod"), ("nodes", "ssh")}
    ),
    later_values={("nodes", "via"): frozenset({"pod", "ssh"})},
)


def open_target(*, twin: str | None, context: str | None, target: str | None) -> tuple[TargetInfo, World]:
    """The world that the options name, open. Raises InputError."""
    options = {"--twin": twin, "--context": context, "--target": target}
    given = {option: value for option, value in options.items() if value}
    if not given and os.environ.get(VARIABLE):
        given = {"--target": os.environ[VARIABLE]}
    if not given:
        raise InputError(
            "no target: there is no default world. Give --twin DIR (a simulated cluster), --target FILE "
            f"(a target file), or set {VARIABLE} to a target file; --context NAME is {_NO_CONTEXT}."
        )
    if len(given) > 1:
        raise InputError(f"found {' and '.join(given)}; a command has one target. Give one of them.")
    ((option, value),) = given.items()
    if option == "--context":
        raise InputError(f"--context {value}: {_NO_CONTEXT}. Give --twin DIR or --target FILE.")
    return _open_twin(value) if option == "--twin" else _open_file(value)


_NO_CONTEXT = "for later: this version does not yet reach a cluster by the Kubernetes API"


class _MixedWorld:
    """The Kubernetes API and clock of a twin, and nodes that are really there."""

    def __init__(
        self, twin: TwinWorld, path: str, ovsdbs: Mapping[str, Ovsdb], shells: Mapping[str, NodeShell]
    ) -> None:
        self._twin = twin
        self._path = path
        self._ovsdbs = ovsdbs
        self._shells = shells

    @property
    def cluster(self) -> Cluster:
        return self._twin.cluster

    @property
    def clock(self) -> Clock:
        return self._twin.clock

    def ovsdb(self, node: str) -> Ovsdb:
        if node not in self._ovsdbs:
            raise self._no_way_to(node)
        return self._ovsdbs[node]

    def shell(self, node: str) -> NodeShell:
        if node not in self._shells:
            raise self._no_way_to(node)
        return self._shells[node]

    def _no_way_to(self, node: str) -> Unreachable:
        return Unreachable(f"{self._path} names no way to node {node}; add it under nodes.local")


def _open_twin(folder: str) -> tuple[TargetInfo, World]:
    world = _twin_world(folder, wall_clock=False)
    title = f"SIMULATED twin world {world.name!r} ({_shown(folder)})"
    return TargetInfo("simulated", title, _identity(world, folder)), world


def _open_file(path: str) -> tuple[TargetInfo, World]:
    target, document = _read_target(path)
    folder = str(Path(path).parent / target.cluster.twin)
    if target.nodes.local is None:
        return _open_twin(folder)
    twin = _twin_world(folder, wall_clock=True)
    _check_nodes(twin, target.nodes.local, document)
    world = _mixed_world(twin, path, target.nodes.local)
    count = len(target.nodes.local)
    nodes = f"{count} node{'' if count == 1 else 's'}"
    title = f"twin API at {_shown(folder)}, real Open vSwitch and OVN on {nodes} ({path})"
    return TargetInfo("mixed", title, _identity(world, path)), world


def _read_target(path: str) -> tuple[_Target, Document]:
    if Path(path).is_dir():
        raise InputError(
            [Problem(path, 0, 0, "is a folder, expected a target file. A twin's folder goes to --twin.")]
        )
    document, problems = only_document(path, "target")
    target, unfit = fit(_Target, document, _WORDING)
    problems += unfit
    if target:
        problems += _contradictions(target, document)
    if target is None or problems:
        raise InputError(problems)
    return target, document


def _contradictions(target: _Target, document: Document) -> list[Problem]:
    local, via = ("nodes", "local"), target.nodes.via
    if via == "twin" and target.nodes.local is not None:
        message = "nodes.local: not used, as nodes.via is 'twin'. Write `via: local`, or remove it."
        return [document.problem(local, message, at_key=True)]
    if via == "local" and not target.nodes.local:
        message = (
            "nodes.local: names no node, but nodes.via is 'local'. Add NODE: {exec: [...], rundir: DIR}."
        )
        return [document.problem(local, message, at_key=True)]
    return []


def _check_nodes(twin: TwinWorld, local: Mapping[str, _LocalNode], document: Document) -> None:
    with _asking(document.path):
        known = [str(node["metadata"]["name"]) for node in twin.cluster.list("v1", "Node").items]
    strangers = [name for name in local if name not in known]
    if strangers:
        raise InputError(
            [
                document.problem(
                    ("nodes", "local", name),
                    f"nodes.local: the cluster has no node {name!r}.{nearest(name, known) or ' Remove it.'}",
                    at_key=True,
                )
                for name in strangers
            ]
        )


def _mixed_world(twin: TwinWorld, path: str, local: Mapping[str, _LocalNode]) -> _MixedWorld:
    from providers.node.local import LocalShell
    from providers.ovsdb.client import UnixOvsdb

    # Absolute: the daemons' control programs take the folder from their environment, wherever they run.
    rundirs = {name: str((Path(path).parent / node.rundir).resolve()) for name, node in local.items()}
    ovsdbs = {name: UnixOvsdb(f"{rundir}/db.sock") for name, rundir in rundirs.items()}
    shells = {name: LocalShell(node.exec, rundirs[name]) for name, node in local.items()}
    return _MixedWorld(twin, path, ovsdbs, shells)


def _twin_world(folder: str, *, wall_clock: bool) -> TwinWorld:
    from providers.twin import WorldError, open_world

    try:
        return open_world(Path(folder), wall_clock=wall_clock)
    except WorldError as error:
        raise folder_refused(folder, error) from error


def _identity(world: World, where: str) -> str:
    """The cluster behind a world: the uid of kube-system, which is made once in a cluster's life."""
    with _asking(where):
        namespace = world.cluster.get(Ref("v1", "Namespace", "kube-system"))
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
