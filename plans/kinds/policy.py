"""Policies of the cluster: those that a VMNetwork replaces go first, the one that holds it for good comes last.

The one invariant: at no moment do two policies that contradict each other match one node (H04). The replaced ones are
exported and deleted before the first node (deleting reverts nothing); each node then has one of its own; and the shared
one, for today's and tomorrow's nodes, is applied when every node is as it says. How that is done is in
`plans.nmstate.steps`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plans import ovs
from plans.actions import Action
from plans.changes import Blocked, Change, ClusterKind, Context, Outcome, Phase, Same, Survey
from plans.checks import Check
from plans.desired import Desired, NativePolicy, VMNetwork
from plans.facts import Absent, Facts, Known, Unknown
from plans.nmstate import documents, enactments, enforcing, names, policies
from plans.nmstate.former import former
from plans.nmstate.ownership import made_by_network_manager
from plans.nmstate.steps import AT_ONCE
from plans.selection import applies_to, is_there, nodes_of_policy, selected_nodes


def address(name: str) -> str:
    """The address of a policy."""
    return f"policy/{name}"


def diff(desired: Desired, facts: Facts, survey: Survey) -> list[Outcome]:
    """What becomes of each policy that the networks name or need."""
    outcomes: list[Outcome] = []
    for name, networks in _replaced(desired).items():
        last = any(n.is_labelled for n in desired.networks if n.name in networks)
        left = sorted({node for net in networks if last for node in survey.held.get(net, {})})
        gone = _diff_replaced(name, networks, facts, "epilogue" if last else "prologue", left)
        stays = _stays(name, [n for n in desired.networks if n.name in networks], facts, survey)
        outcomes.append(Blocked(gone.address, "", stays) if stays and isinstance(gone, Change) else gone)
    for network in desired.networks:
        if lacking := _no_nmstate(network, facts):
            outcomes.append(Blocked(address(names.shared_name(network)), "", (lacking,)))
        elif network.is_labelled:
            outcomes += _diff_labelled(network, facts, survey)
        else:
            shared = _diff_shared(network, facts, survey)
            outcomes += [*_out_of_the_way(network, facts, survey, shared), *([shared] if shared else [])]
    outcomes += _diff_former(desired, facts, survey, outcomes)
    for policy in desired.policies:
        outcomes += _diff_native(policy, facts, survey)
    return outcomes


def _no_nmstate(network: VMNetwork, facts: Facts) -> str:
    """Why no policy can be made where one is asked for; empty where none is, or nmstate is served."""
    delivery, served = network.spec.delivery, facts.get("cluster/nmstate")
    asked = delivery and (delivery.by == "nncp" or (network.is_labelled and delivery.by is None))
    if not asked or isinstance(served, Known):
        return ""
    if isinstance(served, Unknown):
        return f"cannot tell whether the cluster serves nmstate: {served.why}"
    return (
        "`delivery` asks for it, and the cluster serves no nmstate API: install the Kubernetes NMState Operator, "
        "or write `delivery: {by: ovsdb}`"
    )


def _diff_native(policy: NativePolicy, facts: Facts, survey: Survey) -> list[Outcome]:
    """A policy of the files: what it was before goes first, and it comes back, whole, when every node is as it says."""
    where, name = address(policy.name), policy.name
    if not isinstance(facts.get("cluster/nmstate"), Known):
        return []
    have = facts.value(where)
    nodes = nodes_of_policy(policy, facts)
    coming = [c for c in survey.changes if c.kind == "native" and c.data["policy"] == name]
    left = [own for node in nodes if policies.is_ours(facts, own := names.node_name(policy, node))]
    at_once = policy.spec.max_unavailable if policy.spec.max_unavailable is not None else AT_ONCE
    wanted = policies.body(name, policy.spec.node_selector, policy.spec.desired_state, at_once)
    if policies.is_applied(facts, wanted) and not coming and not left:
        return [Same(where, "")]
    if have and have["owner"]:
        return [Blocked(where, "", (f"{have['owner']} keeps it (H50): change it there",))]
    outcomes: list[Outcome] = []
    if have and not documents.same(have["document"], policy.spec.desired_state) and coming:
        outcomes.append(
            Change(
                address=where, kind="policy", node="", verb="-", before=_in_words(have["selector"], have["document"]), after="absent",
                why="it would contradict what each node gets meanwhile; its export is kept, and deleting it reverts nothing on a node",
                data={"policy": name, "do": "withdraw", "passing": True}, phase="prologue",
            )
        )  # fmt: skip
    if held := survey.held.get(policy.address):
        reasons = [
            f"it is for every node that it selects, and {node} will not be ready for it: {why}"
            for node, why in sorted(held.items())
        ]
        return [*outcomes, Blocked(where, "", tuple(reasons))]
    outcomes.append(
        Change(
            address=where, kind="policy", node="", verb="~" if have else "+",
            before=_in_words(have["selector"], have["document"]) if have else "absent",
            after=_in_words(policy.spec.node_selector, policy.spec.desired_state),
            why="it keeps its nodes as this plan makes them",
            data={"policy": name, "do": "finalise", "selector": dict(policy.spec.node_selector), "document": wanted["spec"]["desiredState"],
                  "at_once": at_once, "network": "", "nodes": nodes, "drop": sorted({*left, *(c.data["own"] for c in coming)})},
            phase="epilogue",
        )
    )  # fmt: skip
    return outcomes


def _diff_labelled(network: VMNetwork, facts: Facts, survey: Survey) -> list[Outcome]:
    """With labels two policies are there beforehand: each node is led from the one to the other by its label."""
    delivery = network.spec.delivery
    if delivery is None or delivery.label is None or not isinstance(facts.get("cluster/nmstate"), Known):
        return []
    final = _prepared(
        network,
        names.shared_name(network),
        {delivery.label: enforcing.DONE},
        policies.final_document(network),
        facts,
    )
    step = names.mapping_name(network)
    coming = [
        c for c in survey.changes if network.name in c.localnets and survey.choices[c.address].by == "nncp"
    ]
    if not coming and not policies.is_ours(facts, step):
        return [final]
    mapped = documents.mapped(network.name, network.bridge)
    way = (
        _prepared(network, step, {delivery.label: enforcing.MAPPED}, mapped, facts)
        if coming
        else Same(address(step), "")
    )
    dropped = Change(
        address=address(step), kind="policy", node="", verb="-", before="selects no node any more", after="absent",
        why="it was for nodes on their way only", data={"policy": step, "do": "withdraw"}, localnets=(network.name,), phase="epilogue",
    )  # fmt: skip
    return [final, way, dropped]


def _prepared(
    network: VMNetwork, name: str, selector: Mapping[str, str], document: Mapping[str, Any], facts: Facts
) -> Outcome:
    """A policy that is to be there before the first node, selecting a label's value that no node has yet."""
    where = address(name)
    if isinstance(fact := facts.get(where), Unknown):
        return Blocked(where, "", (fact.why,))
    have = facts.value(where)
    if have and have["selector"] == selector and documents.same(have["document"], document):
        return Same(where, "")
    if have and not have["ours"] and name != names.shared_name(network):
        reason = f"there is another policy of that name: {_in_words(have['selector'], have['document'])}. Choose another `delivery.policy`"
        return Blocked(where, "", (reason,))
    if have and have["owner"]:
        return Blocked(
            where,
            "",
            (f"{have['owner']} keeps it, and it is: {_in_words(have['selector'], have['document'])} (H50)",),
        )
    return Change(
        address=where, kind="policy", node="", verb="~" if have else "+",
        before=_in_words(have["selector"], have["document"]) if have else "absent", after=_in_words(selector, document),
        why="a node comes under it when its label says so",
        data={"policy": name, "do": "prepare", "selector": dict(selector), "document": dict(document), "network": network.name,
              "passing": name != names.shared_name(network)},
        localnets=(network.name,), phase="prologue",
    )  # fmt: skip


def _replaced(desired: Desired) -> dict[str, list[str]]:
    """Each policy that is to be taken away, and the localnets that replace it."""
    found: dict[str, list[str]] = {}
    for network in desired.networks:
        for name in network.spec.replaces.policies if network.spec.replaces else ():
            if name not in names.written(network):
                found.setdefault(name, []).append(network.name)
    return dict(sorted(found.items()))


def _diff_replaced(
    name: str, networks: Sequence[str], facts: Facts, phase: Phase, left: Sequence[str]
) -> Outcome:
    """A policy that is taken away; with labels, at the end, and not while nodes are `left` under it."""
    where = address(name)
    match facts.get(where):
        case Absent():
            return Same(where, "")
        case Unknown(why):
            return Blocked(where, "", (why,))
    have = facts.value(where)
    if have["owner"]:
        reason = f"{have['owner']} keeps it and would bring it back (H50): remove it there, then plan again"
        return Blocked(where, "", (reason,))
    enacted = facts.value(f"{where}/enacted-on", [])
    if still := [node for node in left if node in enacted]:
        return Blocked(
            where, "", (f"it goes when every node has left it, and {', '.join(still)} will not have",)
        )
    matching = f"enacted on {', '.join(enacted) or 'no node'}"
    return Change(
        address=where, kind="policy", node="", verb="-", before=f"{documents.in_words(have['document'])}; {matching}", after="absent",
        why=f"replaced by VMNetwork {' and '.join(networks)}; its export is kept, and deleting it reverts nothing on a node",
        data={"policy": name, "do": "withdraw"}, localnets=tuple(networks), phase=phase,
    )  # fmt: skip


def _stays(name: str, networks: Sequence[VMNetwork], facts: Facts, survey: Survey) -> tuple[str, ...]:
    """Why a policy that is to go is left where it is, in a line for each reason; empty when it goes.

    It goes for the nodes that leave it, and for those that it would lead back. Where some are held and there is none of these,
    it still holds its nodes as they are, and those that join.
    """
    held = {node: why for network in networks for node, why in survey.held.get(network.name, {}).items()}
    have = facts.value(address(name))
    moved = any(network.name in change.localnets for change in survey.changes for network in networks)
    if not held or not have or moved:
        return ()
    for node in policies.selected(facts, have["selector"]):
        if any(is_there(network, node, facts) for network in networks if applies_to(network, node, facts)):
            return ()
    return tuple(
        f"it goes when a node leaves it, and {node} will not: {why}" for node, why in sorted(held.items())
    )


def _diff_former(desired: Desired, facts: Facts, survey: Survey, others: Sequence[Outcome]) -> list[Outcome]:
    """What earlier runs made and nothing writes now: it goes last, behind what comes after it, or first if it is in the way."""
    coming = {o.address for o in others if not (isinstance(o, Change) and o.verb == "-")}
    outcomes: list[Outcome] = []
    for one in former(desired, facts):
        where, successor = address(one.name), address(names.shared_name(one.network))
        if not (one.single or one.in_the_way or successor in coming):
            continue  # nothing comes after it, and it holds what is declared
        have = facts.value(where)
        if have["owner"]:
            reason = f"an earlier run made it, and {have['owner']} keeps it (H50): remove it there"
            outcomes.append(Blocked(where, "", (reason,)))
            continue
        if stays := _stays(one.name, [one.network], facts, survey):
            outcomes.append(Blocked(where, "", stays))
            continue
        why = f"an earlier run made it for VMNetwork {one.network.name}, and none by that name is written now"
        outcomes.append(
            Change(
                address=where, kind="policy", node="", verb="-", before=_in_words(have["selector"], have["document"]), after="absent",
                why=f"{why}; its export is kept, and deleting it reverts nothing on a node",
                depends=(successor,) if successor in coming and not one.in_the_way else (),
                data={"policy": one.name, "do": "withdraw"}, localnets=(one.network.name,),
                phase="prologue" if one.in_the_way else "epilogue",
            )
        )  # fmt: skip
    return outcomes


def _out_of_the_way(
    network: VMNetwork, facts: Facts, survey: Survey, outcome: Outcome | None
) -> list[Outcome]:
    """The shared policy of an earlier migration, which says otherwise: it would contradict each node's own (H04).

    Where none is written any more (no `outcome`), it would lead each node back; there only what a run of this network made is taken away.
    """
    name = names.shared_name(network)
    have = facts.value(address(name))
    if not have or have["owner"]:
        return []  # one that others keep is named by a hazard
    moves = isinstance(outcome, Blocked) or (isinstance(outcome, Change) and bool(outcome.data["drop"]))
    leads_back = outcome is None and have["ours"] and have["network"] == network.name
    said = documents.contradictions(have["document"], policies.final_document(network))
    if not said or not (moves or leads_back):
        return []
    if stays := _stays(name, [network], facts, survey):
        return [] if outcome else [Blocked(address(name), "", stays)]
    why = "would lead each node back" if leads_back else "would contradict what each node gets meanwhile"
    return [
        Change(
            address=address(name), kind="policy", node="", verb="-", before=_in_words(have["selector"], have["document"]), after="absent",
            why=f"it {why}; its export is kept, and deleting it reverts nothing on a node",
            data={"policy": name, "do": "withdraw", "passing": not leads_back}, localnets=(network.name,), phase="prologue",
        )
    ]  # fmt: skip


def _diff_shared(network: VMNetwork, facts: Facts, survey: Survey) -> Outcome | None:
    """The shared policy; None when nmstate has no part in this network."""
    nodes = selected_nodes(network, facts)
    by_policy = _goes_by_policy(network, nodes, facts, survey)
    name = names.shared_name(network)
    where = address(name)
    if not by_policy:
        return None
    if isinstance(fact := facts.get(where), Unknown):
        return Blocked(where, "", (fact.why,))
    own = [names.node_name(network, node) for node in nodes]
    left = [policy for policy in own if policies.is_ours(facts, policy)]
    final = policies.final_document(network, with_bridge=not _has_more(network, nodes, facts))
    wanted = policies.body(name, network.selector, final, AT_ONCE)
    coming = [
        names.node_name(network, c.node)
        for c in survey.changes
        if network.name in c.localnets and survey.choices[c.address].by == "nncp"
    ]
    if policies.is_applied(facts, wanted) and not left and not coming:
        return Same(where, "")
    if held := survey.held.get(network.name):
        reasons = [
            f"it is for every node, and {node} will not be ready for it: {why} (H07)"
            for node, why in sorted(held.items())
        ]
        return Blocked(where, "", tuple(reasons))
    if others := [node for node in nodes if node not in by_policy]:
        reason = (
            f"it is for every node, and nmstate does not look after {network.bridge} on {', '.join(others)}"
        )
        return Blocked(where, "", (reason,))
    have = facts.value(where)
    return Change(
        address=where, kind="policy", node="", verb="~" if have else "+", before=_in_words(have["selector"], have["document"]) if have else "absent",
        after=_in_words(network.selector, wanted["spec"]["desiredState"]),
        why="it keeps today's nodes, and those that come, as this plan makes them; one node at a time",
        data={"policy": name, "do": "finalise", "selector": dict(network.selector), "document": wanted["spec"]["desiredState"],
              "at_once": AT_ONCE, "network": network.name,
              "nodes": nodes, "drop": sorted({*left, *coming})},
        localnets=(network.name,), phase="epilogue",
    )  # fmt: skip


def _in_words(selector: Mapping[str, str], document: Mapping[str, Any]) -> str:
    labels = ", ".join(f"{key}={value}" if value else key for key, value in sorted(selector.items()))
    return (
        f"{documents.in_words(document)} (nodes with {labels})"
        if labels
        else f"{documents.in_words(document)} (every node)"
    )


def _has_more(network: VMNetwork, nodes: Sequence[str], facts: Facts) -> bool:
    """Whether the bridge has ports on some node that the files do not name: a policy with a port list takes them off."""
    for node in nodes:
        view: ovs.View = facts.value(f"node/{node}/ovs") or {"bridges": {}}
        ports = view["bridges"].get(network.bridge, {}).get("ports", {})
        others = set(ports) - {network.bridge, *ovs.patch_ports(view, network.bridge), *network.ports}
        if others or any(len(port["interfaces"]) > 1 for port in ports.values()):
            return True
    return False


def _goes_by_policy(network: VMNetwork, nodes: Sequence[str], facts: Facts, survey: Survey) -> list[str]:
    """The nodes on which nmstate can hold the network's mapping: NetworkManager made its bridge, a handler reports."""
    delivery = network.spec.delivery
    if not isinstance(facts.get("cluster/nmstate"), Known) or (delivery and delivery.by == "ovsdb"):
        return []
    made = {
        c.node
        for c in survey.changes
        if c.bridge == network.bridge and survey.choices[c.address].by == "nncp"
    }
    return [
        node
        for node in nodes
        if (made_by_network_manager(facts, node, network.bridge) or node in made)
        and isinstance(facts.get(f"node/{node}/nmstate/version"), Known)
    ]


def fragment(change: Change, context: Context) -> Action:
    """The action that takes a policy away, or writes the shared one."""
    name, data = change.data["policy"], change.data
    if data["do"] == "withdraw":
        return Action(
            id=f"policy/{name}/withdraw", routine="withdraw-policy@1", title=f"export policy {name}, then delete it",
            address=change.address, args={"policy": name, "nodes": context.facts.value(f"policy/{name}/enacted-on", [])},
            reads=(f"policy:{name}",), expect=(Check(f"policy/{name}", "present", why="the policy that the plan saw"),),
            done_when=(Check(f"policy/{name}", "absent"),),
            no_undo="deleting it changed nothing on any node; its export is in the inventory. Put back while a node is migrated, it would undo that node (H04)",
        )  # fmt: skip
    if data["do"] == "prepare":
        args = {key: data[key] for key in ("policy", "selector", "document", "network")}
        facts, selected = context.facts, policies.selected(context.facts, data["selector"])
        moved = [node for node in selected if policies.not_yet(facts, node, data["document"])]
        return Action(
            id=f"policy/{name}/prepare", routine="prepare-policy@1", title=f"have policy {name} there, for nodes with its label",
            address=change.address, args={**args, "selected": selected}, reads=(f"policy:{name}", "nodes"),
            done_when=(Check(f"policy/{name}", "present"),),
            no_undo=f"{', '.join(moved)} came under it with that" if moved else "it selects no node that is not as it says",
            disruption="vm-traffic" if moved else "none", vms=tuple(sorted({vm for node in moved for vm in facts.value(f"node/{node}/vms", [])})),
            deadline=enactments.EDIT_DEADLINE + (enactments.SEEN_DEADLINE + enactments.APPLY_DEADLINE) * max(1, len(selected)),
        )  # fmt: skip
    return Action(
        id=f"policy/{name}/finalise", routine="finalise-policy@1",
        title=f"apply policy {name} for all nodes, then drop {len(data['drop'])} of single nodes",
        address=change.address,
        args={key: data[key] for key in ("policy", "selector", "document", "at_once", "network", "nodes", "drop")},
        reads=("policies", "nodes"),
        no_undo="every node was as it says already: it changed nothing",
        deadline=enactments.EDIT_DEADLINE + (enactments.SEEN_DEADLINE + enactments.APPLY_DEADLINE) * max(1, len(data["nodes"])),
    )  # fmt: skip


def verify(change: Change, context: Context) -> tuple[Check, ...]:
    """The policy is there, or is gone; and what one for good maps is mapped on each of its nodes."""
    data, facts = change.data, context.facts
    if data.get("passing"):
        return ()
    if data["do"] == "withdraw":
        return (
            Check(change.address, "absent", why="this run took it away; with it back, it is obeyed again"),
        )
    there = Check(change.address, "present")
    if data["do"] != "finalise":
        return (there,)
    readable = [node for node in data["nodes"] if isinstance(facts.get(f"node/{node}/ovs"), Known)]
    pairs = sorted(documents.mapped_pairs(data["document"]).items())
    return (there, *(Check(f"node/{node}/ovs/mapping/{n}", "eq", to) for node in readable for n, to in pairs))


def afterwards(desired: Desired, facts: Facts, changes: Sequence[Change]) -> tuple[str, ...]:
    """What a node that comes later needs, where its label says which policy it obeys."""
    touched = {localnet for change in changes for localnet in change.localnets}
    return tuple(
        f"A node that comes later is held by policy {names.shared_name(network)} once it has {network.bridge} and the label: "
        f"`oc label node NODE {network.spec.delivery.label}={enforcing.DONE}`, or `ovsplan apply` again, which proves it too."
        for network in desired.networks
        if network.is_labelled and network.spec.delivery and network.name in touched
        if isinstance(facts.get("cluster/nmstate"), Known)
    )  # fmt: skip


KIND = ClusterKind("policy", fragment, diff, verify, afterwards=afterwards)
