"""Proof: VM traffic seen on the new path.

Hot: the forwarding table of the new bridge has each talking VM's MAC and VLAN on OVN's patch port. Talking means
heard on the old port again and again in the seconds before the move; a silent VM is "cannot tell", never a failure. Cold: nothing
rode on the node when it changed, so the first VM that returns, pinned to the node, gives the same evidence. When it
does not, it is moved out again, the node is cordoned, and the line stops. Where guest agents can be asked, a ping from
inside comes on top (`pings`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from plans import ovs
from plans.actions import Action, Done, Finished, Next, Perform, Stop, routine
from plans.checks import Check, Holds, judge
from plans.facts import Absent, Facts, Known, Unknown
from plans.guests import Guest, guests, networks_of
from plans.maintenance import pings
from plans.maintenance.cordon import cordon_op, uncordon_op
from plans.maintenance.migrations import MIGRATION_DEADLINE, VIEWS, Move, migrate
from plans.ops import AnyOp, Record, Wait
from plans.readings.node import LISTEN

LOOKS = 20
"""How many times to listen for a VM that talked before the move, before its path is taken for broken."""

HEARD_DEADLINE = 60.0
"""Seconds for the VM that returned first to be heard."""

AGED = 2
"""Seconds by which an entry must have aged between the two looks to be taken for silent (ages are whole seconds)."""

LATELY = 5
"""Seconds since a VM that talks was last heard. One that says something more rarely can't be told from OVN, which goes
on announcing every VM once after 1, 2, 4, 8 and 16 s."""

_UNTOLD = re.compile(r"cannot tell \((?:silent|not back yet)\): ([^;]+)")

Bridges = Mapping[str, str]
"""localnet → the bridge that it is proven on."""


def hot(
    node: str,
    bridges: Bridges,
    remaps: Mapping[str, str],
    asked: Sequence[pings.Ping] = (),
    returning: Sequence[str] = (),
) -> Action:
    """See every VM on the node that talks. `remaps`: localnet → the action that moved it; `returning`: who is back later."""
    tables = tuple(f"fdb:{node}:{bridge}" for bridge in sorted(set(bridges.values())))
    return Action(
        id=f"{node}/prove",
        routine="prove@1",
        title=f"VM traffic of {', '.join(sorted(bridges))} seen on {', '.join(sorted(set(bridges.values())))}",
        node=node,
        args={
            "node": node, "bridges": dict(bridges), "remaps": dict(remaps), **pings.args_of(asked),
            **({"vms": list(returning)} if returning else {}),
        },
        uses=(*sorted(remaps.values()), *pings.uses_of(node, asked)),
        reads=(f"ovs:{node}", *tables, f"vms:{node}", "networks", *pings.reads_of(node, asked)),
        no_undo="it changes nothing",
        rows=(11,),
    )  # fmt: skip


def first_return(node: str, bridges: Bridges, vms: Sequence[str], asked: Sequence[pings.Ping] = ()) -> Action:
    """Bring one VM back, pinned to the node, and see it."""
    tables = tuple(f"fdb:{node}:{bridge}" for bridge in sorted(set(bridges.values())))
    return Action(
        id=f"{node}/prove",
        routine="prove-by-return@1",
        title=f"{vms[0]} returns first, pinned to {node}, and is seen on {', '.join(sorted(set(bridges.values())))}",
        node=node,
        args={"node": node, "bridges": dict(bridges), "vms": list(vms), **pings.args_of(asked)},
        uses=pings.uses_of(node, asked),
        reads=(f"ovs:{node}", *tables, *VIEWS, *pings.reads_of(node, asked)),
        no_undo="its VM was at home here",
        vms=(vms[0],),
        deadline=MIGRATION_DEADLINE * 2,
        rows=(11,),
    )


def _entry(guest: Guest) -> list[Any]:
    return [ovs.outer_port(guest.lsp), guest.vlan, guest.mac]


def _seen(node: str, bridge: str, guest: Guest) -> Check:
    return Check(f"node/{node}/fdb/{bridge}", "has", [_entry(guest)], f"{guest.vm} is heard on its new port")


def _here(args: Mapping[str, Any], facts: Facts) -> list[tuple[str, Guest]]:
    """The attachments on the node, each with the bridge that its localnet should ride on."""
    node = args["node"]
    return [
        (bridge, g)
        for localnet, bridge in sorted(args["bridges"].items())
        for g in guests(facts, node, localnet)
        if g.mac
    ]


def _talks(guest: Guest, records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a guest was heard by its patch port again and again, in any of some records of two looks each.

    An entry that nobody refreshed has aged by the time between the looks. Once heard is not talking: that may have
    been an announcement, OVN's, QEMU's or our own; so it is to have been heard lately before the first look too.
    """
    return any(
        _was_refreshed(_entry(guest), record.get(f"{path}@first"), entries)
        for record in records
        for path, entries in record.items()
        if path.endswith("/ages")
    )


def _was_refreshed(
    entry: list[Any], first: Sequence[list[Any]] | None, second: Sequence[list[Any]] | None
) -> bool:
    ages = [[row[3] for row in rows or () if row[:3] == entry] for rows in (first, second)]
    return bool(ages[0] and ages[1]) and ages[0][0] <= LATELY and ages[1][0] < ages[0][0] + AGED


@routine("prove@1")
def step_prove(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Every VM that talked before the move talks after it, by its new port."""
    node = args["node"]
    here = _here(args, facts)
    if not here:
        return Finished(f"no VM of {', '.join(sorted(args['bridges']))} is on {node}: nothing to see")
    before = [done.used.get(action, {}).get("before", {}) for action in args["remaps"].values()]
    looks = [label for label in done.attempts if label.startswith("listen:")]
    since = [done.results[label] for label in looks if label in done.results]
    talking = [g for _, g in here if _talks(g, before)]
    seen = [g for _, g in here if _talks(g, since)]
    missed = [g for g in talking if g not in seen]
    if not looks or (missed and len(looks) < LOOKS):
        return Perform((_listen(args, here, len(looks) + 1),))
    health = {g.lsp: facts.value(f"node/{node}/ovs/patch/{g.lsp}/health", "unknown") for _, g in here}
    sick = sorted(h for h in set(health.values()) if h != "healthy")
    if missed or sick:
        lost = [
            f"{g.vm} ({g.mac}, VLAN {g.vlan}) talked before the move and is not heard now" for g in missed
        ]
        return Stop("; ".join([*sorted(set(lost)), *sick]))
    told = pings.ask_again(
        [p for p in args.get("pings", ()) if p["vm"] in {g.vm for _, g in here}], args, facts, done
    )
    if isinstance(told, Perform):
        return told
    if told.lost:
        return Stop(told.why_lost)
    heard = sorted({g.vm for g in seen})
    silent = {(g.vm, g.nad) for _, g in here} - {(g.vm, g.nad) for g in seen} - told.proven
    note = f"seen: {', '.join(heard) or 'none'}"
    late = _in_other_networks(args, facts, {g.nad for _, g in here})
    told_of = [note, _untold("silent", silent), _untold("not back yet", late), str(told)]
    return Finished("; ".join(filter(None, told_of)), proven=True if heard or told.answered else None)


def _untold(why: str, attachments: Iterable[tuple[str, str]]) -> str:
    """The VMs that a proof says nothing of, each with its network; empty for none. `untold_in` finds them again."""
    named = ", ".join(f"{vm} in {nad}" for vm, nad in sorted(attachments))
    return f"cannot tell ({why}): {named}" if named else ""


def untold_in(note: str) -> list[tuple[str, str]]:
    """The VMs, each with its network, that the note of a proof names as those of which it says nothing."""
    named = (one for part in _UNTOLD.findall(note) for one in part.split(", "))
    return [(vm, nad) for vm, _, nad in (one.partition(" in ") for one in named)]


def _listen(args: Mapping[str, Any], here: Sequence[tuple[str, Guest]], look: int) -> Record:
    """Two looks at who is heard on the new ports; predicted to hear everybody."""
    node = args["node"]
    tables: dict[str, list[Any]] = {}
    for bridge, guest in here:
        tables.setdefault(bridge, []).append([*_entry(guest), 0])
    return Record(
        label=f"listen:{look}",
        title=f"listen for {', '.join(sorted({g.vm for _, g in here}))} on {', '.join(sorted(tables))}",
        views=tuple(f"fdb:{node}:{bridge}" for bridge in sorted(tables)),
        again_after=LISTEN,
        changes=tuple(
            (f"node/{node}/fdb/{bridge}/ages", Known(rows)) for bridge, rows in sorted(tables.items())
        ),
    )


def rescue_return(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """The path is not there: cordon the node, and move the VM out of the dark again."""
    node, vm = args["node"], _first(args, facts)
    if facts.value(f"node/{node}/unschedulable") is False:
        return Perform((cordon_op(node, done.run, facts),))
    if vm is None:
        return Finished()
    return migrate([Move(vm, "rescue", away_from=node)], facts, done) or Finished(
        f"{vm} moved out again; {node} is cordoned"
    )


def _first(args: Mapping[str, Any], facts: Facts) -> str | None:
    """The first VM of the list that still runs."""
    return next((vm for vm in args["vms"] if not isinstance(facts.get(f"vm/{vm}/node"), Absent)), None)


def _in_other_networks(
    args: Mapping[str, Any], facts: Facts, proven: Collection[str]
) -> set[tuple[str, str]]:
    """The VMs that return later, each with a network of the localnets in which none was there to be heard."""
    open_to = {nad for net in args["bridges"] for nad in networks_of(facts, net)} - {*proven}
    found = {vm: (facts.value(f"vm/{vm}") or {}).get("macs", ()) for vm in args.get("vms", ())}
    return {(vm, card["nad"]) for vm, cards in found.items() for card in cards if card["nad"] in open_to}


def _again(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    """What a second try does first: take back the cordon with which the first one ended."""
    return (uncordon_op(args["node"], facts),)


def _contingent(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    """Besides: another VM is the first, as the one that should be runs no more."""
    return (*_again(args, facts), *pings.of_others(args, args["vms"][0], facts))


@routine("prove-by-return@1", rescue=rescue_return, contingent=_contingent)
def step_first_return(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """One VM back, and heard on the new path."""
    node = args["node"]
    if isinstance(cordoned := facts.get(f"node/{node}/unschedulable"), Unknown):
        return Stop(f"cannot tell whether {node} is cordoned: {cordoned.why}", unsure=True)
    if cordoned == Known(True):
        if facts.value(f"node/{node}/cordoned-by") == done.run:
            return Perform(_again(args, facts))
        return Finished(f"not proven: {node} is cordoned by somebody else, so no VM can return to it")
    vm = _first(args, facts)
    if vm is None:
        return Finished("not proven: none of the VMs that left still runs")
    if (ahead := migrate([Move(vm, "return", to=node)], facts, done)) is not None:
        return ahead
    mine = [(bridge, g) for bridge, g in _here(args, facts) if g.vm == vm]
    checks = [_seen(node, bridge, g) for bridge, g in mine]
    checks += [Check(f"node/{node}/ovs/patch/{g.lsp}/health", "eq", "healthy") for _, g in mine]
    missed = [verdict for check in checks if not isinstance(verdict := judge(check, facts), Holds)]
    if not missed:
        told = pings.ask_again([p for p in args.get("pings", ()) if p["vm"] == vm], args, facts, done)
        if isinstance(told, Perform):
            return told
        if told.lost:
            return Stop(f"{vm} returned, and {told.why_lost}")
        others = _in_other_networks(args, facts, {g.nad for _, g in mine})
        note = [f"seen: {vm}", _untold("not back yet", others), str(told)]
        return Finished("; ".join(filter(None, note)), proven=True)
    if "heard" not in done.outcomes:
        return Perform(
            (
                Wait(
                    label="heard",
                    title=f"traffic of {vm} on the new path",
                    checks=tuple(checks),
                    deadline=HEARD_DEADLINE,
                ),
            )
        )
    return Stop(f"{vm} returned and is not heard: " + "; ".join(str(m) for m in missed))
