"""The lab itself: it comes up, moves guests, can be measured by, and goes away."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from providers.node.local import LocalShell
from providers.ports import Create, Ref

from . import daemons
from .conftest import WORLD
from .kit import Kit
from .lab import Lab, take_down
from .netns import LabError, await_true, present
from .wiring import Place, rarp

pytestmark = pytest.mark.lab

NEW_MAPPING = 'external_ids:ovn-bridge-mappings="physnet:br-ex,vmnet:br-phy,storage:br-storage"'
PATCH = "patch-vlan224_ovn_localnet_port-to-br-int"


def test_every_guest_reaches_its_gateway(lab: Lab) -> None:
    for vm in lab.spec.silent:
        with lab.ping(vm, every=0.01) as probe:
            await_true(partial(lab.reachable, vm), f"{vm} hears its gateway", within=5)
            tally = probe.stop()
        assert tally.sent > 0
        assert tally.lost == 0, vm


def test_target_file_leads_to_the_daemons_of_every_node(lab: Lab) -> None:
    target = yaml.safe_load(lab.target.read_text())
    assert target["cluster"] == {"twin": "world"}
    ways = target["nodes"]["local"]
    assert list(ways) == ["worker-01", "worker-02", "worker-03"]
    for way in ways.values():
        done = LocalShell(way["exec"], way["rundir"]).run(
            ["ovn-appctl", "-t", "ovn-controller", "version"], timeout=5
        )
        assert done.out.startswith("ovn-controller 23.03")


def test_guest_moves_with_its_migration_and_its_ping_goes_on(lab: Lab) -> None:
    source = lab.node_of("shop/web-1")
    with lab.ping("shop/web-1") as probe:
        migrate(lab, "shop/web-1")
        tally = probe.stop()
    target = lab.node_of("shop/web-1")
    assert target != source
    assert len(ports_of(lab, target, "shop/web-1")) == 2
    await_true(lambda: not ports_of(lab, source, "shop/web-1"), f"{source} gives the ports up", within=5)
    assert tally.lost_ms < 1000
    assert lab.reachable("shop/web-1")


def test_silent_guest_is_heard_of_where_it_arrives_and_stays_silent(lab: Lab) -> None:
    source = lab.node_of("shop/quiet-2")
    migrate(lab, "shop/quiet-2")
    assert lab.node_of("shop/quiet-2") != source
    assert lab.silent_reachable("shop/quiet-2")


def test_kubelet_that_was_away_does_what_was_asked_meanwhile(lab: Lab) -> None:
    source = lab.node_of("default/quiet-1")
    lab.kill_kubelet()
    ref = ask_to_migrate(lab, "default/quiet-1")
    time.sleep(0.5)
    assert lab.node_of("default/quiet-1") == source
    lab.start_kubelet()
    await_migration(lab, ref)
    assert lab.silent_reachable("default/quiet-1")
    move_to(lab, "default/quiet-1", source)
    assert lab.silent_reachable("default/quiet-1")


def test_nothing_changed_loses_almost_nothing(lab: Lab) -> None:
    lab.purge()
    with lab.ping("default/web-1") as probe:
        time.sleep(2)
        tally = probe.stop()
    assert tally.sent > 1000
    assert tally.lost_ms < 250


def test_bridge_deleted_by_hand_before_the_mapping_moves_costs_more_than_a_second(lab: Lab) -> None:
    lab.steady()
    lab.purge()
    shell = lab.world.shell("worker-01")
    with lab.ping("default/web-1") as probe:
        assert shell.run(["ovs-vsctl", "del-br", "br-vmdata"], timeout=20).rc == 0
        time.sleep(2)
        assert shell.run(["ovs-vsctl", "set", "Open_vSwitch", ".", NEW_MAPPING], timeout=20).rc == 0
        await_true(lambda: lab.reachable("default/web-1"), "web-1 is back", within=10)
        tally = probe.stop()
    assert lab.patch_bridge("worker-01", "vlan224") == "br-phy"
    lab.reset("worker-01")
    assert tally.lost_ms > 1000
    assert tally.longest_gap_ms > 1000


def test_echo_of_an_announcement_darkens_the_guest_unless_it_came_through_the_patch_port(lab: Lab) -> None:
    """Of a balance-slb bond one member receives broadcasts; the frame is made to leave by the other."""
    lab.settle()
    shell = lab.world.shell("worker-01")

    def control(*argv: str) -> str:
        done = shell.run(argv, timeout=20)
        assert done.rc == 0, done.err
        return done.out

    mac = "02:00:00:00:e0:0c"
    control("ovs-vsctl", "set", "Open_vSwitch", ".", NEW_MAPPING, "--", "del-br", "br-vmdata")
    await_true(lambda: lab.patch_bridge("worker-01", "vlan224") == "br-phy", "the remap", within=20)
    port = control("ovs-vsctl", "get", "Interface", PATCH, "ofport").strip()
    control("ovs-appctl", "bond/set-active-member", "ovs-bond", "ens33")
    bucket = control("ovs-appctl", "bond/hash", mac, "224").strip()
    control("ovs-appctl", "bond/migrate", "ovs-bond", bucket, "ens34")

    def announce(in_port: str) -> str:
        packet = f"in_port={in_port} packet={rarp(mac).hex()} actions=mod_vlan_vid:224,normal"
        control("ovs-ofctl", "packet-out", "br-phy", packet)
        time.sleep(0.3)
        table = control("ovs-appctl", "fdb/show", "br-phy").splitlines()
        return next((line.split()[0] for line in table if mac in line), "")

    assert announce("controller") not in ("", port)
    assert not lab.silent_reachable("default/quiet-1")
    assert announce(port) == port
    assert lab.silent_reachable("default/quiet-1")
    lab.reset("worker-01")


def test_way_out_of_the_node_itself_survives_a_remap_of_the_guests(lab: Lab) -> None:
    argv = ["ovs-vsctl", "set", "Open_vSwitch", ".", NEW_MAPPING, "--", "del-br", "br-vmdata"]
    own = "patch-br-ex_worker-01-to-br-int"
    assert own in lab.dump("worker-01")["Bridge"]["br-ex"]["ports"]
    assert lab.world.shell("worker-01").run(argv, timeout=20).rc == 0
    await_true(lambda: lab.patch_bridge("worker-01", "vlan224") == "br-phy", "the remap", within=20)
    assert own in lab.dump("worker-01")["Bridge"]["br-ex"]["ports"]
    lab.reset("worker-01")


def test_reset_undoes_a_remap_to_the_last_row(lab: Lab) -> None:
    before = lab.dump("worker-01")
    argv = ["ovs-vsctl", "set", "Open_vSwitch", ".", NEW_MAPPING, "--", "del-br", "br-vmdata"]
    assert lab.world.shell("worker-01").run(argv, timeout=20).rc == 0
    await_true(lambda: lab.patch_bridge("worker-01", "vlan224") == "br-phy", "the remap", within=20)
    assert lab.dump("worker-01") != before
    lab.reset("worker-01")
    assert lab.dump("worker-01") == before
    assert lab.reachable("default/quiet-1")


def test_frozen_controller_does_nothing_until_it_goes_on(lab: Lab) -> None:
    lab.stop_ovn("worker-02")
    argv = ["ovs-vsctl", "--no-wait", "remove", "Open_vSwitch", ".", "external_ids", "ovn-bridge-mappings"]
    try:
        assert lab.world.shell("worker-02").run(argv, timeout=20).rc == 0
        time.sleep(1)
        assert lab.patch_bridge("worker-02", "vlan300") == "br-vmdata"
    finally:
        lab.cont_ovn("worker-02")
        await_true(lambda: not lab.patch_bridge("worker-02", "vlan300"), "OVN goes on", within=20)
        lab.reset("worker-02")


def test_failed_up_leaves_nothing_behind(
    needs_daemons: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(namespace: str, rundir: Path, kit: Kit) -> None:
        raise LabError(f"no ovn-controller in {namespace}")

    monkeypatch.setattr(daemons, "start_controller", fail)
    with pytest.raises(LabError, match="no ovn-controller in"):
        Lab.up(yaml.safe_load(WORLD.read_text()), tmp_path / "broken")
    assert nothing_left(tmp_path / "broken")


def test_lab_whose_builder_was_killed_goes_down_quickly(needs_daemons: None, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    argv = [sys.executable, "-m", "tests.lab.main", "up", "--dir", str(folder)]
    with subprocess.Popen(argv, cwd=WORLD.parents[2], stdout=subprocess.DEVNULL) as builder:
        await_true(lambda: any(folder.glob("nodes/*/ovs-vswitchd.pid")), "half a lab", within=20)
        builder.kill()
    begun = time.monotonic()
    take_down(folder)
    assert time.monotonic() - begun < 5
    assert nothing_left(folder)


def migrate(lab: Lab, vm: str) -> None:
    """Ask for a live migration, as a user of the API does, and wait for its end."""
    await_migration(lab, ask_to_migrate(lab, vm))


def move_to(lab: Lab, vm: str, node: str) -> None:
    await_migration(lab, ask_to_migrate(lab, vm, {"kubernetes.io/hostname": node}))
    assert lab.node_of(vm) == node


def ask_to_migrate(lab: Lab, vm: str, selector: dict[str, str] | None = None) -> Ref:
    namespace, name = vm.split("/")
    ref = Ref("kubevirt.io/v1", "VirtualMachineInstanceMigration", f"{name}-{time.monotonic_ns()}", namespace)
    lab.cluster.write(Create(ref, {"spec": {"vmiName": name, "addedNodeSelector": selector or {}}}))
    return ref


def await_migration(lab: Lab, ref: Ref) -> None:
    def phase() -> str:
        return str(((lab.cluster.get(ref) or {}).get("status") or {}).get("phase"))

    await_true(lambda: phase() in ("Succeeded", "Failed"), f"{ref} ends", within=30, every=0.05)
    assert phase() == "Succeeded"


def ports_of(lab: Lab, node: str, vm: str) -> list[str]:
    rows = lab.wiring.rows(node, "Interface")
    return [row["name"] for row in rows if dict(row["external_ids"][1]).get("vm") == vm]


def nothing_left(folder: Path) -> bool:
    """No namespace, no folder, no process that names the folder."""
    place = Place.of(folder)
    mine = f"{place.folder}/".encode()
    living = [
        entry
        for entry in Path("/proc").glob("[0-9]*/cmdline")
        if entry.exists() and mine in entry.read_bytes()
    ]
    return not living and not present(place.prefix) and not folder.exists()
