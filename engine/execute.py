"""Execute: walk an approved plan, one action after the other, and journal every op before and after it.

The promises kept here: an intent is on disk before its op; an action not begun is judged by its `expect`; what is
performed has the shape that the plan showed; a failure stops the line; and whoever comes after a crash asks `step`
again with the facts and what the journal knows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from engine.observe import observe, values
from engine.reach import Failures, Hands, Reporter
from plans.actions import Action, Finished, Perform, Step, Stop, find_routine
from plans.checks import CannotTell, Fails, judge_all
from plans.document import Plan
from plans.errors import ActionFailed, Interrupted, WorldMoved
from plans.facts import Fact, Facts
from plans.ops import READ_ONLY, AnyOp, Record, Wait, fits
from plans.readings import AnyRequest, NoReply, Reply, reading, view_of
from plans.selection import gone
from providers.ports import Clock
from state.journal import Journal, Outcome, Run, StepRow

POLL_SECONDS = 0.5
FIRST_POLL_SECONDS = 0.01
WATCH_SECONDS = 2.0
"""The longest single watch: a signal is noticed after it."""

LOST_LIMIT = 20
"""How often an action may lose a race (its guard failed, a 409) before it gives up."""

DOUBT_LIMIT = 3
UNSURE_LIMIT = 10
"""How often something that could not be asked is asked again, half a second apart, before the run stops."""

BURST_LIMIT = 1000
REPORT_WAIT_SECONDS, REPORT_WAIT_LIMIT = 10.0, 60.0
"""When a wait is first told of; from then on each time that it has become twice as long, at the latest after a minute."""


@dataclass(slots=True)
class Signals:
    """What makes the executor stop after the op in flight: a signal's number, or the reason `why`. Set by the CLI."""

    signum: int | None = None
    why: str = ""


class Executor:
    """Runs one plan to its end, or to where it has to stop."""

    def __init__(
        self,
        hands: Hands,
        failures: Failures,
        clock: Clock,
        journal: Journal,
        run: Run,
        plan: Plan,
        *,
        reporter: Reporter,
        signals: Signals,
        boundary: Callable[[str], None] = lambda _: None,
        guard: Callable[[], None] = lambda: None,
    ) -> None:
        """`boundary` is called, with a name, right after each commit of the journal: tests end the process there.

        `guard` is called before each op that may be put off; what it raises ends the run there, without a rescue.
        """
        self._hands = hands
        self._failures = failures
        self._clock = clock
        self._journal = journal
        self._run = run
        self._plan = plan
        self._reporter = reporter
        self._signals = signals
        self._boundary = boundary
        self._guard = guard
        self._rescuing = False

    def execute(self) -> None:
        """Do every action that is not done yet.

        Raises ActionFailed (resumable), WorldMoved, or Interrupted (resumable). The journal says how the run stands.
        """
        for action in self._plan.actions:
            find_routine(action.routine)
        steps = self._journal.steps(self._run.id)
        left = [a for a in self._plan.actions if not (a.id in steps and steps[a.id].is_done)]
        self._reporter.run_begins(self._run.id, bool(steps), len(left))
        total = len(self._plan.actions)
        position = {a.id: i for i, a in enumerate(self._plan.actions, start=1)}
        for action in left:
            self._stop_if_asked()
            self._one(action, position[action.id], total, steps.get(action.id))
        status = "partial" if self._plan.is_partial else "done"
        self._journal.set_run(self._run.id, status, ended=self._clock.now())
        self._boundary("run-done")

    def _one(self, action: Action, position: int, total: int, earlier: StepRow | None) -> None:
        step = self._journal.begin_step(self._run.id, action.id, self._clock.now())
        self._boundary("step-begun")
        self._reporter.action_begins(position, total, action, step.attempt)
        began = self._clock.now()
        try:
            if earlier is None or not self._was_touched(action):
                self._judge_expect(action)
            end = self._walk(action, step, find_routine(action.routine).step)
            self._judge_done(action)
        except (ActionFailed, WorldMoved) as error:
            text = str(error)
            text += self._rescue(action, step)
            if lost := self._gone(action):
                text = f"{lost} ({text})"
            self._journal.end_step(step, "failed", self._clock.now(), text)
            self._boundary("step-failed")
            self._reporter.action_ends(action, "failed", text, self._clock.now() - began)
            raise type(error)(f"{action.id}: {text}") from error
        self._journal.end_step(step, "done", self._clock.now(), end.note, end.proven)
        self._boundary("step-done")
        self._reporter.action_ends(action, "done", end.note, self._clock.now() - began)

    def _was_touched(self, action: Action) -> bool:
        """Whether any op that changes the world was begun for it before: then `step` judges, not `expect`."""
        looks = {op.__name__.lower() for op in READ_ONLY}
        return any(event.op["op"] not in looks for event in self._journal.events(self._run.id, action.id))

    def _judge_expect(self, action: Action) -> None:
        if not action.expect:
            return
        facts = self._facts_at([check.path for check in (*action.expect, *action.done_when)])
        if action.done_when and not judge_all(action.done_when, facts):
            return  # somebody, or an earlier life of ours, has done it: `step` will find nothing to do
        for verdict in judge_all(action.expect, facts):
            if isinstance(verdict, Fails):
                raise WorldMoved(str(verdict))
            raise ActionFailed(str(verdict))

    def _judge_done(self, action: Action) -> None:
        if not action.done_when:
            return
        missed = judge_all(action.done_when, self._facts_at([check.path for check in action.done_when]))
        if missed:
            raise ActionFailed("its ops are done, and yet " + "; ".join(str(m) for m in missed))

    def _rescue(self, action: Action, step: StepRow) -> str:
        """After a failure: what the plan said would be done then. Its own failure is added to the first one."""
        rescue = find_routine(action.routine).rescue
        if rescue is None:
            return ""
        self._rescuing = True
        try:
            end = self._walk(action, step, rescue)
        except (ActionFailed, WorldMoved) as error:
            return f"; and then: {error}"
        finally:
            self._rescuing = False
        return f"; {end.note}" if end.note else ""

    def _walk(self, action: Action, step: StepRow, routine: Step) -> Finished:
        """Ask `routine` what comes next, and do it, until it is finished. Raises ActionFailed, WorldMoved."""
        planned = (*action.ops, *action.contingent, *action.on_failure)
        lost = doubts = unsure = bursts = 0
        held = False
        began = self._clock.now()
        while True:
            facts = Facts(observe(self._hands, self._clock, action.reads))
            done = self._journal.done(self._run.id, action.id, step.attempt, action.uses)
            upcoming = routine(action.args, facts, done)
            match upcoming:
                case Finished():
                    return upcoming
                case Stop(why=why, moved=True):
                    raise WorldMoved(why)
                case Stop(unsure=True) if unsure < UNSURE_LIMIT:
                    unsure += 1
                    self._clock.wait_until(self._clock.now() + POLL_SECONDS)
                case Stop(why=why):
                    raise ActionFailed(why)
                case Perform(ops=ops):
                    if not held:
                        self._stop_if_asked()
                    held, bursts = upcoming.unbroken, bursts + 1
                    if bursts > BURST_LIMIT + len(planned) or self._clock.now() - began > action.deadline:
                        raise ActionFailed(
                            f"no end after {bursts} bursts and {self._clock.now() - began:.0f} s"
                        )
                    self._as_planned(ops, planned)
                    try:
                        self._burst(action, step, ops)
                    except self._failures.lost as error:
                        lost += 1
                        if lost > LOST_LIMIT:
                            raise ActionFailed(f"lost the race {lost} times; the last: {error}") from error
                    except self._failures.doubtful as error:
                        doubts += 1
                        if doubts > DOUBT_LIMIT:
                            raise ActionFailed(f"no answer {doubts} times; the last: {error}") from error
                    except self._failures.not_done as error:
                        raise ActionFailed(str(error)) from error

    def _as_planned(self, ops: Sequence[AnyOp], planned: Sequence[AnyOp]) -> None:
        """The plan is the whole truth: an op of a shape that it did not show is not performed."""
        for op in ops:
            if not isinstance(op, Wait | Record) and not fits(op, planned):
                raise WorldMoved(
                    f"the world now calls for an op that the approved plan did not show ({op.title}). "
                    "Nothing of it was done: look at the node, then plan again."
                )

    def _burst(self, action: Action, step: StepRow, ops: Sequence[AnyOp]) -> None:
        """One intent, the ops without a pause, one record of their outcomes."""
        ids = self._journal.intent(step, ops, self._clock.now())
        self._boundary("intent")
        for op in ops:
            self._reporter.op_begins(action, op)
        outcomes: list[Outcome] = []
        try:
            for op in ops:
                outcomes.append(self._perform(action, op))
        except (self._failures.lost, self._failures.not_done) as error:
            label = ops[len(outcomes)].label
            outcomes.append(Outcome(label, "failed", message=str(error)))
            raise
        except self._failures.doubtful as error:
            label = ops[len(outcomes)].label
            outcomes.append(Outcome(label, "doubt", message=str(error)))
            raise
        except BaseException:
            # A second interrupt, or a defect: the op in flight may have been done.
            if not isinstance(ops[len(outcomes)], Wait | Record):
                outcomes.append(Outcome(ops[len(outcomes)].label, "doubt"))
            raise
        finally:
            if outcomes:
                self._journal.outcomes(ids, outcomes, self._clock.now())
                self._boundary("outcome")
            for op, outcome in zip(ops, outcomes, strict=False):
                self._reporter.op_ends(action, op, outcome.outcome, outcome.message)

    def _perform(self, action: Action, op: AnyOp) -> Outcome:
        match op:
            case Wait():
                return Outcome(op.label, self._wait(action, op))
            case Record():
                return Outcome(op.label, "done", self._record(action, op))
            case _:
                outcome, result = self._hands.perform(op)
                return Outcome(op.label, outcome, result)

    def _wait(self, action: Action, op: Wait) -> str:
        """`done` when the checks hold or one of `unless` does, else `timed-out`. A signal ends it at once."""
        began = stirred = self._clock.now()
        if op.at_least:
            self._clock.wait_until(began + op.at_least)
        pause, reported, told, most = FIRST_POLL_SECONDS, 0.0, None, 0
        views = sorted({view_of(check.path) for check in (*op.checks, *op.unless)})
        requests = [request for view in views for request in reading(view, began).requests]
        while True:
            facts = Facts(observe(self._hands, self._clock, views))
            missing = judge_all(op.checks, facts)
            if not missing or any(not judge_all([check], facts) for check in op.unless):
                return "done"
            now = self._clock.now()
            come, wanted = _progress(op, facts)
            if come > most:
                most, stirred = come, now
            waited, left = now - began, op.deadline - (now - stirred)
            if left <= 0:
                return "timed-out"
            so_far = f"{come} of {wanted} so far" if wanted else ""
            news = facts.value(op.tells, "") if op.tells else ""
            due = min(max(REPORT_WAIT_SECONDS, reported), REPORT_WAIT_LIMIT)
            if waited - reported >= due or (news and told not in (None, news)):
                reported = waited
                self._reporter.waiting(
                    action, op, "; ".join(filter(None, [_missing(missing), so_far, news])), waited
                )
                if self._gone(action):
                    raise ActionFailed(f"{op.title}: it was waited for {waited:.0f}s")
            told = news
            self._stop_if_asked()
            if pause < POLL_SECONDS or not self._hands.await_news(requests, min(WATCH_SECONDS, left)):
                self._clock.wait_until(self._clock.now() + min(pause, left))
            pause = min(pause * 2, POLL_SECONDS)

    def _record(self, action: Action, op: Record) -> Any:
        """Keep what is there; returns the facts of its views for later steps."""
        replies = self._answers(op, op.requests)
        raw = [{"request": request, "reply": replies[request]} for request in op.requests]
        facts = self._look(op)
        if op.again_after:
            self._clock.wait_until(self._clock.now() + op.again_after)
            facts = {**{f"{path}@first": value for path, value in facts.items()}, **self._look(op)}
        content = {"facts": facts, "raw": raw, "target": self._plan.target}
        digest = self._journal.keep_image(self._run.id, action.id, op.label, content, self._clock.now())
        self._boundary("image")
        return facts if op.views else {"sha256": digest}

    def _look(self, op: Record) -> dict[str, object]:
        """The values of the facts of an op's views. A record with a hole in it is none (H33): raises `not_done`."""
        readings = [reading(view, self._clock.now()) for view in op.views]
        requests = [request for wanted in readings for request in wanted.requests]
        spare = {request for wanted in readings for request in wanted.spare}
        replies = self._answers(op, requests, spare)
        facts: dict[str, Fact] = {}
        for wanted in readings:
            facts.update(wanted.facts([replies[request] for request in wanted.requests]))
        return values(facts)

    def _answers(
        self, op: Record, requests: Sequence[AnyRequest], spare: Collection[AnyRequest] = ()
    ) -> dict[AnyRequest, Reply]:
        """The reply to each request; one that had none is asked again for a while, unless it is `spare`."""
        replies: dict[AnyRequest, Reply] = {}
        missing = list(dict.fromkeys(requests))
        for attempt in range(UNSURE_LIMIT):
            if attempt:
                self._clock.wait_until(self._clock.now() + POLL_SECONDS)
            replies.update(zip(missing, self._hands.ask(missing), strict=True))
            missing = [r for r in missing if isinstance(replies[r], NoReply) and r not in spare]
            if not missing:
                return replies
        why = replies[missing[0]]
        assert isinstance(why, NoReply)
        raise self._failures.not_done(f"could not {op.title}: {why.why}")

    def _facts_at(self, paths: Sequence[str]) -> Facts:
        return Facts(observe(self._hands, self._clock, [view_of(path) for path in paths]))

    def _gone(self, action: Action) -> str:
        """That the node of an action is in the cluster no more; empty when it is, or can't be told."""
        return gone(action.node, Facts(observe(self._hands, self._clock, ["nodes"]))) if action.node else ""

    def _stop_if_asked(self) -> None:
        """Raise Interrupted when a signal or `ovsplan stop` asks for it; a rescue is carried through."""
        self._guard()
        if self._rescuing:
            return
        if self._signals.signum is not None:
            raise Interrupted(
                "interrupted after the op in flight. `ovsplan apply` resumes", self._signals.signum
            )
        if self._signals.why:
            raise Interrupted(
                f"{self._signals.why}: stopped after the op in flight. `ovsplan apply` resumes", 0
            )
        who = self._journal.stop_requested(self._run.id)
        if who is not None:
            raise Interrupted(
                f"stopped by {who} (`ovsplan stop`) after the op in flight. `ovsplan apply` resumes", 0
            )


def _progress(op: Wait, facts: Facts) -> tuple[int, int]:
    """How many of the elements that a wait's progress is judged by have come, and how many it wants."""
    wanted = [element for check in op.checks if check.path == op.progress for element in check.value]
    there = facts.value(op.progress, []) if wanted else []
    return sum(element in there for element in wanted), len(wanted)


def _missing(verdicts: Sequence[Fails | CannotTell]) -> str:
    return "; ".join(v.check.why or str(v) for v in verdicts[:3])
