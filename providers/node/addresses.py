"""Which host a node is.

Invariant: a node that the cluster does not have has no host; a name is never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from providers.ports import Cluster, Ref, Unreachable


def host_of(cluster: Cluster, named: Mapping[str, str]) -> Callable[[str], str]:
    """A function from a node to its host: as `named`, else the Node's InternalIP, else its name.

    It raises Unreachable for a node that is not there, and what `cluster` raises.
    """

    def find(node: str) -> str:
        if node in named:
            return named[node]
        found = cluster.get(Ref("v1", "Node", node))
        if found is None:
            raise Unreachable(f"the cluster has no node {node}")
        addresses = found.get("status", {}).get("addresses", ())
        internal = (entry["address"] for entry in addresses if entry.get("type") == "InternalIP")
        return str(next(internal, node))

    return find
