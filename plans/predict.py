"""Predict: run each action's step function to its end on predicted facts.

That gives the reviewer the ops before they happen, and the later actions the world as the earlier ones leave it. A
wait is taken as come true. What only the run can know stays Later and never blocks planning.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from plans.actions import Action, Done, Effect, Finished, Invocation, Next, Step, Stop, find_routine
from plans.errors import PlanError
from plans.facts import ABSENT, KNOWN_AFTER_APPLY, Draft, Fact, Facts, Known, Later, show
from plans.ops import READ_ONLY, AnyOp, Changes, Op, Record, Wait, as_commands
from plans.readings import view_of

RUN = KNOWN_AFTER_APPLY
"""Stands for the id of the run, which only the run knows."""

MOST_STEPS = 500
"""Of one action; those that await every node do so at one go."""


class _Draft(Draft):
    """A draft that knows the paths of each view. Going through all facts for every record would be quadratic."""

    __slots__ = ("_base", "_paths")

    def __init__(self, base: Facts) -> None:
        super().__init__(base)
        self._paths: defaultdict[str, set[str]] = defaultdict(set)
        self._base = base if isinstance(base, _Draft) else None
        if self._base is None:
            self._note(path for path, _ in base.items())

    def change(self, changes: Iterable[tuple[str, Fact]]) -> None:
        changes = tuple(changes)
        super().change(changes)
        self._note(path for path, _ in changes)

    def paths_of(self, view: str) -> set[str]:
        """The paths that a view tells, here and below."""
        below = self._base.paths_of(view) if self._base is not None else set()
        return below | self._paths.get(view, set())

    def _note(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._paths[view_of(path)].add(path)


def predict(actions: Sequence[Action], facts: Facts) -> list[Action]:
    """The actions with their ops, effects and undo commands, each on the facts that those before it leave.

    Raises PlanError when a step can't reach its end even in prediction.
    """
    draft = _Draft(facts)
    draft.change(
        (f"node/{n}/resource-version", Later("the run", "read at run time"))
        for n in facts.value("cluster/nodes", [])
    )
    results: dict[str, Mapping[str, Any]] = {}
    return [_predict_one(action, draft, results) for action in actions]


def _predict_one(action: Action, draft: _Draft, results: dict[str, Mapping[str, Any]]) -> Action:
    found = find_routine(action.routine)
    used = {name: results.get(name, {}) for name in action.uses}
    contingent = _contingent(action, draft)
    before: dict[str, Fact] = {}
    on_failure: tuple[AnyOp, ...] = found.on_failure(action.args, draft) if found.on_failure else ()
    ops, _ = _play(action.id, found.step, action.args, draft, used, before, results)
    if found.rescue is not None:
        aside = _Draft(draft)
        rescued, _ = _play(f"{action.id} (on failure)", found.rescue, action.args, aside, used, {}, {})
        on_failure += tuple(op for op in rescued if op.label not in {known.label for known in on_failure})
    planned = tuple(_published(op) for op in ops)
    return replace(
        action,
        ops=planned,
        contingent=tuple(_besides(contingent, planned)),
        on_failure=tuple(_published(op) for op in on_failure),
        effects=_effects(before, draft),
        undo_commands=_undo_commands(action, draft),
    )


def _play(
    name: str,
    step: Step,
    args: Mapping[str, Any],
    draft: _Draft,
    used: Mapping[str, Mapping[str, Any]],
    before: dict[str, Fact],
    results: dict[str, Mapping[str, Any]],
) -> tuple[tuple[AnyOp, ...], Next]:
    """Step to the end. Changes `draft`, and notes in `before` what each changed path was."""
    outcomes: dict[str, str] = {}
    attempts: dict[str, int] = {}
    returned: dict[str, Any] = {}
    ops: list[AnyOp] = []
    for _ in range(MOST_STEPS):
        upcoming = step(args, draft, Done(RUN, outcomes, returned, attempts, used))
        if isinstance(upcoming, Stop):
            raise PlanError(f"{name}: {upcoming.why}")
        if isinstance(upcoming, Finished):
            results[name] = returned
            return tuple(ops), upcoming
        for op in upcoming.ops:
            ops.append(op)
            outcomes[op.label] = "done"
            attempts[op.label] = attempts.get(op.label, 0) + 1
            changes = assumed(op)
            for path, _fact in changes:
                before.setdefault(path, draft.get(path))
            draft.change(changes)
            if isinstance(op, Record):
                returned[op.label] = _recorded(op, draft)
    raise PlanError(f"{name}: no end after {MOST_STEPS} steps")


def assumed(op: AnyOp) -> Changes:
    """What an op is believed to change; for a wait, what it waits for."""
    if not isinstance(op, Wait):
        return op.changes
    come_true = [(c.path, Known(c.value)) for c in op.checks if c.test == "eq"]
    gone = [(c.path, ABSENT) for c in op.checks if c.test == "absent"]
    come_true += [(c.path, Known(c.value)) for c in op.checks if c.test == "min"]
    seen: dict[str, list[Any]] = {}
    for check in op.checks:
        if check.test == "has":
            seen.setdefault(check.path, []).extend(check.value)
    come_true += [(path, Known(entries)) for path, entries in seen.items()]
    return (*come_true, *gone, *op.changes)


def _recorded(op: Record, draft: _Draft) -> dict[str, Any]:
    """What a record of views would return: the values of the facts below them, the same at both looks."""
    paths = sorted(path for view in op.views for path in draft.paths_of(view))
    found = {path: fact.value for path in paths if isinstance(fact := draft.get(path), Known)}
    return {**found, **({f"{path}@first": value for path, value in found.items()} if op.again_after else {})}


def _contingent(action: Action, draft: _Draft) -> tuple[AnyOp, ...]:
    found = find_routine(action.routine)
    return found.contingent(action.args, draft) if found.contingent else ()


def _besides(contingent: Sequence[AnyOp], planned: Sequence[AnyOp]) -> list[Op]:
    """Those that do something else than what is planned anyway: under another label it would stand there twice."""
    labels = {op.label for op in planned}
    done = defaultdict(list)
    for op in planned:
        done[op.title].append(replace(op, label=""))
    return [
        op
        for op in map(_published, contingent)
        if op.label not in labels and replace(op, label="") not in done[op.title]
    ]


def _published(op: AnyOp) -> Op:
    """The op as the plan shows it: without the planner's own bookkeeping, run ids replaced by what stands for them."""
    return replace(op, changes=())


def _effects(before: Mapping[str, Fact], after: Facts) -> tuple[Effect, ...]:
    """The changed paths that people can read, from first to last value."""
    effects = []
    for path, old in sorted(before.items()):
        new = after.get(path)
        if (
            path.endswith(("/resource-version", "/ovs", "/ovn-uptime"))
            or _is_bulky(old)
            or _is_bulky(new)
            or old == new
        ):
            continue
        if path.startswith("migration/") or any(part in path for part in ("/fdb/", "/dp/", "/boot/")):
            continue
        effects.append(Effect(path, show(old), show(new)))
    return tuple(effects)


def _is_bulky(fact: Fact) -> bool:
    return isinstance(fact, Known) and isinstance(fact.value, dict)


def _undo_commands(action: Action, after: _Draft) -> tuple[str, ...]:
    """The undo as a person would do it, on the world as the action leaves it."""
    commands: list[str] = []
    for invocation in action.undo:
        commands += _commands_of(action, invocation, after)
    return tuple(commands)


def _commands_of(action: Action, invocation: Invocation, after: _Draft) -> list[str]:
    aside = _Draft(after)
    try:
        ops, _ = _play(
            f"{action.id} (undo)", find_routine(invocation.routine).step, invocation.args, aside, {}, {}, {}
        )
    except PlanError as error:
        return [f"# no commands: {error}"]
    return [command for op in ops if not isinstance(op, READ_ONLY) for command in as_commands(op)]
