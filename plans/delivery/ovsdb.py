"""Delivery by guarded OVSDB transactions on the node itself."""

from __future__ import annotations

from collections.abc import Sequence

from plans.actions import Action
from plans.changes import Change, Context
from plans.delivery.fragments import fragment


def compose(changes: Sequence[Change], context: Context) -> list[Action]:
    """The actions of one node: each change is one action."""
    return [fragment("ovsdb", change, context) for change in changes]
