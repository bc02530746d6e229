"""What nmstate and NetworkManager make of a document on a node whose bridges NetworkManager made.

The findings' numbers are those of docs/nmstate-facts.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers.twin import TwinWorld, WorldError, init_world, open_world
from twin.managed import (
    NODE,
    OLDER,
    PATCH,
    PROCEDURE,
    TALKER,
    absent,
    apply,
    bond,
    bridge,
    ended,
    interface,
    managed,
    mapped_to,
    run,
    shown,
    start,
    watch,
)
from twin.worlds import (
    NEW,
    OLD,
    OUTER,
    bridge_of,
    carry_out,
    mapping,
    migrate,
    select,
    spec,
    without,
    without_bridge,
)

OWNER = "NM.connection.uuid"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TwinWorld]:
    with managed(tmp_path / "w") as made:
        yield made


@pytest.fixture
def older(tmp_path: Path) -> Iterator[TwinWorld]:
    with managed(tmp_path / "w", ovn=OLDER) as made:
        yield made


def ids(world: TwinWorld, table: str, name: str) -> dict[str, str]:
    (row,) = select(world, NODE, table, name)
    return dict(row["external_ids"][1])


def root_ids(world: TwinWorld) -> dict[str, str]:
    (root,) = select(world, NODE, "Open_vSwitch")
    return dict(root["external_ids"][1])


def put(key: str, value: str) -> dict[str, Any]:
    change = [["external_ids", "insert", ["map", [[key, value]]]]]
    return {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": change}


def hand_made(name: str) -> list[dict[str, Any]]:
    """As `ovs-vsctl add-br`."""
    own = {"name": name, "type": "internal"}
    made = {"name": name, "datapath_type": "netdev", "ports": ["named-uuid", "p"]}
    link = [["bridges", "insert", ["named-uuid", "b"]]]
    return [
        {"op": "insert", "table": "Interface", "uuid-name": "i", "row": own},
        {
            "op": "insert",
            "table": "Port",
            "uuid-name": "p",
            "row": {"name": name, "interfaces": ["named-uuid", "i"]},
        },
        {"op": "insert", "table": "Bridge", "uuid-name": "b", "row": made},
        {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": link},
    ]


def converted(world: TwinWorld) -> None:
    """br-vmdata has gone by the way that works, and so has bond0."""
    assert apply(world, mapped_to("br-phy")).done.rc == 0
    assert apply(world, absent("br-vmdata")).done.rc == 0
    world.set_nic(NODE, "bond0", "gone")
    world.tick(1)


def rows(world: TwinWorld) -> Any:
    return [select(world, NODE, table) for table in ("Open_vSwitch", "Bridge", "Port", "Interface")]


def test_networkmanagers_rows_name_their_profiles(world: TwinWorld) -> None:
    for table, name in (("Bridge", "br-vmdata"), ("Port", "bond0"), ("Interface", "bond0")):
        assert OWNER in ids(world, table, name)
    assert (
        len({ids(world, table, name)[OWNER] for table, name in (("Port", "bond0"), ("Interface", "bond0"))})
        == 2
    )
    assert select(world, NODE, "Interface", "bond0")[0]["type"] == "system"
    assert "br-vmdata" not in world.show()["nodes"][NODE]["bridges"]["br-vmdata"]["ports"]
    assert ids(world, "Bridge", "br-int").keys() == {"ovn-startup-ts"}


@pytest.mark.parametrize("said", ["none", None])
def test_a_node_without_nmstate_has_no_nmstatectl(said: str | None, tmp_path: Path) -> None:
    with managed(tmp_path / "w", nodes={NODE: {}, "bare": {"nmstate": said, "bridges": {}}}, vms={}) as world:
        assert world.shell("bare").run(["nmstatectl", "show"], timeout=5).rc == 127
        start(world, "apply", document=PROCEDURE, node="bare")
        done = ended(world, node="bare")
        assert done is not None and done.rc == 127
        assert world.shell(NODE).run(["nmstatectl", "--version"], timeout=5).out == "nmstatectl 2.2.62\n"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"nmstate": "3.0.0"}, "only nmstate 2.2"),
        ({"nodes": {"n": {"bridges": {"br-x": {"madeBy": "hand"}}}}}, "expected networkmanager or ovs-vsctl"),
        ({"nodes": {"n": {"bridges": {"br-x": {"madeBy": "networkmanager"}}}}}, "give it `nmstate`"),
    ],
)
def test_a_world_file_says_what_is_wrong(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    whole = {key: value for key, value in {**spec(vms={}), **changes}.items() if key != "nodeDefaults"}
    with pytest.raises(WorldError, match=complaint):
        init_world(whole, tmp_path / "w")


def test_show_tells_where_the_patch_port_is_and_calls_it_down(world: TwinWorld) -> None:
    vmdata = interface(world, "br-vmdata", "ovs-bridge")
    assert vmdata["bridge"]["port"] == [{"name": "bond0"}, {"name": OUTER}]
    patch = interface(world, OUTER, "ovs-interface")
    assert (patch["state"], patch["controller"]) == ("down", "br-vmdata")
    assert patch["patch"] == {"peer": "patch-br-int-to-vlan224_ovn_localnet_port"}
    own = interface(world, "patch-phy-to-ex", "ovs-interface")
    assert (own["state"], own["profile-name"]) == ("up", "patch-phy-to-ex-if")
    assert interface(world, "bond0", "ethernet")["controller"] == "br-vmdata"
    assert shown(world)["ovn"] == {
        "bridge-mappings": [
            {"localnet": "physnet", "bridge": "br-ex"},
            {"localnet": "vmnet", "bridge": "br-vmdata"},
        ]
    }


def test_show_has_the_bond_and_the_vlan(world: TwinWorld) -> None:
    apply(world, bridge("br-phy", bond("ens33", "ens34"), PATCH))
    ports = interface(world, "br-phy", "ovs-bridge")["bridge"]["port"]
    assert ports[0] == {
        "name": "ovs-bond",
        "link-aggregation": {
            "mode": "balance-slb",
            "port": [{"name": "ens33"}, {"name": "ens34"}],
            "ovs-db": {"external_ids": {}, "other_config": {"bond-rebalance-interval": "10000"}},
        },
    }
    assert ports[1] == PATCH


def test_what_networkmanager_does_not_know_is_no_bridge_to_nmstate(world: TwinWorld) -> None:
    carry_out(world, NODE, *hand_made("br-hand"))
    assert interface(world, "br-hand", "ovs-bridge") is None
    assert interface(world, "br-hand", "ovs-interface")["state"] == "down"
    assert interface(world, "br-int", "ovs-bridge") is None
    assert interface(world, "br-int", "ovs-interface")["state"] == "ignore"


def test_show_of_one_interface_and_of_none(world: TwinWorld) -> None:
    shell = world.shell(NODE)
    assert (
        json.loads(shell.run(["nmstatectl", "show", "bond0"], timeout=5).out)["interfaces"][0]["name"]
        == "bond0"
    )
    assert json.loads(shell.run(["nmstatectl", "show", "nope"], timeout=5).out) == {"interfaces": []}


@pytest.mark.parametrize("value", ["physnet:br-ex,vmnet=br-phy", "physnet:br-ex,vmnet", "a:b:c"])
def test_a_malformed_mapping_stops_show_and_apply(world: TwinWorld, value: str) -> None:
    carry_out(world, NODE, mapping(value))
    bad = value.rpartition(",")[2]
    text = (
        f"InvalidArgument: Cannot convert {bad} to OvnBridgeMapping, expected format is `<localnet>:<bridge>`"
    )
    done = world.shell(NODE).run(["nmstatectl", "show"], timeout=5)
    assert (done.rc, done.err.splitlines()[-1]) == (1, f"NmstateError: {text}")
    assert apply(world, mapped_to("br-phy")).error == f"NmstateError: {text}"
    assert world.show()["nodes"][NODE]["mapping"] == value


def test_a_blank_in_the_mapping_becomes_part_of_the_name(world: TwinWorld) -> None:
    carry_out(world, NODE, mapping("physnet:br-ex, vmnet:br-vmdata,"))
    assert apply(world, mapped_to("br-phy")).done.rc == 0
    assert root_ids(world)["ovn-bridge-mappings"] == " vmnet:br-vmdata,physnet:br-ex,vmnet:br-phy"


def test_the_procedures_document_fails_and_darkens_the_vm(world: TwinWorld) -> None:
    """Finding 1: bond0 out first, the mapping 0.3 s later, 26 s until it gives up; then all is back but the mapping."""
    done = apply(world, PROCEDURE)
    assert done.done.rc == 1
    assert done.error.startswith(
        "NmstateError: VerificationError: Absent/Down interface br-vmdata/ovs-bridge still found as OvsBridge("
    )
    assert 24 <= done.seconds <= 31
    out = done.first(lambda s: s.ports["br-vmdata"] == [OUTER])
    moved = done.first(lambda s: s.mapping == NEW)
    assert (round(out, 2), round(moved - out, 2)) == (0.75, 0.3)
    assert done.first(lambda s: s.ports["br-vmdata"] == []) - moved < 0.01, (
        "OVN moves its port, the bare row stays"
    )
    assert 0.27 <= done.dark() <= 0.67
    assert done.seen[-1].ports["br-vmdata"] == ["bond0"]
    assert done.seen[-1].mapping == NEW
    assert done.done.err.count("Retrying on: VerificationError") == 19, "ten looks, twice"


def test_on_ovn_23_the_vm_is_dark_for_the_whole_attempt(older: TwinWorld) -> None:
    """Finding 1, on the OVN whose patch port does not move; finding 2: there the next attempt is no better."""
    for _ in range(2):
        done = apply(older, PROCEDURE)
        assert done.done.rc == 1
        assert done.dark() > 24
        assert done.seen[-1].ports["br-vmdata"] == ["bond0", OUTER]
        assert (done.seen[-1].mapping, done.seen[-1].reached) == (NEW, True)


def test_the_second_attempt_succeeds(world: TwinWorld) -> None:
    """Finding 2."""
    apply(world, PROCEDURE)
    again = apply(world, PROCEDURE)
    assert (again.done.rc, again.dark()) == (0, 0)
    assert again.seconds < 3
    assert again.seen[-1].ports["br-vmdata"] is None


def test_a_drained_node_still_has_the_patch_port(world: TwinWorld) -> None:
    """Finding 3: the document fails all the same, until ovn-controller has computed everything anew."""
    for vm in ("talker", "silent"):
        migrate(world, vm, f"drain-{vm}")
    world.tick(30)
    assert bridge_of(world, NODE, OUTER) == "br-vmdata"
    done = apply(world, PROCEDURE)
    assert done.done.rc == 1
    assert done.first(lambda s: s.patch is None and s.mapping == OLD) < 1, (
        "a card that goes wakes OVN, too late"
    )


def test_once_ovn_has_computed_anew_the_drained_node_lets_its_bridge_go(world: TwinWorld) -> None:
    """Finding 3, the other half."""
    for vm in ("talker", "silent"):
        migrate(world, vm, f"drain-{vm}")
    world.tick(30)
    assert (
        world.shell(NODE).run(["ovn-appctl", "-t", "ovn-controller", "inc-engine/recompute"], timeout=5).rc
        == 0
    )
    world.tick(1)
    assert bridge_of(world, NODE, OUTER) is None
    assert apply(world, PROCEDURE).done.rc == 0


def test_two_steps_lose_milliseconds(world: TwinWorld) -> None:
    """Finding 4."""
    first, second = apply(world, mapped_to("br-phy")), apply(world, absent("br-vmdata"))
    assert (first.done.rc, second.done.rc) == (0, 0)
    assert first.dark() + second.dark() < 0.02
    assert second.seen[-1].ports["br-vmdata"] is None
    assert world.reachable(TALKER)[0]


def test_on_ovn_23_somebody_must_take_the_patch_port_away_in_between(older: TwinWorld) -> None:
    """Findings 4 and 5."""
    assert apply(older, mapped_to("br-phy")).done.rc == 0
    assert bridge_of(older, NODE, OUTER) == "br-vmdata"
    carry_out(older, NODE, without(older, NODE, "br-vmdata", OUTER))
    older.tick(0.1)
    assert bridge_of(older, NODE, OUTER) == "br-phy"
    done = apply(older, absent("br-vmdata"))
    assert (done.done.rc, done.dark()) == (0, 0)


def test_on_ovn_23_the_second_of_two_steps_fails_without(older: TwinWorld) -> None:
    """Finding 4."""
    apply(older, mapped_to("br-phy"))
    done = apply(older, absent("br-vmdata"))
    assert done.done.rc == 1
    assert done.dark() > 24


def test_a_deleted_bridge_of_networkmanagers_is_back_at_once(world: TwinWorld) -> None:
    """Finding 6."""
    before = ids(world, "Bridge", "br-vmdata")
    carry_out(world, NODE, without_bridge(world, NODE, "br-vmdata"))
    seen = watch(world, 1)
    back = next(s.at for s in seen if s.ports["br-vmdata"] is not None and "bond0" in s.ports["br-vmdata"])
    assert back <= 0.021
    assert ids(world, "Bridge", "br-vmdata") == before
    assert seen[-1].patch == "br-vmdata"
    assert seen[-1].reached


def test_it_is_back_after_one_transaction_with_the_mapping_too(world: TwinWorld) -> None:
    """Finding 6."""
    carry_out(world, NODE, mapping(NEW), without_bridge(world, NODE, "br-vmdata"))
    (*_, last) = watch(world, 1)
    assert (last.ports["br-vmdata"], last.patch) == (["bond0"], "br-phy")


def test_without_its_card_the_deletion_sticks(world: TwinWorld) -> None:
    """Finding 6: NetworkManager has nothing to put there."""
    world.set_nic(NODE, "bond0", "gone")
    world.tick(1)
    assert bridge_of(world, NODE, "bond0") is None
    carry_out(world, NODE, without_bridge(world, NODE, "br-vmdata"))
    assert watch(world, 5)[-1].ports["br-vmdata"] is None
    world.set_nic(NODE, "bond0", "up")
    world.tick(1)
    assert bridge_of(world, NODE, "bond0") == "br-vmdata"


def test_a_bond_loses_the_card_that_is_gone_and_takes_it_back(world: TwinWorld) -> None:
    world.set_nic(NODE, "ens34", "gone")
    world.tick(1)
    assert bridge_of(world, NODE, "ens34") is None
    assert bridge_of(world, NODE, "ens33") == "br-phy"
    world.set_nic(NODE, "ens34", "up")
    world.tick(1)
    assert bridge_of(world, NODE, "ens34") == "br-phy"
    assert select(world, NODE, "Interface", "ens34")[0]["type"] == "system"


def test_a_bridge_made_by_hand_stays_deleted(tmp_path: Path) -> None:
    """Finding 6 is about NetworkManager's own bridges only."""
    defaults = spec()["nodeDefaults"]
    with managed(tmp_path / "w", nodeDefaults=defaults) as world:
        carry_out(world, NODE, mapping(NEW), without_bridge(world, NODE, "br-vmdata"))
        assert watch(world, 5)[-1].ports["br-vmdata"] is None


def test_a_port_of_networkmanagers_is_put_back_and_an_internal_one_is_not(world: TwinWorld) -> None:
    for name, home in (("bond0", "br-vmdata"), ("patch-ex-to-phy", "br-ex"), ("br-ex", "br-ex")):
        carry_out(world, NODE, without(world, NODE, home, name))
    world.tick(1)
    assert bridge_of(world, NODE, "bond0") == "br-vmdata"
    assert bridge_of(world, NODE, "patch-ex-to-phy") == "br-ex"
    assert bridge_of(world, NODE, "br-ex") is None


def test_a_bridge_that_names_another_profile_gets_no_port(world: TwinWorld) -> None:
    """Finding 11: NetworkManager would make a second bridge of that name."""
    apply(world, mapped_to("br-phy"))
    where = [["name", "==", "br-vmdata"]]
    row = {"external_ids": ["map", [[OWNER, "00000000-0000-0000-0000-0000000000ff"]]]}
    carry_out(world, NODE, {"op": "update", "table": "Bridge", "where": where, "row": row})
    carry_out(world, NODE, without(world, NODE, "br-vmdata", "bond0"))
    world.tick(1)
    assert bridge_of(world, NODE, "bond0") is None
    done = apply(world, bridge("br-vmdata", "bond0"))
    expected = """br-vmdata.interface.bridge.port desire '[{"name":"bond0"}]', current '[]'"""
    assert done.error == f"NmstateError: VerificationError: Verification failure: {expected}"


def test_the_old_policy_on_a_converted_node_succeeds_and_kills_the_vm(world: TwinWorld) -> None:
    """Finding 7: in place of bond0 there is an internal port of that name."""
    converted(world)
    assert world.reachable(TALKER)[0]
    done = apply(world, {**bridge("br-vmdata", "bond0"), **mapped_to("br-vmdata")})
    assert done.done.rc == 0
    assert select(world, NODE, "Interface", "bond0")[0]["type"] == "internal"
    assert bridge_of(world, NODE, OUTER) == "br-vmdata"
    assert world.reachable(TALKER) == (False, f"vlan224: {NODE}: bridge br-vmdata has no uplink with a link")
    assert interface(world, "bond0", "ovs-interface")["controller"] == "br-vmdata"
    apply(world, mapped_to("br-phy"))
    assert apply(world, absent("br-vmdata")).done.rc == 0
    assert world.reachable(TALKER)[0]


def test_with_an_entry_for_the_card_it_is_refused(world: TwinWorld) -> None:
    """Finding 7, the other half."""
    converted(world)
    before = rows(world)
    card = {"name": "bond0", "type": "ethernet", "state": "up"}
    document = bridge("br-vmdata", "bond0")
    document["interfaces"].append(card)
    done = apply(world, document)
    assert done.error == "NmstateError: InvalidArgument: Ethernet interface bond0 does not exists"
    assert done.seconds < 1
    assert rows(world) == before


def test_a_mistyped_card_is_accepted(world: TwinWorld) -> None:
    """Finding 8."""
    assert apply(world, bridge("br-typo", {**bond("ens33x", "ens34x"), "name": "typo-bond"})).done.rc == 0
    assert [select(world, NODE, "Interface", name)[0]["type"] for name in ("ens33x", "ens34x")] == [
        "internal"
    ] * 2


def test_a_failed_apply_keeps_what_it_wrote_beside_networkmanager(world: TwinWorld) -> None:
    """Finding 9: the new bridge goes, the mapping to it and the key stay."""
    document = {
        "interfaces": absent("br-vmdata")["interfaces"] + bridge("br-new", "br-new")["interfaces"],
        **mapped_to("br-new", "extra"),
        "ovs-db": {"external_ids": {"probe-key": "set"}},
    }
    done = apply(world, document)
    assert done.done.rc == 1
    assert "br-new" not in world.show()["nodes"][NODE]["bridges"]
    assert root_ids(world)["probe-key"] == "set"
    assert root_ids(world)["ovn-bridge-mappings"] == f"extra:br-new,{OLD}"
    assert done.seen[-1].ports["br-vmdata"] == ["bond0", OUTER]
    assert done.seen[-1].reached


def test_an_uncommitted_apply_that_times_out_keeps_it_too(world: TwinWorld) -> None:
    """Finding 9."""
    document = {**bridge("br-new", "br-new"), **mapped_to("br-new", "extra")}
    assert apply(world, document, "--no-commit", "--timeout", "5").done.rc == 0
    assert bridge_of(world, NODE, "br-new") == "br-new"
    world.tick(6)
    assert bridge_of(world, NODE, "br-new") is None
    assert root_ids(world)["ovn-bridge-mappings"] == f"extra:br-new,{OLD}"


def test_a_failure_after_the_bridge_was_made_anew_leaves_the_vm_dark_for_good(world: TwinWorld) -> None:
    """Finding 10: the row stays, because OVN's patch port holds it; nothing leads out of it any more."""
    apply(world, mapped_to("br-phy"))
    apply(world, absent("br-vmdata"))
    document = {**bridge("br-vmdata", "bond0"), **mapped_to("br-vmdata")}
    # OVN's port of the cluster's own network is on br-ex, and is not allowed here.
    document["interfaces"] += bridge("br-ex", "br-ex", "patch-ex-to-phy", extra=False)["interfaces"]
    assert apply(world, document).done.rc == 1
    assert watch(world, 10)[-1].ports["br-vmdata"] == [OUTER]
    assert not world.reachable(TALKER)[0]


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (
            mapped_to("br-nope"),
            "There is no OVS bridge holding name desired by OVN bridge br-nope localnet vmnet",
        ),
        (
            mapped_to("br-hand"),
            "There is no OVS bridge holding name desired by OVN bridge br-hand localnet vmnet",
        ),
        (
            {**absent("br-phy"), **mapped_to("br-phy")},
            "The OVS bridge br-phy used for OVN localnet vmnet is marked as absent",
        ),
    ],
)
def test_a_mapping_to_a_bridge_that_nmstate_does_not_know_is_refused(
    world: TwinWorld, document: Any, text: str
) -> None:
    """Finding 13."""
    carry_out(world, NODE, *hand_made("br-hand"))
    before = rows(world)
    assert apply(world, document).error == f"NmstateError: InvalidArgument: {text}"
    assert rows(world) == before


@pytest.mark.parametrize(("version", "rc"), [("2.2.39", 0), ("2.2.46", 0), ("2.2.47", 1)])
def test_before_2_2_47_a_mapping_to_nowhere_is_written(tmp_path: Path, version: str, rc: int) -> None:
    """Finding 13."""
    with managed(tmp_path / "w", nmstate=version) as world:
        assert apply(world, mapped_to("br-nope")).done.rc == rc
        assert world.reachable(TALKER)[0] == bool(rc)


def writes_during_an_apply(world: TwinWorld, *operations: dict[str, Any]) -> dict[str, str]:
    start(world, "apply", document=mapped_to("br-phy"))
    world.tick(0.4)
    carry_out(world, NODE, *operations)
    world.tick(5)
    done = ended(world)
    assert done is not None and done.rc == 0
    return root_ids(world)


def test_a_pair_that_somebody_adds_meanwhile_is_lost(world: TwinWorld) -> None:
    """Finding 14: the mapping's value is made from the first look. Other keys survive."""
    found = writes_during_an_apply(world, mapping(f"{OLD},storage:br-ex"), put("other", "kept"))
    assert found["ovn-bridge-mappings"] == NEW
    assert found["other"] == "kept"


def test_before_2_2_41_every_key_written_meanwhile_is_lost(tmp_path: Path) -> None:
    """Finding 14."""
    with managed(tmp_path / "w", nmstate="2.2.39") as world:
        assert "other" not in writes_during_an_apply(world, put("other", "lost"))


def test_a_list_of_ports_without_ovns_fails_and_shakes_the_bond(world: TwinWorld) -> None:
    """Finding 15: nothing is taken from OVN, and the roll-back takes the changed bond out and in again."""
    apply(world, mapped_to("br-phy"))
    apply(world, bridge("br-phy", bond("ens33", "ens34"), PATCH))
    done = apply(world, bridge("br-phy", bond("ens33", "ens34", interval=9000), PATCH, extra=False))
    assert done.error.startswith(
        "NmstateError: VerificationError: Verification failure: br-phy.interface.bridge.port desire '["
    )
    assert OUTER in done.error
    assert 24 <= done.seconds <= 31
    assert 0.02 <= done.dark() <= 0.06
    assert all(OUTER in (s.ports["br-phy"] or ()) for s in done.seen)
    assert select(world, NODE, "Port", "ovs-bond")[0]["other_config"][1] == [
        ["bond-rebalance-interval", "10000"]
    ]


def test_with_ovns_ports_allowed_or_no_list_at_all_nothing_is_lost(world: TwinWorld) -> None:
    """Finding 15, the other half."""
    apply(world, mapped_to("br-phy"))
    done = apply(world, bridge("br-phy", bond("ens33", "ens34", interval=9000), PATCH))
    assert (done.done.rc, done.dark()) == (0, 0)
    assert select(world, NODE, "Port", "ovs-bond")[0]["other_config"][1] == [
        ["bond-rebalance-interval", "9000"]
    ]
    body = {"options": {"mcast-snooping-enable": True}}
    edit = {"interfaces": [{"name": "br-phy", "type": "ovs-bridge", "state": "up", "bridge": body}]}
    done = apply(world, edit)
    assert (done.done.rc, done.dark()) == (0, 0)
    assert select(world, NODE, "Bridge", "br-phy")[0]["mcast_snooping_enable"] is True


def test_the_same_document_again_changes_nothing(world: TwinWorld) -> None:
    """Finding 16."""
    document = {**bridge("br-phy", bond("ens33", "ens34"), PATCH), **mapped_to("br-phy")}
    apply(world, document)
    world.tick(1)
    before = rows(world)
    done = apply(world, document)
    assert done.done.rc == 0
    assert rows(world) == before


def test_absent_leaves_a_bridge_made_by_hand_and_says_all_is_well(world: TwinWorld) -> None:
    carry_out(world, NODE, *hand_made("br-hand"))
    assert apply(world, absent("br-hand")).done.rc == 0
    assert "br-hand" in world.show()["nodes"][NODE]["bridges"]


def test_absent_without_a_type_finds_the_port_of_its_name_and_fails(world: TwinWorld) -> None:
    carry_out(world, NODE, *hand_made("br-hand"))
    done = apply(world, {"interfaces": [{"name": "br-hand", "state": "absent"}]})
    assert "Absent/Down interface br-hand/ovs-interface still found as OvsInterface(" in done.error
    assert "br-hand" in world.show()["nodes"][NODE]["bridges"]


def test_a_bridge_and_its_bond_are_made_as_networkmanager_makes_them(tmp_path: Path) -> None:
    bridges = {"br-ex": {"madeBy": "networkmanager", "ports": {"br-ex": {"internal": True}}}}
    defaults = {**spec()["nodeDefaults"], "bridges": bridges, "mappings": "physnet:br-ex"}
    with managed(tmp_path / "w", nodeDefaults=defaults, vms={}) as world:
        document = bridge("br-phy", bond("ens33", "ens34"), PATCH)
        document["interfaces"] += bridge("br-ex", "br-ex", "patch-ex-to-phy")["interfaces"]
        for name, peer in (("patch-phy-to-ex", "patch-ex-to-phy"), ("patch-ex-to-phy", "patch-phy-to-ex")):
            document["interfaces"].append({"name": name, "type": "ovs-interface", "patch": {"peer": peer}})
        done = apply(world, document)
        assert done.done.rc == 0, done.error
        (port,) = select(world, NODE, "Port", "ovs-bond")
        assert (port["bond_mode"], port["lacp"]) == ("balance-slb", "off")
        assert port["other_config"] == ["map", [["bond-rebalance-interval", "10000"]]]
        (patch,) = select(world, NODE, "Port", "patch-phy-to-ex")
        assert (patch["tag"], patch["vlan_mode"]) == (100, "access")
        kinds = [
            select(world, NODE, "Interface", name)[0]["type"]
            for name in ("ens33", "patch-ex-to-phy", "br-ex")
        ]
        assert kinds == ["system", "patch", "internal"]
        assert not any(select(world, NODE, "Interface", "patch-phy-to-ex")[0]["error"][1])


def test_checkpoints_exclude_each_other_and_roll_back(world: TwinWorld) -> None:
    assert apply(world, bridge("br-new", "br-new"), "--no-commit").done.rc == 0
    done = apply(world, mapped_to("br-phy"))
    assert done.error == (
        "NmstateError: Bug: CheckpointConflict: Another checkpoint exists, please wait its timeout or destroy it"
    )
    assert root_ids(world)["ovn-bridge-mappings"] == OLD
    assert run(world, "rollback").done.rc == 0
    assert bridge_of(world, NODE, "br-new") is None
    assert run(world, "rollback").error == "NmstateError: Bug: NotFound: Not active checkpoints"


def test_what_is_committed_stays(world: TwinWorld) -> None:
    apply(world, bridge("br-new", "br-new"), "--no-commit", "--timeout", "5")
    assert run(world, "commit").done.rc == 0
    world.tick(10)
    assert bridge_of(world, NODE, "br-new") == "br-new"
    path = "/org/freedesktop/NetworkManager/Checkpoint/1"
    assert run(world, "commit", path).error.endswith(f"checkpoint {path} does not exist")


def test_without_verification_the_answer_says_nothing(world: TwinWorld) -> None:
    done = apply(world, PROCEDURE, "--no-verify")
    assert done.done.rc == 0
    assert done.seen[-1].ports["br-vmdata"] == []


def test_a_command_goes_on_when_the_world_is_opened_again(tmp_path: Path) -> None:
    with managed(tmp_path / "w") as world:
        start(world, "apply", document=PROCEDURE)
        world.tick(10)
    with open_world(tmp_path / "w") as world:
        assert ended(world) is None
        world.tick(20)
        done = ended(world)
        assert done is not None and done.rc == 1
        assert bridge_of(world, NODE, "bond0") == "br-vmdata"


def test_an_apply_in_the_foreground_is_refused(world: TwinWorld) -> None:
    before = rows(world)
    done = world.shell(NODE).run(["nmstatectl", "apply"], timeout=5, stdin=json.dumps(PROCEDURE).encode())
    assert (done.rc, done.out) == (1, "")
    assert "takes time" in done.err
    world.tick(60)
    assert rows(world) == before


_PARSER = "Provide file is not valid NetworkState or NetworkPolicy: "
_ARGUMENT = "NmstateError: InvalidArgument: "


def _port(**entry: Any) -> dict[str, Any]:
    return bridge("br-a", {"name": "ens33", **entry})


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (
            {"interface": []},
            f"{_PARSER}unknown field `interface`, expected one of `description`, `hostname`,",
        ),
        ({"interfaces": [{"name": "a", "brigde": {}}]}, f"{_PARSER}interfaces: unknown field `brigde`"),
        (
            {"interfaces": [{"name": "a", "bridge": {"allow-extra-patch-port": True}}]},
            f"{_PARSER}interfaces: unknown field `allow-extra-patch-port`, expected one of `allow-extra-patch-ports`,",
        ),
        (
            {"interfaces": [{"name": "a", "patch": {"per": "x"}}]},
            f"{_PARSER}interfaces: unknown field `per`, expected",
        ),
        ({"interfaces": [{"type": "ovs-bridge"}]}, f"{_PARSER}interfaces: missing field `name`"),
        (_port(vlan={"mode": "access", "tag": "abc"}), f"{_PARSER}interfaces: invalid digit found in string"),
        (
            _port(**{"link-aggregation": {"mode": "foo"}}),
            f"{_PARSER}interfaces: unknown variant `foo`, expected one",
        ),
        (
            {"ovn": {"bridge-mappings": [{"localnet": "a", "bridge": "b", "state": "up"}]}},
            f"{_PARSER}ovn.bridge-mappings[0].state: unknown variant `up`, expected `present` or `absent`",
        ),
        ([], f"{_PARSER}invalid type: sequence, expected struct NetworkState"),
        (
            {
                "ovn": {
                    "bridge-mappings": [{"localnet": "a", "bridge": "b"}, {"localnet": "a", "bridge": "c"}]
                }
            },
            f"{_ARGUMENT}Found duplicate `localnet` key a",
        ),
        (
            {"ovn": {"bridge-mappings": [{"localnet": "a", "brige": "b"}]}},
            f"{_ARGUMENT}mapping for `localnet` key a missing the `bridge` attribute",
        ),
        (
            {"interfaces": bridge("br-a", "ens33")["interfaces"] + bridge("br-b", "ens33")["interfaces"]},
            f"{_ARGUMENT}Port ens33 is overbooked by two controller: br-a, br-b",
        ),
        (
            _port(vlan={"mode": "access", "tag": 1, "trunk-tags": [{"id": 5}]}),
            f"{_ARGUMENT}Bridge VLAN filtering access mode cannot have trunk-tags defined",
        ),
        (
            {"ovs-db": {"external_ids": {"ovn-bridge-mappings": "a:b"}}},
            f"{_ARGUMENT}The `ovn-bridge-mappings` is reserved for OVN mapping",
        ),
        (
            _port(vlan={"mode": "access", "tag": 5000}),
            f"{_ARGUMENT}Connection(InvalidProperty):ovs-port.tag: failed to set property: ovs-port.tag:",
        ),
        (
            {"interfaces": [{"name": "lost", "type": "ovs-interface", "patch": {"peer": "x"}}]},
            f"{_ARGUMENT}Connection(InvalidProperty):connection.controller: A connection with a 'ovs-interface' setting",
        ),
    ],
)
def test_a_bad_document_is_refused_in_nmstates_words(world: TwinWorld, document: Any, text: str) -> None:
    before = rows(world)
    done = apply(world, document)
    assert (done.done.rc, done.error[: len(text)]) == (1, text)
    world.tick(1)
    assert rows(world) == before
    assert apply(world, mapped_to("br-vmdata")).done.rc == 0, "nothing is left open"


def test_only_json_is_read(world: TwinWorld) -> None:
    with world._call() as host:
        host.begin(NODE, "yaml", ["nmstatectl", "apply", "-"], b"interfaces:\n- name: br-a\n")
    done = ended(world, "yaml")
    assert done is not None and done.rc == 1
    assert "the twin reads JSON only" in done.err


def test_an_empty_map_takes_every_key_but_the_mapping(world: TwinWorld) -> None:
    assert apply(world, {"ovs-db": {}}).done.rc == 0
    assert root_ids(world) == {"ovn-bridge-mappings": OLD}


@pytest.mark.parametrize(
    ("argv", "rc", "text"),
    [
        (["nmstatectl", "nonsense"], 2, "error: unrecognized subcommand 'nonsense'"),
        (["nmstatectl", "show", "--nope"], 2, "error: unexpected argument '--nope' found"),
        (["nmstatectl", "apply", "state.yml"], 1, "std::io::Error: No such file or directory (os error 2)"),
        (
            ["nmstatectl", "apply", "--timeout"],
            2,
            "error: a value is required for '--timeout' but none was supplied",
        ),
    ],
)
def test_bad_usage(world: TwinWorld, argv: list[str], rc: int, text: str) -> None:
    done = world.shell(NODE).run(argv, timeout=5)
    assert (done.rc, text in done.err) == (rc, True)


def test_policy_gives_the_state_back_whole(world: TwinWorld) -> None:
    document = {"ovn": mapped_to("br-phy")["ovn"], **bridge("br-vmdata", state="absent")}
    given = json.dumps({"capture": {}, "desiredState": document}).encode()
    done = world.shell(NODE).run(["nmstatectl", "policy", "--json", "/dev/stdin"], timeout=5, stdin=given)
    assert json.loads(done.out) == document
    assert list(json.loads(done.out)) == ["interfaces", "ovn"]


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (
            {"desired": {"interfacez": []}},
            "NmstateError: InvalidArgument: unknown field `interfacez`, expected one of",
        ),
        (
            {"interfaces": []},
            "unknown field `interfaces`, expected one of `capture`, `desired`, `desiredState`",
        ),
        ({"capture": {"a": "x"}, "desired": {}}, "the twin knows no captures"),
    ],
)
def test_policy_refuses(world: TwinWorld, policy: Any, text: str) -> None:
    argv = ["nmstatectl", "policy", "--json", "/dev/stdin"]
    done = world.shell(NODE).run(argv, timeout=5, stdin=json.dumps(policy).encode())
    assert (done.rc, text in done.err) == (1, True)
