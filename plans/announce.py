"""Announcing a VM's MAC to the physical switch after its path has moved (H47).

OVN announces nothing after a remap, so a VM that sends nothing stays dark inbound until the switch forgets its MAC
(300 s by default in OVS). One RARP per MAC and VLAN, sent out of the new bridge, ends that.

It is sent as if it came in by OVN's patch port, as the VM's own frames do. Sent as from the controller, the bridge
would learn nothing from it, and its echo from the other member of a balance-slb bond would then teach the bridge
that the VM is outside, and leave it dark (measured: docs/ovs-facts.md). It is repeated when in doubt: harmless.
"""

from __future__ import annotations

from plans import ovs
from plans.facts import KNOWN_AFTER_APPLY
from plans.ops import Run

BROADCAST = "ffffffffffff"
RARP_REQUEST = "80350001080006040003"


def rarp_frame(mac: str) -> str:
    """A RARP request in hex, as QEMU sends after a live migration: `mac` asks who it is."""
    digits = mac.replace(":", "").lower()
    return f"{BROADCAST}{digits}{RARP_REQUEST}{digits}00000000{digits}00000000"


def announce(node: str, view: ovs.View, bridge: str, port: str, mac: str, vlan: int, whose: str) -> Run:
    """The op that announces one MAC in one VLAN, as if heard on `port` of `bridge`. VLAN 0 is untagged."""
    tagging = f"mod_vlan_vid:{vlan},normal" if vlan else "normal"
    rest = f"packet={rarp_frame(mac)} actions={tagging}"
    where = f"VLAN {vlan}" if vlan else "untagged"
    return Run(
        label=f"announce:{mac}:{vlan}",
        title=f"announce {mac} ({whose}, {where}) out of {bridge}",
        node=node,
        argv=("ovs-ofctl", "packet-out", bridge, f"in_port={_number(view, bridge, port)} {rest}"),
        commands=(
            f'ovs-ofctl packet-out {bridge} "in_port=$(ovs-vsctl get Interface {port} ofport) {rest}"',
        ),
    )


def _number(view: ovs.View, bridge: str, port: str) -> str:
    """The port's OpenFlow number; only the run knows that of a port which is yet to be made."""
    found = view["bridges"].get(bridge, {}).get("ports", {}).get(port)
    if found is None or found["uuid"] == ovs.UNKNOWN_UUID:
        return KNOWN_AFTER_APPLY
    return str(found["interfaces"][0]["ofport"])
