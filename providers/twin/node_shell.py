"""The commands that the twin's nodes know, with the output of the real programs.

Invariant: an unknown program is 127, a known one used in a way that the twin does not know is an error of that
program's; nothing is ever answered with a made-up success.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any

from providers.ports import Finished
from providers.twin import (
    forwarding,
    networkmanager,
    nmstate_state,
    nmstatectl,
    ovn_controller,
    ovs_view,
    reboots,
    versions,
    vswitchd,
)
from providers.twin.ovs_view import Bridge, Iface, View
from providers.twin.stage import Stage

_PACKET = re.compile(
    r"in_port=(controller|[0-9]+)\s+packet=([0-9a-fA-F]*)\s+actions=(?:mod_vlan_vid:([0-9]+),)?normal"
)
_FLOW = re.compile(
    r"cookie=(0x[0-9a-f]+),hard_timeout=([0-9]+),priority=([0-9]+),arp,(?:dl_vlan=([0-9]+)|vlan_tci=0x0000),"
    r"arp_op=2,arp_spa=([0-9.]+),dl_dst=([0-9a-f:]{17}),actions=normal"
)
_HEADER = " port  VLAN  MAC                Age\n"


def run(stage: Stage, node: str, argv: Sequence[str], stdin: bytes = b"") -> Finished:
    """Run one command on a node. Only nmstatectl reads its input."""
    program = argv[0].rpartition("/")[2] if argv else ""
    if program == nmstatectl.PROGRAM:
        return nmstatectl.run(stage, node, argv, stdin)
    known = _PROGRAMS.get(program)
    if known is None:
        return Finished(127, "", f"sh: 1: {program}: not found\n")
    return known(stage, node, list(argv[1:]))


def _appctl(stage: Stage, node: str, args: list[str]) -> Finished:
    target, args = _target(args, "ovs-vswitchd")
    if target.startswith("ovn-controller"):
        return _ovn_appctl(stage, node, ["-t", target, *args])
    match args:
        case []:
            return Finished(
                1, "", "ovs-appctl: at least one non-option argument is required (use --help for help)\n"
            )
        case ["fdb/show", name]:
            bridge = ovs_view.read(stage.ovsdb(node)).bridges.get(name)
            if bridge is None:
                return _answer(2, "ovs-appctl", target, "no such bridge")
            return Finished(0, _HEADER + _entries(stage, node, bridge), "")
        case ["fdb/show", *_]:
            return _answer(2, "ovs-appctl", target, '"fdb/show" command requires at least 1 arguments')
        case ["dpif/show"]:
            return Finished(0, _datapath(stage, node), "")
        case ["version"]:
            ovs = versions.ovs(versions.ovn(stage, node))
            return Finished(0, f"ovs-vswitchd (Open vSwitch) {ovs}\n", "")
    return _answer(
        2, "ovs-appctl", target, f'"{args[0]}" is not a valid command (use "list-commands" to see a list)'
    )


def _port(view: View, bridge: str, number: str) -> str | None:
    """The UUID of the interface with that OpenFlow number."""
    interfaces = (i for port in view.bridges[bridge].ports.values() for i in port.interfaces)
    return next((i.uuid for i in interfaces if str(i.ofport) == number), None)


def _datapath(stage: Stage, node: str) -> str:
    """Every port that the datapath has, those included that the database does not know on that bridge any more."""
    view = ovs_view.read(stage.ovsdb(node))
    left = vswitchd.copies(stage, node, view)
    lines = ["netdev@ovs-netdev: hit:0 missed:0"]
    for bridge in sorted(view.bridges.values(), key=lambda b: b.name):
        lines.append(f"  {bridge.name}:")
        if bridge.name not in bridge.ports:
            # vswitchd gives a bridge its own port also where the database has none.
            lines.append(f"    {bridge.name} 65534/65534: (tap)")
        rows = [
            f"    {iface.name} {iface.ofport}/{_number(iface)}: ({_kind(iface)})"
            for port in bridge.ports.values()
            for iface in port.interfaces
            if iface.ofport is not None and iface.ofport >= 0
        ]
        rows += [f"    {port} 0/none: (patch)" for where, port in left if where == bridge.name]
        lines += sorted(rows)
    return "\n".join(lines) + "\n"


def _number(iface: Iface) -> str:
    return "none" if iface.type == "patch" else str(iface.ofport)


def _kind(iface: Iface) -> str:
    match iface.type:
        case "patch":
            return f"patch: peer={iface.peer}"
        case "internal":
            return "tap"
    return iface.type or "system"


def _target(args: list[str], default: str) -> tuple[str, list[str]]:
    match args:
        case ["-t" | "--target", target, *rest]:
            return target, rest
        case [first, *rest] if first.startswith("--target="):
            return first.partition("=")[2], rest
    return default, args


def _answer(rc: int, program: str, target: str, text: str) -> Finished:
    return Finished(rc, "", f"{text}\n{program}: {target}: server returned an error\n")


def _entries(stage: Stage, node: str, bridge: Bridge) -> str:
    rows = [(str(port), vlan, mac, age) for port, vlan, mac, age in forwarding.table_of(stage, node, bridge)]
    own = bridge.ports.get(bridge.name)
    # The node's own address is on the bridge that OVN-Kubernetes marks with its uplink; it talks all the time.
    if own and "bridge-uplink" in bridge.external_ids and own.interfaces[0].mac_in_use:
        rows.append(("LOCAL", own.tag or 0, own.interfaces[0].mac_in_use, 0))
    return "".join(f"{port:>5}  {vlan:4d}  {mac}  {age:3d}\n" for port, vlan, mac, age in rows)


def _ovn_appctl(stage: Stage, node: str, args: list[str]) -> Finished:
    target, args = _target(args, "ovn-northd")
    if not target.startswith("ovn-controller"):
        why = f'cannot read pidfile "/var/run/ovn/{target}.pid" (No such file or directory)'
        return Finished(1, "", f"ovn-appctl: {why}\n")
    match args:
        case []:
            return Finished(
                1, "", "ovn-appctl: at least one non-option argument is required (use --help for help)\n"
            )
        case ["version"]:
            return Finished(0, _version(stage, node), "")
        case ["inc-engine/recompute"]:
            ovn_controller.recompute(stage, node)
            return Finished(0, "", "")
    return _answer(
        2, "ovn-appctl", target, f'"{args[0]}" is not a valid command (use "list-commands" to see a list)'
    )


def _version(stage: Stage, node: str) -> str:
    ovn = versions.ovn(stage, node)
    return (
        f"ovn-controller {ovn}\nOpen vSwitch Library {versions.ovs(ovn)}\nOpenFlow versions 0x6:0x6\n"
        f"SB DB Schema {versions.southbound_schema(ovn)}\n"
    )


def _ofctl(stage: Stage, node: str, args: list[str]) -> Finished:
    match args:
        case ["packet-out", bridge, what]:
            return _packet_out(stage, node, bridge, what)
        case ["add-flow", bridge, flow]:
            return _add_flow(stage, node, bridge, flow)
        case ["dump-flows", bridge, what]:
            return _dump_flows(stage, node, bridge, what)
        case ["packet-out", *_]:
            return Finished(1, "", "ovs-ofctl: 'packet-out' command requires at least 2 arguments\n")
        case []:
            return Finished(1, "", "ovs-ofctl: missing command name; use --help for help\n")
    return Finished(1, "", f"ovs-ofctl: unknown command '{args[0]}'; use --help for help\n")


def _packet_out(stage: Stage, node: str, bridge: str, what: str) -> Finished:
    name = bridge.rpartition("/")[2].removesuffix(".mgmt")
    view = ovs_view.read(stage.ovsdb(node))
    if name not in view.bridges:
        return Finished(1, "", f"ovs-ofctl: {bridge} is not a bridge or a socket\n")
    match = _PACKET.fullmatch(what.strip())
    if match is None:
        return Finished(1, "", f"ovs-ofctl: {what}: unknown action or field\n")
    frame, vlan = match[2].lower(), int(match[3]) if match[3] else None
    if len(frame) % 2 or len(frame) < 28:
        return Finished(
            1, "", "ovs-ofctl: packet: too short for an Ethernet frame or not in hexadecimal digits\n"
        )
    if vlan is not None and vlan > 4095:
        return Finished(1, "", f"ovs-ofctl: {vlan}: not a valid VLAN VID\n")
    if vlan is None:
        vlan = int(frame[28:32], 16) & 0xFFF if frame[24:28] == "8100" and len(frame) >= 32 else 0
    mac = ":".join(frame[i : i + 2] for i in range(12, 24, 2))
    source = _port(view, name, match[1])
    if match[1] != "controller" and source is None:
        return Finished(1, "", f"ovs-ofctl: {match[1]} is not a valid OpenFlow port\n")
    forwarding.emit(stage, node, name, vlan, mac, source)
    asked = _asked_for(frame)
    if asked and forwarding.ask(stage, node, name, vlan, asked):
        _count_answer(stage, node, name, vlan, asked, mac)
    return Finished(0, "", "")


def _asked_for(frame: str) -> str:
    """The address that an ARP request asks for; empty for any other frame."""
    body = frame[32:] if frame[24:28] == "8100" else frame[24:]
    if not body.startswith("08060001080006040001") or len(body) < 60:
        return ""
    return ".".join(str(int(body[i : i + 2], 16)) for i in range(52, 60, 2))


def _flows(stage: Stage, node: str) -> list[dict[str, Any]]:
    """The flows that somebody added and that have not run out."""
    now = stage.clock.now()
    return [flow for flow in stage.recall(forwarding.FLOWS, node) or [] if now < flow["ends"]]


def _add_flow(stage: Stage, node: str, bridge: str, what: str) -> Finished:
    if bridge not in ovs_view.read(stage.ovsdb(node)).bridges:
        return Finished(1, "", f"ovs-ofctl: {bridge} is not a bridge or a socket\n")
    match = _FLOW.fullmatch(what.strip())
    if match is None:
        return Finished(1, "", f"ovs-ofctl: {what}: unknown keyword\n")
    key = {"bridge": bridge, "vlan": int(match[4] or 0), "spa": match[5], "mac": match[6]}
    # The same match again replaces the flow, its counters too.
    others = [flow for flow in _flows(stage, node) if any(flow[name] != key[name] for name in key)]
    now = stage.clock.now()
    made = {**key, "cookie": match[1], "priority": match[3], "ends": now + int(match[2]), "n": 0, "at": now}
    stage.keep(forwarding.FLOWS, node, [*others, {**made, "timeout": match[2]}])
    return Finished(0, "", "")


def _count_answer(stage: Stage, node: str, bridge: str, vlan: int, address: str, mac: str) -> None:
    counted = {"bridge": bridge, "vlan": vlan, "spa": address, "mac": mac}
    flows = [
        {**flow, "n": flow["n"] + 1} if all(flow[k] == v for k, v in counted.items()) else flow
        for flow in _flows(stage, node)
    ]
    stage.keep(forwarding.FLOWS, node, flows or None)


def _dump_flows(stage: Stage, node: str, bridge: str, what: str) -> Finished:
    match = re.fullmatch(r"cookie=(0x[0-9a-f]+)/-1", what.strip())
    if bridge not in ovs_view.read(stage.ovsdb(node)).bridges:
        return Finished(1, "", f"ovs-ofctl: {bridge} is not a bridge or a socket\n")
    if match is None:
        return Finished(1, "", f"ovs-ofctl: {what}: unknown field or keyword\n")
    lines = ["NXST_FLOW reply (xid=0x4):"]
    for flow in _flows(stage, node):
        if flow["bridge"] == bridge and flow["cookie"] == match[1]:
            vlan = f"dl_vlan={flow['vlan']}" if flow["vlan"] else "vlan_tci=0x0000"
            lines.append(
                f" cookie={flow['cookie']}, duration={stage.clock.now() - flow['at']:.3f}s, table=0, n_packets={flow['n']}, "
                f"n_bytes={flow['n'] * 46}, hard_timeout={flow['timeout']}, idle_age=0, priority={flow['priority']},arp,{vlan},"
                f"dl_dst={flow['mac']},arp_spa={flow['spa']},arp_op=2 actions=NORMAL"
            )
    return Finished(0, "\n".join(lines) + "\n", "")


def _networkmanager(stage: Stage, node: str, args: list[str]) -> Finished:
    if versions.nmstate(stage, node) is None:
        return Finished(127, "", "sh: 1: NetworkManager: not found\n")
    if args in (["--version"], ["-V"]):
        return Finished(0, f"{versions.NETWORKMANAGER}\n", "")
    return Finished(1, "", "NetworkManager is already running\n")


def _nmcli(stage: Stage, node: str, args: list[str]) -> Finished:
    if versions.nmstate(stage, node) is None:
        return Finished(127, "", "sh: 1: nmcli: not found\n")
    if args == ["-g", "UUID", "connection", "show"]:
        return Finished(0, "".join(f"{uuid}\n" for uuid in networkmanager.profiles(stage, node)), "")
    word = args[0] if args else ""
    return Finished(2, "", f"Error: argument '{word}' not understood. Try passing --help instead.\n")


def _ping(stage: Stage, node: str, args: list[str]) -> Finished:
    """One echo request. The node's gateway is the only host on the twin's wires that answers."""
    match args:
        case ["-c1", "-W1", address]:
            up = address == nmstate_state.GATEWAY and stage.settings.probes.get("gateway") != "down"
            lines = [f"PING {address} ({address}) 56(84) bytes of data."]
            lines += [f"64 bytes from {address}: icmp_seq=1 ttl=64 time=0.234 ms"] if up else []
            loss = f"{int(up)} received, {0 if up else 100}% packet loss, time 0ms"
            lines += ["", f"--- {address} ping statistics ---", f"1 packets transmitted, {loss}"]
            return Finished(0 if up else 1, "\n".join(lines) + "\n", "")
    return Finished(2, "", "ping: usage error: Destination address required\n")


def _timeout(stage: Stage, node: str, args: list[str]) -> Finished:
    """Bash that sends one question to a name server, and shows the head of its answer; of other programs nothing is known."""
    match args:
        case [_, "bash", "-c", script, _, server, question] if "/dev/udp/" in script:
            asked = base64.b64decode(question)
            if server != nmstate_state.NAME_SERVER or stage.settings.probes.get("dns") == "down":
                return Finished(124, "", "")
            head = [*asked[:2], 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]
            return Finished(0, "".join(f" {byte:02x}" for byte in head) + "\n", "")
        case [_, program, *_]:
            return Finished(
                127, "", f"timeout: failed to run command \u2018{program}\u2019: No such file or directory\n"
            )
    return Finished(125, "", "Try 'timeout --help' for more information.\n")


def _systemctl(stage: Stage, node: str, args: list[str]) -> Finished:
    if args != ["reboot"]:
        return Finished(1, "", f"Unknown command verb {args[0] if args else ''}.\n")
    reboots.ask(stage, node)
    return Finished(0, "", "")


_PROGRAMS: dict[str, Callable[[Stage, str, list[str]], Finished]] = {
    "ovs-appctl": _appctl,
    "ovn-appctl": _ovn_appctl,
    "ovs-ofctl": _ofctl,
    "NetworkManager": _networkmanager,
    "systemctl": _systemctl,
    "nmcli": _nmcli,
    "ping": _ping,
    "timeout": _timeout,
}
