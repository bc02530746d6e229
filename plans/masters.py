"""Networks of pods that take a NIC of the node for themselves: by macvlan, by ipvlan, or whole.

A NIC gives what it receives to one taker only: a bridge, Open vSwitch, or the macvlans or ipvlans on it. Whoever comes second
is refused by the kernel (EBUSY, `netdev_rx_handler_register`; tried with a macvlan and a bridge). A VLAN on it is no taker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from plans.desired import Desired
from plans.facts import Facts, Known

_BY_MASTER = ("macvlan", "ipvlan")
WHOLE = "host-device"


def views(desired: Desired) -> tuple[str, ...]:
    """What has to be read where NICs are to be put on a bridge."""
    return ("nads", "nad-users") if any(network.ports for network in desired.networks) else ()


def taken(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each (plug-in, NIC of the node) that a NAD's configuration takes, of a list of plug-ins too.

    One without a master takes the NIC of the default route, which has an address of the node and is known by that.
    """
    listed = config.get("plugins")
    for plugin in listed if isinstance(listed, list) else [config]:
        if not isinstance(plugin, dict) or plugin.get("linkInContainer") is True:
            continue
        kind = plugin.get("type")
        nic = plugin.get("master") if kind in _BY_MASTER else plugin.get("device") if kind == WHOLE else None
        if isinstance(nic, str) and nic:
            yield str(kind), nic


def networks_of(nic: str, facts: Facts) -> list[tuple[str, str]]:
    """The NADs that take a NIC, each with its plug-in."""
    return [
        (nad, kind)
        for nad in facts.value("cluster/nads", [])
        for kind, name in taken(facts.value(f"nad/{nad}/config") or {})
        if name == nic
    ]


def users_on(node: str, nad: str, facts: Facts) -> list[str] | None:
    """The pods and VMs of a node that use a NAD; None when that could not be asked."""
    pods, vms = facts.get("cluster/nad-pods-by-node"), facts.get(f"node/{node}/vms")
    if not isinstance(pods, Known) or not isinstance(vms, Known):
        return None
    attached = [
        f"VM {vm}"
        for vm in vms.value
        if any(card["nad"] == nad for card in (facts.value(f"vm/{vm}") or {}).get("macs", ()))
    ]
    return [*(f"pod {pod}" for pod in pods.value.get(node, {}).get(nad, [])), *attached]
