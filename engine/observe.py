"""Observe: views become facts, by asking. Nothing is changed by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from engine.reach import Hands
from plans.desired import Desired
from plans.facts import Fact, Facts, Known
from plans.planner import VIEWS, closer_views, cluster_views, node_views
from plans.readings import reading
from plans.selection import concerned_nodes
from providers.ports import Clock


def observe(hands: Hands, clock: Clock, views: Iterable[str]) -> dict[str, Fact]:
    """The facts of some views, each read once. What could not be asked is Unknown, with the reason."""
    readings = [reading(view, clock.now()) for view in dict.fromkeys(views)]
    requests = list(dict.fromkeys(request for wanted in readings for request in wanted.requests))
    replies = dict(zip(requests, hands.ask(requests), strict=True))
    facts: dict[str, Fact] = {}
    for wanted in readings:
        facts.update(wanted.facts([replies[request] for request in wanted.requests]))
    return facts


def observe_for_plan(
    hands: Hands, clock: Clock, desired: Desired, told: Callable[[str], None] = lambda _: None
) -> Facts:
    """Everything that planning `desired` looks at: the cluster, every node that the files are about, then closer.

    `told` gets one line for each of the two, before it begins.
    """
    told("Reading the cluster ...")
    cluster = Facts(observe(hands, clock, (*VIEWS, *cluster_views(desired))))
    selected = concerned_nodes(desired, cluster)
    told(f"Reading {len(selected):,} node{'' if len(selected) == 1 else 's'} ...")
    nodes = observe(hands, clock, [view for node in selected for view in node_views(node, desired)])
    facts = Facts({**dict(cluster.items()), **nodes})
    closer = observe(hands, clock, closer_views(desired, facts))
    return Facts({**dict(facts.items()), **closer}) if closer else facts


def values(facts: dict[str, Fact]) -> dict[str, object]:
    """The known facts as plain values, for a record."""
    return {path: fact.value for path, fact in facts.items() if isinstance(fact, Known)}
