"""The virt-launcher pods: what holds a guest on a node.

Invariant: a launcher's name follows from its VMI's UID and what it was made for, so that making it twice makes one.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any

from providers.ports import Body, Cluster, Delete, NotFound, Ref
from providers.twin import multus
from providers.twin.networks import ABSENT, KUBEVIRT, mac_of
from providers.twin.spec import bytes_of

CREATED_BY = "kubevirt.io/created-by"
NODE_NAME = "kubevirt.io/nodeName"
VM_NAME = "vm.kubevirt.io/name"
LAUNCHER = {"kubevirt.io": "virt-launcher"}


def launcher(vmi: Body, salt: str) -> dict[str, Any]:
    """The virt-launcher pod of a VMI, not yet on a node."""
    metadata = vmi["metadata"]
    digest = hashlib.sha256(f"{metadata['uid']}/{salt}".encode()).hexdigest()
    # The letters that Kubernetes uses in generated names: no vowels, nothing that looks like another.
    letters = "bcdfghjklmnpqrstvwxz2456789"
    suffix = "".join(letters[int(digest[2 * i : 2 * i + 2], 16) % len(letters)] for i in range(5))
    owner = {
        "apiVersion": KUBEVIRT,
        "kind": "VirtualMachineInstance",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    selector = vmi["spec"].get("nodeSelector")
    return {
        "metadata": {
            "name": f"virt-launcher-{metadata['name']}-{suffix}",
            "namespace": metadata["namespace"],
            "labels": {**LAUNCHER, CREATED_BY: metadata["uid"], VM_NAME: metadata["name"]},
            "annotations": {multus.ASKED: multus.asking(wanted_cards(vmi))},
            "ownerReferences": [owner],
        },
        "spec": {
            # How long the guest takes is the VMI's own affair; once it is over, its pod goes at once.
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "compute",
                    "image": "virt-launcher",
                    "resources": {"requests": {"memory": str(_memory(vmi))}},
                },
            ],
            **({"nodeSelector": dict(selector)} if selector else {}),
        },
    }


def wanted_cards(vmi: Body) -> tuple[multus.Card, ...]:
    """The cards that a launcher has to have beside the one on the pod network."""
    interfaces = vmi["spec"]["domain"]["devices"].get("interfaces", ())
    states = {entry["name"]: entry.get("state") for entry in interfaces}
    found = []
    for network in vmi["spec"].get("networks", ()):
        name = network["name"]
        if "multus" in network and states.get(name) != ABSENT:
            space, _, nad = network["multus"]["networkName"].rpartition("/")
            reference = f"{space or vmi['metadata']['namespace']}/{nad}"
            found.append(multus.Card(reference, multus.interface_of(name), mac_of(vmi, name)))
    return tuple(found)


def _memory(vmi: Body) -> int:
    domain = vmi["spec"]["domain"]
    guest = domain.get("memory", {}).get("guest")
    asked = domain.get("resources", {}).get("requests", {}).get("memory")
    return bytes_of(str(guest or asked or "1Gi"))


def launchers(cluster: Cluster, namespace: str, uid: str) -> tuple[Body, ...]:
    """The launcher pods of the VMI with that UID."""
    return cluster.list("v1", "Pod", namespace=namespace, labels={CREATED_BY: uid}).items


def delete_pod(cluster: Cluster, namespace: str, name: str) -> None:
    # Somebody may have deleted it already, which is all that was wanted.
    with suppress(NotFound):
        cluster.write(Delete(Ref("v1", "Pod", name, namespace)))
