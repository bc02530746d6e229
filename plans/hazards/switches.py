"""Hazards of a node's switch: mappings, bridges, and the OVN that works on them."""

from __future__ import annotations

from plans import ovs
from plans.document import Finding
from plans.facts import Absent, Known, Unknown, show
from plans.guests import without_network
from plans.hazards import Scene
from plans.nmstate import ownership
from plans.remap.before import OVN_SETTLE
from plans.selection import applies_to


def physnet_missing(scene: Scene) -> list[Finding]:
    """H01: the node's own way out is gone already: something rewrote the mapping whole."""
    found = []
    for bracket in scene.brackets:
        at = f"node/{bracket.node}/ovs"
        if isinstance(scene.facts.get(f"{at}/mapping/physnet"), Absent):
            found.append(
                Finding(
                    "H01", "block", bracket.node, (f"{at}/mapping/physnet",),
                    f"{bracket.node} has no physnet in {ovs.MAPPING_KEY} ({show(scene.facts.get(f'{at}/mappings'))}): "
                    "OVN-Kubernetes' node traffic has lost its bridge",
                    "restart the node's ovnkube-node pod, which writes it again, then plan again",
                )
            )  # fmt: skip
    return found


def bridge_without_uplink(scene: Scene) -> list[Finding]:
    """H03: the mapping would point at a bridge that does not exist, or reaches no switch."""
    found = []
    labelled = {network.name for network in scene.desired.networks if network.is_labelled}
    for diff in scene.diffs:
        for change in diff.changes:
            if change.kind != "mapping" or change.data["made"]:
                continue
            node, bridge = change.node, change.data["bridge"]
            view = scene.facts.value(f"node/{node}/ovs")
            if bridge not in view["bridges"] and change.localnets[0] in labelled:
                continue  # said with what to write instead, where policies are looked at
            if bridge not in view["bridges"]:
                what = f"{node} has no bridge {bridge}; it has {', '.join(view['bridges'])}"
            elif not ovs.live_uplinks(view, bridge):
                what = f"{bridge} on {node} has no uplink that works{_why(view, bridge)}"
            else:
                continue
            found.append(
                Finding("H03", "block", node, (f"node/{node}/bridge/{bridge}",), what + ": its VMs would have no network",
                        f"make {bridge} with an enabled bond on {node} first. Accepted: {node} is left out",
                        leaves_out=tuple(c.address for c in diff.changes))
            )  # fmt: skip
    return found


def vms_on_a_bridge_without_uplink(scene: Scene) -> list[Finding]:
    """H03: all is as declared, and the VMs are dark: the declared bridge itself has lost its way out."""
    found = []
    for diff in scene.diffs:
        node, changing = diff.node, {change.address for change in diff.changes}
        fact = scene.facts.get(f"node/{node}/ovs")
        for network in scene.desired.networks:
            at = f"node/{node}/ovs/mapping/{network.name}"
            if not isinstance(fact, Known) or not applies_to(network, node, scene.facts):
                continue
            if f"node/{node}/mapping/{network.name}" in changing or scene.facts.value(at) != network.bridge:
                continue  # said where the change is judged
            dark = list(without_network(scene.facts, node, network.name))
            if dark and not ovs.live_uplinks(fact.value, network.bridge):
                found.append(
                    Finding("H03", "warn", node, tuple(f"vm/{vm}" for vm in dark),
                            f"{network.name} is on {network.bridge} on {node}, as declared, which has no uplink that works"
                            f"{_why(fact.value, network.bridge)}: without network now: {', '.join(dark)}",
                            f"give {network.bridge} a bond or NIC with its link up, or declare the bridge that has one in spec.bridge")
                )  # fmt: skip
    return found


def _why(view: ovs.View, bridge: str) -> str:
    sick = []
    for nics in ovs.uplinks(view, bridge).values():
        for nic in nics:
            state = (
                nic.get("error") or f"link {nic.get('link_state') or 'unknown'}, ofport {nic.get('ofport')}"
            )
            sick.append(f"{nic['name']}: {state}")
    internal = [
        name
        for name, port in view["bridges"][bridge]["ports"].items()
        if name != bridge and any(i["type"] == "internal" for i in port["interfaces"])
    ]
    sick += [f"{name}: an internal port, not a NIC" for name in internal]
    return f" ({'; '.join(sick)})" if sick else ""


def made_by_network_manager(scene: Scene) -> list[Finding]:
    """H54: deleted by OVSDB, the bridge is back within 21 ms."""
    return [
        Finding(
            "H54", "block", change.node, (change.address,),
            f"{change.data['bridge']} on {change.node} was made by NetworkManager (NM.connection.uuid {change.data['nm']}), "
            "which brings it back at once when it is deleted in OVSDB",
            f"remove it by nmstate after the remap (state: absent), and leave `replaces` out here. Accepted: the remap is done and {change.data['bridge']} is left",
            leaves_out=(change.address,),
        )
        for diff in scene.diffs
        for change in diff.changes
        if change.kind == "bridge" and ownership.made_by_network_manager(scene.facts, change.node, change.bridge)
        if _by_ovsdb(scene, change.address)
    ]  # fmt: skip


def _by_ovsdb(scene: Scene, address: str) -> bool:
    """Whether a bridge is removed in the database, not by whoever made it."""
    actions = (action for bracket in scene.brackets for action in bracket.actions)
    return any(a.address == address and a.routine.startswith("remove-bridge") for a in actions)


def old_ovn(scene: Scene) -> list[Finding]:
    """H45: an OVN that moves no patch port by itself, or is too young to be trusted; and one that can't be asked."""
    found = []
    for bracket in scene.brackets:
        node = bracket.node
        if not any(
            a.routine.partition("@")[0] in ("hot-remap", "cold-remap", "policy-remap")
            for a in bracket.actions
        ):
            continue
        uptime, version = (
            scene.facts.get(f"node/{node}/ovs/ovn-uptime"),
            scene.facts.get(f"node/{node}/ovn/version"),
        )
        if isinstance(uptime, Known) and uptime.value < OVN_SETTLE:
            found.append(
                Finding("H45", "warn", node, (f"node/{node}/ovn",), f"ovn-controller on {node} has only just started",
                        f"nothing to do: the remap waits until it has been up for {OVN_SETTLE} s")
            )  # fmt: skip
        for fact in (uptime, version):
            if isinstance(fact, Unknown):
                found.append(
                    Finding("H45", "warn", node, (f"node/{node}/ovn",),
                            f"cannot tell which OVN runs on {node}, or since when: {fact.why}",
                            "nothing to do if it has been up for a minute: the remap works with every version")
                )  # fmt: skip
                break
    return found


def busy_controller_and_silence(scene: Scene) -> list[Finding]:
    """H47, H48: what a hot remap costs its VMs, and what is done about it."""
    found = []
    for bracket in scene.brackets:
        remaps = [
            a
            for a in bracket.actions
            if a.routine in ("hot-remap@1", "policy-remap@1") and a.disruption == "vm-traffic"
        ]
        if remaps:
            vms = tuple(f"vm/{vm}" for vm in sorted({vm for a in remaps for vm in a.vms}))
            found.append(
                Finding("H47", "warn", bracket.node, vms,
                        f"hot on {bracket.node}: OVN announces no VM after a remap, so one that sends nothing would stay dark inbound",
                        "nothing to do: every MAC is announced (RARP) right after the move")
            )  # fmt: skip
            found.append(
                Finding("H48", "warn", bracket.node, vms,
                        f"hot on {bracket.node}: a busy ovn-controller would add its whole lag to the outage",
                        "nothing to do: ovsplan inserts the new patch port itself, if it is first")
            )  # fmt: skip
    return found


FINDERS = (
    physnet_missing,
    bridge_without_uplink,
    vms_on_a_bridge_without_uplink,
    made_by_network_manager,
    old_ovn,
    busy_controller_and_silence,
)
