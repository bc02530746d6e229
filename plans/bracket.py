"""Bracket: the round of one node, from preflight to its VMs' return, around the actions that a delivery made.

Hot or cold follows from the rollout, never from who happens to be on the node at plan time: no `evacuate` is hot
(cordon only, so that the set of MACs stands still); `evacuate` is cold, but hot for VMs that stay. A node whose VMs
are dark already (its old bridge has no uplink, or a patch pair is broken) is remapped at once, evacuating nobody; so
is one on which no VM is on a localnet that is new there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from plans.actions import Action, Need
from plans.changes import NOTHING_TO_LOSE, Change, Choice, Context, Shape
from plans.checks import Check
from plans.delivery import compose
from plans.desired import Desired, Evacuate
from plans.diff import NodeDiff
from plans.facts import Facts, Known
from plans.guests import guests, vms_on
from plans.kinds import KINDS
from plans.maintenance import (
    budgets,
    canary,
    checkpoints,
    cordon,
    evictions,
    migrations,
    pings,
    proof,
    reboot,
)
from plans.maintenance.migrations import AT_ONCE, Leavers
from plans.maintenance.ways import Way, at_once, can_migrate, late, way_out

NOTHING_MOVES = "no VM traffic moves"
"""Why a node needs no round of its own shape; what VMs notice all the same is the link of a card."""


@dataclass(frozen=True, slots=True)
class Bracket:
    """The actions of one node in order, and why they have this shape.

    `lasting`: the checks that must still hold at the end of the run (patch pairs come and go with VMs, and are none).
    `ways`: how each VM that leaves does so. `proof`: by what the new path is proven, in words.
    """

    node: str
    shape: Shape
    why: str
    actions: tuple[Action, ...]
    leaving: tuple[str, ...] = ()
    staying: tuple[str, ...] = ()
    dark: tuple[str, ...] = ()
    cordoned_by_others: bool = False
    lasting: tuple[Check, ...] = ()
    ways: tuple[Way, ...] = ()
    proof: str = ""

    @property
    def reboots(self) -> bool:
        """Whether the node itself restarts."""
        return any(action.routine == "reboot@1" for action in self.actions)

    @property
    def has_canary(self) -> bool:
        """Whether a pod proves the node's new path."""
        return any(action.routine == "canary@1" for action in self.actions)


def bracket(found: NodeDiff, desired: Desired, facts: Facts, choices: Mapping[str, Choice]) -> Bracket:
    """Everything that is done on one node, as a chain."""
    node, changes = found.node, found.changes
    localnets = tuple(sorted({c.traffic.localnet for c in changes if c.traffic}))
    evacuate = desired.rollout.spec.evacuate if desired.rollout else None
    users = vms_on(facts, node, localnets)
    shape, why, staying = _shape(changes, users, evacuate)
    reboots = evacuate is not None and evacuate.reboot is True and shape == "cold"
    here = sorted(facts.value(f"node/{node}/vms", [])) if reboots else users
    evacuates = evacuate is not None and shape not in NOTHING_TO_LOSE and bool(localnets)
    leaving = tuple(vm for vm in here if vm not in staying) if evacuates else ()
    ways = tuple(way_out(vm, facts, evacuate) for vm in leaving) if evacuate else ()
    context = Context(facts, shape, frozenset(leaving), desired)
    outsider = facts.value(f"node/{node}/unschedulable") is True
    why += _of_the_reboot(evacuate, shape)
    cordons = not outsider and bool(localnets)
    back = () if outsider else _returning(ways, facts, evacuate, shape)
    asked = pings.of_node(node, localnets, desired, facts, [vm for vm in leaving if vm not in back])
    delivered = compose(changes, choices, context)
    proven = [check for c in changes for check in KINDS[c.kind].verify(c, context)]
    seen = _canary_networks(changes, desired, facts, shape)
    image = canary.image_of(node, desired, facts) if seen else None
    chain = [
        checkpoints.preflight(node, _preflight_checks(found, facts, evacuates)),
        *([pings.before(node, asked.pings)] if asked.pings else []),
        *([cordon.cordon(node)] if cordons else []),
        *(
            _evacuation(node, localnets, ways, here, facts, evacuate, reboots)
            if evacuate and evacuates
            else []
        ),
        *([evictions.evict(node, facts)] if evacuate and evacuates and evacuate.pods == "evict" else []),
        *_with_proof(node, delivered, changes, context, asked, [vm for vm in back if vm in users]),
        *([checkpoints.verify(node, proven)] if proven else []),
        *(
            [
                reboot.reboot(node, own_cordon=cordons, limits=budgets.args(node, facts, evacuate)),
                reboot.settle(node, proven),
            ]
            if evacuate and reboots
            else []
        ),
        *([canary.prove(node, seen, image)] if image else []),
        *([cordon.uncordon(node)] if cordons else []),
        *_returns(node, changes, ways, back, users, shape, canary.is_whole(seen), asked),
    ]
    dark = tuple(here) if shape == "orphaned" else ()
    lasting = tuple(check for check in proven if "/patch/" not in check.path)
    chained = tuple(_chained(chain))
    return Bracket(
        node, shape, why, chained, leaving, tuple(staying), dark, outsider, lasting, ways,
        _proof(chained, localnets, asked, image, seen) if _has_canary(desired) or _is_unproven(chained, leaving) or asked.are_told else "",
    )  # fmt: skip


def _has_canary(desired: Desired) -> bool:
    return desired.rollout is not None and desired.rollout.spec.proof is not None


def _canary_networks(
    changes: Sequence[Change], desired: Desired, facts: Facts, shape: Shape
) -> list[dict[str, Any]]:
    """What a canary is put on: nothing where none is asked for, or where VMs are there to be seen."""
    if not _has_canary(desired) or shape != "cold":
        return []
    bridges = {c.traffic.localnet: c.traffic.bridge for c in changes if c.traffic}
    return canary.networks(bridges, desired, facts)


def _is_unproven(chain: Sequence[Action], leaving: Sequence[str]) -> bool:
    """Whether VMs leave and nothing is seen of the path before they are back: that has to be said."""
    return bool(leaving) and not any(action.id.endswith(("/prove", "/canary")) for action in chain)


def _proof(
    chain: Sequence[Action],
    localnets: Sequence[str],
    asked: pings.Asked,
    image: canary.Image | None,
    seen: Sequence[Mapping[str, Any]],
) -> str:
    """By what the node's new path is proven, as people read it; empty where nothing moves."""
    routines = {action.routine for action in chain}
    if not localnets:
        return ""
    means = [
        ("canary@1", f"a canary before VMs return{image.words if image else ''}"),
        ("prove-by-return@1", "the first VM that returns"),
        ("prove@1", "the traffic of the VMs on it"),
    ]
    found = [words for name, words in means if name in routines]
    found = found or ["what the node itself says; VM traffic is not seen"]
    left_open = canary.not_proven(seen)
    left_open = f"by the canary {left_open}" if left_open else ""
    if asked.pings:
        return "; ".join(filter(None, [", then ".join([*found, pings.words(asked)]), left_open]))
    return "; ".join(filter(None, [", then ".join(found), pings.words(asked), left_open]))


def _shape(
    changes: Sequence[Change], here: Sequence[str], evacuate: Evacuate | None
) -> tuple[Shape, str, tuple[str, ...]]:
    staying = tuple(vm for vm in here if evacuate and evacuate.leaving(vm) == "stay")
    moves = [c.traffic for c in changes if c.traffic]
    if not moves:
        return "hot", NOTHING_MOVES, ()
    if not here and all(move.source is None for move in moves):
        return "new", "no VM is on what is mapped here for the first time", ()
    if all(move.dark for move in moves):
        return "orphaned", "; ".join(dict.fromkeys(move.dark for move in moves)) + ": remapped at once", ()
    if not evacuate:
        return "hot", "the rollout does not evacuate: VMs stay while their traffic moves", ()
    if staying:
        return (
            "hot",
            f"{', '.join(staying)} {'stays' if len(staying) == 1 else 'stay'} while the others leave",
            staying,
        )
    return "cold", "the rollout evacuates the node first", ()


def _of_the_reboot(evacuate: Evacuate | None, shape: Shape) -> str:
    """Where the rollout reboots nodes: whether this one is, for only one that is emptied may be."""
    if evacuate is None or not evacuate.reboot:
        return ""
    return (
        ", and reboots it once it is changed" if shape == "cold" else "; not rebooted, as it is not emptied"
    )


def _preflight_checks(found: NodeDiff, facts: Facts, evacuates: bool) -> list[Check]:
    at = f"node/{found.node}"
    others = sorted(set(facts.value("cluster/not-ready", [])))
    checks = [
        Check(f"{at}/ready", "eq", True, "a node that is not Ready is not touched"),
        Check("cluster/not-ready", "subset_of", others, "H18: another node went down since the plan"),
        Check(
            "cluster/rollouts",
            "subset_of",
            [],
            "H18: machines are being updated, which takes nodes down too",
        ),
    ]
    if evacuates:
        held = sorted({*facts.value("cluster/cordoned", []), found.node})
        checks.append(
            Check(
                "cluster/cordoned",
                "subset_of",
                held,
                "H18: a node was cordoned since the plan, which counted on its room",
            )
        )
    for change in found.changes:
        checks += KINDS[change.kind].preflight(change, facts)
    if isinstance(facts.get(f"{at}/ovs/mapping/physnet"), Known):
        checks.append(Check(f"{at}/ovs/mapping/physnet", "present", why="H01: it is the node's own way out"))
    return checks


def _evacuation(
    node: str,
    localnets: Sequence[str],
    ways: Sequence[Way],
    here: Sequence[str],
    facts: Facts,
    evacuate: Evacuate,
    everyone: bool,
) -> list[Action]:
    back = "they return" if evacuate.return_to == "origin" else "they stay where they land"
    limit = at_once(facts, AT_ONCE)
    number = {1: "one", 2: "two", 3: "three"}.get(limit, str(limit))
    nets = "" if everyone else f"of {', '.join(localnets)} "
    by_restart = {"restart": ", by a restart", "stay": "; others stay"}.get(evacuate.default, "")
    rule = f"every VM {nets}on {node}, {number} at a time, to any schedulable node{by_restart}; {back}"
    leaving = {way.vm for way in ways}
    stays = sorted(
        {vm for vm in here if vm not in leaving} | {vm for vm, how in evacuate.vms.items() if how == "stay"}
    )
    who = Leavers(
        migrating=tuple(way.vm for way in ways if way.how == "live-migrate"),
        restarting=tuple(way.vm for way in ways if way.how == "restart"),
        staying=tuple(stays), late=late(facts, evacuate, localnets, everyone), default=evacuate.default,
        exceptions=evacuate.vms, at_once=limit, everyone=everyone,
    )  # fmt: skip
    return [migrations.evacuate(node, localnets, who, here, rule)]


def _with_proof(
    node: str,
    delivered: Sequence[Action],
    changes: Sequence[Change],
    context: Context,
    asked: pings.Asked,
    returning: Sequence[str],
) -> list[Action]:
    """Hot: the proof stands between the remap and the removal of the old bridge, while there is a way back."""
    moves = {c.address: c.traffic for c in changes if c.traffic}
    if not moves or context.shape == "cold":
        return list(delivered)
    remaps = [a for a in delivered if a.address in moves]
    bridges = {moves[a.address].localnet: moves[a.address].bridge for a in remaps}
    proven_by = {moves[a.address].localnet: a.id for a in remaps}
    wanted = {need.action for a in remaps for need in a.needs}
    first = [a for a in delivered if a.address not in moves and a.id in wanted]
    rest = [a for a in delivered if a.address not in moves and a.id not in wanted]
    here = asked.but(context.away)
    return [*first, *remaps, proof.hot(node, bridges, proven_by, here, returning), *rest]


def _returns(
    node: str,
    changes: Sequence[Change],
    ways: Sequence[Way],
    returning: Sequence[str],
    users: Sequence[str],
    shape: str,
    is_proven: bool,
    asked: pings.Asked,
) -> list[Action]:
    restarted = tuple(w.vm for w in ways if w.how == "restart" and w.vm in returning)
    if not returning:
        return []
    returning = tuple(sorted(returning, key=lambda vm: not asked.of([vm])))
    mine = asked.of(returning)
    proving = tuple(vm for vm in returning if vm in users)
    if shape == "hot" or is_proven or not proving:
        last = [pings.after_return(node, mine)] if mine else []
        return [migrations.bring_back(node, returning, restarted), *last]
    others = asked.of([vm for vm in returning if vm != proving[0]])
    bridges = {c.traffic.localnet: c.traffic.bridge for c in changes if c.traffic}
    return [
        proof.first_return(node, bridges, proving, mine),
        *([migrations.bring_back(node, returning, restarted)] if len(returning) > 1 else []),
        *([pings.after_return(node, others)] if others else []),
    ]


def _returning(ways: Sequence[Way], facts: Facts, evacuate: Evacuate | None, shape: str) -> tuple[str, ...]:
    """The VMs that leave and come back."""
    if not evacuate or shape in NOTHING_TO_LOSE or evacuate.return_to == "none":
        return ()
    return tuple(w.vm for w in ways if w.how == "live-migrate" or can_migrate(w.vm, facts) is True)


def _chained(chain: Sequence[Action]) -> list[Action]:
    """Each action needs the one before it, besides what it needs anyway."""
    linked: list[Action] = []
    for action in chain:
        if linked:
            before = Need(linked[-1].id, "one step at a time within a node")
            known = {need.action for need in action.needs}
            action = replace(action, needs=(*action.needs, *([before] if before.action not in known else [])))
        linked.append(action)
    return linked


def node_order(brackets: Sequence[NodeDiff], desired: Desired, facts: Facts) -> list[str]:
    """The order of nodes: those whose VMs are dark now, before any node is evacuated onto them; then the user's list, or
    the canary, fewest VMs of the networks, and name.
    """
    dark = {
        b.node
        for b in brackets
        if (moves := [c.traffic for c in b.changes if c.traffic]) and all(m.dark for m in moves)
    }
    return sorted(
        _wanted_order([b.node for b in brackets], desired, facts), key=lambda node: node not in dark
    )


def _wanted_order(names: Sequence[str], desired: Desired, facts: Facts) -> list[str]:
    order = desired.rollout.spec.order if desired.rollout else None
    localnets = tuple(n.name for n in desired.networks)
    weight = {n: sum(len({g.vm for g in guests(facts, n, net)}) for net in localnets) for n in names}
    by_default = sorted(names, key=lambda n: (weight[n], n))
    if order is None:
        return by_default
    if isinstance(order, tuple):
        return [n for n in order if n in names] + [n for n in by_default if n not in order]
    rest = by_default if order.then == "fewest-vms" else sorted(names)
    return [n for n in names if n == order.canary] + [n for n in rest if n != order.canary]
