"""The steps of a remap, one question at a time: what is there, what the journal says, what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from support.switches import INNER, OUTER, interface, patch, switch

from plans import ovs
from plans.actions import Done, Finished, Next, Perform, Step, Stop, find_routine
from plans.facts import ABSENT, Fact, Facts, Known, Unknown
from plans.ops import AnyOp, Run, Transact

NODE = "w"
MAC = "02:00:00:00:e0:0b"
ARGS = {"node": NODE, "localnet": "vmnet", "bridge": "br-phy", "from": "br-vmdata"}
GONE = {"br-vmdata": [interface("br-vmdata", "internal")], "bond0": [interface("bond0")]}
MOVED = {
    "br-phy": [interface("br-phy", "internal")],
    "ovs-bond": [interface("ens33")],
    OUTER: [patch(OUTER, INNER)],
}
NEW = "physnet:br-ex,vmnet:br-phy"
INTEGRATION = {"br-int": [interface("br-int", "internal")]}


def world(view: ovs.View | None = None, vms: tuple[str, ...] = ("default/web-1",), **more: Fact) -> Facts:
    """A node with a switch, and VMs that each have one attachment to vmnet, VLAN 224."""
    facts: dict[str, Fact] = {
        "cluster/networks": Known(["default/vlan224"]),
        "network/*": ABSENT,
        "network/default/vlan224": Known({"name": "vlan224", "localnet": "vmnet", "vlan": 224, "mtu": 9000}),
        "cluster/vms": Known(sorted(vms)),
        f"node/{NODE}/vms": Known(sorted(vms)),
        f"node/{NODE}/ovs/ovn-uptime": Known(3600.0),
        f"node/{NODE}/dp/*": ABSENT,
    }
    for vm in vms:
        attached = [{"interface": "net", "nad": "default/vlan224", "mac": MAC}]
        facts[f"vm/{vm}"] = Known({"uid": vm, "macs": attached, "migratable": True, "memory": 1})
    facts |= ovs.derive(NODE, view if view is not None else switch())
    return Facts({**facts, **{path.replace("__", "/"): fact for path, fact in more.items()}})


def replaced(facts: Facts, changes: Mapping[str, Fact]) -> Facts:
    return facts.with_changes(changes.items())


def ask(name: str, facts: Facts, args: Mapping[str, Any] = ARGS, **done: Any) -> Next:
    step: Step = find_routine(name).step
    return step(args, facts, Done("run-1", **done))


def ops(upcoming: Next) -> tuple[AnyOp, ...]:
    assert isinstance(upcoming, Perform), upcoming
    return upcoming.ops


def stopped(upcoming: Next) -> Stop:
    assert isinstance(upcoming, Stop), upcoming
    return upcoming


def labels(upcoming: Next) -> list[str]:
    return [op.label for op in ops(upcoming)]


SEEN = {"before": "done"}
RESULTS = {"before": {}}


def test_hot_looks_before_it_touches() -> None:
    assert labels(ask("hot-remap@1", world())) == ["before"]


def test_hot_moves_the_mapping_takes_the_port_and_puts_it_back_in_one_burst() -> None:
    burst = ops(ask("hot-remap@1", world(), outcomes=SEEN, results=RESULTS))
    assert [op.label for op in burst][:2] == ["move", f"insert:{OUTER}"]
    move = burst[0]
    assert isinstance(move, Transact) and move.settle
    assert not any(o["op"] == "insert" for o in move.operations), (
        "one name must not change bridges at once (H46)"
    )
    assert isinstance(burst[1], Transact) and burst[1].tolerate == "timed out"


def test_hot_announces_when_the_pair_is_healthy_on_the_new_bridge() -> None:
    upcoming = ask(
        "hot-remap@1", world(switch(NEW, br_vmdata=GONE, br_phy=MOVED)), outcomes=SEEN, results=RESULTS
    )
    (frame,) = ops(upcoming)
    assert isinstance(frame, Run)
    assert MAC.replace(":", "") in frame.argv[-1] and "mod_vlan_vid:224" in frame.argv[-1]


def test_hot_ends_when_everybody_was_announced() -> None:
    facts = world(switch(NEW, br_vmdata=GONE, br_phy=MOVED))
    (frame,) = ops(ask("hot-remap@1", facts, outcomes=SEEN, results=RESULTS))
    after = ask("hot-remap@1", facts, outcomes={**SEEN, frame.label: "done"}, results=RESULTS)
    assert isinstance(after, Finished)


def test_an_announcement_in_doubt_is_repeated() -> None:
    facts = world(switch(NEW, br_vmdata=GONE, br_phy=MOVED))
    (frame,) = ops(ask("hot-remap@1", facts, outcomes=SEEN, results=RESULTS))
    again = ask("hot-remap@1", facts, outcomes={**SEEN, frame.label: "doubt"}, results=RESULTS)
    assert labels(again) == [frame.label]


def test_a_mapping_that_somebody_moved_elsewhere_stops_the_line_with_both_values() -> None:
    for name in ("hot-remap@1", "cold-remap@1"):
        stop = stopped(ask(name, world(switch("physnet:br-ex,vmnet:br-other"))))
        assert stop.moved
        assert stop.why == (
            "node/w/ovs/mapping/vmnet: expected br-vmdata (or already br-phy), found br-other"
        )


def test_other_peoples_pairs_may_change_meanwhile() -> None:
    facts = world(switch("physnet:br-ex,backup:br-x,vmnet:br-vmdata"))
    move, *_ = ops(ask("hot-remap@1", facts, outcomes=SEEN, results=RESULTS))
    assert isinstance(move, Transact)
    assert "physnet:br-ex,backup:br-x,vmnet:br-phy" in str(move.operations)


def test_a_new_bridge_that_lost_its_uplink_stops_the_line() -> None:
    down = {"br-phy": [interface("br-phy", "internal")], "ens33": [interface("ens33", link_state="down")]}
    stop = stopped(ask("hot-remap@1", world(switch(br_phy=down))))
    assert stop.moved and "H03" in stop.why


@pytest.mark.parametrize("path", ["node/w/ovs", "node/w/ovs/mapping/vmnet", "node/w/vms", "cluster/networks"])
def test_nothing_is_decided_on_what_could_not_be_read(path: str) -> None:
    for name in ("hot-remap@1", "cold-remap@1"):
        stop = stopped(ask(name, replaced(world(), {path: Unknown("no route to host")})))
        assert not stop.moved and stop.why == f"cannot tell {path}: no route to host"


def test_nothing_is_moved_under_a_vm_whose_network_cannot_be_read() -> None:
    facts = replaced(world(), {"network/default/vlan224": Unknown("spec.config is not JSON")})
    facts = replaced(facts, {"cluster/networks": Known([])})
    for name in ("hot-remap@1", "cold-remap@1"):
        assert stopped(ask(name, facts)).why == (
            "cannot tell which localnet default/web-1 uses by default/vlan224: spec.config is not JSON"
        )


def test_a_young_ovn_controller_is_waited_for() -> None:
    young = replaced(world(), {"node/w/ovs/ovn-uptime": Known(3.0)})
    assert labels(ask("hot-remap@1", young)) == ["ovn-settled"]
    assert labels(ask("hot-remap@1", young, outcomes={"ovn-settled": "timed-out"})) == ["before"]


def test_cold_refuses_to_cut_a_vm_that_is_still_there() -> None:
    stop = stopped(ask("cold-remap@1", world()))
    assert stop.moved and "still runs default/web-1" in stop.why


def test_cold_takes_both_ends_and_inserts_nothing() -> None:
    facts = world(vms=())
    assert labels(ask("cold-remap@1", facts)) == ["before"]
    (move,) = ops(ask("cold-remap@1", facts, outcomes=SEEN, results=RESULTS))
    assert isinstance(move, Transact)
    taken = [o["mutations"] for o in move.operations if o["op"] == "mutate" and o["table"] == "Bridge"]
    assert [m[0][2][1] for m in taken] == [f"p-br-vmdata-{OUTER}", f"p-br-int-{INNER}"]
    assert not any(o["op"] == "insert" for o in move.operations)


def test_cold_takes_a_half_pair_away_that_ovn_left() -> None:
    half = world(switch(NEW, br_vmdata=GONE), vms=())
    (move,) = ops(ask("cold-remap@1", half, outcomes={**SEEN, "move": "done"}, results=RESULTS))
    assert INNER in move.title


def test_cold_gives_up_on_an_ovn_that_keeps_bringing_a_half_pair_back() -> None:
    half = world(switch(NEW, br_vmdata=GONE), vms=())
    stop = stopped(ask("cold-remap@1", half, outcomes=SEEN, results=RESULTS, attempts={"move": 11}))
    assert "keeps bringing back" in stop.why


def test_cold_ends_when_the_localnet_is_mapped_and_nothing_rides_on_it() -> None:
    facts = world(switch(NEW, br_vmdata=GONE, br_int=INTEGRATION), vms=())
    assert isinstance(ask("cold-remap@1", facts), Finished)


@pytest.mark.parametrize("name", ["hot-remap@1", "cold-remap@1"])
def test_a_remap_done_by_somebody_else_is_not_done_again(name: str) -> None:
    vms = ("default/web-1",) if name == "hot-remap@1" else ()
    pair = {} if vms else {"br_int": INTEGRATION}
    ports = MOVED if vms else {k: v for k, v in MOVED.items() if k != OUTER}
    upcoming = ask(name, world(switch(NEW, br_vmdata=GONE, br_phy=ports, **pair), vms=vms))
    if isinstance(upcoming, Perform):
        assert all(isinstance(op, Run) for op in upcoming.ops), "announcing is all that may be left"
    else:
        assert isinstance(upcoming, Finished)


def test_a_mac_that_talks_from_elsewhere_is_not_announced_here() -> None:
    """The old table remembers VMs that have left: announcing one here would take its traffic away."""
    table = [[OUTER, 224, "02:00:00:00:ff:01", 1], [OUTER, 224, "02:00:00:00:ff:02", 1]]
    elsewhere = Known(
        {"uid": "x", "macs": [{"interface": "n", "nad": "default/vlan224", "mac": "02:00:00:00:ff:01"}]}
    )
    facts = replaced(
        world(switch(NEW, br_vmdata=GONE, br_phy=MOVED)),
        {"cluster/vms": Known(["default/web-1", "shop/gone"]), "vm/shop/gone": elsewhere},
    )
    results = {"before": {"node/w/fdb/br-vmdata/ages": table}}
    titles = " ".join(op.title for op in ops(ask("hot-remap@1", facts, outcomes=SEEN, results=results)))
    assert "02:00:00:00:ff:02" in titles and "02:00:00:00:ff:01" not in titles


def test_unmapping_removes_our_pair_and_nobody_elses() -> None:
    args = {**ARGS, "bridge": None, "from": "br-phy"}
    (move,) = ops(ask("unmap@1", world(switch(NEW, br_vmdata=GONE, br_phy=MOVED)), args))
    assert isinstance(move, Transact) and "'physnet:br-ex'" in str(move.operations)
    assert isinstance(ask("unmap@1", world(switch("physnet:br-ex")), args), Finished)
    assert stopped(ask("unmap@1", world(switch("physnet:br-ex,vmnet:br-x")), args)).moved


BRIDGE = {"node": NODE, "bridge": "br-vmdata"}


def test_an_old_bridge_goes_when_nothing_is_on_it() -> None:
    facts = world(switch(NEW, br_vmdata=GONE, br_phy=MOVED))
    assert labels(ask("remove-bridge@1", facts, BRIDGE)) == ["before"]
    assert labels(ask("remove-bridge@1", facts, BRIDGE, outcomes=SEEN)) == ["remove"]
    assert isinstance(ask("remove-bridge@1", world(switch(NEW, br_vmdata=None)), BRIDGE), Finished)


@pytest.mark.parametrize(
    ("view", "why"),
    [
        (switch("vmnet:br-phy,backup:br-vmdata", br_vmdata=GONE), "localnet backup is mapped to it"),
        (switch(NEW, br_vmdata={**GONE, "tap0": [interface("tap0", "tap")]}), "port tap0 (tap) is on it"),
        (
            switch(NEW, br_vmdata={**GONE, "veth1": [interface("veth1")]}),
            "ports bond0 and veth1 both lead out of it",
        ),
    ],
)
def test_an_old_bridge_stays_when_somebody_uses_it_by_then(view: ovs.View, why: str) -> None:
    stop = stopped(ask("remove-bridge@1", world(view), BRIDGE, outcomes=SEEN))
    assert stop.moved and why in stop.why


def test_ovns_own_port_is_waited_for_before_the_bridge_goes() -> None:
    facts = world(switch(NEW))
    assert labels(ask("remove-bridge@1", facts, BRIDGE)) == ["ovn-left"]
    stop = stopped(ask("remove-bridge@1", facts, BRIDGE, outcomes={"ovn-left": "timed-out"}))
    assert OUTER in stop.why and not stop.moved
