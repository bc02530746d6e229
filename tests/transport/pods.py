"""Pods as they are on the nodes of OpenShift, on a real API server, each with a root file system of its own.

Invariant: what runs in a container sees the machine only where that container would see its host.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.apiserver.server import ApiServer

MULTUS = ("openshift-multus", "kube-multus", {"app": "multus"})
OVNKUBE = ("openshift-ovn-kubernetes", "ovn-controller", {"app": "ovnkube-node"})
NMSTATE = ("openshift-nmstate", "nmstate-handler", {"component": "kubernetes-nmstate-handler"})
DEBUG = {"app.kubernetes.io/managed-by": "ovsplan", "ovsplan.io/purpose": "node-debug"}

_CONTAINER = """\
#!/bin/sh
# Runs its arguments in the container's root, where the host's is only if that kind of container mounts it.
set -e
mount -t tmpfs none /mnt
for name in bin sbin lib lib32 lib64 libx32 usr etc proc dev sys tmp run var; do
    if [ -L "/$name" ]; then cp -P "/$name" "/mnt/$name"
    elif [ -d "/$name" ]; then mkdir "/mnt/$name"; mount --rbind "/$name" "/mnt/$name"; fi
done
case "$CONTAINER_NAME" in
    kube-multus) mkdir /mnt/hostroot; mount --rbind / /mnt/hostroot ;;
    container-00) mkdir /mnt/host; mount --rbind / /mnt/host ;;
esac
exec chroot /mnt "$@"
"""


def container_prefix(folder: Path) -> tuple[str, ...]:
    """The words behind which a kubelet starts what runs in a container."""
    script = folder / "container"
    script.write_text(_CONTAINER)
    return ("unshare", "--mount", "--propagation", "private", "sh", str(script))


def add_namespaces(server: ApiServer) -> None:
    """Those in which OpenShift has its pods."""
    for namespace, _, _ in (MULTUS, OVNKUBE, NMSTATE):
        server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})


def add(
    server: ApiServer, kind: tuple[str, str, dict[str, str]], node: str, name: str = "", *, runs: bool = True
) -> str:
    """A pod of a kind on a node; returns its name."""
    namespace, container, labels = kind
    name = name or f"{container}-{node}"
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": container, "image": "none"}],
        },
        "status": running(container) if runs else waiting(container),
    }
    server.create(body)
    return name


def running(container: str) -> dict[str, Any]:
    """The status of a pod whose one container runs."""
    state = {"name": container, "image": "none", "imageID": "none", "ready": True, "restartCount": 0}
    return {
        "phase": "Running",
        "containerStatuses": [{**state, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}],
    }


def waiting(container: str, reason: str = "ContainerCreating", message: str = "") -> dict[str, Any]:
    """The status of a pod whose one container does not run yet."""
    state = {"name": container, "image": "none", "imageID": "", "ready": False, "restartCount": 0}
    why = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{**state, "state": why}]}


def remove(server: ApiServer, namespace: str, name: str) -> None:
    server.call("DELETE", server.path("v1", "Pod", namespace, name))


def debug_pods(server: ApiServer, namespace: str = "kube-system") -> list[dict[str, Any]]:
    """The debug pods that are there."""
    query = "labelSelector=ovsplan.io/purpose%3Dnode-debug"
    return list(server.call("GET", f"{server.path('v1', 'Pod', namespace)}?{query}")["items"])


@contextmanager
def starting(server: ApiServer) -> Iterator[None]:
    """Debug pods run soon after they are made, as a kubelet would have it."""
    done = threading.Event()

    def start() -> None:
        while not done.wait(0.05):
            for pod in debug_pods(server):
                if pod["status"].get("phase") == "Pending":
                    server.set_status(pod | {"apiVersion": "v1", "kind": "Pod"}, running("container-00"))

    thread = threading.Thread(target=start)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
