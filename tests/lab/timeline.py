"""What became of a node's bridges, in order: one short line per change that a person would care about.

Invariant: a line says what is there after a transaction, never how it was written, so that two servers that commit the
same in different words give the same lines.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .netns import LabError

_PROGRAM = Path(__file__).with_name("follow.py")

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
PATCH = "OVN's patch port"


def picture(tables: Tables) -> dict[str, str]:
    """The node in a few words: its mappings, bridges and ports, and the bridge that holds OVN's patch port of vmnet."""
    return {**_mappings(tables), **_ports(tables)}


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What differs between two pictures: what OVN lost, then what others did, then what OVN made of it."""

    def rank(key: str) -> tuple[int, str]:
        return (0 if key not in after else 2) if key == PATCH else 1, key

    keys = sorted(before.keys() | after.keys(), key=rank)
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
        return {} if "br-ex_" in name else {PATCH: bridge}
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


class Watch:
    """The timeline of a real node, from now until `stop`; a process of its own follows its database."""

    def __init__(self, db_socket: Path) -> None:
        columns = {table: {"columns": list(names)} for table, names in WATCHED.items()}
        argv = ("nice", "-n", "-5", sys.executable, "-I", str(_PROGRAM), str(db_socket), json.dumps(columns))
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "started\n":
            raise LabError(f"no watch: {self._process.communicate()[1].strip()}")

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()

    def stop(self) -> Timeline:
        """End watching; what was seen."""
        out, err = self._process.communicate(timeout=30)
        if self._process.returncode:
            raise LabError(f"the watch failed: {err.strip()}")
        first, *updates = json.loads(out)
        tables: dict[str, dict[str, Any]] = {}
        _update(tables, first)
        timeline = Timeline(tables)
        for update in updates:
            _update(tables, update)
            timeline.see(tables)
        return timeline


def _update(tables: dict[str, dict[str, Any]], updates: Mapping[str, Mapping[str, Any]]) -> None:
    for table, rows in updates.items():
        known = tables.setdefault(table, {})
        for uuid, change in rows.items():
            if "new" in change:
                known[uuid] = {**known.get(uuid, {}), **change["new"]}
            else:
                known.pop(uuid, None)
