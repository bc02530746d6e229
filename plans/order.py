"""Order: actions and their needs become one sequence that never changes for the same plan.

Node-serial is edges, not a loop: the first action of a node needs the last action of the node before it, so it is
visible and testable. networkx carries the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import networkx as nx

from plans.actions import Action, Need
from plans.errors import PlanError


def serialise(
    prologue: Sequence[Action], brackets: Sequence[Sequence[Action]], epilogue: Sequence[Action]
) -> list[Action]:
    """The prologue, then each bracket after the one before it, then the epilogue. The prologue is never empty."""
    chain = [prologue[0]]
    why = "the before-image is taken before the first effect"
    for action in prologue[1:]:
        chain.append(_after(chain[-1], action, why))
        why = "it must hold before the first node"
    for actions in brackets:
        first, *rest = actions
        chain += [_after(chain[-1], first, why), *rest]
        why = "one node at a time"
    for action in epilogue:
        chain.append(_after(chain[-1], action, "it comes after every node"))
    return chain


def _after(before: Action, action: Action, why: str) -> Action:
    if any(need.action == before.id for need in action.needs):
        return action
    return replace(action, needs=(*action.needs, Need(before.id, why)))


def graph(actions: Sequence[Action]) -> nx.DiGraph[str]:
    """The plan as a graph: vertices are action ids, an edge runs from what is needed to what needs it."""
    plan: nx.DiGraph[str] = nx.DiGraph()
    plan.add_nodes_from(action.id for action in actions)
    known = set(plan)
    for action in actions:
        for need in action.needs:
            if need.action not in known:
                raise PlanError(f"{action.id} needs {need.action}, which is not in the plan")
            plan.add_edge(need.action, action.id, reason=need.reason)
    return plan


def order(actions: Sequence[Action]) -> list[Action]:
    """The actions so that each comes after what it needs; ties keep the given order.

    Raises PlanError that names the cycle, if there is one.
    """
    rank = {action.id: i for i, action in enumerate(actions)}
    if len(rank) != len(actions):
        raise PlanError("two actions have the same id")
    plan = graph(actions)
    try:
        sequence = list(nx.lexicographical_topological_sort(plan, key=lambda v: rank[v]))
    except nx.NetworkXUnfeasible as error:
        cycle = " -> ".join(edge[0] for edge in nx.find_cycle(plan))
        raise PlanError(f"the plan has a cycle: {cycle}") from error
    by_id = {action.id: action for action in actions}
    return [by_id[v] for v in sequence]


def reduced(actions: Sequence[Action]) -> nx.DiGraph[str]:
    """The transitive reduction of one bracket, for display. On a whole plan it would be quadratic."""
    reduced: nx.DiGraph[str] = nx.transitive_reduction(graph(actions))
    return reduced
