"""Commands on a node, in the words of the real programs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from providers.ports import Finished
from providers.twin import TwinWorld
from twin.worlds import NEW, SILENT, TALKER, announce, make, move_port_first, port, select

NODE = "worker-01"
FRAME = "ffffffffffff02000000e00b80350001080006040003" + "00" * 20


def run(world: TwinWorld, *argv: str) -> Finished:
    return world.shell(NODE).run(argv, timeout=5)


def test_the_forwarding_table_reads_like_that_of_ovs(world: TwinWorld) -> None:
    done = run(world, "ovs-appctl", "fdb/show", "br-vmdata")
    lines = done.out.splitlines()
    assert (done.rc, lines[0]) == (0, " port  VLAN  MAC                Age")
    number = port(world, NODE, "patch-vlan224_ovn_localnet_port-to-br-int")["ofport"]
    assert f"    {number}   224  {TALKER}    0" in lines
    assert re.fullmatch(r"    \d   224  02:00:00:00:e0:0c    0", lines[2])
    world.tick(42)
    aged = run(world, "ovs-appctl", "fdb/show", "br-vmdata").out
    assert f"{TALKER}    0" in aged
    assert f"{SILENT}   42" in aged


def test_an_address_is_forgotten_after_the_ageing_time(world: TwinWorld) -> None:
    world.tick(301)
    table = run(world, "ovs-appctl", "fdb/show", "br-vmdata").out
    assert TALKER in table
    assert SILENT not in table


def test_the_nodes_own_address_is_local(world: TwinWorld) -> None:
    assert re.search(
        r"^LOCAL     0  0a(:..){5}    0$", run(world, "ovs-appctl", "fdb/show", "br-ex").out, re.M
    )


def test_the_version_of_ovn_is_the_worlds(tmp_path: Path) -> None:
    with make(tmp_path, nodes={NODE: {"ovn": "23.03.4"}}) as world:
        done = run(world, "ovn-appctl", "-t", "ovn-controller", "version")
        assert done == Finished(
            0,
            "ovn-controller 23.03.4\nOpen vSwitch Library 3.1.0\nOpenFlow versions 0x6:0x6\nSB DB Schema 20.27.0\n",
            "",
        )


def test_a_frame_without_a_vlan_action_goes_by_its_own_tag(world: TwinWorld) -> None:
    move_port_first(world, NODE, NEW, "br-vmdata")
    plain = SILENT.replace(":", "")
    tagged = f"ffffffffffff{plain}810000e08035" + "00" * 28
    assert (
        run(
            world, "ovs-ofctl", "packet-out", "br-phy", f"in_port=controller packet={tagged} actions=normal"
        ).rc
        == 0
    )
    assert world.reachable("default/silent")[0]


def test_a_frame_into_a_bridge_without_an_uplink_goes_nowhere(world: TwinWorld) -> None:
    move_port_first(world, NODE, NEW, "br-vmdata")
    for nic in ("ens33", "ens34"):
        world.set_nic(NODE, nic, "down")
    world.tick(1)
    assert announce(world, NODE, "br-phy", SILENT).rc == 0
    reached, why = world.reachable("default/silent")
    assert (reached, why) == (False, "vlan224: worker-01: bridge br-phy has no uplink with a link")


@pytest.mark.parametrize(
    ("argv", "rc", "err"),
    [
        (["nmstatectl", "show"], 127, "sh: 1: nmstatectl: not found"),
        ([], 127, "not found"),
        (["ovs-appctl", "fdb/show", "br-nope"], 2, "no such bridge"),
        (["ovs-appctl", "fdb/show"], 2, "requires at least 1 arguments"),
        (["ovs-appctl", "bond/hum"], 2, "is not a valid command"),
        (["ovs-appctl"], 1, "at least one non-option argument"),
        (["ovn-appctl", "version"], 1, "cannot read pidfile"),
        (["ovn-appctl", "-t", "ovn-controller", "hum"], 2, "is not a valid command"),
        (["ovs-ofctl", "hum"], 1, "unknown command 'hum'"),
        (["ovs-ofctl", "packet-out", "br-phy"], 1, "requires at least 2 arguments"),
        (["ovs-ofctl", "packet-out", "br-nope", f"in_port=controller packet={FRAME} actions=normal"], 1,
         "br-nope is not a bridge or a socket"),
        (["ovs-ofctl", "packet-out", "br-phy", "in_port=controller packet=ff actions=normal"], 1, "too short"),
        (["ovs-ofctl", "packet-out", "br-phy", "hum"], 1, "ovs-ofctl: hum"),
    ],
)  # fmt: skip
def test_what_a_command_does_not_take(world: TwinWorld, argv: list[str], rc: int, err: str) -> None:
    done = world.shell(NODE).run(argv, timeout=5)
    assert done.rc == rc
    assert err in done.err
    assert done.out == ""


def test_networkmanager_lists_the_profiles_that_its_rows_are_marked_with(tmp_path: Path) -> None:
    made = {"br-phy": {"madeBy": "networkmanager", "ports": {"ens33": {}}}}
    with make(tmp_path, nmstate="2.2.62", nodes={NODE: {"bridges": made}}) as world:
        listed = run(world, "nmcli", "-g", "UUID", "connection", "show").out.splitlines()
        marks = {
            dict(row["external_ids"][1]).get("NM.connection.uuid")
            for table in ("Bridge", "Port", "Interface")
            for row in select(world, NODE, table)
        } - {None}
    assert marks and marks == {*listed}


def test_a_node_without_networkmanager_has_no_nmcli(world: TwinWorld) -> None:
    assert run(world, "nmcli", "-g", "UUID", "connection", "show").rc == 127


@pytest.mark.parametrize(("state", "rc"), [("up", 0), ("down", 1)])
def test_the_gateway_answers_ping_when_the_world_says_so(tmp_path: Path, state: str, rc: int) -> None:
    with make(tmp_path, probes={"gateway": state}) as world:
        done = run(world, "ping", "-c1", "-W1", "198.51.100.1")
        assert (done.rc, f"{1 - rc} received" in done.out) == (rc, True)
        assert run(world, "ping", "-c1", "-W1", "198.51.100.2").rc == 1
