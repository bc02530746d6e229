"""What a run needs of the authoriser: read off its plan, asked for once, told in sentences, granted by our own roles."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from cases.test_cases import CASES, load
from support.edits import apply_edit
from support.planning import COLD, TARGET, declared, make_world, planned

from engine.permissions import missing, user
from plans.actions import Action
from plans.document import Plan
from plans.errors import OvsplanError
from plans.maintenance.reboot import reboot, settle
from plans.ops import Apply, Create, Delete, Edit, ListRequest, ObjectRef, Patch, Record
from plans.permissions import Permission, of_own, of_plan, of_views, plural, sentences
from plans.planner import VIEWS, cluster_views
from providers.ports import Forbidden, PortError

ROLES = Path(__file__).parents[2] / "deploy" / "rbac.yaml"
NMSTATE = ("nmstate.io/v1", "NodeNetworkConfigurationPolicy")
READER, WRITER = ("ovsplan-reader",), ("ovsplan-reader", "ovsplan-writer")


def granted(names: tuple[str, ...], *, own: bool = False) -> set[tuple[str, str, str]]:
    """(verb, group, resource) of cluster roles, or of the roles in our own namespace."""
    kind = "Role" if own else "ClusterRole"
    return {
        (verb, group, resource)
        for role in yaml.safe_load_all(ROLES.read_text())
        if role["kind"] == kind and role["metadata"]["name"] in names
        for rule in role["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def as_rule(permission: Permission) -> tuple[str, str, str]:
    resource = "/".join(filter(None, (permission.resource, permission.subresource)))
    return permission.verb, permission.group, resource


def plan_of(*actions: Action) -> Plan:
    return Plan(2, TARGET, "", (), (), actions)


def act(**more: Any) -> Action:
    return Action(id="a", routine="a@1", title="a", **more)


def words(plan: Plan) -> set[str]:
    return {permission.words for permission in of_plan(plan)}


def test_each_op_needs_its_verbs() -> None:
    policy, pod = ObjectRef(*NMSTATE, "p"), ObjectRef("v1", "Pod", "p", "ns")
    node = ObjectRef("v1", "Node", "n")
    ops = (
        Patch(label="a", title="", ref=node, patch={}),
        Apply(label="b", title="", ref=policy, body={}),
        Create(label="c", title="", ref=pod, body={}, subresource="eviction"),
        Edit(
            label="d", title="", ref=ObjectRef("kubevirt.io/v1", "VirtualMachine", "v", "ns"), operations=()
        ),
        Delete(label="e", title="", ref=pod),
        Record(
            label="f", title="", views=("policies",), requests=(ListRequest("v1", "Event", namespace="ns"),)
        ),
    )
    assert words(plan_of(act(ops=ops))) == {
        "patch nodes",
        "create nodenetworkconfigurationpolicies.nmstate.io",
        "patch nodenetworkconfigurationpolicies.nmstate.io",
        "create pods/eviction in namespace ns",
        "get virtualmachines.kubevirt.io in namespace ns",
        "patch virtualmachines.kubevirt.io in namespace ns",
        "get pods in namespace ns",
        "delete pods in namespace ns",
        "list events in namespace ns",
        "list nodenetworkconfigurationpolicies.nmstate.io",
        "list nodenetworkconfigurationenactments.nmstate.io",
    }


@pytest.mark.parametrize("field", ["ops", "contingent", "on_failure"])
def test_what_is_done_only_when_it_is_called_for_is_needed_too(field: str) -> None:
    op = Patch(label="a", title="", ref=ObjectRef("v1", "Node", "n"), patch={})
    assert words(plan_of(act(**{field: (op,)}))) == {"patch nodes"}


def test_views_of_a_node_ask_nothing_of_the_api() -> None:
    assert of_views(["ovs:n", "ovn:n", "fdb:n:br-phy"]) == set()
    assert {p.words for p in of_views(["nodes"])} == {"list nodes"}


@pytest.mark.parametrize(
    ("view", "kind"),
    [("vms", "virtualmachineinstances.kubevirt.io"), ("nmstate-versions", "nodenetworkstates.nmstate.io")],
)
def test_a_list_of_whose_failure_a_view_tells_is_needed_all_the_same(view: str, kind: str) -> None:
    assert f"list {kind}" in {p.words for p in of_views([view])}


def test_a_reboot_needs_no_more_than_to_read_and_to_annotate_the_node() -> None:
    actions = [reboot("n", own_cordon=True, limits={"over": []}), settle("n", ())]
    needed = {p for action in actions for p in of_views(action.reads)}
    assert {as_rule(p) for p in needed} <= granted(READER)
    assert {p.resource for p in needed} >= {"nodes", "pods", "nodenetworkconfigurationenactments"}
    assert "leases" not in {p.resource for p in needed}, "without them it says that it cannot tell"


@pytest.mark.parametrize(
    ("kind", "resource"),
    [
        ("Node", "nodes"),
        ("NetworkAttachmentDefinition", "network-attachment-definitions"),
        ("NodeNetworkConfigurationPolicy", "nodenetworkconfigurationpolicies"),
        ("L2Advertisement", "l2advertisements"),
        ("VirtualMachineInstanceMigration", "virtualmachineinstancemigrations"),
    ],
)
def test_kinds_are_named_as_rbac_names_them(kind: str, resource: str) -> None:
    assert plural(kind) == resource


@dataclass
class Authoriser:
    """A cluster that allows what is not named here: "verb resource" everywhere, "verb resource namespace" there."""

    denied: set[str]
    asked: list[str] = field(default_factory=list)

    def write(self, request: Create, *, dry_run: bool = False) -> Any:
        if request.ref.kind == "SelfSubjectReview":
            return {"status": {"userInfo": {"username": "ann"}}}
        about = request.body["spec"]["resourceAttributes"]
        asked = f"{about['verb']} {about['resource']} {about.get('namespace', '')}".strip()
        self.asked.append(asked)
        return {"status": {"allowed": asked not in self.denied}}


def in_spaces(*spaces: str) -> set[Permission]:
    return {Permission("create", "", "pods", namespace=space) for space in spaces}


def test_what_is_allowed_everywhere_is_asked_once() -> None:
    cluster = Authoriser(set())
    assert missing(cluster, in_spaces("a", "b", "c")) == set()  # type: ignore[arg-type]
    assert cluster.asked == ["create pods"]


def test_what_is_not_is_asked_for_each_namespace_by_itself() -> None:
    cluster = Authoriser({"create pods", "create pods b"})
    assert missing(cluster, in_spaces("a", "b", "c")) == in_spaces("b")  # type: ignore[arg-type]
    assert sorted(cluster.asked) == ["create pods", "create pods a", "create pods b", "create pods c"]


def test_what_is_needed_everywhere_is_not_had_in_one_namespace() -> None:
    needed = {Permission("patch", "", "nodes")}
    assert missing(Authoriser({"patch nodes"}), needed) == needed  # type: ignore[arg-type]


class Mute:
    """A cluster that answers no question about permissions."""

    def write(self, request: Create, *, dry_run: bool = False) -> Any:
        raise Forbidden("no")


def test_who_cannot_ask_is_let_go_on() -> None:
    assert missing(Mute(), in_spaces("a")) == set()  # type: ignore[arg-type]
    assert user(Mute()) == "the user of this kubeconfig"  # type: ignore[arg-type]
    assert isinstance(Forbidden("no"), PortError)


def test_a_sentence_for_each_permission_and_one_for_many_namespaces() -> None:
    lacking = {Permission("patch", "", "nodes"), *in_spaces("a", "b", "c", "d", "e")}
    assert sentences(lacking, "ann") == [
        "ann may not create pods in namespaces a, b, c and 2 more",
        "ann may not patch nodes",
    ]


def test_our_own_roles_grant_what_a_run_keeps_of_itself() -> None:
    needed = of_own(lease=True, copy=True, namespace="ovsplan")
    assert {as_rule(p) for p in needed} <= granted(WRITER, own=True)
    assert {p.resource for p in of_own(lease=True, copy=False, namespace="ovsplan")} == {"leases"}


def test_the_readers_role_suffices_for_a_plan() -> None:
    views = (*VIEWS, *cluster_views(declared(COLD)))
    assert {as_rule(p) for p in of_views(views)} <= granted(READER)
    assert {verb for verb, _, resource in granted(READER) if not resource.startswith("selfsubject")} == {
        "get",
        "list",
        "watch",
    }


@pytest.mark.parametrize("kind", sorted({name.partition("/")[0] for name in CASES}))
def test_the_roles_suffice_for_whatever_the_cases_plan(kind: str, tmp_path: Path) -> None:
    """And whoever only reads them needs no more than the reader's."""
    allowed = granted(WRITER)
    beyond = {}
    for number, name in enumerate(name for name in CASES if name.startswith(f"{kind}/")):
        case = load(name)
        with make_world(tmp_path / str(number), case.get("world")) as world:
            for edit in case.get("edits", ()):
                apply_edit(world, edit)
            try:
                plan = planned(
                    world,
                    declared(case["desired"]),
                    accepted=case.get("accept", ()),
                    only=case.get("only", ()),
                )
            except OvsplanError:
                continue
        lacking = {as_rule(p) for p in of_plan(plan)} - allowed
        if lacking:
            beyond[name] = lacking
    assert beyond == {}
