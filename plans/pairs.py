"""OVN's patch pairs: whether a pair carries traffic, and what brings it back.

The one invariant: a pair that was touched is believed only after two looks of vswitchd, a pause behind each. When
ovn-controller puts a port back before vswitchd has seen it leave, vswitchd sees one name change bridges; from then on
it alternates, look by look, between healthy and an error, or keeps a copy of the port on the old bridge, or carries
nothing at all. Turning the inner end away from its peer and back, in two transactions, ends all of that without
cutting what flows. Measured: docs/ovs-facts.md, 6 to 9.
"""

from __future__ import annotations

from collections.abc import Sequence

from plans import ovs, transactions
from plans.actions import Done, Next, Perform, Stop
from plans.checks import Check
from plans.facts import Facts, Known
from plans.ops import AnyOp, Transact, Wait

LOOKS = 2
PAUSE = 0.2
"""How often vswitchd must look after a pair was touched, and the seconds before a sight is believed (an error may be
written after `cur_cfg`)."""

REJOINS = 2
CURES = 4
INSERTS = 3
AWAY = "turned-away"


def health(facts: Facts, view: ovs.View, node: str, lsp: str) -> str:
    """`healthy`, or what is wrong with a pair, in the database or in the datapath itself (H46)."""
    found = ovs.pair_health(view, lsp)
    if found != "healthy":
        return found
    outer = ovs.outer_port(lsp)
    homes = facts.get(f"node/{node}/dp/{outer}")
    if isinstance(homes, Known) and len(homes.value) > 1:
        return f"broken: port {outer} is stale: the datapath has it on {' and '.join(homes.value)}"
    return "healthy"


def mend(node: str, to: str, facts: Facts, view: ovs.View, needed: Sequence[str], done: Done) -> Next | None:
    """The next ops that bring the pairs of `needed` to health on bridge `to`; None when all are, and were seen so."""
    tries = sum(n for label, n in done.attempts.items() if label.startswith(("rejoin:", "rebuild:")))
    inserts = _missing(node, to, view, needed)
    if inserts and max(done.attempts.get(op.label, 0) for op in inserts) < INSERTS:
        return Perform((*inserts, look_again(node, view, tries)))
    sick = {lsp: found for lsp in needed if (found := health(facts, view, node, lsp)) != "healthy"}
    if needed and _is_touched(done):
        looks = done.attempts.get(look_again(node, view, tries).label, 0)
        seen = f"seen:{tries}:{looks}"
        if looks == 0 or (seen in done.outcomes and not sick and looks < LOOKS):
            return Perform((look_again(node, view, tries),))
        if seen not in done.outcomes:
            return Perform((_sight(node, needed, seen),))
    if not sick:
        return None
    if tries >= CURES:
        return Stop(f"the path stays broken after {tries} repairs: " + "; ".join(sick.values()))
    lsp = next(iter(sick))
    cure = (
        rejoin(node, view, lsp)
        if tries < REJOINS and ovs.is_paired(view, lsp)
        else rebuild(node, to, view, lsp)
    )
    return Perform((*cure, look_again(node, view, tries + 1)))


def cures(node: str, to: str, view: ovs.View, lsps: Sequence[str]) -> tuple[AnyOp, ...]:
    """Everything that `mend` may do to these pairs, for a plan to show; missing ends are imagined."""
    ops: list[AnyOp] = []
    for lsp in lsps:
        whole = view
        for bridge, name in ((to, ovs.outer_port(lsp)), (ovs.INTEGRATION_BRIDGE, ovs.inner_port(lsp))):
            if not ovs.bridges_of_port(whole, name):
                whole = ovs.with_patch(whole, bridge, name, "", lsp)
        ops += [*rejoin(node, whole, lsp), *rebuild(node, to, whole, lsp)]
    return (*ops, look_again(node, view, 0)) if lsps else ()


def insert(
    node: str, view: ovs.View, lsp: str, name: str, bridge: str, peer: str
) -> tuple[Transact, ovs.View]:
    """Insert one end of a pair, as ovn-controller would; losing that race to it is fine (H48)."""
    after = ovs.with_patch(view, bridge, name, peer, lsp)
    op = Transact(
        label=f"insert:{name}",
        title=f"insert {name} on {bridge}, unless ovn-controller was first",
        node=node,
        operations=transactions.settled(view, transactions.insert_patch(bridge, name, peer, lsp, "0")),
        tolerate=transactions.GUARD_FAILED,
        commands=(
            f"ovs-vsctl --may-exist add-port {bridge} {name} -- set Interface {name} type=patch options:peer={peer}"
            f" -- set Port {name} external_ids:{ovs.LOCALNET_PORT_KEY}={lsp}",
        ),
        changes=ovs.changes(node, view, after),
    )
    return op, after


def look_again(node: str, view: ovs.View, tries: int) -> Transact:
    """Raise `next_cfg`, so that vswitchd goes through its ports once more. Cuts nothing."""
    return Transact(
        label=f"look-again:{tries}",
        title=f"have vswitchd on {node} go through its ports once more",
        node=node,
        operations=transactions.settled(view, [transactions.same_mapping(view)]),
        commands=(
            "ovs-vsctl set Open_vSwitch . external_ids:look-again=1",
            "ovs-vsctl remove Open_vSwitch . external_ids look-again",
        ),
    )


def rejoin(node: str, view: ovs.View, lsp: str) -> tuple[Transact, Transact]:
    """Turn the inner end away from its peer and back: vswitchd joins the pair anew, and every port keeps its number."""
    outer, inner = ovs.outer_port(lsp), ovs.inner_port(lsp)
    apart, joined = ovs.with_peer(view, inner, AWAY), ovs.with_peer(view, inner, outer)
    turn = Transact(
        label=f"rejoin:{lsp}",
        title=f"turn {inner} away from its peer",
        node=node,
        operations=transactions.settled(view, transactions.set_peer(inner, AWAY)),
        commands=(f"ovs-vsctl set Interface {inner} options:peer={AWAY}",),
        changes=ovs.changes(node, view, apart),
    )
    back = Transact(
        label=f"joined:{lsp}",
        title=f"and back to {outer}, so that vswitchd joins the pair anew",
        node=node,
        operations=transactions.settled(view, transactions.set_peer(inner, outer)),
        commands=(f"ovs-vsctl set Interface {inner} options:peer={outer}",),
        changes=(*ovs.changes(node, apart, joined), _single(node, joined, outer)),
    )
    return turn, back


def rebuild(node: str, to: str, view: ovs.View, lsp: str) -> tuple[Transact, ...]:
    """Delete both ends in one transaction, await vswitchd, insert them again in the next."""
    outer, inner = ovs.outer_port(lsp), ovs.inner_port(lsp)
    operations = []
    for name in (outer, inner):
        for home in ovs.bridges_of_port(view, name):
            operations += transactions.take_port(view, home, name)
    gone = ovs.without_ports(view, (outer, inner))
    delete = Transact(
        label=f"rebuild:{lsp}",
        title=f"take both ends of the broken pair {outer} away",
        node=node,
        operations=transactions.settled(view, operations),
        commands=(f"ovs-vsctl --if-exists del-port {outer} -- --if-exists del-port {inner}",),
        changes=(*ovs.changes(node, view, gone), (f"node/{node}/dp/{outer}", Known([to]))),
    )
    first, after = insert(node, gone, lsp, outer, to, inner)
    second, after = insert(node, after, lsp, inner, ovs.INTEGRATION_BRIDGE, outer)
    return delete, first, second


def _missing(node: str, to: str, view: ovs.View, needed: Sequence[str]) -> list[AnyOp]:
    """The inserts of every end that is on no bridge."""
    inserts: list[AnyOp] = []
    after = view
    for lsp in needed:
        outer, inner = ovs.outer_port(lsp), ovs.inner_port(lsp)
        for name, bridge, peer in ((outer, to, inner), (inner, ovs.INTEGRATION_BRIDGE, outer)):
            if not ovs.bridges_of_port(view, name):
                op, after = insert(node, after, lsp, name, bridge, peer)
                inserts.append(op)
    return inserts


def _is_touched(done: Done) -> bool:
    return any(label.startswith(("move", "insert:", "rejoin:", "rebuild:")) for label in done.outcomes)


def _sight(node: str, needed: Sequence[str], label: str) -> Wait:
    checks = tuple(Check(f"node/{node}/ovs/patch/{lsp}/health", "eq", "healthy") for lsp in needed)
    title = "both ends of each patch pair healthy"
    return Wait(label=label, title=title, checks=checks, deadline=PAUSE, at_least=PAUSE)


def _single(node: str, view: ovs.View, port: str) -> tuple[str, Known]:
    return f"node/{node}/dp/{port}", Known(ovs.bridges_of_port(view, port))
