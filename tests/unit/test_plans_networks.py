"""Networks that are there, declared, or neither: what is changed, blocked and warned of, and what lies just beside it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.planning import TARGET, declared, make_world, observed

from plans import nads
from plans.actions import Action
from plans.document import Plan
from plans.facts import Fact, Facts, Known, Unknown
from plans.ops import Apply, Patch
from plans.planner import make_plan

MAPPED = {"nodeDefaults": {"mappings": "physnet:br-ex,vmnet:br-phy", "bridges": {"br-vmdata": None}}}
KEY = "default/vlan224"
AT = f"nad/{KEY}"


def wish(network: str, key: str = KEY) -> str:
    head = "apiVersion: ovsplan.io/v1alpha1\nkind: VMNetwork\nmetadata: {name: vmnet}\n"
    return f"{head}spec: {{bridge: br-phy, networks: {{{key}: {network}}}}}\n"


SAME, EDITED, GONE = (
    wish(w) for w in ("{vlan: 224, mtu: 9000}", "{vlan: 225, mtu: 9000}", "{state: absent}")
)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """All is mapped; default/vlan224 was made by hand, and two running VMs are on it."""
    with make_world(tmp_path_factory.mktemp("twin") / "world", MAPPED) as world:
        return observed(world, declared(EDITED))


def unused(facts: Facts) -> Facts:
    """The same, with no VM on it."""
    machines = facts.value("cluster/machines")
    bare = [(f"machine/{vm}/template", Known({"networks": [], "interfaces": []})) for vm in machines]
    return facts.with_changes(
        [
            *bare,
            ("cluster/vms", Known([])),
            ("node/worker-01/vms", Known([])),
            ("node/worker-02/vms", Known([])),
        ]
    )


def beside(facts: Facts, key: str, **config: Any) -> Facts:
    """With another NAD, which nobody declared."""
    about = {"uid": key, "keeper": "", "generated": False, "applied": False}
    known = [*facts.value("cluster/nads"), key]
    paths = {
        "": about,
        "/config": config,
        "/text": json.dumps(config),
        "/labels": {},
        "/annotations": {},
        "/version": "1",
    }
    of_it: list[tuple[str, Fact]] = [(f"nad/{key}{path}", Known(value)) for path, value in paths.items()]
    return facts.with_changes([*of_it, ("cluster/nads", Known(known))])


def config(key: str, **more: Any) -> dict[str, Any]:
    found = {
        "cniVersion": "0.4.0", "name": key.partition("/")[2], "type": nads.PLUGIN, "topology": "localnet",
        "netAttachDefName": key, "physicalNetworkName": "vmnet", "vlanID": 7, "mtu": 9000,
    }  # fmt: skip
    return {**found, **more}


def kept(facts: Facts, **how: Any) -> Facts:
    return facts.with_changes([(AT, Known({**facts.value(AT), **how}))])


def plan(desired: str, facts: Facts, accepted: tuple[str, ...] = ()) -> Plan:
    return make_plan(declared(desired), facts, TARGET, accepted=accepted)


def blocked(desired: str, facts: Facts) -> str:
    return "\n".join(reason for one in plan(desired, facts).cluster_blocked for reason in one.reasons)


def findings(name: str, desired: str, facts: Facts) -> list[str]:
    return [f"{f.level}: {f.message}" for f in plan(desired, facts).findings if f.id == name]


def written(desired: str, facts: Facts) -> Action:
    made = plan(desired, facts, ("H26",))
    return next(a for a in made.actions if a.routine == "apply-network@1")


@pytest.mark.parametrize("path", ["cluster/machines", "cluster/vms", "cluster/nad-pods"])
@pytest.mark.parametrize("desired", [EDITED, GONE], ids=["edited", "removed"])
def test_nothing_is_done_to_a_network_of_which_the_users_cannot_be_told(
    path: str, desired: str, seen: Facts
) -> None:
    mute = unused(seen).with_changes([(path, Unknown("pods is forbidden"))])
    assert "cannot tell who uses it: pods is forbidden" in blocked(desired, mute)
    assert blocked(SAME, mute) == ""
    assert blocked(wish("{vlan: 7, mtu: 9000}", "default/new"), mute) == "", (
        "of a new one there is nobody to ask about"
    )


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"generated": True}, "a UserDefinedNetwork makes it and would write it again (H27)"),
        ({"keeper": "argocd (net)"}, "argocd (net) keeps it and would change it back (H50)"),
    ],
)
def test_a_network_that_somebody_makes_is_not_removed_nor_edited_nor_warned_of(
    how: dict[str, Any], why: str, seen: Facts
) -> None:
    assert why in blocked(GONE, kept(unused(seen), **how))
    assert why in blocked(EDITED, kept(seen, **how))
    assert findings("H26", EDITED, kept(seen, **how)) == []


def test_a_network_that_pods_alone_use_blocks_when_it_is_edited_and_when_it_is_removed(seen: Facts) -> None:
    pods = unused(seen).with_changes([("cluster/nad-pods", Known({KEY: ["default/probe"]}))])
    (told,) = findings("H26", EDITED, pods)
    assert told.startswith("block: ") and "while pods default/probe use it" in told
    assert "in use by pods default/probe" in blocked(GONE, pods)
    assert findings("H26", EDITED, unused(seen)) == []


def test_annotations_and_labels_of_a_manifest_are_compared_each(seen: Facts) -> None:
    marks = {"labels": {"team": "a"}, "annotations": {"owner": "b"}}
    nad = {
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": "vlan224", "namespace": "default", **marks},
        "spec": {"config": seen.value(f"{AT}/text")},
    }  # fmt: skip
    network = wish("{}").replace(f", networks: {{{KEY}: {{}}}}", "")
    (change,) = plan(f"{network}---\n{json.dumps(nad)}", seen).cluster
    assert change.before == "labels.team: absent, annotations.owner: absent"
    assert change.after == "labels.team: a, annotations.owner: b"
    assert "must restart" not in change.why


def test_a_network_without_a_vlan_is_called_untagged(seen: Facts) -> None:
    (change,) = plan(wish("{mtu: 9000}", "default/plain"), seen).cluster
    assert change.after == "untagged, on vmnet, mtu 9000"


def test_an_edit_can_be_undone_and_a_new_network_that_nobody_names_yet(seen: Facts) -> None:
    new = wish("{vlan: 7, mtu: 9000}", "default/new")
    assert [i.routine for i in written(EDITED, seen).undo] == ["apply-network@1"]
    assert [i.routine for i in written(new, seen).undo] == ["remove-network@1"]
    vm = "machine/default/web-1/template"
    named = {**seen.value(vm), "networks": [{"name": "new", "multus": {"networkName": "default/new"}}]}
    action = written(new, seen.with_changes([(vm, Known(named))]))
    assert (action.undo, action.no_undo) == ((), "VMs default/web-1 name it already")
    guest = seen.value("vm/default/web-1")
    macs = [*guest["macs"], {"interface": "new", "nad": "default/new", "mac": "02:00:00:00:e0:77"}]
    made = plan(new, seen.with_changes([("vm/default/web-1", Known({**guest, "macs": macs}))]))
    assert not any(a.disruption != "none" for a in made.actions), "it was not there: nobody loses anything"


@pytest.mark.parametrize(("applied", "op"), [(False, Patch), (True, Apply)])
def test_fields_of_somebody_else_are_patched_and_ours_applied(applied: bool, op: type, seen: Facts) -> None:
    action = written(EDITED, kept(seen, applied=applied))
    (write,) = [o for o in action.ops if o.label == "write"]
    assert isinstance(write, op)


# H25: NADs that nobody declared.


def test_a_stranger_on_the_localnet_is_judged_and_one_elsewhere_is_not(seen: Facts) -> None:
    odd = config("default/odd", vlan=5)
    assert findings("H25", SAME, beside(seen, "default/odd", **odd)) == [
        "warn: network default/odd, which is not declared here: vlan: OVN-Kubernetes knows no such key, and would ignore "
        "it; did you mean vlanID?"
    ]
    elsewhere = {**odd, "physicalNetworkName": "other"}
    assert findings("H25", SAME, beside(seen, "default/odd", **elsewhere)) == []


def test_a_stranger_of_the_same_network_is_told_once(seen: Facts) -> None:
    rival = beside(seen, "lab/vlan224", **config("lab/vlan224", vlanID=300))
    (told,) = findings("H25", SAME, rival)
    assert "lab/vlan224 is of network vlan224 too, and differs in vlanID" in told
    assert findings("H25", EDITED, rival) == [], "the edit itself is blocked for it"
    assert "lab/vlan224 is of network vlan224 too" in blocked(EDITED, rival)


def test_a_network_of_another_plug_in_is_no_rival(seen: Facts) -> None:
    other = config("lab/vlan224", type="bridge")
    rival = beside(seen, "lab/vlan224", **other)
    assert findings("H25", SAME, rival) == [] and blocked(EDITED, rival) == ""
    assert not nads.is_ours_to_judge({"plugins": [{"type": "bridge"}], "type": nads.PLUGIN})
    assert nads.is_ours_to_judge({"plugins": [{"type": nads.PLUGIN}]})


# H30: what the links carry.


def linked(facts: Facts, **mtus: int) -> Facts:
    """With each NIC under br-phy of these MTUs, node by node."""
    changes = []
    for node, mtu in mtus.items():
        path = f"node/{node.replace('_', '-')}/ovs"
        view = json.loads(json.dumps(facts.value(path)))
        for port in view["bridges"]["br-phy"]["ports"].values():
            for nic in port["interfaces"]:
                nic["mtu"] = mtu
        changes.append((path, Known(view)))
    return facts.with_changes(changes)


def test_an_mtu_is_held_against_the_links(seen: Facts) -> None:
    fits = linked(seen, worker_01=9000, worker_02=9000)
    assert findings("H30", SAME, fits) == []
    (one,) = findings("H30", SAME, linked(fits, worker_02=1500))
    assert "has mtu 9000, and ens33 under br-phy on worker-02 carries 1500: large packets are lost" in one
    (both,) = findings("H30", SAME, linked(seen, worker_01=1500, worker_02=1400))
    assert "on worker-01 carries 1500 (and so on 1 more): large" in both


def test_a_network_without_an_mtu_is_warned_of_until_it_is_there(seen: Facts) -> None:
    without = {k: v for k, v in seen.value(f"{AT}/config").items() if k != "mtu"}
    there = seen.with_changes([(f"{AT}/config", Known(without)), (f"{AT}/text", Known(json.dumps(without)))])
    assert findings("H30", wish("{vlan: 224}"), there) == []
    assert "default/vlan224 has no mtu" in findings("H30", wish("{vlan: 225}"), there)[0]
    assert "default/new has no mtu" in findings("H30", wish("{vlan: 7}", "default/new"), there)[0]
