"""A World file as the lab sees it.

Invariant: the file is read by the twin's own reader, so that lab and twin never disagree on what it says. What
is in the Kubernetes API (pods, MACs, networks of a VM) is asked there, not derived from the file again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from providers.twin.spec import BridgeSpec, NodeSpec, WorldSpec, read_spec


@dataclass(frozen=True, slots=True)
class Spec:
    """The world to build."""

    world: WorldSpec

    @property
    def nodes(self) -> dict[str, NodeSpec]:
        return {node.name: node for node in self.world.nodes}

    @property
    def vlans(self) -> tuple[int, ...]:
        return tuple(sorted({network.vlan for network in self.world.networks}))

    @property
    def silent(self) -> dict[str, bool]:
        """Whether a VM never speaks by itself, by namespace/name."""
        return {vm.key: vm.silent for vm in self.world.vms}

    @property
    def migration_seconds(self) -> float:
        return float(self.world.timings["migration"])

    @property
    def mtu(self) -> int:
        """Of every cable: the largest that any network wants."""
        return max((network.mtu for network in self.world.networks), default=1500)

    @property
    def ovn(self) -> str:
        """The OVN version of the central and, so far, of every node."""
        return self.world.ovn

    def managed(self, node: str) -> bool:
        """Whether the node's network belongs to NetworkManager, and nmstate is there."""
        return self.nodes[node].nmstate is not None

    def node_vlans(self) -> tuple[int, ...]:
        """The VLANs that a NIC named after one (`bond0.100`) leads to: the nodes' own traffic."""
        return tuple(sorted({tag for _, nic, _ in self.nics() if (tag := access_vlan(nic)) is not None}))

    def nics(self) -> Iterator[tuple[str, str, str]]:
        """Node, name and state of every NIC that exists."""
        for node in self.world.nodes:
            for nic, state in node.nics.items():
                if state != "missing":
                    yield node.name, nic, state


def load(path: Path) -> Spec:
    """Read a World file."""
    return parse(yaml.safe_load(path.read_text()))


def parse(document: Mapping[str, Any]) -> Spec:
    """The world of a World document."""
    spec = Spec(read_spec(document, "lab"))
    if len({subnet(vlan) for vlan in spec.vlans}) < len(spec.vlans):
        raise ValueError("two VLANs of this world are equal modulo 250, and so would be their subnets here")
    return spec


def access_vlan(nic: str) -> int | None:
    """The VLAN of a NIC that stands for a VLAN device, by its name."""
    tag = nic.rpartition(".")[2]
    return int(tag) if "." in nic and tag.isdigit() else None


def subnet(vlan: int) -> str:
    """The first three octets of every address on a VLAN."""
    return f"192.168.{vlan % 250}"


def has_uplink(node: NodeSpec, localnet: str) -> bool:
    """Whether frames of this localnet can leave the node as the World describes it."""
    mappings = dict(pair.split(":", 1) for pair in node.mappings.split(",") if ":" in pair)
    bridges = [bridge for bridge in node.bridges if bridge.name == mappings.get(localnet)]
    return any(node.nics.get(nic) == "up" for bridge in bridges for nic in _uplinks(bridge))


def is_manager_made(bridge: BridgeSpec) -> bool:
    """Whether NetworkManager made the bridge, and not `ovs-vsctl`."""
    return bridge.managed


def _uplinks(bridge: BridgeSpec) -> Iterator[str]:
    for port in bridge.ports:
        if not port.peer and not port.internal:
            yield from port.bond or (port.name,)
