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
    prologue: Action, brackets: Sequence[Sequence[Action]], epilogue: Action | None = None
) -> list[Action]:
    """The prologue, then each bracket after the one before it, then the epilogue."""
    chain = [prologue]
    last, why = prologue, "the before-image is taken before the first effect"
    for actions in brackets:
        first, *rest = actions
        chain += [replace(first, needs=(*first.needs, Need(last.id, why))), *rest]
        last, why = actions[-1], "one node at a time"
    if epilogue is not None:
        chain.append(replace(epilogue, needs=(Need(last.id, "it looks back on all of them"),)))
    return chain


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
