"""The cold remap, and the end of a mapping: on a node whose VMs have left, both ends of each pair go with it.

Invariant: nothing is inserted. What a VM needs that comes later, ovn-controller makes on the bridge that is mapped by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from plans import ovs, transactions
from plans.actions import Done, Finished, Next, Perform, Stop, routine
from plans.facts import Facts, Known, Unknown, show
from plans.guests import switch_ports_of
from plans.ops import AnyOp, Transact
from plans.remap import before

TAKE_DOWNS = 10


def _contingent(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    """The same transaction for the other case: with the patch pairs that VMs of other nodes left when they passed
    through during the run, or without those that ovn-controller has taken away by then (H51).
    """
    node, localnet = args["node"], args["localnet"]
    view = facts.value(f"node/{node}/ovs")
    lsps = list(switch_ports_of(facts, view, localnet))
    names = [name for lsp in lsps for name in (ovs.outer_port(lsp), ovs.inner_port(lsp))]
    other = ovs.without_ports(view, names)
    if not any(ovs.bridges_of_port(view, name) for name in names):
        home = args["from"] if args["from"] in view["bridges"] else args["bridge"]
        for lsp in lsps:
            other = ovs.with_patch(other, home, ovs.outer_port(lsp), ovs.inner_port(lsp), lsp)
            other = ovs.with_patch(
                other, ovs.INTEGRATION_BRIDGE, ovs.inner_port(lsp), ovs.outer_port(lsp), lsp
            )
    text = ovs.set_pair(view["mapping"], localnet, args["bridge"])
    move = take_down(args, other, lsps, text, transactions.swap_mapping(view, text))
    return (replace(move, label="move:otherwise"),)


@routine("cold-remap@1", contingent=_contingent)
def cold_remap(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Move a localnet on a node that its VMs have left: both ends of each pair go, nothing is inserted."""
    view = before.readable(args, facts)
    if isinstance(view, Stop):
        return view
    node, localnet, to = args["node"], args["localnet"], args["bridge"]
    if (stay := before.still_here(args, facts)) is not None:
        return stay
    if (wait := before.ovn_settle(args, facts, done)) is not None:
        return wait
    lsps = list(switch_ports_of(facts, view, localnet))
    text = ovs.set_pair(view["mapping"], localnet, to)
    homes = {lsp: ovs.bridges_of_port(view, ovs.outer_port(lsp)) for lsp in lsps}
    halves = [lsp for lsp in lsps if bool(homes[lsp]) != bool(ovs.bridges_of_port(view, ovs.inner_port(lsp)))]
    strays = [lsp for lsp in lsps if homes[lsp] not in ([], [to])]
    if text == view["mapping"] and not halves and not strays:
        return Finished(f"{localnet} is mapped to {to}; nothing rides on it yet")
    if "before" not in done.outcomes:
        return Perform((replace(before.image(args, view, {}), again_after=0.0),))
    if done.attempts.get("move", 0) > TAKE_DOWNS:
        return Stop(
            f"ovn-controller on {node} keeps bringing back a part of the pair of {', '.join([*halves, *strays])}"
        )
    return Perform((take_down(args, view, lsps, text, transactions.swap_mapping(view, text)),))


@routine("unmap@1")
def unmap(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Remove our pair and its patch ports: the inverse of mapping a localnet that was mapped nowhere."""
    node, localnet = args["node"], args["localnet"]
    fact = facts.get(f"node/{node}/ovs/mapping/{localnet}")
    if isinstance(fact, Unknown):
        return Stop(f"cannot tell node/{node}/ovs/mapping/{localnet}: {fact.why}")
    if not isinstance(fact, Known):
        return Finished(f"{localnet} is mapped nowhere")
    if fact.value != args["from"]:
        return Stop(
            f"node/{node}/ovs/mapping/{localnet}: expected {args['from']}, found {show(fact)}", moved=True
        )
    view = facts.value(f"node/{node}/ovs")
    text = ovs.drop_pair(view["mapping"], localnet)
    operations = transactions.swap_mapping(view, text) if text else transactions.drop_mapping_key(view)
    return Perform(
        (take_down(args, view, list(switch_ports_of(facts, view, localnet)), text or None, operations),)
    )


def take_down(
    args: Mapping[str, Any], view: ovs.View, lsps: list[str], text: str | None, operations: list[Any]
) -> Transact:
    """The mapping changed, and both ends of each pair taken away, in one guarded transaction."""
    node, localnet, to = args["node"], args["localnet"], args["bridge"]
    names = [name for lsp in lsps for name in (ovs.outer_port(lsp), ovs.inner_port(lsp))]
    # A person may find ports that the plan did not see: they are named all the same.
    commands = [
        ovs.pair_command(view["mapping"], localnet, to),
        *(f"--if-exists del-port {name}" for name in names),
    ]
    taken = []
    for name in names:
        for home in ovs.bridges_of_port(view, name):
            operations = [*operations, *transactions.take_port(view, home, name)]
            taken.append(name)
    after = ovs.without_ports(ovs.with_mapping(view, text), names)
    return Transact(
        label="move",
        title=(f"map {localnet} to {to}" if to else f"unmap {localnet}")
        + (f" and take {', '.join(taken)} away" if taken else ""),
        node=node,
        operations=transactions.settled(view, operations),
        commands=(f"ovs-vsctl {' -- '.join(commands)}",),
        changes=ovs.changes(node, view, after),
    )
