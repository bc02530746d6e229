"""The twin's controllers at work on a cluster that is not the twin's: another API server, other nodes, real time.

Invariant: one controller looks at one key at a time, and hears of every change of the kinds it was promised: what was
missed while the API could not be reached is found by listing anew.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from providers.ports import Body, Busy, Expired, PortError
from providers.twin.kubelet import Kubelet
from providers.twin.kubevirt import KubeVirt
from providers.twin.networks import KUBEVIRT, NAD_API
from providers.twin.nmstate_operator import NmstateOperator
from providers.twin.outside_stage import SETTINGS, FreeDatabase, OutsideNode, OutsideStage
from providers.twin.scheduler import Scheduler
from providers.twin.stage import Change, Controller

__all__ = [
    "KINDS",
    "SETTINGS",
    "FreeDatabase",
    "OutsideNode",
    "OutsideRunner",
    "OutsideStage",
    "outside_controllers",
]

Kinds = Sequence[tuple[str, str]]

KINDS: Kinds = (
    ("v1", "Node"),
    ("v1", "Pod"),
    (KUBEVIRT, "VirtualMachine"),
    (KUBEVIRT, "VirtualMachineInstance"),
    (KUBEVIRT, "VirtualMachineInstanceMigration"),
    (NAD_API, "NetworkAttachmentDefinition"),
    ("nmstate.io/v1", "NodeNetworkConfigurationPolicy"),
    ("nmstate.io/v1beta1", "NodeNetworkState"),
)
"""The kinds that `outside_controllers` want to hear of."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
_WATCH_SECONDS = 2.0


def outside_controllers() -> tuple[Controller, ...]:
    """Those that a cluster without its operators lacks. What works inside a node (switch, OVN) is not among them."""
    return Scheduler(), Kubelet(), KubeVirt(), NmstateOperator()


class OutsideRunner:
    """Runs controllers on a stage: one thread for each kind that is watched, one for each controller.

    An error of a port is told to `log` and tried again after a pause that doubles up to five seconds; any other error
    of a controller stops the runner, and `stop` raises it.
    """

    def __init__(
        self,
        stage: OutsideStage,
        controllers: Sequence[Controller],
        kinds: Kinds = KINDS,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._stage = stage
        self._workers = {each.name: _Worker(stage, each, self._fail, log) for each in controllers}
        self._watchers = [_Watcher(stage, api, kind, self.notify, self._fail, log) for api, kind in kinds]
        self._failure: BaseException | None = None

    def start(self) -> None:
        self._stage.attach(self.notify, lambda controller, key, at: self._workers[controller].add(key, at))
        for worker in self._workers.values():
            worker.start()
        for watcher in self._watchers:
            watcher.start()

    def stop(self) -> None:
        """Stop all threads and kill the commands that run. Raises what stopped the runner before, if anything did."""
        self._halt()
        self._stage.close()
        for watcher in self._watchers:
            watcher.join()
        for worker in self._workers.values():
            worker.join()
        if self._failure is not None:
            raise self._failure

    @property
    def failed(self) -> bool:
        """Whether a controller broke, and everything has stopped."""
        return self._failure is not None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Started inside, stopped after."""
        self.start()
        try:
            yield
        finally:
            self.stop()

    def notify(self, change: Change) -> None:
        """Tell the controllers of a change, as a watch does."""
        now = time.time()
        for name, worker in self._workers.items():
            for key, delay in worker.controller.keys(change, self._stage.settings):
                self._workers[name].add(key, now + delay)

    def restart_handler(self, node: str) -> None:
        """Let the nmstate handler of a node begin anew, as when its pod was deleted."""
        self.notify(Change("handler", node))

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._halt()

    def _halt(self) -> None:
        for watcher in self._watchers:
            watcher.halt()
        for worker in self._workers.values():
            worker.halt()


def _pause(failures: int) -> float:
    return float(min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2**failures))


class _Worker(threading.Thread):
    """One controller and its queue of keys, each with the instant at which it is due."""

    def __init__(
        self,
        stage: OutsideStage,
        controller: Controller,
        fail: Callable[[BaseException], None],
        log: Callable[[str], None],
    ) -> None:
        super().__init__(name=controller.name, daemon=True)
        self._log = log
        self.controller = controller
        self._stage = stage
        self._fail = fail
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._failures: dict[str, int] = {}
        self._changed = threading.Condition()
        self._halted = False

    def add(self, key: str, at: float) -> None:
        with self._changed:
            if key not in self._due or at < self._due[key]:
                self._due[key] = at
                heapq.heappush(self._heap, (at, key))
                self._changed.notify()

    def halt(self) -> None:
        with self._changed:
            self._halted = True
            self._changed.notify()

    def _take(self) -> str | None:
        """The next key, once it is due; None when the worker is to end."""
        with self._changed:
            while not self._halted:
                left = self._heap[0][0] - time.time() if self._heap else None
                if left is not None and left <= 0:
                    at, key = heapq.heappop(self._heap)
                    # An earlier entry of the same key may have been served already.
                    if self._due.get(key) == at:
                        del self._due[key]
                        return key
                else:
                    self._changed.wait(left)
            return None

    def run(self) -> None:
        try:
            while (key := self._take()) is not None:
                self._serve(key)
        except Exception as error:
            # Whatever it is, a thread can only hand it over: `stop` raises it.
            self._fail(error)

    def _serve(self, key: str) -> None:
        try:
            again = self.controller.reconcile(self._stage, key)
        except PortError as error:
            self._log(f"{self.name}, {key}: {type(error).__name__}: {error}")
            failures = self._failures.get(key, 0)
            self._failures[key] = min(failures + 1, 10)
            asked = error.retry_after if isinstance(error, Busy) else 0.0
            self.add(key, time.time() + max(asked, _pause(failures)))
            return
        self._failures.pop(key, None)
        if again is not None:
            self.add(key, again)


class _Watcher(threading.Thread):
    """Follows one kind: lists it, watches from there, and lists anew when the watch can't be continued."""

    def __init__(
        self,
        stage: OutsideStage,
        api: str,
        kind: str,
        notify: Callable[[Change], None],
        fail: Callable[[BaseException], None],
        log: Callable[[str], None],
    ) -> None:
        super().__init__(name=f"watch {kind}", daemon=True)
        self._log = log
        self._cluster = stage.cluster
        self._api = api
        self._kind = kind
        self._notify = notify
        self._fail = fail
        self._known: dict[tuple[str, str], Body] = {}
        self._halted = threading.Event()

    def halt(self) -> None:
        self._halted.set()

    def run(self) -> None:
        failures = 0
        while not self._halted.is_set():
            try:
                since = self._list()
                failures = 0
                while not self._halted.is_set():
                    since = self._watch(since)
            except Expired:
                continue
            except PortError as error:
                self._log(f"{self.name}: {type(error).__name__}: {error}")
                # Not served yet, or out of reach: a real controller's informer waits and lists anew.
                self._halted.wait(_pause(failures))
                failures = min(failures + 1, 10)
            except Exception as error:
                # Whatever it is, a thread can only hand it over: `stop` raises it.
                self._fail(error)
                return

    def _list(self) -> str:
        found = self._cluster.list(self._api, self._kind)
        objects = {_place(body): body for body in found.items}
        for place in self._known.keys() - objects.keys():
            self._tell(place, self._known[place], True)
        for place, body in objects.items():
            if _version(self._known.get(place, {})) != _version(body):
                self._tell(place, body, False)
        self._known = objects
        return found.resource_version

    def _watch(self, since: str) -> str:
        for event in self._cluster.watch(self._api, self._kind, since=since, timeout=_WATCH_SECONDS):
            place, body = _place(event.object), event.object
            since = _version(body) or since
            if event.type == "DELETED":
                self._known.pop(place, None)
            else:
                self._known[place] = body
            self._tell(place, body, event.type == "DELETED")
            if self._halted.is_set():
                break
        return since

    def _tell(self, place: tuple[str, str], body: Body, deleted: bool) -> None:
        namespace, name = place
        self._notify(Change(self._kind, name, namespace, body, deleted))


def _place(body: Body) -> tuple[str, str]:
    metadata: Mapping[str, str] = body["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _version(body: Body) -> str:
    return str(body.get("metadata", {}).get("resourceVersion", ""))
