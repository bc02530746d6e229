"""The four ports as the twin serves them: logged, with copies instead of its own objects, and with faults.

Invariant: what a call changed, the clock and the call's row in the log are committed together, before the caller
hears of it.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Generic, NoReturn, TypeVar, Unpack, cast

from providers.ports import (
    Apply,
    Body,
    Create,
    Delete,
    Event,
    Finished,
    InDoubt,
    JsonPatch,
    Listing,
    MergePatch,
    PortError,
    Ref,
    Selectors,
    Unreachable,
    Write,
)
from providers.twin import guest, node_shell
from providers.twin.host import Host
from providers.twin.kube import selects
from providers.twin.transact import Outcome

T = TypeVar("T")
Seen = tuple[int, tuple[Event, ...]]

EFFECTS = ("fail", "hang", "lose-reply", "kill", "kill-after")
CLUSTER_TIMEOUT = 30.0
_BEFORE = ("fail", "hang", "kill")
_POLL = 0.01


@dataclass(frozen=True, slots=True)
class Request:
    """One call as the log has it."""

    port: str
    node: str
    verb: str
    text: str
    timeout: float = CLUSTER_TIMEOUT

    def __str__(self) -> str:
        return f"{self.port} {self.node} {self.verb} {self.text}"

    @property
    def whom(self) -> str:
        """Who is asked, for an error; the cluster is on no node."""
        return self.port if self.node == "-" else f"{self.port} {self.node}"


class _Pending(Exception):
    """The call can't be answered before `until` at the earliest, or until something changes."""

    def __init__(self, until: float) -> None:
        super().__init__(until)
        self.until = until


@dataclass(frozen=True)
class _Answer(Generic[T]):
    """What a call came to: a value, or the error to raise once the call is committed."""

    value: T | None = None
    error: PortError | None = None

    def open(self) -> T:
        if self.error is not None:
            raise self.error
        return cast(T, self.value)


class Desk:
    """Where calls are served. `other` marks the calls of somebody else, who meets no faults."""

    def __init__(self, host: Host, other: bool = False) -> None:
        self.host = host
        self._store = host.store
        self._other = other

    def serve(
        self, request: Request, act: Callable[[], T], *, outcome: Callable[[T], str] = lambda _: "ok"
    ) -> T:
        """Carry out one call. `act` raises `_Pending` to be tried again once time has passed."""
        effect = None
        first = True
        while True:
            answer: _Answer[T] | _Pending | None = None
            with self._store.call():
                self.host.catch_up()
                if first:
                    effect, first = self._trip(request), False
                if effect in _BEFORE:
                    self._suffer(request, effect)
                else:
                    answer = self._carry_out(request, act, effect, outcome)
            if not isinstance(answer, _Pending):
                break
            # Others need the store meanwhile, and it has nothing to tell a process that waits for them.
            time.sleep(max(0.0, min(_POLL, answer.until - time.time())))
        if answer is None or effect is not None:
            self._fault(request, effect)
        return answer.open()

    def _carry_out(
        self, request: Request, act: Callable[[], T], effect: str | None, outcome: Callable[[T], str]
    ) -> _Answer[T] | _Pending:
        while True:
            try:
                value = act()
                answer, said = _Answer(value), outcome(value)
                break
            except _Pending as pending:
                if self.host.wall_clock:
                    return pending
                self.host.step(pending.until)
            except PortError as error:
                answer, said = _Answer[T](error=error), f"{type(error).__name__}: {error}"
                break
        self.host.settle()
        fault = f"; fault: {effect}" if effect else ""
        self._log(request, said + fault)
        return answer

    def _log(self, request: Request, outcome: str) -> None:
        port = "other" if self._other else request.port
        now = self.host.now()
        self._store.record_call(now, os.getpid(), port, request.node, request.verb, request.text, outcome)

    def _trip(self, request: Request) -> str | None:
        """The effect of the fault whose turn this call is, if any; what else matches counts the call."""
        effect = None
        if self._other:
            return None
        armed = self._store.armed_faults()
        for fault, match, nth, kind, seen in armed:
            # Time cannot fail, hang or go missing: at the clock only a kill has a meaning.
            if (request.port == "clock" and not kind.startswith("kill")) or not fnmatchcase(
                str(request), match
            ):
                continue
            fires = effect is None and seen + 1 >= nth
            effect = kind if fires else effect
            self._store.count_fault(fault, seen + 1, fires)
        return effect

    def _suffer(self, request: Request, effect: str | None) -> None:
        if effect == "hang" and not self.host.wall_clock:
            self.host.advance(self.host.now() + request.timeout)
        self._log(request, f"not done; fault: {effect}")

    def _fault(self, request: Request, effect: str | None) -> NoReturn:
        if effect == "fail":
            raise Unreachable(f"{request.whom}: connection refused (injected)")
        if effect in ("hang", "lose-reply"):
            if effect == "hang" and self.host.wall_clock:
                # A call that hangs takes its time from the caller; that is the fault.
                time.sleep(request.timeout)
            raise InDoubt(f"{request.whom}: no answer to {request.verb} (injected)")
        os.kill(os.getpid(), signal.SIGKILL)
        # SIGKILL needs an instant to arrive, and nothing may happen in it.
        while True:
            time.sleep(1)

    def check_reachable(self, node: str) -> None:
        if self.host.is_down(node) or self._store.get(f"unreachable|{node}") is not None:
            raise Unreachable(f"{node}: no route to host")


class ServedCluster:
    """`ports.Cluster` of the twin."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._api = desk.host.api

    def _serve(self, verb: str, text: str, act: Callable[[], T]) -> T:
        return self._desk.serve(Request("cluster", "-", verb, text), act)

    def get(self, ref: Ref) -> Body | None:
        def act() -> Body | None:
            found = self._api.get(ref)
            return None if found is None else _copy(found)

        return self._serve("get", str(ref), act)

    def list(
        self, api: str, kind: str, *, keep: Sequence[str] = (), **selectors: Unpack[Selectors]
    ) -> Listing:
        namespace = selectors.get("namespace")
        limits = [f"namespace={namespace}"] if namespace is not None else []
        for by in (selectors.get("labels"), selectors.get("fields")):
            limits += [f"{name}={value}" for name, value in (by or {}).items()]

        def act() -> Listing:
            found = self._api.list(api, kind, keep=keep, **selectors)
            return Listing(tuple(_copy(item) for item in found.items), found.resource_version)

        return self._serve("list", " ".join((kind, *limits)), act)

    def watch(
        self, api: str, kind: str, *, since: str, timeout: float, **selectors: Unpack[Selectors]
    ) -> Iterator[Event]:
        position = int(since or 0)
        while True:
            position, events = self._await(api, kind, position, timeout)
            if not events:
                return
            yield from (e for e in events if selects(e.object, selectors))

    def _await(self, api: str, kind: str, since: int, timeout: float) -> Seen:
        start = -1.0

        def act() -> Seen:
            nonlocal start
            now = self._desk.host.now()
            start = now if start < 0 else start
            rows = self._api.events(api, kind, since)
            if not rows and now < start + timeout:
                raise _Pending(start + timeout)
            events = tuple(Event(event, json.loads(body)) for _, event, body in rows)
            return (rows[-1][0] if rows else since), events

        return self._serve("watch", f"{kind} since {since}", act)

    def write(self, request: Write, *, dry_run: bool = False) -> Body:
        text = str(request.ref)
        match request:
            case Create():
                verb, text = "create", f"{text}{_part(request)} {_json(request.body)}"
            case MergePatch():
                verb, text = "patch", f"{text}{_part(request)}{_at(request)} {_json(request.patch)}"
            case JsonPatch():
                verb, text = "patch", f"{text}{_at(request)} {_json(list(request.operations))}"
            case Apply():
                force = " by force" if request.force else ""
                verb, text = "apply", f"{text} as {request.manager}{force} {_json(request.body)}"
            case Delete():
                verb, text = "delete", f"{text}{_at(request)}"
        if dry_run:
            text += " (dry run)"
        return self._serve(verb, text, lambda: _copy(self._api.write(request, dry_run)))

    def exec(self, pod: Ref, container: str, argv: Sequence[str], *, timeout: float) -> Finished:
        host = self._desk.host

        def act() -> Finished:
            self._desk.check_reachable(guest.node_of(host, pod, container))
            return guest.run(host, pod, container, argv)

        request = Request("cluster", "-", "exec", f"{pod} {container} {shlex.join(argv)}", timeout)
        return self._desk.serve(request, act, outcome=lambda done: "ok" if done.rc == 0 else f"rc {done.rc}")


def _part(request: Create | MergePatch) -> str:
    return f"/{request.subresource}" if request.subresource else ""


def _at(request: MergePatch | JsonPatch | Delete) -> str:
    return f" at {request.resource_version}" if request.resource_version is not None else ""


class ServedOvsdb:
    """`ports.Ovsdb` of one node of the twin."""

    def __init__(self, desk: Desk, node: str) -> None:
        self._desk = desk
        self._node = node

    def transact(self, database: str, operations: Sequence[Body], *, timeout: float) -> list[Any]:
        host, start = self._desk.host, -1.0
        plain = json.loads(_json(list(operations)))

        def act() -> Outcome:
            nonlocal start
            now = host.now()
            start = now if start < 0 else start
            self._desk.check_reachable(self._node)
            outcome = host.transact(self._node, database, plain, now - start)
            if outcome.waits is None:
                return outcome
            if now >= start + timeout:
                raise InDoubt(f"{self._node}: no answer within {timeout:g} s: a wait operation still waits")
            raise _Pending(min(now + outcome.waits, start + timeout))

        request = Request("ovsdb", self._node, "transact", _json(plain), timeout)
        results = self._desk.serve(request, act, outcome=_transaction_outcome).results
        # A fresh copy: what is rendered from a column's default is shared between rows.
        return list(json.loads(_json(results)))


def _transaction_outcome(outcome: Outcome) -> str:
    errors = [result for result in outcome.results if result and "error" in result]
    return f"error: {errors[0]['error']}: {errors[0]['details']}" if errors else "ok"


class ServedShell:
    """`ports.NodeShell` of one node of the twin."""

    def __init__(self, desk: Desk, node: str) -> None:
        self._desk = desk
        self._node = node

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Finished:
        def act() -> Finished:
            self._desk.check_reachable(self._node)
            return node_shell.run(self._desk.host, self._node, argv, stdin)

        request = Request("shell", self._node, "run", shlex.join(argv), timeout)
        return self._desk.serve(request, act, outcome=lambda done: "ok" if done.rc == 0 else f"rc {done.rc}")


class ServedClock:
    """`ports.Clock` of the twin. Looking at it is no call; waiting is."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def now(self) -> float:
        if self._desk.host.wall_clock:
            return time.time()
        return float(self._desk.host.store.peek("meta|clock"))

    def wait_until(self, instant: float) -> None:
        def act() -> None:
            if self._desk.host.now() < instant:
                raise _Pending(instant)

        self._desk.serve(Request("clock", "-", "wait", f"{instant:.3f}"), act)


class ServedWorld:
    """`ports.World` of the twin, as one caller sees it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.cluster = ServedCluster(desk)
        self.clock = ServedClock(desk)

    def ovsdb(self, node: str) -> ServedOvsdb:
        self._know(node)
        return ServedOvsdb(self._desk, node)

    def shell(self, node: str) -> ServedShell:
        self._know(node)
        return ServedShell(self._desk, node)

    def _know(self, node: str) -> None:
        if self._desk.host.store.peek(f"ovs|{node}") is None:
            raise Unreachable(f"no such node in the twin: {node}")


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    """What callers may hand in besides lists and dicts: any mapping."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"not plain JSON: {value!r}")


def _copy(body: Body) -> Body:
    copied: Body = json.loads(json.dumps(body))
    return copied
