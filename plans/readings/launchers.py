"""Reading the pods that VMs run in: `node/<n>/launchers`, the name of each by the VM that runs in it on that node.

Invariant: of a VM that migrates, the pod on this node is told, and only while it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plans.facts import Fact, Json, Known
from plans.ops import ListRequest
from plans.readings.cluster import VMI
from plans.readings.maintenance import POD

KEEP = (
    *("metadata.name", "metadata.namespace", "metadata.ownerReferences", "metadata.deletionTimestamp"),
    "status.phase",
)


def request_of(node: str) -> ListRequest:
    """The launchers on one node."""
    labels = (("kubevirt.io", "virt-launcher"),)
    return ListRequest(*POD, keep=KEEP, labels=labels, fields=(("spec.nodeName", node),))


def parse(node: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """The owner is asked for the VM's name: a label holds a long one only in part."""
    found = {}
    for item in replies[0]:
        metadata = item["metadata"]
        owners = [o["name"] for o in metadata.get("ownerReferences") or () if o.get("kind") == VMI[1]]
        runs = item.get("status", {}).get("phase") == "Running" and "deletionTimestamp" not in metadata
        if owners and runs:
            found[f"{metadata['namespace']}/{owners[0]}"] = metadata["name"]
    return {f"node/{node}/launchers": Known(found)}
