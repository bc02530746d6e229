"""Ops: their shape, which a run may not leave, and the commands that say the same to a person."""

from __future__ import annotations

from typing import Any

from support.switches import switch

from plans.checks import Check
from plans.ops import Create, ObjectRef, Patch, Record, Run, Transact, Wait, as_commands, fits, shape
from plans.transactions import settled, swap_mapping

NODE = ObjectRef("v1", "Node", "worker-01")


def transact(*operations: Any, node: str = "worker-01") -> Transact:
    return Transact(
        label="move", title="move", node=node, operations=operations, commands=("ovs-vsctl show",)
    )


def moved(old: str, new: str) -> Transact:
    return transact(*settled(switch(old), swap_mapping(switch(old), new)))


def run(*argv: str) -> Run:
    return Run(label="announce", title="announce", node="worker-01", argv=argv)


def patch(body: Any, ref: ObjectRef = NODE) -> Patch:
    return Patch(label="cordon", title="cordon", ref=ref, patch=body, commands=("oc adm cordon worker-01",))


def test_the_shape_of_a_transaction_leaves_values_and_guards_out() -> None:
    assert shape(moved("a:b", "a:c")) == shape(moved("x:y,a:b", "x:y,a:d"))


def test_the_shape_of_a_transaction_has_its_node_tables_and_columns() -> None:
    one = transact({"op": "mutate", "table": "Bridge", "where": [], "mutations": [["ports", "delete", []]]})
    other = transact({"op": "mutate", "table": "Bridge", "where": [], "mutations": [["name", "delete", []]]})
    removed = transact({"op": "delete", "table": "Bridge", "where": []})
    assert len({shape(one), shape(other), shape(removed)}) == 3
    assert shape(one) != shape(transact(*one.operations, node="worker-02"))


def test_the_shape_of_a_patch_is_its_object_and_fields() -> None:
    cordon = patch({"spec": {"unschedulable": True}})
    assert shape(cordon) == shape(patch({"spec": {"unschedulable": None}}))
    assert shape(cordon) != shape(patch({"spec": {"taints": []}}))
    assert shape(cordon) != shape(patch(cordon.patch, ObjectRef("v1", "Node", "worker-02")))


def test_the_shape_of_a_create_leaves_out_the_name_that_follows_from_the_run() -> None:
    def migration(name: str, namespace: str) -> Create:
        ref = ObjectRef("kubevirt.io/v1", "VirtualMachineInstanceMigration", name, namespace)
        return Create(label="m", title="m", ref=ref, body={})

    assert shape(migration("(known after apply)", "db")) == shape(migration("ovsplan-1", "db"))
    assert shape(migration("ovsplan-1", "db")) != shape(migration("ovsplan-1", "shop"))


def test_the_shape_of_a_command_is_its_program_and_verb() -> None:
    first = run("ovs-ofctl", "packet-out", "br-phy", "one")
    assert shape(first) == shape(run("ovs-ofctl", "packet-out", "br-phy", "two"))
    assert shape(first) != shape(run("ovs-ofctl", "del-flows", "br-phy"))


def test_every_op_says_what_a_person_would_do() -> None:
    wait = Wait(label="w", title="w", checks=(Check("p", "eq", 1), Check("q", "absent")), deadline=30)
    assert as_commands(transact()) == ("[worker-01] ovs-vsctl show",)
    assert as_commands(patch({})) == ("oc adm cordon worker-01",)
    assert as_commands(wait) == ("# wait, at most 30 s, until p is 1 and q is absent",)
    assert as_commands(Record(label="r", title="record the switch")) == ("# record the switch",)


def test_an_op_may_do_less_than_the_plan_showed_and_never_more() -> None:
    mapping = {
        "op": "mutate",
        "table": "Open_vSwitch",
        "where": [],
        "mutations": [["external_ids", "insert", []]],
    }
    ports = {"op": "mutate", "table": "Bridge", "where": [], "mutations": [["ports", "delete", []]]}
    both, less = transact(mapping, ports), transact(mapping)
    assert fits(less, [both])
    assert not fits(both, [less])
    assert not fits(transact(mapping, node="worker-02"), [both])
