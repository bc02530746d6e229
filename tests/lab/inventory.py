"""What the Kubernetes API says about the pods that are on networks: launchers of VMs, and others.

Invariant: read only through the Cluster port, so that the lab wires what any client of that API would see.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from providers.ports import Body, Cluster

VMI = ("kubevirt.io/v1", "VirtualMachineInstance")
NAD = ("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition")
_MIGRATION = "kubevirt.io/migrationJobUID"
_LAUNCHER = ("kubevirt.io", "virt-launcher")
_NETWORKS = "k8s.v1.cni.cncf.io/networks"


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
    """A pod that has a node. Of a virt-launcher, `vm` is namespace/name and `migration` a target pod's VMIM uid."""

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

    @property
    def guest(self) -> str:
        """Whose network namespace it is: a VM's, which stays through migrations, or the pod's own."""
        return self.vm or self.key

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
    """The scheduled, living pods on networks, by namespace/name."""
    found = (_pod(body, vmis, nads) for body in cluster.list("v1", "Pod").items)
    return {pod.key: pod for pod in found if pod is not None}


def _pod(body: Body, vmis: Mapping[str, Body], nads: Mapping[str, Mapping[str, Any]]) -> Pod | None:
    meta = body["metadata"]
    labels = meta.get("labels", {})
    phase = body.get("status", {}).get("phase", "Pending")
    node = body["spec"].get("nodeName", "")
    if not node or phase in ("Succeeded", "Failed") or "deletionTimestamp" in meta:
        return None
    nics = _nics(meta, nads)
    if labels.get(_LAUNCHER[0]) != _LAUNCHER[1]:
        return Pod(meta["namespace"], meta["name"], "", node, phase, "", nics) if nics else None
    vm = f"{meta['namespace']}/{labels['vm.kubevirt.io/name']}"
    if vm not in vmis:
        return None
    return Pod(meta["namespace"], meta["name"], vm, node, phase, labels.get(_MIGRATION, ""), nics)


def _nics(meta: Mapping[str, Any], nads: Mapping[str, Mapping[str, Any]]) -> tuple[Nic, ...]:
    """The localnet interfaces that a pod's annotation asks for; one without an address gets one from the CNI."""
    text = meta.get("annotations", {}).get(_NETWORKS, "")
    if text.startswith("["):
        asked = [(f"{each['namespace']}/{each['name']}", each["mac"]) for each in json.loads(text)]
    else:
        names = [name for name in text.split(",") if name]
        asked = [(name, _mac(f"{meta['namespace']}/{meta['name']} {name}")) for name in names]
    return _localnet_nics(meta["namespace"], asked, nads)


def _mac(seed: str) -> str:
    digest = hashlib.sha256(seed.encode()).hexdigest()
    return ":".join(["0a", "58", *(digest[at : at + 2] for at in range(0, 8, 2))])


def _localnet_nics(
    namespace: str, asked: Sequence[tuple[str, str]], nads: Mapping[str, Mapping[str, Any]]
) -> tuple[Nic, ...]:
    """Of (NAD, MAC) those that are localnets; whoever is behind them sees eth0, eth1, ..."""
    nics: list[Nic] = []
    for name, mac in asked:
        config = nads.get(name if "/" in name else f"{namespace}/{name}")
        if config and config.get("topology") == "localnet":
            guest = f"eth{len(nics)}"
            localnet = config["physicalNetworkName"]
            nics.append(Nic(guest, config["name"], localnet, int(config["vlanID"]), mac))
    return tuple(nics)


def _key(body: Body) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"
