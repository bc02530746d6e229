"""Bridges on a node: the old bridge that a VMNetwork `replaces`, and its removal.

The one invariant: a bridge goes only when nothing of anybody else's is on it. Any port but its own internal one, its
uplink and OVN's, and any localnet still mapped to it, blocks the removal by name. (The bridge
that a network is to be on is made by `new_bridge`, where it is made at all.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from plans import ovs, transactions
from plans.actions import Action, Done, Finished, Invocation, Next, Perform, Stop, routine
from plans.changes import Blocked, Change, Context, Fragment, Kind, Outcome, Same
from plans.checks import Check
from plans.desired import Desired
from plans.facts import Absent, Facts, Known, Unknown
from plans.kinds import mapping
from plans.kinds.new_bridge import address
from plans.nmstate import documents, enactments, enforcing, policies
from plans.ops import AnyOp, Record, Transact, Wait
from plans.selection import applies_to

PATCH_PORTS_GONE_DEADLINE = 15.0
REMOVALS = 3


def diff(desired: Desired, node: str, facts: Facts) -> list[Outcome]:
    """Every bridge that is to be replaced on a node, once however many networks replace it."""
    replaced: dict[str, list[str]] = {}
    for network in desired.networks:
        if network.replaced_bridge and applies_to(network, node, facts):
            replaced.setdefault(network.replaced_bridge, []).append(network.name)
    return [
        _diff_one(desired, bridge, localnets, node, facts) for bridge, localnets in sorted(replaced.items())
    ]


def _diff_one(desired: Desired, bridge: str, localnets: list[str], node: str, facts: Facts) -> Outcome:
    where = address(node, bridge)
    fact = facts.get(f"node/{node}/ovs/bridge/{bridge}")
    if isinstance(fact, Absent):
        return Same(where, node)
    view = facts.value(f"node/{node}/ovs")
    pairs = facts.get(f"node/{node}/ovs/mappings")
    if not isinstance(pairs, Known) or not isinstance(fact, Known):
        return Blocked(
            where, node, (pairs.why if isinstance(pairs, Unknown) else "cannot tell what is on it",)
        )
    moving = {n.name: n.bridge for n in desired.networks if applies_to(n, node, facts)}
    reasons = [
        f"localnet {localnet} is mapped to it and not moved by this plan"
        for localnet, home in sorted(pairs.value.items())
        if home == bridge and moving.get(localnet, bridge) == bridge
    ]
    reasons += foreign_ports(view, bridge)
    if reasons:
        return Blocked(where, node, tuple(reasons))
    return Change(
        address=where, kind="bridge", node=node, verb="-", before=", ".join(fact.value), after="absent",
        why=f"replaced by {', '.join(sorted({moving[n] for n in localnets}))}",
        depends=tuple(mapping.address(node, localnet) for localnet in localnets),
        data={"bridge": bridge, "nm": view["bridges"][bridge]["external_ids"].get("NM.connection.uuid"),
              "uplinks": ovs.live_uplinks(view, bridge)},
        bridge=bridge, localnets=tuple(localnets),
    )  # fmt: skip


def foreign_ports(view: ovs.View, bridge: str) -> list[str]:
    """Why a bridge can't go: every port that is not its own internal one, its one uplink or OVN's.

    Two ports that could be the uplink are both named: nobody can tell from the database which is somebody else's.
    """
    ports = view["bridges"][bridge]["ports"]
    uplinks = list(ovs.uplinks(view, bridge))
    others = [p for p in ports if p != bridge and p not in uplinks and p not in ovs.patch_ports(view, bridge)]
    described = []
    for name in sorted(others):
        interface = ports[name]["interfaces"][0]
        detail = interface["type"] or "system"
        if peer := interface["options"].get("peer"):
            detail += f", peer {peer}"
        described.append(f"port {name} ({detail}) is on it")
    if len(uplinks) > 1:
        described.append(
            f"ports {' and '.join(uplinks)} both lead out of it, and only one can be its uplink: take the other off first"
        )
    return described


def ovsdb(change: Change, context: Context) -> Action:
    """The fragment for delivery by OVSDB: one guarded transaction."""
    node, bridge = change.node, change.data["bridge"]
    at = f"node/{node}/ovs"
    row = context.facts.value(at)["bridges"][bridge]
    kept = {
        **row,
        "ports": {n: p for n, p in row["ports"].items() if ovs.LOCALNET_PORT_KEY not in p["external_ids"]},
    }
    reads = (f"ovs:{node}",)
    return Action(
        id=f"{node}/remove/{bridge}",
        routine="remove-bridge@1",
        title=f"remove bridge {bridge}",
        address=change.address,
        node=node,
        args={"node": node, "bridge": bridge},
        reads=reads,
        expect=(
            Check(
                f"{at}/bridge/{bridge}", "subset_of", sorted(row["ports"]), "a port that the plan did not see"
            ),
        ),
        done_when=(Check(f"{at}/bridge/{bridge}", "absent"),),
        undo=(Invocation("restore-bridge@1", {"node": node, "bridge": bridge, "row": kept}, reads),),
        rows=(7,),
    )


def verify(change: Change, context: Context) -> tuple[Check, ...]:
    """The bridge is gone."""
    return (Check(f"node/{change.node}/ovs/bridge/{change.data['bridge']}", "absent"),)


def preflight(change: Change, facts: Facts) -> tuple[Check, ...]:
    """Nothing of its own: what is on the bridge is judged when its turn comes."""
    return ()


def nncp(change: Change, context: Context) -> Action:
    """The fragment for delivery by a policy: nmstate takes away what NetworkManager made (H54)."""
    made, node, bridge = ovsdb(change, context), change.node, change.data["bridge"]
    network = next(n for n in context.desired.networks if n.name in change.localnets)
    args = {
        **made.args,
        **enforcing.way(network, node, context.facts, "done"),
        "document": policies.final_document(network)
        if network.is_labelled
        else documents.without_bridge(bridge),
    }
    row = context.facts.value(f"node/{node}/ovs")["bridges"][bridge]
    uplinks = ", ".join(change.data["uplinks"]) or "no uplink"
    return replace(
        made,
        routine="policy-remove-bridge@1",
        title=f"remove bridge {bridge}, by a policy",
        args=args,
        reads=(*made.reads, *enforcing.views(node, args)),
        undo=(),
        no_undo=f"NetworkManager's profiles of {bridge} ({uplinks}; {len(row['ports'])} ports) are gone; a policy that declares it makes it anew",
        deadline=enactments.SEEN_DEADLINE + enactments.APPLY_DEADLINE + enactments.EDIT_DEADLINE,
    )


FRAGMENTS: dict[str, Fragment] = {"ovsdb": ovsdb, "nncp": nncp}
KIND = Kind("bridge", FRAGMENTS, diff, preflight, verify)


def _view(args: Mapping[str, Any], facts: Facts) -> ovs.View | Stop:
    fact = facts.get(f"node/{args['node']}/ovs")
    return (
        fact.value if isinstance(fact, Known) else Stop(f"cannot read the switch of {args['node']}: {fact}")
    )


def _in_use(args: Mapping[str, Any], facts: Facts, view: ovs.View) -> Stop | None:
    """Why a bridge must stay: what is mapped to it, or on it, and is somebody's."""
    node, bridge = args["node"], args["bridge"]
    pairs = facts.get(f"node/{node}/ovs/mappings")
    if not isinstance(pairs, Known):
        why = pairs.why if isinstance(pairs, Unknown) else str(pairs)
        return Stop(f"cannot tell what is mapped to {bridge} on {node}: {why}", unsure=True)
    mapped = [net for net, home in sorted(pairs.value.items()) if home == bridge]
    reasons = [f"localnet {n} is mapped to it" for n in mapped] or foreign_ports(view, bridge)
    return Stop(f"{bridge} on {node} can't go: {'; '.join(reasons)}", moved=True) if reasons else None


def _await_ovn(args: Mapping[str, Any], lsps: Iterable[str]) -> Wait:
    node, bridge = args["node"], args["bridge"]
    return Wait(
        label="ovn-left",
        title=f"OVN's patch ports gone from {bridge}",
        checks=tuple(Check(f"node/{node}/ovs/patch/{lsp}", "ne", bridge) for lsp in lsps),
        deadline=PATCH_PORTS_GONE_DEADLINE,
    )


@routine("remove-bridge@1")
def remove_bridge(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Remove a bridge on which nothing rides any more."""
    node, bridge = args["node"], args["bridge"]
    view = _view(args, facts)
    if isinstance(view, Stop):
        return view
    if bridge not in view["bridges"]:
        return Finished(f"{bridge} is gone")
    if done.has("remove") and done.attempts.get("remove", 0) >= REMOVALS:
        return Stop(f"{bridge} on {node} came back {REMOVALS} times: somebody else makes it", moved=True)
    if (stop := _in_use(args, facts, view)) is not None:
        return stop
    leftovers = ovs.patch_ports(view, bridge)
    if leftovers and "ovn-left" not in done.outcomes:
        return Perform((_await_ovn(args, leftovers.values()),))
    if leftovers:
        return Stop(f"OVN's {', '.join(leftovers)} stay on {bridge} of {node}, to which nothing is mapped")
    if "before" not in done.outcomes:
        return Perform(
            (Record(label="before", title=f"record the switch of {node}", views=(f"ovs:{node}",)),)
        )
    return Perform(
        (
            Transact(
                label="remove",
                title=f"remove bridge {bridge} with {', '.join(view['bridges'][bridge]['ports'])}",
                node=node,
                operations=transactions.settled(view, transactions.remove_bridge(view, bridge)),
                commands=(f"ovs-vsctl del-br {bridge}",),
                changes=ovs.changes(node, view, ovs.without_bridge(view, bridge)),
            ),
        )
    )


def _left_behind(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    """OVN's patch ports that may stay on a bridge to which nothing is mapped any more: they are deleted (H37)."""
    view = facts.value(f"node/{args['node']}/ovs")
    names = list(ovs.patch_ports(view, args["bridge"])) if args["bridge"] in view["bridges"] else []
    return (_take_away(args, view, names),) if names else ()


def _take_away(args: Mapping[str, Any], view: ovs.View, names: Sequence[str]) -> Transact:
    node, bridge = args["node"], args["bridge"]
    operations = [o for name in names for o in transactions.take_port(view, bridge, name)]
    return Transact(
        label="take-away",
        title=f"take {', '.join(names)} away from {bridge}, to which nothing is mapped",
        node=node,
        operations=transactions.settled(view, operations),
        commands=tuple(f"ovs-vsctl --if-exists del-port {bridge} {name}" for name in names),
        changes=ovs.changes(node, view, ovs.without_ports(view, names)),
    )


def _rescue_removal(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """After a failure: no policy is left trying."""
    return enforcing.taken_back(args, facts, done) or Finished()


@routine(
    "policy-remove-bridge@1", rescue=_rescue_removal, contingent=_left_behind, on_failure=enforcing.withdraw
)
def policy_remove_bridge(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Let nmstate remove a bridge, once nothing of OVN's is left on it: else its apply would fail and cut VMs (H37)."""
    node, bridge, name = args["node"], args["bridge"], args["policy"]
    view = _view(args, facts)
    if isinstance(view, Stop):
        return view
    if isinstance(served := facts.get("cluster/nmstate"), Unknown):
        return Stop(f"cannot tell how policy {name} stands: {served.why}", unsure=True)
    there = bridge in view["bridges"]
    begun = enforcing.in_force(args, facts)
    if there and not begun and (blocked := _not_yet(args, facts, view, done)) is not None:
        return blocked
    gone = ovs.changes(node, view, ovs.without_bridge(view, bridge)) if there else ()
    if (upcoming := enforcing.enforced(args, facts, done, gone)) is not None:
        return upcoming
    if there:
        return Stop(f"policy {name} is Available on {node}, and bridge {bridge} is still there (H41)")
    if "others" not in done.outcomes and (again := enforcing.await_others("others", args, facts)) is not None:
        return Perform((again,))
    return Finished(f"{bridge} is gone")


def _not_yet(args: Mapping[str, Any], facts: Facts, view: ovs.View, done: Done) -> Next | None:
    """What has to be out of the way before nmstate may take the bridge; None when nothing is in it."""
    node, bridge = args["node"], args["bridge"]
    if (stop := _in_use(args, facts, view)) is not None:
        return stop
    leftovers = ovs.patch_ports(view, bridge)
    if not leftovers:
        return None
    if "ovn-left" not in done.outcomes:
        return Perform((_await_ovn(args, leftovers.values()),))
    if done.attempts.get("take-away", 0) >= REMOVALS:
        return Stop(
            f"OVN brings {', '.join(leftovers)} back to {bridge} of {node}, to which nothing is mapped"
        )
    return Perform((_take_away(args, view, list(leftovers)),))


@routine("restore-bridge@1")
def restore_bridge(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Put a removed bridge back as it was: the inverse of its removal."""
    node, bridge, row = args["node"], args["bridge"], args["row"]
    view = _view(args, facts)
    if isinstance(view, Stop):
        return view
    if bridge in view["bridges"]:
        return Finished(f"{bridge} is there")
    return Perform(
        (
            Transact(
                label="restore",
                title=f"restore bridge {bridge} with {', '.join(row['ports'])}",
                node=node,
                operations=transactions.settled(view, transactions.restore_bridge(view, bridge, row)),
                commands=(_as_vsctl(bridge, row),),
                changes=ovs.changes(node, view, ovs.with_bridge(view, bridge, row)),
            ),
        )
    )


def _as_vsctl(bridge: str, row: Mapping[str, Any]) -> str:
    """The `ovs-vsctl` command that builds a bridge as `row` has it."""
    parts = [f"ovs-vsctl add-br {bridge}", *_settings("Bridge", bridge, row, ("ports",))]
    for name, port in sorted(row["ports"].items()):
        members = [i["name"] for i in port["interfaces"]]
        if name != bridge:
            verb = (
                f"add-bond {bridge} {name} {' '.join(members)}"
                if len(members) > 1
                else f"add-port {bridge} {name}"
            )
            parts.append(verb)
        parts += _settings("Port", name, port, ("interfaces",))
        for interface in port["interfaces"]:
            given = {k: v for k, v in interface.items() if k in transactions.SETTABLE}
            if name != bridge:
                parts += _settings("Interface", interface["name"], given, ())
    return " -- ".join(parts)


def _settings(table: str, name: str, row: Mapping[str, Any], left_out: tuple[str, ...]) -> list[str]:
    words = []
    for column, value in sorted(row.items()):
        if column in ("uuid", *left_out) or value in (None, "", False, {}, []):
            continue
        if isinstance(value, dict):
            words += [f"{column}:{key}={v}" for key, v in sorted(value.items())]
        elif isinstance(value, list):
            words.append(f"{column}={','.join(str(v) for v in value)}")
        else:
            words.append(f"{column}={value}")
    return [f"set {table} {name} {' '.join(words)}"] if words else []
