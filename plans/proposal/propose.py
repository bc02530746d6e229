"""From facts and a wish to files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plans.desired import load_desired, names
from plans.document import Plan, Target
from plans.errors import InputError
from plans.facts import Facts
from plans.networks import listed
from plans.planner import VIEWS as PLANNED
from plans.planner import make_plan
from plans.proposal.delivery import delivered
from plans.proposal.draft import Draft
from plans.proposal.networks import MOST, attachments_of, with_networks
from plans.proposal.nodes import about_nodes, new_nodes, select
from plans.proposal.seen import Seen, look, who_made
from plans.proposal.wish import Wish, check, movers_of
from plans.writing import Entry, document

VIEWS = (*PLANNED, "nads")
"""What a proposal looks at; beside these, everything that a plan reads of a node, of each node."""

ROLLOUT = "rollout.yaml"


@dataclass(frozen=True, slots=True)
class Proposal:
    """The files, by name; why localnets are `left_out`; and the plan that the files lead to."""

    files: Mapping[str, str]
    left_out: tuple[str, ...]
    plan: Plan


def propose(facts: Facts, target: Target, wish: Wish) -> Proposal:
    """The documents for what the facts tell. Pure.

    Raises InputError (a wish that fits nothing here, or there is nothing to declare) or PlanError (nothing could be read).
    """
    seen = look(facts)
    check(wish, seen)
    movers = movers_of(wish, seen)
    left_out: list[str] = []
    drafts: list[Draft] = []
    taken: dict[str, Mapping[str, Any]] = {}
    for localnet in sorted({*(wish.localnets or seen.localnets), *movers}):
        try:
            draft = _draft(localnet, wish if localnet in movers else Wish(), seen, target)
        except ValueError as error:
            left_out.append(f"localnet {localnet}: {error}")
            continue
        draft = with_networks(draft, facts, taken)
        drafts.append(delivered(draft, facts, target))
    left_out += [
        f"localnet {localnet}: NADs name it, and no node maps it. To map it: --localnet {localnet} --bridge BRIDGE"
        for localnet in seen.named
        if localnet not in movers and not wish.localnets
    ]
    if not drafts:
        raise InputError("\n".join([_nothing(seen), *left_out]))
    files = {draft.file: draft.text for draft in drafts} | {ROLLOUT: _rollout(drafts, facts)}
    return Proposal(files, tuple(left_out), make_plan(load_desired(list(files.items())), facts, target))


def _nothing(seen: Seen) -> str:
    where = f" on {listed(sorted(seen.pairs))}"
    return f"there is nothing to declare: no localnet of VMs can be told{where}. On a new cluster: --localnet NAME --bridge BRIDGE"


def _draft(localnet: str, wish: Wish, seen: Seen, target: Target) -> Draft:
    """What a localnet is on, and on which nodes. Raises ValueError: why it can't be declared."""
    names.localnet_name(localnet)
    homes = seen.homes(localnet)
    bridge = wish.bridge or Counter(sorted(homes.values())).most_common(1)[0][0]
    names.bridge_to_ride_on(bridge)
    fit = [node for node, home in homes.items() if wish.bridge or home == bridge]
    if not homes:
        fit = new_nodes(bridge, seen)
    selector, covered = select(fit, seen)
    if not covered:
        raise ValueError(f"no label tells {listed(fit)} from the other nodes. Label them, and try again")
    if not set(covered) & set(seen.with_bridge(bridge)):
        told = f"{listed(covered)} {'have' if len(covered) > 1 else 'has'} no bridge {bridge}"
        raise ValueError(told if wish.bridge else f"{told}, to which it is mapped. --bridge BRIDGE moves it")
    draft = Draft(
        localnet, bridge, selector, covered, bool(wish.bridge), tuple(_header(localnet, homes, target))
    )
    draft = draft.saying("nodes", *about_nodes(draft, fit, homes, seen))
    draft = draft.saying("bridge", *who_made(bridge, covered, seen.facts))
    if wish.replaces:
        draft = replace(draft, replaces={"bridge": wish.replaces})
        draft = draft.saying("replaces", *who_made(wish.replaces, covered, seen.facts))
    return draft


def _header(localnet: str, homes: Mapping[str, str], target: Target) -> Iterator[str]:
    yield f"The localnet {localnet} (physicalNetworkName in the NADs), as `ovsplan init` found it. Target: {target.title}."
    on: dict[str, list[str]] = defaultdict(list)
    for node, bridge in homes.items():
        on[bridge].append(node)
    told = [f"{bridge} on {listed(nodes)}" for bridge, nodes in on.items()]
    yield f"It is on {'; on '.join(told)}." if told else "No node maps it yet."


def _rollout(drafts: Sequence[Draft], facts: Facts) -> str:
    """A Rollout that leaves all as it is by default, with the other way written out."""
    header = (
        "How the rollout goes, once. It may be removed afterwards, and changes no plan.",
        "As it stands, the nodes with the fewest VMs go first, and VMs stay while their traffic moves (hot, about 20 ms).",
        "To move them away first (cold), take the `{}` off spec, and the `# ` off evacuate and what is below it.",
    )
    nodes = [(node, draft) for draft in drafts for node in draft.covered]
    moving = [n for n, d in nodes if facts.value(f"node/{n}/ovs/mapping/{d.localnet}") != d.bridge]
    first = min(
        moving or [n for n, _ in nodes], key=lambda node: (len(facts.value(f"node/{node}/vms", [])), node)
    )
    stuck = _stuck(drafts, facts)
    evacuate: dict[str, Any] = {"default": "live-migrate"}
    told = []
    if stuck:
        evacuate["vms"] = {vm: "stay" for vm, _ in zip(stuck, range(MOST), strict=False)}
        told = [f"{vm} cannot migrate: {why}" for vm, why in zip(stuck, stuck.values(), strict=True)][:MOST]
        told += [f"and {len(stuck) - MOST} more"] if len(stuck) > MOST else []
        told.append(
            "`stay` keeps a VM there through a hot remap; `restart` stops it and starts it on another node"
        )
    evacuate["return"] = "origin"
    spec = (
        Entry(
            "order", {"canary": first, "then": "fewest-vms"}, ("the node that goes first, alone",), off=True
        ),
        Entry("evacuate", evacuate, tuple(told), block=True, off=True),
    )
    return document(header, "Rollout", "tonight", spec)


def _stuck(drafts: Sequence[Draft], facts: Facts) -> dict[str, str]:
    """The VMs on the localnets that can't migrate, and why."""
    vms = sorted({vm for draft in drafts for vm in attachments_of(draft.localnet, facts)})
    migratable = {vm: (facts.value(f"vm/{vm}") or {}).get("migratable", True) for vm in vms}
    return {vm: str(why) for vm, why in migratable.items() if why is not True}
