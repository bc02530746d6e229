"""Announcing a VM's MAC to the physical switch after its path has moved (H47).

OVN announces nothing after a remap, so a VM that sends nothing stays dark inbound until the switch forgets its MAC
(300 s by default in OVS). One RARP per MAC and VLAN, sent out of the new bridge, ends that. It leaves no trace in
the bridge's forwarding table, so it can't be observed, and is simply repeated when in doubt.
"""

from __future__ import annotations

from plans.ops import Run

BROADCAST = "ffffffffffff"
RARP_REQUEST = "80350001080006040003"


def rarp_frame(mac: str) -> str:
    """A RARP request in hex, as QEMU sends after a live migration: `mac` asks who it is."""
    digits = mac.replace(":", "").lower()
    return f"{BROADCAST}{digits}{RARP_REQUEST}{digits}00000000{digits}00000000"


def announce(node: str, bridge: str, mac: str, vlan: int, whose: str, label: str) -> Run:
    """The op that announces one MAC in one VLAN out of a bridge. VLAN 0 is untagged."""
    tagging = f"mod_vlan_vid:{vlan},normal" if vlan else "normal"
    flow = f"in_port=controller packet={rarp_frame(mac)} actions={tagging}"
    where = f"VLAN {vlan}" if vlan else "untagged"
    return Run(
        label=label,
        title=f"announce {mac} ({whose}, {where}) out of {bridge}",
        node=node,
        argv=("ovs-ofctl", "packet-out", bridge, flow),
    )
