"""What differs with OVN 25.03 and OVS 3.5: the patch port follows the mapping, and a moved port settles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.twin import TwinWorld, WorldError, init_world
from twin.worlds import (
    INNER,
    NEW,
    OLD,
    OUTER,
    SILENT,
    announce,
    bridge_of,
    carry_out,
    make,
    mapping,
    port,
    select,
    spec,
    transact,
    with_port,
    without,
    without_bridge,
)

NODE = "worker-01"
TALKER = "default/talker"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TwinWorld]:
    with make(tmp_path / "w", ovn="25.03.0") as made:
        yield made


def test_the_mapping_alone_moves_the_port(world: TwinWorld) -> None:
    begun = world.clock.now()
    transact(world, NODE, mapping(NEW))
    while bridge_of(world, NODE, OUTER) != "br-phy":
        world.tick(0.001)
    assert world.clock.now() - begun <= 0.009
    world.tick(0.05)
    assert world.reachable(TALKER)[0]
    assert bridge_of(world, NODE, INNER) == "br-int"
    assert port(world, NODE, OUTER)["error"] is port(world, NODE, INNER)["error"] is None


def test_and_back_again(world: TwinWorld) -> None:
    for value, home in ((NEW, "br-phy"), (OLD, "br-vmdata"), (NEW, "br-phy")):
        carry_out(world, NODE, mapping(value))
        world.tick(0.1)
        assert bridge_of(world, NODE, OUTER) == home
        assert world.reachable(TALKER) == (True, "")


def test_the_old_bridge_goes_afterwards_and_nothing_is_lost(world: TwinWorld) -> None:
    carry_out(world, NODE, mapping(NEW))
    world.tick(0.1)
    carry_out(world, NODE, without_bridge(world, NODE, "br-vmdata"))
    assert world.reachable(TALKER)[0]
    world.tick(1)
    assert world.reachable(TALKER)[0]


def test_it_announces_nothing_either(world: TwinWorld) -> None:
    carry_out(world, NODE, mapping(NEW))
    world.tick(60)
    assert not world.reachable("default/silent")[0]
    assert announce(world, NODE, "br-phy", SILENT).rc == 0
    assert world.reachable("default/silent") == (True, "")


def test_a_young_ovn_controller_moves_nothing_yet(tmp_path: Path) -> None:
    """In its first ten seconds it deletes no port, so it meets the old one's name, and the database refuses."""
    with make(tmp_path / "w", ovn="25.03.0", nodes={NODE: {"ovnStarted": 3}}) as world:
        carry_out(world, NODE, mapping(NEW))
        world.tick(5)
        assert bridge_of(world, NODE, OUTER) == "br-vmdata"
        world.tick(5)
        assert bridge_of(world, NODE, OUTER) == "br-phy"


def test_a_port_moved_in_one_transaction_settles_in_both_directions(world: TwinWorld) -> None:
    for value, here, there in ((NEW, "br-vmdata", "br-phy"), (OLD, "br-phy", "br-vmdata")):
        world.tick(1)
        out = without(world, NODE, here, OUTER)
        carry_out(world, NODE, mapping(value), out, with_port(world, NODE, there, OUTER))
        world.tick(1)
        assert world.reachable(TALKER) == (True, "")
        for _ in range(3):
            carry_out(world, NODE)
            assert port(world, NODE, INNER)["error"] is None


def test_the_versions_are_told(tmp_path: Path) -> None:
    with make(tmp_path / "w", nodes={NODE: {"ovn": "25.03.0"}, "old": {}}, vms={}) as world:
        told = {}
        for node in (NODE, "old"):
            shell = world.shell(node)
            ovs = shell.run(["ovs-appctl", "version"], timeout=5).out
            ovn = shell.run(["ovn-appctl", "-t", "ovn-controller", "version"], timeout=5).out
            told[node] = (ovs, ovn.splitlines()[:2], select(world, node, "Open_vSwitch")[0]["ovs_version"])
        assert told == {
            NODE: (
                "ovs-vswitchd (Open vSwitch) 3.5.0\n",
                ["ovn-controller 25.03.0", "Open vSwitch Library 3.5.0"],
                "3.5.0",
            ),
            "old": (
                "ovs-vswitchd (Open vSwitch) 3.1.0\n",
                ["ovn-controller 23.03.1", "Open vSwitch Library 3.1.0"],
                "3.1.0",
            ),
        }


def test_another_ovn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match=r"only OVN 23\.03\.\* and 25\.03\.\* are known"):
        init_world(spec(ovn="24.09.1"), tmp_path / "w")
