"""What became of a node's bridges, in order: one short line per change that a person would care about.

Invariant: a line says what is there after a transaction, never how it was written, so that two servers that commit the
same in different words give the same lines.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Tables = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Rows by table and UUID."""

WATCHED = {
    "Open_vSwitch": ("external_ids",),
    "Bridge": ("name", "ports"),
    "Port": ("name", "interfaces"),
    "Interface": ("name", "type"),
}
_NEVER_TOLD = ("br-int",)
_GONE = "gone"


def picture(tables: Tables) -> dict[str, str]:
    """The node in a few words: its mappings, bridges and ports, and the bridge that holds OVN's patch port of vmnet."""
    return {**_mappings(tables), **_ports(tables)}


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What differs between two pictures, sorted."""
    keys = sorted(before.keys() | after.keys())
    return [f"{key}: {after.get(key, _GONE)}" for key in keys if before.get(key) != after.get(key)]


def _mappings(tables: Tables) -> dict[str, str]:
    told: dict[str, str] = {}
    for row in tables.get("Open_vSwitch", {}).values():
        ids = dict(row["external_ids"][1])
        told |= {f"key {key}": str(value) for key, value in ids.items() if key.startswith("probe-")}
        for pair in filter(None, ids.get("ovn-bridge-mappings", "").split(",")):
            localnet, _, bridge = pair.partition(":")
            told[f"mapping {localnet}"] = bridge
    return told


def _ports(tables: Tables) -> dict[str, str]:
    told: dict[str, str] = {}
    for bridge in tables.get("Bridge", {}).values():
        if bridge["name"] in _NEVER_TOLD:
            continue
        told[f"bridge {bridge['name']}"] = "there"
        for uuid in _references(bridge["ports"]):
            port = tables.get("Port", {}).get(uuid)
            if port is not None:
                told |= _port(port, str(bridge["name"]), tables)
    return told


def _port(port: Mapping[str, Any], bridge: str, tables: Tables) -> dict[str, str]:
    name = str(port["name"])
    if name.startswith("patch-") and name.endswith("-to-br-int"):
        # The node's own, through br-ex, is nobody's concern here.
        return {} if "br-ex_" in name else {"OVN's patch port": bridge}
    links = [row for uuid in _references(port["interfaces"]) if (row := tables["Interface"].get(uuid))]
    invented = sorted(
        str(row["name"]) for row in links if row["type"] == "internal" and row["name"] != bridge
    )
    return {f"port {name}": bridge + (f", internal: {' '.join(invented)}" if invented else "")}


def _references(value: Any) -> Iterator[str]:
    items = value[1] if value[0] == "set" else [value]
    return (item[1] for item in items)


def _continues(line: str, following: str) -> bool:
    """Whether the second only completes the first: a bond that gets its members one by one."""
    (key, _, was), (same, _, now) = line.partition(": "), following.partition(": ")
    return key == same and _GONE not in (was, now)


class Timeline:
    """The changes so far, and the picture now."""

    def __init__(self, tables: Tables) -> None:
        self.start = picture(tables)
        self.now = dict(self.start)
        self.lines: list[str] = []

    def see(self, tables: Tables) -> None:
        """Take in a later state of the tables."""
        after = picture(tables)
        for line in changes(self.now, after):
            if self.lines and _continues(self.lines[-1], line):
                self.lines.pop()
            self.lines.append(line)
        self.now = after


@contextmanager
def watch(db_socket: Path) -> Iterator[Timeline]:
    """The timeline of a real node, kept up by a thread with a monitor on its database until the block ends."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(db_socket))
        messages = _messages(connection)
        tables: dict[str, dict[str, Any]] = {}
        columns = {table: {"columns": list(names)} for table, names in WATCHED.items()}
        _send(connection, {"method": "monitor", "params": ["Open_vSwitch", None, columns], "id": 1})
        _update(tables, next(message for message in messages if message.get("id") == 1)["result"])
        timeline = Timeline(tables)
        thread = threading.Thread(target=_follow, args=(connection, messages, tables, timeline))
        thread.start()
        try:
            yield timeline
        finally:
            connection.shutdown(socket.SHUT_RDWR)
            thread.join()


def _follow(
    connection: socket.socket, messages: Iterator[Any], tables: dict[str, dict[str, Any]], timeline: Timeline
) -> None:
    for message in messages:
        if message.get("method") == "echo":
            _send(connection, {"result": message["params"], "error": None, "id": message["id"]})
        elif message.get("method") == "update":
            _update(tables, message["params"][1])
            timeline.see(tables)


def _update(tables: dict[str, dict[str, Any]], updates: Mapping[str, Mapping[str, Any]]) -> None:
    for table, rows in updates.items():
        known = tables.setdefault(table, {})
        for uuid, change in rows.items():
            if "new" in change:
                known[uuid] = {**known.get(uuid, {}), **change["new"]}
            else:
                known.pop(uuid, None)


def _send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode())


def _messages(connection: socket.socket) -> Iterator[Any]:
    """Until the connection is shut down."""
    decoder, text = json.JSONDecoder(), ""
    while data := connection.recv(1 << 18):
        text += data.decode()
        while text:
            try:
                message, end = decoder.raw_decode(text)
            except json.JSONDecodeError:
                break
            yield message
            text = text[end:].lstrip()
