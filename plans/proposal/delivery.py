"""By which means a VMNetwork is held, and which policies go.

The one invariant: without a migration the first way is taken that changes nothing; the planner itself says which that is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from plans.desired import load_desired, names
from plans.document import Plan, Target
from plans.facts import Facts, Unknown
from plans.networks import listed
from plans.nmstate import documents, enforcing, policies
from plans.nmstate.names import shared_name
from plans.nmstate.ownership import made_by_network_manager
from plans.planner import make_plan
from plans.proposal.draft import Draft


def delivered(draft: Draft, facts: Facts, target: Target) -> Draft:
    """The draft with its delivery and the policies that go, each with the reason."""
    if isinstance(served := facts.get("cluster/nmstate"), Unknown):
        draft = draft.saying(
            "delivery", f"guessed: policies could not be read, so none is named: {served.why}"
        )
    if draft.moves:
        return _asked_for(draft, facts, target)
    plans: list[tuple[Draft, Plan]] = []
    for choice in _choices(draft, facts):
        plan = _planned(choice, facts, target)
        plans.append((choice, plan))
        if not _changes(plan):
            break
    else:
        # Whatever the delivery, something is not as it should be here: the plain document shows it best.
        plans = plans[:1]
    draft, plan = plans[-1]
    blocking = [finding.message for finding in plan.blocking()]
    return draft.saying("delivery", *blocking)


def _planned(draft: Draft, facts: Facts, target: Target) -> Plan:
    return make_plan(load_desired([(draft.file, draft.text)]), facts, target)


def _changes(plan: Plan) -> bool:
    return bool(plan.cluster or any(node.changes for node in plan.nodes))


def _choices(draft: Draft, facts: Facts) -> Iterator[Draft]:
    """Ways to declare what is there as it is; the first that changes nothing is taken."""
    made = [n for n in draft.covered if made_by_network_manager(facts, n, draft.bridge)]
    holders = _holders(draft, facts) if made else []
    for name in holders:
        gone = documents.removed_bridges(_document(facts, name))
        held = replace(draft, replaces={"bridge": gone[0]} if len(gone) == 1 else {})
        if name != _own_name(draft):
            held = replace(held, delivery={"policy": name})
        if held.replaces and not _can_go(gone[0], facts):
            continue
        kept = f"the policy {name} maps {draft.localnet} to {draft.bridge}: it is kept as it is"
        yield held.saying("delivery", kept)
        if label := _label_of(name, facts):
            led = {"policy": name, "strategy": "labelled", "label": label}
            yield replace(held, delivery=led).saying(
                "delivery", f"{kept}, and so is the label by which it is led"
            )
    yield draft
    keeper = f"the policy {listed(holders)} maps it" if holders else "no policy maps it"
    yield replace(draft, delivery={"by": "ovsdb"}).saying(
        "delivery",
        f"guessed: NetworkManager made {draft.bridge}, and {keeper}. Without this line ovsplan keeps a policy of its own, "
        f"{_own_name(draft)}, for these nodes",
    )


def _label_of(policy: str, facts: Facts) -> str:
    """The label whose value says of a node that it is done, if a policy selects by that alone."""
    selector = (facts.value(f"policy/{policy}") or {}).get("selector", {})
    return next((k for k, v in selector.items() if v == enforcing.DONE), "") if len(selector) == 1 else ""


def _can_go(bridge: str, facts: Facts) -> bool:
    """Whether a bridge may be named as replaced: it is nobody's but VMs', and no node maps anything to it."""
    try:
        names.bridge_to_replace(bridge)
    except ValueError:
        return False
    pairs = [facts.value(f"node/{node}/ovs/mappings", {}) for node in facts.value("cluster/nodes", [])]
    return not any(bridge in each.values() for each in pairs)


def _own_name(draft: Draft) -> str:
    return shared_name(load_desired([(draft.file, replace(draft, delivery={}).text)]).networks[0])


def _document(facts: Facts, policy: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (facts.value(f"policy/{policy}") or {}).get("document", {})
    return found


def _holders(draft: Draft, facts: Facts) -> list[str]:
    """The policies that map the localnet to the bridge; those of single nodes, which a run leaves behind, are none."""
    found = []
    for name in facts.value("cluster/policies") or []:
        have = facts.value(f"policy/{name}") or {}
        maps = documents.mapped_pairs(_document(facts, name)).get(draft.localnet) == draft.bridge
        if maps and policies.HOSTNAME not in have["selector"]:
            found.append(name)
    own = _own_name(draft)
    return sorted(found, key=lambda name: (name != own, name))


def _asked_for(draft: Draft, facts: Facts, target: Target) -> Draft:
    """The migration: the policy that says so already is adopted, those that say otherwise are replaced."""
    holders = _holders(draft, facts)
    if holders:
        if holders[0] != _own_name(draft):
            draft = replace(draft, delivery={"policy": holders[0]})
        draft = draft.saying("delivery", *_about_adopting(holders, draft, facts))
    old = draft.replaces.get("bridge")
    final = documents.mapped(draft.localnet, draft.bridge)
    final = documents.union(final, documents.without_bridge(old)) if old else final
    against = {
        name: reasons
        for name in facts.value("cluster/policies") or []
        if name not in holders[:1] and _selects(name, draft.covered, facts)
        and (reasons := documents.contradictions(final, _document(facts, name)))
    }  # fmt: skip
    told = [
        f"policy {name} says otherwise: {'; '.join(reasons)}{_kept(name, facts)}"
        for name, reasons in against.items()
    ]
    if old and against:
        draft = replace(draft, replaces={**draft.replaces, "policies": sorted(against)})
        draft = draft.saying("replaces", *told)
    elif told:
        draft = draft.saying("bridge", *told, "with --replace BRIDGE such a policy is replaced too (H04)")
    return draft.saying("delivery", *_means(_planned(draft, facts, target), draft.localnet))


def _selects(policy: str, nodes: Sequence[str], facts: Facts) -> bool:
    selector = (facts.value(f"policy/{policy}") or {}).get("selector", {}).items()
    return any(selector <= facts.value(f"node/{node}/labels", {}).items() for node in nodes)


def _kept(policy: str, facts: Facts) -> str:
    owner = (facts.value(f"policy/{policy}") or {}).get("owner")
    return f". {owner} keeps it: it has to be removed there first (H50)" if owner else ""


def _about_adopting(holders: Sequence[str], draft: Draft, facts: Facts) -> Iterator[str]:
    name = holders[0]
    selector = (facts.value(f"policy/{name}") or {}).get("selector", {})
    labels = (
        ", ".join(f"{key}={value}" if value else key for key, value in sorted(selector.items()))
        or "every node"
    )
    yield f"the policy {name} maps {draft.localnet} to {draft.bridge} already ({labels}): it becomes the one for all nodes"
    if holders[1:]:
        yield f"guessed: {listed(holders[1:])} map it too"
    for key, value in sorted(selector.items()):
        if value == enforcing.DONE:
            yield (
                f"each node gets a policy of its own on its way. To lead it by the label {key} instead: "
                f"{{policy: {name}, strategy: labelled, label: {key}}}"
            )


def _means(plan: Plan, localnet: str) -> Iterator[str]:
    """By which means the nodes go and why, as the plan says it; nodes of one kind together."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for node in plan.nodes:
        for change in node.changes:
            if change.address.endswith(f"/mapping/{localnet}"):
                kinds[f"the mapping goes by {change.delivery}: {change.delivery_why}"].append(node.node)
    for what, nodes in kinds.items():
        yield what if len(kinds) == 1 else f"{listed(nodes)}: {what}"
