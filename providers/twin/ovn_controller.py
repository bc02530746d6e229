"""ovn-controller 23.03 and 25.03: it makes the pair of patch ports through which a localnet network leaves br-int.

Invariant: it acts on what is in the node's database `timings.ovnController` after a change, in one transaction, and
only ever adds or removes ports that carry `ovn-localnet-port` (and the announcements of VM ports).
Its known faults are kept as they are: see `_wanted`, `_add` and `versions.ovn_moves_ports`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from providers.twin import forwarding, ovs_view, versions
from providers.twin.networks import IFACE_ID, LOCALNET_PORT, all_networks, inner, outer, vm_of
from providers.twin.ovs_view import CALL, DATABASE, INTEGRATION, View
from providers.twin.stage import Change, Settings, Stage

MAPPINGS = "ovn-bridge-mappings"
GRACE = 10.0
ANNOUNCED_AT = (0.0, 1.0, 3.0, 7.0, 15.0)
# The localnet of the cluster's own network: its gateway router lives on every node, VM or not.
_DEFAULT_LOCALNET = "physnet"


class OvnController:
    name = "ovn-controller"

    def keys(self, change: Change, settings: Settings) -> Iterable[tuple[str, float]]:
        if change.kind == "ovsdb" and any(column not in ovs_view.REPORTED for _, column in change.columns):
            yield change.name, settings.ovn_controller

    def reconcile(self, stage: Stage, key: str) -> float | None:
        memory = dict(
            stage.recall(self.name, key) or {"started": stage.clock.now(), "claims": {}, "local": {}}
        )
        view = ovs_view.read(stage.ovsdb(key))
        if INTEGRATION not in view.bridges:
            return None
        now = stage.clock.now()
        plugged = _plugged(stage, key, view)
        memory["local"] = _local(memory, plugged, view)
        changed, pending = self._patch(stage, key, view, memory)
        memory["woken_by"] = _wakers(ovs_view.read(stage.ovsdb(key)) if changed else view)
        memory["claims"] = {
            iface: memory["claims"].get(iface) or {"at": now, "sent": 0} for iface in _claimable(view)
        }
        again = _announce(stage, key, view, memory, now)
        stage.keep(self.name, key, memory)
        return min((instant for instant in (pending, again) if instant is not None), default=None)

    def _patch(
        self, stage: Stage, node: str, view: View, memory: Mapping[str, Any]
    ) -> tuple[bool, float | None]:
        """Bring the pairs in line; returns whether it tried, and when to come back for what may not go yet."""
        mappings = parse_mappings(view.external_ids.get(MAPPINGS, ""))
        wanted = _wanted(memory["local"], mappings, view)
        operations = [op for lsp, bridge in sorted(wanted.items()) for op in _add(view, lsp, bridge)]
        moves = versions.ovn_moves_ports(versions.ovn(stage, node))
        gone = (_misplaced(view, wanted) if moves else []) + _stale(view, wanted)
        young = stage.clock.now() < memory["started"] + GRACE
        if not young:
            operations = gone + operations
        if operations:
            stage.ovsdb(node).transact(DATABASE, [*operations, ovs_view.BUMP], timeout=CALL)
        return bool(operations), memory["started"] + GRACE if young and gone else None


def recompute(stage: Stage, node: str) -> None:
    """Have it compute everything anew, as `inc-engine/recompute` does."""
    memory = stage.recall(OvnController.name, node)
    if memory is not None:
        stage.keep(OvnController.name, node, {**memory, "woken_by": None})
    stage.remind(OvnController.name, node, stage.clock.now() + stage.settings.ovn_controller)


def parse_mappings(value: str) -> dict[str, str]:
    """The pairs up to the first malformed entry: OVN ignores the rest, and says so only in its log."""
    found: dict[str, str] = {}
    for entry in value.split(","):
        localnet, colon, bridge = entry.strip().partition(":")
        if not colon or not localnet or not bridge:
            break
        found[localnet] = bridge
    return found


def _plugged(stage: Stage, node: str, view: View) -> dict[str, str]:
    """The localnet, by switch port, of every network that has something plugged in on this node."""
    networks = all_networks(stage.cluster)
    found = {}
    for iface_id in _claimable(view):
        network = networks.get(iface_id[: iface_id.find("_") + 1])
        if network is not None:
            found[network.lsp] = network.localnet
    found[f"br-ex_{node}"] = _DEFAULT_LOCALNET
    return found


def _claimable(view: View) -> dict[str, str]:
    """The VM ports on br-int: iface-id to VM."""
    ports = view.bridges[INTEGRATION].ports.values()
    ifaces = [iface for port in ports for iface in port.interfaces if IFACE_ID in iface.external_ids]
    return {iface.external_ids[IFACE_ID]: vm_of(iface.external_ids) or "" for iface in ifaces}


def _wakers(view: View) -> list[Any]:
    """What makes it compute everything anew, rather than what one change touches.

    An interface of another type than a VM's: also a card that NetworkManager plugged in, whose type is written out.
    """
    others = [
        [bridge.name, port.name, iface.uuid]
        for bridge in view.bridges.values()
        for port in bridge.ports.values()
        for iface in port.interfaces
        if iface.type not in ("", "internal")
    ]
    return [view.external_ids.get(MAPPINGS), sorted(view.bridges), others]


def _local(memory: Mapping[str, Any], plugged: Mapping[str, str], view: View) -> dict[str, str]:
    """The networks it holds to be in use here: one whose last VM left stays until everything is computed anew."""
    if memory.get("woken_by") != _wakers(view):
        return dict(plugged)
    return {**memory["local"], **plugged}


def _wanted(local: Mapping[str, str], mappings: Mapping[str, str], view: View) -> dict[str, str]:
    """The bridge, by switch port. A mapping to a bridge that is not there is passed over in silence."""
    return {
        lsp: mappings[localnet]
        for lsp, localnet in local.items()
        if mappings.get(localnet, "") in view.bridges and mappings[localnet] != INTEGRATION
    }


def _add(view: View, lsp: str, bridge: str) -> list[dict[str, Any]]:
    """The missing ends of a pair.

    It looks for an end only on the bridge where it should be. One that is still on another bridge is inserted a
    second time, and the database refuses the whole transaction (in OVN since b600316f2, until 2609cd9f0).
    """
    ends = ((INTEGRATION, inner(lsp), outer(lsp)), (bridge, outer(lsp), inner(lsp)))
    made = []
    for where, name, peer in ends:
        if name in view.bridges[where].ports:
            continue
        iface = {"name": name, "type": "patch", "options": ["map", [["peer", peer]]]}
        mark = {"external_ids": ["map", [[LOCALNET_PORT, lsp]]]}
        made += ovs_view.insert_port(where, name, [iface], mark)
    return made


def _misplaced(view: View, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """The outer ends of wanted pairs that are on another bridge than they should be."""
    homes = {outer(lsp): bridge for lsp, bridge in wanted.items()}
    return [
        ovs_view.remove_port(bridge, port)
        for bridge in view.bridges.values()
        for port in bridge.ports.values()
        if homes.get(port.name, bridge.name) != bridge.name
    ]


def _stale(view: View, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        ovs_view.remove_port(bridge, port)
        for bridge in view.bridges.values()
        for port in bridge.ports.values()
        if port.external_ids.get(LOCALNET_PORT) not in (None, *wanted)
    ]


def _announce(stage: Stage, node: str, view: View, memory: dict[str, Any], now: float) -> float | None:
    """OVN's own RARPs: a few after a port was claimed, none after its network was moved to another bridge."""
    claims = {}
    vms = _claimable(view)
    upcoming = []
    for iface, claim in memory["claims"].items():
        sent = claim["sent"]
        while sent < len(ANNOUNCED_AT) and claim["at"] + ANNOUNCED_AT[sent] <= now + 1e-6:
            if vms[iface]:
                forwarding.announce(stage, node, vms[iface])
            else:
                forwarding.announce_pod(stage, node, iface)
            sent += 1
        claims[iface] = {**claim, "sent": sent}
        if sent < len(ANNOUNCED_AT):
            upcoming.append(claim["at"] + ANNOUNCED_AT[sent])
    memory["claims"] = claims
    return min(upcoming, default=None)
