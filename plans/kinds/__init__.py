"""The kinds of resource: one pure file each, with all that is known about it.

A kind's file holds how desired and facts become neutral changes, its fragment per delivery with the step functions
behind it, and its checks for verification. Adding a kind is that file, one line here, and one folder under
`tests/cases/`.
"""

from __future__ import annotations

from plans.changes import ClusterKind, Kind
from plans.kinds import attachment, bridge, l2advertisement, mapping, mtu, native, network, new_bridge, policy

_OF_NODES = (new_bridge.KIND, mtu.KIND, mapping.KIND, bridge.KIND, native.KIND)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _OF_NODES}
"""Every kind of a node, in the order in which a node's changes are shown."""

CLUSTER_KINDS: dict[str, ClusterKind] = {
    kind.name: kind for kind in (policy.KIND, l2advertisement.KIND, network.KIND, attachment.KIND)
}
"""Every kind of the cluster, in the order in which its changes are made within one phase."""
