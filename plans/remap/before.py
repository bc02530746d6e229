"""Before a remap: what its steps look at, whether that can be relied on, and the before-image.

Invariant: everything that a remap decides on is known, and the bridge it leads to reaches the switch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plans import ovs
from plans.actions import Done, Perform, Stop
from plans.checks import Check
from plans.facts import Facts, Known, Unknown
from plans.guests import guests, unclear_attachments
from plans.ops import Record, Wait
from plans.readings.node import LISTEN

OVN_SETTLE = 15
"""Seconds that ovn-controller must be up: in its first ~10 s it deletes no patch port (H45)."""


def views(node: str) -> tuple[str, ...]:
    """What the steps of a remap look at."""
    return (f"ovs:{node}", f"dp:{node}", f"vms:{node}", "networks")


def readable(args: Mapping[str, Any], facts: Facts) -> ovs.View | Stop:
    """The switch view, or why nothing can be decided. Everything a remap decides on must be known."""
    node, localnet = args["node"], args["localnet"]
    for path in (
        f"node/{node}/ovs",
        f"node/{node}/ovs/mapping/{localnet}",
        f"node/{node}/vms",
        "cluster/networks",
    ):
        fact = facts.get(path)
        if isinstance(fact, Unknown):
            return Stop(f"cannot tell {path}: {fact.why}", unsure=True)
    if unclear := unclear_attachments(facts, node):
        return Stop("; ".join(unclear))
    view: ovs.View = facts.value(f"node/{node}/ovs")
    current = ovs.parse_mappings(view["mapping"]).get(localnet)
    if current not in (args["from"], args["bridge"]):
        return Stop(
            f"node/{node}/ovs/mapping/{localnet}: expected {args['from'] or 'absent'} (or already {args['bridge']}), "
            f"found {current or 'absent'}",
            moved=True,
        )
    if args["bridge"] and not ovs.live_uplinks(view, args["bridge"]):
        return Stop(f"bridge {args['bridge']} on {node} has no uplink with its link up (H03)", moved=True)
    return view


def still_here(args: Mapping[str, Any], facts: Facts) -> Stop | None:
    """Why a cold remap must not be: VMs that it would cut."""
    node, localnet = args["node"], args["localnet"]
    left = sorted({guest.vm for guest in guests(facts, node, localnet)})
    if not left:
        return None
    commands = "; ".join(f"virtctl migrate {vm.partition('/')[2]} -n {vm.partition('/')[0]}" for vm in left)
    them = "it" if len(left) == 1 else "them"
    return Stop(
        f"{node} still runs {', '.join(left)}, on {localnet}, which the plan did not see there: a cold remap would cut "
        f"{them}. Migrate or stop {them} (`{commands}`), then `ovsplan apply` goes on",
        moved=True,
    )


def ovn_settle(args: Mapping[str, Any], facts: Facts, done: Done) -> Perform | None:
    """A wait, when ovn-controller is too young to be trusted with patch ports."""
    path = f"node/{args['node']}/ovs/ovn-uptime"
    uptime = facts.get(path)
    if isinstance(uptime, Known) and uptime.value < OVN_SETTLE and "ovn-settled" not in done.outcomes:
        why = "H45: in its first ~10 s ovn-controller deletes no patch port"
        wait = Wait(
            label="ovn-settled",
            title=f"ovn-controller on {args['node']} up for {OVN_SETTLE} s",
            checks=(Check(path, "min", OVN_SETTLE, why),),
            deadline=2.0 * OVN_SETTLE,
            changes=((path, Known(OVN_SETTLE)),),
        )
        return Perform((wait,))
    return None


def image(args: Mapping[str, Any], view: ovs.View, strays: Mapping[str, list[str]]) -> Record:
    """The before-image: the node's switch, and who was heard lately on the bridges that VMs leave."""
    bridges = sorted({b for homes in strays.values() for b in homes} | {args["from"]} - {None})
    tables = tuple(f"fdb:{args['node']}:{b}" for b in bridges if b in view["bridges"])
    return Record(
        label="before",
        title=f"record the switch and the forwarding tables of {args['node']}",
        views=(f"ovs:{args['node']}", *tables),
        again_after=LISTEN,
    )
