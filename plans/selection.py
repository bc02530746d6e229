"""Which nodes a VMNetwork is about."""

from __future__ import annotations

from plans.desired import VMNetwork
from plans.facts import Facts


def applies_to(network: VMNetwork, node: str, facts: Facts) -> bool:
    """Whether the node carries every label that the network selects by."""
    labels = facts.value(f"node/{node}/labels", {})
    return all(labels.get(key) == value for key, value in network.selector.items())


def selected_nodes(network: VMNetwork, facts: Facts) -> list[str]:
    """The nodes that a network selects, sorted."""
    return [node for node in facts.value("cluster/nodes", []) if applies_to(network, node, facts)]
