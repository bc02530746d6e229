"""Worlds whose nodes belong to NetworkManager.

Invariant: twin and lab build the same from the document: br-vmdata over bond0 with the localnet on it, and beside it
br-phy over a bond, which br-ex has already gone over to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .spec import subnet

LOCALNET = "vmnet"
NETWORK = "default/vlan224"
VLAN = 224
GATEWAY = f"{subnet(VLAN)}.1"
NMSTATE = "2.2.62"


def managed_world(ovn: str, nodes: Iterable[str], vms: Mapping[str, str]) -> dict[str, Any]:
    """A World document. `vms` are namespace/name and node; each has one NIC, on VLAN 224."""
    attached = {"vlan224-net": {"nad": NETWORK}}
    spec = {
        "ovn": ovn,
        "nmstate": NMSTATE,
        "timings": {"migration": 0.3},
        "networks": {NETWORK: {"localnet": LOCALNET, "vlan": VLAN, "gateway": GATEWAY}},
        "nodeDefaults": {
            "labels": {"node-role.kubernetes.io/worker": ""},
            "mappings": f"physnet:br-ex,{LOCALNET}:br-vmdata",
            "nics": dict.fromkeys(("bond0", "bond0.100", "ens33", "ens34"), "up"),
            "bridges": _bridges(),
        },
        "nodes": {name: {} for name in nodes},
        "vms": {vm: {"node": node, "networks": attached} for vm, node in vms.items()},
    }
    head = {"apiVersion": "ovsplan.io/v1alpha1", "kind": "World", "metadata": {"name": f"nmstate-{ovn}"}}
    return {**head, "spec": spec}


def _bridges() -> dict[str, Any]:
    made = {"madeBy": "networkmanager"}
    bond = {"bond": ["ens33", "ens34"], "mode": "balance-slb"}
    own = {"br-ex": {"internal": True}, "patch-ex-to-phy": {"peer": "patch-phy-to-ex"}}
    shared = {"patch-phy-to-ex": {"peer": "patch-ex-to-phy", "tag": 100}, "ovs-bond": bond}
    return {
        "br-ex": {**made, "ports": own, "externalIds": {"bridge-uplink": "patch-ex-to-phy"}},
        "br-phy": {**made, "ports": shared},
        "br-vmdata": {**made, "ports": {"bond0": {}}},
    }
