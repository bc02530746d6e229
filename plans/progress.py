"""Progress: how a run stands, node by node, in the rows of the procedure's checklist (§4.5).

Pure: a plan, what the journal has, and (where a target was given) facts. It never says "not done" of what it could
not ask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plans.actions import Action
from plans.document import Plan
from plans.facts import Facts, Known, Unknown
from plans.guests import without_network
from plans.maintenance.migrations import moved
from plans.maintenance.pings import networks_answered
from plans.maintenance.proof import untold_in
from plans.marks import MARKED, Later, Mark, marks, unverified

CHECKLIST = {
    1: "Create inventory",
    2: "Backup NADs",
    3: "Cordon node",
    4: "Migrate VMs (optional)",
    5: "Run balance-slb migration",
    6: "Reboot",
    7: "Remove br-vmdata",
    8: "Add bridge-mapping",
    9: "Validate",
    10: "Uncordon",
    11: "Test VMs",
    12: "Repeat for next node",
}
"""The procedure's own rows; 5 (conversion) is no part of a plan of this version, 6 of one that reboots no node."""

NOT_IN_PLAN = "not in this plan"


@dataclass(frozen=True, slots=True)
class StepState:
    """What the journal has of one action: `status` is done, failed, begun, marked-done, marked-not-done or waiting.

    `acted`: the labels of its ops that change the world and were done, or may have been. `order` grows with each step that
    was begun, or marked, in its run.
    """

    status: str
    note: str = ""
    proven: bool | None = None
    began: float | None = None
    acted: tuple[str, ...] = ()
    order: int = 0


WAITING = StepState("waiting")


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """One node: a word for the whole, the state of each row, and whether its path was proven by traffic.

    `untold`: by network, the VMs of which nothing was heard, so that the proof says nothing of them. `bridges`: those on which
    it was listened for them. `marked`: the actions that a person marked as done and that are in no row, in words;
    `unverified`: how many of all such actions nothing has checked since.
    """

    node: str
    word: str
    rows: tuple[tuple[int, str, str, str], ...]
    proof: str
    untold: tuple[tuple[str, tuple[str, ...]], ...] = ()
    bridges: tuple[str, ...] = ()
    marked: tuple[str, ...] = ()
    unverified: int = 0


def node_word(states: list[StepState]) -> str:
    """done, failed, under way or not started, for the actions of one node."""
    words = {s.status for s in states}
    if words <= {"done", MARKED}:
        return "done"
    if "failed" in words:
        return "failed"
    return "not started" if words == {"waiting"} else "under way"


def progress(plan: Plan, steps: Mapping[str, StepState], later: Sequence[Later] = ()) -> list[NodeProgress]:
    """Every node of the plan, in its order. `later`: the runs after this one, which may have checked what was marked."""
    found, by_hand = [], marks(plan, steps, later)
    shared = [a for a in plan.actions if not a.node]
    for node in dict.fromkeys(a.node for a in plan.actions if a.node):
        actions = [a for a in plan.actions if a.node == node]
        states = [steps.get(a.id, WAITING) for a in actions]
        word = node_word(states)
        rows = tuple(
            (number, title, *_row(number, [*shared, *actions], steps, word, by_hand))
            for number, title in CHECKLIST.items()
        )
        mine = {a.id: by_hand[a.id] for a in actions if a.id in by_hand}
        rowless = tuple(f"{a.id}: {mine[a.id]}" for a in actions if a.id in mine and not a.rows)
        proof, (untold, bridges) = proof_word(actions, steps), _untold(actions, steps)
        found.append(NodeProgress(node, word, rows, proof, untold, bridges, rowless, len(unverified(mine))))
    return found


def _proofs(actions: Sequence[Action]) -> list[Action]:
    return [a for a in actions if a.id.endswith(("/prove", "/canary"))]


def proof_word(actions: list[Action], steps: Mapping[str, StepState]) -> str:
    """`proven`, `not proven`, or why it can't be told; empty for a node on which no path of VMs moves."""
    proofs = _proofs(actions)
    if any(steps.get(a.id, WAITING).proven for a in proofs):
        return "proven"
    if not any("localnet" in a.args for a in actions):
        return ""
    notes = [
        f"{a.id} was marked by hand" if steps[a.id].status == MARKED else steps[a.id].note
        for a in proofs
        if a.id in steps and steps[a.id].note
    ]
    return "not proven" + (f" ({notes[0]})" if notes else "")


def _untold(
    actions: Sequence[Action], steps: Mapping[str, StepState]
) -> tuple[tuple[tuple[str, tuple[str, ...]], ...], tuple[str, ...]]:
    """The VMs of a node that its proof says nothing of, by network, and the bridges on which it was listened for them."""
    done = [(a, steps[a.id].note) for a in actions if a.id in steps and steps[a.id].status == "done"]
    told = {
        nad
        for action, note in done
        if action.routine == "ping-returned@1"
        for nad in networks_answered(action.args["pings"], note)
    }
    vms: dict[str, list[str]] = {}
    bridges: set[str] = set()
    for action, note in done:
        for vm, nad in untold_in(note) if action in _proofs(actions) else ():
            if nad not in told:
                vms.setdefault(nad, []).append(vm)
                bridges |= {*action.args["bridges"].values()}
    return tuple((nad, tuple(names)) for nad, names in sorted(vms.items())), tuple(sorted(bridges))


def _row(
    number: int,
    actions: list[Action],
    steps: Mapping[str, StepState],
    word: str,
    by_hand: Mapping[str, Mark],
) -> tuple[str, str]:
    if number == 12:
        return ("done" if word == "done" else "waiting"), ""
    mine = [(a, steps.get(a.id, WAITING)) for a in actions if number in a.rows]
    if not mine:
        return NOT_IN_PLAN, ""
    states = [state for _, state in mine]
    for wanted in ("failed", "begun", "marked-not-done"):
        for action, state in mine:
            if state.status == wanted:
                return wanted, f"{action.id}: {state.note}" if state.note else action.id
    words = {action.id: f"{action.id}: {by_hand[action.id]}" for action, _ in mine if action.id in by_hand}
    if all(s.status in ("done", MARKED) for s in states):
        is_open = unverified({action.id: by_hand[action.id] for action, _ in mine if action.id in words})
        # What was done once for all nodes is told once, not with each of them.
        told = [words.get(a.id, state.note) for a, state in mine if state.note and a.node]
        return MARKED if is_open else "done", "; ".join(told)
    return "waiting", "; ".join(words.values())


def still_cordoned(plan: Plan, steps: Mapping[str, StepState]) -> list[str]:
    """The nodes that a run has taken out of scheduling, or may have, and has not put back."""
    held: dict[str, None] = {}
    for action in plan.actions:
        step = steps.get(action.id, WAITING)
        over = step.status in ("done", MARKED)
        if action.id == f"{action.node}/uncordon" and over:
            held.pop(action.node, None)
        elif action.id == f"{action.node}/cordon" or not over:
            # Also an action that failed after the node was put back cordons it again: its path is not there.
            words = [label for label in step.acted if label in ("cordon", "uncordon")]
            if words and words[-1] == "cordon":
                held[action.node] = None
    return list(held)


def vms_away(node: str, plan: Plan, steps: Mapping[str, StepState]) -> list[str]:
    """The VMs that a run took off a node, or had begun to, and has not seen return."""
    away: set[str] = set()
    for action in plan.actions:
        step = steps.get(action.id, WAITING)
        if action.node != node or not step.acted:
            continue
        for vm, leaves in moved(step.acted):
            if leaves:
                away.add(vm)
            elif step.status == "done":
                away.discard(vm)
        if action.routine == "evacuate@1" and step.status == "done":
            away |= {*action.vms}  # a copy of a run may keep no more of it
    return sorted(away)


def vms_without_network(plan: Plan, facts: Facts) -> tuple[list[str], list[str]]:
    """VMs of the plan's networks whose path is broken now, each with the reason; and the nodes with VMs that can't be told."""
    dark, unknown = [], []
    localnets = sorted({a.args["localnet"] for a in plan.actions if "localnet" in a.args})
    for node in dict.fromkeys(n.node for n in plan.nodes):
        view = facts.get(f"node/{node}/ovs")
        if isinstance(view, Unknown) or not isinstance(view, Known):
            if facts.get(f"node/{node}/vms") != Known([]):
                why = view.why.removeprefix(f"{node}: ") if isinstance(view, Unknown) else "not read"
                unknown.append(f"{node}: {why}")
            continue
        for localnet in localnets:
            broken = without_network(facts, node, localnet)
            dark += [f"{vm} on {node}: {why}" for vm, why in broken.items()]
    return sorted(set(dark)), unknown
