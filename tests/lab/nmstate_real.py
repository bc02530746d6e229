"""The cases carried out by real nmstatectl and NetworkManager, every case on a node of its own, many at once.

Invariant: a thread carries out one case at a time with a `Lab` of its own; nothing is shared between cases but the
machine, so only the order of a node's changes is told, and what the VM lost in coarse words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from providers.ports import Create, Ref

from . import managed
from .documents import Document
from .lab import Lab
from .netns import await_true, ip
from .nmstate_cases import Case, Outcome, cases_on, world
from .nmstate_steps import carry_out
from .timeline import Timeline, Watch

_AT_ONCE = 4
_PING_EVERY = 0.01
_BACK_WITHIN = 2.0


class _RealSite:
    def __init__(self, lab: Lab, case: Case) -> None:
        self._lab = lab
        self._case = case
        self._rundir = lab.place.rundir(case.node)

    def transact(self, *operations: Mapping[str, Any]) -> list[Any]:
        return self._lab.wiring.transact(self._case.node, operations)

    def apply(self, document: Document) -> tuple[int, str]:
        done = managed.nmstatectl(self._rundir, self._lab.kit, ["apply", "-"], document)
        return done.returncode, done.stderr

    def lose_nic(self, nic: str) -> None:
        ip(self._lab.place.namespace(self._case.node), f"link del dev {nic}")

    def leave(self) -> None:
        ask_to_migrate(self._lab, self._case.vm)
        self._await_home(lambda home: home != self._case.node)

    def come_back(self) -> None:
        ask_to_migrate(self._lab, self._case.vm, {"kubernetes.io/hostname": self._case.node})
        self._await_home(lambda home: home == self._case.node)

    def _await_home(self, right: Callable[[str], bool]) -> None:
        vm = self._case.vm
        await_true(lambda: right(self._lab.node_of(vm)), f"{vm} has moved", within=60, every=0.05)
        self._lab.await_reachable(vm)

    def command(self, argv: Sequence[str]) -> int:
        return self._lab.world.shell(self._case.node).run(argv, timeout=10).rc

    def until(self, condition: Callable[[], bool], within: float) -> bool:
        end = time.monotonic() + within
        while not (true := condition()) and time.monotonic() < end:
            time.sleep(0.02)
        return true

    def observed(self, act: Callable[[], None]) -> tuple[Timeline, float, bool]:
        database, vm = self._rundir / "db.sock", self._case.vm
        with Watch(database) as watch, self._lab.ping(vm, every=_PING_EVERY) as probe:
            act()
            tally = probe.stop()
            reached = self._lab.reachable(vm, within=_BACK_WITHIN)
            timeline = watch.stop()
        return timeline, tally.lost_ms, reached


def ask_to_migrate(lab: Lab, vm: str, selector: Mapping[str, str] | None = None) -> Ref:
    """A live migration, asked for as a user of the API does."""
    namespace, name = vm.split("/")
    ref = Ref("kubevirt.io/v1", "VirtualMachineInstanceMigration", f"{name}-{time.monotonic_ns()}", namespace)
    lab.cluster.write(Create(ref, {"spec": {"vmiName": name, "addedNodeSelector": dict(selector or {})}}))
    return ref


def measure(ovn: str, folder: Path) -> dict[str, Outcome | Exception]:
    """The outcome of every case of this OVN, or why there is none."""
    cases = cases_on(ovn)
    with Lab.up(world(ovn, cases), folder) as lab:
        lab.steady()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            running = {case.name: pool.submit(_carry_out, folder, case) for case in cases}
            return {name: _result(each.result, each.exception()) for name, each in running.items()}


def _carry_out(folder: Path, case: Case) -> Outcome:
    lab = Lab.attach(folder)
    try:
        return carry_out(_RealSite(lab, case), case)
    finally:
        lab.close()


def _result(result: Callable[[], Outcome], error: BaseException | None) -> Outcome | Exception:
    if isinstance(error, Exception):
        return error
    return result()
