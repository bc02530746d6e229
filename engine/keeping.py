"""Keeping the copy of a run while it goes: when its head is written, and what may not happen before.

Invariant: before an op that changes the world, the head in the cluster has the action as begun, and every result
that was recorded so far. What came after the head was written can be observed, or be repeated without harm: ops
that are found done, objects of deterministic names, and announcements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.copies import RunCopy
from engine.reach import Failures, Hands, Reporter
from plans.actions import Action
from plans.ops import READ_ONLY, AnyOp, Exec, Record
from plans.readings import AnyRequest, Reply
from providers.ports import PortError


class Keeper(Reporter):
    """Stands between the executor and both its hands and its reporter, and writes the copy in between.

    The head is written before the first op of an action that acts, again when something was recorded since, and when
    an action that acted ends.
    """

    def __init__(self, copy: RunCopy, hands: Hands, reporter: Reporter, failures: Failures) -> None:
        self._copy = copy
        self._hands = hands
        self._reporter = reporter
        self._failures = failures
        self._stale = True
        self._acted = False
        self._has_acted = False
        self.trouble = ""
        """Why the copy is not up to date; empty when it is."""

    def ask(self, requests: Sequence[AnyRequest]) -> list[Reply]:
        return self._hands.ask(requests)

    def await_news(self, requests: Sequence[AnyRequest], seconds: float) -> bool:
        return self._hands.await_news(requests, seconds)

    def perform(self, op: AnyOp) -> tuple[str, Any]:
        """Do one op, once the copy has all that an heir would need to know. Raises as the hands do, and Locked."""
        if isinstance(op, READ_ONLY):
            return self._hands.perform(op)
        if self._stale:
            try:
                self._write(images=True)
            except PortError as error:
                raise self._failures.not_done(
                    f"the copy of this run in the cluster could not be written ({error}), and without it nothing is "
                    "begun; `ovsplan apply --no-copy` resumes without one"
                ) from error
        self._acted = self._has_acted = True
        return self._hands.perform(op)

    def keep(self) -> None:
        """Write the head as it stands. A failure is told by `trouble`, and the next op waits for a success."""
        try:
            self._write(images=False)
        except PortError as error:
            self._stale, self.trouble = True, str(error)

    def run_begins(self, run: str, resumed: bool, left: int) -> None:
        self._reporter.run_begins(run, resumed, left)

    def action_begins(self, position: int, total: int, action: Action, attempt: int) -> None:
        self._stale, self._acted = True, False
        self._reporter.action_begins(position, total, action, attempt)

    def op_begins(self, action: Action, op: AnyOp) -> None:
        self._reporter.op_begins(action, op)

    def op_ends(self, action: Action, op: AnyOp, outcome: str, message: str) -> None:
        self._stale = self._stale or isinstance(op, Record | Exec)
        self._reporter.op_ends(action, op, outcome, message)

    def waiting(self, action: Action, op: AnyOp, missing: str, seconds: float) -> None:
        self._reporter.waiting(action, op, missing, seconds)

    def action_ends(self, action: Action, status: str, note: str, seconds: float) -> None:
        if self._acted:
            self.keep()
        elif self._has_acted and all(isinstance(op, READ_ONLY) for op in action.ops):
            self._copy.skip_images()
        self._reporter.action_ends(action, status, note, seconds)

    def _write(self, *, images: bool) -> None:
        self._copy.push(images=images)
        self._stale, self.trouble = False, ""
