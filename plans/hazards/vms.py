"""Hazards of VMs and pods: those that can't leave, where those that leave find room, and what carries them there."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

from plans.bracket import Bracket
from plans.desired import VMNetwork
from plans.document import Finding
from plans.facts import Absent, Facts, Known
from plans.hazards import Scene
from plans.labels import meets
from plans.maintenance.evictions import pods_of
from plans.maintenance.power import STRATEGIES
from plans.maintenance.ways import Way, can_migrate, cannot_restart
from plans.selection import applies_to


def cannot_leave(scene: Scene) -> list[Finding]:
    """H14: a VM that cannot leave as the rollout says would hang the evacuation for ever, or be shut down by a drain."""
    return [
        Finding(
            "H14", "block", bracket.node, (f"vm/{way.vm}",), f"{way.vm} on {bracket.node} cannot {why}",
            f"{out}. Accepted: {bracket.node} is left out", leaves_out=_changes_of(scene, bracket),
        )
        for bracket in scene.brackets
        for way in bracket.ways
        for why, out in _obstacles(scene.facts, bracket.node, way)
    ]  # fmt: skip


def _changes_of(scene: Scene, bracket: Bracket) -> tuple[str, ...]:
    return tuple(c.address for c in next(d.changes for d in scene.diffs if d.node == bracket.node))


def _obstacles(facts: Facts, node: str, way: Way) -> list[tuple[str, str]]:
    """What keeps a VM from leaving in its way, and the way out of that."""
    if way.how == "restart":
        why = cannot_restart(way.vm, facts)
        found = [(f"restart elsewhere: {why}", "let it stay, or shut it down first")] if why else []
        run = facts.value(f"machine/{way.vm}/run")
        if not why and run not in STRATEGIES:
            found.append(
                (
                    f"be given back its run strategy {run}, which this version does not know",
                    "let it stay, or restart it by hand",
                )
            )
    else:
        migratable = can_migrate(way.vm, facts)
        found = (
            []
            if migratable is True
            else [
                (
                    f"live-migrate ({migratable})",
                    f"let it stay through a hot remap: rollout spec.evacuate.vms: {{{way.vm}: stay}}; or shut it down first",
                )
            ]
        )
    label = _kept_here(facts, node, way.vm)
    if label:
        found.append(
            (
                f"run on any other node: {label}",
                f"give another node that label, or let it stay: rollout spec.evacuate.vms: {{{way.vm}: stay}}",
            )
        )
    return found


def _kept_here(facts: Facts, node: str, vm: str) -> str:
    """The label by which a VM fits no other node that takes VMs; empty when it fits one, or there is none at all."""
    found = facts.value(f"vm/{vm}") or {}
    selector, terms = found.get("selector") or {}, found.get("terms") or []
    if not (selector or terms):
        return ""  # most VMs: the nodes are gone through for the others alone
    others = [n for n in _takers(facts) if n != node]
    if not others:
        return ""
    labels = {n: facts.value(f"node/{n}/labels") or {} for n in others}
    if selector and not any(selector.items() <= labels[n].items() for n in others):
        return "its nodeSelector asks for " + ", ".join(f"{k}={v}" for k, v in sorted(selector.items()))
    if terms and not any(_fits(terms, labels[n]) for n in others):
        keys = sorted({rule["key"] for term in terms for rule in term.get("matchExpressions") or ()})
        return f"its node affinity asks for {', '.join(keys)}"
    return ""


def _fits(terms: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> bool:
    """Whether a node with these labels meets any of the terms. What this can't read (fields, Gt, Lt) is held to fit."""
    return any(all(meets(rule, labels) for rule in term.get("matchExpressions") or ()) for term in terms)


def restarted_again(scene: Scene) -> list[Finding]:
    """H14: a VM that stays where it was started, which may be on a node that is emptied later: another outage there."""
    evacuate = scene.desired.rollout.spec.evacuate if scene.desired.rollout else None
    if evacuate is None:
        return []
    stays = evacuate.return_to == "none"
    return [
        Finding(
            "H14", "warn", bracket.node, (f"vm/{way.vm}",),
            f"{way.vm} may start on {' or '.join(later)}, and is then stopped and started again when that is emptied",
            "put the nodes where it fits before this one in spec.order, or be ready for more than one outage",
        )
        for number, bracket in enumerate(scene.brackets)
        if (later := [b.node for b in scene.brackets[number + 1 :] if b.shape == "cold"])
        for way in bracket.ways
        if way.how == "restart" and (stays or can_migrate(way.vm, scene.facts) is not True)
    ]  # fmt: skip


def pods_that_stay(scene: Scene) -> list[Finding]:
    """H14: pods that a drain would delete by force only; the rollout asked for them to leave."""
    evacuate = scene.desired.rollout.spec.evacuate if scene.desired.rollout else None
    if evacuate is None or evacuate.pods != "evict":
        return []
    found = []
    for bracket in scene.brackets:
        evicts = any(action.routine == "evict@1" for action in bracket.actions)
        held = [p for p in pods_of(bracket.node, scene.facts) if p["way"] == "block"] if evicts else []
        if held:
            named = ", ".join(f"{pod['pod']} ({pod['why']})" for pod in held)
            found.append(
                Finding(
                    "H14", "block", bracket.node, tuple(f"pod/{pod['pod']}" for pod in held),
                    f"pods on {bracket.node} are evicted by force only, which ovsplan never does: {named}",
                    f"move or delete them, or let pods stay: evacuate.pods: leave. Accepted: {bracket.node} is left out",
                    leaves_out=_changes_of(scene, bracket),
                )
            )  # fmt: skip
    return found


def migrations_on_what_moves(scene: Scene) -> list[Finding]:
    """H12: KubeVirt's migrations over a network whose path moves break in the middle of the evacuation."""
    limits = scene.facts.value("cluster/migration-limits") or {}
    carrier = limits.get("network", "")
    localnet = (scene.facts.value(f"network/{carrier}") or {}).get("localnet") if carrier else None
    if localnet is None:
        return []
    changes = {diff.node: diff.changes for diff in scene.diffs}
    moving = [
        b.node
        for b in scene.brackets
        if b.leaving and any(c.traffic and c.traffic.localnet == localnet for c in changes[b.node])
    ]
    if not moving:
        return []
    return [
        Finding(
            "H12", "block", "", (f"network/{carrier}", *(f"node/{n}" for n in moving)),
            f"KubeVirt migrates VMs over {carrier}, which is on localnet {localnet}: its own path moves on "
            f"{', '.join(moving)} while VMs migrate over it",
            "give migrations another network for this time (KubeVirt spec.configuration.migrations.network), or do not evacuate: "
            "a hot remap migrates nobody",
        )
    ]  # fmt: skip


def no_room(scene: Scene) -> list[Finding]:
    """H14, H52: the VMs that leave must fit elsewhere, on the worst node of the whole run."""
    evacuate = scene.desired.rollout.spec.evacuate if scene.desired.rollout else None
    returning = evacuate is None or evacuate.return_to == "origin"
    free = _free_memory(scene)
    largest = heapq.nlargest(2, free.items(), key=lambda item: item[1])
    found = []
    for bracket in scene.brackets:
        need = sorted((_memory(scene.facts, vm) for vm in bracket.leaving), reverse=True)
        roomiest = max((room for n, room in largest if n != bracket.node), default=0)
        if returning and sum(need) <= roomiest:
            continue  # one node takes them all, and they leave it again: no need to try every node
        rooms = {n: room for n, room in free.items() if n != bracket.node}
        homeless = _place(need, rooms)
        if homeless:
            total = sum(need)
            found.append(
                Finding(
                    "H14", "block", bracket.node, tuple(f"vm/{vm}" for vm in bracket.leaving),
                    f"the VMs that leave {bracket.node} need {_gib(total)} and do not fit on the other schedulable nodes "
                    f"({_rooms(scene, {k: v for k, v in free.items() if k != bracket.node}, bracket.node)})",
                    "free memory elsewhere, uncordon a node, or let some stay",
                )
            )  # fmt: skip
        elif need and not returning:
            emptied = {n: room + sum(need) for n, room in free.items() if n == bracket.node}
            free = {
                **rooms,
                **emptied,
            }  # one that takes no VMs, as when somebody else cordoned it, has no room either
    return found


def pile_up(scene: Scene) -> list[Finding]:
    """H52: with `return: none`, uncordoning moves nothing back and the last nodes carry everything."""
    evacuate = scene.desired.rollout.spec.evacuate if scene.desired.rollout else None
    if evacuate is None or evacuate.return_to == "origin":
        return []
    leaving = [b for b in scene.brackets if b.leaving]
    if not leaving:
        return []
    nodes = ", ".join(b.node for b in leaving)
    return [
        Finding(
            "H52", "warn", "", tuple(f"vm/{vm}" for b in leaving for vm in b.leaving),
            f"return: none: the VMs of {nodes} stay where they land, and pile up on the nodes done last; "
            "the new paths stay not proven until a VM runs there",
            "return: origin brings each VM home and proves its path",
        )
    ]  # fmt: skip


def proof_of_an_empty_node(scene: Scene) -> list[Finding]:
    """H51: no local user, no patch port: neither its presence nor its absence is evidence."""
    return [
        Finding(
            "H51", "warn", b.node, (f"node/{b.node}",), f"{b.node} runs no VM of these networks: its new path can't be proven by traffic now",
            "nothing to do: `status` says not proven until a VM runs there",
        )
        for b in scene.brackets
        if not b.leaving and not b.staying and b.shape == "cold"
        if not b.has_canary
    ]  # fmt: skip


def _rooms(scene: Scene, free: Mapping[str, int], node: str) -> str:
    """The room that was counted on, and the nodes that were not counted, with the reason."""
    told = [f"{n} {_gib(room)} free" for n, room in sorted(free.items())]
    told += [f"{n} not counted: {why}" for n, why in sorted(_not_counted(scene).items()) if n != node]
    return ", ".join(told) or "there is none"


def _takers(facts: Facts) -> list[str]:
    """The nodes that take VMs, by their own objects."""
    return [
        node
        for node in facts.value("cluster/nodes", [])
        if facts.value(f"node/{node}/ready") and not facts.value(f"node/{node}/unschedulable")
    ]


def _not_counted(scene: Scene) -> dict[str, str]:
    """Nodes that would take a VM and leave it in the dark: their own path is broken, or nobody could look.

    Nodes whose VMs are dark are done first where they can be, so those of the plan count.
    """
    planned, diffs = {b.node for b in scene.brackets}, {d.node: d for d in scene.diffs}
    found = {}
    for node in _takers(scene.facts):
        if node in planned:
            continue
        diff = diffs.get(node)
        for network in scene.desired.networks:
            why = _dark_for(network, node, scene.facts)
            if diff is not None and diff.unreadable:
                found[node] = "it cannot be read"
            elif why:
                found[node] = why
    return found


def _dark_for(network: VMNetwork, node: str, facts: Facts) -> str:
    """Why a VM of this localnet would be dark on a node; empty when it would not, or nobody looked there."""
    if not applies_to(network, node, facts) or not isinstance(facts.get(f"node/{node}/ovs"), Known):
        return ""
    mapped = facts.get(f"node/{node}/ovs/mapping/{network.name}")
    if isinstance(mapped, Absent):
        return f"it has no mapping for {network.name}"
    if isinstance(mapped, Known) and not facts.value(f"node/{node}/ovs/bridge/{mapped.value}/uplinks"):
        return f"{network.name} is on {mapped.value} there, which has no uplink that works"
    return ""


def _free_memory(scene: Scene) -> dict[str, int]:
    """Free memory of every node that takes VMs and carries their networks, in bytes, by what its VMs ask for."""
    facts, dark = scene.facts, _not_counted(scene)
    free = {}
    for node in _takers(facts):
        room = facts.get(f"node/{node}/memory")
        if node not in dark and isinstance(room, Known):
            free[node] = room.value - sum(_memory(facts, vm) for vm in facts.value(f"node/{node}/vms", []))
    return free


def _memory(facts: Facts, vm: str) -> int:
    return int((facts.value(f"vm/{vm}") or {}).get("memory", 0))


def _place(need: list[int], rooms: dict[str, int]) -> list[int]:
    """First fit, largest first; returns what finds no room. Changes `rooms`."""
    homeless = []
    for size in need:
        best = max(rooms, key=lambda n: (rooms[n], n), default=None)
        if best is None or rooms[best] < size:
            homeless.append(size)
        else:
            rooms[best] -= size
    return homeless


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


FINDERS = (
    cannot_leave,
    restarted_again,
    no_room,
    pile_up,
    proof_of_an_empty_node,
    pods_that_stay,
    migrations_on_what_moves,
)
