"""The seam between what changes and by which means: a second delivery needs nothing but its own two entries."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.planning import HOT, TARGET, declared, make_world, observed

from plans import delivery, planner
from plans.actions import Action, Done, Finished, Next, Perform, routine
from plans.changes import Change, Choice, Context
from plans.delivery.fragments import fragment
from plans.document import read, write
from plans.errors import PlanError
from plans.facts import Facts, Known
from plans.kinds import bridge, mapping
from plans.ops import Run
from plans.planner import make_plan


@routine("write-line@1")
def write_line(args: dict[str, str], facts: Facts, done: Done) -> Next:
    """The step of a delivery that writes one line into a file of the node, for something else to act on."""
    if done.has("line"):
        return Finished(f"{args['line']} written")
    argv = ("sed", "-i", args["line"], "/etc/bridges")
    result = ((f"node/{args['node']}/ovs/{args['path']}", Known(args["value"])),)
    return Perform((Run(label="line", title=args["line"], node=args["node"], argv=argv, changes=result),))


def _fragment(change: Change, context: Context) -> Action:
    path = change.address.partition(f"node/{change.node}/")[2]
    args = {
        "node": change.node,
        "line": f"{change.address} = {change.after}",
        "path": path,
        "value": change.after,
    }
    return Action(
        id=f"{change.node}/file/{path}",
        routine="write-line@1",
        title=f"write {change.address}",
        address=change.address,
        node=change.node,
        args=args,
        no_undo="this delivery is a test",
    )


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    with make_world(tmp_path / "world") as world:
        return observed(world, declared(HOT))


def _by_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change goes by a delivery of this test."""
    compose = {"file": lambda changes, context: [fragment("file", c, context) for c in changes]}
    monkeypatch.setitem(delivery.DELIVERIES, "file", compose["file"])
    monkeypatch.setitem(mapping.FRAGMENTS, "file", _fragment)
    chosen = Choice("file", "a test says so")
    monkeypatch.setattr(planner, "choose_all", lambda changes, *_: {c.address: chosen for c in changes})


@pytest.fixture
def file_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    _by_file(monkeypatch)
    monkeypatch.setitem(bridge.FRAGMENTS, "file", _fragment)


@pytest.mark.usefixtures("file_delivery")
def test_another_delivery_plans_the_same_changes_by_its_own_actions(facts: Facts) -> None:
    plan = make_plan(declared(HOT), facts, TARGET)
    assert {node.delivery for node in plan.nodes} == {"file"}
    assert [(c.address, c.verb, c.before, c.after) for c in plan.nodes[0].changes] == [
        ("node/worker-01/mapping/vmnet", "~", "br-vmdata", "br-phy"),
        ("node/worker-01/bridge/br-vmdata", "-", "bond0, br-vmdata, patch-vlan224_ovn_localnet_port-to-br-int", "absent"),
    ]  # fmt: skip
    assert [a.id for a in plan.actions if a.node == "worker-01"] == [
        "worker-01/preflight",
        "worker-01/cordon",
        "worker-01/file/mapping/vmnet",
        "worker-01/prove",
        "worker-01/file/bridge/br-vmdata",
        "worker-01/verify",
        "worker-01/uncordon",
    ]
    written = plan.action("worker-01/file/mapping/vmnet")
    assert written is not None
    assert [op.title for op in written.ops] == ["node/worker-01/mapping/vmnet = br-phy"]


@pytest.mark.usefixtures("file_delivery")
def test_a_plan_by_another_delivery_goes_through_its_file(facts: Facts) -> None:
    text = write(make_plan(declared(HOT), facts, TARGET))
    assert write(read(text, "plan.json")) == text


@pytest.mark.usefixtures("file_delivery")
def test_a_bridge_is_taken_away_after_the_mapping_that_left_it(facts: Facts) -> None:
    plan = make_plan(declared(HOT), facts, TARGET)
    removal = plan.action("worker-01/file/bridge/br-vmdata")
    assert removal is not None
    assert "worker-01/file/mapping/vmnet" in {need.action for need in removal.needs}


def test_a_kind_without_a_fragment_for_the_delivery_is_named(
    facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    _by_file(monkeypatch)
    with pytest.raises(
        PlanError, match=r"node/worker-01/bridge/br-vmdata: a bridge can't be delivered by file"
    ):
        make_plan(declared(HOT), facts, TARGET)
