"""The inside of the twin: the objects, the nodes' databases and the controllers, run by one clock.

Invariant: nothing here starts by itself. Inside one served call the controllers work until nothing is due at the
present instant; the clock only moves by `advance`, which stops at every instant at which something falls due.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack

from providers.ports import Body, Event, Finished, Listing, Nodes, Ref, Refused, Selectors, Unreachable, Write
from providers.twin import guest, nmstatectl, node_shell
from providers.twin.dynamic_networks import DynamicNetworks
from providers.twin.forwarding import Forwarding
from providers.twin.kube import Api, selects
from providers.twin.kubelet import LIFE, Kubelet
from providers.twin.kubevirt import KubeVirt
from providers.twin.networkmanager import NetworkManager
from providers.twin.nmstate_operator import NmstateOperator
from providers.twin.ovn_controller import OvnController
from providers.twin.ovnk_nads import OvnkNads
from providers.twin.scheduler import Scheduler
from providers.twin.stage import DOWN, UNITS, Change, Controller, Settings
from providers.twin.store import Store
from providers.twin.transact import Outcome, execute
from providers.twin.vswitchd import Vswitchd

DATABASE = "Open_vSwitch"
_ASLEEP = 600.0
"""Seconds after which a world on the wall's clock counts as one that nobody looked at."""


def all_controllers() -> tuple[Controller, ...]:
    return (
        Scheduler(),
        Kubelet(),
        KubeVirt(),
        Vswitchd(),
        OvnController(),
        Forwarding(),
        OvnkNads(),
        DynamicNetworks(),
        NmstateOperator(),
        NetworkManager(),
    )


class Host(Nodes):
    """A `Stage` over a store. Every use of it stands inside `store.call()`."""

    def __init__(self, store: Store, wall_clock: bool) -> None:
        self.store = store
        self.wall_clock = wall_clock
        self.api = Api(store, self.now, self.notify)
        self.cluster = _Cluster(self)
        self.clock = _Clock(self)
        self._changes: list[Change] = []
        self._controllers = {controller.name: controller for controller in all_controllers()}

    @property
    def settings(self) -> Settings:
        return Settings(**self.store.get("meta|settings"))

    def now(self) -> float:
        return float(self.store.get("meta|clock"))

    def notify(self, change: Change) -> None:
        self._changes.append(change)

    def working(self) -> Iterator[Controller]:
        switched = self.store.get("meta|controllers")
        return (controller for name, controller in self._controllers.items() if switched.get(name))

    def settle(self) -> None:
        """Let the controllers work until nothing is due now."""
        now = self.now()
        self._dispatch(now)
        while (due := self.store.take_due(now)) is not None:
            name, key = due
            if (up := self._back_at(name, key)) is not None:
                self.store.enqueue(name, key, up)
                continue
            again = self._controllers[name].reconcile(self, key)
            if again is not None:
                self.store.enqueue(name, key, again)
            self._dispatch(now)

    def _back_at(self, controller: str, key: str) -> float | None:
        """When what runs on a node that is rebooting can be looked at; None for all else."""
        down = self.remembered(DOWN)
        if not down or (controller == Kubelet.name and key.partition(" ")[0] in LIFE):
            return None
        nodes = set(key.split(" ")) & set(down)
        return max((self.recall(DOWN, node)["until"] for node in nodes), default=None)

    def is_down(self, node: str) -> bool:
        """Whether the node is rebooting."""
        return self.recall(DOWN, node) is not None

    def _dispatch(self, now: float) -> None:
        while self._changes:
            changes, self._changes = self._changes, []
            settings = self.settings
            for controller in self.working():
                for change in changes:
                    for key, delay in controller.keys(change, settings):
                        self.store.enqueue(controller.name, key, now + delay)

    def step(self, to: float) -> None:
        """Move the clock on to `to`, or to the first instant before it at which something is due; settle there."""
        self.settle()
        due = self.store.next_due()
        instant = to if due is None else min(due, to)
        if instant > self.now():
            self.store.put("meta|clock", instant)
        self.settle()

    def advance(self, to: float) -> None:
        self.settle()
        while self.now() < to:
            self.step(to)

    def catch_up(self) -> None:
        """The start of a call. On the wall's clock, what fell due since the last one happens now, in its order."""
        # A call that was interrupted was rolled back; the changes it had announced never happened.
        self._changes.clear()
        if not self.wall_clock:
            return
        now = time.time()
        if now < self.now() or now - self.now() > _ASLEEP:
            # What was planned for meanwhile happens now, once: its controllers do not live through each minute of it.
            self.store.put("meta|clock", now)
        self.advance(now)

    def knows(self, node: str) -> bool:
        return self.store.get(f"ovs|{node}") is not None

    def transact(self, node: str, database: str, operations: Sequence[Body], elapsed: float) -> Outcome:
        """One attempt at a transaction; commits when it can."""
        if database != DATABASE:
            details = f"No database named {database}."
            return Outcome([{"error": "unknown database", "details": details}])
        key = f"ovs|{node}"
        seed = uuid.UUID(self.store.get("meta|seed"))
        minted = int(self.store.get("meta|minted"))

        def mint() -> str:
            nonlocal minted
            minted += 1
            return str(uuid.uuid5(seed, f"row {minted}"))

        outcome = execute(self.store.get(key), operations, mint, elapsed)
        if outcome.tables is not None:
            self.store.put(key, outcome.tables)
            self.store.put("meta|minted", minted)
            self.notify(Change("ovsdb", node, columns=outcome.changed))
        return outcome

    def ovsdb(self, node: str) -> _Database:
        if not self.knows(node):
            raise Unreachable(f"no such node: {node}")
        return _Database(self, node)

    def shell(self, node: str) -> _Shell:
        if not self.knows(node):
            raise Unreachable(f"no such node: {node}")
        return _Shell(self, node)

    def recall(self, controller: str, key: str) -> Any:
        return self.store.get(f"mem|{controller}|{key}")

    def keep(self, controller: str, key: str, memory: Any) -> None:
        name = f"mem|{controller}|{key}"
        if memory is None:
            self.store.drop(name)
        elif self.store.get(name) != memory:
            self.store.put(name, memory)
            if controller == UNITS:
                self.notify(Change("unit", key.partition(" ")[0]))

    def remembered(self, controller: str) -> Iterable[str]:
        prefix = f"mem|{controller}"
        return [key[len(prefix) + 1 :] for key in self.store.keys(prefix)]

    def remind(self, controller: str, key: str, at: float) -> None:
        self.store.enqueue(controller, key, at)

    def nics(self, node: str) -> Mapping[str, str]:
        found: Mapping[str, str] = self.store.get(f"nics|{node}") or {}
        return found

    def is_silent(self, vm: str) -> bool:
        return self.store.get(f"silent|{vm}") is not None

    def guest_agent(self, vm: str) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = self.store.get(f"guest-agent|{vm}")
        return found

    def carries(self, node: str, nic: str, vlan: int) -> bool:
        trunks = self.store.get(f"trunks|{node}") or {}
        return nic not in trunks or vlan in trunks[nic]

    def begin(self, node: str, unit: str, argv: Sequence[str], stdin: bytes = b"") -> None:
        if not self.knows(node):
            raise Unreachable(f"no such node: {node}")
        self.keep(UNITS, f"{node} {unit}", None)
        if argv and argv[0].rpartition("/")[2] == nmstatectl.PROGRAM:
            nmstatectl.begin(self, node, unit, argv, stdin)
            return
        done = node_shell.run(self, node, argv, stdin)
        self.keep(UNITS, f"{node} {unit}", {"rc": done.rc, "out": done.out, "err": done.err})

    def ended(self, node: str, unit: str) -> Finished | None:
        found = self.recall(UNITS, f"{node} {unit}")
        return None if found is None else Finished(found["rc"], found["out"], found["err"])


class _Cluster:
    """`ports.Cluster` without log, faults or copies."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._api = host.api

    def get(self, ref: Ref) -> Body | None:
        return self._api.get(ref)

    def list(
        self, api: str, kind: str, *, keep: Sequence[str] = (), **selectors: Unpack[Selectors]
    ) -> Listing:
        return self._api.list(api, kind, keep=keep, **selectors)

    def watch(
        self, api: str, kind: str, *, since: str, timeout: float, **selectors: Unpack[Selectors]
    ) -> Iterator[Event]:
        for _, event, body in self._api.events(api, kind, int(since or 0)):
            found = Event(event, json.loads(body))
            if selects(found.object, selectors):
                yield found

    def write(self, request: Write, *, dry_run: bool = False) -> Body:
        return self._api.write(request, dry_run)

    def exec(self, pod: Ref, container: str, argv: Sequence[str], *, timeout: float) -> Finished:
        return guest.run(self._host, pod, container, argv)


class _Database:
    def __init__(self, host: Host, node: str) -> None:
        self._host = host
        self._node = node

    def transact(self, database: str, operations: Sequence[Body], *, timeout: float) -> list[Any]:
        outcome = self._host.transact(self._node, database, operations, 0.0)
        if outcome.waits is not None:
            raise Refused("a controller's transaction does not wait")
        return outcome.results


class _Shell:
    def __init__(self, host: Host, node: str) -> None:
        self._host = host
        self._node = node

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Finished:
        return node_shell.run(self._host, self._node, argv, stdin)


class _Clock:
    def __init__(self, host: Host) -> None:
        self._host = host

    def now(self) -> float:
        return self._host.now()

    def wait_until(self, instant: float) -> None:
        if instant > self._host.now():
            raise Refused("a controller does not wait: it asks to be called again")
