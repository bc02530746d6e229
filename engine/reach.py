"""What the engine needs of the outside, and what it tells those who watch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from plans.actions import Action
from plans.ops import AnyOp
from plans.readings import AnyRequest, Reply


class Hands(Protocol):
    """Asks and performs, as `providers.interpreters.Interpreter` does."""

    def ask(self, requests: Sequence[AnyRequest]) -> list[Reply]:
        """The answer to each, in order, or a NoReply with the reason. Changes nothing."""
        ...

    def await_news(self, requests: Sequence[AnyRequest], seconds: float) -> bool:
        """Return when an answer may be another one, or after `seconds`; False, at once, when that can't be watched."""
        ...

    def perform(self, op: AnyOp) -> tuple[str, Any]:
        """Do one op."""
        ...


class Failures(Protocol):
    """How `Hands.perform` fails: the three exception types, told apart by what may be done next."""

    @property
    def lost(self) -> type[Exception]: ...

    @property
    def not_done(self) -> type[Exception]: ...

    @property
    def doubtful(self) -> type[Exception]: ...


class Reporter:
    """What a run tells while it goes. Every method may be overridden; none returns anything."""

    def run_begins(self, run: str, resumed: bool, left: int) -> None:
        """A run starts, or goes on with `left` actions to do."""

    def action_begins(self, position: int, total: int, action: Action, attempt: int) -> None:
        """An action is about to be stepped."""

    def op_begins(self, action: Action, op: AnyOp) -> None:
        """An op's intent is on disk; it is about to be performed."""

    def op_ends(self, action: Action, op: AnyOp, outcome: str, message: str) -> None:
        """An op is over."""

    def waiting(self, action: Action, op: AnyOp, missing: str, seconds: float) -> None:
        """A wait has lasted `seconds` so far for `missing`."""

    def action_ends(self, action: Action, status: str, note: str, seconds: float) -> None:
        """An action is over: `done`, `failed`, or `already` (nothing was to do)."""
