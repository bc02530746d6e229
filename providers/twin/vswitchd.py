"""ovs-vswitchd: it numbers ports, finds the peers of patch ports, and reports in `cur_cfg`.

A pass looks at the database at one instant and writes what came of it `timings.vswitchd` later; what changes
meanwhile is the next pass's. Invariant: it writes the columns `ovs_view.REPORTED` and no others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from providers.twin import cards, ovs_view, versions
from providers.twin.networks import IFACE_ID
from providers.twin.ovs_view import CALL, DATABASE, Bridge, Iface, View
from providers.twin.stage import Change, Settings, Stage

LOCAL = 65534


class Vswitchd:
    name = "vswitchd"

    def keys(self, change: Change, settings: Settings) -> Iterable[tuple[str, float]]:
        if change.kind == "nics" or (
            change.kind == "ovsdb" and any(column not in ovs_view.REPORTED for _, column in change.columns)
        ):
            yield change.name, 0.0

    def reconcile(self, stage: Stage, key: str) -> float | None:
        memory = dict(stage.recall(self.name, key) or {"seen": {}, "stale": {}, "pass": None, "again": False})
        now = stage.clock.now()
        running = memory["pass"]
        if running is not None and now < running["ends"]:
            memory["again"] = True
            stage.keep(self.name, key, memory)
            return float(running["ends"])
        if running is not None:
            memory["pass"] = None
            _write(stage, key, running)
            if not memory["again"]:
                stage.keep(self.name, key, memory)
                return None
        memory["again"] = False
        view = ovs_view.read(stage.ovsdb(key))
        if not versions.vswitchd_moves_ports(versions.ovn(stage, key)):
            memory["stale"] = _stale(memory["stale"], memory["seen"], view)
        known = {port for ports in memory["seen"].values() for port in ports}
        memory["seen"] = {name: sorted(bridge.ports) for name, bridge in view.bridges.items()}
        ends = now + stage.settings.vswitchd
        memory["pass"] = {
            "ends": ends,
            "rows": _results(stage, key, view, memory["stale"], known),
            "cfg": view.next_cfg,
        }
        stage.keep(self.name, key, memory)
        return ends


def _write(stage: Stage, node: str, finished: Mapping[str, Any]) -> None:
    operations: list[dict[str, Any]] = [
        {"op": "update", "table": "Interface", "where": [["_uuid", "==", ["uuid", uuid]]], "row": row}
        for uuid, row in finished["rows"].items()
    ]
    operations.append({"op": "update", "table": DATABASE, "where": [], "row": {"cur_cfg": finished["cfg"]}})
    stage.ovsdb(node).transact(DATABASE, operations, timeout=CALL)


def _stale(stale: Mapping[str, Any], seen: Mapping[str, list[str]], view: View) -> dict[str, Any]:
    """The patch ports that one pass saw change bridges, which OVS 3.1 never gets straight by itself.

    Each later look alternates between an error on the peer and none. From a bridge that sorts later traffic flows all
    the same; from one that sorts first the port is dead. It ends when a pass sees the pair apart: an end gone, or
    turned to another peer. Which direction does what was measured, not understood.
    """
    found = {}
    for name, entry in stale.items():
        ends = view.patch(name), view.patch(entry["peer"])
        apart = any(e is None or o is None or e.peer != o.name for e, o in (ends, ends[::-1]))
        if not apart:
            found[name] = {**entry, "looks": entry["looks"] + 1}
    for left, ports in seen.items():
        for port in ports:
            now = view.bridge_of(port)
            iface = view.patch(port)
            if (
                left in view.bridges
                and now is not None
                and iface is not None
                and iface.type == "patch"
                and left != now.name
            ):
                found[port] = {"bridge": left, "peer": iface.peer, "looks": 0, "works": left > now.name}
    return found


def copies(stage: Stage, node: str, view: View) -> list[tuple[str, str]]:
    """What the datapath has beside the database: (bridge, port), for each copy that was kept."""
    memory = stage.recall(Vswitchd.name, node) or {}
    kept = [(e["bridge"], name) for name, e in memory.get("stale", {}).items() if not e["looks"]]
    return sorted((bridge, name) for bridge, name in kept if bridge in view.bridges)


def dead_ports(stage: Stage, node: str) -> set[str]:
    """The patch ports that carry nothing, whatever the database says of them."""
    memory = stage.recall(Vswitchd.name, node) or {}
    return {end for name, e in memory.get("stale", {}).items() if not e["works"] for end in (name, e["peer"])}


def _results(
    stage: Stage, node: str, view: View, stale: Mapping[str, Any], known: set[str]
) -> dict[str, dict[str, Any]]:
    """The rows of Interface that change, by UUID."""
    found = {}
    blamed = {e["peer"] for e in stale.values() if e["looks"] % 2}
    for bridge in view.bridges.values():
        free = _free_numbers(bridge)
        for port in bridge.ports.values():
            for iface in port.interfaces:
                row = _result(stage, node, view, bridge, iface, blamed, known, free)
                if row:
                    found[iface.uuid] = row
    return found


def _free_numbers(bridge: Bridge) -> Iterator[int]:
    used = {iface.ofport for port in bridge.ports.values() for iface in port.interfaces}
    return (number for number in range(1, LOCAL) if number not in used)


def _result(
    stage: Stage,
    node: str,
    view: View,
    bridge: Bridge,
    iface: Iface,
    blamed: set[str],
    known: set[str],
    free: Iterator[int],
) -> dict[str, Any]:
    link = _link(stage, node, iface)
    error = None
    if iface.type == "patch":
        error = _peer_error(view, bridge, iface, blamed)
        if error is None and iface.error is not None and iface.peer not in known:
            error = (
                iface.error
            )  # the pass that finds the peer again leaves the old error; the next one clears it
    elif link is None:
        error = f"could not open network device {iface.name} (No such device)"
    row: dict[str, Any] = {}
    if error != iface.error:
        row["error"] = ["set", []] if error is None else error
    # A patch port keeps its number while its peer is missing; a device that can't be opened has none.
    ofport = -1 if error is not None and iface.type != "patch" else iface.ofport
    if ofport is None or (ofport == -1 and error is None):
        ofport = LOCAL if iface.name == bridge.name else iface.ofport_request or next(free)
    if ofport != iface.ofport:
        row["ofport"] = ofport
    if link != iface.link_state and iface.type != "patch":
        state = ["set", []] if link is None else link
        row |= {"link_state": state, "admin_state": state if link is None else "up"}
    mtu = _mtu(stage, node, iface)
    if mtu is not None and mtu != iface.mtu:
        row["mtu"] = mtu
    if iface.mac_in_use is None and error is None:
        row["mac_in_use"] = _mac(node, iface.name)
    return row


def _link(stage: Stage, node: str, iface: Iface) -> str | None:
    """The link of the device behind an interface; None when there is no such device."""
    if iface.type in ("internal", "patch") or IFACE_ID in iface.external_ids:
        return "up"
    return stage.nics(node).get(iface.name)


def _mtu(stage: Stage, node: str, iface: Iface) -> int | None:
    """The MTU of the card behind an interface, after asking it for what is wanted; None when it isn't known."""
    if iface.type in ("internal", "patch") or iface.name not in stage.nics(node):
        return None
    have = cards.mtus(stage, node).get(iface.name)
    if iface.mtu_request is None or iface.mtu_request == have:
        return have
    cards.ask(stage, node, iface.name, iface.mtu_request)
    return cards.mtus(stage, node).get(iface.name)


def _peer_error(view: View, bridge: Bridge, iface: Iface, blamed: set[str]) -> str | None:
    if not iface.peer:
        return f"{iface.name}: patch type requires valid 'peer' argument"
    peer = view.patch(iface.peer)
    if peer is None or peer.type != "patch" or peer.peer != iface.name or iface.name in blamed:
        return f"No usable peer '{iface.peer}' exists in '{bridge.datapath or 'system'}' datapath."
    return None


def _mac(node: str, name: str) -> str:
    digest = hashlib.sha256(f"{node}/{name}".encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x0A, *digest[:5]))
