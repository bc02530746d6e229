"""The generic interpreters: ops and requests of a plan, as plain requests to ports.

One function per op family. They know no kind and decide nothing: what an op means for the plan is for its `step`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from plans.ops import (
    AnyOp,
    Apply,
    CommandRequest,
    Create,
    Delete,
    Edit,
    Exec,
    InContainer,
    ListRequest,
    ObjectRef,
    Patch,
    Run,
    SelectRequest,
    Transact,
)
from plans.readings import AnyRequest, NoReply, Reply, not_served
from providers import ports

DATABASE = "Open_vSwitch"
FIELD_MANAGER = "ovsplan"
TIMEOUT = 30.0
"""Seconds for one request to one port."""

LOOK_TIMEOUT = 5.0
"""Seconds for a command that only looks: a daemon that is busy for longer can't be asked now."""

_KEPT = 2000
"""Characters of what a command in a container says that are kept."""

SETTLE_TIMEOUT = 10.0
"""Seconds for vswitchd to carry out a transaction."""

_Bundle = ListRequest | list[SelectRequest | CommandRequest]


class Lost(Exception):
    """A guard did not hold, or an object was changed since it was read: nothing was done. Read again, decide again."""


class NotDone(Exception):
    """The other side refused, or could not be reached: nothing was done."""


class Doubtful(Exception):
    """The op may have been done or not: observe before deciding."""


@contextmanager
def _translated() -> Iterator[None]:
    """What a port raises, as what it means for the op."""
    try:
        yield
    except (ports.Unreachable, ports.Refused, ports.NotFound, ports.NotServed) as error:
        raise NotDone(str(error)) from error
    except ports.Conflict as error:
        raise Lost(str(error)) from error
    except ports.InDoubt as error:
        raise Doubtful(str(error)) from error


class Interpreter:
    """Performs ops and answers requests on one world. Raises Lost, NotDone, Doubtful."""

    def __init__(self, world: ports.World, lanes: int = 1) -> None:
        """`lanes`: how many ways the world may be asked at once."""
        self._world = world
        self.lanes = lanes
        self._seen: dict[ListRequest, str] = {}

    def ask(self, requests: Sequence[AnyRequest]) -> list[Reply]:
        """The answer to each request, in order, or why there is none. Changes nothing.

        As many are under way at once as the world takes, and those to one node go there together.
        """
        bundles = _bundles(requests)
        if self.lanes <= 1 or len(bundles) <= 1:
            answered = [self._ask(bundle) for bundle in bundles]
        else:
            with ThreadPoolExecutor(min(self.lanes, len(bundles))) as pool:
                answered = list(pool.map(self._ask, bundles))
        replies = {request: reply for replies in answered for request, reply in replies.items()}
        return [replies[request] for request in requests]

    def perform(self, op: AnyOp) -> tuple[str, Any]:
        """Do one op; returns (`done` or `first`, its result)."""
        with _translated():
            return self._perform(op)

    def rehearse(self, op: Patch | Create | Apply | Edit | Delete) -> None:
        """Let the API server judge a write, which it does not carry out. Raises as `perform` does."""
        with _translated():
            self._write(op, dry_run=True)

    def _ask(self, bundle: _Bundle) -> dict[AnyRequest, Reply]:
        if isinstance(bundle, ListRequest):
            return {bundle: self._list(bundle)}
        answers = self._world.ask(bundle[0].node, [_question(request) for request in bundle])
        return {request: _reply(request, answer) for request, answer in zip(bundle, answers, strict=True)}

    def _perform(self, op: AnyOp) -> tuple[str, Any]:
        match op:
            case Transact():
                return self._transact(op)
            case Patch() | Create() | Apply() | Edit() | Delete():
                return self._write(op)
            case Run(node=node, argv=argv):
                finished = self._world.shell(node).run(argv, timeout=TIMEOUT)
                if finished.rc != 0:
                    raise NotDone(
                        f"`{argv[0]} {argv[1] if len(argv) > 1 else ''}` failed with {finished.rc}: {finished.err.strip()[:300]}"
                    )
                return "done", None
            case Exec():
                return "done", self._exec(op)
        raise TypeError(f"{op.op} is not performed by an interpreter")

    def _exec(self, op: Exec) -> dict[str, Any]:
        end = self._world.clock.now() + op.deadline

        def answer(run: InContainer) -> dict[str, Any]:
            left = end - self._world.clock.now()
            if left <= 0:
                return {"why": f"not asked within {op.deadline:g} s"}
            pod = ports.Ref("v1", "Pod", run.pod, run.namespace)
            try:
                done = self._world.cluster.exec(pod, run.container, run.argv, timeout=left)
            except ports.PortError as error:
                return {"why": str(error)}
            return {"rc": done.rc, "out": done.out[:_KEPT], "err": done.err[:_KEPT]}

        with ThreadPoolExecutor(max(1, min(self.lanes, len(op.runs)))) as pool:
            return dict(zip([run.key for run in op.runs], pool.map(answer, op.runs), strict=True))

    def await_news(self, requests: Sequence[AnyRequest], seconds: float) -> bool:
        """Return when something that `requests` ask about has changed, or after `seconds`; True when that was watched.

        False, at once: a watch can't tell, as it is not only objects that are asked for.
        """
        if self.lanes <= 1 or not requests or not all(isinstance(r, ListRequest) for r in requests):
            return False
        request = requests[-1]
        if not isinstance(request, ListRequest) or request not in self._seen:
            return False
        changes = self._world.cluster.watch(
            request.api,
            request.kind,
            since=self._seen[request],
            timeout=seconds,
            **_selectors(request),
        )
        try:
            next(iter(changes), None)
        except ports.PortError:
            return False  # whatever it is, the next look will say so
        return True

    def _list(self, request: ListRequest) -> Reply:
        try:
            listing = self._world.cluster.list(
                request.api,
                request.kind,
                keep=request.keep,
                **_selectors(request),
            )
        except ports.NotServed:
            if request.optional:
                return None
            return not_served(request.api, request.kind)
        except ports.PortError as error:
            return NoReply(str(error))
        self._seen[request] = listing.resource_version
        return list(listing.items)

    def _write(self, op: Patch | Create | Apply | Edit | Delete, *, dry_run: bool = False) -> tuple[str, Any]:
        try:
            made = self._world.cluster.write(_request(op), dry_run=dry_run)
        except (ports.AlreadyExists, ports.NotFound) as error:
            if isinstance(op, Create if isinstance(error, ports.AlreadyExists) else Delete):
                return "first", None
            if isinstance(op, Create) and op.subresource == "eviction":
                return "first", None
            raise
        except ports.Busy as error:
            if isinstance(op, Create) and op.subresource == "eviction":
                return "busy", {"why": str(error)}
            raise
        except ports.Refused as error:
            if isinstance(op, Apply | Edit) and op.again_if and op.again_if in str(error):
                raise Lost(str(error)) from error
            raise
        return "done", {"generation": made["metadata"].get("generation")} if isinstance(op, Apply) else None

    def _transact(self, op: Transact) -> tuple[str, Any]:
        ovsdb = self._world.ovsdb(op.node)
        results = ovsdb.transact(DATABASE, op.operations, timeout=TIMEOUT)
        if problem := _problem(results):
            if op.tolerate and problem.get("error") == op.tolerate:
                return "first", None
            if problem.get("error") == "timed out":
                raise Lost(f"{op.title}: a guard did not hold ({_text(problem)}); nothing was changed")
            raise NotDone(f"{op.title}: {_text(problem)}")
        if op.settle:
            try:
                self._settle(ovsdb, results[len(op.operations) - 1]["rows"][0]["next_cfg"])
            except ports.PortError as error:
                raise Doubtful(
                    f"{op.title}: it is in the database, and then the node was lost: {error}"
                ) from error
        return "done", None

    def _settle(self, ovsdb: ports.Ovsdb, wanted: int) -> None:
        """Wait, in the database itself, until vswitchd has carried out configuration `wanted`."""
        (root,) = ovsdb.transact(
            DATABASE,
            [{"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["_uuid"]}],
            timeout=TIMEOUT,
        )
        wait = {
            "op": "wait", "timeout": int(SETTLE_TIMEOUT * 1000), "table": "Open_vSwitch", "until": "==", "columns": ["_uuid"],
            "where": [["cur_cfg", ">=", wanted]], "rows": root["rows"],
        }  # fmt: skip
        results = ovsdb.transact(DATABASE, [wait], timeout=SETTLE_TIMEOUT + TIMEOUT)
        if _problem(results):
            raise Doubtful(
                f"vswitchd has not carried out configuration {wanted} within {SETTLE_TIMEOUT:g} s: is it running?"
            )


def _bundles(requests: Sequence[AnyRequest]) -> list[_Bundle]:
    """What is asked at one go, in the order of the requests: each list by itself, and all that goes to one node."""
    found: dict[ListRequest | str, _Bundle] = {}
    for request in dict.fromkeys(requests):
        if isinstance(request, ListRequest):
            found[request] = request
        elif isinstance(together := found.setdefault(request.node, []), list):
            together.append(request)
    return list(found.values())


def _selectors(request: ListRequest) -> ports.Selectors:
    return {
        "namespace": request.namespace,
        "labels": dict(request.labels) or None,
        "fields": dict(request.fields) or None,
    }


def _question(request: SelectRequest | CommandRequest) -> ports.Question:
    if isinstance(request, CommandRequest):
        return ports.Command(request.argv, LOOK_TIMEOUT)
    selects = tuple({"op": "select", "table": table, "where": []} for table in request.tables)
    return ports.Transaction(DATABASE, selects, TIMEOUT)


def _reply(request: SelectRequest | CommandRequest, answer: ports.Answer) -> Reply:
    match request, answer:
        case CommandRequest(argv=argv, fine=fine), ports.Finished(rc, out, err):
            return out if rc in fine else NoReply(f"`{' '.join(argv)}` failed with {rc}: {err.strip()[:200]}")
        case SelectRequest(tables=tables), [*results]:
            if problem := _problem(results):
                return NoReply(_text(problem))
            return {table: result["rows"] for table, result in zip(tables, results, strict=False)}
    return NoReply(str(answer))


def _request(op: Patch | Create | Apply | Edit | Delete) -> ports.Write:
    ref = _ref(op.ref)
    match op:
        case Patch(patch=patch, resource_version=version):
            return ports.MergePatch(ref, patch, version)
        case Create(body=body, subresource=subresource):
            return ports.Create(ref, {"apiVersion": op.ref.api, "kind": op.ref.kind, **body}, subresource)
        case Apply(body=body):
            return ports.Apply(ref, body, FIELD_MANAGER)
        case Edit(operations=operations, resource_version=version):
            return ports.JsonPatch(ref, operations, version)
        case Delete(uid=uid):
            return ports.Delete(ref, uid)


def _ref(ref: ObjectRef) -> ports.Ref:
    return ports.Ref(ref.api, ref.kind, ref.name, ref.namespace)


def _problem(results: Sequence[Any]) -> dict[str, Any] | None:
    return next((r for r in results if isinstance(r, dict) and r.get("error")), None)


def _text(problem: dict[str, Any]) -> str:
    return ": ".join(filter(None, [problem.get("error"), problem.get("details")]))
