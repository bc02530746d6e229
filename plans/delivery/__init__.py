"""Deliveries: by which means a node's changes are made. One file each: `ovsdb`, `nncp`.

A delivery composes the kinds' fragments of one node into actions and knows no kind. Which one makes a change is decided
change by change, by who owns what is there (`choice`), and the plan says which and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from plans.actions import Action
from plans.changes import Change, Choice, Context
from plans.delivery import nncp, ovsdb
from plans.delivery.fragments import linked

Compose = Callable[[Sequence[Change], Context], list[Action]]

DELIVERIES: dict[str, Compose] = {"ovsdb": ovsdb.compose, "nncp": nncp.compose}


def compose(changes: Sequence[Change], choices: Mapping[str, Choice], context: Context) -> list[Action]:
    """The actions of one node, each change by its own delivery, in an order that respects what depends on what."""
    made: dict[str, Action] = {}
    for name, composed in DELIVERIES.items():
        for action in composed([c for c in changes if choices[c.address].by == name], context):
            made[action.address] = action
    return linked(changes, made)
