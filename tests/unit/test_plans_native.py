"""Policies of the files on one node: what they may not cut, what proves them, and what their steps look at.

Invariant: the node is the one of tests/cases/base.yaml; only the policy, and what is said of each test, differs.
"""

from __future__ import annotations

from typing import Any

import pytest
from support.planning import declared, make_world, observed

from plans.actions import Done, Finished, Next, Perform, Stop, find_routine
from plans.changes import Blocked, Change, Context, Same
from plans.desired import Desired
from plans.facts import ABSENT, Facts, Known, Unknown
from plans.kinds import native
from plans.kinds.native import KIND

HEAD = """
apiVersion: nmstate.io/v1
kind: NodeNetworkConfigurationPolicy
metadata: {name: p}
spec: {nodeSelector: {node-role.kubernetes.io/worker: ""}, desiredState: {%s}}
"""
NODE, OWN = "worker-01", "p-worker-01"
NEW = "interfaces: [{name: br-new, type: ovs-bridge, state: up, bridge: {allow-extra-patch-ports: true, port: [{name: ens50}]}}]"
AT = f"node/{NODE}/ovs"


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    over: dict[str, Any] = {
        "nmstate": "2.2.62",
        "nodeDefaults": {"mappings": "physnet:br-ex,vmnet:br-vmdata", "nics": {"ens50": "up"}},
    }
    with make_world(tmp_path_factory.mktemp("native") / "world", over) as world:
        return observed(world, policy(NEW))


def policy(document: str) -> Desired:
    return declared(HEAD % document)


def outcome(document: str, facts: Facts) -> Any:
    (found,) = KIND.diff(policy(document), NODE, facts)
    return found


def change(document: str, facts: Facts) -> Change:
    found = outcome(document, facts)
    assert isinstance(found, Change), found
    return found


def there(facts: Facts, name: str, document: str, state: str) -> Facts:
    """The facts, with a policy that has this document and this state on the node."""
    spec = policy(document).policies[0].spec.desired_state
    have = Known({"document": spec, "selector": {}, "ours": True, "owner": "", "at_once": None})
    path = f"enactment/{NODE}/{name}/state"
    return facts.with_changes(((f"policy/{name}", have), (path, Known(state) if state else ABSENT)))


def test_what_cannot_be_asked_is_no_reason_to_go_on(facts: Facts) -> None:
    unasked = facts.with_changes((("cluster/nmstate", Unknown("the API server is away")),))
    assert outcome(NEW, unasked) == Blocked(native.address(NODE, "p"), NODE, ("the API server is away",))
    unread = facts.with_changes(((f"{AT}/mappings", Unknown("malformed")),))
    assert outcome(NEW, unread).reasons == (f"cannot tell which localnets are mapped on {NODE}",)


@pytest.mark.parametrize("name", ["p", OWN])
def test_a_policy_is_as_declared_only_when_this_document_is_enacted(name: str, facts: Facts) -> None:
    assert isinstance(outcome(NEW, there(facts, name, NEW, "available")), Same)
    for state in ("failed", "progressing", "waiting", ""):
        assert isinstance(outcome(NEW, there(facts, name, NEW, state)), Change)
    assert isinstance(outcome(NEW, there(facts, name, "interfaces: []", "available")), Change)
    deleted = there(facts, name, NEW, "available").with_changes(((f"policy/{name}", ABSENT),))
    assert isinstance(outcome(NEW, deleted), Change)


def test_a_change_says_why_what_is_there_is_not_enough(facts: Facts) -> None:
    assert change(NEW, there(facts, "p", NEW, "failed")).before == "br-new up, failed"
    assert change(NEW, there(facts, "p", "interfaces: []", "failed")).before == "nothing"
    assert (change(NEW, facts).before, change(NEW, facts).verb) == ("absent", "+")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("interfaces: [{name: br-vmdata, type: ovs-bridge, state: down}]", "it takes br-vmdata down, to which localnet vmnet"),
        ("interfaces: [{name: br-vmdata, type: ovs-bridge, state: absent}]", "it takes br-vmdata away, to which localnet vmnet"),
        ("interfaces: [{name: br-int, type: ovs-bridge, state: absent}]", "it sets br-int absent, which belongs to OVN-Kubernetes"),
        (NEW.replace("ens50", "ens40"), "port ens40 is under bridge br-storage now, and it puts it under br-new"),
        (NEW.replace("{name: ens50}", "{name: bond9, link-aggregation: {mode: balance-slb, port: [{name: ens40}]}}"),
         "port ens40 is under bridge br-storage now, and it puts it under br-new"),
        (NEW.replace("{name: ens50}", "{name: ovs-bond, link-aggregation: {mode: balance-slb, port: [{name: ens50}]}}"),
         "port ovs-bond is under bridge br-phy now, and it puts it under br-new"),
        ("interfaces: [{name: bond9, type: bond, state: up, link-aggregation: {mode: 802.3ad, port: [ens40]}}]",
         "port ens40 is under bridge br-storage now, and it puts it under bond9"),
        ("interfaces: [{name: ens40, type: ethernet, state: up, controller: br-new}]",
         "port ens40 is under bridge br-storage now, and it puts it under br-new"),
        ('interfaces: [{name: ens40, type: ethernet, state: up, controller: ""}]',
         "port ens40 is under bridge br-storage now, and it puts it under no bridge"),
        ("interfaces: [{name: ovs-bond, type: bond, state: down}]", "it sets ovs-bond down, an uplink of bridge br-phy"),
        ("interfaces: [{name: ens34, type: ethernet, state: absent}]", "it sets ens34 absent, an uplink of bridge br-phy"),
        ("interfaces: [{name: bond0, type: bond, state: absent}]", "it sets bond0 absent, an uplink of bridge br-vmdata"),
    ],
)  # fmt: skip
def test_what_traffic_rides_on_is_not_cut(document: str, said: str, facts: Facts) -> None:
    found = outcome(document, facts)
    assert isinstance(found, Blocked)
    assert len(found.reasons) == 1 and found.reasons[0].startswith(said)


def test_the_way_out_of_a_node_is_found_without_its_mapping(facts: Facts) -> None:
    unmapped = facts.with_changes(((f"{AT}/mappings", Known({"vmnet": "br-vmdata"})),))
    assert isinstance(outcome("interfaces: [{name: ens34, type: ethernet, state: down}]", unmapped), Blocked)


@pytest.mark.parametrize(
    "document",
    [
        "ovn: {bridge-mappings: [{localnet: vmnet, bridge: br-vmdata, state: present}]}",
        "ovn: {bridge-mappings: [{localnet: vmnet9, state: absent}]}",
        "interfaces: [{name: br-storage, type: ovs-bridge, state: absent}]",
        "interfaces: [{name: ens40, type: ethernet, state: up, controller: br-storage}]",
        "interfaces: [{name: br-storage, type: ovs-bridge, state: up, bridge: {allow-extra-patch-ports: true, port: [{name: ens40}]}}]",
    ],
)
def test_what_changes_nothing_under_a_vm_is_let_through(document: str, facts: Facts) -> None:
    assert isinstance(outcome(document, facts), Change)


def checks(document: str, facts: Facts) -> set[str]:
    return {
        str(check).removeprefix(f"{AT}/")
        for check in KIND.verify(change(document, facts), Context(facts, "hot"))
    }


ALWAYS = {
    "mapping/physnet is br-ex",
    "bridge/br-phy/uplinks is at least 1",
    "bridge/br-vmdata/uplinks is at least 1",
}
STORAGE = "bridge/br-storage/uplinks is at least 1"


@pytest.mark.parametrize(
    ("document", "besides"),
    [
        (NEW, {STORAGE}),
        ("interfaces: [{name: br-storage, type: ovs-bridge, state: absent}]", set()),
        ("interfaces: [{name: ens40, type: ethernet, state: absent}]", set()),
        ("interfaces: [{name: ens40, type: ethernet, state: down}]", set()),
        (f"{NEW}, ovn: {{bridge-mappings: [{{localnet: n, bridge: br-new, state: present}}]}}",
         {STORAGE, "mapping/n is br-new", "bridge/br-new/uplinks is at least 1"}),
    ],
)  # fmt: skip
def test_what_a_policy_does_not_mean_to_take_must_be_there_afterwards(
    document: str, besides: set[str], facts: Facts
) -> None:
    assert checks(document, facts) == ALWAYS | besides


def test_of_a_bond_that_goes_no_member_is_asked_for_and_a_dark_bridge_proves_nothing(facts: Facts) -> None:
    view = facts.value(AT)
    storage = view["bridges"]["br-storage"]
    (card,) = storage["ports"]["ens40"]["interfaces"]

    def with_ports(**ports: list[dict[str, Any]]) -> Facts:
        made = {name: {**storage["ports"]["ens40"], "interfaces": nics} for name, nics in ports.items()}
        bridges = {**view["bridges"], "br-storage": {**storage, "ports": made}}
        return facts.with_changes(((AT, Known({**view, "bridges": bridges})),))

    bonded = with_ports(bond1=[card, {**card, "name": "ens41"}])
    assert STORAGE not in checks("interfaces: [{name: bond1, type: bond, state: absent}]", bonded)
    assert STORAGE in checks("interfaces: [{name: ens41, type: ethernet, state: absent}]", bonded)
    both = (
        "interfaces: [{name: ens40, type: ethernet, state: down}, {name: ens41, type: ethernet, state: down}]"
    )
    assert STORAGE not in checks(both, bonded)
    assert STORAGE not in checks(NEW, with_ports(ens40=[{**card, "link_state": "down"}]))


def test_a_node_is_touched_only_while_the_named_localnets_ride_where_they_did(facts: Facts) -> None:
    document = "ovn: {bridge-mappings: [{localnet: vmnet, bridge: br-vmdata, state: present}, {localnet: n, bridge: br-phy}]}"
    (check,) = KIND.preflight(change(document, facts), facts)
    assert str(check) == f"{AT}/mapping/vmnet is br-vmdata"


def test_the_policy_of_a_node_selects_it_by_its_hostname(facts: Facts) -> None:
    labels = {**facts.value(f"node/{NODE}/labels"), "kubernetes.io/hostname": "one.example.com"}
    named = facts.with_changes(((f"node/{NODE}/labels", Known(labels)),))
    action = native.nncp(change(NEW, named), Context(named, "hot"))
    assert action.args["hostname"] == "one.example.com"


def args(facts: Facts, document: str = NEW) -> dict[str, Any]:
    return dict(native.nncp(change(document, facts), Context(facts, "hot")).args)


def in_force(facts: Facts, state: str, document: str = NEW) -> Facts:
    found = there(facts, OWN, document, state)
    have = found.value(f"policy/{OWN}") | {"selector": {"kubernetes.io/hostname": NODE}}
    return found.with_changes(((f"policy/{OWN}", Known(have)),))


def step(facts: Facts, found: Facts, document: str = NEW, **attempts: int) -> Next:
    done = Done("run-1", dict.fromkeys(attempts, "done"), {}, attempts)
    return find_routine("enact-policy@1").step(args(facts, document), found, done)


def test_the_switch_is_recorded_before_the_policy_is_written_and_its_enactment_awaited(facts: Facts) -> None:
    first, second = step(facts, facts), step(facts, facts, before=1)
    assert isinstance(first, Perform) and [op.label for op in first.ops] == ["before"]
    assert isinstance(second, Perform) and [op.label for op in second.ops] == ["policy", "enacted"]
    assert isinstance(step(facts, in_force(facts, "progressing"), before=1, policy=1), Perform)


def test_a_policy_in_progress_is_not_edited(facts: Facts) -> None:
    busy = there(facts, OWN, "interfaces: []", "progressing").with_changes(
        ((f"policy/{OWN}/editable", Known(False)),)
    )
    waits = step(facts, busy)
    assert isinstance(waits, Perform) and [op.label for op in waits.ops] == ["editable"]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((f"{AT}", Unknown("no answer")), "no answer"),
        (("cluster/nmstate", Unknown("no answer")), "no answer"),
    ],
)
def test_a_step_that_cannot_see_stops_for_a_while(found: Any, said: str, facts: Facts) -> None:
    stopped = step(facts, facts.with_changes((found,)))
    assert isinstance(stopped, Stop) and stopped.unsure and said in stopped.why


def test_a_policy_that_failed_or_is_edited_by_others_stops_the_run(facts: Facts) -> None:
    failed = step(facts, in_force(facts, "failed"), before=1, policy=1)
    assert isinstance(failed, Stop) and "is failed" in failed.why
    edited = step(facts, facts, before=1, policy=3)
    assert isinstance(edited, Stop) and edited.moved and "somebody else edits it" in edited.why


def test_a_port_that_ovs_made_itself_is_no_success(facts: Facts) -> None:
    view = facts.value(AT)
    (nic,) = view["bridges"]["br-storage"]["ports"]["ens40"]["interfaces"]
    own = view["bridges"]["br-storage"]["ports"]["ens40"]

    def made(document: str, kind: str) -> Next:
        ports = {
            name: {**own, "interfaces": [{**nic, "name": name, "type": t}]}
            for name, t in (("br-new", "internal"), ("ens50", kind), ("mgmt0", "internal"))
        }
        bridge = {**view["bridges"]["br-storage"], "ports": ports}
        found = in_force(facts, "available", document).with_changes(
            ((AT, Known({**view, "bridges": {**view["bridges"], "br-new": bridge}})),)
        )
        return step(facts, found, document, before=1, policy=1)

    whole = NEW.replace("{name: ens50}", "{name: ens50}, {name: br-new}, {name: mgmt0}").replace(
        "interfaces: [", "interfaces: [{name: mgmt0, type: ovs-interface, state: up}, "
    )
    assert made(whole, "system") == Finished("policy p-worker-01 is Available")
    stopped = made(whole, "internal")
    assert isinstance(stopped, Stop) and "OVS made ens50 under br-new itself" in stopped.why


def test_after_a_failure_the_policy_is_not_left_trying(facts: Facts) -> None:
    rescue = find_routine("enact-policy@1").rescue
    assert rescue is not None

    def rescued(found: Facts, **attempts: int) -> Next:
        return rescue(args(facts), found, Done("run-1", {}, {}, attempts))

    taken = rescued(in_force(facts, "retrying"))
    assert isinstance(taken, Perform) and [op.title for op in taken.ops] == [f"delete policy {OWN}"]
    assert rescued(facts) == rescued(in_force(facts, "available")) == Finished()
    again = rescued(in_force(facts, "failed"), withdraw=3)
    assert isinstance(again, Stop) and "comes back" in again.why
