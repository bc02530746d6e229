"""What every `ports.Cluster` does, asked of the twin and of a real API server in the same words."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from providers.ports import (
    AlreadyExists,
    Apply,
    Body,
    Busy,
    Conflict,
    Create,
    Delete,
    Forbidden,
    JsonPatch,
    MergePatch,
    NotFound,
    NotServed,
    Owned,
    PortError,
    Ref,
    Refused,
    Write,
)
from providers.twin.served import ServedCluster

from .conftest import NMSTATE, Side

pytestmark = pytest.mark.apiserver

POD: Body = {"spec": {"nodeName": "worker-01", "containers": [{"name": "main", "image": "none"}]}}


def data(**entries: str) -> Body:
    return {"data": entries}


AVAILABLE = {"type": "Available", "status": "True", "reason": "SuccessfullyConfigured"}


def finished(side: Side, ref: Ref) -> Body:
    """A policy that nmstate is done with: until then, its spec may not be edited."""
    return side.cluster.write(MergePatch(ref, {"status": {"conditions": [AVAILABLE]}}, subresource="status"))


def interface(name: str) -> Body:
    return {"name": name, "type": "ovs-bridge", "state": "up"}


# Create, get.


def test_an_object_is_read_as_it_was_created(side: Side) -> None:
    ref = side.map("notes")
    assert side.cluster.get(ref) is None
    made = side.cluster.write(Create(ref, {**data(a="b"), "metadata": {"labels": {"x": "y"}}}))
    assert (made["apiVersion"], made["kind"], made["data"]) == ("v1", "ConfigMap", {"a": "b"})
    assert made["metadata"]["labels"] == {"x": "y"}
    assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("notes", side.space)
    assert len(made["metadata"]["uid"]) == 36
    assert made["metadata"].keys() >= {"resourceVersion", "creationTimestamp"}
    assert side.cluster.get(ref) == made


def test_a_name_is_given_once(side: Side) -> None:
    made = side.cluster.write(Create(side.map("notes"), data(a="b")))
    with pytest.raises(AlreadyExists, match=r'configmaps "notes" already exists'):
        side.cluster.write(Create(side.map("notes"), data(a="other")))
    assert side.now(side.map("notes")) == made


@pytest.mark.parametrize(
    ("name", "metadata"),
    [("Upper", {}), ("a", {"name": "b"}), ("a", {"namespace": "default"}), ("a", {"resourceVersion": "1"})],
)
def test_a_name_must_be_one_and_the_one_asked_for(side: Side, name: str, metadata: Body) -> None:
    with pytest.raises(Refused):
        side.cluster.write(Create(side.map(name), {"metadata": metadata}))
    assert not side.cluster.list("v1", "ConfigMap", namespace=side.space).items


def test_a_namespaced_object_needs_a_namespace_that_is_there(side: Side) -> None:
    with pytest.raises(Refused):
        side.cluster.write(Create(Ref("v1", "ConfigMap", "a"), {}))
    with pytest.raises(Refused):
        side.cluster.write(Create(Ref("v1", "Namespace", "inner", side.space), {}))
    with pytest.raises(NotFound, match="nowhere"):
        side.cluster.write(Create(Ref("v1", "ConfigMap", "a", "nowhere"), {}))


def test_what_one_may_do_is_asked_by_a_review_that_is_not_kept(side: Side) -> None:
    ask = Ref("authorization.k8s.io/v1", "SelfSubjectAccessReview", "")
    attributes = {"verb": "list", "resource": "nodes"}
    for _ in range(2):
        answer = side.cluster.write(Create(ask, {"spec": {"resourceAttributes": attributes}}))
        assert answer["status"]["allowed"] is True


# Exec.


def launched(side: Side, node: str, name: str = "launcher") -> Ref:
    """A pod with the container that a VM runs in."""
    ref = Ref("v1", "Pod", name, side.space)
    labels = {"kubevirt.io": "virt-launcher", "vm.kubevirt.io/name": "web"}
    spec = {"nodeName": node, "containers": [{"name": "compute", "image": "none"}]}
    side.cluster.write(Create(ref, {"metadata": {"labels": labels}, "spec": spec}))
    side.cluster.write(MergePatch(ref, {"status": {"phase": "Running"}}, subresource="status"))
    return ref


@pytest.fixture
def node(request: pytest.FixtureRequest, side: Side) -> str:
    """A node of this side's on which commands run."""
    return "worker-01" if isinstance(side.cluster, ServedCluster) else request.getfixturevalue("kubelet")


def test_a_command_runs_in_a_container_to_its_end(side: Side, node: str) -> None:
    argv = [
        "virt-probe",
        "--domainName",
        f"{side.space}_web",
        "--command",
        "ping",
        "--",
        "-c",
        "2",
        "192.0.2.1",
    ]
    done = side.cluster.exec(launched(side, node), "compute", argv, timeout=30)
    assert done.rc != 0 and done.err


def test_a_program_that_is_not_there_is_no_success(side: Side, node: str) -> None:
    done = side.cluster.exec(launched(side, node), "compute", ["no-such-program"], timeout=30)
    assert done.rc >= 126 and "no-such-program" in done.err


def test_a_command_for_a_pod_that_cannot_run_it_did_not_run(side: Side, node: str) -> None:
    pod = launched(side, node)
    with pytest.raises(NotFound, match='pods "gone" not found'):
        side.cluster.exec(Ref("v1", "Pod", "gone", side.space), "compute", ["true"], timeout=30)
    with pytest.raises(Refused, match="container other is not valid for pod launcher"):
        side.cluster.exec(pod, "other", ["true"], timeout=30)


# List.


def names(side: Side, **by: Any) -> list[str]:
    found = side.cluster.list("v1", "ConfigMap", **by).items
    spaces = (side.space, f"{side.space}-b")
    return [i["metadata"]["name"] for i in found if i["metadata"]["namespace"] in spaces]


def test_a_list_is_sorted_by_namespace_and_name(side: Side) -> None:
    # As keys, `t1-b/…` comes before `t1/…`, and `a-c` before `a.b`.
    side.cluster.write(Create(Ref("v1", "Namespace", f"{side.space}-b"), {}))
    side.cluster.write(Create(Ref("v1", "ConfigMap", "first", f"{side.space}-b"), {}))
    for name in ("z", "a.b", "a", "a-c"):
        side.cluster.write(Create(side.map(name), {}))
    assert names(side) == ["a", "a-c", "a.b", "z", "first"]
    assert names(side, namespace=side.space) == ["a", "a-c", "a.b", "z"]


def test_a_list_holds_objects_as_get_gives_them(side: Side) -> None:
    made = side.cluster.write(Create(side.map("a"), data(k="v")))
    assert side.cluster.list("v1", "ConfigMap", namespace=side.space).items == (made,)


def test_labels_choose(side: Side) -> None:
    for name, labels in (("a", {"n": "1"}), ("b", {"n": "1", "m": ""}), ("c", {"n": "2"})):
        side.cluster.write(Create(side.map(name), {"metadata": {"labels": labels}}))
    assert names(side, labels={"n": "1"}) == ["a", "b"]
    assert names(side, labels={"n": "1", "m": ""}) == ["b"]
    assert names(side, labels={"n": "3"}) == []


def test_fields_choose_where_the_server_has_them(side: Side) -> None:
    for name, node in (("a", "worker-01"), ("b", "worker-02")):
        side.cluster.write(Create(side.pod(name), {"spec": {**POD["spec"], "nodeName": node}}))

    def pods(**fields: str) -> list[str]:
        found = side.cluster.list("v1", "Pod", namespace=side.space, fields=fields)
        return [item["metadata"]["name"] for item in found.items]

    assert pods(**{"spec.nodeName": "worker-02"}) == ["b"]
    assert pods(**{"metadata.name": "a", "spec.nodeName": "worker-02"}) == []
    with pytest.raises(Refused, match=r"field label not supported: spec\.hostname"):
        pods(**{"spec.hostname": "x"})


def test_what_is_not_to_be_kept_of_a_list_is_dropped(side: Side) -> None:
    body = {"metadata": {"labels": {"n": "1"}, "annotations": {"x": "y"}}, "data": {"a": "b", "c": "d"}}
    made = side.cluster.write(Create(side.map("a"), body))

    def kept(*keep: str) -> Body:
        (item,) = side.cluster.list("v1", "ConfigMap", namespace=side.space, keep=keep).items
        return item

    called = {name: made["metadata"][name] for name in ("name", "namespace", "uid", "resourceVersion")}
    names = {"apiVersion": "v1", "kind": "ConfigMap"}
    assert kept("data.a", "spec.none") == {**names, "metadata": called, "data": {"a": "b"}}
    assert kept("metadata.labels") == {**names, "metadata": {**called, "labels": {"n": "1"}}}
    assert kept("metadata") == {**names, "metadata": made["metadata"]}


# Merge patch.


def test_a_merge_patch_merges_and_deletes_on_null(side: Side) -> None:
    ref = side.map("notes")
    before = side.cluster.write(Create(ref, {**data(a="1", b="2"), "metadata": {"labels": {"x": "y"}}}))
    patched = side.cluster.write(MergePatch(ref, {"data": {"a": None, "c": "3"}}))
    assert patched["data"] == {"b": "2", "c": "3"}
    assert patched["metadata"]["labels"] == {"x": "y"}
    assert patched["metadata"]["uid"] == before["metadata"]["uid"]
    assert int(patched["metadata"]["resourceVersion"]) > int(before["metadata"]["resourceVersion"])
    assert side.now(ref) == patched


def test_a_merge_patch_that_changes_nothing_makes_no_version(side: Side) -> None:
    made = side.cluster.write(Create(side.map("notes"), data(a="1")))
    again = side.cluster.write(MergePatch(side.map("notes"), data(a="1")))
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_a_merge_patch_at_an_old_version_conflicts_and_does_nothing(side: Side) -> None:
    ref = side.map("notes")
    old = side.cluster.write(Create(ref, data(a="1")))["metadata"]["resourceVersion"]
    fresh = side.cluster.write(MergePatch(ref, data(a="2")))["metadata"]["resourceVersion"]
    with pytest.raises(Conflict, match="the object has been modified"):
        side.cluster.write(MergePatch(ref, data(a="3"), old))
    assert side.now(ref)["data"] == {"a": "2"}
    assert side.cluster.write(MergePatch(ref, data(a="3"), fresh))["data"] == {"a": "3"}


def test_a_merge_patch_of_nothing_is_not_found(side: Side) -> None:
    with pytest.raises(NotFound):
        side.cluster.write(MergePatch(side.map("none"), data(a="1")))
    assert side.cluster.get(side.map("none")) is None


def test_an_object_keeps_its_name(side: Side) -> None:
    side.cluster.write(Create(side.map("notes"), {}))
    with pytest.raises(Refused):
        side.cluster.write(MergePatch(side.map("notes"), {"metadata": {"name": "other"}}))


# JSON patch.


def test_a_json_patch_replaces_a_subtree_whole(side: Side) -> None:
    ref = side.map("notes")
    version = side.cluster.write(Create(ref, data(a="1", b="2")))["metadata"]["resourceVersion"]
    operations: tuple[Body, ...] = (
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "replace", "path": "/data", "value": {"c": "3"}},
        {"op": "add", "path": "/metadata/labels", "value": {}},
        {"op": "add", "path": "/metadata/labels/x~1y", "value": "z"},
    )
    patched = side.cluster.write(JsonPatch(ref, operations, version))
    assert patched["data"] == {"c": "3"}
    assert patched["metadata"]["labels"] == {"x/y": "z"}
    assert side.now(ref) == patched


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/data/a", "value": "other"},
        {"op": "remove", "path": "/data/none"},
    ],
)
@pytest.mark.parametrize("versioned", [False, True])
def test_a_json_patch_is_done_whole_or_not_at_all(side: Side, operation: Body, versioned: bool) -> None:
    made = side.cluster.write(Create(side.map("notes"), data(a="1")))
    operations = ({"op": "add", "path": "/data/b", "value": "2"}, operation)
    version = made["metadata"]["resourceVersion"] if versioned else None
    with pytest.raises(Refused):
        side.cluster.write(JsonPatch(side.map("notes"), operations, version))
    assert side.now(side.map("notes")) == made


def test_a_json_patch_replaces_what_is_not_there_too(side: Side) -> None:
    """RFC 6902 says otherwise; the API server doesn't mind."""
    side.cluster.write(Create(side.map("notes"), data(a="1")))
    operation = {"op": "replace", "path": "/data/b", "value": "2"}
    assert side.cluster.write(JsonPatch(side.map("notes"), (operation,)))["data"] == {"a": "1", "b": "2"}


def test_a_json_patch_at_an_old_version_conflicts_and_does_nothing(side: Side) -> None:
    ref = side.map("notes")
    old = side.cluster.write(Create(ref, data(a="1")))["metadata"]["resourceVersion"]
    side.cluster.write(MergePatch(ref, data(a="2")))
    operations = ({"op": "replace", "path": "/data", "value": {}},)
    with pytest.raises(Conflict, match="the object has been modified"):
        side.cluster.write(JsonPatch(ref, operations, old))
    assert side.now(ref)["data"] == {"a": "2"}
    with pytest.raises(NotFound):
        side.cluster.write(JsonPatch(side.map("none"), operations, old))


# Server-side apply.


def test_an_apply_creates_and_then_drops_what_it_leaves_out(side: Side) -> None:
    ref = side.map("notes")
    made = side.cluster.write(Apply(ref, data(a="1", b="2"), "ovsplan"))
    assert made["data"] == {"a": "1", "b": "2"}
    side.cluster.write(MergePatch(ref, data(c="3")))
    again = side.cluster.write(Apply(ref, data(a="1"), "ovsplan"))
    assert again["data"] == {"a": "1", "c": "3"}
    assert again["metadata"]["uid"] == made["metadata"]["uid"]
    assert side.now(ref)["data"] == {"a": "1", "c": "3"}


def test_the_same_apply_again_makes_no_version(side: Side) -> None:
    made = side.cluster.write(Apply(side.map("notes"), data(a="1"), "ovsplan"))
    again = side.cluster.write(Apply(side.map("notes"), data(a="1"), "ovsplan"))
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_what_another_manager_owns_is_not_taken_without_force(side: Side) -> None:
    ref = side.policy("p")
    side.cluster.write(Apply(ref, {"spec": {"maxUnavailable": 1}}, "gitops"))
    made = finished(side, ref)
    ours = {"spec": {"maxUnavailable": 2}}
    with pytest.raises(Owned) as owned:
        side.cluster.write(Apply(ref, ours, "ovsplan"))
    assert "gitops" in str(owned.value)
    assert ".spec.maxUnavailable" in str(owned.value)
    assert side.now(ref) == made
    assert side.cluster.write(Apply(ref, ours, "ovsplan", force=True))["spec"]["maxUnavailable"] == 2
    finished(side, ref)
    with pytest.raises(Owned, match="ovsplan"):
        side.cluster.write(Apply(ref, {"spec": {"maxUnavailable": 1}}, "gitops"))


def test_a_value_that_two_managers_want_stays_until_both_leave_it(side: Side) -> None:
    ref = side.map("notes")
    for manager in ("gitops", "ovsplan"):
        side.cluster.write(Apply(ref, data(a="1"), manager))
    assert side.cluster.write(Apply(ref, {}, "gitops"))["data"] == {"a": "1"}
    assert not side.cluster.write(Apply(ref, {}, "ovsplan")).get("data")


def test_what_a_patch_set_is_owned_by_who_set_it(side: Side) -> None:
    ref = side.map("notes")
    side.cluster.write(Create(ref, data(a="1")))
    with pytest.raises(Owned, match=r"\.data\.a"):
        side.cluster.write(Apply(ref, data(a="2"), "gitops"))
    side.cluster.write(Apply(ref, data(b="2"), "gitops"))
    side.cluster.write(MergePatch(ref, data(b="3")))
    with pytest.raises(Owned, match=r"\.data\.b"):
        side.cluster.write(Apply(ref, data(b="2"), "gitops"))


def test_in_a_desired_state_maps_are_shared_by_key_and_lists_are_not(side: Side) -> None:
    ref = side.policy("p")

    def state(**parts: Any) -> Body:
        return {"spec": {"desiredState": parts}}

    side.cluster.write(Apply(ref, state(interfaces=[interface("br-1")]), "gitops"))
    finished(side, ref)
    mappings = {"bridge-mappings": [{"localnet": "vmnet", "bridge": "br-1", "state": "present"}]}
    both = side.cluster.write(Apply(ref, state(ovn=mappings), "ovsplan"))
    assert both["spec"]["desiredState"].keys() == {"interfaces", "ovn"}
    finished(side, ref)
    with pytest.raises(Owned, match=r"\.spec\.desiredState\.interfaces"):
        side.cluster.write(Apply(ref, state(interfaces=[interface("br-2")], ovn=mappings), "ovsplan"))


# Delete.


def test_a_delete_checks_what_it_was_meant_for(side: Side) -> None:
    ref = side.map("notes")
    old = side.cluster.write(Create(ref, data(a="1")))
    now = side.cluster.write(MergePatch(ref, data(a="2")))
    for request in (
        Delete(ref, uid="00000000-0000-0000-0000-000000000000"),
        Delete(ref, resource_version=old["metadata"]["resourceVersion"]),
    ):
        with pytest.raises(Conflict):
            side.cluster.write(request)
        assert side.now(ref) == now
    meant = Delete(ref, now["metadata"]["uid"], now["metadata"]["resourceVersion"])
    assert side.cluster.write(meant) == now
    assert side.cluster.get(ref) is None
    with pytest.raises(NotFound):
        side.cluster.write(Delete(ref))
    assert side.cluster.write(Create(ref, {}))["metadata"]["uid"] != now["metadata"]["uid"]


def test_a_finalizer_holds_an_object_that_is_deleted(side: Side) -> None:
    ref = side.map("notes")
    side.cluster.write(Create(ref, {"metadata": {"finalizers": ["example.com/held"]}}))
    side.cluster.write(Delete(ref))
    assert side.now(ref)["metadata"]["deletionTimestamp"]
    side.cluster.write(MergePatch(ref, {"metadata": {"finalizers": None}}))
    assert side.cluster.get(ref) is None


# Dry run.


def test_a_dry_run_says_what_would_be_and_stores_nothing(side: Side) -> None:
    ref = side.map("notes")
    assert side.cluster.write(Create(ref, data(a="1")), dry_run=True)["data"] == {"a": "1"}
    assert side.cluster.write(Apply(ref, data(a="1"), "ovsplan"), dry_run=True)["data"] == {"a": "1"}
    assert side.cluster.get(ref) is None
    made = side.cluster.write(Create(ref, data(a="1")))
    replace = {"op": "replace", "path": "/data/a", "value": "2"}
    for request in (
        MergePatch(ref, data(a="2")),
        JsonPatch(ref, (replace,)),
        Apply(ref, data(a="2"), "x", True),
    ):
        assert side.cluster.write(request, dry_run=True)["data"] == {"a": "2"}
        assert side.now(ref) == made
    assert side.cluster.write(Delete(ref), dry_run=True) == made
    assert side.now(ref) == made


def test_a_dry_run_fails_as_the_write_would(side: Side) -> None:
    ref, none = side.map("notes"), side.map("none")
    old = side.cluster.write(Create(ref, data(a="1")))["metadata"]["resourceVersion"]
    side.cluster.write(Apply(ref, data(b="1"), "gitops"))
    failing: list[tuple[Write, type[PortError]]] = [
        (Create(ref, {}), AlreadyExists),
        (MergePatch(ref, data(a="2"), old), Conflict),
        (MergePatch(none, {}), NotFound),
        (JsonPatch(ref, ({"op": "remove", "path": "/data/none"},)), Refused),
        (Apply(ref, data(b="2"), "ovsplan"), Owned),
        (Delete(none), NotFound),
        (Delete(ref, resource_version=old), Conflict),
        (Create(side.policy("p"), {"spec": {"bogus": 1}}), Refused),
    ]
    for request, error in failing:
        with pytest.raises(error):
            side.cluster.write(request, dry_run=True)


# Validation.


def test_an_unknown_field_is_refused_and_not_dropped(side: Side) -> None:
    ref = side.policy("p")
    bogus = {"spec": {"bogus": 1}}
    with pytest.raises(Refused, match=r'unknown field "spec\.bogus"'):
        side.cluster.write(Create(ref, bogus))
    with pytest.raises(Refused, match=r"\.spec\.bogus: field not declared in schema"):
        side.cluster.write(Apply(ref, bogus, "ovsplan"))
    assert side.cluster.get(ref) is None
    made = side.cluster.write(Create(ref, {"spec": {"desiredState": {"anything": [1]}}}))
    assert made["spec"]["desiredState"] == {"anything": [1]}
    with pytest.raises(Refused, match=r'unknown field "spec\.bogus"'):
        side.cluster.write(MergePatch(ref, bogus))
    add = {"op": "add", "path": "/spec/bogus", "value": 1}
    with pytest.raises(Refused, match=r'unknown field "spec\.bogus"'):
        side.cluster.write(JsonPatch(ref, (add,)))


def test_an_unknown_field_deep_in_a_vm_is_refused(side: Side) -> None:
    ref = Ref("kubevirt.io/v1", "VirtualMachine", "vm", side.space)
    domain = {"devices": {"interfaces": [{"name": "net", "bridge": {}, "zork": 1}]}}
    with pytest.raises(Refused, match="zork"):
        side.cluster.write(
            Create(ref, {"spec": {"runStrategy": "Halted", "template": {"spec": {"domain": domain}}}})
        )
    assert side.cluster.get(ref) is None


@pytest.mark.parametrize(
    ("selector", "said"),
    [
        ({"matchExpressions": [{"key": "a"}]}, 'unknown field "spec.nodeSelector.matchExpressions[0].key"'),
        ({"matchExpressions": []}, 'must be of type string: "array"'),
        ({"matchLabels": {"a": "b"}}, 'unknown field "spec.nodeSelector.matchLabels.a"'),
        ({"matchLabels": {}}, 'must be of type string: "object"'),
        ({"-bad-": "x"}, "nodeSelector keys must be valid qualified names"),
    ],
)
def test_a_node_selector_of_a_policy_is_labels_alone(side: Side, selector: Body, said: str) -> None:
    with pytest.raises(Refused) as refused:
        side.cluster.write(Create(side.policy("p"), {"spec": {"nodeSelector": selector}}))
    assert said in str(refused.value)
    assert "spec.nodeSelector" in str(refused.value)


def test_the_config_of_a_nad_is_a_text(side: Side) -> None:
    ref = Ref("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", "net", side.space)
    with pytest.raises(Refused, match=r"spec\.config"):
        side.cluster.write(Create(ref, {"spec": {"config": {"type": "ovn-k8s-cni-overlay"}}}))
    assert side.cluster.write(Create(ref, {"spec": {"config": "{"}}))["spec"] == {"config": "{"}


def test_a_policy_in_progress_is_not_edited(side: Side) -> None:
    ref = side.policy("p")
    made = side.cluster.write(Create(ref, {"spec": {"maxUnavailable": 1}}))
    with pytest.raises(Refused, match=f"policy {ref.name} is still in progress") as refused:
        side.cluster.write(MergePatch(ref, {"spec": {"maxUnavailable": 2}}))
    # Who is refused by a policy can't be helped by more rights.
    assert not isinstance(refused.value, Forbidden)
    assert side.now(ref) == made
    side.cluster.write(MergePatch(ref, {"metadata": {"labels": {"a": "b"}}}))
    finished(side, ref)
    assert side.cluster.write(MergePatch(ref, {"spec": {"maxUnavailable": 2}}))["spec"]["maxUnavailable"] == 2


# Status and generation.


def test_a_status_that_is_a_subresource_is_written_there_alone(side: Side) -> None:
    ref = side.policy("p")
    status = {"conditions": [AVAILABLE]}
    made = side.cluster.write(Create(ref, {"spec": {"maxUnavailable": 1}, "status": status}))
    assert not made.get("status")
    ignored = side.cluster.write(MergePatch(ref, {"status": status}))
    assert ignored["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    both = {"spec": {"maxUnavailable": 2}, "status": status}
    written = side.cluster.write(MergePatch(ref, both, subresource="status"))
    assert written["status"] == status
    assert written["spec"] == {"maxUnavailable": 1}
    assert side.now(ref) == written


def test_a_status_is_patched_at_a_version(side: Side) -> None:
    ref = side.policy("p")
    old = side.cluster.write(Create(ref, {"spec": {}}))["metadata"]["resourceVersion"]
    side.cluster.write(MergePatch(ref, {"metadata": {"labels": {"a": "b"}}}))
    with pytest.raises(Conflict):
        side.cluster.write(MergePatch(ref, {"status": {}}, old, "status"))


def test_the_status_of_an_instance_is_a_field_like_others(side: Side) -> None:
    ref = side.vmi("vm")
    spec: Body = {"domain": {"devices": {}}}
    made = side.cluster.write(Create(ref, {"spec": spec, "status": {"phase": "Running"}}))
    assert made["status"]["phase"] == "Running"
    moved = side.cluster.write(MergePatch(ref, {"status": {"nodeName": "worker-01"}}))
    assert moved["status"]["nodeName"] == "worker-01"
    assert moved["metadata"]["generation"] == made["metadata"]["generation"] + 1
    with pytest.raises(NotFound):
        side.cluster.write(MergePatch(ref, {"status": {"phase": "Failed"}}, subresource="status"))


def test_a_generation_counts_changes_of_the_spec(side: Side) -> None:
    ref = side.policy("p")
    generations = [
        side.cluster.write(request)["metadata"]["generation"]
        for request in (
            Create(ref, {"spec": {"maxUnavailable": 1}}),
            MergePatch(ref, {"metadata": {"labels": {"a": "b"}}}),
            MergePatch(ref, {"status": {"conditions": [AVAILABLE]}}, subresource="status"),
            MergePatch(ref, {"spec": {"maxUnavailable": "50%"}}),
        )
    ]
    assert generations == [1, 1, 1, 2]


# What is not served.


@pytest.mark.parametrize(
    "ref",
    [
        Ref("example.com/v1", "Thing", "a", "default"),
        Ref(NMSTATE, "Thing", "a"),
        Ref("nmstate.io/v9", "NodeNetworkConfigurationPolicy", "a"),
        Ref("v1", "Thing", "a"),
    ],
    ids=["group", "kind", "version", "core"],
)
def test_a_kind_that_is_not_served_is_not_an_empty_list(side: Side, ref: Ref) -> None:
    with pytest.raises(NotServed):
        side.cluster.list(ref.api, ref.kind)
    with pytest.raises(NotServed):
        side.cluster.get(ref)
    for request in (Create(ref, {}), MergePatch(ref, {}), Apply(ref, {}, "ovsplan"), Delete(ref)):
        with pytest.raises(NotServed):
            side.cluster.write(request)


# Watch.


def seen(side: Side, kind: str, since: str, timeout: float) -> list[tuple[str, str]]:
    events = side.cluster.watch("v1", kind, since=since, timeout=timeout)
    return [
        (event.type, event.object["metadata"]["name"])
        for event in events
        if event.object["metadata"].get("namespace") == side.space
    ]


def test_a_watch_tells_what_came_after_and_ends_in_silence(side: Side) -> None:
    side.cluster.write(Create(side.map("before"), {}))
    since = side.cluster.list("v1", "ConfigMap").resource_version
    side.cluster.write(Create(side.map("a"), data(n="1")))
    side.cluster.write(MergePatch(side.map("a"), data(n="2")))
    side.cluster.write(Create(Ref("v1", "Secret", "other", side.space), {}))
    side.cluster.write(Delete(side.map("a")))
    assert seen(side, "ConfigMap", since, 0.5) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


def test_a_watch_gives_objects_as_get_does(side: Side) -> None:
    since = side.cluster.list("v1", "ConfigMap").resource_version
    made = side.cluster.write(Create(side.map("a"), data(n="1")))
    events = side.cluster.watch("v1", "ConfigMap", since=since, timeout=5)
    assert next(e.object for e in events if e.object["metadata"].get("namespace") == side.space) == made


# Eviction.


def evict(side: Side, name: str, *, dry_run: bool = False) -> None:
    side.cluster.write(Create(side.pod(name), {}, "eviction"), dry_run=dry_run)


def budget(side: Side, allowed: int | None) -> None:
    """A budget over the pods labelled `app: web`; None: one that its controller has not looked at yet."""
    ref = Ref("policy/v1", "PodDisruptionBudget", "web", side.space)
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    side.cluster.write(Create(ref, {"spec": spec}))
    if allowed is not None:
        status = {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": 1 + allowed}
        status |= {"desiredHealthy": 1, "expectedPods": 1 + allowed}
        side.cluster.write(MergePatch(ref, {"status": status}, subresource="status"))


def running_pod(side: Side, name: str) -> None:
    side.cluster.write(Create(side.pod(name), {**POD, "metadata": {"labels": {"app": "web"}}}))
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    side.cluster.write(MergePatch(side.pod(name), {"status": ready}, subresource="status"))


def test_an_eviction_takes_the_pod_away(side: Side) -> None:
    side.cluster.write(
        Create(side.pod("web"), {**POD, "spec": {**POD["spec"], "terminationGracePeriodSeconds": 0}})
    )
    evict(side, "web", dry_run=True)
    assert side.cluster.get(side.pod("web")) is not None
    evict(side, "web")
    left = side.cluster.get(side.pod("web"))
    assert left is None or left["metadata"]["deletionTimestamp"]
    with pytest.raises(NotFound):
        evict(side, "none")


@pytest.mark.parametrize(
    ("allowed", "wait", "said"), [(0, 1.0, "needs 1 healthy pods and has 1"), (None, 10.0, "")]
)
def test_a_budget_that_is_spent_asks_to_come_back_later(
    side: Side, allowed: int | None, wait: float, said: str
) -> None:
    running_pod(side, "web")
    budget(side, allowed)
    for dry_run in (True, False):
        with pytest.raises(Busy, match="disruption budget") as busy:
            evict(side, "web", dry_run=dry_run)
        assert said in str(busy.value)
        assert busy.value.retry_after == wait
    assert "deletionTimestamp" not in side.now(side.pod("web"))["metadata"]


def test_a_budget_that_allows_it_lets_one_pod_go(side: Side) -> None:
    running_pod(side, "one")
    running_pod(side, "two")
    budget(side, 1)
    evict(side, "one")
    with pytest.raises(Busy):
        evict(side, "two")


# Many at once.


def test_of_many_who_write_at_one_version_one_wins(side: Side) -> None:
    ref = side.map("notes")
    version = side.cluster.write(Create(ref, data(by="none")))["metadata"]["resourceVersion"]
    won: list[str] = []
    lost: list[str] = []

    def write(name: str) -> None:
        try:
            side.cluster.write(MergePatch(ref, data(by=name), version))
        except Conflict:
            lost.append(name)
        else:
            won.append(name)

    threads = [threading.Thread(target=write, args=(f"writer-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert side.now(ref)["data"] == {"by": won[0]}
