"""Actions: the vertices of a plan, and the step functions behind them.

An action is data: it can be printed, hashed, stored and compared. What it does is one pure, level-triggered function,
found by `routine` (`name@version`): look at what is there and at what the journal says was done, and say what comes
next. The planner runs it on predicted facts, the executor on real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from plans.checks import Check
from plans.errors import InputError
from plans.facts import Facts, Json
from plans.ops import AnyOp, Op

Disruption = Literal["none", "vm-traffic", "node"]


@dataclass(frozen=True, slots=True)
class Need:
    """An edge of the plan: the action that must be done first, and why."""

    action: str
    reason: str


@dataclass(frozen=True, slots=True)
class Effect:
    """What an action changes, as people read it; `after` may be `(known after apply)`."""

    path: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Invocation:
    """A routine with its arguments: what an undo is."""

    routine: str
    args: Mapping[str, Json]
    reads: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Action:
    """One vertex of the plan. `reads` are the views its step looks at; `rows` the procedure's checklist rows it ticks.

    `uses` names earlier actions whose recorded results its step reads. `deadline` is in seconds, for the whole action.
    """

    id: str
    routine: str
    title: str
    address: str = ""
    node: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    expect: tuple[Check, ...] = ()
    done_when: tuple[Check, ...] = ()
    effects: tuple[Effect, ...] = ()
    ops: tuple[Op, ...] = ()
    contingent: tuple[Op, ...] = ()
    on_failure: tuple[Op, ...] = ()
    undo: tuple[Invocation, ...] = ()
    undo_commands: tuple[str, ...] = ()
    no_undo: str = ""
    disruption: Disruption = "none"
    vms: tuple[str, ...] = ()
    deadline: float = 600.0
    rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Perform:
    """Do these ops now, as one burst: one intent in the journal, no pause between them.

    `unbroken`: what follows belongs to it (an announcement after a move): no stop is honoured in between.
    """

    ops: tuple[AnyOp, ...]
    unbroken: bool = False


@dataclass(frozen=True, slots=True)
class Finished:
    """Nothing more to do. `note` is kept with the step and shown by `status`; `proven` says whether VM traffic was seen."""

    note: str = ""
    proven: bool | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """The action cannot go on. `moved`: because somebody else changed what it relies on. `unsure`: because something
    could not be asked, which may pass: it is asked again for some seconds before the run stops.
    """

    why: str
    moved: bool = False
    unsure: bool = False


Next = Perform | Finished | Stop


@dataclass(frozen=True, slots=True)
class Done:
    """What the journal says of an action so far.

    `outcomes`: label of an op → `done`, `first` (tolerated: somebody else was first), `timed-out` (a wait), `failed`
    or `doubt`. `results`: label → what the op returned. `used`: the same results of the actions named in `uses`.
    `run` identifies the run; `attempts` counts how often each label was begun.
    """

    run: str
    outcomes: Mapping[str, str] = field(default_factory=dict)
    results: Mapping[str, Json] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)
    used: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)

    def has(self, label: str) -> bool:
        """Whether the op of that label is over and done."""
        return self.outcomes.get(label) in ("done", "first")


Step = Callable[[Mapping[str, Any], Facts, Done], Next]
Foresight = Callable[[Mapping[str, Any], Facts], tuple[AnyOp, ...]]


@dataclass(frozen=True, slots=True)
class Routine:
    """The code of an action. `rescue` is stepped through after a failure, before the run stops.

    `contingent` lists ops that `step` may add when the world calls for them (a repair), for the plan to show;
    `on_failure` those that `rescue` may.
    """

    name: str
    step: Step
    rescue: Step | None = None
    contingent: Foresight | None = None
    on_failure: Foresight | None = None


_ROUTINES: dict[str, Routine] = {}


def routine(
    name: str,
    *,
    rescue: Step | None = None,
    contingent: Foresight | None = None,
    on_failure: Foresight | None = None,
) -> Callable[[Step], Step]:
    """Register a step function under `name@version`."""

    def register(step: Step) -> Step:
        _ROUTINES[name] = Routine(name, step, rescue, contingent, on_failure)
        return step

    return register


def find_routine(name: str) -> Routine:
    """The code behind `name@version`. Raises InputError when this version does not know it."""
    found = _ROUTINES.get(name)
    if found is None:
        known = sorted(r for r in _ROUTINES if r.partition("@")[0] == name.partition("@")[0])
        hint = f"it knows {', '.join(known)}" if known else "it knows no such routine"
        raise InputError(
            f"the plan needs routine {name}, which this version of ovsplan lacks ({hint}). Finish it with the version that made it."
        )
    return found
