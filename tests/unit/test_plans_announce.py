"""Announcements: the frame that QEMU would send, in the VM's VLAN, as if the VM had sent it."""

from __future__ import annotations

from support.switches import INNER, LSP, OUTER, switch

from plans import ovs
from plans.announce import announce, rarp_frame
from plans.ops import Run

MAC = "02:00:00:00:E0:0B"


def announcement(vlan: int, view: ovs.View | None = None) -> Run:
    return announce("w", view or switch(), "br-vmdata", OUTER, MAC, vlan, "default/web-1")


def test_the_frame_is_a_rarp_request_of_the_mac_for_itself() -> None:
    frame = bytes.fromhex(rarp_frame(MAC))
    mac = bytes.fromhex("02000000e00b")
    assert frame[:6] == b"\xff" * 6 and frame[6:12] == mac
    assert frame[12:14] == b"\x80\x35", "EtherType RARP (RFC 903)"
    assert frame[14:22] == bytes.fromhex("0001080006040003"), "Ethernet, IPv4, request reverse"
    assert frame[22:28] == frame[32:38] == mac, "it asks who itself is"
    assert len(frame) == 42


def test_a_frame_is_tagged_with_the_vms_vlan() -> None:
    op = announcement(224)
    assert op.argv[:3] == ("ovs-ofctl", "packet-out", "br-vmdata")
    assert op.argv[3].endswith("actions=mod_vlan_vid:224,normal")


def test_a_frame_of_an_untagged_network_gets_no_tag() -> None:
    assert announcement(0).argv[3].endswith("actions=normal")


def test_each_mac_and_vlan_has_a_label_of_its_own() -> None:
    assert announcement(224).label != announcement(300).label


def test_a_frame_comes_in_by_the_port_that_the_vm_uses() -> None:
    assert announcement(224).argv[3].startswith("in_port=1 ")


def test_the_number_of_a_port_that_is_yet_to_be_made_is_for_the_run_to_know() -> None:
    to_come = ovs.with_patch(ovs.without_ports(switch(), [OUTER]), "br-vmdata", OUTER, INNER, LSP)
    assert announcement(224, to_come).argv[3].startswith("in_port=(known after apply) ")
