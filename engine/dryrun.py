"""Let the API server judge a plan before it is shown. Nothing is stored by it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from engine.reach import Failures
from plans.document import Plan
from plans.rehearsal import Answer, Trial, WriteOp, trials
from providers.ports import Forbidden, NotFound, NotServed, Refused, Unauthorized

AT_ONCE = 16


class Rehearser(Protocol):
    """Has writes judged, as `providers.interpreters.Interpreter` does."""

    def rehearse(self, op: WriteOp) -> None:
        """Have one write judged. Raises as performing it would."""
        ...


def rehearse(hands: Rehearser, failures: Failures, plan: Plan) -> list[Answer]:
    """What the API server has against the plan's writes, in the plan's order; those that it would take say nothing."""
    asked = trials(plan.actions)
    if not asked:
        return []
    with ThreadPoolExecutor(min(AT_ONCE, len(asked))) as pool:
        answers = pool.map(lambda trial: _judged(hands, failures, trial), asked)
        return [answer for answer in answers if answer is not None]


def _judged(hands: Rehearser, failures: Failures, trial: Trial) -> Answer | None:
    try:
        hands.rehearse(trial.op)
    except failures.lost:
        return None  # somebody is at the object right now: the run reads it again before it writes
    except failures.not_done as error:
        match error.__cause__:
            case Forbidden() | Unauthorized():
                return Answer(trial, "forbidden", str(error))
            case Refused() | NotFound() | NotServed():
                return Answer(trial, "refused", str(error))
        return Answer(trial, "unasked", str(error))
    except failures.doubtful as error:
        return Answer(trial, "unasked", str(error))
    return None
