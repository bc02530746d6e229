"""OVSDB transactions: results, refusals and atomicity, word for word as ovsdb-server 3.1 gave them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from providers.ports import InDoubt
from providers.twin import TwinWorld
from twin.worlds import BUMP, DATABASE, NEW, OLD, mapping, select, transact, without_bridge

NODE = "worker-01"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def anonymous(result: Any) -> Any:
    return UUID.sub("U", result["details"])


def wait_for_mapping(world: TwinWorld, value: str, timeout: int = 0) -> dict[str, Any]:
    (root,) = select(world, NODE, DATABASE)
    return {
        "op": "wait",
        "timeout": timeout,
        "table": DATABASE,
        "until": "==",
        "columns": ["_uuid"],
        "where": [["external_ids", "includes", ["map", [["ovn-bridge-mappings", value]]]]],
        "rows": [{"_uuid": root["_uuid"]}],
    }


def value_of_mapping(world: TwinWorld) -> str | None:
    (root,) = select(world, NODE, DATABASE)
    return dict(root["external_ids"][1]).get("ovn-bridge-mappings")


def test_compare_and_swap_succeeds_on_the_value_that_is_there(world: TwinWorld) -> None:
    assert transact(world, NODE, wait_for_mapping(world, OLD), mapping(NEW)) == [{}, {"count": 1}]
    assert value_of_mapping(world) == NEW


def test_compare_and_swap_fails_on_another_value_and_changes_nothing(world: TwinWorld) -> None:
    assert transact(world, NODE, wait_for_mapping(world, "physnet:br-ex"), mapping(NEW)) == [
        {"details": '"where" clause test failed', "error": "timed out"},
        None,
    ]
    assert value_of_mapping(world) == OLD


def test_a_wait_after_the_change_rolls_it_back(world: TwinWorld) -> None:
    insert = [["external_ids", "insert", ["map", [["ovn-bridge-mappings", NEW]]]]]
    change = {"op": "mutate", "table": DATABASE, "where": [], "mutations": insert}
    results = transact(world, NODE, change, wait_for_mapping(world, NEW))
    assert results == [{"count": 1}, {"details": '"where" clause test failed', "error": "timed out"}]
    assert value_of_mapping(world) == OLD


def test_inserting_a_key_that_is_there_keeps_its_value(world: TwinWorld) -> None:
    insert = [["external_ids", "insert", ["map", [["ovn-bridge-mappings", NEW]]]]]
    change = {"op": "mutate", "table": DATABASE, "where": [], "mutations": insert}
    assert transact(world, NODE, change) == [{"count": 1}]
    assert value_of_mapping(world) == OLD


def test_deleting_a_pair_only_deletes_that_value(world: TwinWorld) -> None:
    pair = [["external_ids", "delete", ["map", [["ovn-bridge-mappings", NEW]]]]]
    transact(world, NODE, {"op": "mutate", "table": DATABASE, "where": [], "mutations": pair})
    assert value_of_mapping(world) == OLD
    pair[0][2] = ["map", [["ovn-bridge-mappings", OLD]]]
    transact(world, NODE, {"op": "mutate", "table": DATABASE, "where": [], "mutations": pair})
    assert value_of_mapping(world) is None


def test_a_wait_with_time_lets_the_clock_run_until_it_holds(world: TwinWorld) -> None:
    before = world.clock.now()
    transact(world, NODE, BUMP)
    (root,) = select(world, NODE, DATABASE)
    assert root["cur_cfg"] < root["next_cfg"]
    row = {"cur_cfg": root["next_cfg"]}
    wait = {
        "op": "wait", "timeout": 5000, "table": DATABASE, "where": [], "columns": ["cur_cfg"], "until": "==", "rows": [row],
    }  # fmt: skip
    assert transact(world, NODE, wait) == [{}]
    assert world.clock.now() - before == pytest.approx(0.003, abs=1e-5)


def test_a_wait_that_never_holds_uses_up_its_time(world: TwinWorld) -> None:
    before = world.clock.now()
    assert transact(world, NODE, wait_for_mapping(world, NEW, timeout=20)) == [
        {"details": '"wait" timed out after 20 ms', "error": "timed out"}
    ]
    assert world.clock.now() - before == pytest.approx(0.02, abs=1e-5)


def test_a_wait_longer_than_the_call_leaves_the_caller_in_doubt(world: TwinWorld) -> None:
    with pytest.raises(InDoubt):
        transact(world, NODE, wait_for_mapping(world, NEW, timeout=60000), timeout=2)


def test_two_ports_of_one_name_are_refused_at_the_end(world: TwinWorld) -> None:
    results = transact(
        world,
        NODE,
        {
            "op": "insert",
            "table": "Port",
            "uuid-name": "p",
            "row": {"name": "bond0", "interfaces": ["named-uuid", "i"]},
        },
        {"op": "insert", "table": "Interface", "uuid-name": "i", "row": {"name": "other"}},
        {
            "op": "mutate",
            "table": "Bridge",
            "where": [["name", "==", "br-phy"]],
            "mutations": [["ports", "insert", ["named-uuid", "p"]]],
        },
    )
    assert len(results) == 4
    assert results[3]["error"] == "constraint violation"
    said = anonymous(results[3])
    assert said.startswith(
        'Transaction causes multiple rows in "Port" table to have identical values (bond0) for index on column '
        '"name".  First row, with UUID U, '
    )
    assert "existed in the database before this transaction and was not modified by the transaction" in said
    assert [port["name"] for port in select(world, NODE, "Port")].count("bond0") == 1


def test_rows_that_nothing_refers_to_are_collected(world: TwinWorld) -> None:
    transact(world, NODE, without_bridge(world, NODE, "br-vmdata"))
    assert not select(world, NODE, "Bridge", "br-vmdata")
    assert not select(world, NODE, "Port", "bond0")
    assert not select(world, NODE, "Interface", "bond0")
    assert len(transact(world, NODE, {"op": "insert", "table": "Bridge", "row": {"name": "lost"}})) == 1
    assert not select(world, NODE, "Bridge", "lost")


def test_a_row_in_use_cannot_be_deleted(world: TwinWorld) -> None:
    gone = {"op": "delete", "table": "Port", "where": [["name", "==", "bond0"]]}
    counted, error = transact(world, NODE, gone)
    assert counted == {"count": 1}
    assert error["error"] == "referential integrity violation"
    assert anonymous(error) == "cannot delete Port row U because of 1 remaining reference(s)"
    assert select(world, NODE, "Port", "bond0")


def test_a_reference_to_nothing_is_refused(world: TwinWorld) -> None:
    row = {"interfaces": ["uuid", "11111111-1111-1111-1111-111111111111"]}
    _, error = transact(
        world, NODE, {"op": "update", "table": "Port", "where": [["name", "==", "bond0"]], "row": row}
    )
    assert (
        anonymous(error)
        == "Table Port column interfaces row U references nonexistent row U in table Interface."
    )


def test_an_error_leaves_the_rest_undone_and_unanswered(world: TwinWorld) -> None:
    bad = {"op": "select", "table": "Nope", "where": []}
    results = transact(world, NODE, mapping(NEW), bad, BUMP)
    assert results[0] == {"count": 1}
    assert results[1] == {
        "syntax": '{"op":"select","table":"Nope","where":[]}',
        "details": "Parsing ovsdb operation 2 of 3 failed: No table named Nope.",
        "error": "syntax error",
    }
    assert results[2] is None
    assert value_of_mapping(world) == OLD


@pytest.mark.parametrize(
    ("operation", "error", "details"),
    [
        ({"op": "select", "table": "Port", "where": [["nope", "==", 1]]}, "unknown column", "No column nope in table Port."),
        ({"op": "select", "table": "Port", "where": [], "columns": ["nope"]}, "syntax error", "nope is not a valid column name"),
        ({"op": "select", "table": "Port", "where": [["name", "==", 1]]}, "syntax error", "expected string"),
        ({"op": "select", "table": "Port", "where": [["name", "like", "a"]]}, "unknown function", "No function named like."),
        ({"op": "select", "table": "Port", "where": [["name", "<", "a"]]}, "syntax error",
         'Type mismatch: "<" operator may not be applied to column name of type string.'),
        ({"op": "select", "table": "Port"}, "syntax error",
         "Parsing ovsdb operation 1 of 1 failed: Required 'where' member is missing."),
        ({"op": "bogus"}, "syntax error", 'Parsing ovsdb operation 1 of 1 failed: No operation "bogus"'),
        ({"op": "insert", "table": "Port", "row": {"tag": 5000}}, "constraint violation",
         "5000 is not in the valid range 0 to 4095 (inclusive)"),
        ({"op": "insert", "table": "Port", "row": {"bond_mode": "x"}}, "constraint violation",
         "x is not one of the allowed values ([active-backup, balance-slb, balance-tcp])"),
        ({"op": "insert", "table": "Port", "row": {"interfaces": ["set", []]}}, "syntax error",
         "set must have 1 to 4294967295 members but 0 are present"),
        ({"op": "update", "table": "Port", "where": [], "row": {"name": "x"}}, "constraint violation",
         "Cannot update immutable column name in table Port."),
        ({"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["external_ids", "+=", 1]]}, "syntax error",
         'Type mismatch: "+=" operator may not be applied to column external_ids of type map of (string, string) pairs.'),
        ({"op": "mutate", "table": "Port", "where": [["name", "==", "patch-phy-to-ex"]], "mutations": [["tag", "insert", 5]]},
         "constraint violation", "Attempted to store 2 elements in set of up to 1 integers."),
    ],
)  # fmt: skip
def test_refusals_read_as_those_of_ovsdb_server(
    world: TwinWorld, operation: dict[str, Any], error: str, details: str
) -> None:
    (result,) = transact(world, NODE, operation)
    assert (result["error"], result["details"]) == (error, details)


def test_an_unknown_database_is_an_error(world: TwinWorld) -> None:
    (result,) = world.ovsdb(NODE).transact("OVN_Southbound", [BUMP], timeout=1)
    assert result["error"] == "unknown database"


def test_conditions_select_as_they_should(world: TwinWorld) -> None:
    def names(*where: Any) -> list[str]:
        rows = transact(
            world, NODE, {"op": "select", "table": "Port", "where": list(where), "columns": ["name"]}
        )
        return sorted(row["name"] for row in rows[0]["rows"])

    every = names()
    assert names(["tag", "==", 100]) == names(["tag", "includes", 100]) == ["patch-phy-to-ex"]
    assert names(["tag", ">", 99], ["tag", "<=", 100]) == ["patch-phy-to-ex"]
    assert names(["tag", ">", 100]) == []
    assert (
        names(["tag", "excludes", 100]) == names(["tag", "!=", 100]) == sorted({*every} - {"patch-phy-to-ex"})
    )
    assert names(["tag", "==", ["set", []]], ["name", "==", "bond0"]) == ["bond0"]


def test_sets_and_defaults_are_written_as_rfc_7047_has_them(world: TwinWorld) -> None:
    (row,) = select(world, NODE, "Port", "ovs-bond")
    assert row["tag"] == ["set", []]
    assert row["bond_mode"] == "balance-slb"
    assert row["interfaces"][0] == "set"
    assert len(row["interfaces"][1]) == 2
    (single,) = select(world, NODE, "Port", "bond0")
    assert single["interfaces"][0] == "uuid"
    assert single["external_ids"] == ["map", []]


def test_only_rows_that_changed_get_a_new_version(world: TwinWorld) -> None:
    (before,) = select(world, NODE, "Bridge", "br-phy")
    row = {"external_ids": ["map", [["a", "b"]]]}
    change = {"op": "update", "table": "Bridge", "where": [["name", "==", "br-phy"]], "row": row}
    transact(world, NODE, change)
    (after,) = select(world, NODE, "Bridge", "br-phy")
    assert (after["_uuid"], after["external_ids"]) == (before["_uuid"], ["map", [["a", "b"]]])
    assert after["_version"] != before["_version"]
    transact(world, NODE, change)
    assert select(world, NODE, "Bridge", "br-phy") == [after]
