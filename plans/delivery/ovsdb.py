"""Delivery by guarded OVSDB transactions on the node itself."""

from __future__ import annotations

from collections.abc import Sequence

from plans.actions import Action
from plans.changes import Change, Context
from plans.delivery.fragments import compose_fragments


def compose(changes: Sequence[Change], context: Context) -> list[Action]:
    """The actions of one node, in order: each change is one action."""
    return compose_fragments("ovsdb", changes, context)
