"""Rehearsal: which planned writes the API server can judge before anything is done, and what its answers mean.

Pure. Invariant: only a write whose object no earlier op of the plan touches is judged now; of any other, the server
would judge an object that will be another one by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from plans.actions import Action
from plans.document import Finding, canonical
from plans.facts import KNOWN_AFTER_APPLY
from plans.ops import Apply, Create, Delete, Edit, ObjectRef, Patch, Wait

HAZARD = "H63"
MOST = 100
"""How many writes of one sort (verb and kind) are tried: of thousands, the first tell what there is to tell."""

STAND_IN = "known-after-apply"
"""Valid as a name, a label and an annotation."""

WriteOp = Patch | Create | Apply | Edit | Delete


@dataclass(frozen=True, slots=True)
class Trial:
    """One write to be judged, with stand-ins for what only the run will know.

    `after`: what its action waits for before it, so that the server would judge it at another moment than now.
    """

    node: str
    op: WriteOp
    after: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said of a trial: that it would refuse, or why it could not be asked."""

    trial: Trial
    word: Literal["refused", "forbidden", "unasked"]
    why: str


def trials(actions: Iterable[Action]) -> list[Trial]:
    """The writes to try, in the plan's order, each once."""
    touched: set[ObjectRef] = set()
    seen: set[str] = set()
    found: list[Trial] = []
    of_sort: Counter[tuple[str, str]] = Counter()
    for action in actions:
        waited = ""
        for op in action.ops:
            waited = op.title if isinstance(op, Wait) else waited
            if not isinstance(op, WriteOp):
                continue
            sort = (op.op, op.ref.kind)
            if op.ref not in touched and of_sort[sort] < MOST and not _rests_on(op, touched):
                trial = Trial(action.node, _with_stand_ins(op), waited)
                key = canonical(replace(trial.op, label="", title="", commands=()))
                # An eviction is judged by a budget that changes by the minute: its answer now says nothing.
                if key not in seen and not (isinstance(op, Create) and op.subresource):
                    seen.add(key)
                    found.append(trial)
                    of_sort[sort] += 1
            if KNOWN_AFTER_APPLY not in op.ref.name:
                touched.add(op.ref)
    return found


def _rests_on(op: WriteOp, touched: set[ObjectRef]) -> bool:
    """Whether its namespace is made by the plan itself."""
    return op.ref.namespace is not None and ObjectRef("v1", "Namespace", op.ref.namespace) in touched


def _with_stand_ins(op: WriteOp) -> WriteOp:
    ref = replace(op.ref, name=_stand_in(op.ref.name, is_name=True))
    match op:
        case Patch(patch=patch, resource_version=version):
            return replace(op, ref=ref, patch=_stand_in(patch), resource_version=_known(version))
        case Edit(operations=operations, resource_version=version):
            # A test of a value is for the moment of the edit: now it may be another one, and no fault of the plan's.
            kept = tuple(_stand_in(o) for o in operations if o["op"] != "test")
            return replace(op, ref=ref, operations=kept, resource_version=_known(version))
        case Delete(uid=uid):
            return replace(op, ref=ref, uid=_known(uid))
        case Create(body=body) | Apply(body=body):
            return replace(op, ref=ref, body=_named(_stand_in(body), ref.name))


def _named(body: Any, name: str) -> Any:
    metadata = body.get("metadata") or {}
    return {**body, "metadata": {**metadata, "name": name}} if "name" in metadata else body


def _known(text: str | None) -> str | None:
    return None if text is None or KNOWN_AFTER_APPLY in text else text


def _stand_in(value: Any, *, is_name: bool = False) -> Any:
    if isinstance(value, str) and KNOWN_AFTER_APPLY in value:
        return STAND_IN if is_name else value.replace(KNOWN_AFTER_APPLY, STAND_IN)
    if isinstance(value, dict):
        return {key: _stand_in(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_stand_in(inner) for inner in value]
    return value


def findings(answers: Sequence[Answer]) -> list[Finding]:
    """What the answers mean for the plan: a refusal blocks, unless something is awaited before that write; what could not
    be tried is a warning for each kind.
    """
    found = [_refused(answer.trial, answer.why) for answer in answers if answer.word == "refused"]
    untried: dict[tuple[str, str], list[Answer]] = {}
    for answer in answers:
        if answer.word != "refused":
            untried.setdefault((answer.word, answer.trial.op.ref.kind), []).append(answer)
    return found + [_untried(kind, some) for (_, kind), some in untried.items()]


def _refused(trial: Trial, why: str) -> Finding:
    message = f"the API server refuses a planned write: {trial.op.title}: {why}"
    objects = (str(trial.op.ref),)
    if trial.after:
        message += f" (that is now; before it, the run waits for {trial.after})"
        way_out = "nothing to do if what is waited for changes that; else mend what it names"
        return Finding(HAZARD, "warn", trial.node, objects, message, way_out)
    way_out = "mend what it names; accepted, the run will stop there if it is still refused then"
    return Finding(HAZARD, "block", trial.node, objects, message, way_out)


def _untried(kind: str, answers: Sequence[Answer]) -> Finding:
    many = f"{len(answers)} writes" if len(answers) > 1 else "a write"
    way_out = (
        "grant it (the role ovsplan-writer), or have somebody plan who may"
        if answers[0].word == "forbidden"
        else "plan again when the API server answers"
    )
    objects = tuple(sorted({str(answer.trial.op.ref) for answer in answers}))
    return Finding(
        HAZARD,
        "warn",
        "",
        objects,
        f"the API server could not be asked about {many} of {kind}, so whether it would refuse is not known: {answers[0].why}",
        way_out,
    )
