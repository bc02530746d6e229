"""Who uses a localnet on a node: networks, VMs and their MACs, from facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from plans import ovs
from plans.facts import Facts, Unknown


@dataclass(frozen=True, slots=True, order=True)
class Guest:
    """One attachment of one VM to one network of a localnet."""

    vm: str
    nad: str
    lsp: str
    vlan: int
    mac: str


def networks_of(facts: Facts, localnet: str) -> dict[str, tuple[str, int]]:
    """The NADs on a localnet: `ns/name` → (localnet switch port, VLAN)."""
    found = {}
    for nad in facts.value("cluster/networks", []):
        network = facts.value(f"network/{nad}")
        if network and network["localnet"] == localnet:
            found[nad] = (ovs.localnet_port_of(network["name"]), network["vlan"])
    return found


def switch_ports_of(facts: Facts, view: ovs.View, localnet: str) -> dict[str, int]:
    """The localnet switch ports that belong to a localnet on this node: name → VLAN (0: unknown or untagged).

    By the NADs; and a port that no NAD explains, when its bridge is mapped to this localnet alone.
    """
    ours = dict(networks_of(facts, localnet).values())
    pairs = ovs.parse_mappings(view["mapping"])
    explained = {
        ovs.localnet_port_of(network["name"])
        for nad in facts.value("cluster/networks", [])
        if (network := facts.value(f"network/{nad}"))
    }
    for bridge in view["bridges"]:
        if [net for net, b in pairs.items() if b == bridge] == [localnet]:
            for lsp in ovs.patch_ports(view, bridge).values():
                if lsp not in explained:
                    ours.setdefault(lsp, 0)
    return dict(sorted(ours.items()))


def guests(facts: Facts, node: str, localnet: str) -> list[Guest]:
    """The attachments to a localnet of the VMs on a node, sorted."""
    networks = networks_of(facts, localnet)
    found = []
    for vm in facts.value(f"node/{node}/vms", []):
        for attached in (facts.value(f"vm/{vm}") or {}).get("macs", ()):
            if attached["nad"] in networks:
                lsp, vlan = networks[attached["nad"]]
                found.append(Guest(vm, attached["nad"], lsp, vlan, attached["mac"]))
    return sorted(found)


def is_running(facts: Facts, vm: str) -> bool:
    """Whether the guest runs. One that starts has no path yet, which OVN makes by itself: nothing is broken."""
    return (facts.value(f"vm/{vm}") or {}).get("phase") == "Running"


def unclear_attachments(facts: Facts, node: str) -> list[str]:
    """Why it can't be told which localnets the VMs on a node use: each attachment to a NAD that could not be read.

    Such a VM may ride on any localnet, so none may be moved under it, nor may the node be taken for empty.
    """
    found = []
    for vm in facts.value(f"node/{node}/vms", []):
        for attached in (facts.value(f"vm/{vm}") or {}).get("macs", ()):
            fact = facts.get(f"network/{attached['nad']}")
            if isinstance(fact, Unknown):
                found.append(f"cannot tell which localnet {vm} uses by {attached['nad']}: {fact.why}")
    return sorted(set(found))


def vms_on(facts: Facts, node: str, localnets: Mapping[str, object] | tuple[str, ...]) -> list[str]:
    """The VMs on a node that use any of the localnets, sorted."""
    return sorted({guest.vm for localnet in localnets for guest in guests(facts, node, localnet)})


def without_network(facts: Facts, node: str, localnet: str) -> dict[str, str]:
    """The VMs that run on a node and whose path by a localnet is broken now: VM → why. The node's switch must be known."""
    view: ovs.View = facts.value(f"node/{node}/ovs")
    found: dict[str, str] = {}
    for guest in guests(facts, node, localnet):
        if is_running(facts, guest.vm) and (why := _broken(view, guest.lsp)):
            found.setdefault(guest.vm, why)
    return found


def _broken(view: ovs.View, lsp: str) -> str:
    health = ovs.pair_health(view, lsp)
    if health != "healthy":
        return health
    (home,) = ovs.bridges_of_port(view, ovs.outer_port(lsp))
    return "" if ovs.live_uplinks(view, home) else f"its bridge {home} has no uplink that works"
