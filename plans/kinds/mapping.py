"""Bridge mappings: which bridge of a node a localnet rides on, and the OVN patch ports that make it true.

The one invariant: the mapping alone is never taken for the path. A mapping that reads right while a VM's patch pair
is missing, broken or on another bridge is a change to make (a repair), not "no changes".

How a mapping is moved is in `plans.remap`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from plans import ovs, pairs
from plans.actions import Action, Invocation
from plans.changes import Blocked, Change, Context, Fragment, Kind, Outcome, Same, Traffic
from plans.checks import Check
from plans.desired import Desired, VMNetwork
from plans.facts import Facts, Known, Unknown
from plans.guests import guests, is_running, switch_ports_of, unclear_attachments
from plans.kinds import mtu, new_bridge
from plans.nmstate import documents, enactments, enforcing
from plans.nmstate.ownership import made_by_network_manager
from plans.remap.before import views
from plans.selection import applies_to


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
        [] if network.is_labelled or network.spec.replaces is None else list(network.spec.replaces.policies)
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

    A network without a running VM here needs no pair: its absence, or a leftover of it, is no fault (H51).
    """
    needed = {guest.lsp for guest in guests(facts, node, localnet) if is_running(facts, guest.vm)}
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
        **enforcing.way(network, node, context.facts, _step(network, node, context.facts)),
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
        reads=(*made.reads, *enforcing.views(node, args)),
        undo=() if args.get("label") else tuple(_undo_by_policy(made.undo, args)),
        no_undo=f"label {node} as it was: the policies that select the old value bring it back"
        if args.get("label")
        else made.no_undo,
        deadline=enactments.SEEN_DEADLINE + enactments.APPLY_DEADLINE + enactments.EDIT_DEADLINE,
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
        yield Invocation("policy-remap@1", way, (*invocation.reads, *enforcing.views(args["node"], args)))


def _disturbs(change: Change, context: Context) -> bool:
    """Whether traffic that flows now is moved under its VMs."""
    return context.shape == "hot" and change.traffic is not None and not change.traffic.dark


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
