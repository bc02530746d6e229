"""What OVN, vswitchd and the switch make of a remap: the measurements of the lab, as tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from providers.twin import TwinWorld, init_world, open_world
from twin.worlds import (
    INNER,
    LSP,
    NEW,
    OLD,
    OUTER,
    SILENT,
    TALKER,
    announce,
    bridge_of,
    carry_out,
    learned,
    make,
    mapping,
    migrate,
    move_port_first,
    patch_rows,
    phase,
    port,
    select,
    settle,
    transact,
    with_port,
    without,
    without_bridge,
)

NODE = "worker-01"
NO_PEER = f"No usable peer '{OUTER}' exists in 'netdev' datapath."


def test_a_new_world_is_at_rest(world: TwinWorld) -> None:
    assert bridge_of(world, NODE, OUTER) == "br-vmdata"
    assert all(vm["reachable"] for vm in world.show()["vms"].values())
    assert port(world, NODE, INNER)["error"] is None
    before = world.show()
    world.tick(600)
    assert world.show() == {**before, "clock": "2026-01-15T01:10:00Z"}


def test_the_mapping_alone_does_not_move_the_port(world: TwinWorld) -> None:
    carry_out(world, NODE, mapping(NEW))
    world.tick(60)
    assert bridge_of(world, NODE, OUTER) == "br-vmdata"
    assert world.show()["nodes"][NODE]["mapping"] == NEW
    assert world.reachable("default/talker")[0]


def test_the_mapping_and_the_old_port_together_move_it(world: TwinWorld) -> None:
    move_port_first(world, NODE, NEW, "br-vmdata")
    assert bridge_of(world, NODE, OUTER) == "br-phy"
    assert port(world, NODE, OUTER)["ofport"] >= 1
    assert world.reachable("default/talker") == (True, "")
    assert port(world, NODE, INNER)["error"] == NO_PEER, (
        "an error of the middle of the move, until vswitchd looks again"
    )
    carry_out(world, NODE)
    assert port(world, NODE, OUTER)["error"] is port(world, NODE, INNER)["error"] is None
    assert TALKER in learned(world, NODE, "br-phy")
    assert TALKER not in learned(world, NODE, "br-vmdata")


def test_it_also_moves_when_the_old_bridge_goes(world: TwinWorld) -> None:
    carry_out(world, NODE, mapping(NEW))
    carry_out(world, NODE, without_bridge(world, NODE, "br-vmdata"))
    world.tick(0.1)
    assert bridge_of(world, NODE, OUTER) == "br-phy"
    assert world.reachable("default/talker")[0]


def test_ovn_takes_the_port_that_somebody_else_inserted(world: TwinWorld) -> None:
    world.controllers_off("ovn-controller")
    carry_out(world, NODE, mapping(NEW), without(world, NODE, "br-vmdata", OUTER))
    assert port(world, NODE, INNER)["error"] == NO_PEER
    assert not world.reachable("default/talker")[0]
    carry_out(world, NODE, *patch_rows("br-phy", OUTER, INNER))
    assert world.reachable("default/talker")[0]
    carry_out(world, NODE)
    assert port(world, NODE, INNER)["error"] is None


def homes_in_datapath(world: TwinWorld, node: str, name: str) -> list[str]:
    shown = world.shell(node).run(["ovs-appctl", "dpif/show"], timeout=5).out
    homes, bridge = [], ""
    for line in shown.splitlines():
        if line.startswith("  ") and line.endswith(":"):
            bridge = line.strip(" :")
        elif line.split()[0] == name:
            homes.append(bridge)
    return homes


def test_a_port_moved_in_one_transaction_never_settles(
    world: TwinWorld,
) -> None:
    world.controllers_off("ovn-controller")
    carry_out(
        world,
        NODE,
        mapping(NEW),
        without(world, NODE, "br-vmdata", OUTER),
        with_port(world, NODE, "br-phy", OUTER),
    )
    assert homes_in_datapath(world, NODE, OUTER) == ["br-phy", "br-vmdata"]
    assert port(world, NODE, INNER)["error"] is None
    carry_out(world, NODE)
    assert homes_in_datapath(world, NODE, OUTER) == ["br-phy"]
    assert port(world, NODE, INNER)["error"] == NO_PEER
    assert world.reachable("default/talker")[0], "it looks broken, and carries traffic"
    carry_out(world, NODE)
    assert port(world, NODE, INNER)["error"] is None
    carry_out(world, NODE)
    assert port(world, NODE, INNER)["error"] == NO_PEER, "it never settles by itself"


def test_inserting_after_ovn_did_is_refused_as_ovsdb_refuses_it(world: TwinWorld) -> None:
    move_port_first(world, NODE, NEW, "br-vmdata")
    *_, error = transact(world, NODE, *patch_rows("br-phy", OUTER, INNER))
    assert error["error"] == "constraint violation"
    assert f"identical values ({OUTER})" in error["details"]
    assert "was inserted by this transaction" in error["details"]


def test_a_silent_vm_stays_dark_after_a_remap_until_it_is_announced(world: TwinWorld) -> None:
    move_port_first(world, NODE, NEW, "br-vmdata")
    reached, why = world.reachable("default/silent")
    assert not reached
    assert f"{SILENT} (VLAN 224) to worker-01 bond0" in why
    world.tick(60)
    assert not world.reachable("default/silent")[0]
    assert announce(world, NODE, "br-phy", SILENT).rc == 0
    assert world.reachable("default/silent") == (True, "")
    assert SILENT not in learned(world, NODE, "br-phy")


def test_an_announcement_in_the_wrong_vlan_changes_nothing(world: TwinWorld) -> None:
    move_port_first(world, NODE, NEW, "br-vmdata")
    announce(world, NODE, "br-phy", SILENT, vlan=225)
    assert not world.reachable("default/silent")[0]


def test_the_switch_forgets_a_silent_vm_after_its_ageing_time(world: TwinWorld) -> None:
    move_port_first(world, NODE, NEW, "br-vmdata")
    world.tick(290)
    assert not world.reachable("default/silent")[0]
    world.tick(20)
    assert world.reachable("default/silent")[0]


def test_a_link_that_goes_down_is_forgotten_at_once(world: TwinWorld) -> None:
    move_port_first(world, NODE, NEW, "br-vmdata")
    world.set_nic(NODE, "bond0", "down")
    assert world.reachable("default/silent")[0]


def test_deleting_the_old_bridge_leaves_its_link_up_and_the_silent_vm_dark(world: TwinWorld) -> None:
    carry_out(world, NODE, mapping(NEW), without_bridge(world, NODE, "br-vmdata"))
    world.tick(1)
    assert world.reachable("default/talker")[0]
    assert not world.reachable("default/silent")[0]


def test_announcing_a_talking_vm_elsewhere_holds_for_a_second(world: TwinWorld) -> None:
    announce(world, "worker-02", "br-phy", TALKER)
    assert not world.reachable("default/talker")[0]
    world.tick(1)
    assert world.reachable("default/talker")[0]


def test_a_bridge_without_its_card_leaves_its_vms_dark(tmp_path: Path) -> None:
    with make(tmp_path / "w", nodes={NODE: {}}, vms={}) as world:
        world.set_nic(NODE, "bond0", "gone")
        settle(world, NODE)
        world.tick(1)
        assert port(world, NODE, "bond0") == {
            "ofport": -1,
            "error": "could not open network device bond0 (No such device)",
        }


def test_moving_the_port_row_forward_in_one_transaction_works(world: TwinWorld) -> None:
    carry_out(
        world,
        NODE,
        mapping(NEW),
        without(world, NODE, "br-vmdata", OUTER),
        with_port(world, NODE, "br-phy", OUTER),
    )
    world.tick(1)
    assert world.reachable("default/talker") == (True, "")


def _move_back_at_once(world: TwinWorld) -> None:
    move_port_first(world, NODE, NEW, "br-vmdata")
    carry_out(
        world,
        NODE,
        mapping(OLD),
        without(world, NODE, "br-phy", OUTER),
        with_port(world, NODE, "br-vmdata", OUTER),
    )


def test_moving_it_back_in_one_transaction_leaves_a_stale_port_for_good(world: TwinWorld) -> None:
    _move_back_at_once(world)
    assert homes_in_datapath(world, NODE, OUTER) == ["br-phy", "br-vmdata"]
    world.tick(300)
    assert bridge_of(world, NODE, OUTER) == "br-vmdata"
    assert not world.reachable("default/talker")[0]
    seen = []
    for _ in range(4):
        carry_out(world, NODE)
        seen.append(port(world, NODE, INNER)["error"])
        assert not world.reachable("default/talker")[0]
    assert seen == [NO_PEER, None, NO_PEER, None], "the database alternates, the path stays dead"


def test_a_stale_port_ends_when_the_inner_end_is_turned_away_and_back(world: TwinWorld) -> None:
    _move_back_at_once(world)
    for peer in ("turned-away", OUTER):
        named = [["name", "==", INNER]]
        carry_out(
            world,
            NODE,
            {
                "op": "update",
                "table": "Interface",
                "where": named,
                "row": {"options": ["map", [["peer", peer]]]},
            },
        )
    assert world.reachable("default/talker")[0]
    for _ in range(3):
        carry_out(world, NODE)
        assert port(world, NODE, INNER)["error"] is None


def test_a_stale_port_ends_when_the_pair_was_gone_and_comes_again(world: TwinWorld) -> None:
    _move_back_at_once(world)
    carry_out(world, NODE, without(world, NODE, "br-vmdata", OUTER), without(world, NODE, "br-int", INNER))
    world.tick(1)
    assert bridge_of(world, NODE, OUTER) == "br-vmdata"
    assert port(world, NODE, INNER)["error"] is None
    assert world.reachable("default/talker")[0]


def test_moving_back_by_deleting_first_works(world: TwinWorld) -> None:
    move_port_first(world, NODE, NEW, "br-vmdata")
    move_port_first(world, NODE, OLD, "br-phy")
    assert bridge_of(world, NODE, OUTER) == "br-vmdata"
    assert world.reachable("default/talker") == (True, "")


def _drain(world: TwinWorld) -> None:
    for vm in ("talker", "silent"):
        migrate(world, vm, f"drain-{vm}")
    world.tick(30)
    assert phase(world, "drain-talker") == phase(world, "drain-silent") == "Succeeded"


def test_the_pair_outlives_the_last_vm(world: TwinWorld) -> None:
    _drain(world)
    assert bridge_of(world, NODE, OUTER) == "br-vmdata"
    assert bridge_of(world, NODE, INNER) == "br-int"


def test_the_pair_goes_when_the_mapping_changes_on_an_empty_node(world: TwinWorld) -> None:
    _drain(world)
    carry_out(world, NODE, mapping(NEW))
    world.tick(1)
    assert bridge_of(world, NODE, OUTER) is None
    assert bridge_of(world, NODE, INNER) is None


def test_both_ends_taken_from_an_empty_node_stay_away_until_a_vm_returns(world: TwinWorld) -> None:
    _drain(world)
    out = without(world, NODE, "br-vmdata", OUTER)
    carry_out(world, NODE, mapping(NEW), out, without(world, NODE, "br-int", INNER))
    world.tick(60)
    assert bridge_of(world, NODE, OUTER) is None
    migrate(world, "talker", "return", target=NODE)
    world.tick(30)
    assert bridge_of(world, NODE, OUTER) == "br-phy"
    assert world.reachable("default/talker") == (True, "")


def test_a_malformed_entry_hides_itself_and_all_that_follow(world: TwinWorld) -> None:
    carry_out(world, NODE, mapping("physnet:br-ex,vmnet=br-phy,other:br-vmdata"))
    world.tick(1)
    assert bridge_of(world, NODE, OUTER) is None
    assert bridge_of(world, NODE, "patch-br-ex_worker-01-to-br-int") == "br-ex"


def test_a_mapping_to_a_missing_bridge_takes_the_ports_away(world: TwinWorld) -> None:
    carry_out(world, NODE, mapping("physnet:br-ex,vmnet:br-nope"))
    world.tick(1)
    assert bridge_of(world, NODE, OUTER) is None
    assert world.reachable("default/talker") == (
        False,
        f"vlan224: {NODE}: no patch port {OUTER} on any bridge",
    )


def test_dropping_physnet_cuts_the_nodes_own_network(world: TwinWorld) -> None:
    carry_out(world, NODE, mapping("vmnet:br-vmdata"))
    world.tick(1)
    assert bridge_of(world, NODE, "patch-br-ex_worker-01-to-br-int") is None


def test_a_young_ovn_controller_deletes_nothing(tmp_path: Path) -> None:
    nodes = {NODE: {"ovnStarted": 3}}
    with make(tmp_path / "w", nodes=nodes) as world:
        carry_out(world, NODE, without_bridge(world, NODE, "br-vmdata"))
        world.tick(5)
        assert port(world, NODE, INNER)["error"] == NO_PEER
        world.tick(3)
        assert port(world, NODE, INNER) is None


def test_ovn_announces_what_it_just_claimed_also_after_a_remap(tmp_path: Path) -> None:
    nodes = {NODE: {"ovnStarted": 5}}
    with make(tmp_path / "w", nodes=nodes) as world:
        move_port_first(world, NODE, NEW, "br-vmdata")
        assert not world.reachable("default/silent")[0]
        world.tick(2)
        assert world.reachable("default/silent")[0]


def test_the_localnet_ports_carry_ovns_mark(world: TwinWorld) -> None:
    for name in (OUTER, INNER):
        (row,) = select(world, NODE, "Port", name)
        assert row["external_ids"] == ["map", [["ovn-localnet-port", LSP]]]
    (bridge,) = select(world, NODE, "Bridge", "br-int")
    started = dict(bridge["external_ids"][1])["ovn-startup-ts"]
    assert int(started) == int((world.clock.now() - 3600) * 1000)


@pytest.mark.parametrize("example", ["uplink-alive", "orphaned"])
def test_the_examples_start_as_they_say(tmp_path: Path, example: str) -> None:
    file = Path(__file__).parents[2] / "examples" / example / "world.yaml"
    init_world(yaml.safe_load(file.read_text()), tmp_path)
    with open_world(tmp_path) as world:
        shown = world.show()
        assert world.name == example
        assert {vm["reachable"] for vm in shown["vms"].values()} == {example == "uplink-alive"}
        assert shown["nodes"]["worker-03"]["cordoned"]
        assert {"default/web-1", "shop/web-1", "db/oracle-1"} <= shown["vms"].keys()


def test_one_network_left_behind_holds_the_other_back(tmp_path: Path) -> None:
    networks = {f"default/vlan{vlan}": {"localnet": "vmnet", "vlan": vlan} for vlan in (224, 300)}
    vms = {
        f"default/on-{vlan}": {"node": NODE, "networks": {"n": {"nad": f"default/vlan{vlan}"}}}
        for vlan in (224, 300)
    }
    with make(tmp_path / "w", networks=networks, vms=vms) as world:
        carry_out(world, NODE, mapping(NEW), without(world, NODE, "br-vmdata", OUTER))
        world.tick(30)
        assert not world.reachable("default/on-224")[0]
        assert world.reachable("default/on-300")[0]
        carry_out(world, NODE, without(world, NODE, "br-vmdata", OUTER.replace("224", "300")))
        world.tick(1)
        assert (
            bridge_of(world, NODE, OUTER) == bridge_of(world, NODE, OUTER.replace("224", "300")) == "br-phy"
        )
        assert world.reachable("default/on-224")[0] and world.reachable("default/on-300")[0]
