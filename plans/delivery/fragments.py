"""Composing fragments: what every delivery that makes one action of one change has in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from plans.actions import Action, Need
from plans.changes import Change, Context
from plans.errors import PlanError
from plans.kinds import KINDS


def in_order(changes: Sequence[Change]) -> list[Change]:
    """The changes of one node so that each comes after those that it depends on."""
    left = sorted(changes, key=lambda c: c.address)
    ordered: list[Change] = []
    while left:
        ahead = {c.address for c in left}
        following = next((c for c in left if not ahead & set(c.depends)), left[0])
        left.remove(following)
        ordered.append(following)
    return ordered


def fragment(delivery: str, change: Change, context: Context) -> Action:
    """The action that makes a change. Raises PlanError when a kind has no fragment for this delivery."""
    found = KINDS[change.kind].fragments.get(delivery)
    if found is None:
        raise PlanError(f"{change.address}: a {change.kind} can't be delivered by {delivery}")
    return found(change, context)


def linked(changes: Sequence[Change], made: Mapping[str, Action]) -> list[Action]:
    """The actions in order; a change that depends on others needs their actions."""
    actions = []
    for change in in_order(changes):
        needs = tuple(Need(made[a].id, f"{a} comes first") for a in change.depends if a in made)
        actions.append(replace(made[change.address], needs=needs))
    return actions
