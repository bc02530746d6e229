"""What only a real API server shows: restarts, lost answers, pages, rights. Its requests are counted by its audit log."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tracemalloc
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from providers.kubernetes import KubernetesCluster, calls, connect
from providers.ports import (
    AlreadyExists,
    Busy,
    Create,
    Delete,
    Expired,
    Forbidden,
    InDoubt,
    MergePatch,
    NotServed,
    Ref,
    Unauthorized,
    Unreachable,
)

from .conftest import NMSTATE, Side
from .proxy import Proxy
from .server import ApiServer

pytestmark = pytest.mark.apiserver

POLICIES = "nodenetworkconfigurationpolicies"
EVERYTHING = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]


@pytest.fixture
def real(admin: KubernetesCluster, space: str) -> Side:
    return Side(admin, space)


def cluster_of(server: ApiServer, user: str, **options: Any) -> KubernetesCluster:
    """The API server as seen by a user who can't say yet which cluster it is, and so can't connect."""
    from kubernetes import client, config

    settings: Any = client.Configuration()
    load: Any = config.load_kube_config
    load(str(server.folder / f"{user}.kubeconfig"), user, settings)
    settings.retries = False
    api: Any = client.ApiClient
    return KubernetesCluster(api(settings), **options)


@contextmanager
def closing(cluster: KubernetesCluster) -> Iterator[KubernetesCluster]:
    try:
        yield cluster
    finally:
        cluster.close()


@contextmanager
def down_for(server: ApiServer, seconds: float) -> Iterator[None]:
    """The API server is down from the beginning, and comes back after a while."""

    def come_back() -> None:
        time.sleep(seconds)
        server.start()

    server.stop()
    with ThreadPoolExecutor(1) as pool:
        back = pool.submit(come_back)
        try:
            yield
        finally:
            back.result()


def etcd(server: ApiServer, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(f"{server.etcd}/v3/kv/{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request) as answer:
        return dict(json.loads(answer.read()))


def forget_the_past(server: ApiServer) -> None:
    """No version before now can be read any more."""
    # What is compacted are the versions before one, so there has to be one more.
    now = etcd(server, "put", {"key": "bm93", "value": "bm93"})["header"]["revision"]
    etcd(server, "compaction", {"revision": now, "physical": True})
    server.restart()


def asked(server: ApiServer, user: str) -> list[tuple[str, str]]:
    """The (verb, path and query) of every request that a user made."""
    return [
        (event["verb"], event["requestURI"])
        for event in server.audited()
        if event["user"].get("username") == user and event["stage"] == "ResponseComplete"
    ]


def before_each(cluster: KubernetesCluster, act: Callable[[str], str]) -> None:
    """`act` on the URL of each request before it is sent; what it returns is sent instead."""
    client: Any = cluster.api_client
    send = client.call_api

    def call_api(method: str, url: str, *more: Any, **options: Any) -> Any:
        return send(method, act(url), *more, **options)

    client.call_api = call_api


# The API server goes, and comes back.


def test_a_restart_of_the_api_server_is_survived_by_reads(server: ApiServer, real: Side) -> None:
    made = real.cluster.write(Create(real.map("notes"), {}))
    with down_for(server, 0.5):
        assert real.cluster.get(real.map("notes")) == made
        assert real.cluster.list("v1", "ConfigMap", namespace=real.space).items == (made,)


def test_a_write_that_found_nobody_is_done_once_when_the_api_server_is_back(
    server: ApiServer, real: Side
) -> None:
    with down_for(server, 0.5):
        # Sent twice, the second would have found the first.
        real.cluster.write(Create(real.map("notes"), {}))
    assert real.cluster.get(real.map("notes"))


def test_a_watch_does_not_end_in_silence_because_of_a_restart(server: ApiServer, real: Side) -> None:
    """It goes on, or is too old: a server that was started anew remembers nothing from before its start."""
    since = real.cluster.list("v1", "ConfigMap").resource_version
    events = real.cluster.watch("v1", "ConfigMap", since=since, timeout=20)
    names = (event.object["metadata"]["name"] for event in events)
    real.cluster.write(Create(real.map("before"), {}))
    assert next(names) == "before"
    server.restart()
    real.cluster.write(Create(real.map("after"), {}))
    try:
        assert "after" in names
    except Expired as expired:
        assert "too old resource version" in str(expired)


def test_patience_has_an_end(server: ApiServer, space: str) -> None:
    server.kubeconfig("admin")
    with closing(cluster_of(server, "admin", patience=0.5)) as cluster:
        cluster.list("v1", "Node")
        with down_for(server, 2.0):
            begun = time.monotonic()
            with pytest.raises(Unreachable, match=r"list Node: .* was not reached: Connection refused"):
                cluster.list("v1", "Node")
            with pytest.raises(Unreachable, match="was not reached"):
                cluster.write(Create(Ref("v1", "ConfigMap", "a", space), {}))
            assert time.monotonic() - begun < 2.0


def test_a_server_that_does_not_answer_leaves_a_write_in_doubt_and_a_read_undone(
    server: ApiServer, space: str
) -> None:
    server.kubeconfig("admin")
    with closing(cluster_of(server, "admin", patience=0.0, timeout=0.5)) as cluster:
        ref = Ref("v1", "ConfigMap", "a", space)
        assert cluster.get(ref) is None
        server.freeze()
        try:
            with pytest.raises(InDoubt, match=r"create ConfigMap .*: no answer in time"):
                cluster.write(Create(ref, {}))
            with pytest.raises(Unreachable, match="get ConfigMap"):
                cluster.get(ref)
        finally:
            server.thaw()


# Answers that are lost.


@contextmanager
def through_proxy(server: ApiServer) -> Iterator[tuple[Proxy, KubernetesCluster]]:
    with Proxy.before(server.port) as proxy:
        config = server.kubeconfig("admin", server=proxy.url)
        try:
            cluster, title, _ = connect("admin", str(config))
            assert proxy.url in title
            with closing(cluster):
                yield proxy, cluster
        finally:
            server.kubeconfig("admin")


def test_a_write_whose_answer_was_lost_is_in_doubt_and_not_repeated(server: ApiServer, real: Side) -> None:
    ref = real.map("notes")
    with through_proxy(server) as (proxy, cluster):
        cluster.get(ref)
        proxy.swallow_next()
        with pytest.raises(InDoubt, match="may have been done"):
            cluster.write(Create(ref, {"data": {"a": "1"}}))
        assert real.now(ref)["data"] == {"a": "1"}
        # Which also opens a connection: what is swallowed next is an answer, and no greeting.
        cluster.get(ref)
        version = real.version(ref)
        proxy.swallow_next()
        with pytest.raises(InDoubt):
            cluster.write(MergePatch(ref, {"data": {"a": "2"}}, version))
        assert real.now(ref)["data"] == {"a": "2"}
        cluster.get(ref)
        proxy.swallow_next()
        cluster.get(ref)
        assert proxy.swallowed.is_set()


def test_a_delete_whose_answer_was_lost_is_not_sent_again(server: ApiServer, real: Side) -> None:
    """An HTTP library repeats deletes by itself; the second one could meet an object made since."""
    ref = real.map("notes")
    real.cluster.write(Create(ref, {}))
    with through_proxy(server) as (proxy, cluster):
        cluster.get(ref)
        client: Any = cluster.api_client
        send = client.call_api

        def call_api(method: str, *more: Any, **options: Any) -> Any:
            if method == "DELETE":
                proxy.swallow_next()
            return send(method, *more, **options)

        client.call_api = call_api
        connections = proxy.passed
        with pytest.raises(InDoubt, match="delete ConfigMap"):
            cluster.write(Delete(ref))
        assert proxy.passed == connections
    assert real.cluster.get(ref) is None


# Lists and watches.


@pytest.fixture
def counted(server: ApiServer, space: str) -> Iterator[tuple[str, KubernetesCluster]]:
    """A user whose requests are nobody else's."""
    user = f"counted-{space}"
    server.kubeconfig(user)
    server.grant(user, EVERYTHING)
    with closing(cluster_of(server, user)) as cluster:
        yield user, cluster


def test_a_thousand_objects_are_read_in_three_requests(
    server: ApiServer, space: str, counted: tuple[str, KubernetesCluster]
) -> None:
    user, cluster = counted
    body = {"apiVersion": "v1", "kind": "ConfigMap"}
    server.create_all({**body, "metadata": {"namespace": space, "name": f"n{n:04}"}} for n in range(1000))
    found = cluster.list("v1", "ConfigMap", namespace=space)
    assert [item["metadata"]["name"] for item in found.items] == [f"n{n:04}" for n in range(1000)]
    assert len(asked(server, user)) == 3
    cluster.list("v1", "ConfigMap", namespace=space)
    requests = asked(server, user)
    assert len(requests) == 5
    assert all("limit=500" in uri for _, uri in requests[1:])


def test_what_is_not_kept_of_a_list_is_dropped_page_by_page(
    server: ApiServer, space: str, counted: tuple[str, KubernetesCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cluster = counted
    monkeypatch.setattr(calls, "PAGE", 10)
    size, count = 100_000, 100
    body = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"big": "x" * size}}
    server.create_all({**body, "metadata": {"namespace": space, "name": f"n{n:03}"}} for n in range(count))
    cluster.list("v1", "ConfigMap", namespace=space, keep=("metadata.labels",))
    tracemalloc.start()
    try:
        found = cluster.list("v1", "ConfigMap", namespace=space, keep=("metadata.labels",))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.items) == count
    assert peak < size * count / 2


def test_a_list_whose_pages_grew_too_old_is_begun_anew(
    server: ApiServer, space: str, counted: tuple[str, KubernetesCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cluster = counted
    names = [f"n{n}" for n in range(4)]
    body = {"apiVersion": "v1", "kind": "ConfigMap"}
    server.create_all({**body, "metadata": {"namespace": space, "name": name}} for name in names)
    monkeypatch.setattr(calls, "PAGE", 2)
    happened: list[str] = []

    def act(url: str) -> str:
        if "continue=" in url and not happened:
            happened.append(url)
            # Changed between two pages: without a new beginning, the list would be of no moment at all.
            server.create({**body, "metadata": {"namespace": space, "name": "n9"}})
            forget_the_past(server)
        return url

    before_each(cluster, act)
    found = cluster.list("v1", "ConfigMap", namespace=space)
    assert happened
    assert [item["metadata"]["name"] for item in found.items] == [*names, "n9"]
    assert int(found.resource_version) >= max(int(i["metadata"]["resourceVersion"]) for i in found.items)


def test_a_list_that_is_always_too_old_is_not_begun_for_ever(
    server: ApiServer, space: str, counted: tuple[str, KubernetesCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    user, cluster = counted
    body = {"apiVersion": "v1", "kind": "ConfigMap"}
    server.create_all({**body, "metadata": {"namespace": space, "name": f"n{n}"}} for n in range(4))
    monkeypatch.setattr(calls, "PAGE", 2)
    old: list[str] = []

    def act(url: str) -> str:
        if "continue=" in url and not old:
            old.append(url)
            forget_the_past(server)
        return old[0] if "continue=" in url else url

    before_each(cluster, act)
    with pytest.raises(Expired):
        cluster.list("v1", "ConfigMap", namespace=space)
    assert len([uri for verb, uri in asked(server, user) if verb == "list"]) == 6


def test_a_watch_from_a_version_that_is_forgotten_says_so(server: ApiServer, real: Side) -> None:
    since = real.cluster.list("v1", "ConfigMap").resource_version
    real.cluster.write(Create(real.map("a"), {}))
    real.cluster.write(Delete(real.map("a")))
    forget_the_past(server)
    with pytest.raises(Expired, match="watch ConfigMap: too old resource version"):
        list(real.cluster.watch("v1", "ConfigMap", since=since, timeout=5))


def definition(group: str, scope: str) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"kind": "Thing", "plural": "things", "singular": "thing", "listKind": "ThingList"}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {"group": group, "names": names, "scope": scope, "versions": [version]},
    }


def test_a_kind_is_found_as_soon_as_its_operator_is_installed(server: ApiServer, real: Side) -> None:
    group = f"{real.space}.example.com"
    with pytest.raises(NotServed, match=rf"the cluster serves no Thing \({group}/v1\)"):
        real.cluster.list(f"{group}/v1", "Thing")
    server.define([definition(group, "Cluster")])
    assert real.cluster.list(f"{group}/v1", "Thing").items == ()


def test_a_kind_whose_operator_went_is_looked_for_anew(server: ApiServer, real: Side) -> None:
    group = f"{real.space}.example.com"
    server.define([definition(group, "Cluster")])
    real.cluster.write(Create(Ref(f"{group}/v1", "Thing", "a"), {}))
    server.undefine(f"things.{group}")
    with pytest.raises(NotServed):
        real.cluster.list(f"{group}/v1", "Thing")
    server.define([definition(group, "Namespaced")])
    thing = Ref(f"{group}/v1", "Thing", "a", real.space)
    real.cluster.write(Create(thing, {}))
    assert real.now(thing)["metadata"]["namespace"] == real.space


# Writes.


def test_what_we_write_is_owned_by_ovsplan(real: Side) -> None:
    real.cluster.write(Create(real.map("a"), {"data": {"a": "1"}}))
    real.cluster.write(MergePatch(real.map("a"), {"data": {"a": "2"}}))
    managers = {entry["manager"] for entry in real.now(real.map("a"))["metadata"]["managedFields"]}
    assert managers == {"ovsplan"}


def test_a_webhook_that_is_down_leaves_nothing_in_doubt(server: ApiServer, real: Side) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["secrets"]}
    hook = {
        "name": "down.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [rule],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": real.space}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    api = "admissionregistration.k8s.io/v1"
    name = {"name": f"down-{real.space}"}
    server.create(
        {"apiVersion": api, "kind": "ValidatingWebhookConfiguration", "metadata": name, "webhooks": [hook]}
    )
    secret = Ref("v1", "Secret", "a", real.space)

    def refused() -> bool:
        try:
            real.cluster.write(Create(secret, {}), dry_run=True)
        except Unreachable:
            return True
        return False

    # The server takes it up a moment after it is stored.
    end = time.monotonic() + 30
    while not refused():
        assert time.monotonic() < end
    with pytest.raises(Unreachable, match="failed calling webhook"):
        real.cluster.write(Create(secret, {}))
    assert real.cluster.get(secret) is None


# Rights.


def test_who_may_not_is_told_what_and_as_whom(server: ApiServer, real: Side) -> None:
    user = f"reader-{real.space}"
    server.kubeconfig(user)
    policy = real.policy("p")
    with closing(cluster_of(server, user)) as cluster:
        with pytest.raises(Forbidden) as forbidden:
            cluster.list(NMSTATE, policy.kind)
        said = (
            f'User "{user}" cannot list resource "{POLICIES}" in API group "nmstate.io" at the cluster scope'
        )
        assert said in str(forbidden.value)
        rule = {"apiGroups": ["nmstate.io"], "resources": [POLICIES], "verbs": ["list", "get"]}
        server.grant(user, [rule])
        cluster.list(NMSTATE, policy.kind)
        for dry_run in (True, False):
            with pytest.raises(Forbidden, match="cannot create resource"):
                cluster.write(Create(policy, {"spec": {}}), dry_run=dry_run)


def test_who_may_not_create_is_not_told_that_the_name_is_taken(server: ApiServer, real: Side) -> None:
    user = f"nobody-{real.space}"
    server.kubeconfig(user)
    real.cluster.write(Create(real.map("a"), {}))
    with closing(cluster_of(server, user)) as cluster, pytest.raises(Forbidden) as refused:
        cluster.write(Create(real.map("a"), {}))
    assert not isinstance(refused.value, AlreadyExists)
    assert f'in the namespace "{real.space}"' in str(refused.value)


def test_a_token_that_is_no_good_is_told_from_one_that_may_not(server: ApiServer, space: str) -> None:
    good = server.token(space, "ours")
    for user, token in ((f"good-{space}", good), (f"bad-{space}", "not-a-token")):
        server.kubeconfig(user, token=token)
    with (
        closing(cluster_of(server, f"good-{space}")) as cluster,
        pytest.raises(Forbidden, match=f"system:serviceaccount:{space}:ours"),
    ):
        cluster.list("v1", "Node")
    with (
        closing(cluster_of(server, f"bad-{space}")) as cluster,
        pytest.raises(Unauthorized, match="token has expired"),
    ):
        cluster.list("v1", "Node")


def test_a_spent_budget_is_told_at_once(real: Side) -> None:
    """It takes minutes to change; to wait for it here would hold up who asks."""
    pod = {"spec": {"nodeName": "none", "containers": [{"name": "main", "image": "none"}]}}
    real.cluster.write(Create(real.pod("web"), {**pod, "metadata": {"labels": {"app": "web"}}}))
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    real.cluster.write(MergePatch(real.pod("web"), {"status": status}, subresource="status"))
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    real.cluster.write(Create(Ref("policy/v1", "PodDisruptionBudget", "web", real.space), {"spec": spec}))
    begun = time.monotonic()
    with pytest.raises(Busy):
        real.cluster.write(Create(real.pod("web"), {}, "eviction"))
    assert time.monotonic() - begun < 2.0


def test_nothing_of_the_client_is_loaded_before_a_cluster_is_reached() -> None:
    look = (
        "import sys, providers.kubernetes; print([m for m in ('kubernetes', 'urllib3') if m in sys.modules])"
    )
    ran = subprocess.run((sys.executable, "-c", look), capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
