"""The MTU of the NICs under a network's bridge: raised to what the network asks for.

The one invariant: no NIC's MTU is ever lowered, but to undo that it was raised. Success is the MTU that vswitchd reports,
never the one that was asked for: a card may refuse (H30).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from plans import ovs, transactions
from plans.actions import Action, Done, Finished, Invocation, Next, Perform, Stop, routine
from plans.changes import Change, Context, Fragment, Kind, Outcome, Same
from plans.checks import Check
from plans.desired import Desired, VMNetwork
from plans.facts import Facts, Known
from plans.guests import guests
from plans.kinds import new_bridge
from plans.nmstate import documents, enactments, enforcing
from plans.ops import AnyOp, Record, Transact, Wait
from plans.selection import applies_to

RAISED_DEADLINE = 10.0
"""Seconds for a card to take an MTU, and for vswitchd to report it."""

TRIES = 3


def address(node: str, bridge: str) -> str:
    """The address of the MTU of the NICs under a bridge of a node."""
    return f"node/{node}/mtu/{bridge}"


def diff(desired: Desired, node: str, facts: Facts) -> list[Outcome]:
    """Every bridge of a node for which a network gives an MTU, once: the greatest that any of them asks for."""
    asking: dict[str, list[VMNetwork]] = {}
    for network in desired.networks:
        if network.spec.mtu is not None and applies_to(network, node, facts):
            asking.setdefault(network.bridge, []).append(network)
    found = (_diff_one(desired, b, networks, node, facts) for b, networks in sorted(asking.items()))
    return [outcome for outcome in found if outcome is not None]


def _diff_one(
    desired: Desired, bridge: str, networks: list[VMNetwork], node: str, facts: Facts
) -> Outcome | None:
    where, mtu = address(node, bridge), max(n.spec.mtu or 0 for n in networks)
    coming = new_bridge.missing(desired, node, bridge, facts)
    have = _present(facts.value(f"node/{node}/ovs"), bridge, coming, facts.value(f"node/{node}/nics") or {})
    if not have:
        return None
    # Of a port that comes with the bridge the MTU may be known only when it is there; its step decides then.
    small = {nic: now for nic, now in have.items() if (nic in coming if now is None else now < mtu)}
    if not small:
        untold = [nic for nic, now in have.items() if now is None]
        return Same(where, node, f"cannot tell the MTU of {', '.join(untold)}" if untold else "")
    names = " and ".join(f"VMNetwork {n.name}" for n in networks if n.spec.mtu == mtu)
    return Change(
        address=where, kind="mtu", node=node, verb="~",
        before=", ".join(f"{nic} {now or '(known when it is on the bridge)'}" for nic, now in small.items()),
        after=str(mtu), why=f"{names} asks for it; raising it may take the link of each down for a moment",
        depends=(new_bridge.address(node, bridge),) if coming else (),
        data={"bridge": bridge, "mtu": mtu, "nics": small}, bridge=bridge, localnets=tuple(n.name for n in networks),
        nics=tuple(small),
    )  # fmt: skip


def _present(
    view: ovs.View, bridge: str, coming: list[str], nics: Mapping[str, Any]
) -> dict[str, int | None]:
    """The NICs that are, or will be, under a bridge, and the MTU of each as far as it is told."""
    found = {str(nic["name"]): nic.get("mtu") for port in ovs.uplinks(view, bridge).values() for nic in port}
    found |= {port: nics.get(port, {}).get("mtu") for port in coming}
    return dict(sorted(found.items()))


def first(desired: Desired, node: str, bridge: str, facts: Facts) -> tuple[str, ...]:
    """The addresses of what has to be done before a localnet is mapped to a bridge: its making, and its MTU."""
    made = new_bridge.missing(desired, node, bridge, facts)
    raised = [o.address for o in diff(desired, node, facts) if isinstance(o, Change) and o.bridge == bridge]
    return (*([new_bridge.address(node, bridge)] if made else []), *raised)


def ovsdb(change: Change, context: Context) -> Action:
    """The fragment for delivery by OVSDB: vswitchd is asked for the MTU, and sets it on the card."""
    node, mtu, before = change.node, change.data["mtu"], change.data["nics"]
    view = context.facts.value(f"node/{node}/ovs")
    reads = (f"ovs:{node}",)
    args = {
        "node": node, "bridge": change.bridge, "mtus": dict.fromkeys(before, mtu), "lower": False,
        "requests": {nic: found.get("mtu_request") if (found := _nic(view, nic)) else None for nic in before},
    }  # fmt: skip
    known = {nic: now for nic, now in before.items() if now is not None}
    inverse = {**args, "mtus": known, "lower": True, "requests": dict.fromkeys(known, mtu)}
    affected = _riders(change, context)
    return Action(
        id=f"{node}/mtu/{change.bridge}",
        routine="set-mtu@1",
        title=f"raise the MTU of {', '.join(before)} under {change.bridge} to {mtu}",
        address=change.address,
        node=node,
        args=args,
        reads=reads,
        done_when=verify(change, context),
        undo=(Invocation("set-mtu@1", inverse, reads),) if known else (),
        no_undo="" if known else f"which MTU {', '.join(before)} had is not known before",
        disruption="vm-traffic" if affected else "none",
        vms=affected,
    )


def _riders(change: Change, context: Context) -> tuple[str, ...]:
    """The VMs whose traffic is on the bridge already, and notice that a link goes down."""
    mapped = context.facts.value(f"node/{change.node}/ovs/mappings") or {}
    found = {
        guest.vm
        for localnet, home in mapped.items()
        if home == change.bridge
        for guest in guests(context.facts, change.node, localnet)
    }
    return tuple(sorted(found - context.away))


def nncp(change: Change, context: Context) -> Action:
    """The fragment for delivery by a policy: NetworkManager sets the MTU, and keeps it over a restart."""
    made, node = ovsdb(change, context), change.node
    network = next(n for n in context.desired.networks if n.name in change.localnets)
    nics = context.facts.value(f"node/{node}/nics") or {}
    types = {nic: str(nics[nic]["type"]) for nic in change.nics}

    def with_document(args: Mapping[str, Any]) -> dict[str, Any]:
        return {**args, **way, "document": documents.with_mtu(types, args["mtus"])}

    way = enforcing.way(network, node, context.facts, "done")
    args = with_document(made.args)
    reads = (*made.reads, *enforcing.views(node, args))
    return replace(
        made,
        routine="policy-mtu@1",
        title=f"{made.title}, by a policy",
        args=args,
        reads=reads,
        undo=tuple(Invocation("policy-mtu@1", with_document(i.args), reads) for i in made.undo),
        deadline=enactments.SEEN_DEADLINE + enactments.APPLY_DEADLINE + enactments.EDIT_DEADLINE,
    )


def preflight(change: Change, facts: Facts) -> tuple[Check, ...]:
    """Nothing of its own: the MTU is looked at when its turn comes."""
    return ()


def verify(change: Change, context: Context) -> tuple[Check, ...]:
    """Each card has taken the MTU."""
    why = "H30: a card that stays below drops what VMs send"
    return tuple(
        Check(f"node/{change.node}/ovs/mtu/{nic}", "min", change.data["mtu"], why) for nic in change.nics
    )


FRAGMENTS: dict[str, Fragment] = {"ovsdb": ovsdb, "nncp": nncp}


def views(desired: Desired, node: str) -> tuple[str, ...]:
    """What nmstate sees of the node's NICs, where the files have something to do with them."""
    return (f"nics:{node}",) if any(n.spec.mtu for n in desired.networks) else ()


KIND = Kind("mtu", FRAGMENTS, diff, preflight, verify, views)


# The steps.


def _view(args: Mapping[str, Any], facts: Facts) -> ovs.View | Stop:
    fact = facts.get(f"node/{args['node']}/ovs")
    if not isinstance(fact, Known):
        return Stop(f"cannot read the switch of {args['node']}: {fact}", unsure=True)
    view: ovs.View = fact.value
    if gone := [nic for nic in args["mtus"] if _nic(view, nic) is None]:
        return Stop(f"{', '.join(gone)} of {args['node']} is under no bridge any more", moved=True)
    return view


def _nic(view: ovs.View, name: str) -> Mapping[str, Any] | None:
    """The interface of that name, whichever bridge has it."""
    interfaces = (
        i for row in view["bridges"].values() for port in row["ports"].values() for i in port["interfaces"]
    )
    return next((i for i in interfaces if i["name"] == name), None)


def _wrong(args: Mapping[str, Any], view: ovs.View) -> dict[str, int | None]:
    """The cards that do not have the MTU yet, and what they have."""
    found = {}
    for nic, mtu in args["mtus"].items():
        have = (_nic(view, nic) or {}).get("mtu")
        if have != mtu if args["lower"] or have is None else have < mtu:
            found[nic] = have
    return found


def _settled(args: Mapping[str, Any], view: ovs.View, done: Done, label: str) -> Next | None:
    """A wait for the cards, then why they did not take the MTU; None when they have it. `label`: the op that asked."""
    wrong = _wrong(args, view)
    if not wrong:
        return None
    node = args["node"]
    if done.attempts.get("taken", 0) < max(1, done.attempts.get(label, 0)):
        test = "eq" if args["lower"] else "min"
        checks = tuple(Check(f"node/{node}/ovs/mtu/{n}", test, args["mtus"][n]) for n in wrong)  # type: ignore[arg-type]
        title = f"{', '.join(wrong)} with the MTU"
        after = ovs.changes(node, view, ovs.with_mtus(view, args["mtus"], asked=False))
        return Perform(
            (Wait(label="taken", title=title, checks=checks, deadline=RAISED_DEADLINE, changes=after),)
        )
    said = "; ".join(f"{nic} stays at {now or 'an unknown MTU'}" for nic, now in wrong.items())
    wanted = ", ".join(sorted({str(args["mtus"][nic]) for nic in wrong}))
    return Stop(
        f"{said} on {node}, although {wanted} was asked for: the card or its driver refuses it (H30). Lower `mtu`"
    )


def _record(args: Mapping[str, Any]) -> Perform:
    node = args["node"]
    return Perform((Record(label="before", title=f"record the switch of {node}", views=(f"ovs:{node}",)),))


def _ask(label: str, args: Mapping[str, Any], view: ovs.View, mtus: Mapping[str, int | None]) -> Transact:
    node = args["node"]
    operations = []
    for nic, mtu in mtus.items():
        operations += transactions.request_mtu(nic, (_nic(view, nic) or {}).get("mtu_request"), mtu)
    words = [
        f"set Interface {n} mtu_request={m}" if m else f"clear Interface {n} mtu_request"
        for n, m in mtus.items()
    ]
    asked = {nic: mtu for nic, mtu in mtus.items() if mtu is not None}
    return Transact(
        label=label,
        title="ask for "
        + ", ".join(f"{f'MTU {mtu}' if mtu else 'no MTU'} on {nic}" for nic, mtu in mtus.items()),
        node=node,
        operations=transactions.settled(view, operations),
        commands=(f"ovs-vsctl {' -- '.join(words)}",),
        changes=ovs.changes(node, view, ovs.with_mtus(view, asked)),
    )


def _back(args: Mapping[str, Any], view: ovs.View) -> Transact:
    return _ask("unask", args, view, args["requests"])


def _back_ops(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    view = facts.value(f"node/{args['node']}/ovs")
    return (_back(args, ovs.with_mtus(view, args["mtus"])),)


def _rescue(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """After a failure: vswitchd does not go on asking a card for what it refuses."""
    view = _view(args, facts)
    if isinstance(view, Stop):
        return view
    asked = done.outcomes.get("ask") in ("done", "doubt")
    standing = [n for n, m in args["mtus"].items() if (_nic(view, n) or {}).get("mtu_request") == m]
    if not asked or not standing or done.attempts.get("unask", 0) >= TRIES:
        return Finished()
    return Perform((_back(args, view),))


@routine("set-mtu@1", rescue=_rescue, on_failure=_back_ops)
def set_mtu(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Have vswitchd set the MTU of cards, and see that they have taken it."""
    view = _view(args, facts)
    if isinstance(view, Stop):
        return view
    wrong = _wrong(args, view)
    unasked = {
        n: m for n, m in args["mtus"].items() if n in wrong and (_nic(view, n) or {}).get("mtu_request") != m
    }
    if unasked:
        if "before" not in done.outcomes:
            return _record(args)
        if done.has("ask") and done.attempts.get("ask", 0) >= TRIES:
            return Stop(
                f"the MTU of {', '.join(unasked)} is set back: somebody else wants another", moved=True
            )
        return Perform((_ask("ask", args, view, unasked),))
    return _settled(args, view, done, "ask") or Finished(_told(args))


def _told(args: Mapping[str, Any]) -> str:
    return ", ".join(f"{nic} has MTU {mtu}" for nic, mtu in args["mtus"].items())


def _rescue_policy(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """After a failure: no policy is left trying; nmstate itself rolls back what it could not do."""
    node, name = args["node"], args["policy"]
    if not enforcing.in_force(args, facts) or done.outcomes.get("policy") not in ("done", "first", "doubt"):
        if done.attempts.get("withdrawn", 0) < done.attempts.get("withdraw", 0):
            return Perform((enactments.await_ended("withdrawn", node, name),))
        return Finished()
    if done.attempts.get("withdraw", 0) >= TRIES:
        return Stop(f"policy {name} comes back after it was taken away: somebody else wants it")
    return Perform(enforcing.withdraw(args, facts))


@routine("policy-mtu@1", rescue=_rescue_policy, on_failure=enforcing.withdraw)
def policy_mtu(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Let nmstate set the MTU of cards, and see that they have taken it."""
    view = _view(args, facts)
    if isinstance(view, Stop):
        return view
    after = ovs.with_mtus(view, args["mtus"], asked=False)
    if (ahead := enforcing.enforced(args, facts, done, ovs.changes(args["node"], view, after))) is not None:
        return ahead
    return _settled(args, view, done, "policy") or Finished(_told(args))
