"""A world's log, replayed call by call: what stood between any two calls, and by whom it was broken.

Invariant: judged are our calls only; what other people do is taken in and never blamed.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from crash.lives import is_done
from crash.others import KEY
from providers.twin import Call

OURS = "vmnet"
CORDONED_BY = "ovsplan.io/cordoned-by"


@dataclass(slots=True)
class Replay:
    """The mappings of every node, and the nodes that each run of ours holds cordoned, as of call `seq`.

    A write that was only rehearsed ends in no brace.
    """

    mappings: dict[str, dict[str, str]]
    held: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    seq: int = 0

    def read(self, log: tuple[Call, ...]) -> None:
        """Take in the calls that came since."""
        for call in log[self.seq :]:
            if is_done(call) and call.verb == "transact":
                self._transact(call)
            elif (
                is_done(call)
                and call.verb == "patch"
                and call.text.startswith("Node ")
                and call.text[-1] == "}"
            ):
                self._patch(call)
        self.seq = len(log)

    def _transact(self, call: Call) -> None:
        before = self.mappings[call.node]
        after = before
        for op in json.loads(call.text):
            for column, how, value in op.get("mutations", ()):
                if column == "external_ids":
                    after = _mutated(after, how, value)
        self.mappings[call.node] = after
        if call.port == "ovsdb" and _foreign(after) != _foreign(before):
            self.wrong.append(f"{call.node}: not ours to change: {before} became {after}")

    def _patch(self, call: Call) -> None:
        node = call.text.split()[1]
        patch = json.loads(call.text[call.text.index("{") :])
        by = patch.get("metadata", {}).get("annotations", {}).get(CORDONED_BY)
        if patch["spec"]["unschedulable"]:
            if by:
                self.held[node] = by
        else:
            if call.port == "cluster" and node not in self.held:
                self.wrong.append(f"{node}: not ours to uncordon")
            self.held.pop(node, None)
        if any(count > 1 for count in Counter(self.held.values()).values()):
            self.wrong.append(f"one run holds more than one node: {self.held}")


def _mutated(mapping: dict[str, str], how: str, value: Any) -> dict[str, str]:
    if how == "delete" and KEY in value[1]:
        return {}
    if how == "insert" and KEY in dict(value[1]):
        return dict(pair.split(":") for pair in dict(value[1])[KEY].split(",") if pair)
    return mapping


def _foreign(mapping: dict[str, str]) -> dict[str, str]:
    return {name: bridge for name, bridge in mapping.items() if name != OURS}
