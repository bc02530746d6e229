"""Jobs whose API is a real server's, by a user of its own, and whose nodes are a twin's; run as people run them.

Invariant: what a job does to the API it does as that user, so that the server's audit log tells it from everybody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from crash.lives import Boundary, Ended, Life, live
from crash.others import NETWORK, small_world

import cli.wiring
from cli.target import TargetInfo
from providers.kubernetes import KubernetesCluster, connect
from providers.kubernetes.clock import SystemClock
from providers.ports import Clock, Nodes, NodeShell, Ovsdb, World
from providers.twin import TwinWorld, init_world, open_world

from .server import RBAC, ApiServer, Object

ROLES = Path(__file__).parents[2] / "deploy" / "rbac.yaml"
SPACE = "ovsplan"
CLUSTER_ROLES = ("ovsplan-reader", "ovsplan-writer")
COPIED = (("v1", "Node"), ("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition"))


class Mixed(Nodes):
    """`ports.World`: that API, those nodes, the wall's time."""

    def __init__(self, cluster: KubernetesCluster, nodes: TwinWorld) -> None:
        self.cluster = cluster
        self.clock: Clock = SystemClock()
        self._nodes = nodes

    def ovsdb(self, node: str) -> Ovsdb:
        return self._nodes.ovsdb(node)

    def shell(self, node: str) -> NodeShell:
        return self._nodes.shell(node)


@dataclass(frozen=True, slots=True)
class Job:
    """A folder with desired files, and the nodes that they are about."""

    server: ApiServer
    folder: Path

    @property
    def nodes(self) -> Path:
        return self.folder / "nodes"

    def begin(self, user: str, *args: str, boundary: Boundary = lambda _: None) -> Life:
        """`ovsplan ARGS` as a user, in a process of its own."""
        kubeconfig = str(self.server.kubeconfig(user))

        def opened(**_: object) -> tuple[TargetInfo, World]:
            cluster, title, identity = connect(user, kubeconfig)
            return TargetInfo("mixed", title, identity), Mixed(
                cluster, open_world(self.nodes, wall_clock=True)
            )

        def patch() -> None:
            vars(cli.wiring)["open_target"] = opened

        target = ("--context", user)
        approve = ("--auto-approve",) if args[0] == "apply" else ()
        return live(self.folder, *args, *target, *approve, boundary=boundary, before=patch)

    def run(self, user: str, *args: str, boundary: Boundary = lambda _: None) -> Ended:
        return self.begin(user, *args, boundary=boundary).wait()

    def mappings(self) -> list[str]:
        with open_world(self.nodes, wall_clock=True) as world:
            return [str(node["mapping"]) for node in world.show()["nodes"].values()]


def make_job(server: ApiServer, folder: Path) -> Job:
    """A job on two nodes, which the API server is told of."""
    folder.mkdir(parents=True)
    (folder / "network.yaml").write_text(NETWORK)
    init_world(small_world(vms={}), folder / "nodes")
    with open_world(folder / "nodes") as world:
        for api, kind in COPIED:
            for item in world.cluster.list(api, kind).items:
                server.create(_fresh(item))
    return Job(server, folder)


def clean(server: ApiServer) -> None:
    """Take away what jobs leave in the API server."""
    for api, kind in (*COPIED, ("coordination.k8s.io/v1", "Lease"), ("v1", "Secret")):
        for item in server.call("GET", server.path(api, kind))["items"]:
            metadata = item["metadata"]
            if metadata.get("namespace") in (None, "default", SPACE):
                server.call("DELETE", server.path(api, kind, metadata.get("namespace"), metadata["name"]))


def _fresh(item: Mapping[str, Any]) -> Object:
    metadata = item["metadata"]
    kept = {key: metadata[key] for key in ("name", "namespace", "labels", "annotations") if key in metadata}
    return {**item, "metadata": kept}


def roles() -> list[Object]:
    """The documents of deploy/rbac.yaml."""
    return [document for document in yaml.safe_load_all(ROLES.read_text()) if document]


def install(server: ApiServer) -> None:
    for body in roles():
        server.create(body)


def bind(
    server: ApiServer, user: str, cluster: Sequence[str], own: Sequence[str], made: Sequence[Object] = ()
) -> None:
    """Bind cluster roles to a user, roles in the namespaces that have one of that name, and roles that a test made."""
    group = RBAC.partition("/")[0]
    bound = [("ClusterRole", name, {}) for name in cluster]
    bound += [
        ("Role", role["metadata"]["name"], {"namespace": role["metadata"]["namespace"]})
        for role in (*(role for role in roles() if role["metadata"]["name"] in own), *made)
        if role["kind"] == "Role"
    ]
    for kind, name, at in bound:
        server.create(
            {
                "apiVersion": RBAC,
                "kind": f"{kind}Binding",
                "metadata": {"name": f"{user}-{name}", **at},
                "subjects": [{"kind": "User", "name": user, "apiGroup": group}],
                "roleRef": {"kind": kind, "name": name, "apiGroup": group},
            }
        )


def allowed_by(names: Sequence[tuple[str, str]]) -> set[tuple[str, str, str]]:
    """(verb, group, resource) of some roles of deploy/rbac.yaml, each named by kind and name."""
    return {
        (verb, group, resource)
        for role in roles()
        if (role["kind"], role["metadata"]["name"]) in names
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def done_by(server: ApiServer, user: str) -> list[tuple[str, str, str, str, int]]:
    """What the audit log has of a user: verb, group, resource (and /subresource), namespace, status code."""
    found = []
    for event in server.audited():
        what = event.get("objectRef")
        if event["user"]["username"] == user and what and event["stage"] == "ResponseComplete":
            resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
            code = int(event.get("responseStatus", {}).get("code", 0))
            found.append((event["verb"], what.get("apiGroup", ""), resource, what.get("namespace", ""), code))
    return found
