"""Guarded OVSDB transactions: the exact JSON, and that nothing is changed without a guard."""

from __future__ import annotations

from typing import Any

import pytest
from support.switches import INNER, LSP, OUTER, switch

from plans import ovs, transactions

OLD = "physnet:br-ex,vmnet:br-vmdata"
NEW = "physnet:br-ex,vmnet:br-phy"
ROOT = ["uuid", "root"]


def names(operations: Any) -> list[str]:
    return [f"{o['op']} {o['table']}" for o in operations]


def test_the_mapping_is_compared_and_swapped_whole() -> None:
    guard, change = transactions.swap_mapping(switch(OLD), NEW)
    assert guard == {
        "op": "wait",
        "timeout": 0,
        "table": "Open_vSwitch",
        "until": "==",
        "columns": ["_uuid"],
        "where": [["external_ids", "includes", ["map", [["ovn-bridge-mappings", OLD]]]]],
        "rows": [{"_uuid": ROOT}],
    }
    # A map insert on an existing key changes nothing and answers count 1: the key goes first (H49).
    assert change["mutations"] == [
        ["external_ids", "delete", ["set", ["ovn-bridge-mappings"]]],
        ["external_ids", "insert", ["map", [["ovn-bridge-mappings", NEW]]]],
    ]


def test_an_absent_key_is_inserted_and_then_guarded_by_our_own_value() -> None:
    insert, guard = transactions.swap_mapping(switch(None), "vmnet:br-phy")
    assert insert["mutations"] == [
        ["external_ids", "insert", ["map", [["ovn-bridge-mappings", "vmnet:br-phy"]]]]
    ]
    assert guard["op"] == "wait" and guard["timeout"] == 0
    assert guard["where"] == [
        ["external_ids", "includes", ["map", [["ovn-bridge-mappings", "vmnet:br-phy"]]]]
    ]


def test_the_key_is_dropped_only_while_it_has_the_value_that_was_read() -> None:
    guard, drop = transactions.drop_mapping_key(switch("vmnet:br-phy"))
    assert guard["where"][0][2] == ["map", [["ovn-bridge-mappings", "vmnet:br-phy"]]]
    assert drop["mutations"] == [["external_ids", "delete", ["set", ["ovn-bridge-mappings"]]]]


def test_a_port_is_taken_off_only_the_bridge_where_it_was_seen() -> None:
    guard, take = transactions.take_port(switch(), "br-vmdata", OUTER)
    port = ["uuid", f"p-br-vmdata-{OUTER}"]
    assert (guard["where"], guard["rows"]) == ([["ports", "includes", port]], [{"name": "br-vmdata"}])
    assert take["where"] == [["name", "==", "br-vmdata"]]
    assert take["mutations"] == [["ports", "delete", port]]


def test_a_patch_port_is_inserted_only_where_there_is_none_of_its_name() -> None:
    guard, iface, port, link = transactions.insert_patch("br-phy", OUTER, INNER, LSP, "0")
    assert (guard["where"], guard["rows"]) == ([["name", "==", OUTER]], [])
    assert iface["row"] == {"name": OUTER, "type": "patch", "options": ["map", [["peer", INNER]]]}
    assert port["row"]["external_ids"] == ["map", [["ovn-localnet-port", LSP]]]
    assert link["mutations"] == [["ports", "insert", ["named-uuid", "p0"]]]


def test_a_bridge_goes_only_with_the_ports_and_the_mapping_that_it_was_judged_by() -> None:
    ports, mapping, remove = transactions.remove_bridge(switch(NEW), "br-vmdata")
    assert ports["columns"] == ["ports"]
    assert sorted(uuid for _, uuid in ports["rows"][0]["ports"][1]) == [
        "p-br-vmdata-bond0",
        "p-br-vmdata-br-vmdata",
        f"p-br-vmdata-{OUTER}",
    ]
    assert mapping["where"] == [["external_ids", "includes", ["map", [["ovn-bridge-mappings", NEW]]]]]
    assert remove["mutations"] == [["bridges", "delete", ["uuid", "b-br-vmdata"]]]


def test_a_bridge_comes_back_with_its_ports_interfaces_and_columns() -> None:
    view = switch()
    row = dict(view["bridges"]["br-phy"])
    operations = transactions.restore_bridge(ovs.without_bridge(view, "br-phy"), "br-phy", row)
    assert operations[0]["op"] == "wait" and operations[0]["rows"] == []
    inserted = {
        o["row"]["name"]: o["row"] for o in operations if o["op"] == "insert" and o["table"] == "Port"
    }
    assert sorted(inserted) == ["br-phy", "ovs-bond"]
    assert len(inserted["ovs-bond"]["interfaces"][1]) == 2
    (bridge,) = [o["row"] for o in operations if o["op"] == "insert" and o["table"] == "Bridge"]
    assert bridge["datapath_type"] == "netdev"
    assert all("ofport" not in o["row"] for o in operations if o["op"] == "insert")


@pytest.mark.parametrize("mapping", [OLD, None])
def test_a_settled_transaction_raises_next_cfg_and_reads_it_last(mapping: str | None) -> None:
    operations = transactions.settled(switch(mapping), transactions.swap_mapping(switch(mapping), NEW))
    assert names(operations)[-2:] == ["mutate Open_vSwitch", "select Open_vSwitch"]
    assert operations[-2]["mutations"] == [["next_cfg", "+=", 1]]
    assert operations[-1]["columns"] == ["next_cfg"]
