"""Delivery by NodeNetworkConfigurationPolicies: one policy per localnet and node, in the steps that nmstate can do.

The one invariant: on no node do two policies of ours contradict each other, at no time. So each step's document holds
what the steps before it made, and a bridge is made `absent` only once nothing of OVN's is left on it (H37).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from plans.actions import Action
from plans.changes import Change, Context
from plans.delivery.fragments import fragment, in_order
from plans.nmstate import documents


def compose(changes: Sequence[Change], context: Context) -> list[Action]:
    """The actions of one node: each change is one edit of its policy, on top of those before it."""
    so_far: dict[str, dict[str, Any]] = {}
    actions = []
    for change in in_order(changes):
        action = fragment("nncp", change, context)
        policy = action.args["policy"]
        whole = documents.union(so_far.get(policy, {}), action.args["document"])
        so_far[policy] = whole
        actions.append(replace(action, args={**action.args, "document": whole}))
    return actions
