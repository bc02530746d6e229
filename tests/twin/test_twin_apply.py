"""Patches and server-side apply in the twin, with the words of the real API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers.ports import (
    Apply,
    Conflict,
    Create,
    Delete,
    Expired,
    JsonPatch,
    MergePatch,
    NotFound,
    NotServed,
    Owned,
    Ref,
    Refused,
)
from providers.twin import TwinWorld
from providers.twin.kinds import all_kinds
from providers.twin.validation import unknown_rules
from twin.worlds import KUBEVIRT, make

NMSTATE = "nmstate.io/v1"
POLICY = Ref(NMSTATE, "NodeNetworkConfigurationPolicy", "br-phy")
NODE = Ref("v1", "Node", "worker-01")
MAP = Ref("v1", "ConfigMap", "notes", "default")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TwinWorld]:
    with make(
        tmp_path / "world", apis={"nmstate": "present"}, controllers={"nmstate-operator": "off"}
    ) as made:
        yield made


def apply(world: TwinWorld, manager: str, spec: dict[str, Any], *, force: bool = False) -> Any:
    return world.cluster.write(Apply(POLICY, {"spec": spec}, manager, force))


def finish(world: TwinWorld) -> None:
    """What the operator writes when every node has taken the policy."""
    condition = {"type": "Available", "status": "True", "reason": "SuccessfullyConfigured"}
    world.cluster.write(MergePatch(POLICY, {"status": {"conditions": [condition]}}, subresource="status"))


def applied(world: TwinWorld, manager: str, spec: dict[str, Any]) -> Any:
    made = apply(world, manager, spec)
    finish(world)
    return made


def owners(body: Any) -> dict[str, Any]:
    return {entry["manager"]: entry["fieldsV1"] for entry in body["metadata"]["managedFields"]}


def test_an_apply_creates_and_a_second_one_drops_what_it_leaves_out(world: TwinWorld) -> None:
    applied(world, "ovsplan", {"maxUnavailable": 1, "nodeSelector": {"a": "1", "b": "2"}})
    after = apply(world, "ovsplan", {"nodeSelector": {"a": "1"}})
    assert after["spec"] == {"nodeSelector": {"a": "1"}}
    assert after["metadata"]["generation"] == 2
    assert owners(after)["ovsplan"] == {"f:spec": {"f:nodeSelector": {"f:a": {}}}}


def test_an_apply_of_the_same_makes_no_version(world: TwinWorld) -> None:
    applied(world, "ovsplan", {"maxUnavailable": 1})
    before = world.cluster.get(POLICY)
    world.tick(60)
    assert apply(world, "ovsplan", {"maxUnavailable": 1}) == before


def test_what_another_manager_applied_is_a_conflict_until_forced(world: TwinWorld) -> None:
    applied(world, "other", {"maxUnavailable": 1})
    with pytest.raises(Owned) as refused:
        apply(world, "ovsplan", {"maxUnavailable": 2})
    assert str(refused.value) == 'Apply failed with 1 conflict: conflict with "other": .spec.maxUnavailable'
    after = apply(world, "ovsplan", {"maxUnavailable": 2}, force=True)
    assert after["spec"]["maxUnavailable"] == 2
    assert "other" not in owners(after)


def test_an_equal_value_is_shared_and_stays_while_one_wants_it(world: TwinWorld) -> None:
    applied(world, "other", {"maxUnavailable": 1})
    after = apply(world, "ovsplan", {"maxUnavailable": 1})
    assert owners(after)["ovsplan"] == owners(after)["other"]
    assert apply(world, "ovsplan", {})["spec"] == {"maxUnavailable": 1}


def test_maps_merge_by_key_and_lists_are_one_value(world: TwinWorld) -> None:
    applied(world, "other", {"desiredState": {"interfaces": [{"name": "br-phy"}]}})
    mappings = {"bridge-mappings": [{"localnet": "vmnet", "bridge": "br-phy"}]}
    beside = apply(world, "ovsplan", {"desiredState": {"ovn": mappings}})
    assert beside["spec"]["desiredState"] == {"interfaces": [{"name": "br-phy"}], "ovn": mappings}
    finish(world)
    with pytest.raises(Owned, match=r'conflict with "other": \.spec\.desiredState\.interfaces'):
        apply(world, "ovsplan", {"desiredState": {"interfaces": [{"name": "br-vmdata"}]}})


def test_several_conflicts_are_listed_by_their_owners(world: TwinWorld) -> None:
    applied(world, "other", {"maxUnavailable": 1, "nodeSelector": {"a": "1"}})
    with pytest.raises(Owned) as refused:
        apply(world, "ovsplan", {"maxUnavailable": 2, "nodeSelector": {"a": "2"}})
    assert str(refused.value) == (
        'Apply failed with 2 conflicts: conflicts with "other":\n- .spec.maxUnavailable\n- .spec.nodeSelector.a'
    )


def test_a_patch_takes_over_what_it_changes(world: TwinWorld) -> None:
    applied(world, "ovsplan", {"maxUnavailable": 1, "nodeSelector": {"a": "1"}})
    patched = world.edit().cluster.write(MergePatch(POLICY, {"spec": {"maxUnavailable": 3}}))
    assert owners(patched)["ovsplan"] == {"f:spec": {"f:nodeSelector": {"f:a": {}}}}
    finish(world)
    with pytest.raises(Owned, match=r'conflict with "client" using nmstate\.io/v1: \.spec\.maxUnavailable'):
        apply(world, "ovsplan", {"maxUnavailable": 1, "nodeSelector": {"a": "1"}})


def test_an_object_made_by_hand_is_its_makers(world: TwinWorld) -> None:
    world.cluster.write(Create(MAP, {"data": {"a": "1"}}))
    with pytest.raises(Owned, match=r'conflict with "client" using v1: \.data\.a'):
        world.cluster.write(Apply(MAP, {"data": {"a": "2"}}, "ovsplan"))
    after = world.cluster.write(Apply(MAP, {"data": {"b": "2"}}, "ovsplan"))
    assert after["data"] == {"a": "1", "b": "2"}
    assert world.cluster.write(Apply(MAP, {}, "ovsplan"))["data"] == {"a": "1"}


def test_an_apply_leaves_what_it_does_not_name(world: TwinWorld) -> None:
    taints = [{"key": "a", "effect": "NoSchedule"}]
    after = world.cluster.write(Apply(NODE, {"spec": {"taints": taints}}, "ovsplan"))
    assert after["status"]["conditions"][0]["type"] == "Ready"
    assert after["spec"]["taints"] == taints


def test_an_apply_without_a_manager_or_at_an_old_version_does_nothing(world: TwinWorld) -> None:
    with pytest.raises(Refused, match="fieldManager: Required value"):
        apply(world, "", {})
    applied(world, "ovsplan", {"maxUnavailable": 1})
    body = {"metadata": {"resourceVersion": "1"}, "spec": {"maxUnavailable": 2}}
    with pytest.raises(Conflict, match="the object has been modified"):
        world.cluster.write(Apply(POLICY, body, "ovsplan"))


def test_a_dry_run_of_an_apply_stores_nothing(world: TwinWorld) -> None:
    would = world.cluster.write(Apply(POLICY, {"spec": {"maxUnavailable": 1}}, "ovsplan"), dry_run=True)
    assert would["spec"] == {"maxUnavailable": 1}
    assert world.cluster.get(POLICY) is None
    applied(world, "other", {"maxUnavailable": 1})
    with pytest.raises(Owned):
        world.cluster.write(Apply(POLICY, {"spec": {"maxUnavailable": 2}}, "ovsplan"), dry_run=True)


def test_a_json_patch_replaces_whole_and_tests_first(world: TwinWorld) -> None:
    world.cluster.write(Create(MAP, {"data": {"a": "1", "b/c": "2"}}))
    operations = (
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "test", "path": "/data/none", "value": None},
        {"op": "replace", "path": "/data", "value": {"x": "9"}},
        {"op": "add", "path": "/data/b~1c", "value": "3"},
        {"op": "remove", "path": "/data/x"},
    )
    assert world.cluster.write(JsonPatch(MAP, operations))["data"] == {"b/c": "3"}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/data/a", "value": "2"},
        {"op": "remove", "path": "/data/none"},
        {"op": "replace", "path": "/none/deep", "value": "1"},
        {"op": "add", "path": "/none/deep", "value": "1"},
    ],
)
def test_a_json_patch_that_does_not_apply_is_refused_whole(
    world: TwinWorld, operation: dict[str, Any]
) -> None:
    made = world.cluster.write(Create(MAP, {"data": {"a": "1"}}))
    first = {"op": "add", "path": "/data/b", "value": "2"}
    with pytest.raises(Refused, match="the server rejected our request due to an error in our request"):
        world.cluster.write(JsonPatch(MAP, (first, operation)))
    assert world.cluster.get(MAP) == made


def test_a_json_patch_at_an_old_version_conflicts(world: TwinWorld) -> None:
    made = world.cluster.write(Create(MAP, {"data": {"a": "1"}}))
    world.cluster.write(MergePatch(MAP, {"data": {"a": "2"}}))
    operation = {"op": "replace", "path": "/data/a", "value": "3"}
    with pytest.raises(Conflict):
        world.cluster.write(JsonPatch(MAP, (operation,), made["metadata"]["resourceVersion"]))


def test_a_delete_at_an_old_version_conflicts(world: TwinWorld) -> None:
    made = world.cluster.write(Create(MAP, {}))
    world.cluster.write(MergePatch(MAP, {"data": {"a": "2"}}))
    with pytest.raises(Conflict, match="the ResourceVersion in the precondition"):
        world.cluster.write(Delete(MAP, resource_version=made["metadata"]["resourceVersion"]))


INVALID = 'NodeNetworkConfigurationPolicy.nmstate.io "br-phy" is invalid: '


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"bogus": 1},
            'NodeNetworkConfigurationPolicy in version "v1" cannot be handled as a NodeNetworkConfigurationPolicy: '
            'strict decoding error: unknown field "spec.bogus"',
        ),
        (
            {"nodeSelector": {"matchExpressions": []}},
            f"{INVALID}[spec.nodeSelector.matchExpressions: Invalid value: "
            '"array": spec.nodeSelector.matchExpressions in body must be of type string: "array", <nil>: Invalid value: '
            "null: some validation rules were not checked because the object was invalid; correct the existing errors "
            "to complete validation]",
        ),
        (
            {"nodeSelector": {"a b": "x"}},
            f"{INVALID}spec.nodeSelector: Invalid value: nodeSelector keys must be valid qualified names",
        ),
    ],
)
def test_a_policy_that_the_server_does_not_take(world: TwinWorld, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused) as refused:
        world.cluster.write(Create(POLICY, {"spec": spec}))
    assert str(refused.value) == words
    assert world.cluster.get(POLICY) is None


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"bogus": 1}, ".spec.bogus: field not declared in schema"),
        (
            {"nodeSelector": {"matchExpressions": []}},
            ".spec.nodeSelector.matchExpressions: expected string, got []",
        ),
        ({"desiredState": []}, ".spec.desiredState: expected map, got []"),
    ],
)
def test_an_apply_of_a_policy_is_asked_for_its_types_first(
    world: TwinWorld, spec: dict[str, Any], words: str
) -> None:
    with pytest.raises(Refused) as refused:
        apply(world, "ovsplan", spec)
    assert str(refused.value) == (
        "failed to create typed patch object (/br-phy; nmstate.io/v1, Kind=NodeNetworkConfigurationPolicy): "
        + words
    )


def test_what_stands_in_a_desired_state_is_nobodys_business(world: TwinWorld) -> None:
    state = {"zork": {"deep": [1, None, "x"]}}
    made = world.cluster.write(Create(POLICY, {"spec": {"desiredState": state, "maxUnavailable": "50%"}}))
    assert made["spec"]["desiredState"] == state


def test_a_policy_in_progress_takes_labels_but_no_other_spec(world: TwinWorld) -> None:
    world.cluster.write(Create(POLICY, {"spec": {"maxUnavailable": 1}}))
    world.cluster.write(MergePatch(POLICY, {"metadata": {"labels": {"a": "b"}}}))
    with pytest.raises(Refused) as refused:
        world.cluster.write(MergePatch(POLICY, {"spec": {"maxUnavailable": 2}}))
    assert str(refused.value) == (
        'nodenetworkconfigurationpolicies.nmstate.io "br-phy" is forbidden: ValidatingAdmissionPolicy '
        "'nncp-validation-policy' with binding 'nncp-validation-policy-binding' denied request: policy br-phy is still "
        "in progress"
    )
    finish(world)
    assert world.cluster.write(MergePatch(POLICY, {"spec": {"maxUnavailable": 2}}))["spec"] == {
        "maxUnavailable": 2
    }


def test_status_is_written_by_its_subresource_alone(world: TwinWorld) -> None:
    status = {"conditions": []}
    made = world.cluster.write(Create(POLICY, {"spec": {}, "status": status}))
    assert "status" not in made
    assert world.cluster.write(MergePatch(POLICY, {"status": status})) == made
    patch = {"spec": {"maxUnavailable": 3}, "status": status}
    after = world.cluster.write(MergePatch(POLICY, patch, subresource="status"))
    assert (after["spec"], after["status"]) == ({}, status)
    assert after["metadata"]["generation"] == 1


def test_a_vmi_has_no_status_subresource_so_its_status_counts(world: TwinWorld) -> None:
    ref = Ref(KUBEVIRT, "VirtualMachineInstance", "talker", "default")
    before = world.cluster.get(ref)
    assert before is not None
    after = world.cluster.write(MergePatch(ref, {"status": {"reason": "x"}}))
    assert after["status"]["reason"] == "x"
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    with pytest.raises(NotFound):
        world.cluster.write(MergePatch(ref, {"status": {"reason": "y"}}, subresource="status"))


def test_both_versions_of_a_policy_are_the_same_object(world: TwinWorld) -> None:
    world.cluster.write(Create(POLICY, {"spec": {"maxUnavailable": 1}}))
    old = world.cluster.get(Ref("nmstate.io/v1beta1", POLICY.kind, POLICY.name))
    assert old is not None
    assert (old["apiVersion"], old["spec"]) == ("nmstate.io/v1beta1", {"maxUnavailable": 1})
    events = world.cluster.watch("nmstate.io/v1beta1", POLICY.kind, since="0", timeout=1)
    assert [event.type for event in events] == ["ADDED"]


def test_a_finalizer_holds_an_object_until_it_is_taken_off(world: TwinWorld) -> None:
    world.cluster.write(Create(MAP, {"metadata": {"finalizers": ["example.com/hold"]}}))
    world.cluster.write(Delete(MAP))
    held = world.cluster.get(MAP)
    assert held is not None
    assert held["metadata"]["deletionTimestamp"]
    world.cluster.write(MergePatch(MAP, {"metadata": {"finalizers": None}}))
    assert world.cluster.get(MAP) is None


def test_an_operator_that_is_not_there_serves_nothing(tmp_path: Path) -> None:
    with make(tmp_path / "plain") as plain:
        for request in (Create(POLICY, {}), MergePatch(POLICY, {}), Apply(POLICY, {}, "m"), Delete(POLICY)):
            with pytest.raises(NotServed):
                plain.cluster.write(request)


def test_a_watch_from_before_the_world_began_has_expired(world: TwinWorld) -> None:
    with pytest.raises(Expired, match="too old resource version: 1 "):
        next(iter(world.cluster.watch("v1", "Node", since="1", timeout=1)))


def test_fields_select_and_keep_drops_the_rest(world: TwinWorld) -> None:
    pods = world.cluster.list(
        "v1", "Pod", fields={"spec.nodeName": "worker-01"}, keep=("status.phase",)
    ).items
    assert [pod["status"] for pod in pods] == [{"phase": "Running"}, {"phase": "Running"}]
    assert all("spec" not in pod and pod["metadata"]["name"] for pod in pods)
    assert world.cluster.list("v1", "Pod", fields={"spec.nodeName": "worker-02"}).items == ()
    with pytest.raises(Refused, match=r"field label not supported: spec\.memory"):
        world.cluster.list("v1", "Pod", fields={"spec.memory": "1"})


def test_a_question_about_oneself_is_answered_and_forgotten(world: TwinWorld) -> None:
    ask = {"spec": {"resourceAttributes": {"verb": "get", "resource": "nodes"}}}
    api = "authorization.k8s.io/v1"
    answer = world.cluster.write(Create(Ref(api, "SelfSubjectAccessReview", ""), ask))
    assert answer["status"]["allowed"] is True
    who = world.cluster.write(Create(Ref("authentication.k8s.io/v1", "SelfSubjectReview", ""), {}))
    assert who["status"]["userInfo"]["username"] == "twin"


def test_the_twin_enforces_every_rule_of_its_definitions() -> None:
    assert [rule for kind in all_kinds().values() for rule in unknown_rules(kind)] == []
