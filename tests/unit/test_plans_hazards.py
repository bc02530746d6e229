"""Accepting hazards: by an id that exists, each for itself, and only those that block."""

from __future__ import annotations

from pathlib import Path

import pytest
from crash.lives import Job, job_of
from support.edits import apply_edit
from support.planning import HOT, TARGET, declared, make_world, merged, observed, planned, world_spec

from plans.errors import InputError
from plans.facts import Fact, Facts, Known, Unknown
from plans.planner import make_plan

GONE = "1c7d9e0a-3f52-4b86-9d3e-0a5b7c8d9e0f"
WORLD_FILE = {"apiVersion": "ovsplan.io/v1alpha1", "kind": "World", "metadata": {"name": "base"}}
SICK = {"nodes": {"worker-02": {"ready": False, "mappings": "vmnet:br-vmdata"}}}


@pytest.mark.parametrize("name", ["H00", "H66", "h18", "H1", "18", "H018", "all", ""])
def test_what_is_no_hazards_id_is_refused(tmp_path: Path, name: str) -> None:
    with make_world(tmp_path / "world") as world:
        facts = observed(world, declared(HOT))
    with pytest.raises(InputError, match=f"--accept-hazard {name}: hazards are H01 to H"):
        make_plan(declared(HOT), facts, TARGET, accepted=[name])


def test_a_plan_is_blocked_until_every_hazard_is_accepted(tmp_path: Path) -> None:
    with make_world(tmp_path / "world", SICK) as world:
        left = [
            sorted({f.id for f in planned(world, declared(HOT), accepted=accepted).blocking()})
            for accepted in ([], ["H01"], ["H18"], ["H01", "H18"])
        ]
    assert left == [["H01", "H18"], ["H18"], ["H01"], []]


def test_accepting_what_was_not_found_accepts_nothing(tmp_path: Path) -> None:
    with make_world(tmp_path / "world") as world:
        plan = planned(world, declared(HOT), accepted=["H18", "H47"])
    assert not any(finding.accepted for finding in plan.findings)


POLICIES = {
    "nmstate": "2.2.62",
    "ovn": "25.03.0",
    "nodeDefaults": {
        "bridges": {"br-phy": {"madeBy": "networkmanager"}, "br-vmdata": {"madeBy": "networkmanager"}}
    },
}


@pytest.mark.parametrize(("path", "name"), [("profiles", "H55"), ("ping/198.51.100.1", "H61")])
def test_what_no_node_can_be_asked_is_told_once_and_blocks_nothing(
    tmp_path: Path, path: str, name: str
) -> None:
    with make_world(tmp_path / "world", POLICIES) as world:
        seen = dict(observed(world, declared(HOT)).items())
    mute = {f"node/{node}/{path}": Unknown("no such program") for node in ("worker-01", "worker-02")}
    plan = make_plan(declared(HOT), Facts({**seen, **mute}), TARGET)
    (finding,) = [f for f in plan.findings if f.id == name]
    assert (finding.level, plan.blocking()) == ("warn", [])
    assert "cannot tell" in finding.message and "worker-01, worker-02: no such program" in finding.message


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("NodeNetworkConfigurationPolicy", "cannot tell which policies match its nodes"),
        ("NodeNetworkConfigurationEnactment", "cannot tell which policies match its nodes"),
        ("NodeNetworkState", "cannot tell on which nodes nmstate looks after the bridges"),
    ],
)
def test_policies_that_could_not_be_asked_for_are_not_taken_to_be_none(
    tmp_path: Path, kind: str, told: str
) -> None:
    """H04: by ovsdb, under a policy that nobody has seen, each node would be led back."""
    with make_world(tmp_path / "world", POLICIES) as world:
        world.add_fault(f"cluster * list {kind}", nth=1, effect="fail")
        plan = planned(world, declared(HOT))
        again = planned(world, declared(HOT))
    (finding,) = [f for f in plan.blocking() if f.id == "H04"]
    assert told in finding.message
    assert again.blocking() == []


def test_patch_ports_are_mended_whatever_policies_say(tmp_path: Path) -> None:
    """Nobody's but OVN's: a VM that is dark need not wait for the list of policies."""
    there = {
        "nodeDefaults": {"mappings": "physnet:br-ex,vmnet:br-phy"},
        "controllers": {"ovn-controller": False},
    }
    gone = {"bridge": "br-phy", "port": "patch-vlan224_ovn_localnet_port-to-br-int"}
    as_is = HOT.replace(", replaces: {bridge: br-vmdata}", "")
    with make_world(tmp_path / "world", merged(POLICIES, there)) as world:
        apply_edit(world, {"node": "worker-01", "del-port": gone})
        world.add_fault("cluster * list NodeNetworkConfigurationPolicy", nth=1, effect="fail")
        plan = planned(world, declared(as_is))
    assert [c.address for node in plan.nodes for c in node.changes] == ["node/worker-01/mapping/vmnet"]
    assert plan.blocking() == []


DNS = "node/worker-01/dns/198.51.100.53/root-servers.net"


@pytest.mark.parametrize(
    ("path", "fact", "said"),
    [
        (
            DNS,
            Unknown("no bash"),
            "cannot tell whether a name server tells what nmstate asks on worker-01: no bash",
        ),
        (
            "node/worker-01/nmstate/name-servers",
            Known([]),
            "worker-01 has no name server: nmstate waits 2 min for it",
        ),
        (
            DNS,
            Known(False),
            "no name server of worker-01 (198.51.100.53) tells root-servers.net: nmstate waits 2 min",
        ),
        ("cluster/nmstate-probe", Unknown("no right"), "on worker-01, worker-02: no right"),
    ],
)
def test_a_name_server_that_tells_nothing_costs_as_much_as_a_silent_gateway(
    tmp_path: Path, path: str, fact: Fact, said: str
) -> None:
    with make_world(tmp_path / "world", POLICIES) as world:
        seen = dict(observed(world, declared(HOT)).items())
    assert not [f for f in make_plan(declared(HOT), Facts(seen), TARGET).findings if f.id == "H61"]
    plan = make_plan(declared(HOT), Facts({**seen, path: fact}), TARGET)
    (finding,) = [f for f in plan.findings if f.id == "H61"]
    assert finding.level == "warn" and said in finding.message


LEFTOVER = {"br-vmdata": {"madeBy": None, "externalIds": {"NM.connection.uuid": GONE}}}


def leftover_job(folder: Path) -> Job:
    """A job on nodes whose br-vmdata was left by an apply that failed."""
    over = merged(POLICIES, {"nodeDefaults": {"bridges": LEFTOVER}})
    return job_of(folder / "job", {**WORLD_FILE, "spec": world_spec(over)}, {"vmnet.yaml": HOT})


def test_a_leftover_bridge_is_replaced_to_the_end(tmp_path: Path) -> None:
    """H55: nmstate has no profile to take away, so it goes by a transaction, and the plan after it is empty."""
    job = leftover_job(tmp_path)
    ended = job.apply()
    assert ended.code == 0, ended.text
    with job.world() as world:
        assert all("br-vmdata" not in node["bridges"] for node in world.show()["nodes"].values())
        assert planned(world, declared(HOT)).is_empty


def test_a_leftover_that_could_not_be_told_stops_the_line_and_the_next_plan_finds_it(tmp_path: Path) -> None:
    """H55: without the profiles it looks like any other, and nmstate fails to take it away; no VM notices."""
    job = leftover_job(tmp_path)
    with job.world() as world:
        for node in ("worker-01", "worker-02"):
            world.add_fault(f"shell {node} run nmcli*", nth=1, effect="fail")
    ended = job.apply()
    assert ended.code == 3, ended.text
    assert "worker-01/remove/br-vmdata" in ended.err and "br-vmdata/ovs-bridge still found" in ended.err
    with job.world() as world:
        assert all(vm["reachable"] for vm in world.show()["vms"].values())
    assert job.run("abandon", job.latest().id).code == 0
    assert "NetworkManager has no profile of br-vmdata any more" in job.run("plan").out


NEW_BRIDGE = """\
apiVersion: ovsplan.io/v1alpha1
kind: VMNetwork
metadata: {name: vmnet}
spec: {bridge: {name: br-vmdata, ports: [bond0]}}
"""


def test_a_nic_that_something_rides_on_is_not_put_on_a_new_bridge(tmp_path: Path) -> None:
    """H12: nmstate would take it out of its bond, or the node's address with it, and say that all is well."""
    bare = {
        "nmstate": "2.2.62",
        "nodeDefaults": {"mappings": "physnet:br-ex", "bridges": {"br-vmdata": None}},
    }
    with make_world(tmp_path / "world", bare) as world:
        seen = dict(observed(world, declared(NEW_BRIDGE)).items())
    nics = {**Facts(seen).value("node/worker-01/nics")}
    nics["bond0"] = {**nics["bond0"], "used": "a port of team0"}
    plan = make_plan(declared(NEW_BRIDGE), Facts({**seen, "node/worker-01/nics": Known(nics)}), TARGET)
    blocked = {b.address: b.reasons for n in plan.nodes for b in n.blocked}
    assert blocked["node/worker-01/bridge/br-vmdata"] == (
        "port bond0 is in use: a port of team0 (H12): take that off first, or name another port",
    )
    assert [n.node for n in plan.nodes if n.changes] == ["worker-02"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "cluster/nads",
            "cannot tell whether a network of pods (macvlan, ipvlan) has bond0 on worker-01, worker-02: no right",
        ),
        ("node/worker-01/nics", "cannot tell whether anything else uses bond0 on worker-01: no right"),
    ],
)
def test_who_else_has_a_nic_and_could_not_be_asked_is_told(tmp_path: Path, path: str, said: str) -> None:
    by_hand = f"{NEW_BRIDGE.rstrip()}\n".replace("ports: [bond0]}", "ports: [bond0]}, delivery: {by: ovsdb}")
    bare = {
        "nmstate": "2.2.62",
        "nodeDefaults": {"mappings": "physnet:br-ex", "bridges": {"br-vmdata": None}},
    }
    with make_world(tmp_path / "world", bare) as world:
        seen = dict(observed(world, declared(by_hand)).items())
    told = make_plan(declared(by_hand), Facts(seen), TARGET).findings
    assert not [f for f in told if f.id in ("H12", "H65")]
    plan = make_plan(declared(by_hand), Facts({**seen, path: Unknown("no right")}), TARGET)
    (finding,) = [f for f in plan.findings if f.id in ("H12", "H65")]
    assert (finding.level, finding.message) == ("warn", said)


REBOOTS = f"{HOT}---\napiVersion: ovsplan.io/v1alpha1\nkind: Rollout\nmetadata: {{name: tonight}}\nspec: {{evacuate: {{reboot: true}}}}\n"


def test_budgets_that_nobody_may_read_are_told_once_and_no_restart_looks_at_them(tmp_path: Path) -> None:
    desired = declared(REBOOTS)
    with make_world(tmp_path / "world") as world:
        seen = dict(observed(world, desired).items())
    plan = make_plan(desired, Facts({**seen, "cluster/budgets": Unknown("alice may not list them")}), TARGET)
    (finding,) = [f for f in plan.findings if f.id == "H64"]
    assert (finding.level, finding.node) == ("warn", "")
    assert finding.message == (
        "cannot tell which pods of worker-01, worker-02 a disruption budget protects: alice may not list them. "
        "They restart with their node"
    )
    reads = {view for action in plan.actions for view in action.reads}
    assert not {view for view in reads if view.startswith("budgets")}
