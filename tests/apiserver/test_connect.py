"""From a context to a cluster: its name, its identity, and one clear sentence for everything that is wrong."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from providers.kubernetes import ConnectError, connect

from .server import ApiServer

pytestmark = pytest.mark.apiserver

NAMESPACES = {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}


@pytest.fixture
def config(server: ApiServer) -> dict[str, Any]:
    """A kubeconfig that works, to be spoilt."""
    return dict(yaml.safe_load(server.kubeconfig("admin").read_text()))


def write(folder: Path, content: Any, name: str = "config") -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def refused(context: str, kubeconfig: str | None = None) -> str:
    with pytest.raises(ConnectError) as error:
        connect(context, kubeconfig)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_cluster_is_known_by_context_url_and_user(
    server: ApiServer, config: dict[str, Any], tmp_path: Path
) -> None:
    config["contexts"][0]["name"] = "my-cluster"
    cluster, title, identity = connect("my-cluster", write(tmp_path, config))
    cluster.close()
    assert title == f"cluster my-cluster ({server.url}, user admin)"
    uid = server.call("GET", "/api/v1/namespaces/kube-system")["metadata"]["uid"]
    assert identity == f"cluster {uid}"


def test_the_user_is_who_the_server_says(server: ApiServer, space: str) -> None:
    account = f"system:serviceaccount:{space}:ours"
    path = server.kubeconfig(f"short-{space}", token=server.token(space, "ours"))
    server.grant(account, [NAMESPACES])
    cluster, title, _ = connect(f"short-{space}", str(path))
    cluster.close()
    assert title.endswith(f"user {account})")


def test_several_files_of_kubeconfig_are_one(
    server: ApiServer, config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clusters = write(tmp_path, {"clusters": config["clusters"], "contexts": config["contexts"]}, "clusters")
    users = write(tmp_path, {"users": config["users"]}, "users")
    # Of two with one name, the first counts.
    shadow = {"clusters": [{"name": "lab", "cluster": {"server": "https://127.0.0.1:1"}}]}
    last = write(tmp_path, shadow, "last")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{clusters}:{users}:{last}")
    cluster, title, _ = connect("admin")
    cluster.close()
    assert server.url in title


def test_without_a_kubeconfig_it_is_said_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert refused("a") == (
        f"no kubeconfig: {tmp_path}/.kube/config does not exist. Give --kubeconfig FILE, or set KUBECONFIG."
    )
    monkeypatch.setenv("KUBECONFIG", "/none:/nowhere")
    assert "/none and /nowhere (KUBECONFIG) does not exist" in refused("a")
    assert "no kubeconfig: /none does not exist" in refused("a", "/none")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [", r":1:5: is not YAML: "),
        ("- a", r": is not a kubeconfig: expected a mapping"),
        ("", r": is not a kubeconfig"),
        ("contexts: 3", r": contexts: expected a list"),
        ("contexts: [{context: {}}]", r": contexts: expected each to have a name"),
        ("contexts: []", r": no context 'admin'\. There is none\."),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, content: str, said: str) -> None:
    path = write(tmp_path, content)
    assert re.match(re.escape(path) + said, refused("admin", path))


def test_a_context_that_is_not_there_is_told_with_those_that_are(
    server: ApiServer, config: dict[str, Any], tmp_path: Path
) -> None:
    config["contexts"].append({"name": "other", "context": {}})
    path = write(tmp_path, config)
    assert (
        refused("admn", path) == f"{path}: no context 'admn'. Did you mean 'admin'? There are: admin, other."
    )


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"user": "admin"}, "the context 'admin' names no cluster. Give it one of: lab."),
        ({"cluster": "lab"}, "the context 'admin' names no user. Give it one of: admin."),
        (
            {"cluster": "lob", "user": "admin"},
            "names the cluster 'lob', which is not there. Did you mean 'lab'?",
        ),
        ({"cluster": "lab", "user": "x"}, "names the user 'x', which is not there. There is: admin."),
    ],
)
def test_a_context_has_a_cluster_and_a_user(
    config: dict[str, Any], tmp_path: Path, context: Any, said: str
) -> None:
    config["contexts"][0]["context"] = context
    assert said in refused("admin", write(tmp_path, config))


def test_a_cluster_has_a_server(config: dict[str, Any], tmp_path: Path) -> None:
    config["clusters"][0]["cluster"] = {}
    assert "the cluster 'lab' has no server" in refused("admin", write(tmp_path, config))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "https://127.0.0.1:1",
            "is not reachable: Connection refused. Check the network, and the server's URL.",
        ),
        ("https://no-such-host.invalid:6443", "is not reachable: Failed to resolve 'no-such-host.invalid'"),
    ],
)
def test_a_cluster_that_is_not_reachable_is_told_with_its_url(
    config: dict[str, Any], tmp_path: Path, url: str, said: str
) -> None:
    config["clusters"][0]["cluster"]["server"] = url
    told = refused("admin", write(tmp_path, config))
    assert told.startswith(f"the cluster of context 'admin' at {url} ")
    assert said in told


def test_something_else_than_an_api_server_is_told(
    server: ApiServer, config: dict[str, Any], tmp_path: Path
) -> None:
    config["clusters"][0]["cluster"] = {"server": server.etcd}
    config["users"][0]["user"] = {"token": "x"}
    assert "does not answer as a Kubernetes API does: " in refused("admin", write(tmp_path, config))


def test_a_certificate_that_is_not_trusted_is_told_as_such(
    server: ApiServer, config: dict[str, Any], tmp_path: Path
) -> None:
    cluster = config["clusters"][0]["cluster"]
    cluster["certificate-authority"] = str(server.folder / "pki" / "kubelet.crt")
    told = refused("admin", write(tmp_path, config))
    assert f"the certificate of {server.url} is not trusted: " in told
    assert "certificate-authority" in told
    cluster["certificate-authority"] = "/none.crt"
    assert "/none.crt" in refused("admin", write(tmp_path, config))


def test_an_expired_login_is_told_as_such(server: ApiServer) -> None:
    path = server.kubeconfig("expired", token="eyJhbGciOiJub25lIn0.e30.")
    assert refused("expired", str(path)) == (
        f"the cluster of context 'expired' at {server.url} does not know the user 'expired': the token has "
        "expired, or was never good. Log in again."
    )


def test_who_may_not_even_ask_which_cluster_it_is_is_told_what_it_takes(server: ApiServer) -> None:
    path = server.kubeconfig("stranger")
    told = refused("stranger", str(path))
    assert 'User "stranger" cannot get resource "namespaces"' in told
    assert told.endswith("Grant `get` on the namespace kube-system.")


def plugin(tmp_path: Path, config: dict[str, Any], script: str) -> str:
    command = tmp_path / "login"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    api = "client.authentication.k8s.io/v1"
    config["users"][0]["user"] = {
        "exec": {"apiVersion": api, "command": str(command), "interactiveMode": "Never"}
    }
    return write(tmp_path, config)


def test_a_credential_plugin_is_asked_for_the_token(
    server: ApiServer, config: dict[str, Any], tmp_path: Path, space: str
) -> None:
    server.grant(f"system:serviceaccount:{space}:plugged", [NAMESPACES])
    status = {"token": server.token(space, "plugged")}
    api = "client.authentication.k8s.io/v1"
    credential = json.dumps({"apiVersion": api, "kind": "ExecCredential", "status": status})
    path = plugin(tmp_path, config, f"echo '{credential}'")
    cluster, title, _ = connect("admin", path)
    cluster.close()
    assert f"user system:serviceaccount:{space}:plugged" in title


def test_a_credential_plugin_that_fails_says_why(config: dict[str, Any], tmp_path: Path) -> None:
    told = refused("admin", plugin(tmp_path, config, "echo 'no browser here' >&2; exit 3"))
    assert f"the credential plug-in `{tmp_path}/login` failed: " in told
    assert "no browser here" in told


def test_a_cluster_that_is_too_old_is_told_what_it_takes(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["providers.kubernetes.connect"], "OLDEST", (9, 9))
    assert refused("admin", str(server.kubeconfig("admin"))) == (
        f"the cluster of context 'admin' at {server.url} runs Kubernetes 1.36; ovsplan needs 9.9 (OpenShift 4.14) or later, "
        "which refuse a field that they do not know. Update the cluster first."
    )
