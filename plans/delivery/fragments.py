"""Composing fragments: what every delivery that makes one action of one change has in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from plans.actions import Action, Need
from plans.changes import Change, Context
from plans.errors import PlanError
from plans.kinds import KINDS


def compose_fragments(delivery: str, changes: Sequence[Change], context: Context) -> list[Action]:
    """One action per change; a change that depends on others needs their actions.

    Raises PlanError when a kind has no fragment for this delivery.
    """
    made: dict[str, Action] = {}
    for change in sorted(changes, key=lambda c: (len(c.depends), c.address)):
        fragment = KINDS[change.kind].fragments.get(delivery)
        if fragment is None:
            raise PlanError(f"{change.address}: a {change.kind} can't be delivered by {delivery}")
        needs = tuple(Need(made[a].id, f"{a} must be moved first") for a in change.depends if a in made)
        made[change.address] = replace(fragment(change, context), needs=needs)
    return list(made.values())
