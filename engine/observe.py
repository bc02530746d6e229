"""Observe: views become facts, by asking. Nothing is changed by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from engine.reach import Hands
from plans.desired import Desired
from plans.facts import Fact, Facts, Known
from plans.planner import VIEWS, closer_views, cluster_views, likely_views, node_views
from plans.readings import AnyRequest, Reading, Reply, reading
from plans.selection import concerned_nodes
from providers.ports import Clock


def observe(hands: Hands, clock: Clock, views: Iterable[str]) -> dict[str, Fact]:
    """The facts of some views, each read once. What could not be asked is Unknown, with the reason."""
    readings = [reading(view, clock.now()) for view in dict.fromkeys(views)]
    return _facts(readings, _ask(hands, readings))


def _ask(hands: Hands, readings: Sequence[Reading]) -> dict[AnyRequest, Reply]:
    requests = list(dict.fromkeys(request for wanted in readings for request in wanted.requests))
    return dict(zip(requests, hands.ask(requests), strict=True))


def _facts(readings: Sequence[Reading], replies: Mapping[AnyRequest, Reply]) -> dict[str, Fact]:
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
    now = clock.now()
    nodes = [reading(view, now) for node in selected for view in node_views(node, desired)]
    likely = [reading(view, now) for node in selected for view in likely_views(node, cluster)]
    # A question more on the same journey costs little; a second journey to every node would cost as much as the first.
    replies = _ask(hands, [*nodes, *likely])
    facts = Facts({**dict(cluster.items()), **_facts(nodes, replies)})
    closer = [reading(view, now) for view in closer_views(desired, facts)]
    replies |= _ask(hands, [wanted for wanted in closer if not replies.keys() >= set(wanted.requests)])
    return Facts({**dict(facts.items()), **_facts(closer, replies)}) if closer else facts


def values(facts: dict[str, Fact]) -> dict[str, object]:
    """The known facts as plain values, for a record."""
    return {path: fact.value for path, fact in facts.items() if isinstance(fact, Known)}
