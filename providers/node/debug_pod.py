"""Pods that lead to a node on which no other pod does: what `oc debug node/NAME` makes.

Invariant: none is left behind. A run deletes its own; one that was killed has its pods deleted by the next run on
the same machine; and a pod whose run is never heard of again ends by itself.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from providers.kubernetes.pod_exec import Container
from providers.ports import (
    AlreadyExists,
    Body,
    Cluster,
    Create,
    Delete,
    Expired,
    NotFound,
    NotServed,
    PortError,
    Ref,
    Unreachable,
)

LABELS = {"app.kubernetes.io/managed-by": "ovsplan", "ovsplan.io/purpose": "node-debug"}
HOLDER = "ovsplan.io/holder"
CONTAINER = "container-00"
_LIFE = 3600
"""Seconds after which a debug pod ends by itself; a run that goes on longer makes another."""

_TOOLS = Ref("image.openshift.io/v1", "ImageStreamTag", "tools:latest", "openshift")


class DebugPods:
    """The debug pods of this process, one a node, made when needed; safe for several threads."""

    def __init__(self, cluster: Cluster, namespace: str, image: str | None) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._image = image
        self._run = secrets.token_hex(4)
        self._running: dict[str, Container] = {}
        self._made: dict[str, Ref] = {}
        self._collected = False
        self._lock = threading.Lock()

    def on(self, node: str, deadline: float) -> Container:
        """The container on `node`, running; `deadline` is on the monotonic clock.

        Raises Unreachable when it does not run by then (asking again waits on), Forbidden or Refused.
        """
        with self._lock:
            known = self._running.get(node)
        if known is not None:
            return known
        name = f"ovsplan-debug-{hashlib.sha256(f'{self._run}/{node}'.encode()).hexdigest()[:10]}"
        ref = Ref("v1", "Pod", name, self._namespace)
        with self._lock:
            self._made[node] = ref
        self._await_running(node, self._create(node, ref), deadline)
        container = Container(self._namespace, name, CONTAINER)
        with self._lock:
            self._running[node] = container
        return container

    def forget(self, node: str) -> None:
        """The pod on `node` turned out to be gone."""
        with self._lock:
            self._running.pop(node, None)

    def collect(self) -> None:
        """Delete, once, what killed runs of this machine and ended pods have left."""
        with self._lock:
            if self._collected:
                return
            self._collected = True
        try:
            pods = self._cluster.list("v1", "Pod", namespace=self._namespace, labels=LABELS).items
            for pod in pods:
                if _is_left(pod):
                    self._delete(_ref(pod), pod["metadata"]["uid"])
        except PortError:
            # Whoever may not list or delete pods here left none here; and looking at nodes must not hang on it.
            return

    def close(self) -> None:
        """Delete the pods that were made. Raises a PortError when one could not be deleted."""
        with self._lock:
            made, self._made, self._running = self._made, {}, {}
        failed: PortError | None = None
        for ref in made.values():
            try:
                self._delete(ref)
            except PortError as exc:
                failed = exc
        if failed is not None:
            raise failed

    def _create(self, node: str, ref: Ref) -> Body:
        try:
            return self._cluster.write(Create(ref, _pod(ref, node, self._image or self._tools())))
        except AlreadyExists:
            found = self._cluster.get(ref)
        if found is None or _phase(found) in ("Succeeded", "Failed"):
            self._delete(ref)
            raise Unreachable(f"node {node}: {ref} had ended, and is made anew when asked again")
        return found

    def _await_running(self, node: str, pod: Body, deadline: float) -> None:
        name = pod["metadata"]["name"]
        while _phase(pod) != "Running":
            left = deadline - time.monotonic()
            if left <= 0 or _phase(pod) in ("Succeeded", "Failed"):
                raise Unreachable(
                    f"node {node}: debug pod {self._namespace}/{name} does not run: {_why(pod)}"
                )
            pod = self._next(pod, left)

    def _next(self, pod: Body, timeout: float) -> Body:
        """The pod after its next change, or as it is after `timeout` seconds."""
        metadata = pod["metadata"]
        try:
            events = self._cluster.watch("v1", "Pod", since=metadata["resourceVersion"], timeout=timeout)
            for event in events:
                if event.object["metadata"].get("uid") == metadata["uid"]:
                    return event.object
        except Expired:
            # So many pods changed meanwhile that ours has to be looked at again.
            pass
        found = self._cluster.get(_ref(pod))
        if found is None:
            raise Unreachable(f"debug pod {self._namespace}/{metadata['name']} was deleted while it started")
        return found

    def _tools(self) -> str:
        """The image that `oc debug` uses; every OpenShift cluster names it."""
        try:
            tag = self._cluster.get(_TOOLS)
        except NotServed:
            tag = None
        if tag is None:
            raise Unreachable(
                "no pod of multus runs on the node, and the image for a debug pod is not known; name one that has "
                "coreutils by nodes.pod.image in a target file"
            )
        return str(tag["image"]["dockerImageReference"])

    def _delete(self, ref: Ref, uid: str | None = None) -> None:
        try:
            self._cluster.write(Delete(ref, uid=uid))
        except NotFound:
            return


def _is_left(pod: Body) -> bool:
    if _phase(pod) in ("Succeeded", "Failed"):
        return True
    host, _, pid = pod["metadata"].get("annotations", {}).get(HOLDER, "").rpartition(":")
    return bool(host == socket.gethostname() and pid.isdigit() and not _is_alive(int(pid)))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _ref(pod: Body) -> Ref:
    return Ref("v1", "Pod", pod["metadata"]["name"], pod["metadata"]["namespace"])


def _phase(pod: Body) -> str:
    return str(pod.get("status", {}).get("phase", "Pending"))


def _why(pod: Body) -> str:
    """The kubelet's reason, as near to the container as there is one."""
    status: Mapping[str, Any] = pod.get("status", {})
    for container in status.get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason"):
            return f"{waiting['reason']} {waiting.get('message', '')}".strip()
    return str(status.get("message") or status.get("reason") or f"it is {_phase(pod)}")


def _pod(ref: Ref, node: str, image: str) -> Body:
    """Root on the node, as `oc debug` has it. The scheduler is not asked: a cordoned node is entered too."""
    container = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"],
        "securityContext": {"privileged": True, "runAsUser": 0},
        "volumeMounts": [{"name": "host", "mountPath": "/host"}],
    }
    return {
        "apiVersion": ref.api,
        "kind": ref.kind,
        "metadata": {
            "name": ref.name,
            "namespace": ref.namespace,
            "labels": LABELS,
            "annotations": {HOLDER: f"{socket.gethostname()}:{os.getpid()}"},
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": True,
            "hostPID": True,
            "hostIPC": True,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _LIFE,
            "terminationGracePeriodSeconds": 0,
            "priorityClassName": "system-node-critical",
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
            "volumes": [{"name": "host", "hostPath": {"path": "/", "type": "Directory"}}],
        },
    }
