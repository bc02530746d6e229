"""Which nodes a VMNetwork, or a policy of the files, is about."""

from __future__ import annotations

from plans.desired import Desired, NativePolicy, VMNetwork
from plans.facts import Facts, Known


def applies_to(network: VMNetwork, node: str, facts: Facts) -> bool:
    """Whether the node carries every label that the network selects by."""
    labels = facts.value(f"node/{node}/labels", {})
    return all(labels.get(key) == value for key, value in network.selector.items())


def selected_nodes(network: VMNetwork, facts: Facts) -> list[str]:
    """The nodes that a network selects, sorted."""
    return [node for node in facts.value("cluster/nodes", []) if applies_to(network, node, facts)]


def is_there(network: VMNetwork, node: str, facts: Facts) -> bool:
    """Whether the network is known to ride on its bridge on the node already."""
    return bool(facts.value(f"node/{node}/ovs/mapping/{network.name}") == network.bridge)


def matches(policy: NativePolicy, node: str, facts: Facts) -> bool:
    """Whether a policy of the files selects a node; one without labels selects every node."""
    labels = facts.value(f"node/{node}/labels", {})
    return all(labels.get(key) == value for key, value in policy.spec.node_selector.items())


def nodes_of_policy(policy: NativePolicy, facts: Facts) -> list[str]:
    """The nodes that a policy of the files selects, sorted."""
    return [node for node in facts.value("cluster/nodes", []) if matches(policy, node, facts)]


def concerned_nodes(desired: Desired, facts: Facts) -> list[str]:
    """Every node that the files are about, sorted."""
    found = {node for network in desired.networks for node in selected_nodes(network, facts)}
    found |= {node for policy in desired.policies for node in nodes_of_policy(policy, facts)}
    return sorted(found)


def gone(node: str, facts: Facts) -> str:
    """That a node is in the cluster no more, and what is to be done, in words; empty when it is, or can't be told."""
    nodes = facts.get("cluster/nodes")
    if not node or not isinstance(nodes, Known) or node in nodes.value:
        return ""
    return (
        f"{node} is not a node of the cluster any more. For good: `ovsplan abandon`, then plan anew for those that are left; "
        f"else `ovsplan apply` goes on once it is back"
    )
