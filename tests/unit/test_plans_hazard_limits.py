"""Where each hazard ends: what is dangerous is told, and what lies just beside it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.planning import COLD, HOT, TARGET, declared, make_world, observed

from plans.document import Finding
from plans.facts import ABSENT, Fact, Facts, Known, Unknown
from plans.planner import make_plan

GIB = 2**30
WEB_1, WEB_2 = "vm/default/web-1", "vm/default/web-2"
NNCP = {
    "nmstate": "2.2.62",
    "ovn": "25.03.0",
    "nodeDefaults": {
        "bridges": {"br-phy": {"madeBy": "networkmanager"}, "br-vmdata": {"madeBy": "networkmanager"}}
    },
}
DONE = {"nodeDefaults": {"mappings": "physnet:br-ex,vmnet:br-phy", "bridges": {"br-vmdata": None}}}
HALF_DONE = {"nodeDefaults": {"mappings": "physnet:br-ex,vmnet:br-phy"}}


def seen(folder: Path, desired: str, world: Any = None) -> Facts:
    with make_world(folder / "world", world) as made:
        return observed(made, declared(desired))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return seen(tmp_path_factory.mktemp("base"), evacuating("{vms: {default/web-1: restart}}"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return seen(tmp_path_factory.mktemp("done"), HOT, DONE)


@pytest.fixture(scope="module")
def half_done(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return seen(tmp_path_factory.mktemp("half"), HOT, HALF_DONE)


@pytest.fixture(scope="module")
def nncp(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return seen(tmp_path_factory.mktemp("nncp"), HOT, NNCP)


def found(name: str, facts: Facts, desired: str = COLD, only: tuple[str, ...] = ()) -> list[Finding]:
    """What a plan finds of one hazard."""
    plan = make_plan(declared(desired), facts, TARGET, only=only)
    return [finding for finding in plan.findings if finding.id == name]


def said(name: str, facts: Facts, desired: str = COLD, only: tuple[str, ...] = ()) -> str:
    return "\n".join(f"{f.level} {f.node} {f.message}" for f in found(name, facts, desired, only))


def changed(facts: Facts, path: str, **fields: Any) -> tuple[str, Fact]:
    return path, Known({**facts.value(path), **fields})


def evacuating(spec: str) -> str:
    return COLD.replace("evacuate: {}", f"evacuate: {spec}")


# H14, H52: where VMs go.


def rule(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("rules", "labels", "fits"),
    [
        ([rule("disk", "Exists")], {}, False),
        ([rule("disk", "Exists")], {"disk": "ssd"}, True),
        ([rule("disk", "DoesNotExist")], {"disk": "ssd"}, False),
        ([rule("disk", "DoesNotExist")], {}, True),
        ([rule("disk", "In", "ssd", "nvme")], {"disk": "hdd"}, False),
        ([rule("disk", "In", "ssd", "nvme")], {"disk": "nvme"}, True),
        ([rule("disk", "NotIn", "hdd")], {"disk": "hdd"}, False),
        ([rule("disk", "NotIn", "hdd")], {}, True),
        ([rule("disk", "Exists"), rule("gpu", "Exists")], {"disk": "ssd"}, False),
        ([rule("cores", "Gt", "8")], {}, True),
    ],
)
def test_a_vm_leaves_for_a_node_that_meets_all_rules_of_its_affinity(
    rules: list[Any], labels: dict[str, str], fits: bool, base: Facts
) -> None:
    at = "node/worker-02/labels"
    facts = base.with_changes(
        [changed(base, WEB_1, terms=[{"matchExpressions": rules}]), changed(base, at, **labels)]
    )
    asked = ", ".join(sorted(one["key"] for one in rules))
    wanted = f"cannot run on any other node: its node affinity asks for {asked}"
    assert (wanted in said("H14", facts)) is not fits


def test_any_term_of_an_affinity_is_enough(base: Facts) -> None:
    terms = [
        {"matchExpressions": [rule("disk", "Exists")]},
        {"matchExpressions": [rule("gpu", "DoesNotExist")]},
    ]
    assert not found("H14", base.with_changes([changed(base, WEB_1, terms=terms)]))


def test_the_label_of_its_own_node_does_not_let_a_vm_leave(base: Facts) -> None:
    here = changed(base, "node/worker-01/labels", disk="ssd")
    facts = base.with_changes([here, changed(base, WEB_1, selector={"disk": "ssd"})])
    assert "its nodeSelector asks for disk=ssd" in said("H14", facts)
    there = changed(base, "node/worker-02/labels", disk="ssd")
    assert not found("H14", facts.with_changes([there]))


def test_a_run_strategy_that_could_not_be_given_back_blocks_a_restart(base: Facts) -> None:
    facts = base.with_changes([("machine/default/web-1/run", Known("Sometimes"))])
    told = said("H14", facts, evacuating("{vms: {default/web-1: restart}}"))
    assert (
        "block worker-01 default/web-1 on worker-01 cannot be given back its run strategy Sometimes" in told
    )


@pytest.mark.parametrize(
    ("spec", "again"),
    [
        ("{vms: {default/web-1: restart}}", False),
        ("{vms: {default/web-1: restart}, return: none}", True),
        ("{vms: {default/web-1: restart, default/web-2: stay}, return: none}", False),
        ("{vms: {default/web-2: restart}, return: none}", False),
    ],
    ids=["it comes home", "it stays", "the other node is not emptied", "the other node is over"],
)
def test_a_restarted_vm_is_restarted_again_on_a_node_that_is_emptied_later(
    spec: str, again: bool, base: Facts
) -> None:
    assert ("may start on worker-02, and is then stopped" in said("H14", base, evacuating(spec))) is again


def test_vms_that_fit_one_by_one_and_not_together_block(base: Facts) -> None:
    """Two of 40 GiB leave worker-01, and worker-02 has 62 GiB left."""
    other = Known({**base.value(WEB_1), "memory": 40 * GIB})
    facts = base.with_changes(
        [
            (WEB_1, other),
            ("vm/default/web-3", other),
            ("vm/default/web-3/node", Known("worker-01")),
            ("node/worker-01/vms", Known(["default/web-1", "default/web-3"])),
        ]
    )
    assert "need 80.0 GiB and do not fit on the other schedulable nodes (worker-02 62.0 GiB free)" in said(
        "H14", facts
    )


def test_a_node_that_was_emptied_has_room_for_the_next_ones_vms(tmp_path: Path) -> None:
    """With `return: none`: 60 GiB leave worker-01 for worker-03, and then those of worker-02 fit on worker-01."""
    vms = {f"default/web-{n}": {"memory": "60Gi"} for n in (1, 2)}
    facts = seen(tmp_path, COLD, {"nodes": {"worker-03": {}}, "vms": vms})
    assert not [f for f in found("H14", facts, evacuating("{return: none}")) if f.blocks]


def test_an_emptied_node_that_somebody_else_cordoned_has_no_room_for_the_next_ones_vms(
    tmp_path: Path,
) -> None:
    vms = {f"default/web-{n}": {"memory": "60Gi"} for n in (1, 2)}
    nodes = {"worker-01": {"cordoned": True}, "worker-03": {}}
    facts = seen(tmp_path, COLD, {"nodes": nodes, "vms": vms})
    evacuated = evacuating("{return: none}, order: [worker-01, worker-02, worker-03]")
    told = said("H14", facts, evacuated)
    assert "block worker-02 the VMs that leave worker-02 need 60.0 GiB and do not fit" in told
    assert "block worker-01" not in told


def test_a_node_that_is_not_ready_has_no_room(base: Facts) -> None:
    facts = base.with_changes([("node/worker-02/ready", Known(False))])
    assert "other schedulable nodes (there is none)" in said("H14", facts, only=("worker-01",))


def test_a_node_whose_path_is_broken_and_that_is_not_in_the_plan_has_no_room(base: Facts) -> None:
    facts = base.with_changes([("node/worker-02/ovs/bridge/br-vmdata/uplinks", Known([]))])
    told = said("H14", facts, only=("worker-01",))
    assert "(worker-02 not counted: vmnet is on br-vmdata there, which has no uplink that works)" in told


def test_a_node_that_cannot_be_read_has_no_room(base: Facts) -> None:
    mute = [(path, Unknown("no route")) for path, _ in base.items() if path.startswith("node/worker-02/ovs")]
    told = said("H14", base.with_changes(mute))
    assert "(worker-02 not counted: it cannot be read)" in told


def test_a_dark_node_of_the_plan_is_done_first_and_has_room(tmp_path: Path) -> None:
    facts = seen(tmp_path, COLD, {"nodes": {"worker-02": {"nics": {"bond0": "down"}}}})
    assert make_plan(declared(COLD), facts, TARGET).nodes[0].node == "worker-02"
    assert not found("H14", facts)


# H12: migrations over what moves.


@pytest.mark.parametrize(
    ("carrier", "spec", "told"),
    [
        ("default/vlan224", "{}", True),
        ("default/vlan224", "{vms: {default/web-1: stay, default/web-2: stay}}", False),
        ("default/other", "{}", False),
        ("", "{}", False),
    ],
    ids=["it moves", "nobody leaves", "another localnet", "the pod network"],
)
def test_migrations_are_held_against_the_network_that_carries_them(
    carrier: str, spec: str, told: bool, base: Facts
) -> None:
    facts = base.with_changes(
        [
            changed(base, "cluster/migration-limits", network=carrier),
            ("network/default/other", Known({"name": "other", "localnet": "other", "vlan": 9, "mtu": None})),
        ]
    )
    assert bool(found("H12", facts, evacuating(spec))) is told


# H18, H19: nodes.


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        ("cluster/not-ready", ["worker-02"], "H18"),
        ("cluster/kubelets", {"worker-02": "its Lease is old"}, "H18"),
        ("cluster/rollouts", ["MachineConfigPool worker"], "H18"),
        ("cluster/cordoned", ["worker-02"], "H19"),
    ],
)
def test_what_is_wrong_with_nodes_is_told_when_one_is_touched_and_not_else(
    path: str, value: Any, name: str, base: Facts, done: Facts
) -> None:
    assert len(found(name, base.with_changes([(path, Known(value))]))) == 1
    assert not found(name, done.with_changes([(path, Known(value))]), HOT)


def test_a_node_that_is_lost_is_not_suspected_too(base: Facts) -> None:
    lost = [("cluster/not-ready", Known(["worker-02"])), ("cluster/kubelets", Known({"worker-02": "late"}))]
    assert said("H18", base.with_changes(lost)).startswith("block worker-02 worker-02 is not Ready")
    assert len(found("H18", base.with_changes(lost))) == 1


@pytest.mark.parametrize(("proof", "unproven"), [("", True), (", proof: {canary: {image: tools}}", False)])
def test_a_cordoned_node_is_proven_by_a_canary(proof: str, unproven: bool, base: Facts) -> None:
    held = [("cluster/cordoned", Known(["worker-01"])), ("node/worker-01/unschedulable", Known(True))]
    told = said("H19", base.with_changes(held), COLD.replace("evacuate: {}", f"evacuate: {{}}{proof}"))
    assert ("its new path stays not proven" in told) is unproven


# H03, H45: switches.


def test_vms_that_are_dark_for_another_reason_are_not_put_down_to_the_uplink(done: Facts) -> None:
    """Their bridge has an uplink; what is wrong is the patch port, which the plan mends."""
    assert not found("H03", done, HOT)
    view = done.value("node/worker-01/ovs")
    ports = {k: v for k, v in view["bridges"]["br-phy"]["ports"].items() if not k.startswith("patch-vlan224")}
    broken = {**view, "bridges": {**view["bridges"], "br-phy": {**view["bridges"]["br-phy"], "ports": ports}}}
    assert not found("H03", done.with_changes([("node/worker-01/ovs", Known(broken))]), HOT)


def test_an_ovn_that_cannot_be_asked_is_told_once_for_each_node_on_which_something_is_remapped(
    base: Facts, half_done: Facts
) -> None:
    def mute(facts: Facts) -> Facts:
        at = "node/worker-01"
        mutes = {f"{at}/ovs/ovn-uptime": Unknown("no socket"), f"{at}/ovn/version": Unknown("no program")}
        return facts.with_changes(mutes.items())

    assert said("H45", mute(base), HOT) == (
        "warn worker-01 cannot tell which OVN runs on worker-01, or since when: no socket"
    )
    removed = make_plan(declared(HOT), mute(half_done), TARGET)
    assert any(a.routine.startswith("remove-bridge") for a in removed.actions)
    assert not [f for f in removed.findings if f.id == "H45"]


# H04, H40, H50, H60: policies.

MAPPED = {"ovn": {"bridge-mappings": [{"localnet": "vmnet", "bridge": "br-vmdata", "state": "present"}]}}
KEPT = {"ovn": {"bridge-mappings": [{"localnet": "storage", "bridge": "br-storage", "state": "present"}]}}


def with_policy(
    facts: Facts, name: str, document: Any = None, state: str = "available", **fields: Any
) -> Facts:
    """A policy of the cluster beside the others, enacted on worker-02."""
    policy = {
        "uid": name, "generation": 1, "selector": {"kubernetes.io/hostname": "worker-02"}, "document": document or MAPPED,
        "at_once": None, "owner": "", "ours": False, "labelled": False, "annotated": False, "network": "", **fields,
    }  # fmt: skip
    at = f"policy/{name}"
    on = {word: Known(["worker-02"] if word == state else []) for word in ("available", "failed")}
    return facts.with_changes(
        [
            (at, Known(policy)),
            (f"{at}/editable", Known(True)),
            (f"{at}/version", Known("1")),
            (f"{at}/enacted-on", Known(["worker-02"])),
            *((f"{at}/{word}-on", fact) for word, fact in on.items()),
            ("cluster/policies", Known([*(facts.value("cluster/policies") or []), name])),
        ]
    )


def test_a_policy_is_held_against_a_network_on_the_nodes_of_that_network_alone(nncp: Facts) -> None:
    facts = with_policy(nncp, "theirs")
    both = said("H04", facts, HOT)
    assert "block worker-02 policy theirs matches worker-02 and says otherwise than VMNetwork vmnet" in both
    one = HOT.replace("bridge: br-phy,", "bridge: br-phy, nodes: {kubernetes.io/hostname: worker-01},", 1)
    assert not found("H04", facts, one)


def test_the_name_of_one_of_ours_does_not_excuse_somebody_elses_policy(nncp: Facts) -> None:
    facts = with_policy(nncp, "ovsplan-vmnet-worker-02")
    assert "policy ovsplan-vmnet-worker-02 matches worker-02 and says otherwise" in said("H04", facts, HOT)
    assert "policy ovsplan-vmnet-worker-02 is there, and ovsplan did not make it" in said("H50", facts, HOT)


def test_a_policy_of_ours_under_the_name_of_this_plan_is_no_hazard(nncp: Facts) -> None:
    ours = {"ours": True, "labelled": True, "network": "vmnet"}
    facts = with_policy(nncp, "ovsplan-vmnet-worker-02", **ours)
    assert not found("H50", facts, HOT) and not found("H04", facts, HOT)


@pytest.mark.parametrize(
    ("labels", "wrong"), [({}, "it has none"), ({"kubernetes.io/hostname": "worker-02"}, "")]
)
def test_a_node_without_a_hostname_label_can_have_no_policy_of_its_own(
    labels: dict[str, str], wrong: str, nncp: Facts, base: Facts
) -> None:
    carried = {"node-role.kubernetes.io/worker": "", **labels}
    nameless = [("node/worker-02/labels", Known(carried))]
    told = said("H04", nncp.with_changes(nameless), HOT)
    assert bool(told) is bool(wrong) and wrong in told
    assert not found("H04", base.with_changes(nameless), HOT), "by OVSDB nothing is selected"


def test_an_old_nmstate_is_no_hazard_where_no_policy_is_applied(base: Facts) -> None:
    old = [("cluster/nmstate", Known(True)), ("node/worker-01/nmstate/version", Known("2.2.10"))]
    assert not found("H40", base.with_changes(old), HOT) and not found("H43", base.with_changes(old), HOT)


def test_a_stuck_policy_is_told_of_the_nodes_that_a_plan_touches(nncp: Facts) -> None:
    stuck = with_policy(nncp, "theirs", KEPT, state="")
    stuck = stuck.with_changes([("enactment/worker-02/theirs", ABSENT)])
    assert "the handler of worker-02 has not begun" in said("H60", stuck, HOT)
    assert not found("H60", stuck, HOT, only=("worker-01",))


def test_a_stuck_policy_is_no_hazard_where_none_is_applied(base: Facts) -> None:
    stuck = with_policy(base, "theirs", KEPT, state="").with_changes([("enactment/worker-02/theirs", ABSENT)])
    assert not found("H60", stuck, HOT)


@pytest.mark.parametrize("owner", ["", "argocd (net)"])
def test_what_a_policy_says_besides_is_no_longer_held_when_it_is_really_taken_away(
    owner: str, nncp: Facts
) -> None:
    pairs = [*MAPPED["ovn"]["bridge-mappings"], *KEPT["ovn"]["bridge-mappings"]]
    facts = with_policy(nncp, "theirs", {"ovn": {"bridge-mappings": pairs}}, owner=owner)
    taken = HOT.replace("replaces: {bridge: br-vmdata}", "replaces: {bridge: br-vmdata, policies: [theirs]}")
    assert ("policy theirs also says: localnet storage on br-storage" in said("H08", facts, taken)) == (
        not owner
    )


def test_a_policy_of_the_files_is_held_against_the_network_of_the_files(nncp: Facts) -> None:
    native = """\
---
apiVersion: nmstate.io/v1
kind: NodeNetworkConfigurationPolicy
metadata: {name: p}
spec:
  nodeSelector: {kubernetes.io/hostname: worker-02}
  desiredState: {ovn: {bridge-mappings: [{localnet: vmnet, bridge: br-storage, state: present}]}}
"""
    assert said("H04", nncp, HOT + native) == (
        "block worker-02 policies p and ovsplan-vmnet both match worker-02 and disagree (localnet vmnet: br-storage against "
        "br-phy): each label change applies both"
    )
    other = HOT.replace("bridge: br-phy,", "bridge: br-phy, nodes: {kubernetes.io/hostname: worker-01},", 1)
    assert not found("H04", nncp, other + native)


def test_a_stuck_policy_that_is_taken_away_first_is_no_hazard(nncp: Facts) -> None:
    stuck = with_policy(nncp, "theirs", MAPPED, state="").with_changes(
        [("enactment/worker-02/theirs", ABSENT)]
    )
    taken = HOT.replace("replaces: {bridge: br-vmdata}", "replaces: {bridge: br-vmdata, policies: [theirs]}")
    assert not found("H60", stuck, taken) and not found("H04", stuck, taken)


@pytest.mark.parametrize("bridge", ["br-phy", "br-vmdata"])
def test_a_shared_policy_that_somebody_keeps_is_told_unless_it_says_what_is_wanted(
    bridge: str, nncp: Facts
) -> None:
    says = {"ovn": {"bridge-mappings": [{"localnet": "vmnet", "bridge": bridge, "state": "present"}]}}
    without = {"interfaces": [{"name": "br-vmdata", "type": "ovs-bridge", "state": "absent"}], **says}
    facts = with_policy(nncp, "ovsplan-vmnet", without if bridge == "br-phy" else says, owner="argocd (net)")
    assert ("is kept by argocd (net)" in said("H50", facts, HOT)) is (bridge == "br-vmdata")
