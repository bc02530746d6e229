"""A real Kubernetes API for tests: etcd, kube-apiserver and a kubelet that serves exec, in a folder of their own.

Invariant: nothing of it outlives the `with` that brought it up, nor the process that ran it.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from threading import local
from typing import Any
from urllib.parse import urlencode

import yaml

from .pki import Pki
from .processes import Daemons, free_ports, tail

ROOT = Path(__file__).parents[2]
CRDS = ROOT / "providers" / "twin" / "crds"
MERGE, JSON_PATCH, APPLY = (f"application/{kind}" for kind in ("merge-patch+json", "json-patch+json", "apply-patch+yaml"))  # fmt: skip
EXTENSIONS = "apiextensions.k8s.io/v1"
RBAC = "rbac.authorization.k8s.io/v1"

_STARTING = 120.0
"""Seconds for one daemon to be ready, on a machine that does much besides."""

_IDLE = 45.0
"""Seconds after which a connection is opened anew: the server closes one that is idle for 90."""

Object = dict[str, Any]


class CannotRun(Exception):
    """This machine cannot run an API server; the message says why."""


class Answered(Exception):
    """The server answered a request of a test's own with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


def binaries() -> Path:
    """The folder with etcd, kube-apiserver and kubelet, built if need be. Raises CannotRun."""
    if shutil.which("openssl") is None:
        raise CannotRun("openssl is not installed")
    built = subprocess.run((str(ROOT / "scripts" / "build-envtest"),), capture_output=True, text=True)
    if built.returncode != 0:
        raise CannotRun(built.stderr.strip()[-500:])
    return Path(built.stdout.strip())


class ApiServer:
    """One cluster without controllers. Its requests are made as `admin`, who may do everything."""

    def __init__(self, folder: Path, tools: Path, audit: Object | None) -> None:
        self.folder = folder
        self._tools = tools
        folder.mkdir(parents=True, exist_ok=True)
        self._pki = Pki(folder / "pki")
        self._daemons = Daemons(folder)
        self.port, self._etcd, self._peers = free_ports(3)
        self._audit = audit
        self._threads = local()
        self._connections: list[HTTPSConnection] = []
        self._paths: dict[tuple[str, str], tuple[str, bool]] = {}
        self._kubelets: dict[str, tuple[int, tuple[str, ...]]] = {}

    @classmethod
    @contextmanager
    def up(
        cls, folder: Path, *, audit: Object | None = None, crds: Path | None = CRDS
    ) -> Iterator[ApiServer]:
        """A server that is ready, with the CRDs of a folder installed. `audit` is an audit policy's rules."""
        server = cls(folder, binaries(), audit)
        try:
            server._certify()
            server._start_etcd()
            server.start()
            if crds is not None:
                server.install(crds)
            yield server
        finally:
            server._daemons.end_all()
            server._hang_up()

    # What a client needs to know of it.

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def authority(self) -> Path:
        """The certificate by which the server's is known."""
        return self._pki.authority

    @property
    def etcd(self) -> str:
        """Where etcd's own HTTP API is."""
        return f"http://127.0.0.1:{self._etcd}"

    def kubeconfig(self, user: str, *, token: str | None = None, server: str | None = None) -> Path:
        """A kubeconfig file whose one context is named like the user. Without a token, by certificate.

        `server` is another URL for the same API, of a proxy before it.
        """
        path = self.folder / f"{user}.kubeconfig"
        if token is None and not (self._pki.folder / f"{user}.crt").exists():
            self._pki.client(user)
        key = {f"client-{name}": str(self._pki.folder / f"{user}.{end}") for name, end in _PAIR}
        cluster = {"server": server or self.url, "certificate-authority": str(self.authority)}
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": user,
                    "clusters": [{"name": "lab", "cluster": cluster}],
                    "users": [{"name": user, "user": {"token": token} if token else key}],
                    "contexts": [{"name": user, "context": {"cluster": "lab", "user": user}}],
                }
            )
        )
        return path

    def token(self, namespace: str, account: str) -> str:
        """A new token of a service account, which is made when it is not there."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        try:
            self.call("POST", path, {"metadata": {"name": account}})
        except Answered as answer:
            if answer.status != 409:
                raise
        asked = {"spec": {"expirationSeconds": 3600}}
        return str(self.call("POST", f"{path}/{account}/token", asked)["status"]["token"])

    def grant(self, user: str, rules: Sequence[Object], name: str | None = None) -> None:
        """Give a user a cluster role of these rules; a service account is `system:serviceaccount:NAMESPACE:NAME`."""
        name = name or user.replace(":", "-")
        self.create(
            {"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": name}, "rules": [*rules]}
        )
        subject = {"kind": "User", "name": user, "apiGroup": RBAC.partition("/")[0]}
        role = {"kind": "ClusterRole", "name": name, "apiGroup": RBAC.partition("/")[0]}
        self.create(
            {
                "apiVersion": RBAC,
                "kind": "ClusterRoleBinding",
                "metadata": {"name": name},
                "subjects": [subject],
                "roleRef": role,
            }
        )

    def audited(self) -> list[Object]:
        """The events of the audit log so far."""
        path = self.folder / "audit.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    # Its life.

    def start(self) -> None:
        """Start the API server, and return when it is ready."""
        self._run("kube-apiserver", self._apiserver_arguments(), self._is_ready)

    def stop(self) -> None:
        """Kill the API server, as a crash of its machine would. etcd goes on."""
        self._daemons.end("kube-apiserver")
        self._hang_up()

    def restart(self) -> None:
        """Stop, and start."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """The API server takes connections, and answers nothing until `thaw`."""
        self._daemons.signal("kube-apiserver", signal.SIGSTOP)

    def thaw(self) -> None:
        self._daemons.signal("kube-apiserver", signal.SIGCONT)

    # What is in it.

    def call(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Object:
        """One request as it stands; returns the JSON of the answer. Raises Answered for an error."""
        status, text = self._exchange(method, path, body, content)
        if status >= 400:
            raise Answered(status, text)
        return dict(json.loads(text))

    def path(self, api: str, kind: str, namespace: str | None = None, name: str | None = None) -> str:
        """Where objects of a kind are."""
        if (api, kind) not in self._paths:
            prefix = "/api/v1" if api == "v1" else f"/apis/{api}"
            for found in self.call("GET", prefix)["resources"]:
                if "/" not in found["name"]:
                    self._paths[api, found["kind"]] = (f"{prefix}/{{}}{found['name']}", found["namespaced"])
        path, namespaced = self._paths[api, kind]
        where = f"namespaces/{namespace}/" if namespaced and namespace else ""
        return path.format(where) + (f"/{name}" if name else "")

    def create(self, body: Object) -> Object:
        """Create one object as its apiVersion, kind and namespace say; its status too, where that is a subresource."""
        metadata = body["metadata"]
        path = self.path(body["apiVersion"], body["kind"], metadata.get("namespace"))
        made = self.call("POST", path, body)
        if body.get("status") and made.get("status") != body["status"]:
            made = self.set_status(body, body["status"])
        return made

    def set_status(self, body: Object, status: Object) -> Object:
        """Write the status of an object that is there, as its controller would."""
        metadata = body["metadata"]
        path = self.path(body["apiVersion"], body["kind"], metadata.get("namespace"), metadata["name"])
        return self.call("PATCH", f"{path}/status", {"status": status}, MERGE)

    def create_all(self, bodies: Iterable[Object], threads: int = 8) -> None:
        """Create many objects, some at a time."""
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(self.create, bodies))

    def install(self, folder: Path) -> None:
        """Create what the JSON files of a folder hold, and return when every kind they define is served."""
        found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
        bodies = [body for one in found for body in _flat(one)]
        definitions = [body for body in bodies if body["kind"] == "CustomResourceDefinition"]
        self.define(definitions)
        for body in bodies:
            if body["kind"] != "CustomResourceDefinition":
                self.create(body)

    def define(self, definitions: Sequence[Object]) -> None:
        """Create CustomResourceDefinitions, and return when every kind they define is served."""
        for body in definitions:
            self.create(body)
        for body in definitions:
            self._await_served(body)

    def undefine(self, name: str) -> None:
        """Delete a CustomResourceDefinition, and return when it is gone with all its objects."""
        path = self.path(EXTENSIONS, "CustomResourceDefinition")
        body = self.call("GET", f"{path}/{name}")
        self.call("DELETE", f"{path}/{name}")
        query = {
            "fieldSelector": f"metadata.name={name}",
            "watch": 1,
            "resourceVersion": body["metadata"]["resourceVersion"],
        }
        for event in self._watch(f"{path}?{urlencode(query)}"):
            if event["type"] == "DELETED":
                break
        for served in _served(body["spec"]):
            self._await_status(served, 404)

    def add_nodes(
        self, prefixes: Mapping[str, Sequence[str]], labels: Mapping[str, str] | None = None
    ) -> None:
        """Nodes that are Ready, and on each a pod `exec-NODE` in `default`; what is run in it runs behind the prefix."""
        for (node, prefix), port in zip(prefixes.items(), free_ports(len(prefixes)), strict=True):
            self._kubelets[node] = (port, tuple(prefix))
            self.create(_node(node, port, labels or {}))
            self.create(_pod("default", f"exec-{node}", node))
        self._daemons.end("kubelet")
        self._run("kubelet", self._kubelet_arguments(), self._kubelet_listens)

    def add_pod(
        self, namespace: str, name: str, node: str, labels: Mapping[str, str] | None = None
    ) -> Object:
        """A running pod of one container on a node; what is run in it runs behind the node's prefix."""
        return self.create(_pod(namespace, name, node, labels or {}))

    # Inside.

    def _certify(self) -> None:
        for name in ("apiserver", "kubelet"):
            self._pki.server(name)
        for name in ("admin", "apiserver-to-kubelet"):
            self._pki.client(name, ("system:masters",))
        self._pki.signing_pair("accounts")
        if self._audit is not None:
            policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", **self._audit}
            (self.folder / "audit-policy.yaml").write_text(yaml.safe_dump(policy))

    def _start_etcd(self) -> None:
        client, peers = self.etcd, f"http://127.0.0.1:{self._peers}"
        arguments = (
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        )
        self._run("etcd", arguments, lambda: _listens(self._etcd))

    def _run(self, name: str, arguments: Sequence[str], ready: Callable[[], bool]) -> None:
        process = self._daemons.start(name, (str(self._tools / name), *arguments))
        end = time.monotonic() + _STARTING
        while not ready():
            try:
                # Waiting for its end is the pause between two looks: a daemon that died is seen at once.
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                if time.monotonic() < end:
                    continue
            raise RuntimeError(f"{name} did not get ready:\n{tail(self._daemons.log(name))}")

    def _apiserver_arguments(self) -> list[str]:
        pki = self._pki.folder
        audit = (
            f"--audit-policy-file={self.folder}/audit-policy.yaml",
            f"--audit-log-path={self.folder}/audit.log",
            # Else an event could still be in a buffer when a test reads the log.
            "--audit-log-mode=blocking-strict",
        )
        return [
            f"--etcd-servers={self.etcd}",
            *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={self.port}"),
            *("--endpoint-reconciler-type=none", "--service-cluster-ip-range=10.0.0.0/24"),
            *("--authorization-mode=RBAC", "--allow-privileged=true", "--anonymous-auth=true"),
            # Both expect kube-controller-manager: default accounts made, and the not-ready taint taken away again.
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
            *(f"--cert-dir={pki}", f"--client-ca-file={self.authority}"),
            *(f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key"),
            f"--service-account-issuer={self.url}/",
            f"--service-account-key-file={pki}/accounts.pub",
            f"--service-account-signing-key-file={pki}/accounts.key",
            f"--kubelet-client-certificate={pki}/apiserver-to-kubelet.crt",
            f"--kubelet-client-key={pki}/apiserver-to-kubelet.key",
            f"--kubelet-certificate-authority={self.authority}",
            "--kubelet-preferred-address-types=InternalIP",
            *(audit if self._audit is not None else ()),
        ]

    def _kubelet_arguments(self) -> list[str]:
        pki = self._pki.folder
        nodes = (f"{node}={port}={' '.join(prefix)}" for node, (port, prefix) in self._kubelets.items())
        return [
            *("-cert", f"{pki}/kubelet.crt", "-key", f"{pki}/kubelet.key"),
            *("-client-ca", str(self.authority), *nodes),
        ]

    def _kubelet_listens(self) -> bool:
        return all(_listens(port) for port, _ in self._kubelets.values())

    def _is_ready(self) -> bool:
        try:
            return self._exchange("GET", "/readyz")[0] == 200
        except (OSError, HTTPException):
            return False

    def _exchange(
        self, method: str, path: str, body: Any = None, content: str = "application/json"
    ) -> tuple[int, str]:
        connection: HTTPSConnection | None = getattr(self._threads, "connection", None)
        if connection is None:
            connection = self._threads.connection = HTTPSConnection(
                "127.0.0.1", self.port, timeout=60, context=self._tls()
            )
            self._connections.append(connection)
        elif time.monotonic() - self._threads.used > _IDLE:
            connection.close()  # the next request opens it anew
        self._threads.used = time.monotonic()
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method, path, data, {"Content-Type": content, "Accept": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except BaseException:
            # Half-way through an exchange, it is of no use for the next one.
            connection.close()
            raise

    def _hang_up(self) -> None:
        """Each is opened again by the next request of its thread."""
        for connection in self._connections:
            connection.close()

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(self._pki.folder / "admin.crt", self._pki.folder / "admin.key")
        return context

    def _await_served(self, definition: Object) -> None:
        """A definition is established first, and served a moment later."""
        spec, name = definition["spec"], definition["metadata"]["name"]
        query = {"fieldSelector": f"metadata.name={name}", "watch": 1, "timeoutSeconds": int(_STARTING)}
        path = self.path(EXTENSIONS, "CustomResourceDefinition")
        for event in self._watch(f"{path}?{urlencode(query)}"):
            conditions = event["object"].get("status", {}).get("conditions", ())
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                break
        for served in _served(spec):
            self._await_status(served, 200)

    def _watch(self, path: str) -> Iterator[Object]:
        connection = HTTPSConnection("127.0.0.1", self.port, timeout=_STARTING, context=self._tls())
        try:
            connection.request("GET", path)
            yield from map(json.loads, connection.getresponse())
        finally:
            connection.close()

    def _await_status(self, path: str, wanted: int) -> None:
        end = time.monotonic() + _STARTING
        while (answer := self._exchange("GET", path))[0] != wanted:
            if time.monotonic() > end:
                raise RuntimeError(f"{path} answers {answer}, and not {wanted}")


def _served(spec: Object) -> list[str]:
    """Where the objects of a definition are, in each version."""
    versions = [version["name"] for version in spec["versions"] if version["served"]]
    return [f"/apis/{spec['group']}/{version}/{spec['names']['plural']}?limit=1" for version in versions]


_PAIR = (("certificate", "crt"), ("key", "key"))


def _flat(one: Any) -> list[Object]:
    if isinstance(one, list):
        return one
    return list(one["items"]) if one["kind"].endswith("List") else [one]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _node(name: str, port: int, labels: Mapping[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def _pod(namespace: str, name: str, node: str, labels: Mapping[str, str] | None = None) -> Object:
    state = {"name": "main", "image": "none", "imageID": "none", "ready": True, "restartCount": 0}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": dict(labels or {})},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [{**state, "state": {"running": {"startedAt": "2025-01-01T00:00:00Z"}}}],
        },
    }
