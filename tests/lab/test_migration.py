"""The whole migration on real Open vSwitch and OVN, under a continuous ping.

Invariant: each outage that is asserted here has its positive control in `test_lab.py`: the same probe, the procedure's
own order, more than a second lost.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from deepdiff import DeepDiff

from engine.observe import observe
from plans.actions import Action
from plans.document import read
from plans.facts import KNOWN_AFTER_APPLY, Facts, show
from plans.readings import view_of
from providers.interpreters import Interpreter

from .job import EXAMPLES, Job, by_hand, lab_of, lab_world, play, unschedulable, vsctl
from .lab import Lab
from .netns import await_true

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("needs_daemons")]

UNNOTICED_MS = 250
"""What a run that changes nothing may lose by the noise of the machine, and what a hot move must stay within."""

LIVE_MIGRATION_MS = 2000
"""What the lab's own live migrations may cost a VM, all moves of one run together."""


def all_reachable(lab: Lab) -> None:
    for vm, silent in lab.spec.silent.items():
        reached = lab.silent_reachable if silent else lab.reachable
        assert reached(vm, within=3), f"{vm} is dark"


def bridges(lab: Lab, node: str) -> set[str]:
    return set(lab.dump(node)["Bridge"])


def mapping(lab: Lab, node: str) -> str:
    return str(lab.dump(node)["Open_vSwitch"]["."]["external_ids"]["ovn-bridge-mappings"])


def assert_migrated(lab: Lab, job: Job) -> None:
    for node in lab.spec.nodes:
        assert bridges(lab, node) == {"br-int", "br-ex", "br-phy", "br-storage"}
        assert mapping(lab, node) == "physnet:br-ex,vmnet:br-phy,storage:br-storage"
    all_reachable(lab)
    again = job.plan("--detailed-exitcode")
    assert again.returncode == 0, again.stdout
    assert "No changes." in again.stdout


def test_hot_migration_is_not_noticed_by_running_vms(tmp_path: Path) -> None:
    with lab_of("uplink-alive", tmp_path) as lab:
        job = Job(lab, EXAMPLES / "uplink-alive/hot", tmp_path)
        homes = {vm: lab.node_of(vm) for vm in lab.spec.silent}
        lab.settle()
        with lab.ping("default/web-1") as first, lab.ping("db/oracle-1") as second:
            done = job.apply()
            tallies = {"default/web-1": first.stop(), "db/oracle-1": second.stop()}
        assert done.returncode == 0, done.stdout + done.stderr
        assert_migrated(lab, job)
        for vm, tally in tallies.items():
            assert tally.longest_gap_ms < UNNOTICED_MS, (vm, tally)
        assert {vm: lab.node_of(vm) for vm in homes} == homes


def test_cold_migration_evacuates_proves_and_returns(tmp_path: Path) -> None:
    with lab_of("uplink-alive", tmp_path) as lab:
        job = Job(lab, EXAMPLES / "uplink-alive/cold", tmp_path)
        lab.steady()
        with lab.ping("default/web-1") as moving, lab.ping("db/oracle-1") as staying:
            done = job.apply()
            moved, stayed = moving.stop(), staying.stop()
        assert done.returncode == 0, done.stdout + done.stderr
        assert_migrated(lab, job)
        assert moved.lost_ms < LIVE_MIGRATION_MS, moved
        assert stayed.longest_gap_ms < UNNOTICED_MS, stayed
        assert lab.node_of("default/web-1") == "worker-01"
        assert lab.node_of("default/sensor-1") == "worker-01"
        assert "worker-03: not proven" in done.stdout  # cordoned by somebody else: nobody can return to it


def test_orphaned_vms_are_brought_back_at_once(tmp_path: Path) -> None:
    with lab_of("orphaned", tmp_path) as lab:
        job = Job(lab, EXAMPLES / "orphaned/desired", tmp_path)
        assert not lab.reachable("default/web-1", within=0.5)
        planned = job.plan()
        assert "br-vmdata has no uplink: its VMs are dark now" in planned.stdout
        assert "evacuate" not in planned.stdout
        done = job.apply()
        assert done.returncode == 0, done.stdout + done.stderr
        assert_migrated(lab, job)


def test_killed_in_the_middle_of_node_2_it_resumes_and_leaves_nobody_dark(tmp_path: Path) -> None:
    with lab_of("uplink-alive", tmp_path) as lab:
        job = Job(lab, EXAMPLES / "uplink-alive/hot", tmp_path)
        lab.settle()
        running = job.start()
        job.kill_at(running, "worker-01/remap/vmnet", "move")
        status = job.run("status")
        assert status.returncode == 0, status.stderr
        assert "worker-03  done" in status.stdout
        assert "worker-02  not started" in status.stdout
        resumed = job.run("apply")
        assert resumed.returncode == 0, resumed.stdout + resumed.stderr
        assert "goes on" in resumed.stdout
        assert_migrated(lab, job)


# One lab on which the rest take turns: `reset` puts worker-01 back before each.


@pytest.fixture(scope="module")
def shared(needs_daemons: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab_of("uplink-alive", tmp_path_factory.mktemp("shared")) as lab:
        lab.steady()
        yield lab


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    shared.reset("worker-01")
    yield shared
    shared.cont_ovn("worker-01")


# Sabotage: the mapping reads right, and the path is broken. Never "No changes."

LSPS = ("vlan224_ovn_localnet_port", "vlan300_ovn_localnet_port")
OUTER, OTHER = (f"patch-{lsp}-to-br-int" for lsp in LSPS)
INNER = "patch-br-int-to-vlan224_ovn_localnet_port"


def migrate_and_freeze(lab: Lab, folder: Path) -> Job:
    """worker-01 migrated by the program; its ovn-controller then stands still, so that it mends nothing itself."""
    job = Job(lab, EXAMPLES / "uplink-alive/hot", folder)
    done = job.apply("--node", "worker-01")
    assert done.returncode == 0, done.stdout + done.stderr
    lab.stop_ovn("worker-01")
    return job


def assert_repaired(lab: Lab, job: Job, port: str) -> None:
    """`plan` names the port and plans its repair; `apply` makes it; afterwards there is nothing to do."""
    await_true(lambda: not lab.reachable("default/web-1", within=0.3), "the sabotage works", within=5)
    planned = job.plan("--node", "worker-01", "--detailed-exitcode")
    assert planned.returncode == 2, planned.stdout + planned.stderr
    assert f"broken: port {port}" in planned.stdout
    assert "repair the patch ports of localnet vmnet" in planned.stdout
    done = job.apply("--node", "worker-01")
    assert done.returncode == 0, done.stdout + done.stderr
    assert lab.reachable("default/web-1", within=3)
    again = job.plan("--node", "worker-01")
    assert "No changes." in again.stdout, again.stdout


def test_deleted_patch_port_is_named_and_made_again(lab: Lab, tmp_path: Path) -> None:
    job = migrate_and_freeze(lab, tmp_path)
    vsctl(lab, "worker-01", "del-port", "br-phy", OUTER)
    assert_repaired(lab, job, OUTER)


def test_broken_peer_is_named_and_repaired(lab: Lab, tmp_path: Path) -> None:
    job = migrate_and_freeze(lab, tmp_path)
    vsctl(lab, "worker-01", "set", "Interface", INNER, "options:peer=nobody")
    assert_repaired(lab, job, INNER)


def test_stale_port_is_named_and_repaired(lab: Lab, tmp_path: Path) -> None:
    """One transaction moves the port between two live bridges, the wrong way round: OVSDB looks right, nothing flows."""
    job = Job(lab, _back(tmp_path), tmp_path)
    old = mapping(lab, "worker-01")
    new = old.replace("vmnet:br-vmdata", "vmnet:br-phy")
    to_phy = ("set", "Open_vSwitch", ".", f"external_ids:ovn-bridge-mappings={new}")
    vsctl(lab, "worker-01", *to_phy, "--", "del-port", OUTER, "--", "del-port", OTHER)
    await_true(lambda: lab.patch_bridge("worker-01", "vlan224") == "br-phy", "OVN moves the port", within=5)
    lab.stop_ovn("worker-01")
    port = vsctl(lab, "worker-01", "get", "Port", OUTER, "_uuid")
    vsctl(
        lab, "worker-01", "set", "Open_vSwitch", ".", f"external_ids:ovn-bridge-mappings={old}",
        *("--", "remove", "Bridge", "br-phy", "ports", port, "--", "add", "Bridge", "br-vmdata", "ports", port),
    )  # fmt: skip
    assert_repaired(lab, job, OUTER if "stale" in job.plan("--node", "worker-01").stdout else INNER)


def _back(folder: Path) -> Path:
    """A desired state by which VM traffic belongs on br-vmdata."""
    desired = folder / "back"
    desired.mkdir()
    text = (EXAMPLES / "uplink-alive/hot/vmnet.yaml").read_text()
    text = text.replace("bridge: br-phy", "bridge: br-vmdata").replace(
        "  replaces: {bridge: br-vmdata}\n", ""
    )
    (desired / "vmnet.yaml").write_text(text)
    return desired


# Undo: each action's inverse, carried out once, leaves the database as it was before the action.


def test_each_undo_puts_the_database_back(lab: Lab, tmp_path: Path) -> None:
    job = Job(lab, EXAMPLES / "uplink-alive/hot", tmp_path)
    plan = read(job.plan("--node", "worker-01", "--json").stdout, "the plan")
    undone = {"worker-01/cordon", "worker-01/remap/vmnet", "worker-01/remove/br-vmdata"}
    for action in plan.actions:
        before = lab.dump("worker-01"), unschedulable(lab, "worker-01")
        play(lab, action.routine, action.args, action.reads)
        assert_foretold(lab, action)
        if not action.undo:
            assert action.no_undo
            continue
        assert (lab.dump("worker-01"), unschedulable(lab, "worker-01")) != before, action.id
        for invocation in action.undo:
            play(lab, invocation.routine, invocation.args, invocation.reads)
        assert differences(lab, before[0]) == {}, action.id
        assert unschedulable(lab, "worker-01") == before[1]
        undone.remove(action.id)
        play(lab, action.routine, action.args, action.reads)
    assert not undone
    all_reachable(lab)


def assert_foretold(lab: Lab, action: Action) -> None:
    """Each effect that the plan foretold, and that only the run could not know, is there now."""
    world = lab_world(lab)
    views = sorted({view_of(effect.path) for effect in action.effects})
    facts = Facts(observe(Interpreter(world), world.clock, views))
    for effect in action.effects:
        if effect.after != KNOWN_AFTER_APPLY:
            assert show(facts.get(effect.path)) == effect.after, (action.id, effect)


def test_the_printed_undo_can_be_done_by_hand(lab: Lab, tmp_path: Path) -> None:
    job = Job(lab, EXAMPLES / "uplink-alive/hot", tmp_path)
    plan = read(job.plan("--node", "worker-01", "--json").stdout, "the plan")
    before = lab.dump("worker-01")
    done = [a for a in plan.actions if a.id in ("worker-01/remap/vmnet", "worker-01/remove/br-vmdata")]
    for action in done:
        play(lab, action.routine, action.args, action.reads)
    for action in reversed(done):
        for command in action.undo_commands:
            where, _, line = command.partition("] ")
            assert where == "[worker-01", command
            by_hand(lab, "worker-01", line)
    assert differences(lab, before) == {}
    all_reachable(lab)


def differences(lab: Lab, before: Mapping[str, Any]) -> dict[str, Any]:
    """What worker-01's database has otherwise than before, once vswitchd has reported."""
    end = time.monotonic() + 5
    while (found := DeepDiff(before, lab.dump("worker-01")).to_dict()) and time.monotonic() < end:
        time.sleep(0.05)
    return dict(found)
