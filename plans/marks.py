"""Marks: actions of which a person said that they are done, and whether anything has checked it since.

The one invariant: a person's word is never told as the program's own. What checks it is an action that comes after it in
the plan, was done after the word was given, and looks at what the marked one was to change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from plans.actions import Action
from plans.document import Plan

MARKED = "marked-done"
PROOFS = ("canary@1", "prove@1", "prove-by-return@1", "ping-returned@1")
"""What sees traffic on a node's new path."""

CHECKS = ("verify@1", "settle@1", *PROOFS)
"""What looks at a node after it is changed."""


class Step(Protocol):
    """What is asked of a step of the journal. `order` grows with each that was begun, or marked, in its run."""

    @property
    def status(self) -> str: ...
    @property
    def note(self) -> str: ...
    @property
    def proven(self) -> bool | None: ...
    @property
    def began(self) -> float | None: ...
    @property
    def order(self) -> int: ...


Later = tuple[str, Plan, Mapping[str, Step]]
"""A run that came later: its id, its plan, and its steps."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A person's word on an action: whose and why (`note`), when, and what has checked it since, if anything has."""

    action: str
    note: str
    at: float
    checked_by: str = ""

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.at, UTC)
        since = f"verified since by {self.checked_by}" if self.checked_by else "not verified"
        return f"marked by hand {when:%Y-%m-%d %H:%M:%S} UTC, {self.note}; {since}"


def marks(plan: Plan, steps: Mapping[str, Step], later: Sequence[Later] = ()) -> dict[str, Mark]:
    """The actions of a run that a person marked as done. `later`: the runs after it, whose checks count too."""
    found = {}
    for position, action in enumerate(plan.actions):
        step = steps.get(action.id)
        if step is not None and step.status == MARKED:
            after = [a for a in plan.actions[position + 1 :] if _is_since(steps.get(a.id), step)]
            by = next((a.id for a in after if _checks(a, action, steps[a.id])), "")
            by = by or next(
                (f"run {run}" for run, its_plan, its in later if _is_gone_over(action, its_plan, its)), ""
            )
            found[action.id] = Mark(action.id, step.note, step.began or 0.0, by)
    return found


def unverified(found: Mapping[str, Mark]) -> list[Mark]:
    """Those that nothing has checked since."""
    return [mark for mark in found.values() if not mark.checked_by]


def _is_since(step: Step | None, mark: Step) -> bool:
    return step is not None and step.status == "done" and step.order > mark.order


def _checks(other: Action, marked: Action, step: Step) -> bool:
    """Whether one action, done, says anything of what another one was to do."""
    if marked.routine in PROOFS:
        return other.node == marked.node and other.routine in PROOFS and step.proven is True
    if not (marked.address or marked.routine in CHECKS):
        return False  # a cordon, say: nothing looks at it afterwards
    return other.routine == "look-back@1" or (marked.node == other.node and other.routine in CHECKS)


def _is_gone_over(marked: Action, plan: Plan, steps: Mapping[str, Step]) -> bool:
    """Whether a later run did the whole round of a marked action's node itself, or the part of the whole cluster."""
    done = {name: step for name, step in steps.items() if step.status == "done"}
    if not marked.node:
        return "look-back" in done
    mine = [a for a in plan.actions if a.node == marked.node and a.id in done]
    if marked.routine in PROOFS:
        return any(a.routine in PROOFS and done[a.id].proven is True for a in mine)
    return any(a.routine in CHECKS for a in mine)
