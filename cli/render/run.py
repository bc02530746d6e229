"""A run as text: its progress while it goes, the recap when it stops, and `status`."""

from __future__ import annotations

import shlex
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from cli import output
from engine.execute import Signals
from engine.reach import Reporter
from plans.actions import Action
from plans.document import Plan
from plans.maintenance.migrations import way_home
from plans.marks import Mark
from plans.networks import listed
from plans.ops import AnyOp, Wait
from plans.progress import NOT_IN_PLAN, WAITING, NodeProgress, StepState, still_cordoned, vms_away
from plans.readings.cluster import CORDONED_BY

COLOURS = {
    "done": "green", "failed": "red", "begun": "yellow", "waiting": "white", "under way": "yellow", "not started": "white",
    "marked-done": "magenta", "marked-not-done": "magenta", NOT_IN_PLAN: "white",
}  # fmt: skip


NAMED = 6
"""How many VMs of one network are named."""

UNHEARD = 10
"""How many lines there are of nodes and their networks in which nothing was heard of some VM."""

SHARED = "the cluster"
"""What is done for all nodes, where it stands among them."""

SHORT = 100
"""Characters of a reason where the whole of it stands nearby."""


def paint(word: str) -> str:
    """A state in its colour."""
    return click.style(word, fg=COLOURS.get(word))


class Printer(Reporter):
    """Prints a run as it goes: a line when an action begins, one when it ends.

    Output that can't be written stops the run where it may stop; it never breaks one step off in the middle.
    """

    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def _say(self, text: str) -> None:
        try:
            click.echo(text)
        except OSError as error:
            output.silence()
            self._signals.why = f"its output cannot be written ({error.strerror})"

    def run_begins(self, run: str, resumed: bool, left: int) -> None:
        self._say(
            f"Run {run}: {left} action(s) to do."
            if not resumed
            else f"Run {run} goes on: {left} action(s) left."
        )

    def action_begins(self, position: int, total: int, action: Action, attempt: int) -> None:
        again = f" (attempt {attempt})" if attempt > 1 else ""
        self._say(f"[{position:>{len(str(total))}}/{total}] {action.id}: {action.title}{again}")

    def op_begins(self, action: Action, op: AnyOp) -> None:
        if isinstance(op, Wait) and op.deadline > 60:
            self._say(f"        waiting for: {op.title}")

    def waiting(self, action: Action, op: AnyOp, missing: str, seconds: float) -> None:
        self._say(f"        still waiting [{seconds:.0f}s]: {missing}")

    def action_ends(self, action: Action, status: str, note: str, seconds: float) -> None:
        if status == "failed":
            indented = note.replace("\n", "\n        ")
            self._say(f"        {paint('failed')} after {seconds:.1f}s: {indented}")
        elif note:
            self._say(f"        {paint('done')}: {note}")


def render_recap(nodes: Sequence[NodeProgress], plan: Plan, steps: Mapping[str, StepState]) -> str:
    """After a stop: done, failed and not started per node, and the manual undo of what was done on the failed one.

    The actions of the whole cluster are told of when one of them is what failed.
    """
    rows = [(node.node, node.node, node.word, node.proof) for node in nodes]
    if any(not a.node and steps.get(a.id, WAITING).status == "failed" for a in plan.actions):
        rows.append(("", SHARED, "failed", ""))
    width = max((len(name) for _, name, _, _ in rows), default=4)
    lines = ["Recap"]
    for node, name, word, proof in rows:
        actions = [a for a in plan.actions if a.node == node]
        done = sum(1 for a in actions if a.id in steps and steps[a.id].status in ("done", "marked-done"))
        lines.append(
            f"  {name:<{width}}  {paint(word):<20}  {done}/{len(actions)} actions   {proof}".rstrip()
        )
        failed = next((a for a in actions if a.id in steps and steps[a.id].status == "failed"), None)
        if failed is not None:
            why = textwrap.shorten(steps[failed.id].note, SHORT, placeholder=" …")
            lines.append(f"  {'':<{width}}  stopped at {failed.id}: {why}")
    return "\n".join([*lines, *render_undo(nodes, plan, steps)])


def render_undo(nodes: Sequence[NodeProgress], plan: Plan, steps: Mapping[str, StepState]) -> list[str]:
    """The manual undo of each node on which a run stopped half-way, and how its VMs come home."""
    return [line for node in half_way(nodes) for line in _manual_undo(node, plan, steps)]


def half_way(nodes: Sequence[NodeProgress]) -> list[str]:
    """The nodes on which a run stopped, or on which it is at work."""
    return [node.node for node in nodes if node.word in ("failed", "under way")]


def _manual_undo(node: str, plan: Plan, steps: Mapping[str, StepState]) -> list[str]:
    touched = [a for a in plan.actions if a.node == node and a.id in steps and steps[a.id].acted]
    undoable = [a for a in reversed(touched) if a.undo_commands]
    away = homecoming(node, plan, steps)
    if not undoable and not away:
        return []
    lines = ["", f"Manual undo on {node}, in this order (only if you want to go back instead of resuming):"]
    for action in undoable:
        lines.append(f"  # undo {action.id}")
        lines += [f"  {command}" for command in action.undo_commands]
    if away:
        lines.append(f"  # VMs that were taken off {node}: once it is uncordoned, back to it")
    return [*lines, *(f"  {command}" for command in away)]


def homecoming(node: str, plan: Plan, steps: Mapping[str, StepState]) -> list[str]:
    """The commands that bring the VMs home which a run took off a node; nothing when none is away."""
    return [way_home(vm, node) for vm in vms_away(node, plan, steps)]


def render_planning_anew(
    run: str, source: str, plan: Plan, steps: Mapping[str, StepState], options: str
) -> str:
    """What to type when the approved plan fits no more, and what becomes of what its run has done."""
    paths = " ".join(shlex.quote(path) for path in source.splitlines()) or "PATH"
    freed = [uncordon(node) for node in still_cordoned(plan, steps)]
    commands = [f"ovsplan abandon {run} {options}", *freed, f"ovsplan plan {paths} {options}"]
    return "\n".join(
        [
            "If the plan no longer fits what is there, plan anew. What this run has done is found done; VMs that it has moved",
            "away and not brought back stay where they are:",
            *(f"  {command}" for command in commands),
        ]
    )


def uncordon(node: str) -> str:
    """What puts a node back that a run of ours took out of scheduling."""
    return f"oc adm uncordon {node}; oc annotate node {node} {CORDONED_BY}-"


def render_status(nodes: Sequence[NodeProgress]) -> str:
    """Each node's checklist."""
    blocks = []
    for node in nodes:
        by_hand = f"  ({node.unverified} marked by hand, not verified)" if node.unverified else ""
        proof = "proven, not for all its VMs" if node.untold and node.proof == "proven" else node.proof
        lines = [f"{click.style(node.node, bold=True)}  {paint(node.word)}  {proof}".rstrip() + by_hand]
        for number, title, state, detail in node.rows:
            shown = f"{title:<28} {paint(state)}"
            lines.append(f"  {number:>2}  {shown}" + (f"  {detail}" if detail else ""))
        lines += [f"      {words}" for words in node.marked]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def render_shared(plan: Plan, steps: Mapping[str, StepState], by_hand: Mapping[str, Mark]) -> str:
    """What is done for the whole cluster, before the nodes and after them."""
    shared = [a for a in plan.actions if not a.node]
    width = max((len(a.id) for a in shared), default=0)
    lines = [click.style(SHARED, bold=True)]
    for action in shared:
        state = steps.get(action.id, WAITING)
        mark = by_hand.get(action.id)
        note = str(mark) if mark else next(iter(state.note.splitlines()), "")
        status = "done" if mark and mark.checked_by else state.status
        lines.append(f"      {action.id:<{width}} {paint(status)}" + (f"  {note}" if note else ""))
    return "\n".join(lines)


def render_untold(nodes: Sequence[NodeProgress]) -> list[str]:
    """Of which VMs nothing was heard, by node and network, and what can be done about it; nothing when all were."""
    lines = [
        f"  {node.node}, {f'network {nad}' if nad else 'its networks'}: {listed(vms, NAMED)}"
        for node in nodes
        for nad, vms in node.untold
    ]
    if not lines:
        return []
    more = len(lines) - UNHEARD
    rest = (
        [f"  and {more} more like these: `ovsplan status` names them in row 11 of each node"]
        if more > 0
        else []
    )
    bridges = sorted({bridge for node in nodes for bridge in node.bridges})
    look = " or ".join(f"`ovs-appctl fdb/show {bridge}`" for bridge in bridges)
    return [
        "Not proven, as nothing was heard of these VMs:",
        *lines[:UNHEARD],
        *rest,
        f"  Have each send something, a ping from inside: its path works once {look} on its node lists its MAC.",
    ]


def render_marked(found: Sequence[Mark]) -> list[str]:
    """What a person marked as done, a line each; nothing when nobody did."""
    return ["By a person's word:", *(f"  {mark.action}: {mark}" for mark in found)] if found else []


def render_history(rows: Sequence[Mapping[str, Any]]) -> str:
    """Past runs, two or three lines each: what, how it ended, why it did so."""
    blocks = []
    for row in rows:
        ended = f" to {row['ended']}" if row["ended"] else ""
        done = f"{row['actions']['done']}/{row['actions']['all']} actions"
        lines = [
            f"{click.style(row['run'], bold=True)}  {paint(row['status'])}  {done}",
            f"  {row['began']}{ended}, by {row['who']}",
            f"  {row['plan']}, on {', '.join(row['nodes']) or 'no node'}",
        ]
        blocks.append(
            "\n".join([*lines, *([textwrap.indent(row["message"], "  ")] if row["message"] else [])])
        )
    return "\n\n".join(blocks)


def at(instant: float) -> str:
    """An instant, for a person."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(instant))
