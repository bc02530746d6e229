"""The cases carried out by the twin, in its own time.

Invariant: no transaction on the node's database goes unseen. For that, and to begin a command as the nmstate handler
does, this reaches behind the ports, and changes nothing there.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from providers.ports import Create, Finished, Ref
from providers.twin import forwarding, init_world, open_world
from providers.twin.host import Host
from providers.twin.stage import Change
from providers.twin.world import TwinWorld

from . import inventory
from .documents import Document
from .netns import LabError
from .nmstate_cases import Case, Outcome, world
from .nmstate_steps import carry_out, tables
from .timeline import Timeline

_LOOK_EVERY = 0.02
_LONGEST = 120.0
_DATABASE = "Open_vSwitch"


class _TwinSite:
    def __init__(self, twin: TwinWorld, case: Case) -> None:
        self._twin = twin
        self._case = case
        self._others = twin.edit()
        self._timeline: Timeline | None = None
        self._dark = 0.0
        self._seen = (self._others.clock.now(), True)
        self._numbers = itertools.count()

    def transact(self, *operations: Mapping[str, Any]) -> list[Any]:
        database = self._others.ovsdb(self._case.node)
        results = database.transact(_DATABASE, list(operations), timeout=5)
        errors = [result for result in results if result and "error" in result]
        if errors:
            raise LabError(f"{self._case.node}: {errors}")
        return results

    def apply(self, document: Document) -> tuple[int, str]:
        node, unit = self._case.node, f"case-{next(self._numbers)}"
        stdin = json.dumps(document).encode()
        with self._twin._call() as host:
            host.begin(node, unit, ["nmstatectl", "apply", "-"], stdin)
        assert self.until(lambda: self._ended(unit) is not None, _LONGEST), document
        done = self._ended(unit)
        assert done is not None
        return done.rc, done.err

    def _ended(self, unit: str) -> Finished | None:
        with self._twin._call() as host:
            return host.ended(self._case.node, unit)

    def lose_nic(self, nic: str) -> None:
        self._twin.set_nic(self._case.node, nic, "gone")
        self.until(lambda: False, 1.0)

    def leave(self) -> None:
        self._move({})
        assert self._home() != self._case.node

    def come_back(self) -> None:
        self._move({"kubernetes.io/hostname": self._case.node})
        assert self._home() == self._case.node

    def _move(self, selector: Mapping[str, str]) -> None:
        namespace, name = self._case.vm.split("/")
        migration = f"{name}-{next(self._numbers)}"
        ref = Ref("kubevirt.io/v1", "VirtualMachineInstanceMigration", migration, namespace)
        before = self._home()
        self._others.cluster.write(
            Create(ref, {"spec": {"vmiName": name, "addedNodeSelector": dict(selector)}})
        )
        self.until(lambda: self._home() != before, 30)
        self.until(lambda: False, 1.0)

    def command(self, argv: Sequence[str]) -> int:
        return self._others.shell(self._case.node).run(argv, timeout=10).rc

    def until(self, condition: Callable[[], bool], within: float) -> bool:
        clock = self._others.clock
        end = clock.now() + within
        while not (true := condition()) and clock.now() < end:
            self._pass_time()
        return true

    def observed(self, act: Callable[[], None]) -> tuple[Timeline, float, bool]:
        self._timeline = Timeline(tables(self.transact))
        with self._twin._call() as host:
            host.notify = self._spy(host, host.notify)  # type: ignore[method-assign, assignment]
        act()
        return self._timeline, self._dark * 1000, self._twin.reachable(self._case.vm)[0]

    def _spy(self, host: Host, notify: Callable[[Change], None]) -> Callable[[Change], None]:
        """The host's `notify`, which also shows us what an OVSDB transaction has just brought about."""

        def told(change: Change) -> None:
            notify(change)
            if self._timeline is not None and (change.kind, change.name) == ("ovsdb", self._case.node):
                database = host.ovsdb(self._case.node)
                self._timeline.see(
                    tables(lambda *operations: database.transact(_DATABASE, operations, timeout=5))
                )
                self._count(host.now(), forwarding.reachable(host, self._case.vm)[0])

        return told

    def _pass_time(self) -> None:
        clock = self._others.clock
        clock.wait_until(clock.now() + _LOOK_EVERY)
        self._count(clock.now(), self._twin.reachable(self._case.vm)[0])

    def _count(self, now: float, reached: bool) -> None:
        since, was = self._seen
        if self._timeline is not None and not was:
            self._dark += now - since
        self._seen = (now, reached)

    def _home(self) -> str:
        namespace, name = self._case.vm.split("/")
        vmi = self._others.cluster.get(Ref(*inventory.VMI, name, namespace))
        return str(vmi["status"]["nodeName"]) if vmi else ""


def imagine(case: Case, folder: Path) -> Outcome:
    """The outcome of a case in a world of its own."""
    init_world(world(case.ovn, [case]), folder / "world")
    with open_world(folder / "world") as twin:
        return carry_out(_TwinSite(twin, case), case)
