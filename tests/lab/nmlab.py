"""The whole story in one place: nodes of NetworkManager's with real OVN, their VMs, a Kubernetes API, and its operators.

Invariant: what a cluster has and a lab can't run for real (KubeVirt, the scheduler, the nmstate operator) is the twin's
own controllers on this API; the operator's `nmstatectl` is the real one of each node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from providers.ports import MergePatch, Ref, World
from providers.twin.kubevirt import KubeVirt
from providers.twin.nmstate_operator import NmstateOperator
from providers.twin.outside import SETTINGS, OutsideNode, OutsideRunner, OutsideStage
from providers.twin.scheduler import Scheduler
from providers.twin.stage import Controller
from tests.apiserver.server import ApiServer

from .lab import Lab
from .nmstate_cases import NEWER, OLDER
from .ping import Ping
from .worlds import managed_world

Api = Literal["twin", "real"]

_VERSIONS = {"23.03": OLDER, "25.03": NEWER}
_OF_NODE = ("capacity", "allocatable", "nodeInfo")


@dataclass(frozen=True)
class NmLab:
    """A running one. `server` is the real API server, where there is one."""

    lab: Lab
    runner: OutsideRunner
    server: ApiServer | None

    @property
    def world(self) -> World:
        """The four ports, of the API and of every node."""
        return self.lab.world

    @property
    def target(self) -> Path:
        """The target file, by which the program reaches all of it."""
        return self.lab.target

    def ping(self, vm: str, *, every: float = 0.001) -> Ping:
        """A running probe from the guest to its gateway, which goes on through migrations."""
        return self.lab.ping(vm, every=every)

    def restart_handler(self, node: str) -> None:
        """Let the nmstate handler of a node begin anew."""
        self.runner.restart_handler(node)


@contextmanager
def nm_lab(
    folder: Path,
    *,
    ovn: Literal["23.03", "25.03"] = "25.03",
    nodes: int = 2,
    api: Api = "twin",
    document: Mapping[str, Any] | None = None,
) -> Iterator[NmLab]:
    """A lab in `folder` with `nodes` nodes, worker-01 and so on, and a VM on each: default/web-1 and so on.

    Or the lab of a World `document`, whose nodes have nmstate. All of it is gone after the block.
    """
    document = document or _document(ovn, nodes)
    with ExitStack() as stack:
        server = stack.enter_context(ApiServer.up(folder / "api")) if api == "real" else None
        kubeconfig = server.kubeconfig("admin") if server else None
        lab = stack.enter_context(Lab.up(document, folder / "lab", kubeconfig))
        if server is not None:
            _add_nodes(server, lab)
        runner = OutsideRunner(_stage(lab), _controllers(api))
        stack.enter_context(runner.running())
        yield NmLab(lab, runner, server)


def _document(ovn: str, nodes: int) -> dict[str, Any]:
    numbers = range(1, nodes + 1)
    vms = {f"default/web-{number}": f"worker-{number:02}" for number in numbers}
    return managed_world(_VERSIONS[ovn], list(vms.values()), vms)


def _controllers(api: Api) -> tuple[Controller, ...]:
    """The twin's API has the others itself."""
    return (NmstateOperator(),) if api == "twin" else (Scheduler(), KubeVirt(), NmstateOperator())


def _stage(lab: Lab) -> OutsideStage:
    world = lab.world
    ways = {
        node: OutsideNode(lab.enter(node), world.ovsdb(node), world.shell(node)) for node in lab.spec.nodes
    }
    settings = replace(SETTINGS, migration=lab.spec.migration_seconds, ovn=lab.spec.ovn)
    return OutsideStage(lab.cluster, ways, settings)


def _add_nodes(server: ApiServer, lab: Lab) -> None:
    """The World's nodes, each with a kubelet whose exec leads into the lab's node."""
    server.add_nodes({node: lab.enter(node) for node in lab.spec.nodes})
    for body in lab.twin.edit().cluster.list("v1", "Node").items:
        metadata, ref = body["metadata"], Ref("v1", "Node", body["metadata"]["name"])
        patch = {key: metadata[key] for key in ("labels", "annotations") if key in metadata}
        lab.cluster.write(MergePatch(ref, {"metadata": patch, "spec": body.get("spec", {})}))
        status = {key: value for key, value in body.get("status", {}).items() if key in _OF_NODE}
        lab.cluster.write(MergePatch(ref, {"status": status}, subresource="status"))
