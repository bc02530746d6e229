"""The executor: judged before it is begun, journalled before it is done, and never more than the plan showed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cli.wiring import Failures
from engine.execute import DOUBT_LIMIT, LOST_LIMIT, UNSURE_LIMIT, Executor, Signals
from engine.reach import Reporter
from plans import actions
from plans.actions import Action, Done, Finished, Next, Perform, Routine, Step, Stop
from plans.checks import Check
from plans.document import FORMAT, NodePlan, Plan, Target, sealed
from plans.errors import ActionFailed, InputError, Interrupted, WorldMoved
from plans.facts import Facts
from plans.ops import AnyOp, ObjectRef, Patch, Record, Wait
from plans.readings import NoReply
from providers.interpreters import Doubtful, Lost, NotDone
from state.journal import Journal, Run
from state.store import Store

RUN = "run-1"
CORDONED = "node/n/unschedulable"


class Nodes:
    """Hands on a world of one node, `n`, that can be cordoned. `faults` are raised by the next ops, None lets one pass.

    `after` is called when an op has been performed, also one whose answer is lost.
    """

    def __init__(self) -> None:
        self.cordoned = False
        self.names = ["n"]
        self.reachable = True
        self.faults: list[Exception | None] = []
        self.performed: list[str] = []
        self.asked = 0
        self.before: Callable[[AnyOp], None] = lambda op: None

    def await_news(self, requests: Any, seconds: float) -> bool:
        return False

    def ask(self, requests: Any) -> Any:
        return [self._reply(request) for request in requests]

    def _reply(self, request: Any) -> Any:
        self.asked += 1
        if not self.reachable:
            return NoReply("no route to host")
        if request.kind == "Lease":
            return []
        assert (request.api, request.kind) == ("v1", "Node")
        spec = {"unschedulable": True} if self.cordoned else {}
        status = {"conditions": [{"type": "Ready", "status": "True"}]}
        return [
            {"metadata": {"name": name, "resourceVersion": "1"}, "spec": spec, "status": status}
            for name in self.names
        ]

    def perform(self, op: AnyOp) -> tuple[str, Any]:
        self.before(op)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Lost | NotDone):
            raise fault
        assert isinstance(op, Patch)
        self.performed.append(op.label)
        self.cordoned = bool(op.patch["spec"]["unschedulable"])
        if fault is not None:
            raise fault
        return "done", None


class Clock:
    """Virtual seconds. `at` runs when an instant is reached."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.at: Callable[[float], None] = lambda instant: None

    def now(self) -> float:
        return self.time

    def wait_until(self, instant: float) -> None:
        self.time = max(self.time, instant)
        self.at(self.time)


class Watcher(Reporter):
    """Notes what the engine tells."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def run_begins(self, run: str, resumed: bool, left: int) -> None:
        self.told.append(("run", resumed, left))

    def action_ends(self, action: Action, status: str, note: str, seconds: float) -> None:
        self.told.append((action.id, status))

    def waiting(self, action: Action, op: AnyOp, missing: str, seconds: float) -> None:
        self.told.append(("waiting", missing))


def cordon(to: bool = True, label: str = "cordon", field: str = "unschedulable") -> Patch:
    return Patch(label=label, title=label, ref=ObjectRef("v1", "Node", "n"), patch={"spec": {field: to}})


def action(name: str, *ops: AnyOp, **more: Any) -> Action:
    return Action(
        id=name, routine=f"{name}@1", title=name, reads=("nodes",), ops=ops, no_undo="a test", **more
    )


def until(value: bool, op: AnyOp) -> Step:
    """Perform `op` until the node is (un)cordoned."""

    def step(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
        return Finished("it is") if facts.value(CORDONED) is value else Perform((op,))

    return step


class Bench:
    """A journal, a world and what is needed to execute plans of made-up routines in them."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hands, self.clock, self.watcher, self.signals = Nodes(), Clock(), Watcher(), Signals()
        self.journal = Journal(store)
        self._monkeypatch = monkeypatch
        self.boundaries: list[str] = []
        self.boundary: Callable[[str], None] = self.boundaries.append

    def routine(self, name: str, step: Step, rescue: Step | None = None) -> None:
        self._monkeypatch.setitem(actions._ROUTINES, f"{name}@1", Routine(f"{name}@1", step, rescue))

    def begin(self, *steps: Action, partial: bool = False) -> Run:
        lost = NodePlan("m", "", "", "", (), (), (), (), (), (), "no route to host")
        plan = sealed(Plan(FORMAT, Target("c", "SIMULATED"), "d", (lost,) if partial else (), (), steps))
        return self.journal.start_run(plan, RUN, self.clock.now(), "ann", "0")

    def go_on(self) -> None:
        run = self.journal.find_run(RUN)
        Executor(
            self.hands, Failures(), self.clock, self.journal, run, self.journal.plan_of(run),
            reporter=self.watcher, signals=self.signals, boundary=self.boundary,
        ).execute()  # fmt: skip

    def execute(self, *steps: Action) -> None:
        self.begin(*steps)
        self.go_on()

    def status(self, name: str) -> str:
        return self.journal.steps(RUN)[name].status

    def outcomes(self, name: str) -> list[tuple[str, str | None]]:
        return [(e.label, e.outcome) for e in self.journal.events(RUN, name)]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    store = Store(tmp_path / "state.db", "c", create=True)
    yield Bench(store, monkeypatch)
    store.close()


def test_a_plan_is_carried_out_and_the_run_is_done(bench: Bench) -> None:
    bench.routine("cordon", until(True, cordon()))
    bench.execute(action("cordon", cordon()))
    assert bench.hands.cordoned
    assert bench.outcomes("cordon") == [("cordon", "done")]
    assert bench.journal.steps(RUN)["cordon"].note == "it is"
    run = bench.journal.find_run(RUN)
    assert (run.status, run.ended) == ("done", bench.clock.now())


def test_a_run_that_leaves_a_blocked_node_out_ends_as_partial(bench: Bench) -> None:
    bench.routine("cordon", until(True, cordon()))
    bench.begin(action("cordon", cordon()), partial=True)
    bench.go_on()
    assert bench.journal.find_run(RUN).status == "partial"


def test_the_intent_is_on_disk_before_the_op(bench: Bench) -> None:
    seen: list[Any] = []
    bench.hands.before = lambda op: seen.append(bench.outcomes("cordon"))
    bench.routine("cordon", until(True, cordon()))
    bench.execute(action("cordon", cordon()))
    assert seen == [[("cordon", None)]]
    assert bench.boundaries == ["step-begun", "intent", "outcome", "step-done", "run-done"]


def test_an_expectation_that_fails_stops_the_line_with_both_values(bench: Bench) -> None:
    bench.routine("cordon", until(True, cordon()))
    bench.hands.cordoned = True
    with pytest.raises(WorldMoved) as moved:
        bench.execute(action("cordon", cordon(), expect=(Check(CORDONED, "eq", False, "H19"),)))
    assert str(moved.value) == f"cordon: expected: {CORDONED} is no; found: yes (H19)"
    assert (bench.hands.performed, bench.status("cordon")) == ([], "failed")


def test_an_expectation_that_cannot_be_judged_stops_without_blaming_anybody(bench: Bench) -> None:
    bench.routine("cordon", until(True, cordon()))
    bench.begin(action("cordon", cordon(), expect=(Check(CORDONED, "eq", False),)))
    bench.hands.reachable = False
    with pytest.raises(ActionFailed, match=r"cannot tell whether .*: no route to host"):
        bench.go_on()
    assert bench.hands.performed == []


def test_what_somebody_has_done_already_needs_no_expectation(bench: Bench) -> None:
    bench.routine("cordon", until(True, cordon()))
    bench.hands.cordoned = True
    done = (Check(CORDONED, "eq", True),)
    bench.execute(action("cordon", cordon(), expect=(Check(CORDONED, "eq", False),), done_when=done))
    assert (bench.hands.performed, bench.status("cordon")) == ([], "done")


def test_later_actions_are_not_begun_after_one_that_stopped(bench: Bench) -> None:
    bench.routine("first", lambda args, facts, done: Stop("no room"))
    bench.routine("second", until(True, cordon()))
    with pytest.raises(ActionFailed, match=r"^first: no room$"):
        bench.execute(action("first"), action("second", cordon()))
    assert list(bench.journal.steps(RUN)) == ["first"]
    assert bench.hands.performed == []


@pytest.mark.parametrize(
    "other", [cordon(field="taints"), Patch(label="x", title="x", ref=ObjectRef("v1", "Node", "m"), patch={"spec": {"unschedulable": True}})]
)  # fmt: skip
def test_an_op_of_a_shape_that_the_plan_did_not_show_is_not_performed(bench: Bench, other: Patch) -> None:
    bench.routine("cordon", until(True, other))
    with pytest.raises(
        WorldMoved, match=r"an op that the approved plan did not show .*Nothing of it was done"
    ):
        bench.execute(action("cordon", cordon()))
    assert (bench.hands.performed, bench.outcomes("cordon")) == ([], [])


def test_a_burst_with_one_op_too_many_is_not_begun_at_all(bench: Bench) -> None:
    bench.routine("cordon", lambda args, facts, done: Perform((cordon(), cordon(field="taints"))))
    with pytest.raises(WorldMoved):
        bench.execute(action("cordon", cordon()))
    assert bench.hands.performed == []


def test_what_the_plan_showed_as_needed_perhaps_may_be_done(bench: Bench) -> None:
    bench.routine("cordon", until(True, cordon()))
    bench.execute(action("cordon", contingent=(cordon(),)))
    assert bench.hands.cordoned


def test_a_lost_race_is_run_again_on_fresh_facts(bench: Bench) -> None:
    bench.hands.faults = [Lost("a guard did not hold"), Lost("again")]
    bench.routine("cordon", until(True, cordon()))
    bench.execute(action("cordon", cordon()))
    assert bench.outcomes("cordon") == [("cordon", "failed"), ("cordon", "failed"), ("cordon", "done")]


def test_a_race_that_is_always_lost_is_given_up(bench: Bench) -> None:
    bench.hands.faults = [Lost(f"guard {n}") for n in range(100)]
    bench.routine("cordon", until(True, cordon()))
    with pytest.raises(
        ActionFailed, match=f"lost the race {LOST_LIMIT + 1} times; the last: guard {LOST_LIMIT}"
    ):
        bench.execute(action("cordon", cordon()))


def test_an_op_in_doubt_is_looked_for_and_not_repeated_when_it_is_there(bench: Bench) -> None:
    bench.hands.faults = [Doubtful("no answer")]
    bench.routine("cordon", until(True, cordon()))
    bench.execute(action("cordon", cordon()))
    assert bench.hands.performed == ["cordon"]
    assert bench.outcomes("cordon") == [("cordon", "doubt")]
    assert bench.status("cordon") == "done"


def test_a_silence_that_lasts_is_given_up(bench: Bench) -> None:
    bench.hands.faults = [Doubtful(f"no answer {n}") for n in range(100)]
    bench.routine("cordon", lambda args, facts, done: Perform((cordon(),)))
    with pytest.raises(
        ActionFailed, match=f"no answer {DOUBT_LIMIT + 1} times; the last: no answer {DOUBT_LIMIT}"
    ):
        bench.execute(action("cordon", cordon()))


def test_a_refusal_stops_and_what_came_after_it_in_the_burst_is_not_begun(bench: Bench) -> None:
    bench.hands.faults = [None, NotDone("denied by a webhook")]
    burst = (cordon(label="one"), cordon(label="two"), cordon(label="three"))
    bench.routine("cordon", lambda args, facts, done: Perform(burst))
    with pytest.raises(ActionFailed, match=r"^cordon: denied by a webhook$"):
        bench.execute(action("cordon", *burst))
    assert bench.outcomes("cordon") == [("one", "done"), ("two", "failed"), ("three", "not-begun")]


def test_an_action_that_ends_without_its_effect_has_failed(bench: Bench) -> None:
    bench.routine("cordon", lambda args, facts, done: Finished())
    with pytest.raises(
        ActionFailed, match=f"its ops are done, and yet expected: {CORDONED} is yes; found: no"
    ):
        bench.execute(action("cordon", done_when=(Check(CORDONED, "eq", True),)))


def test_a_failure_is_followed_by_its_rescue_and_both_are_told(bench: Bench) -> None:
    def rescue(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
        return Finished("the node is cordoned") if facts.value(CORDONED) else Perform((cordon(),))

    bench.routine("prove", lambda args, facts, done: Stop("web-1 is not heard"), rescue)
    with pytest.raises(ActionFailed, match=r"^prove: web-1 is not heard; the node is cordoned$"):
        bench.execute(action("prove", on_failure=(cordon(),)))
    assert bench.hands.cordoned
    assert bench.journal.steps(RUN)["prove"].note == "web-1 is not heard; the node is cordoned"


def test_a_rescue_that_fails_too_does_not_hide_the_first_failure(bench: Bench) -> None:
    bench.hands.faults = [NotDone("denied")]
    bench.routine("prove", lambda args, facts, done: Stop("not heard"), until(True, cordon()))
    with pytest.raises(ActionFailed, match=r"^prove: not heard; and then: denied$"):
        bench.execute(action("prove", on_failure=(cordon(),)))


def test_it_is_also_rescued_when_the_world_moved(bench: Bench) -> None:
    bench.routine("prove", lambda args, facts, done: Stop("moved", moved=True), until(True, cordon()))
    with pytest.raises(WorldMoved):
        bench.execute(action("prove", on_failure=(cordon(),)))
    assert bench.hands.cordoned


def test_a_run_that_stopped_goes_on_where_it_stopped(bench: Bench) -> None:
    first_time = [True]

    def unsure(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
        return Stop("no answer") if first_time else Finished()

    bench.routine("cordon", until(True, cordon()))
    bench.routine("second", unsure)
    with pytest.raises(ActionFailed):
        bench.execute(action("cordon", cordon()), action("second"))
    first_time.clear()
    bench.hands.cordoned = False
    bench.go_on()
    assert bench.hands.performed == ["cordon"], "what is done is not done again"
    assert bench.watcher.told[-2:] == [("run", True, 1), ("second", "done")]


@pytest.mark.parametrize("where", ["step-begun", "intent", "outcome"])
def test_a_process_that_dies_anywhere_is_resumed_to_the_same_end(bench: Bench, where: str) -> None:
    class Death(BaseException):
        pass

    def die(boundary: str) -> None:
        if boundary == where:
            raise Death

    bench.routine("cordon", until(True, cordon()))
    bench.begin(action("cordon", cordon(), expect=(Check(CORDONED, "eq", False),)))
    bench.boundary = die
    with pytest.raises(Death):
        bench.go_on()
    bench.boundary = lambda boundary: None
    bench.go_on()
    assert bench.hands.performed == ["cordon"]
    assert (bench.hands.cordoned, bench.status("cordon")) == (True, "done")


def test_an_action_that_was_begun_is_not_judged_by_its_expectation_again(bench: Bench) -> None:
    """Its own progress is no foreign change: half of a move makes its own precondition false."""
    bench.hands.faults = [None, NotDone("no room")]

    def step(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
        return Finished() if done.has("two") else Perform((cordon(label="one"), cordon(label="two")))

    bench.routine("cordon", step)
    with pytest.raises(ActionFailed):
        bench.execute(action("cordon", cordon(), expect=(Check(CORDONED, "eq", False),)))
    bench.go_on()
    assert bench.status("cordon") == "done"


def test_an_action_that_changed_nothing_yet_is_judged_by_its_expectation_again(bench: Bench) -> None:
    bench.routine("cordon", until(True, cordon()))
    bench.begin(action("cordon", cordon(), expect=(Check(CORDONED, "eq", False),)))
    bench.hands.reachable = False
    with pytest.raises(ActionFailed):
        bench.go_on()
    bench.hands.reachable, bench.hands.cordoned = True, True
    with pytest.raises(WorldMoved, match="found: yes"):
        bench.go_on()
    assert bench.hands.performed == []


def test_what_cannot_be_told_is_asked_again_for_a_while(bench: Bench) -> None:
    asked: list[float] = []

    def step(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
        asked.append(bench.clock.now())
        return Stop("no answer", unsure=True)

    bench.routine("cordon", step)
    with pytest.raises(ActionFailed, match="no answer"):
        bench.execute(action("cordon"))
    assert len(asked) == UNSURE_LIMIT + 1 and asked[-1] > asked[0]


def test_a_step_that_comes_to_no_end_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.execute.BURST_LIMIT", 5)
    calls: list[Done] = []

    def step(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
        calls.append(done)
        assert len(calls) < 20
        return Perform((cordon(),))

    bench.routine("cordon", step)
    with pytest.raises(ActionFailed, match="no end after"):
        bench.execute(action("cordon", cordon()))


def test_a_rescue_is_carried_through_whoever_asks_to_stop(bench: Bench) -> None:
    bench.hands.cordoned = True

    def asked(name: str) -> None:
        if name == "step-begun":
            bench.journal.request_stop(RUN, "bob", 1.0)

    bench.boundary = asked
    bench.routine("cordon", lambda args, facts, done: Stop("broken"), until(False, cordon(False, "back")))
    with pytest.raises(ActionFailed, match="broken; it is"):
        bench.execute(action("cordon", cordon(), on_failure=(cordon(False, "back"),)))
    assert bench.hands.performed == ["back"] and not bench.hands.cordoned


def test_a_routine_that_is_missing_stops_the_run_before_its_first_op(bench: Bench) -> None:
    bench.routine("cordon", until(True, cordon()))
    bench.begin(action("cordon", cordon()), action("convert"))
    with pytest.raises(InputError, match="needs routine convert@1"):
        bench.go_on()
    assert (bench.hands.performed, bench.journal.steps(RUN)) == ([], {})


def test_a_signal_stops_before_the_next_op_and_nothing_is_half_done(bench: Bench) -> None:
    def interrupt(op: AnyOp) -> None:
        bench.signals.signum = 2

    bench.hands.before = interrupt
    bench.routine("first", until(True, cordon()))
    bench.routine("second", until(False, cordon(False)))
    with pytest.raises(Interrupted) as stopped:
        bench.execute(action("first", cordon()), action("second", cordon(False)))
    assert (stopped.value.signum, bench.hands.performed) == (2, ["cordon"])
    assert bench.outcomes("first") == [("cordon", "done")]


def test_a_request_from_another_terminal_stops_and_names_who_asked(bench: Bench) -> None:
    bench.routine("cordon", until(True, cordon()))
    bench.begin(action("cordon", cordon()))
    bench.journal.request_stop(RUN, "bob", 1.0)
    with pytest.raises(Interrupted, match=r"^stopped by bob \(`ovsplan stop`\)"):
        bench.go_on()
    assert bench.hands.performed == []


def waiting(deadline: float = 60.0, unless: tuple[Check, ...] = ()) -> Wait:
    checks = (Check(CORDONED, "eq", True, "it is being cordoned"),)
    return Wait(label="w", title="w", checks=checks, deadline=deadline, unless=unless)


def wait_once(wait: Wait) -> Step:
    def step(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
        return Finished(done.outcomes["w"]) if "w" in done.outcomes else Perform((wait,))

    return step


def test_a_wait_ends_when_its_checks_hold(bench: Bench) -> None:
    def later(instant: float) -> None:
        bench.hands.cordoned = instant > 1030

    bench.clock.at = later
    bench.routine("wait", wait_once(waiting()))
    bench.execute(action("wait"))
    assert bench.journal.steps(RUN)["wait"].note == "done"
    assert 1030 < bench.clock.time < 1031
    assert ("waiting", "it is being cordoned") in bench.watcher.told


def test_a_wait_in_vain_ends_at_its_deadline_and_is_for_the_step_to_judge(bench: Bench) -> None:
    bench.routine("wait", wait_once(waiting(deadline=7.0)))
    bench.execute(action("wait"))
    assert bench.journal.steps(RUN)["wait"].note == "timed-out"
    assert bench.clock.time == pytest.approx(1007.0)


@pytest.mark.parametrize(("last", "end", "note"), [(1100.0, 1100.0, "done"), (9999.0, 1110.0, "timed-out")])
def test_the_deadline_of_a_wait_begins_anew_while_it_gets_on(
    bench: Bench, last: float, end: float, note: str
) -> None:
    def come(instant: float) -> None:
        bench.hands.names = ["n", *(["m"] if instant >= 1050 else []), *(["o"] if instant >= last else [])]

    bench.clock.at = come
    check = Check("cluster/nodes", "has", ["n", "m", "o"], "not all are there")
    wait = Wait(label="w", title="w", checks=(check,), deadline=60.0, progress=check.path)
    bench.routine("wait", wait_once(wait))
    bench.execute(action("wait"))
    assert bench.journal.steps(RUN)["wait"].note == note
    assert bench.clock.time == pytest.approx(end, abs=1)
    assert ("waiting", "not all are there; 1 of 3 so far") in bench.watcher.told
    assert ("waiting", "not all are there; 2 of 3 so far") in bench.watcher.told


def test_a_wait_ends_at_once_when_it_can_only_be_in_vain(bench: Bench) -> None:
    bench.routine("wait", wait_once(waiting(unless=(Check("node/n/ready", "eq", True),))))
    bench.execute(action("wait"))
    assert bench.clock.time == 1000.0


def test_a_signal_ends_a_wait(bench: Bench) -> None:
    def interrupt(instant: float) -> None:
        bench.signals.signum = 15

    bench.clock.at = interrupt
    bench.routine("wait", wait_once(waiting()))
    with pytest.raises(Interrupted) as stopped:
        bench.execute(action("wait"))
    assert stopped.value.signum == 15 and bench.clock.time < 1001


def test_a_record_is_kept_for_good_and_given_to_the_step(bench: Bench) -> None:
    seen: list[Any] = []

    def step(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
        if "before" in done.results:
            seen.append(done.results["before"])
            return Finished()
        return Perform((Record(label="before", title="r", views=("nodes",), again_after=3.0),))

    def later(instant: float) -> None:
        bench.hands.cordoned = True

    bench.clock.at = later
    bench.routine("look", step)
    bench.execute(action("look"))
    assert (seen[0][f"{CORDONED}@first"], seen[0][CORDONED]) == (False, True)
    assert bench.clock.time == 1003.0
    image = bench.journal.image(RUN, "look", "before")
    assert image is not None and f'"{CORDONED}":true' in image[2]
