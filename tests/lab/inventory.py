"""What the Kubernetes API says about launcher pods and the networks of their VMs.

Invariant: read only through the Cluster port, so that the lab wires what any client of that API would see.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from providers.ports import Body, Cluster

VMI = ("kubevirt.io/v1", "VirtualMachineInstance")
NAD = ("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition")
_MIGRATION = "kubevirt.io/migrationJobUID"


@dataclass(frozen=True, slots=True)
class Nic:
    """One interface of a VM. `network` is the name in the NAD's configuration; OVN's names come from it."""

    guest: str
    network: str
    localnet: str
    vlan: int
    mac: str

    @property
    def prefix(self) -> str:
        return prefix_of(self.network)

    @property
    def switch(self) -> str:
        return f"{self.prefix}ovn_localnet_switch"


@dataclass(frozen=True, slots=True)
class Pod:
    """A virt-launcher pod that has a node. `vm` is namespace/name; `migration` a target pod's VMIM uid."""

    namespace: str
    name: str
    vm: str
    node: str
    phase: str
    migration: str
    nics: tuple[Nic, ...]

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    def iface_id(self, nic: Nic) -> str:
        """The logical port's name, as OVN-Kubernetes forms it for a secondary network."""
        return f"{nic.prefix}{self.namespace}_{self.name}"

    def tap(self, nic: Nic) -> str:
        """The port on the node; Linux takes 15 characters, so the name is a digest of the logical port's."""
        return "tap" + hashlib.sha256(self.iface_id(nic).encode()).hexdigest()[:10]


def prefix_of(network: str) -> str:
    """What OVN-Kubernetes puts before every logical name of a network."""
    return network.replace("-", ".").replace("/", ".") + "_"


def instances(cluster: Cluster) -> dict[str, Body]:
    """VirtualMachineInstances by namespace/name."""
    return {_key(body): body for body in cluster.list(*VMI).items}


def networks(cluster: Cluster) -> dict[str, Mapping[str, Any]]:
    """The configuration of every NAD, by namespace/name."""
    return {_key(body): json.loads(body["spec"]["config"]) for body in cluster.list(*NAD).items}


def pods(cluster: Cluster, vmis: Mapping[str, Body], nads: Mapping[str, Mapping[str, Any]]) -> dict[str, Pod]:
    """The scheduled, living launcher pods by namespace/name."""
    listing = cluster.list("v1", "Pod", labels={"kubevirt.io": "virt-launcher"})
    found = (_pod(body, vmis, nads) for body in listing.items)
    return {pod.key: pod for pod in found if pod is not None}


def _pod(body: Body, vmis: Mapping[str, Body], nads: Mapping[str, Mapping[str, Any]]) -> Pod | None:
    meta = body["metadata"]
    vm = f"{meta['namespace']}/{meta['labels']['vm.kubevirt.io/name']}"
    phase = body.get("status", {}).get("phase", "Pending")
    node = body["spec"].get("nodeName", "")
    if not node or vm not in vmis or phase in ("Succeeded", "Failed") or "deletionTimestamp" in meta:
        return None
    nics = _nics(vmis[vm], nads)
    return Pod(meta["namespace"], meta["name"], vm, node, phase, meta["labels"].get(_MIGRATION, ""), nics)


def _nics(vmi: Body, nads: Mapping[str, Mapping[str, Any]]) -> tuple[Nic, ...]:
    """The localnet interfaces, in the VMI's order; the guest sees them as eth0, eth1, ..."""
    wired = {net["name"]: net["multus"]["networkName"] for net in vmi["spec"]["networks"] if "multus" in net}
    namespace = vmi["metadata"]["namespace"]
    nics: list[Nic] = []
    for interface in vmi["status"]["interfaces"]:
        name = wired.get(interface["name"], "")
        config = nads.get(name if "/" in name else f"{namespace}/{name}")
        if config and config.get("topology") == "localnet":
            guest = f"eth{len(nics)}"
            localnet = config["physicalNetworkName"]
            nics.append(Nic(guest, config["name"], localnet, int(config["vlanID"]), interface["mac"]))
    return tuple(nics)


def _key(body: Body) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"
