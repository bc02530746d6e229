"""Carrying a case out, on whatever stands behind a `Site`.

Invariant: a step is done by the same operations everywhere; a site only knows how its own time passes and how its own
cards, guests and commands are reached.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from .documents import Document
from .nmstate_cases import (
    LOST_MS,
    AddBridge,
    Apply,
    AwaitPatch,
    Case,
    DropBridge,
    DropPatch,
    Leave,
    LoseNic,
    Outcome,
    Recompute,
    Stay,
    Step,
)
from .timeline import PATCH, WATCHED, Tables, Timeline, picture
from .worlds import LOCALNET

_WITHIN, _STAYING = 12.0, 3.0
_ATTEMPTS = 4
_ERROR = re.compile(r"NmstateError: (\w+)")
_ROOT = "Open_vSwitch"
_MAPPINGS = "ovn-bridge-mappings"
_RECOMPUTE = ("ovn-appctl", "-t", "ovn-controller", "inc-engine/recompute")


class Site(Protocol):
    """One node with its VM, real or not."""

    def transact(self, *operations: Mapping[str, Any]) -> list[Any]: ...

    def apply(self, document: Document) -> tuple[int, str]:
        """`nmstatectl apply`: its exit code and what it wrote to standard error."""
        ...

    def lose_nic(self, nic: str) -> None: ...

    def leave(self) -> None:
        """Live-migrate the VM to another node, and return when it is there."""
        ...

    def come_back(self) -> None:
        """The other way round."""
        ...

    def command(self, argv: Sequence[str]) -> int: ...

    def until(self, condition: Callable[[], bool], within: float) -> bool:
        """Let time pass until the condition holds; whether it came true."""
        ...

    def observed(self, act: Callable[[], None]) -> tuple[Timeline, float, bool]:
        """`act` under observation: what changed, the milliseconds that the VM lost, and whether it is reached."""
        ...


def carry_out(site: Site, case: Case) -> Outcome:
    """What really comes of the case there."""
    for step in case.before:
        answer = _do(site, step)
        assert answer in (None, "ok"), (step, answer)
    answers: list[str] = []

    def act() -> None:
        for step in case.steps:
            answer = _do(site, step)
            if answer is not None:
                answers.append(answer)

    timeline, lost_ms, reached = site.observed(act)
    return Outcome(tuple(answers), tuple(timeline.lines), reached, _in_words(lost_ms, case.outcome.lost))


def tables(transact: Callable[..., list[Any]]) -> Tables:
    """The rows that a timeline is made of, read in one transaction."""
    found = transact(
        *(
            {"op": "select", "table": table, "where": [], "columns": ["_uuid", *columns]}
            for table, columns in WATCHED.items()
        )
    )
    return {
        table: {row["_uuid"][1]: row for row in result["rows"]}
        for table, result in zip(WATCHED, found, strict=True)
    }


def _in_words(lost_ms: float, expected: str) -> str:
    least, less_than = LOST_MS[expected]
    return expected if least <= lost_ms < less_than else f"{lost_ms} ms"


def _do(site: Site, step: Step) -> str | None:
    """Do a step; for an apply, "ok" or the class of the error."""
    match step:
        case Apply(document):
            rc, err = site.apply(document)
            found = _ERROR.findall(err)
            return "ok" if rc == 0 else found[-1] if found else err
        case AwaitPatch(bridge):
            assert site.until(lambda: _patch(site) == bridge, _WITHIN), (step, _patch(site))
        case Stay(bridge):
            site.until(lambda: _patch(site) == bridge, _WITHIN)
            moved = site.until(lambda: _patch(site) != bridge, _STAYING)
            assert not moved, (step, _patch(site))
        case AddBridge(bridge):
            site.transact(*_add_bridge(bridge))
        case DropBridge(bridge, mapped_to):
            site.transact(*_drop_bridge(site, bridge), *(_remapped(site, mapped_to) if mapped_to else ()))
        case DropPatch(bridge):
            site.transact(_drop_patch(site, bridge))
        case LoseNic(nic):
            site.lose_nic(nic)
        case Leave():
            site.leave()
            # OVN may compute anew by itself just then.
            for _ in range(_ATTEMPTS):
                if not site.until(lambda: _patch(site) is None, _STAYING):
                    break
                site.come_back()
                site.until(lambda: _patch(site) is not None, _WITHIN)
                site.leave()
        case Recompute():
            assert site.command(_RECOMPUTE) == 0
    return None


def _patch(site: Site) -> str | None:
    return picture(tables(site.transact)).get(PATCH)


def _select(site: Site, table: str, *condition: Any) -> list[dict[str, Any]]:
    return list(site.transact({"op": "select", "table": table, "where": [list(condition)]})[0]["rows"])


def _add_bridge(bridge: str) -> list[dict[str, Any]]:
    link = {"name": bridge, "type": "internal"}
    body = {"name": bridge, "datapath_type": "netdev", "ports": ["named-uuid", "port"]}
    return [
        {"op": "insert", "table": "Interface", "uuid-name": "link", "row": link},
        {
            **{"op": "insert", "table": "Port", "uuid-name": "port"},
            "row": {"name": bridge, "interfaces": ["named-uuid", "link"]},
        },
        {"op": "insert", "table": "Bridge", "uuid-name": "bridge", "row": body},
        _mutate_root([["bridges", "insert", ["named-uuid", "bridge"]], ["next_cfg", "+=", 1]]),
    ]


def _drop_bridge(site: Site, bridge: str) -> list[dict[str, Any]]:
    [row] = _select(site, "Bridge", "name", "==", bridge)
    return [_mutate_root([["bridges", "delete", row["_uuid"]], ["next_cfg", "+=", 1]])]


def _remapped(site: Site, bridge: str) -> list[dict[str, Any]]:
    [row] = site.transact({"op": "select", "table": _ROOT, "where": []})[0]["rows"]
    old = dict(row["external_ids"][1])[_MAPPINGS]
    pairs = [f"{LOCALNET}:{bridge}" if pair.startswith(f"{LOCALNET}:") else pair for pair in old.split(",")]
    new = ["map", [[_MAPPINGS, ",".join(pairs)]]]
    return [_mutate_root([["external_ids", "delete", ["set", [_MAPPINGS]]], ["external_ids", "insert", new]])]


def _drop_patch(site: Site, bridge: str) -> dict[str, Any]:
    ports = site.transact({"op": "select", "table": "Port", "where": []})[0]["rows"]
    [port] = [row["_uuid"] for row in ports if _is_guests_patch(str(row["name"]))]
    where = [["name", "==", bridge]]
    return {"op": "mutate", "table": "Bridge", "where": where, "mutations": [["ports", "delete", port]]}


def _is_guests_patch(name: str) -> bool:
    return name.startswith("patch-") and name.endswith("ovn_localnet_port-to-br-int")


def _mutate_root(mutations: list[list[Any]]) -> dict[str, Any]:
    return {"op": "mutate", "table": _ROOT, "where": [], "mutations": mutations}
