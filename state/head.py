"""The head of a run: what another store needs to go on with it, as one JSON value, and back.

Invariant: a store that takes a head in gives the same answers about what is still to do as the one that gave it out.
Of what is done, only how it ended is kept, and those results that actions still to come will read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select

from plans.document import FORMAT as PLAN_FORMAT
from plans.document import Plan, canonical
from plans.errors import InputError, JournalError
from plans.ops import READ_ONLY
from state import schema
from state.journal import FORGOTTEN_OPS, Run
from state.store import Store

FORMAT = 1
_READ_ONLY = {op.__name__.lower() for op in READ_ONLY}
_OVER = ("done", "marked-done")
_STEP = ("action", "attempt", "status", "began", "ended", "note", "proven")
_EVENT = ("burst", "label", "intent_at", "outcome", "outcome_at", "result", "message")
_OP = ("op", "title", "ref", "patch")
"""Of an op: what it is, and what it was done to. What a patch says tells what it may have left there."""

_RUN = ("id", "plan", "status", "began", "ended", "who", "version", "message")


@dataclass(frozen=True, slots=True)
class Image:
    """A before-image as it is kept. `id` grows in the order of the taking."""

    id: int
    action: str
    label: str
    taken_at: float
    sha256: str
    content: str


class Heads:
    """The heads of one run, one after the other. What is over is looked up once: a head costs what is under way."""

    def __init__(self, store: Store, run: Run, plan: Plan) -> None:
        self._store = store
        self._run = run
        self._plan = plan
        self._acts: dict[str, list[dict[str, Any]]] = {}

    def now(self) -> dict[str, Any]:
        """The head as the run stands now. Reads only."""
        s = schema.steps
        with self._store.read() as db:
            row = db.execute(select(schema.runs).where(schema.runs.c.id == self._run.id)).one()
            steps = db.execute(select(s).where(s.c.run == self._run.id).order_by(s.c.id)).all()
            latest = {step.action: step for step in steps}
            over = {name for name, step in latest.items() if step.status in _OVER}
            events = self._events(db, [name for name in latest if name not in over], over)
        told = {(event["action"], event["attempt"]) for event in events}
        kept = [step for step in steps if _is_kept(step, step is latest[step.action], over, told)]
        return {
            "format": FORMAT,
            "plan_format": PLAN_FORMAT,
            "run": {name: getattr(row, name) for name in _RUN},
            "steps": [{name: getattr(step, name) for name in _STEP} for step in kept],
            "events": events,
        }

    def _events(self, db: Connection, open_: Collection[str], over: Collection[str]) -> list[dict[str, Any]]:
        read = {name for name in _still_read(self._plan, over) if name in over}
        fresh = [name for name in over if name not in self._acts]
        rows = _events_of(db, self._run.id, {*open_, *read, *fresh})
        self._acts |= {name: [] for name in fresh}
        for row in rows:
            # Of an action that is over, one op says that it acted.
            if row.action in over and not self._acts[row.action] and _acts(row):
                self._acts[row.action] = [_slim(row)]
        found = [
            _slim(row) for row in rows if row.action in open_ or (row.action in read and _is_result(row))
        ]
        found += [event for name in over for event in self._acts[name]]
        by_id = {event["id"]: event for event in found}
        return [by_id[key] for key in sorted(by_id)]


def head_of(store: Store, run: Run, plan: Plan) -> dict[str, Any]:
    """The head of a run as it stands now. Reads only."""
    return Heads(store, run, plan).now()


def _is_kept(
    step: Row[Any], is_latest: bool, over: Collection[str], told: Collection[tuple[str, int]]
) -> bool:
    """Of an action that is over: its end, and the attempts whose ops are told, or void by a person's word."""
    return (
        step.action not in over
        or is_latest
        or step.status == "marked-not-done"
        or (step.action, step.attempt) in told
    )


def _still_read(plan: Plan, over: Collection[str]) -> set[str]:
    """The actions whose recorded results an action still to come will read."""
    return {name for action in plan.actions if action.id not in over for name in action.uses}


def _events_of(db: Connection, run: str, actions: Collection[str]) -> Sequence[Row[Any]]:
    s, e = schema.steps.c, schema.events
    query = (
        select(e, s.action, s.attempt)
        .join(schema.steps, s.id == e.c.step)
        .where(s.run == run, s.action.in_(sorted(actions)))
        .order_by(e.c.id)
    )
    return db.execute(query).all()


def _acts(row: Row[Any]) -> bool:
    """Whether an op changed the world, or may have."""
    return json.loads(row.op)["op"] not in _READ_ONLY and row.outcome in ("done", "first", "doubt", None)


def _is_result(row: Row[Any]) -> bool:
    """Whether a later action may read what came of an op."""
    return row.result is not None and json.loads(row.op)["op"] not in FORGOTTEN_OPS


def _slim(row: Row[Any]) -> dict[str, Any]:
    op = json.loads(row.op)
    return {
        "id": row.id,
        "action": row.action,
        "attempt": row.attempt,
        "op": {"title": row.label, **{name: op[name] for name in _OP if name in op}},
        **{name: getattr(row, name) for name in _EVENT},
    }


def images_after(store: Store, run: str, after: int) -> list[Image]:
    """The before-images of a run that were taken after the one of that id. Reads only."""
    i = schema.images
    with store.read() as db:
        rows = db.execute(select(i).where(i.c.run == run, i.c.id > after).order_by(i.c.id))
        return [Image(r.id, r.action, r.label, r.taken_at, r.sha256, r.content) for r in rows]


def version_in(head: Mapping[str, Any]) -> str:
    """The version of ovsplan that made a head."""
    return str((head.get("run") or {}).get("version", "of an unknown version"))


def check(head: Mapping[str, Any], where: str) -> None:
    """Raise InputError for a head that this version can't go on with; it says which can."""
    wrong = [
        f"{what} {head.get(key)} (this version knows {known})"
        for what, key, known in (("format", "format", FORMAT), ("plan format", "plan_format", PLAN_FORMAT))
        if head.get(key) != known
    ]
    if wrong:
        raise InputError(
            f"{where} was made by ovsplan {version_in(head)}, with {' and '.join(wrong)}. "
            f"Finish that run with ovsplan {version_in(head)}."
        )


def take_in(store: Store, head: Mapping[str, Any], plan: str, images: Sequence[Image], source: str) -> str:
    """Write a run into a store as its head tells it, over what the store had of it; returns its id. Raises JournalError."""
    try:
        with store.write() as db:
            return _taken_in(db, head, plan, images, source)
    except (KeyError, TypeError, AttributeError) as error:
        raise JournalError(
            f"the head of the run makes no sense ({type(error).__name__}: {error}): nothing was restored."
        ) from error


def _taken_in(
    db: Connection, head: Mapping[str, Any], plan: str, images: Sequence[Image], source: str
) -> str:
    run = head["run"]
    name = str(run["id"])
    known = db.execute(select(schema.runs).where(schema.runs.c.id == name)).one_or_none()
    _forget(db, name)
    if db.execute(select(schema.plans.c.digest).where(schema.plans.c.digest == run["plan"])).first() is None:
        db.execute(insert(schema.plans).values(digest=run["plan"], document=plan))
    seq = known.seq if known else (db.execute(select(func.max(schema.runs.c.seq))).scalar() or 0) + 1
    row = {key: run[key] for key in _RUN}
    db.execute(insert(schema.runs).values(**row, source=known.source if known else source, seq=seq))
    ids = {}
    for step in head["steps"]:
        made = db.execute(insert(schema.steps).values(run=name, **{key: step[key] for key in _STEP}))
        assert made.inserted_primary_key is not None
        ids[step["action"], step["attempt"]] = int(made.inserted_primary_key[0])
    for event in head["events"]:
        values = {key: event[key] for key in _EVENT}
        step_id = ids[event["action"], event["attempt"]]
        db.execute(insert(schema.events).values(step=step_id, op=canonical(event["op"]), **values))
    _keep_images(db, name, images)
    return name


def _forget(db: Connection, run: str) -> None:
    mine = select(schema.steps.c.id).where(schema.steps.c.run == run)
    db.execute(delete(schema.events).where(schema.events.c.step.in_(mine)))
    db.execute(delete(schema.steps).where(schema.steps.c.run == run))
    db.execute(delete(schema.runs).where(schema.runs.c.id == run))


def _keep_images(db: Connection, run: str, images: Sequence[Image]) -> None:
    i = schema.images.c
    known = {
        (row.action, row.label, row.sha256)
        for row in db.execute(select(i.action, i.label, i.sha256).where(i.run == run))
    }
    for image in images:
        if hashlib.sha256(image.content.encode()).hexdigest() != image.sha256:
            raise JournalError(
                f"the before-image {image.label} of {image.action} does not fit its hash: it was tampered with."
            )
        if (image.action, image.label, image.sha256) not in known:
            values = {
                key: getattr(image, key) for key in ("action", "label", "taken_at", "sha256", "content")
            }
            db.execute(insert(schema.images).values(run=run, **values))
