"""What a run has left behind, with what takes each away: said wherever a run is looked at or given up."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable

from cli.render.run import half_way, homecoming, uncordon
from cli.verbs.apply import step_states
from cli.wiring import DEFAULT_STATE, Opened
from engine.observe import observe
from plans.document import Plan
from plans.facts import Absent, Facts, Known
from plans.leftovers import Deed, leftovers
from plans.maintenance import inventory
from plans.maintenance.power import HALTED, left_stopped
from plans.nmstate.exports import policies_in
from plans.progress import progress, still_cordoned
from state.journal import Journal, Run


def stopped_vms(journal: Journal, run: Run, plan: Plan, opened: Opened | None) -> list[str]:
    """The VMs that a run has stopped and not started again, as lines. By the journal; with a target, without those that run,
    or are no longer noted as stopped, as it says now.
    """
    over = {name for name, step in journal.steps(run.id).items() if step.status == "done"}
    deeds = [deed for deed in _deeds(journal, run, plan) if deed.action not in over]
    stopped = left_stopped((deed.label, deed.op, deed.outcome) for deed in deeds)
    facts = _machines(stopped, opened)
    return [
        line
        for vm, command in stopped.items()
        if facts is None or _may_be_stopped(vm, facts)
        for line in _lines(f"VM {vm} was stopped by this run, and not started again. What starts it", command)
    ]


def left_behind(journal: Journal, run: Run, plan: Plan, opened: Opened | None, state: str) -> list[str]:
    """All that a run has left which is given up, as lines: cordons, VMs away or stopped, policies, notes and pods."""
    steps = step_states(journal, run.id)
    lines = []
    for node in still_cordoned(plan, steps):
        lines += _lines(f"{node} may still be cordoned by this run. What frees it", uncordon(node))
    lines += stopped_vms(journal, run, plan, opened)
    for node in half_way(progress(plan, steps)):
        if commands := homecoming(node, plan, steps):
            what = f"VMs that this run took off {node}. What brings them back to it, once it is uncordoned"
            lines += _lines(what, *commands)
    where = f" --state {shlex.quote(state)}" if state != DEFAULT_STATE else ""
    export = f"ovsplan show {run.id} --export {{}}{where}"
    found = leftovers(plan, steps, _deeds(journal, run, plan), policies_before(journal, run, plan), export)
    facts = _machines([left.vm for left in found if left.vm], opened)
    for left in found:
        if not left.vm or facts is None or not isinstance(facts.get(f"machine/{left.vm}/recorded"), Absent):
            lines += _lines(left.what, *left.commands)
    return lines


def policies_before(journal: Journal, run: Run, plan: Plan) -> dict[str, dict[str, object]]:
    """The manifests of the policies that were there before the run, each as it was when it was exported last."""
    found: dict[str, dict[str, object]] = {}
    exports = [(action.id, "export") for action in plan.actions if action.routine == "withdraw-policy@1"]
    for action, label in [(inventory.ID, "inventory"), *exports]:
        if image := journal.image(run.id, action, label):
            found |= policies_in(json.loads(image[2]))
    return found


def _deeds(journal: Journal, run: Run, plan: Plan) -> list[Deed]:
    """The ops of a run, in the order in which they were begun."""
    events = [(action.id, event) for action in plan.actions for event in journal.events(run.id, action.id)]
    events.sort(key=lambda one: one[1].intent_at)
    return [Deed(action, event.label, event.op, event.outcome) for action, event in events]


def _machines(vms: Iterable[str], opened: Opened | None) -> Facts | None:
    """What the target says of some VMs; None without one."""
    views = [f"machine:{vm}" for vm in vms]
    return Facts(observe(opened.hands, opened.world.clock, views)) if opened and views else None


def _may_be_stopped(vm: str, facts: Facts) -> bool:
    run, noted = facts.get(f"machine/{vm}/run"), facts.get(f"machine/{vm}/recorded")
    return not isinstance(noted, Absent) and (not isinstance(run, Known) or run.value == HALTED)


def _lines(what: str, *commands: str) -> list[str]:
    return [what + (":" if commands else "."), *(f"  {command}" for command in commands)]
