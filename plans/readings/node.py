"""Reading one node: its Open vSwitch database, its ovn-controller, and a bridge's forwarding table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from plans import ovs
from plans.facts import ABSENT, Fact, Json, Known, Unknown
from plans.ops import CommandRequest, SelectRequest

LISTEN = 3.0
"""Seconds between two looks at a forwarding table: who was heard again in between talks by itself."""


def unknown(node: str, part: str) -> Callable[[str], Mapping[str, Fact]]:
    """Everything below `node/<node>/<part>` unknown, with the reason."""
    return lambda why: {f"node/{node}/{part}": Unknown(why), f"node/{node}/{part}/*": Unknown(why)}


def ovs_requests(node: str) -> tuple[SelectRequest]:
    """The whole switch, in one transaction."""
    return (SelectRequest(node, ovs.TABLES),)


def parse_ovs(node: str, replies: Sequence[Json], now: float) -> Mapping[str, Fact]:
    """See `plans.ovs.derive`; and `node/<n>/ovs/ovn-uptime`, the seconds since ovn-controller came up.

    It writes its start on br-int, so this needs no answer from ovn-controller itself, which may be busy. `now` is in
    seconds since the epoch.
    """
    uptime: Fact = Unknown("ovn-controller has not written ovn-startup-ts on br-int")
    for row in replies[0]["Bridge"]:
        if row["name"] == ovs.INTEGRATION_BRIDGE:
            stamp = (ovs.plain(row["external_ids"]) or {}).get("ovn-startup-ts")
            if stamp is not None:
                uptime = Known(now - int(stamp) / 1000)
    return {**ovs.derive(node, ovs.read_switch(replies[0])), f"node/{node}/ovs/ovn-uptime": uptime}


def ovn_requests(node: str) -> tuple[CommandRequest]:
    """The running ovn-controller's version."""
    return (CommandRequest(node, ("ovn-appctl", "-t", "ovn-controller", "version")),)


def parse_ovn(node: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`node/<n>/ovn/version`."""
    found = re.search(r"ovn-controller\D*(\d+\.\d+(?:\.\d+)?)", replies[0])
    version: Fact = Known(found[1]) if found else Unknown(f"no version in {replies[0].strip()[:60]!r}")
    return {f"node/{node}/ovn/*": ABSENT, f"node/{node}/ovn/version": version}


def dp_requests(node: str) -> tuple[CommandRequest]:
    """The datapath's own ports, bridge by bridge: what vswitchd really has, whatever the database says."""
    return (CommandRequest(node, ("ovs-appctl", "dpif/show")),)


def parse_dp(node: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`node/<n>/dp/<port>`: the bridges on which the datapath has a port of that name, sorted.

    More than one is a stale port (H46): it looks right in the database, and goes dark when the other bridge goes.
    """
    homes: dict[str, list[str]] = {}
    bridge = ""
    for line in replies[0].splitlines():
        indent = len(line) - len(line.lstrip())
        if indent == 2 and line.rstrip().endswith(":"):
            bridge = line.strip().rstrip(":")
        elif indent >= 4 and bridge and line.split():
            homes.setdefault(line.split()[0], []).append(bridge)
    at = f"node/{node}/dp"
    return {f"{at}/*": ABSENT, **{f"{at}/{port}": Known(sorted(bridges)) for port, bridges in homes.items()}}


def fdb_requests(node: str, bridge: str) -> tuple[CommandRequest, SelectRequest]:
    """The forwarding table, and the names behind its port numbers."""
    return (
        CommandRequest(node, ("ovs-appctl", "fdb/show", bridge)),
        SelectRequest(node, ("Bridge", "Port", "Interface")),
    )


def parse_fdb(node: str, bridge: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`node/<n>/fdb/<bridge>`: [port, VLAN, MAC] learned, and `/ages`: for each, seconds since it was heard."""
    rows = replies[1]
    interfaces = {ovs.plain(r["_uuid"]): r for r in rows["Interface"]}
    ports = {ovs.plain(r["_uuid"]): r for r in rows["Port"]}
    names: dict[str, str] = {"LOCAL": bridge}
    for row in rows["Bridge"]:
        if row["name"] == bridge:
            for port in _many(row["ports"]):
                for interface in _many(ports[port]["interfaces"]):
                    names[str(ovs.plain(interfaces[interface]["ofport"]))] = str(ports[port]["name"])
    learned, ages = [], []
    for line in replies[0].splitlines():
        words = line.split()
        if len(words) >= 4 and words[1].isdigit():
            entry = [names.get(words[0], words[0]), int(words[1]), words[2].lower()]
            learned.append(entry)
            if words[3].isdigit():
                ages.append([*entry, int(words[3])])
    at = f"node/{node}/fdb/{bridge}"
    return {at: Known(sorted(learned)), f"{at}/ages": Known(sorted(ages))}


def _many(value: Json) -> list[str]:
    value = ovs.plain(value)
    return [] if value is None else value if isinstance(value, list) else [value]
