"""After a failed policy: the localnet is led to a bridge that has an uplink, mapping and patch ports alike.

Invariant: VMs that have a path are left alone; a move is that of the hot remap, for an OVN may not follow the mapping
by itself (H42, H45).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from plans import ovs, pairs
from plans.actions import Done, Finished, Next, Perform, Stop
from plans.facts import Facts
from plans.guests import guests, switch_ports_of, without_network
from plans.ops import AnyOp, as_commands
from plans.remap import hot

RESCUE = "rescue:"
"""Before the labels of a rescue's ops: they say nothing of the step's own, nor these of them."""


def foreseen(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    """All that `lead_to_an_uplink` may do, for a plan to show: to either bridge that has an uplink now."""
    view = facts.value(f"node/{args['node']}/ovs")
    ops: list[AnyOp] = []
    for to, other in ((args["bridge"], args["from"]), (args["from"], args["bridge"])):
        if to and to != other and ovs.live_uplinks(view, to):
            ops += _foreseen_to(args, facts, _as_if_on(args, facts, view, other), to, other)
    once: dict[str, AnyOp] = {}
    for op in ops:
        once.setdefault(op.title, replace(op, label=RESCUE + op.label))
    return tuple(once.values())


def _as_if_on(args: Mapping[str, Any], facts: Facts, view: ovs.View, bridge: str | None) -> ovs.View:
    """The view with the localnet on a bridge, and with it the patch pairs that the node has or its VMs need.

    All networks' pairs where there is none of either: whichever comes, ops of these shapes lead it back.
    """
    localnet = args["localnet"]
    lsps = list(switch_ports_of(facts, view, localnet))
    needed = {guest.lsp for guest in guests(facts, args["node"], localnet)}
    lsps = [n for n in lsps if n in needed or ovs.bridges_of_port(view, ovs.outer_port(n))] or lsps
    pair = ovs.set_pair(view["mapping"], localnet, bridge) if bridge else None
    view = ovs.with_mapping(view, pair or ovs.drop_pair(view["mapping"], localnet) or None)
    if bridge is not None and bridge in view["bridges"]:
        view = ovs.without_ports(view, map(ovs.outer_port, lsps))
        for lsp in lsps:
            view = ovs.with_patch(view, bridge, ovs.outer_port(lsp), ovs.inner_port(lsp), lsp)
    return view


def _foreseen_to(
    args: Mapping[str, Any], facts: Facts, view: ovs.View, to: str, other: str | None
) -> list[AnyOp]:
    toward = {**args, "bridge": to, "from": other}
    imagined = facts.with_changes(ovs.changes(args["node"], facts.value(f"node/{args['node']}/ovs"), view))
    astray = hot.strays(imagined, view, args["localnet"], to)
    here = guests(facts, args["node"], args["localnet"])
    return [
        *hot.move_ops(toward, imagined, view, astray),
        *hot.announcements(toward, imagined, view, here, Done("")),
        *hot.contingent(toward, imagined),
    ]


def lead_to_an_uplink(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Move the localnet off a bridge without an uplink, await its patch pairs there, and announce its VMs.

    What VMs stay without network all the same is said by name, with what a person can do.
    """
    node, localnet = args["node"], args["localnet"]
    view: ovs.View = facts.value(f"node/{node}/ovs")
    current = ovs.parse_mappings(view["mapping"]).get(localnet)
    if current is None:
        return Finished(f"{localnet} is mapped to no bridge on {node}")
    candidates = (current, args["bridge"], args["from"])
    to = next((bridge for bridge in candidates if bridge and ovs.live_uplinks(view, bridge)), None)
    if to is None:
        return Finished(f"{localnet} is mapped to {current}, which has no uplink{dark(args, facts)}")
    begun = any(label.startswith(RESCUE) for label in done.attempts)
    if to == current and not begun and not without_network(facts, node, localnet):
        return Finished(f"{localnet} is mapped to {to} on {node}")
    toward, ours = {**args, "bridge": to, "from": current}, _own(done)
    astray = hot.strays(facts, view, localnet, to)
    moves = hot.move_ops(toward, facts, view, astray) if current != to or astray else ()
    if moves and ours.attempts.get("move", 0) < hot.MOVES:
        # Also where it can't be told who rides on it: nothing is cut on a bridge without an uplink.
        return _labelled(Perform(moves, unbroken=True))
    upcoming = hot.hot_remap(toward, facts, ours)
    if isinstance(upcoming, Stop):
        return replace(upcoming, why=upcoming.why + dark(args, facts, moves, to))
    if isinstance(upcoming, Perform):
        return _labelled(upcoming)
    led = f"{localnet} is mapped to {to} on {node}"
    return Finished(f"{led}, with the path of its VMs" if guests(facts, node, localnet) else led)


def dark(args: Mapping[str, Any], facts: Facts, moves: Sequence[AnyOp] = (), to: str | None = None) -> str:
    """The VMs that have no network now, or may have none, and the way out by hand; empty when there are none."""
    node, localnet = args["node"], args["localnet"]
    known = facts.value(f"node/{node}/ovs") is not None
    vms = (
        list(without_network(facts, node, localnet))
        if known
        else sorted({guest.vm for guest in guests(facts, node, localnet)})
    )
    if not vms:
        return ""
    by_hand = ", ".join(f"`{c}`" for op in _by_hand(args, facts, vms, moves, to) for c in as_commands(op))
    away = ", ".join(f"`virtctl migrate -n {vm.replace('/', ' ')}`" for vm in vms)
    ways = ([f"by hand: {by_hand}"] if by_hand else []) + [f"move them to another node: {away}"]
    told = "without network now" if known else "may be without network"
    return f"; {told} on {node}: {', '.join(vms)} ({'; or '.join(ways)})"


def _by_hand(
    args: Mapping[str, Any], facts: Facts, vms: Sequence[str], moves: Sequence[AnyOp], to: str | None
) -> list[AnyOp]:
    """The ops that would bring the VMs back: the move, or where that is done, the broken pairs made anew."""
    if moves or not to:
        return [op for op in moves if not op.label.startswith("look-again:")]
    node, localnet = args["node"], args["localnet"]
    view = facts.value(f"node/{node}/ovs")
    lsps = sorted({guest.lsp for guest in guests(facts, node, localnet) if guest.vm in vms})
    return [op for lsp in lsps for op in pairs.rebuild(node, to, view, lsp)]


def _own(done: Done) -> Done:
    """What this attempt's rescue has done so far. The image of the step is its image too."""
    attempts = {
        label.removeprefix(RESCUE): n for label, n in done.attempts.items() if label.startswith(RESCUE)
    }
    outcomes = {label: done.outcomes[RESCUE + label] for label in attempts if RESCUE + label in done.outcomes}
    return replace(done, outcomes={**outcomes, "before": "done"}, attempts=attempts)


def _labelled(upcoming: Perform) -> Perform:
    return replace(upcoming, ops=tuple(replace(op, label=RESCUE + op.label) for op in upcoming.ops))
