"""A plan as a runbook: commands that a person can run where ovsplan cannot.

`[node]` before a command says on which node; the rest runs where `oc` is.
"""

from __future__ import annotations

from collections.abc import Sequence

from plans.document import Plan
from plans.ops import AnyOp, as_commands


def render_runbook(plan: Plan) -> str:
    """Every action with its preconditions, its commands, what must hold afterwards, and its undo."""
    lines = ["# Runbook of plan " + plan.digest[:12]]
    for number, action in enumerate(plan.actions, start=1):
        lines += ["", f"## {number}. {action.id}: {action.title}"]
        lines += [f"# needs {n.action}: {n.reason}" for n in action.needs]
        lines += [f"# expect: {check}" for check in action.expect]
        lines += [command for op in action.ops for command in as_commands(op)]
        lines += _commented("if needed", action.contingent)
        lines += _commented("on failure", action.on_failure)
        lines += [f"# then: {check}" for check in action.done_when]
        if action.undo_commands:
            lines += ["# undo:", *(f"#   {command}" for command in action.undo_commands)]
        elif action.no_undo:
            lines.append(f"# no undo: {action.no_undo}")
    if plan.afterwards:
        lines += ["", "## Afterwards", *(f"# {sentence}" for sentence in plan.afterwards)]
    return "\n".join(lines)


def _commented(when: str, ops: Sequence[AnyOp]) -> list[str]:
    """What is done only in a case that may not arise."""
    return [f"# {when}: {op.title}" for op in ops]
