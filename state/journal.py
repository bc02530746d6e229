"""The record of runs: what was approved, begun, and done.

The unit is the op. Its intent is committed, and on disk, before it is performed (one intent for a burst of ops);
its outcome after. An op with an intent and no outcome is in doubt, and whoever resumes must look at the world.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from plans.actions import Done
from plans.document import Plan, canonical, read
from plans.errors import InputError, JournalError
from plans.ops import READ_ONLY, AnyOp
from state import schema
from state.lock import Lock, note, who_am_i
from state.store import Store

UNFINISHED = ("running", "stopped", "failed", "moved")

FORGOTTEN_OPS = ("wait", "run")
"""Ops whose outcome means nothing to a later attempt: what a wait saw may no longer be so, and what a command announced
may have been overtaken. Both may be repeated without harm."""


@dataclass(frozen=True, slots=True)
class Run:
    """One apply of one plan. Times are by the target's clock."""

    id: str
    plan: str
    status: str
    began: float
    ended: float | None
    who: str
    message: str
    source: str


@dataclass(frozen=True, slots=True)
class StepRow:
    """The latest attempt of one action in a run."""

    id: int
    action: str
    attempt: int
    status: str
    began: float
    ended: float | None
    note: str
    proven: bool | None

    @property
    def is_done(self) -> bool:
        """Whether the action is over and needn't run again."""
        return self.status in ("done", "marked-done")


@dataclass(frozen=True, slots=True)
class EventRow:
    """One op of a step. `outcome` is None while it is in doubt."""

    label: str
    op: Mapping[str, Any]
    intent_at: float
    outcome: str | None
    outcome_at: float | None
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one op."""

    label: str
    outcome: str
    result: Any = None
    message: str = ""


class Journal:
    """The record of runs in a store. With a lock, every write is fenced by it."""

    def __init__(self, store: Store, lock: Lock | None = None) -> None:
        self._store = store
        self._lock = lock

    # Reading.

    def runs(self) -> list[Run]:
        """Every run, the newest first. Reads only."""
        with self._store.read() as db:
            return [_run(row) for row in db.execute(select(schema.runs).order_by(schema.runs.c.seq.desc()))]

    def find_run(self, name: str) -> Run:
        """The run of that id, or of an unambiguous beginning of it. Raises InputError."""
        found = [run for run in self.runs() if run.id == name] or [
            run for run in self.runs() if run.id.startswith(name)
        ]
        if len(found) != 1:
            known = ", ".join(run.id for run in self.runs()[:5]) or "none"
            raise InputError(
                f"{'no' if not found else 'more than one'} run {name!r} in {self._store.path}; the latest: {known}"
            )
        return found[0]

    def unfinished(self) -> Run | None:
        """The run that is not over, if there is one. Reads only."""
        return next((run for run in self.runs() if run.status in UNFINISHED), None)

    def plan_of(self, run: Run) -> Plan:
        """The approved plan of a run."""
        with self._store.read() as db:
            text = db.execute(
                select(schema.plans.c.document).where(schema.plans.c.digest == run.plan)
            ).scalar_one_or_none()
        if text is None:
            raise JournalError(
                f"{self._store.path} has run {run.id} and not its plan: the database was damaged or edited."
            )
        return read(text, f"{self._store.path} (run {run.id})")

    def steps(self, run: str) -> dict[str, StepRow]:
        """The latest attempt of each action that was begun. Reads only."""
        with self._store.read() as db:
            rows = db.execute(
                select(schema.steps).where(schema.steps.c.run == run).order_by(schema.steps.c.id)
            )
            return {row.action: _step(row) for row in rows}

    def events(self, run: str, action: str) -> list[EventRow]:
        """Every op of an action in a run, in order, all attempts. Reads only."""
        s, e = schema.steps.c, schema.events.c
        query = (
            select(schema.events)
            .join(schema.steps, s.id == e.step)
            .where(s.run == run, s.action == action)
            .order_by(e.id)
        )
        with self._store.read() as db:
            return [
                EventRow(r.label, json.loads(r.op), r.intent_at, r.outcome, r.outcome_at, r.message)
                for r in db.execute(query)
            ]

    def acted(self, run: str) -> dict[str, list[str]]:
        """The actions of which an op that changes the world was done, or may have been, and its labels. Reads only."""
        s, e = schema.steps.c, schema.events.c
        query = (
            select(s.action, e.label, e.op)
            .join(schema.steps, s.id == e.step)
            .where(s.run == run, (e.outcome.in_(("done", "first", "doubt"))) | (e.outcome.is_(None)))
            .order_by(e.id)
        )
        read_only = {op.__name__.lower() for op in READ_ONLY}
        found: dict[str, list[str]] = {}
        with self._store.read() as db:
            for row in db.execute(query):
                if json.loads(row.op)["op"] not in read_only:
                    found.setdefault(row.action, []).append(row.label)
        return found

    def done(self, run: str, action: str, attempt: int, uses: Iterable[str] = ()) -> Done:
        """What the journal says of an action, for its step function. Reads only.

        Of earlier attempts only what is certain and lasting counts, and what is in doubt and may have changed the
        world. A wait that came true then may be false now, and a failure then says nothing of now. Nothing counts
        that lies before a person's word that the action is not done.
        """
        outcomes: dict[str, str] = {}
        results: dict[str, Any] = {}
        attempts: dict[str, int] = {}
        s, e = schema.steps.c, schema.events.c
        mine = (s.run == run, s.action == action)
        query = (
            select(e.label, e.outcome, e.result, e.op, s.attempt)
            .join(schema.steps, s.id == e.step)
            .where(*mine, s.attempt > self._since(run, action))
            .order_by(e.id)
        )
        with self._store.read() as db:
            for row in db.execute(query):
                current = row.attempt == attempt
                op = json.loads(row.op)["op"]
                lasting = row.outcome in ("done", "first") and op not in FORGOTTEN_OPS
                doubtful = row.outcome in (None, "doubt") and op not in (*FORGOTTEN_OPS, "record")
                if current or lasting or doubtful:
                    outcomes[row.label] = row.outcome or "doubt"
                    if row.result is not None:
                        results[row.label] = json.loads(row.result)
                if current:
                    attempts[row.label] = attempts.get(row.label, 0) + 1
        used = {name: dict(self.done(run, name, 0).results) for name in uses}
        return Done(run, outcomes, results, attempts, used)

    def _since(self, run: str, action: str) -> int:
        """The attempt up to which nothing counts: the latest at which a person said that it is not done."""
        s = schema.steps.c
        query = select(func.max(s.attempt)).where(
            s.run == run, s.action == action, s.status == "marked-not-done"
        )
        with self._store.read() as db:
            return int(db.execute(query).scalar() or 0)

    def image(self, run: str, action: str, label: str) -> tuple[float, str, str] | None:
        """A before-image: when it was taken, its hash, its content. Reads only."""
        i = schema.images.c
        query = (
            select(i.taken_at, i.sha256, i.content)
            .where(i.run == run, i.action == action, i.label == label)
            .order_by(i.id)
        )
        with self._store.read() as db:
            row = db.execute(query).first()
        if row is None:
            return None
        if hashlib.sha256(row.content.encode()).hexdigest() != row.sha256:
            raise JournalError(
                f"the before-image {label} of {action} in {self._store.path} does not fit its hash: it was tampered with."
            )
        return row.taken_at, row.sha256, row.content

    def stop_requested(self, run: str) -> str | None:
        """Who asked this run to stop, if anybody did. Reads only."""
        with self._store.read() as db:
            found = db.execute(
                select(schema.stop_requests.c.who).where(schema.stop_requests.c.run == run)
            ).scalar_one_or_none()
        return None if found is None else str(found)

    # Writing. Each commits, and is on disk, before it returns.

    def start_run(self, plan: Plan, run: str, now: float, who: str, version: str, source: str = "") -> Run:
        """Record a new run of a plan; `source` are the paths that it came from, a line each. Raises JournalError while another is unfinished."""
        with self._write() as db:
            blocked = db.execute(
                select(schema.runs.c.id).where(schema.runs.c.status.in_(UNFINISHED))
            ).scalar()
            if blocked is not None:
                raise JournalError(
                    f"run {blocked} is not finished: `ovsplan apply` resumes it, `ovsplan abandon {blocked}` gives it up."
                )
            if (
                db.execute(select(schema.plans.c.digest).where(schema.plans.c.digest == plan.digest)).first()
                is None
            ):
                db.execute(insert(schema.plans).values(digest=plan.digest, document=canonical(plan)))
            seq = (db.execute(select(func.max(schema.runs.c.seq))).scalar() or 0) + 1
            db.execute(
                insert(schema.runs).values(
                    id=run,
                    plan=plan.digest,
                    status="running",
                    began=now,
                    who=who,
                    version=version,
                    message="",
                    source=source,
                    seq=seq,
                )
            )
        return self.find_run(run)

    def set_run(self, run: str, status: str, message: str = "", ended: float | None = None) -> None:
        """Record how a run stands."""
        with self._write() as db:
            db.execute(
                update(schema.runs)
                .where(schema.runs.c.id == run)
                .values(status=status, message=message, ended=ended)
            )
            if status == "running":
                db.execute(schema.stop_requests.delete().where(schema.stop_requests.c.run == run))

    def begin_step(self, run: str, action: str, now: float) -> StepRow:
        """Record that an action begins; an earlier attempt of it stays as it was."""
        with self._write() as db:
            s = schema.steps.c
            last = (
                db.execute(select(func.max(s.attempt)).where(s.run == run, s.action == action)).scalar() or 0
            )
            key = db.execute(
                insert(schema.steps).values(
                    run=run, action=action, attempt=last + 1, status="begun", began=now, note=""
                )
            ).inserted_primary_key
        assert key is not None
        return StepRow(int(key[0]), action, last + 1, "begun", now, None, "", None)

    def end_step(
        self, step: StepRow, status: str, now: float, text: str = "", proven: bool | None = None
    ) -> None:
        """Record how an attempt ended."""
        with self._write() as db:
            db.execute(
                update(schema.steps)
                .where(schema.steps.c.id == step.id)
                .values(status=status, ended=now, note=text, proven=None if proven is None else int(proven))
            )

    def intent(self, step: StepRow, ops: Sequence[AnyOp], now: float) -> list[int]:
        """Record that these ops are about to be performed, as one burst."""
        with self._write() as db:
            burst = (db.execute(select(func.max(schema.events.c.id))).scalar() or 0) + 1
            ids = []
            for op in ops:
                result = db.execute(
                    insert(schema.events).values(
                        step=step.id,
                        burst=burst,
                        label=op.label,
                        op=canonical(op),
                        intent_at=now,
                        message="",
                    )
                )
                key = result.inserted_primary_key
                assert key is not None
                ids.append(int(key[0]))
            return ids

    def outcomes(self, ids: Sequence[int], outcomes: Sequence[Outcome], now: float) -> None:
        """Record what came of the ops of a burst. Ops of the burst that were not reached have none, and get `not-begun`."""
        with self._write() as db:
            for position, event_id in enumerate(ids):
                found = outcomes[position] if position < len(outcomes) else Outcome("", "not-begun")
                db.execute(
                    update(schema.events)
                    .where(schema.events.c.id == event_id)
                    .values(
                        outcome=found.outcome,
                        outcome_at=now,
                        result=None if found.result is None else canonical(found.result),
                        message=found.message,
                    )
                )

    def keep_image(self, run: str, action: str, label: str, content: Any, now: float) -> str:
        """Keep a before-image for good; returns its SHA-256."""
        text = canonical(content)
        digest = hashlib.sha256(text.encode()).hexdigest()
        with self._write() as db:
            db.execute(
                insert(schema.images).values(
                    run=run, action=action, label=label, taken_at=now, sha256=digest, content=text
                )
            )
        return digest

    def mark(self, run: str, action: str, status: str, reason: str, now: float) -> None:
        """Record a person's word on an action, with who it was: `marked-done` or `marked-not-done`."""
        with self._store.write() as db:
            s = schema.steps.c
            last = (
                db.execute(select(func.max(s.attempt)).where(s.run == run, s.action == action)).scalar() or 0
            )
            db.execute(
                insert(schema.steps).values(
                    run=run,
                    action=action,
                    attempt=last + 1,
                    status=status,
                    began=now,
                    ended=now,
                    note=f"{who_am_i()}: {reason}",
                )
            )
            note(db, f"mark {action} of run {run} {status.removeprefix('marked-')}: {reason}")

    def request_stop(self, run: str, who: str, now: float) -> None:
        """Ask the process that runs this run to stop before its next op."""
        with self._store.write() as db:
            if (
                db.execute(
                    select(schema.stop_requests.c.run).where(schema.stop_requests.c.run == run)
                ).first()
                is None
            ):
                db.execute(insert(schema.stop_requests).values(run=run, who=who, at=now))

    def abandon(self, run: str, reason: str, now: float) -> None:
        """Give a run up: it is never resumed."""
        with self._store.write() as db:
            db.execute(
                update(schema.runs)
                .where(schema.runs.c.id == run)
                .values(status="abandoned", message=reason, ended=now)
            )
            note(db, f"abandon run {run}: {reason}")

    def _write(self) -> _Fenced:
        return _Fenced(self._store, self._lock)


class _Fenced:
    """A write transaction that fails when the lock is no longer ours."""

    def __init__(self, store: Store, lock: Lock | None) -> None:
        self._context = store.write()
        self._lock = lock

    def __enter__(self) -> Any:
        db = self._context.__enter__()
        try:
            if self._lock is not None:
                self._lock.fence(db)
        except BaseException as error:
            self._context.__exit__(type(error), error, error.__traceback__)
            raise
        return db

    def __exit__(self, *problem: Any) -> bool | None:
        return self._context.__exit__(*problem)


def _run(row: Row[Any]) -> Run:
    return Run(row.id, row.plan, row.status, row.began, row.ended, row.who, row.message, row.source)


def _step(row: Row[Any]) -> StepRow:
    proven = None if row.proven is None else bool(row.proven)
    return StepRow(row.id, row.action, row.attempt, row.status, row.began, row.ended, row.note, proven)
