"""Bridge mappings: which bridge of a node a localnet rides on, and the OVN patch ports that make it true.

The one invariant: the mapping alone is never taken for the path. A mapping that reads right while a VM's patch pair
is missing, broken or on another bridge is a change to make (a repair), not "no changes".

Hot and cold are two procedures. Hot, with VMs there: one guarded transaction moves the mapping and takes the old
patch port away, `cur_cfg` is awaited, the new port is inserted if ovn-controller has not done so, both ends are
checked, and every MAC is announced. Cold, with no VM there: ovn-controller may keep the old pair until it
recomputes, so one transaction takes both ends away and inserts nothing. Sources: measured, docs/ovs-facts.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from plans import ovs, pairs, transactions
from plans.actions import Action, Done, Finished, Invocation, Next, Perform, Stop, routine
from plans.announce import announce
from plans.changes import Blocked, Change, Context, Fragment, Kind, Outcome, Same, Traffic
from plans.checks import Check
from plans.desired import Desired, VMNetwork
from plans.facts import KNOWN_AFTER_APPLY, Facts, Known, Unknown, show
from plans.guests import Guest, guests, switch_ports_of, unclear_attachments
from plans.kinds import mtu, new_bridge
from plans.nmstate import documents, policies
from plans.nmstate.ownership import made_by_network_manager
from plans.ops import AnyOp, Record, Run, Transact, Wait
from plans.readings.node import LISTEN
from plans.selection import applies_to

OVN_SETTLE = 15
"""Seconds that ovn-controller must be up: in its first ~10 s it deletes no patch port (H45)."""

LEARNED_LATELY = 60
"""Seconds: a MAC of no known VM that was heard on the old port this lately is announced with the VMs'."""

MOVES = 3
"""How often a localnet is moved before it is taken that somebody else moves it back."""

TAKE_DOWNS = 10


def address(node: str, localnet: str) -> str:
    """The address of a bridge mapping."""
    return f"node/{node}/mapping/{localnet}"


def diff(desired: Desired, node: str, facts: Facts) -> list[Outcome]:
    """Every declared mapping of a node against what is there."""
    outcomes = []
    for network in desired.networks:
        if applies_to(network, node, facts):
            outcome = _diff_one(network, node, facts)
            if isinstance(outcome, Change):
                before = mtu.first(desired, node, network.bridge, facts)
                made = bool(new_bridge.missing(desired, node, network.bridge, facts))
                outcome = replace(outcome, depends=before, data={**outcome.data, "made": made})
            outcomes.append(outcome)
    return outcomes


def _diff_one(network: VMNetwork, node: str, facts: Facts) -> Outcome:
    where, bridge = address(node, network.name), network.bridge
    fact = facts.get(f"node/{node}/ovs/mapping/{network.name}")
    if isinstance(fact, Unknown):
        return Blocked(where, node, (fact.why,))
    if unclear := unclear_attachments(facts, node):
        return Blocked(where, node, tuple(unclear))
    view = facts.value(f"node/{node}/ovs")
    current = fact.value if isinstance(fact, Known) else None
    withdrawn = (
        []
        if policies.is_labelled(network) or network.spec.replaces is None
        else list(network.spec.replaces.policies)
    )
    data = {"localnet": network.name, "bridge": bridge, "from": current, "withdrawn": withdrawn}
    if current != bridge:
        why = (
            f"localnet {network.name} rides on {current}"
            if current
            else f"localnet {network.name} is mapped to no bridge"
        )
        return Change(
            address=where, kind="mapping", node=node, verb="~" if current else "+", before=current or "absent", after=bridge,
            why=why, data=data, bridge=bridge, localnets=(network.name,), traffic=Traffic(network.name, current, bridge, _darkness(view, current)),
        )  # fmt: skip
    wrong = _wrong_pairs(facts, view, node, network.name, bridge)
    if wrong:
        dark = "" if any(_rides(view, lsp) for lsp in wrong) else "the path is broken"
        return Change(
            address=where, kind="mapping", node=node, verb="~", before="; ".join(wrong.values()), after="healthy",
            why="the mapping is right, but the path is not", data=data, bridge=bridge, localnets=(network.name,),
            traffic=Traffic(network.name, current, bridge, dark),
        )  # fmt: skip
    return Same(where, node)


def _darkness(view: ovs.View, bridge: str | None) -> str:
    """Why the VMs behind a bridge have no network now; empty when they may have one."""
    if bridge is None:
        return "the localnet is mapped to no bridge"
    if bridge not in view["bridges"]:
        return f"{bridge} does not exist"
    return "" if ovs.live_uplinks(view, bridge) else f"{bridge} has no uplink: its VMs are dark now"


def _rides(view: ovs.View, lsp: str) -> bool:
    """Whether a pair carries traffic now, be it by a bridge where it should not be (H45)."""
    homes = ovs.bridges_of_port(view, ovs.outer_port(lsp))
    return ovs.pair_health(view, lsp) == "healthy" and any(ovs.live_uplinks(view, home) for home in homes)


def _wrong_pairs(facts: Facts, view: ovs.View, node: str, localnet: str, bridge: str) -> dict[str, str]:
    """What is wrong with each patch pair of a localnet that is mapped as desired. Empty: nothing is.

    A network without a VM here needs no pair: its absence, or a leftover of it, is no fault (H51).
    """
    needed = {guest.lsp for guest in guests(facts, node, localnet)}
    wrong = {}
    for lsp in switch_ports_of(facts, view, localnet):
        homes = ovs.bridges_of_port(view, ovs.outer_port(lsp))
        if homes and homes != [bridge]:
            wrong[lsp] = f"broken: port {ovs.outer_port(lsp)} is on {' and '.join(homes)}, not on {bridge}"
        elif lsp in needed and (health := pairs.health(facts, view, node, lsp)) != "healthy":
            wrong[lsp] = health
    return wrong


def ovsdb(change: Change, context: Context) -> Action:
    """The fragment for delivery by OVSDB: a hot or a cold remap."""
    node, data = change.node, change.data
    localnet, to, old = data["localnet"], data["bridge"], data["from"]
    cold = context.shape == "cold"
    at = f"node/{node}/ovs"
    args = {"node": node, "localnet": localnet, "bridge": to, "from": old}
    view = context.facts.value(at)
    old_home = [
        Check(f"{at}/patch/{lsp}", "ne", old, "the old patch port must be gone")
        for lsp in switch_ports_of(context.facts, view, localnet)
        if old not in (None, to)
    ]
    moved = bool(old != to)
    undo: tuple[Invocation, ...] = ()
    reads = views(node)
    no_undo = "it only repairs what ovn-controller should have made"
    if context.shape == "orphaned" and moved and old:
        no_undo = f"{old} has no uplink: going back would cut its VMs again"
    elif moved:
        name = "cold-remap@1" if cold else "hot-remap@1"
        undo = (Invocation(name if old else "unmap@1", {**args, "bridge": old, "from": to}, reads),)
    heading = f"move localnet {localnet} from {old} to {to}" if old else f"map localnet {localnet} to {to}"
    affected = tuple(sorted({g.vm for g in guests(context.facts, node, localnet)} - context.away))
    return Action(
        id=f"{node}/remap/{localnet}",
        routine="cold-remap@1" if cold else "hot-remap@1",
        title=f"{heading} ({context.shape})" if moved else f"repair the patch ports of localnet {localnet}",
        address=change.address,
        node=node,
        args=args,
        reads=reads,
        expect=_expected(change),
        done_when=(Check(f"{at}/mapping/{localnet}", "eq", to), *old_home),
        undo=undo,
        no_undo="" if undo else no_undo,
        disruption="vm-traffic" if _disturbs(change, context) and affected else "none",
        vms=affected,
        rows=(8,),
    )


def nncp(change: Change, context: Context) -> Action:
    """The fragment for delivery by a policy: nmstate writes the mapping, and what it does not do is done as by OVSDB."""
    made, node, localnet = ovsdb(change, context), change.node, change.data["localnet"]
    network = next(n for n in context.desired.networks if n.name == localnet)
    args = {
        **made.args,
        **policies.way(network, node, context.facts, _step(network, node, context.facts)),
        "document": documents.mapped(localnet, change.data["bridge"]),
        "cold": context.shape == "cold",
    }
    return replace(
        made,
        routine="policy-remap@1",
        title=made.title.removesuffix(")") + ", by a policy)"
        if made.title.endswith(")")
        else f"{made.title}, by a policy",
        args=args,
        reads=(*made.reads, *policies.views(node, args)),
        undo=() if args.get("label") else tuple(_undo_by_policy(made.undo, args)),
        no_undo=f"label {node} as it was: the policies that select the old value bring it back"
        if args.get("label")
        else made.no_undo,
        deadline=policies.SEEN_DEADLINE + policies.APPLY_DEADLINE + policies.EDIT_DEADLINE,
    )


def _step(network: VMNetwork, node: str, facts: Facts) -> str:
    """`mapped` when a bridge of NetworkManager's has to go afterwards, else `done`: there is one step only."""
    old = network.replaced_bridge
    return "mapped" if old and made_by_network_manager(facts, node, old) else "done"


def _undo_by_policy(undo: Sequence[Invocation], args: Mapping[str, Any]) -> Iterator[Invocation]:
    """The way back is a policy too: an inverse document, written out (H08, H56)."""
    for invocation in undo:
        back = invocation.args["bridge"]
        localnet = args["localnet"]
        document = documents.mapped(localnet, back) if back else documents.unmapped(localnet)
        way = {**args, **invocation.args, "document": document, "cold": invocation.routine == "cold-remap@1"}
        yield Invocation("policy-remap@1", way, (*invocation.reads, *policies.views(args["node"], args)))


def _disturbs(change: Change, context: Context) -> bool:
    """Whether traffic that flows now is moved under its VMs."""
    return context.shape == "hot" and change.traffic is not None and not change.traffic.dark


def views(node: str) -> tuple[str, ...]:
    """What the steps of a remap look at."""
    return (f"ovs:{node}", f"dp:{node}", "vms", "networks")


def preflight(change: Change, facts: Facts) -> tuple[Check, ...]:
    """The mapping is what the plan saw, and the bridge reaches the switch: one to be made will, when it is."""
    return tuple(
        c for c in _expected(change) if not change.data.get("made") or not c.path.endswith("/uplinks")
    )


def _expected(change: Change) -> tuple[Check, ...]:
    """The mapping is what the plan saw, and the bridge reaches the switch."""
    at, localnet, old = f"node/{change.node}/ovs", change.data["localnet"], change.data["from"]
    mapped = f"{at}/mapping/{localnet}"
    uplinks = f"{at}/bridge/{change.data['bridge']}/uplinks"
    gone = "it was taken away before the first node; with it back, the node would be led back too (H04)"
    return (
        *(Check(f"policy/{name}", "absent", why=gone) for name in change.data["withdrawn"]),
        Check(mapped, "absent") if old is None else Check(mapped, "eq", old),
        Check(uplinks, "min", 1, "H03: a mapping to a bridge without an uplink is a dead VM"),
    )


def verify(change: Change, context: Context) -> tuple[Check, ...]:
    """The checks that prove the mapping, apart from traffic."""
    at = f"node/{change.node}/ovs"
    checks = [
        Check(f"{at}/mapping/{change.data['localnet']}", "eq", change.data["bridge"]),
        Check(f"{at}/bridge/{change.data['bridge']}/uplinks", "min", 1),
    ]
    if isinstance(context.facts.get(f"{at}/mapping/physnet"), Known):
        checks.append(Check(f"{at}/mapping/physnet", "present", why="H01: it is the node's own way out"))
    if context.shape != "cold":
        here = guests(context.facts, change.node, change.data["localnet"])
        lsps = sorted({g.lsp for g in here if g.vm not in context.away})
        checks += [Check(f"{at}/patch/{lsp}/health", "eq", "healthy") for lsp in lsps]
    return tuple(checks)


FRAGMENTS: dict[str, Fragment] = {"ovsdb": ovsdb, "nncp": nncp}
KIND = Kind("mapping", FRAGMENTS, diff, preflight, verify)


# The steps.


def _readable(args: Mapping[str, Any], facts: Facts) -> ovs.View | Stop:
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


def _ovn_settle(args: Mapping[str, Any], facts: Facts, done: Done) -> Perform | None:
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


def _contingent(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
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
    move, *_ = _move(args, facts, whole, homes)
    announcement = Run(
        label="announce:latecomers",
        title=f"announce the VMs that have come to {node} by then out of {to}",
        node=node,
        argv=("ovs-ofctl", "packet-out", to, KNOWN_AFTER_APPLY),
        commands=(f"# announce each VM on {node}: one RARP per MAC and VLAN out of {to}",),
    )
    return (replace(move, label="move:otherwise"), announcement)


@routine("hot-remap@1", contingent=_contingent)
def hot_remap(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Move a localnet to `args["bridge"]` under running VMs, or repair its patch pairs where they are."""
    view = _readable(args, facts)
    if isinstance(view, Stop):
        return view
    if (wait := _ovn_settle(args, facts, done)) is not None:
        return wait
    node, localnet, to = args["node"], args["localnet"], args["bridge"]
    strays = _strays(facts, view, localnet, to)
    if ovs.parse_mappings(view["mapping"]).get(localnet) != to or strays:
        if "before" not in done.outcomes:
            return Perform((_before(args, view, strays),))
        if done.has("move") and done.attempts.get("move", 0) >= MOVES:
            why = f"node/{node}/ovs/mapping/{localnet} was set back to {args['from']} after it was moved to {to}"
            return Stop(f"{why}: somebody else wants it otherwise", moved=True)
        return Perform(_move(args, facts, view, strays), unbroken=True)
    here = guests(facts, node, localnet)
    frames = [op for op in _announcements(args, facts, view, here, done) if not done.has(op.label)]
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
    return Finished(
        f"{localnet} is on {to}; {len(set(here))} attachments announced" if here else f"{localnet} is on {to}"
    )


def _is_up(view: ovs.View, port: str) -> bool:
    """Whether a port is on one bridge and has its OpenFlow number."""
    homes = ovs.bridges_of_port(view, port)
    return len(homes) == 1 and isinstance(
        view["bridges"][homes[0]]["ports"][port]["interfaces"][0]["ofport"], int
    )


def _strays(facts: Facts, view: ovs.View, localnet: str, to: str) -> dict[str, list[str]]:
    """Our outer ports that are not (only) where they belong: localnet switch port → the bridges that list it."""
    found = {}
    for lsp in switch_ports_of(facts, view, localnet):
        wrong = [b for b in ovs.bridges_of_port(view, ovs.outer_port(lsp)) if b != to]
        if wrong:
            found[lsp] = wrong
    return found


def _before(args: Mapping[str, Any], view: ovs.View, strays: Mapping[str, list[str]]) -> Record:
    """The before-image: the node's switch, and who was heard lately on the bridges that VMs leave."""
    bridges = sorted({b for homes in strays.values() for b in homes} | {args["from"]} - {None})
    tables = tuple(f"fdb:{args['node']}:{b}" for b in bridges if b in view["bridges"])
    return Record(
        label="before",
        title=f"record the switch and the forwarding tables of {args['node']}",
        views=(f"ovs:{args['node']}", *tables),
        again_after=LISTEN,
    )


def _move(
    args: Mapping[str, Any], facts: Facts, view: ovs.View, strays: Mapping[str, list[str]]
) -> tuple[AnyOp, ...]:
    """The burst of the move: one guarded transaction, then the new outer ports, unless OVN was quicker.

    The port goes first and comes back in another transaction: vswitchd must not see one name change bridges (H46).
    """
    node, localnet, to = args["node"], args["localnet"], args["bridge"]
    text = ovs.set_pair(view["mapping"], localnet, to)
    operations = transactions.swap_mapping(view, text) if text != view["mapping"] else []
    commands = [ovs.pair_command(view["mapping"], localnet, to)] if text != view["mapping"] else []
    for lsp, homes in strays.items():
        for home in homes:
            operations += transactions.take_port(view, home, ovs.outer_port(lsp))
            commands.append(f"--if-exists del-port {home} {ovs.outer_port(lsp)}")
    after = ovs.without_ports(ovs.with_mapping(view, text), map(ovs.outer_port, strays))
    taken = f"take {', '.join(map(ovs.outer_port, strays))} away" if strays else ""
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
    for lsp in sorted({*strays, *(g.lsp for g in guests(facts, node, localnet))}):
        op, after = pairs.insert(node, after, lsp, ovs.outer_port(lsp), to, ovs.inner_port(lsp))
        burst.append(op)
    return (*burst, pairs.look_again(node, after, 0))


def _announcements(
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


def _cold_contingent(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
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
    move = _take_down(args, other, lsps, text, transactions.swap_mapping(view, text))
    return (replace(move, label="move:otherwise"),)


@routine("cold-remap@1", contingent=_cold_contingent)
def cold_remap(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Move a localnet on a node that its VMs have left: both ends of each pair go, nothing is inserted."""
    view = _readable(args, facts)
    if isinstance(view, Stop):
        return view
    node, localnet, to = args["node"], args["localnet"], args["bridge"]
    left = sorted({g.vm for g in guests(facts, node, localnet)})
    if left:
        return Stop(
            f"{node} still runs {', '.join(left)}, which use {localnet}: a cold remap would cut them. Move them away (`virtctl migrate`), then `ovsplan apply` goes on",
            moved=True,
        )
    if (wait := _ovn_settle(args, facts, done)) is not None:
        return wait
    lsps = list(switch_ports_of(facts, view, localnet))
    text = ovs.set_pair(view["mapping"], localnet, to)
    homes = {lsp: ovs.bridges_of_port(view, ovs.outer_port(lsp)) for lsp in lsps}
    halves = [lsp for lsp in lsps if bool(homes[lsp]) != bool(ovs.bridges_of_port(view, ovs.inner_port(lsp)))]
    strays = [lsp for lsp in lsps if homes[lsp] not in ([], [to])]
    if text == view["mapping"] and not halves and not strays:
        return Finished(f"{localnet} is mapped to {to}; nothing rides on it yet")
    if "before" not in done.outcomes:
        return Perform((replace(_before(args, view, {}), again_after=0.0),))
    if done.attempts.get("move", 0) > TAKE_DOWNS:
        return Stop(
            f"ovn-controller on {node} keeps bringing back a part of the pair of {', '.join([*halves, *strays])}"
        )
    return Perform((_take_down(args, view, lsps, text, transactions.swap_mapping(view, text)),))


def _policy_contingent(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    """What follows a policy where OVN or vswitchd do not do their part, besides what a remap by OVSDB may call for."""
    node, to = args["node"], args["bridge"]
    view = facts.value(f"node/{node}/ovs")
    mapped = ovs.with_mapping(view, ovs.set_pair(view["mapping"], args["localnet"], to)) if to else view
    after = facts.with_changes(ovs.changes(node, view, mapped))
    moved = {
        lsp: ovs.bridges_of_port(mapped, ovs.outer_port(lsp))
        for lsp in switch_ports_of(facts, view, args["localnet"])
    }
    strays = {lsp: homes for lsp, homes in moved.items() if homes and homes != [to]}
    if args["cold"] or not to:
        lsps = list(switch_ports_of(facts, view, args["localnet"]))
        whole = mapped
        for lsp in lsps:
            if not ovs.bridges_of_port(whole, ovs.outer_port(lsp)):
                whole = ovs.with_patch(
                    whole, to or args["from"], ovs.outer_port(lsp), ovs.inner_port(lsp), lsp
                )
            if not ovs.bridges_of_port(whole, ovs.inner_port(lsp)):
                whole = ovs.with_patch(
                    whole, ovs.INTEGRATION_BRIDGE, ovs.inner_port(lsp), ovs.outer_port(lsp), lsp
                )
        return (
            (replace(_take_down(args, whole, lsps, mapped["mapping"], []), label="move:otherwise"),)
            if lsps
            else ()
        )
    moves = (
        tuple(replace(op, label=f"{op.label}:otherwise") for op in _move(args, after, mapped, strays))
        if strays
        else ()
    )
    return (*moves, *_contingent(args, after))


def _policy_rescue_ops(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    """What a failure may call for: the policy taken back, and the mapping put where there is an uplink."""
    view = facts.value(f"node/{args['node']}/ovs")
    ops: list[AnyOp] = [policies.retract_op("withdraw", args, facts)]
    for bridge in (args["bridge"], args["from"]):
        if bridge and ovs.live_uplinks(view, bridge):
            other = args["from"] if bridge == args["bridge"] else args["bridge"]
            ops.append(
                _point_at(
                    args,
                    ovs.with_mapping(view, ovs.set_pair(view["mapping"], args["localnet"], other or bridge)),
                    bridge,
                )
            )
    return tuple(ops)


def _point_at(args: Mapping[str, Any], view: ovs.View, bridge: str) -> Transact:
    """The mapping moved to a bridge that has an uplink, and nothing else (H42)."""
    text = ovs.set_pair(view["mapping"], args["localnet"], bridge)
    return Transact(
        label=f"point-at:{bridge}",
        title=f"map {args['localnet']} to {bridge}, which has an uplink",
        node=args["node"],
        operations=transactions.settled(view, transactions.swap_mapping(view, text)),
        commands=(f"ovs-vsctl {ovs.pair_command(view['mapping'], args['localnet'], bridge)}",),
        changes=ovs.changes(args["node"], view, ovs.with_mapping(view, text)),
    )


def _rescue_policy(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """After a failure: no policy is left trying, and the mapping is on a bridge that has an uplink.

    nmstate rolls NetworkManager back, and not the mapping (H42): so the mapping is read first, whatever else failed.
    """
    node, name, localnet = args["node"], args["policy"], args["localnet"]
    fact = facts.get(f"node/{node}/ovs")
    if isinstance(fact, Unknown):
        return Stop(f"cannot tell where {localnet} is mapped on {node} now: {fact.why}", unsure=True)
    view: ovs.View = facts.value(f"node/{node}/ovs")
    if policies.in_force(args, facts) and policies.state(facts, node, name) not in ("available", "unknown"):
        if done.attempts.get("withdraw", 0) >= TAKE_DOWNS:
            return Stop(f"policy {name} comes back after it was taken from {node}: somebody else wants it")
        return Perform((policies.retract_op("withdraw", args, facts),))
    if (
        policies.state(facts, node, name) not in ("waiting", "available", "unknown")
        and "withdrawn" not in done.outcomes
    ):
        gone = Check(
            policies.state_path(node, name),
            "absent",
            why="an apply that runs is completed, also after the delete",
        )
        return Perform(
            (
                Wait(
                    label="withdrawn",
                    title=f"policy {name} ended on {node}",
                    checks=(gone,),
                    deadline=policies.EDIT_DEADLINE,
                ),
            )
        )
    current = ovs.parse_mappings(view["mapping"]).get(localnet)
    if current and not ovs.live_uplinks(view, current):
        for bridge in (args["bridge"], args["from"]):
            if (
                bridge
                and bridge != current
                and ovs.live_uplinks(view, bridge)
                and not done.has(f"point-at:{bridge}")
            ):
                return Perform((_point_at(args, view, bridge),))
        return Finished(f"{localnet} is mapped to {current}, which has no uplink: its VMs on {node} are dark")
    return Finished(f"{localnet} is mapped to {current or 'no bridge'} on {node}")


@routine(
    "policy-remap@1", rescue=_rescue_policy, contingent=_policy_contingent, on_failure=_policy_rescue_ops
)
def policy_remap(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Let nmstate write the mapping, then see that the path follows it, then that the enactment is Available."""
    view = _readable(args, facts)
    if isinstance(view, Stop):
        return view
    node, name, to = args["node"], args["policy"], args["bridge"]
    if isinstance(served := facts.get("cluster/nmstate"), Unknown):
        return Stop(f"cannot tell how policy {name} stands: {served.why}", unsure=True)
    if args["cold"] and (left := sorted({g.vm for g in guests(facts, node, args["localnet"])})):
        return Stop(
            f"{node} still runs {', '.join(left)}, which use {args['localnet']}: a cold remap would cut them. Move them away (`virtctl migrate`), then `ovsplan apply` goes on",
            moved=True,
        )
    if (settle := _ovn_settle(args, facts, done)) is not None:
        return settle
    if not policies.in_force(args, facts):
        return _write_policy(args, facts, view, done)
    mapped = ovs.parse_mappings(view["mapping"]).get(args["localnet"])
    state = policies.state(facts, node, name)
    if mapped != (to or None):
        if state in policies.OVER[1:]:
            return Stop(policies.failure(facts, node, name))
        if state == "waiting" and (done.outcomes.get("begun") == "timed-out" or "mapped" in done.outcomes):
            return Stop(policies.failure(facts, node, name))
        if state == "available" or "mapped" in done.outcomes:
            return Stop(
                f"policy {name} is {state} on {node}, and {args['localnet']} is still mapped to {mapped or 'no bridge'}"
            )
        if "begun" not in done.outcomes:
            return Perform((_await_handler(args),), unbroken=True)
        return Perform((_await_mapping(args, view),), unbroken=True)
    follow = (cold_remap if args["cold"] else hot_remap) if to else unmap
    upcoming = follow(args, facts, done)
    if not isinstance(upcoming, Finished):
        return upcoming
    if state in policies.OVER[1:]:
        return Stop(policies.failure(facts, node, name))
    if state != "available":
        if "enacted" in done.outcomes:
            return Stop(policies.failure(facts, node, name))
        return Perform((policies.await_enactment("enacted", node, name),))
    if "others" not in done.outcomes and (wait := policies.await_others("others", args, facts)) is not None:
        return Perform((wait,))
    return upcoming


def _write_policy(args: Mapping[str, Any], facts: Facts, view: ovs.View, done: Done) -> Next:
    """The before-image, then the policy and the wait for the mapping: what follows a changed mapping can't wait."""
    name = args["policy"]
    if (wait := policies.not_editable(args, facts, done)) is not None:
        return wait
    if "before" not in done.outcomes:
        return Perform((_before(args, view, {}),))
    if done.attempts.get("policy", 0) >= MOVES:
        return Stop(
            f"policy {name} was changed {MOVES} times after it was applied: somebody else edits it",
            moved=True,
        )
    burst: list[AnyOp] = [policies.enforce_op("policy", args, facts)]
    if ovs.parse_mappings(view["mapping"]).get(args["localnet"]) != (args["bridge"] or None):
        burst.append(_await_handler(args))
    return Perform(tuple(burst), unbroken=True)


def _await_handler(args: Mapping[str, Any]) -> Wait:
    """Wait until the node's handler has begun with the policy: one that never begins is not waited for any longer."""
    node, name, localnet, to = args["node"], args["policy"], args["localnet"], args["bridge"]
    state, mapping = policies.state_path(node, name), f"node/{node}/ovs/mapping/{localnet}"
    why = f"policy {name} has not reached the handler of {node} yet"
    return Wait(
        label="begun",
        title=f"the handler of {node} has begun with policy {name}",
        checks=(Check(state, "present", why=why), Check(state, "ne", "waiting", why)),
        unless=(Check(mapping, "eq", to) if to else Check(mapping, "absent"),),
        deadline=policies.SEEN_DEADLINE,
    )


def _await_mapping(args: Mapping[str, Any], view: ovs.View) -> Wait:
    """Wait until nmstate has written the mapping. Waited for in the database: the enactment is seconds behind it."""
    node, name, localnet, to = args["node"], args["policy"], args["localnet"], args["bridge"]
    path = f"node/{node}/ovs/mapping/{localnet}"
    text = (
        ovs.set_pair(view["mapping"], localnet, to)
        if to
        else ovs.drop_pair(view["mapping"], localnet) or None
    )
    return Wait(
        label="mapped",
        title=f"nmstate on {node} has mapped {localnet} to {to}"
        if to
        else f"nmstate on {node} has unmapped {localnet}",
        checks=(
            Check(path, "eq", to, f"policy {name} has not reached {node} yet")
            if to
            else Check(path, "absent"),
        ),
        unless=tuple(Check(policies.state_path(node, name), "eq", over) for over in policies.OVER[1:]),
        deadline=policies.APPLY_DEADLINE,
        changes=ovs.changes(node, view, ovs.with_mapping(view, text)),
    )


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
        (_take_down(args, view, list(switch_ports_of(facts, view, localnet)), text or None, operations),)
    )


def _take_down(
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
