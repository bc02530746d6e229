"""What a VM loses when its localnet moves under it: the program's hot remap, and the same order by the shortest script.

Invariant: the two take turns on one lab, each from the same start; and a turn counts only if the patch port is on the
new bridge and the VM reaches its gateway afterwards, so that nothing moved can't read as nothing lost.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from bench.results import Bar, CannotRun, Result, spread
from cli.target import TargetInfo, open_target
from cli.wiring import Failures, read_desired
from engine.execute import Executor, Signals
from engine.observe import observe_for_plan
from engine.reach import Reporter
from plans.actions import Action
from plans.document import Plan, Target, sealed
from plans.ops import AnyOp
from plans.planner import make_plan
from providers.interpreters import Interpreter
from providers.ovsdb.client import UnixOvsdb
from providers.ports import World
from state.journal import Journal
from state.lock import Lock
from state.store import Store
from tests.lab import daemons
from tests.lab.job import EXAMPLES
from tests.lab.lab import Lab

_TURNS = 11
_TURNS_BY_HAND = 3
_NODE, _VM, _NETWORK = "worker-01", "default/web-1", "vlan224"
_OLD, _NEW = "br-vmdata", "br-phy"
_STALL = 1.0
_BEFORE, _AFTER = 0.5, 1.0
_PAUSE_BY_HAND = 2.0
_DATABASE = "Open_vSwitch"
_KEY = "ovn-bridge-mappings"
_STATES = ("running", "stopped 1 s")

Gaps = dict[tuple[str, str], list[float]]
"""Who moved, and what ovn-controller did meanwhile → the longest gap of each turn, in milliseconds."""

Change = Callable[[], None]
Way = Callable[[Change], None]
"""Makes the move; calls what it is given right before it changes anything."""


def measure() -> Result:
    """Move, look, put back, with ovn-controller running and stopped, and by the procedure's own order."""
    if lacking := daemons.lacking():
        raise CannotRun(f"this machine lacks {', '.join(lacking)}")
    world = yaml.safe_load((EXAMPLES / "uplink-alive/world.yaml").read_text())
    with (
        tempfile.TemporaryDirectory(prefix="ovsplan-bench-") as folder,
        Lab.up(world, Path(folder) / "lab") as lab,
    ):
        lab.settle()
        ours, script = Program(lab, Path(folder)), Script(lab)
        gaps: Gaps = {(name, state): [] for state in _STATES for name in ("ovsplan", "script")}
        for _ in range(_TURNS):
            for state in _STATES:
                stall = state != _STATES[0]
                gaps["ovsplan", state].append(_turn(lab, ours.move, stall=stall))
                gaps["script", state].append(_turn(lab, script.move, stall=stall))
        by_hand = [_turn(lab, script.by_hand, stall=False) for _ in range(_TURNS_BY_HAND)]
    return _result(gaps, by_hand)


def _result(gaps: Gaps, by_hand: list[float]) -> Result:
    names = {"ovsplan": "`ovsplan`'s hot remap", "script": "the same order by a script"}
    rows = [(names[name], state, str(len(ms)), spread(ms, 0)) for (name, state), ms in gaps.items()]
    rows.append(("the procedure's: del-br, 2 s, mapping", "running", str(len(by_hand)), spread(by_hand, 0)))
    bars = [
        Bar(
            f"ovn-controller {state}: ratio of the medians",
            median(gaps["ovsplan", state]) / median(gaps["script", state]),
            1.2,
        )
        for state in _STATES
    ]
    return Result(
        "outage: the longest gap in a 1 ms ping of a VM whose localnet moves",
        ("order", "ovn-controller", "n", "ms: median (min-max)"),
        tuple(rows),
        tuple(bars),
        (
            "the two alternate on one lab; the path is put back, and megaflows are purged, before each turn",
            "stopped: SIGSTOP right before the change, SIGCONT 1 s later",
        ),
    )


def _turn(lab: Lab, way: Way, *, stall: bool) -> float:
    """One move from the same start; the longest gap in milliseconds."""
    lab.reset(_NODE)
    lab.steady()
    lab.await_reachable(_VM)
    lab.purge()
    stalls: list[threading.Timer] = []

    def freeze() -> None:
        lab.stop_ovn(_NODE)
        stalls.append(threading.Timer(_STALL, lab.cont_ovn, [_NODE]))
        stalls[0].start()

    with lab.ping(_VM) as probe:
        time.sleep(_BEFORE)
        try:
            way(freeze if stall else lambda: None)
        finally:
            for stalled in stalls:
                stalled.join()
        time.sleep(_AFTER)
        tally = probe.stop()
    assert lab.patch_bridge(_NODE, _NETWORK) == _NEW, "nothing moved"
    lab.await_reachable(_VM)
    return tally.longest_gap_ms


class Program:
    """The action `worker-01/remap/vmnet` of the hot example, by the program's own executor and journal."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._folder = folder
        self._info, self._world = _opened(lab)
        self._hands = Interpreter(self._world)
        self._runs = 0
        lab.reset(_NODE)
        self._plan = self._planned()

    def move(self, change: Change) -> None:
        """One apply of the one action, with a journal of its own."""
        self._runs += 1
        store = Store(self._folder / f"{self._runs}.db", self._info.identity, create=True)
        with Lock(store, "bench") as lock:
            journal = Journal(store, lock)
            run = journal.start_run(self._plan, "bench", self._world.clock.now(), "bench", "0")
            Executor(
                self._hands,
                Failures(),
                self._world.clock,
                journal,
                run,
                self._plan,
                reporter=_AtTheMove(change),
                signals=Signals(),
            ).execute()
        store.close()

    def _planned(self) -> Plan:
        desired = read_desired((str(EXAMPLES / "uplink-alive/hot"),))
        facts = observe_for_plan(self._hands, self._world.clock, desired)
        plan = make_plan(desired, facts, Target(self._info.identity, self._info.title), only=(_NODE,))
        remap = plan.action(f"{_NODE}/remap/vmnet")
        assert remap is not None, "nothing to remap"
        return sealed(replace(plan, actions=(replace(remap, needs=()),)))


@dataclass(frozen=True)
class _AtTheMove(Reporter):
    change: Change

    def op_begins(self, action: Action, op: AnyOp) -> None:
        if op.label == "move":
            self.change()


class Script:
    """The shortest programs that move the localnet: nothing looked at beforehand, nothing proven afterwards."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._db = UnixOvsdb(str(lab.place.rundir(_NODE) / "db.sock"))

    def move(self, change: Change) -> None:
        """One guarded transaction moves the mapping and takes the old patch ports; the new ones follow it."""
        root, outer = self._look()
        mapping = dict(root["external_ids"][1])[_KEY]
        mutations = [
            ["external_ids", "delete", ["set", [_KEY]]],
            ["external_ids", "insert", ["map", [[_KEY, mapping.replace(f"vmnet:{_OLD}", f"vmnet:{_NEW}")]]]],
        ]
        guard = {
            "op": "wait", "timeout": 0, "table": _DATABASE, "until": "==", "columns": ["_uuid"],
            "where": [["external_ids", "includes", ["map", [[_KEY, mapping]]]]], "rows": [{"_uuid": root["_uuid"]}],
        }  # fmt: skip
        ports = ["set", [port["_uuid"] for port in outer]]
        change()
        self._settled(
            guard,
            _mutate(_DATABASE, [], mutations),
            _mutate("Bridge", [["name", "==", _OLD]], [["ports", "delete", ports]]),
        )
        for port in outer:
            self._insert(port["name"], dict(port["external_ids"][1])["ovn-localnet-port"])

    def by_hand(self, change: Change) -> None:
        """The procedure's own order, with the pause of a person between two commands."""
        shell = self._lab.world.shell(_NODE)
        mapping = dict(self._look()[0]["external_ids"][1])[_KEY].replace(f"vmnet:{_OLD}", f"vmnet:{_NEW}")
        change()
        assert shell.run(["ovs-vsctl", "del-br", _OLD], timeout=20).rc == 0
        time.sleep(_PAUSE_BY_HAND)
        remap = ["ovs-vsctl", "set", "Open_vSwitch", ".", f'external_ids:{_KEY}="{mapping}"']
        assert shell.run(remap, timeout=20).rc == 0
        self._lab.await_reachable(_VM)

    def _look(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The root row, and the outer patch ports of the old bridge."""
        tables = (_DATABASE, "Bridge", "Port")
        answers = self._db.transact(
            _DATABASE, [{"op": "select", "table": t, "where": []} for t in tables], timeout=10
        )
        (root,), bridges, ports = (answer["rows"] for answer in answers)
        (old,) = [bridge for bridge in bridges if bridge["name"] == _OLD]
        held = [uuid[1] for uuid in old["ports"][1]]
        outer = [port for port in ports if port["_uuid"][1] in held and port["name"].startswith("patch-")]
        # The one that is pinged through comes first, as in the program's order.
        return root, sorted(outer, key=lambda port: str(port["name"]))

    def _insert(self, name: str, lsp: str) -> None:
        """The new patch port, unless ovn-controller was first."""
        inner = f"patch-br-int-to-{lsp}"
        none = {
            "op": "wait", "timeout": 0, "table": "Port", "until": "==", "columns": ["name"],
            "where": [["name", "==", name]], "rows": [],
        }  # fmt: skip
        interface = {"name": name, "type": "patch", "options": ["map", [["peer", inner]]]}
        port = {
            "name": name,
            "interfaces": ["named-uuid", "i"],
            "external_ids": ["map", [["ovn-localnet-port", lsp]]],
        }
        self._settled(
            none,
            {"op": "insert", "table": "Interface", "uuid-name": "i", "row": interface},
            {"op": "insert", "table": "Port", "uuid-name": "p", "row": port},
            _mutate("Bridge", [["name", "==", _NEW]], [["ports", "insert", ["named-uuid", "p"]]]),
            may_be_late=True,
        )

    def _settled(self, *operations: dict[str, Any], may_be_late: bool = False) -> None:
        """One transaction, and vswitchd's word that it has carried it out."""
        bump = _mutate(_DATABASE, [], [["next_cfg", "+=", 1]])
        look = {"op": "select", "table": _DATABASE, "where": [], "columns": ["next_cfg", "_uuid"]}
        answers = self._db.transact(_DATABASE, [*operations, bump, look], timeout=10)
        wrong = [answer for answer in answers if isinstance(answer, dict) and answer.get("error")]
        if wrong:
            assert may_be_late and wrong[0]["error"] == "timed out", wrong
            return
        (root,) = answers[len(operations) + 1]["rows"]
        wait = {
            "op": "wait", "timeout": 10_000, "table": _DATABASE, "until": "==", "columns": ["_uuid"],
            "where": [["cur_cfg", ">=", root["next_cfg"]]], "rows": [{"_uuid": root["_uuid"]}],
        }  # fmt: skip
        self._db.transact(_DATABASE, [wait], timeout=20)


def _mutate(table: str, where: list[Any], mutations: list[Any]) -> dict[str, Any]:
    return {"op": "mutate", "table": table, "where": where, "mutations": mutations}


def _opened(lab: Lab) -> tuple[TargetInfo, World]:
    return open_target(twin=None, context=None, target=str(lab.target))
