"""The hot remap: a localnet moved under running VMs, or its patch pairs repaired where they are.

Invariant: no MAC is announced but those that are behind the moved ports now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from plans import ovs, pairs, transactions
from plans.actions import Done, Finished, Next, Perform, Stop, routine
from plans.announce import announce
from plans.facts import KNOWN_AFTER_APPLY, Facts, Unknown
from plans.guests import Guest, guests, switch_ports_of
from plans.ops import AnyOp, Run, Transact
from plans.remap import before

LEARNED_LATELY = 60
"""Seconds: a MAC of no known VM that was heard on the old port this lately is announced with the VMs'."""

MOVES = 3
"""How often a localnet is moved before it is taken that somebody else moves it back."""


def contingent(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    """What the hot remap does only if the world calls for it: mend a pair that stays broken (H46), and,
    where no VM is now, all that one needs which has come by then.
    """
    view = facts.value(f"node/{args['node']}/ovs")
    here = sorted({g.lsp for g in guests(facts, args["node"], args["localnet"])})
    lsps = here or list(switch_ports_of(facts, view, args["localnet"]))
    ops = pairs.cures(args["node"], args["bridge"], view, lsps)
    return ops if here or not lsps else (*_for_latecomers(args, facts, view, lsps), *ops)


def _for_latecomers(
    args: Mapping[str, Any], facts: Facts, view: ovs.View, lsps: Sequence[str]
) -> tuple[AnyOp, ...]:
    """The move with the patch pairs of VMs that come to an empty node during the run, and their announcement."""
    node, to = args["node"], args["bridge"]
    home = args["from"] if args["from"] in view["bridges"] else to
    whole = view
    for lsp in lsps:
        if not ovs.bridges_of_port(whole, ovs.outer_port(lsp)):
            whole = ovs.with_patch(whole, home, ovs.outer_port(lsp), ovs.inner_port(lsp), lsp)
    homes = {lsp: ovs.bridges_of_port(whole, ovs.outer_port(lsp)) for lsp in lsps}
    move, *_ = move_ops(args, facts, whole, homes)
    announcement = Run(
        label="announce:latecomers",
        title=f"announce the VMs that have come to {node} by then out of {to}",
        node=node,
        argv=("ovs-ofctl", "packet-out", to, KNOWN_AFTER_APPLY),
        commands=(f"# announce each VM on {node}: one RARP per MAC and VLAN out of {to}",),
    )
    return (replace(move, label="move:otherwise"), announcement)


@routine("hot-remap@1", contingent=contingent)
def hot_remap(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Move a localnet to `args["bridge"]` under running VMs, or repair its patch pairs where they are."""
    view = before.readable(args, facts)
    if isinstance(view, Stop):
        return view
    if (wait := before.ovn_settle(args, facts, done)) is not None:
        return wait
    node, localnet, to = args["node"], args["localnet"], args["bridge"]
    astray = strays(facts, view, localnet, to)
    if ovs.parse_mappings(view["mapping"]).get(localnet) != to or astray:
        if "before" not in done.outcomes:
            return Perform((before.image(args, view, astray),))
        if done.has("move") and done.attempts.get("move", 0) >= MOVES:
            why = f"node/{node}/ovs/mapping/{localnet} was set back to {args['from']} after it was moved to {to}"
            return Stop(f"{why}: somebody else wants it otherwise", moved=True)
        return Perform(move_ops(args, facts, view, astray), unbroken=True)
    here = guests(facts, node, localnet)
    frames = [op for op in announcements(args, facts, view, here, done) if not done.has(op.label)]
    moved = "move" in done.outcomes or "policy" in done.outcomes
    if frames and moved and all(_is_up(view, ovs.outer_port(g.lsp)) for g in here):
        # The VMs' traffic first; whether every end is healthy is looked at with patience.
        return Perform(tuple(frames))
    if isinstance(datapath := facts.get(f"node/{node}/dp/*"), Unknown):
        why = f"cannot tell whether a stale port is left in the datapath of {node}: {datapath.why}"
        return Stop(why, unsure=True)
    if (mend := pairs.mend(node, to, facts, view, sorted({g.lsp for g in here}), done)) is not None:
        return mend
    if frames:
        return Perform(tuple(frames))
    many = len(set(here))
    told = f"; {many} attachment{'' if many == 1 else 's'} announced" if many else ""
    return Finished(f"{localnet} is on {to}{told}")


def _is_up(view: ovs.View, port: str) -> bool:
    """Whether a port is on one bridge and has its OpenFlow number."""
    homes = ovs.bridges_of_port(view, port)
    return len(homes) == 1 and isinstance(
        view["bridges"][homes[0]]["ports"][port]["interfaces"][0]["ofport"], int
    )


def strays(facts: Facts, view: ovs.View, localnet: str, to: str) -> dict[str, list[str]]:
    """Our outer ports that are not (only) where they belong: localnet switch port → the bridges that list it."""
    found = {}
    for lsp in switch_ports_of(facts, view, localnet):
        wrong = [b for b in ovs.bridges_of_port(view, ovs.outer_port(lsp)) if b != to]
        if wrong:
            found[lsp] = wrong
    return found


def move_ops(
    args: Mapping[str, Any], facts: Facts, view: ovs.View, astray: Mapping[str, list[str]]
) -> tuple[AnyOp, ...]:
    """The burst of the move: one guarded transaction, then the new outer ports, unless OVN was quicker.

    The port goes first and comes back in another transaction: vswitchd must not see one name change bridges (H46).
    """
    node, localnet, to = args["node"], args["localnet"], args["bridge"]
    text = ovs.set_pair(view["mapping"], localnet, to)
    operations = transactions.swap_mapping(view, text) if text != view["mapping"] else []
    commands = [ovs.pair_command(view["mapping"], localnet, to)] if text != view["mapping"] else []
    for lsp, homes in astray.items():
        for home in homes:
            operations += transactions.take_port(view, home, ovs.outer_port(lsp))
            commands.append(f"--if-exists del-port {home} {ovs.outer_port(lsp)}")
    after = ovs.without_ports(ovs.with_mapping(view, text), map(ovs.outer_port, astray))
    taken = f"take {', '.join(map(ovs.outer_port, astray))} away" if astray else ""
    mapped = f"map {localnet} to {to}" if text != view["mapping"] else ""
    move = Transact(
        label="move",
        title=" and ".join(filter(None, [mapped, taken])),
        node=node,
        operations=transactions.settled(view, operations),
        commands=(f"ovs-vsctl {' -- '.join(commands)}",),
        changes=ovs.changes(node, view, after),
    )
    burst: list[AnyOp] = [move]
    for lsp in sorted({*astray, *(g.lsp for g in guests(facts, node, localnet))}):
        op, after = pairs.insert(node, after, lsp, ovs.outer_port(lsp), to, ovs.inner_port(lsp))
        burst.append(op)
    return (*burst, pairs.look_again(node, after, 0))


def announcements(
    args: Mapping[str, Any], facts: Facts, view: ovs.View, here: list[Guest], done: Done
) -> list[AnyOp]:
    """One RARP per MAC and VLAN: the VMs' own, and what the old patch ports had learned lately (nested, VRRP).

    Never the MAC of a VM that runs elsewhere: the old table remembers VMs that have left, and announcing one of them
    here would take its traffic away from where it is now.
    """
    node, to = args["node"], args["bridge"]
    owners = {(g.mac, g.vlan): (ovs.outer_port(g.lsp), g.vm) for g in here if g.mac}
    ports = {ovs.outer_port(g.lsp) for g in here}
    for path, entries in done.results.get("before", {}).items():
        if path.startswith(f"node/{node}/fdb/") and path.endswith("/ages"):
            for port, vlan, mac, age in entries or ():
                if port in ports and age <= LEARNED_LATELY and mac not in _known_macs(facts):
                    owners.setdefault((mac, vlan), (port, "learned on the old port"))
    return [
        announce(node, view, to, port, mac, vlan, whose)
        for (mac, vlan), (port, whose) in sorted(owners.items())
    ]


def _known_macs(facts: Facts) -> set[str]:
    """The MACs of every VM of the cluster."""
    vms = (facts.value(f"vm/{vm}") or {} for vm in facts.value("cluster/vms", []))
    return {attached["mac"] for vm in vms for attached in vm.get("macs", ())}
