"""Target files: how the world is reached, as people write it.

The one invariant: a target that is returned names one cluster and one way to its nodes, and every setting in it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from cli.files import only_document
from plans.desired.models import Model
from plans.desired.source import Document, Loc
from plans.desired.validation import Wording, fit, one_of
from plans.errors import InputError, Problem

Via = Literal["twin", "local", "pod", "ssh"]


def _one_line(value: str) -> str:
    if not value or '"' in value or "\n" in value:
        raise ValueError(f"found {value!r}, expected a path without quotes and line breaks. Change it.")
    return value


def _absolute(value: str) -> str:
    if not _one_line(value).startswith("/"):
        raise ValueError(f"found {value!r}, expected an absolute path on the node. Change it.")
    return value


_Text = Annotated[str, Field(min_length=1)]
_Path = Annotated[str, AfterValidator(_one_line)]
_Rundir = Annotated[str, AfterValidator(_absolute)]
_Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:%-]*$")]
_Jump = Annotated[str, Field(pattern=r"^[A-Za-z0-9_\[][A-Za-z0-9_.:%@,\[\]-]*$")]
_User = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@-]*$")]
_Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]


class ClusterPart(Model):
    """Whose API it is: a twin's, or that of a context of a kubeconfig."""

    twin: _Text | None = None
    context: _Text | None = None
    kubeconfig: _Path | None = None


class LocalNode(Model):
    """A node whose daemons are processes of this machine."""

    exec: Annotated[tuple[str, ...], Field(strict=False)] = ()
    rundir: _Text


class SshPart(Model):
    """How ssh enters the nodes; what is not given is as the user's own ssh configuration has it."""

    user: _User | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    identity: _Path | None = None
    known_hosts: Annotated[_Path | None, Field(alias="knownHosts")] = None
    jump: _Jump | None = None
    sudo: bool = False
    rundir: _Rundir | None = None
    hosts: Mapping[str, _Host] = Field(default_factory=dict)


class PodPart(Model):
    """Where debug pods are made, for nodes on which there is no pod to use."""

    namespace: _Label | None = None
    image: _Text | None = None
    rundir: _Rundir | None = None


class NodesPart(Model):
    """By which means nodes are reached."""

    via: Via | None = None
    local: Mapping[str, LocalNode] | None = None
    ssh: SshPart | None = None
    pod: PodPart | None = None


class Target(Model):
    """A whole target file."""

    cluster: ClusterPart
    nodes: NodesPart = NodesPart()

    @property
    def via(self) -> Via:
        """The way to the nodes; when not given, the one that takes no settings."""
        return self.nodes.via or ("twin" if self.cluster.twin else "pod")


_WAYS = "{via: pod}, {via: ssh, ssh: {...}}, {via: local, local: {...}}, or {via: twin} for a twin"
_WORDING = Wording(
    expected={
        ("cluster",): "{context: NAME}, or {twin: DIR}",
        ("cluster", "twin"): "the folder of a twin",
        ("cluster", "context"): "the name of a context of a kubeconfig",
        ("cluster", "kubeconfig"): "the path of a kubeconfig file",
        ("nodes",): _WAYS,
        ("nodes", "local"): "a mapping of nodes to {exec: [...], rundir: DIR}",
        ("nodes", "local", "*"): "{exec: [...], rundir: DIR}",
        ("nodes", "local", "*", "exec"): "a list: the command that leads into the node",
        ("nodes", "local", "*", "rundir"): "the folder with db.sock and the control sockets",
        ("nodes", "ssh"): "a mapping with user, port, identity, knownHosts, jump, sudo, rundir or hosts",
        ("nodes", "ssh", "user"): "a login name",
        ("nodes", "ssh", "port"): "a port from 1 to 65535",
        ("nodes", "ssh", "jump"): "[USER@]HOST[:PORT], several with commas between",
        ("nodes", "ssh", "hosts"): "a mapping of nodes to hosts",
        ("nodes", "ssh", "hosts", "*"): "a host name or an address",
        ("nodes", "pod"): "a mapping with namespace, image or rundir",
        ("nodes", "pod", "namespace"): "the name of a namespace",
    },
)


def read_target(path: str) -> tuple[Target, Document]:
    """The target in a file, and the file, for places in it. Raises InputError."""
    if Path(path).is_dir():
        raise InputError(
            [Problem(path, 0, 0, "is a folder, expected a target file. A twin's folder goes to --twin.")]
        )
    document, problems = only_document(path, "target")
    target, unfit = fit(Target, document, _WORDING)
    problems += unfit
    if target:
        problems += _about_cluster(target.cluster, document) or _about_nodes(target, document)
    if target is None or problems:
        raise InputError(problems)
    return target, document


def beside(path: str, name: str) -> str:
    """A path that a target file names: `~` is the home folder, and what is relative is so to the file."""
    return str(Path(path).parent / Path(name).expanduser())


def _about_cluster(cluster: ClusterPart, document: Document) -> list[Problem]:
    def problem(loc: Loc, message: str) -> list[Problem]:
        return [document.problem(loc, message, at_key=True)]

    if cluster.twin and cluster.context:
        message = "cluster: found twin and context; a target has one cluster. Remove one."
        return problem(("cluster", "context"), message)
    if not cluster.twin and not cluster.context:
        return problem(("cluster",), "cluster: names none. Write {context: NAME}, or {twin: DIR}.")
    if cluster.twin and cluster.kubeconfig:
        message = "cluster.kubeconfig: not used, as the cluster is a twin. Remove it."
        return problem(("cluster", "kubeconfig"), message)
    return []


def _about_nodes(target: Target, document: Document) -> list[Problem]:
    nodes, via = target.nodes, target.via
    problems = [
        document.problem(
            ("nodes", part),
            f"nodes.{part}: not used, as nodes.via is {via!r}. Write `via: {part}`, or remove it.",
            at_key=True,
        )
        for part in ("local", "ssh", "pod")
        if getattr(nodes, part) is not None and part != via
    ]
    if via == "local" and not nodes.local:
        message = (
            "nodes.local: names no node, but nodes.via is 'local'. Add NODE: {exec: [...], rundir: DIR}."
        )
        problems.append(document.problem(("nodes", "local"), message, at_key=True))
    fits = ("twin", "local", "ssh") if target.cluster.twin else ("pod", "ssh", "local")
    if via not in fits:
        kind = "a twin" if target.cluster.twin else "a context"
        expected = one_of([repr(way) for way in fits])
        message = f"nodes.via: found {via!r}; with {kind} as cluster, expected {expected}. Change it."
        problems.append(document.problem(("nodes", "via"), message))
    return problems
