"""What an op costs in the journal, from the first to the ten thousandth of one run.

Invariant: the store, the lock and the calls are those of an apply: every write is fenced, and on disk when it returns.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.results import Bar, Result
from plans.actions import Action
from plans.document import FORMAT, Plan, Target, sealed
from plans.ops import Run
from state.journal import Journal, Outcome, StepRow
from state.lock import Lock
from state.store import Store

_OPS = 10_000
_WINDOW = 1_000
_OPS_PER_ACTION = 5
_OP = Run(
    label="announce", title="announce a MAC", node="worker-0001", argv=("ovs-ofctl", "packet-out", "br-phy")
)


@dataclass(slots=True)
class Costs:
    """Seconds: of each op's two writes, of the two readings that precede it, of each action's beginning."""

    writes: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    begins: list[float] = field(default_factory=list)

    def window(self, first: int) -> tuple[list[float], list[float], list[float]]:
        """Those of the thousand ops from `first` on."""
        actions = slice(first // _OPS_PER_ACTION, (first + _WINDOW) // _OPS_PER_ACTION)
        ops = slice(first, first + _WINDOW)
        return self.writes[ops], self.looks[ops], self.begins[actions]


class Apply:
    """A run in a store of its own, as the executor writes it."""

    def __init__(self, store: Store, lock: Lock) -> None:
        self._journal = Journal(store, lock)
        self._run = self._journal.start_run(_plan(), "bench", 0.0, "bench", "0").id
        self._actions = 0
        self.costs = Costs()

    def action(self) -> None:
        """One more action of five ops."""
        self._actions += 1
        action = f"worker-{self._actions:04d}/remap/vmnet"
        began = time.perf_counter()
        step = self._journal.begin_step(self._run, action, 0.0)
        self.costs.begins.append(time.perf_counter() - began)
        for _ in range(_OPS_PER_ACTION):
            self._op(action, step)
        self._journal.end_step(step, "done", 0.0)

    def _op(self, action: str, step: StepRow) -> None:
        began = time.perf_counter()
        self._journal.done(self._run, action, step.attempt)
        self._journal.stop_requested(self._run)
        asked = time.perf_counter()
        ids = self._journal.intent(step, [_OP], 0.0)
        self._journal.outcomes(ids, [Outcome(_OP.label, "done")], 0.0)
        self.costs.writes.append(time.perf_counter() - asked)
        self.costs.looks.append(asked - began)


def measure() -> Result:
    """One run to its last window; that one in turn with the first window of another run."""
    with tempfile.TemporaryDirectory(prefix="ovsplan-bench-") as folder, ExitStack() as stack:
        long, fresh = (_begun(Path(folder) / name, stack) for name in ("long.db", "fresh.db"))
        for _ in range((_OPS - _WINDOW) // _OPS_PER_ACTION):
            long.action()
        for _ in range(_WINDOW // _OPS_PER_ACTION):
            long.action()
            fresh.action()
    return _result(long.costs, fresh.costs)


def _result(long: Costs, fresh: Costs) -> Result:
    rows = [
        (f"{first + 1:,}-{first + _WINDOW:,}", *map(_ms, long.window(first)))
        for first in range(0, _OPS, _WINDOW)
    ]
    rows.append((f"1-{_WINDOW:,}, in turn with the last", *map(_ms, fresh.window(0))))
    pairs = zip(long.window(_OPS - _WINDOW), fresh.window(0), strict=True)
    writes, looks, begins = (median(last) / median(first) for last, first in pairs)
    return Result(
        "journal: ms in windows of one run (medians), WAL, synchronous=FULL",
        ("ops", "intent and outcome", "what was done, is a stop asked", "an action begins"),
        tuple(rows),
        (Bar("intent and outcome, last window to a first one in turn with it", writes, 1.2),),
        (
            f"what was done, is a stop asked: {looks:.2f}",
            f"an action begins (one in {_OPS_PER_ACTION} ops): {begins:.2f}",
            "the disk's own commits vary within a run; the ratio is of two windows that took turns",
        ),
    )


def _begun(path: Path, stack: ExitStack) -> Apply:
    store = Store(path, "bench", create=True)
    stack.callback(store.close)
    return Apply(store, stack.enter_context(Lock(store, "bench")))


def _plan() -> Plan:
    action = Action(id="bench/remap", routine="hot-remap@1", title="an action")
    return sealed(Plan(FORMAT, Target("bench", "bench"), "0" * 64, (), (), (action,)))


def _ms(seconds: list[float]) -> str:
    return f"{median(seconds) * 1000:.2f}"
