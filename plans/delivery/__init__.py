"""Deliveries: by which means a node's changes are made. One file each; this version has `ovsdb`.

A delivery composes the kinds' fragments of one node into actions and knows no kind. It is chosen by what is there,
and the plan says which and why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from plans.actions import Action
from plans.changes import Change, Context
from plans.delivery import ovsdb

Compose = Callable[[Sequence[Change], Context], list[Action]]

DELIVERIES: dict[str, Compose] = {"ovsdb": ovsdb.compose}
