"""The names that KubeVirt, OVN-Kubernetes and OVN give to one attachment of a VM to a localnet network.

Invariant: a network's switch ports are named after the network (the `name` in the NAD's config), not after the NAD.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from providers.ports import Body, Cluster, Ref
from providers.twin.nad_rules import Broken, parse

NAD_API = "k8s.cni.cncf.io/v1"
KUBEVIRT = "kubevirt.io/v1"
VM = "vm"
MAC = "attached_mac"
IFACE_ID = "iface-id"
LOCALNET_PORT = "ovn-localnet-port"
ABSENT = "absent"
"""The state of a card that is to be unplugged from its guest."""


@dataclass(frozen=True, slots=True)
class Network:
    name: str
    localnet: str
    vlan: int

    @property
    def prefix(self) -> str:
        return prefix_of(self.name)

    @property
    def lsp(self) -> str:
        """The logical switch port that stands for the physical network."""
        return f"{self.prefix}ovn_localnet_port"


def prefix_of(network: str) -> str:
    return network.replace("-", ".").replace("/", ".") + "_"


def inner(lsp: str) -> str:
    """The patch port on br-int."""
    return f"patch-br-int-to-{lsp}"


def outer(lsp: str) -> str:
    """The patch port on the bridge that the mapping names."""
    return f"patch-{lsp}-to-br-int"


def network_of(nad: Body) -> Network | None:
    """The localnet network that a NAD describes; None for one of another kind, or one that OVN-Kubernetes refuses."""
    metadata = nad["metadata"]
    try:
        found = parse((nad.get("spec") or {}).get("config"), f"{metadata['namespace']}/{metadata['name']}")
    except Broken:
        return None
    if found is None or found["topology"] != "localnet":
        return None
    localnet = found.get("physicalNetworkName") or found["name"]
    return Network(found["name"], localnet, found.get("vlanID", 0))


def all_networks(cluster: Cluster) -> dict[str, Network]:
    """Every localnet network, by its prefix."""
    nads = cluster.list(NAD_API, "NetworkAttachmentDefinition").items
    found = (network_of(nad) for nad in nads)
    return {network.prefix: network for network in found if network is not None}


def attachments(cluster: Cluster, vmi: Body) -> Iterator[tuple[str, Network]]:
    """The (interface name, network) of each localnet attachment that the guest of a VMI has."""
    states = {i["name"]: i.get("state") for i in vmi["spec"]["domain"]["devices"].get("interfaces", ())}
    reported = {entry["name"] for entry in vmi.get("status", {}).get("interfaces", ())}
    for entry in vmi["spec"].get("networks", ()):
        reference = (entry.get("multus") or {}).get("networkName")
        if reference is None or entry["name"] not in reported or states.get(entry["name"]) == ABSENT:
            continue
        space, _, name = reference.rpartition("/")
        namespace = space or vmi["metadata"]["namespace"]
        nad = cluster.get(Ref(NAD_API, "NetworkAttachmentDefinition", name, namespace))
        network = network_of(nad) if nad is not None else None
        if network is not None:
            yield entry["name"], network


def mac_of(vmi: Body, interface: str) -> str:
    """A card's address: the one it has, else the one it asks for, else one that only depends on the VM and the card."""
    metadata = vmi["metadata"]
    for entry in vmi.get("status", {}).get("interfaces", ()):
        if entry["name"] == interface:
            return str(entry["mac"])
    for entry in vmi["spec"]["domain"]["devices"].get("interfaces", ()):
        if entry["name"] == interface and entry.get("macAddress"):
            return str(entry["macAddress"])
    digest = hashlib.sha256(f"{metadata['namespace']}/{metadata['name']}/{interface}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (2, *digest[:5]))


def vm_of(external_ids: Mapping[str, str]) -> str | None:
    """The `namespace/name` of the VM whose port this is."""
    return external_ids.get(VM) if IFACE_ID in external_ids else None


def split_vm(vm: str) -> tuple[str, str]:
    namespace, _, name = vm.partition("/")
    return namespace, name


def running_on(vmi: Body) -> str | None:
    """The node the guest runs on this instant: during a migration's hand-over, already the target."""
    status: Mapping[str, Any] = vmi.get("status", {})
    if status.get("phase") != "Running":
        return None
    move = status.get("migrationState") or {}
    if move.get("targetNodeDomainDetected") and not move.get("failed"):
        return str(move["targetNode"])
    return status.get("nodeName")
