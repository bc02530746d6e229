"""Disruption budgets and restarts: a node that restarts takes its pods with it, and asks none of their budgets (H64).

The one invariant: no node is restarted under pods that a budget protects and would not let go, but where the plan said so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plans.actions import Done, Next, Perform, Stop
from plans.checks import Check, judge_all
from plans.desired import Evacuate
from plans.facts import KNOWN_AFTER_APPLY, Facts, Known, Unknown
from plans.ops import Wait

DEADLINE = 600.0
"""Seconds for budgets to let a node restart: as long as a pod is asked to leave."""


@dataclass(frozen=True, slots=True)
class Over:
    """A budget, and those of its pods that a node's restart would end: more than it allows. `evictable`: who of them may
    be evicted before.
    """

    budget: str
    allowed: int
    why: str
    pods: tuple[str, ...]
    evictable: tuple[str, ...]


def over(node: str, facts: Facts, evacuate: Evacuate) -> list[Over] | Unknown:
    """The budgets that a node's restart would break, by who is on it now; Unknown when that could not be asked."""
    if isinstance(unread := facts.get("cluster/budgets"), Unknown):
        return unread
    found = []
    for told in facts.value(f"node/{node}/budgets") or []:
        # Those that are evicted leave within their budgets, and those that would not leave stop the line (H14).
        stay = [p for p in told["pods"] if evacuate.pods != "evict" or p["way"] == "skip"]
        if len(stay) > told["allowed"]:
            pods = tuple(p["pod"] for p in stay)
            evictable = tuple(p["pod"] for p in stay if p["way"] == "evict")
            found.append(Over(told["budget"], told["allowed"], told["why"], pods, evictable))
    return found


def args(node: str, facts: Facts, evacuate: Evacuate) -> dict[str, Any]:
    """What the restart has to know: the budgets that it may break, as the plan says so; nothing where none could be asked."""
    found = over(node, facts, evacuate)
    return {} if isinstance(found, Unknown) else {"over": [one.budget for one in found]}


def views(node: str, args: Mapping[str, Any]) -> tuple[str, ...]:
    """What is read when the restart's turn comes."""
    return (f"budgets:{node}",) if "over" in args else ()


def await_leave(args: Mapping[str, Any], facts: Facts, done: Done) -> Next | None:
    """A wait for the budgets that the plan did not name to let the node restart; None when they do.

    Pods of a node that was restarted before may not be Ready again, and their budget allows no more until they are.
    """
    if "over" not in args or done.run == KNOWN_AFTER_APPLY:
        return None
    node = args["node"]
    why = "a restart ends pods that a disruption budget protects"
    check = Check(f"node/{node}/over-budget", "subset_of", args["over"], why)
    if not (missed := judge_all((check,), facts)):
        return None
    if done.outcomes.get("budgets") == "timed-out":
        return Stop(f"{node} is not restarted: {_told(node, args, facts) or missed[0]} (H64)")
    title = f"disruption budgets to let the pods of {node} restart"
    return Perform((Wait(label="budgets", title=title, checks=(check,), deadline=DEADLINE),))


def _told(node: str, args: Mapping[str, Any], facts: Facts) -> str:
    budgets = facts.get(f"node/{node}/budgets")
    if not isinstance(budgets, Known):
        return ""
    return "; ".join(
        f"disruption budget {told['budget']} lets {told['allowed']} of its pods be away ({told['why']}), and on {node} are "
        f"{', '.join(pod['pod'] for pod in told['pods'])}"
        for told in budgets.value
        if len(told["pods"]) > told["allowed"] and told["budget"] not in args["over"]
    )
