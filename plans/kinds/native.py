"""Native policies on a node: a NodeNetworkConfigurationPolicy of the files, enacted one node at a time.

The one invariant: it moves no VM traffic. A localnet that would change its bridge belongs to a VMNetwork, which moves
it under its VMs; here such a policy is blocked, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from plans import ovs
from plans.actions import Action, Done, Finished, Next, Stop, routine
from plans.changes import Blocked, Change, Context, Fragment, Kind, Outcome, Same
from plans.checks import Check
from plans.desired import Desired, NativePolicy
from plans.desired.names import OWNED_LOCALNETS
from plans.facts import Absent, Facts, Unknown
from plans.kinds.new_bridge import names_on
from plans.nmstate import documents, enactments, enforcing, names, policies
from plans.selection import matches

NODES_BRIDGE = "br-ex"
OWNED_BRIDGES = (NODES_BRIDGE, ovs.INTEGRATION_BRIDGE)
OUTSIDE = "let a VMNetwork move what rides on it, or convert the node outside ovsplan"


def address(node: str, name: str) -> str:
    """The address of a native policy on a node."""
    return f"node/{node}/policy/{name}"


def diff(desired: Desired, node: str, facts: Facts) -> list[Outcome]:
    """Every native policy that selects the node."""
    return [_diff_one(policy, node, facts) for policy in desired.policies if matches(policy, node, facts)]


def _diff_one(policy: NativePolicy, node: str, facts: Facts) -> Outcome:
    where, name, document = address(node, policy.name), policy.name, policy.spec.desired_state
    match facts.get("cluster/nmstate"):
        case Absent():
            return Blocked(
                where, node, ("the cluster serves no nmstate API: install the Kubernetes NMState Operator",)
            )
        case Unknown(why):
            return Blocked(where, node, (why,))
    own = names.node_name(policy, node)
    if any(_is_enacted(one, document, node, facts) for one in (name, own)):
        return Same(where, node)
    if reasons := _moves_traffic(policy, node, facts):
        return Blocked(where, node, tuple(reasons))
    have, state = facts.value(f"policy/{name}"), enactments.state(facts, node, name)
    before = documents.in_words(have["document"]) if have else "absent"
    same = have and documents.same(have["document"], document)
    return Change(
        address=where, kind="native", node=node, verb="~" if have else "+",
        before=f"{before}, {state}" if same else before, after=documents.in_words(document),
        why=f"policy {name} of the files selects {node}",
        data={"policy": name, "own": own, "document": dict(document)},
    )  # fmt: skip


def _is_enacted(name: str, document: documents.Document, node: str, facts: Facts) -> bool:
    have = facts.value(f"policy/{name}")
    said = bool(have) and documents.same(have["document"], document)
    return said and enactments.state(facts, node, name) == "available"


def _moves_traffic(policy: NativePolicy, node: str, facts: Facts) -> list[str]:
    """Why a policy would cut or move what VMs, or the node itself, ride on."""
    document = policy.spec.desired_state
    pairs, view = facts.value(f"node/{node}/ovs/mappings"), facts.value(f"node/{node}/ovs")
    if pairs is None or view is None:
        return [f"cannot tell which localnets are mapped on {node}"]
    return [
        *_moved_localnets(document, pairs),
        *_removed_bridges(document, pairs, view),
        *_left_out(document, view),
        *_taken_over(document, view),
        *_cut_uplinks(document, pairs, view),
    ]


def _moved_localnets(document: documents.Document, pairs: Mapping[str, str]) -> Iterator[str]:
    mapped, unmapped = documents.mapped_pairs(document), documents.unmapped_localnets(document)
    for localnet in dict.fromkeys((*mapped, *unmapped)):
        if localnet in OWNED_LOCALNETS:
            yield f"it speaks of localnet {localnet}, the node's own way out, which belongs to OVN-Kubernetes: {OUTSIDE}"
        elif localnet in unmapped and localnet in pairs:
            yield (
                f"it unmaps localnet {localnet}, which is mapped to {pairs[localnet]}, under its VMs: "
                f"declare a VMNetwork for {localnet}, or unmap it outside ovsplan"
            )
        elif pairs.get(localnet, mapped.get(localnet)) != mapped.get(localnet):
            yield (
                f"it moves localnet {localnet} from {pairs[localnet]} to {mapped[localnet]} under its VMs: "
                f"declare a VMNetwork for {localnet}, which does that safely"
            )


def _removed_bridges(document: documents.Document, pairs: Mapping[str, str], view: ovs.View) -> Iterator[str]:
    off = documents.switched_off(document)
    for localnet, bridge in pairs.items():
        if bridge in off and bridge not in OWNED_BRIDGES:
            yield (
                f"it takes {bridge} {'down' if off[bridge] == 'down' else 'away'}, to which localnet {localnet} is mapped: "
                f"let a VMNetwork for {localnet} replace it"
            )
    for name, state in off.items():
        if name in OWNED_BRIDGES:
            yield f"it sets {name} {state}, which belongs to OVN-Kubernetes: {OUTSIDE}"
        for port, other in _joined(view, name):
            yield f"it sets bridge {name} {state}, whose port {port} leads to bridge {other}: {OUTSIDE}"


def _joined(view: ovs.View, bridge: str) -> Iterator[tuple[str, str]]:
    """The patch ports of a bridge that are not OVN's, each with the bridge (or the port) at its other end."""
    ports = view["bridges"].get(bridge, {}).get("ports", {})
    for name, port in ports.items():
        if name in ovs.patch_ports(view, bridge):
            continue
        for interface in port["interfaces"]:
            if interface["type"] == "patch":
                peer = str(interface["options"].get("peer"))
                yield name, next(iter(ovs.bridges_of_port(view, peer)), peer)


def _left_out(document: documents.Document, view: ovs.View) -> Iterator[str]:
    for bridge, listed in documents.port_lists(document).items():
        now = names_on(view, bridge) - {bridge, *ovs.patch_ports(view, bridge)}
        for port in sorted(now - listed):
            yield (
                f"its port list of {bridge} leaves out {port}, which is on it now and would go: list it too, "
                "or let a VMNetwork make the bridge by its ports"
            )


def _taken_over(document: documents.Document, view: ovs.View) -> Iterator[str]:
    wanted = {(bridge, port) for bridge, ports in documents.port_lists(document).items() for port in ports}
    wanted |= {*documents.ports_of(document)}
    wanted |= {(bridge, port) for port, bridge in documents.controllers(document).items()}
    for holder, port in sorted(wanted):
        for bridge in view["bridges"]:
            if bridge != holder and port in names_on(view, bridge):
                where = f"puts it under {holder}" if holder else "puts it under no bridge"
                yield f"port {port} is under bridge {bridge} now, and it {where}: {OUTSIDE}"


def _cut_uplinks(document: documents.Document, pairs: Mapping[str, str], view: ovs.View) -> Iterator[str]:
    off = documents.switched_off(document)
    for bridge in sorted(_carriers(pairs, view)):
        for port, nics in ovs.uplinks(view, bridge).items():
            for name in sorted({port, *(nic["name"] for nic in nics)} & {*off}):
                yield f"it sets {name} {off[name]}, an uplink of bridge {bridge} that traffic rides on: {OUTSIDE}"


def _carriers(pairs: Mapping[str, str], view: ovs.View) -> set[str]:
    """The bridges that localnets, or the node itself, leave by: the mapped ones and those joined to them."""
    found: set[str] = set()
    ahead = [NODES_BRIDGE, *pairs.values()]
    while ahead:
        bridge = ahead.pop()
        if bridge not in found and bridge in view["bridges"]:
            found.add(bridge)
            ahead += [other for _, other in _joined(view, bridge)]
    return found


def nncp(change: Change, context: Context) -> Action:
    """The fragment for delivery by a policy: a policy of that node's own."""
    node, data = change.node, change.data
    args = {
        "node": node,
        "policy": data["own"],
        "hostname": context.facts.value(f"node/{node}/labels", {}).get(policies.HOSTNAME, node),
        "document": data["document"],
    }
    return Action(
        id=f"{node}/enact/{data['policy']}",
        routine="enact-policy@1",
        title=f"policy {data['policy']} on this node alone: {change.after}",
        address=change.address,
        node=node,
        args=args,
        reads=(f"ovs:{node}", *enforcing.views(node, args)),
        done_when=(Check(enactments.state_path(node, data["own"]), "eq", "available"),),
        no_undo="a policy that is deleted reverts nothing: write the inverse as a policy (its before-image is kept)",
        deadline=enactments.SEEN_DEADLINE + enactments.APPLY_DEADLINE + enactments.EDIT_DEADLINE,
        disruption="node",
    )


def preflight(change: Change, facts: Facts) -> tuple[Check, ...]:
    """The localnets that the policy names ride where they did when the plan was made."""
    at = f"node/{change.node}/ovs/mapping"
    pairs = facts.value(f"node/{change.node}/ovs/mappings", {})
    named = documents.mapped_pairs(change.data["document"])
    return tuple(
        Check(f"{at}/{n}", "eq", pairs[n], "the policy would move it") for n in sorted(named) if n in pairs
    )


def verify(change: Change, context: Context) -> tuple[Check, ...]:
    """What the policy maps is mapped, to a bridge that has an uplink (H53: a mistyped NIC is no error to nmstate).

    What the node had besides is still there: OVN-Kubernetes' mappings, and a live uplink of every bridge that had one which
    the policy does not take away or down. Of those that it does nothing is asked: a card that is `absent` is left by
    NetworkManager alone, and stays on a bridge that `ovs-vsctl` made.
    """
    at, document = f"node/{change.node}/ovs", change.data["document"]
    before, view = context.facts.value(f"{at}/mappings", {}), context.facts.value(at, {"bridges": {}})
    pairs = documents.mapped_pairs(document)
    kept = {n: before[n] for n in OWNED_LOCALNETS if n in before}
    gone = documents.switched_off(document)
    live = {b for b in view["bridges"] if b not in gone and _staying(view, b, gone)}
    return (
        *(Check(f"{at}/mapping/{n}", "eq", bridge) for n, bridge in sorted({**pairs, **kept}.items())),
        *(Check(f"{at}/bridge/{bridge}/uplinks", "min", 1) for bridge in sorted({*pairs.values(), *live})),
    )


def _staying(view: ovs.View, bridge: str, gone: Mapping[str, str]) -> list[str]:
    """The NICs that carry a bridge's traffic now, and that the policy leaves up."""
    kept = (nics for port, nics in ovs.uplinks(view, bridge).items() if port not in gone)
    return [nic["name"] for nics in kept for nic in nics if ovs.is_alive(nic) and nic["name"] not in gone]


FRAGMENTS: dict[str, Fragment] = {"nncp": nncp}
KIND = Kind("native", FRAGMENTS, diff, preflight, verify)


def _rescue(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """After a failure: the policy is not left trying."""
    return enforcing.taken_back(args, facts, done) or Finished()


def _internal(args: Mapping[str, Any], facts: Facts) -> list[str]:
    """Ports that the document asks for and that OVS has made itself, for want of such a card (H53)."""
    view = facts.value(f"node/{args['node']}/ovs")
    meant = documents.made_by_ovs(args["document"])
    return [
        f"{port} under {bridge}"
        for bridge, port in documents.ports_of(args["document"])
        if port not in (bridge, *meant) and view and ovs.is_internal(view, bridge, port)
    ]


@routine("enact-policy@1", rescue=_rescue, on_failure=enforcing.withdraw)
def enact(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Bring a policy into force on one node, and see what came of it on the node itself."""
    node, name = args["node"], args["policy"]
    if isinstance(fact := facts.get(f"node/{node}/ovs"), Unknown):
        return Stop(f"cannot tell how policy {name} stands on {node}: {fact.why}", unsure=True)
    if (upcoming := enforcing.enforced(args, facts, done)) is not None:
        return upcoming
    if strange := _internal(args, facts):
        return Stop(
            f"policy {name} is Available on {node}, and OVS made {', '.join(strange)} itself: the node has no such card (H53)"
        )
    return Finished(f"policy {name} is Available")
