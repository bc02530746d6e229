"""What the twin's controllers stand on outside the twin: any cluster, any nodes, the machine's own time.

Invariant: nothing here outlives the object. Memory is gone with it and the commands it began are killed, so that
making a new one is what a restart of all controllers is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from providers.ports import Body, Clock, Cluster, Finished, Nodes, NodeShell, Ovsdb, Refused, Unreachable
from providers.twin.ovs_view import DATABASE, INTEGRATION, insert_port
from providers.twin.stage import Change, Settings
from providers.twin.transact import empty_tables, execute

SETTINGS = Settings(
    vswitchd=0.003,
    ovn_controller=0.002,
    migration=4.0,
    mac_ageing=300,
    per_cluster=5,
    per_node=2,
    ovn="23.03.1",
)
_NOT_FOUND = 127


class FreeDatabase:
    """An Open vSwitch database in memory, for a node that is nothing but an object: it has br-int and no daemons."""

    def __init__(self) -> None:
        self._tables = empty_tables(str(uuid.uuid4()))
        self._lock = threading.Lock()
        link = [["bridges", "insert", ["named-uuid", "b"]]]
        first: list[Body] = [
            {"op": "insert", "table": "Bridge", "uuid-name": "b", "row": {"name": INTEGRATION}},
            {"op": "mutate", "table": DATABASE, "where": [], "mutations": link},
            *insert_port(INTEGRATION, INTEGRATION, [{"name": INTEGRATION, "type": "internal"}]),
        ]
        self.transact(DATABASE, first, timeout=1)

    def transact(self, database: str, operations: Sequence[Body], *, timeout: float) -> list[Any]:
        """As `ports.Ovsdb`; a `wait` that does not hold is refused, as nobody else changes anything here."""
        with self._lock:
            outcome = execute(self._tables, operations, lambda: str(uuid.uuid4()), 0.0)
            if outcome.waits is not None:
                raise Refused("nothing comes true by waiting in a database without daemons")
            if outcome.tables is not None:
                self._tables = outcome.tables
            return outcome.results


@dataclass(frozen=True)
class OutsideNode:
    """The ways to one node. `prefix` stands before each command (`ip netns exec NAME`, `env NAME=VALUE`)."""

    prefix: tuple[str, ...] = ()
    ovsdb: Ovsdb = field(default_factory=FreeDatabase)
    shell: NodeShell | None = None


class WallClock:
    """`ports.Clock` for controllers: the machine's time, for which they do not wait."""

    def now(self) -> float:
        return time.time()

    def wait_until(self, instant: float) -> None:
        if instant > time.time():
            raise Refused("a controller does not wait: it asks to be called again")


@dataclass(slots=True, eq=False)
class _Unit:
    """A command that was begun. `process` is None when it could not be started."""

    process: subprocess.Popen[bytes] | None
    ended: Finished | None = None


class OutsideStage(Nodes):
    """A `Stage` over any cluster, and over the nodes that are named; others can't be reached."""

    def __init__(
        self, cluster: Cluster, nodes: Mapping[str, OutsideNode], settings: Settings = SETTINGS
    ) -> None:
        self._cluster = cluster
        self._clock = WallClock()
        self._settings = settings
        self._nodes = dict(nodes)
        self._memory: dict[str, dict[str, Any]] = {}
        self._units: dict[tuple[str, str], _Unit] = {}
        self._lock = threading.Lock()
        self._notify: Callable[[Change], None] = lambda change: None
        self._remind: Callable[[str, str, float], None] = lambda controller, key, at: None

    @property
    def cluster(self) -> Cluster:
        return self._cluster

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def settings(self) -> Settings:
        return self._settings

    def attach(self, notify: Callable[[Change], None], remind: Callable[[str, str, float], None]) -> None:
        """Whom to tell that a command has ended, and whom to have look again."""
        self._notify, self._remind = notify, remind

    def ovsdb(self, node: str) -> Ovsdb:
        return self._way_to(node).ovsdb

    def shell(self, node: str) -> NodeShell:
        shell = self._way_to(node).shell
        if shell is None:
            raise Unreachable(f"node {node} has no shell")
        return shell

    def _way_to(self, node: str) -> OutsideNode:
        if node not in self._nodes:
            raise Unreachable(f"no way to node {node} is known")
        return self._nodes[node]

    def recall(self, controller: str, key: str) -> Any:
        with self._lock:
            return self._memory.get(controller, {}).get(key)

    def keep(self, controller: str, key: str, memory: Any) -> None:
        with self._lock:
            held = self._memory.setdefault(controller, {})
            if memory is None:
                held.pop(key, None)
            else:
                held[key] = memory

    def remembered(self, controller: str) -> Iterable[str]:
        with self._lock:
            return sorted(self._memory.get(controller, ()))

    def remind(self, controller: str, key: str, at: float) -> None:
        self._remind(controller, key, at)

    def nics(self, node: str) -> Mapping[str, str]:
        return {}

    def is_silent(self, vm: str) -> bool:
        return False

    def guest_agent(self, vm: str) -> Mapping[str, Any] | None:
        return None

    def carries(self, node: str, nic: str, vlan: int) -> bool:
        return True

    def begin(self, node: str, unit: str, argv: Sequence[str], stdin: bytes = b"") -> None:
        """As `Stage.begin`; a program that can't be started, or a node to which no way is known, ends with 127."""
        self._abandon(node, unit)
        try:
            begun = _Unit(_spawn([*self._way_to(node).prefix, *argv]))
        except (OSError, Unreachable) as error:
            begun = _Unit(None, Finished(_NOT_FOUND, "", f"{argv[0]}: {error}\n"))
        with self._lock:
            self._units[node, unit] = begun
        threading.Thread(target=self._await, args=(node, begun, stdin), daemon=True).start()

    def _await(self, node: str, unit: _Unit, stdin: bytes) -> None:
        if unit.process is not None:
            out, err = unit.process.communicate(stdin)
            rc = unit.process.returncode
            unit.ended = Finished(rc, out.decode(errors="replace"), err.decode(errors="replace"))
        self._notify(Change("unit", node))

    def ended(self, node: str, unit: str) -> Finished | None:
        with self._lock:
            found = self._units.get((node, unit))
        return None if found is None else found.ended

    def _abandon(self, node: str, unit: str) -> None:
        with self._lock:
            found = self._units.pop((node, unit), None)
        if found is not None and found.process is not None and found.ended is None:
            # What was begun in a session of its own may have children that hold its output open.
            with suppress(ProcessLookupError):
                os.killpg(found.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill what still runs, as it dies with a controller's container."""
        for node, unit in list(self._units):
            self._abandon(node, unit)


def _spawn(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
