"""Hazards of VMs: those that can't leave, and where those that leave find room."""

from __future__ import annotations

import heapq

from plans.document import Finding
from plans.facts import Facts, Known
from plans.hazards import Scene


def cannot_leave(scene: Scene) -> list[Finding]:
    """H14: a VM that cannot live-migrate would hang the evacuation for ever, or be shut down by a drain."""
    found = []
    for bracket in scene.brackets:
        for vm in bracket.leaving:
            reason = scene.facts.value(f"vm/{vm}", {}).get("migratable")
            if reason is not True:
                changes = next(d.changes for d in scene.diffs if d.node == bracket.node)
                found.append(
                    Finding(
                        "H14", "block", bracket.node, (f"vm/{vm}",), f"{vm} on {bracket.node} cannot live-migrate ({reason})",
                        f"let it stay through a hot remap: rollout spec.evacuate.vms: {{{vm}: stay}}; or shut it down first. Accepted: {bracket.node} is left out",
                        leaves_out=tuple(c.address for c in changes),
                    )
                )  # fmt: skip
    return found


def no_room(scene: Scene) -> list[Finding]:
    """H14, H52: the VMs that leave must fit elsewhere, on the worst node of the whole run."""
    evacuate = scene.desired.rollout.spec.evacuate if scene.desired.rollout else None
    returning = evacuate is None or evacuate.return_to == "origin"
    free = _free_memory(scene.facts)
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
                    f"({', '.join(f'{n} {_gib(r)} free' for n, r in sorted({k: v for k, v in free.items() if k != bracket.node}.items())) or 'there is none'})",
                    "free memory elsewhere, uncordon a node, or let some stay",
                )
            )  # fmt: skip
        elif need and not returning:
            free = {**free, **rooms}
            free[bracket.node] = free.get(bracket.node, 0) + sum(need)
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
    ]  # fmt: skip


def _free_memory(facts: Facts) -> dict[str, int]:
    """Free memory of every node that takes VMs, in bytes, by what its VMs ask for."""
    free = {}
    for node in facts.value("cluster/nodes", []):
        room = facts.get(f"node/{node}/memory")
        if (
            facts.value(f"node/{node}/ready")
            and not facts.value(f"node/{node}/unschedulable")
            and isinstance(room, Known)
        ):
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


FINDERS = (cannot_leave, no_room, pile_up, proof_of_an_empty_node)
