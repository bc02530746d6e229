"""Restarts: a VM leaves its node by being stopped, and started again where the scheduler puts it.

The one invariant: a VM that was stopped for this is started again, whatever fails and whoever resumes; what it needs
for that is noted on the VM itself (see `power`). The node's cordon sees to it that it starts elsewhere.
"""

from __future__ import annotations

from plans.actions import Done, Next, Perform, Stop
from plans.checks import Check, judge_all
from plans.facts import ABSENT, Absent, Facts, Known, Later, Unknown
from plans.maintenance import power
from plans.ops import AnyOp, Patch, Wait


def restart(vm: str, node: str, facts: Facts, done: Done) -> Next | None:
    """The next op that brings the VM off `node`; None when it is up elsewhere, or has left without us."""
    at = f"machine/{vm}"
    if (stop := _unreadable(vm, node, facts)) is not None:
        return stop
    here = facts.get(f"vm/{vm}/node") == Known(node)
    if not power.noted(vm, facts):
        return _stop(vm, node, facts, done) if here else None
    if facts.value(f"{at}/run") == power.HALTED:
        return _gone_then_start(vm, node, facts, done)
    if here:
        return Stop(f"VM {vm} was started on {node} by somebody else while it was stopped", moved=True)
    if not _is_up(vm, facts):
        return _await_up(vm, node, facts, done)
    if done.attempts.get(f"restore:{vm}", 0) >= power.TRIES:
        return Stop(f"the run strategy of VM {vm} is changed back each time: somebody else keeps it")
    return Perform((restore(vm, facts),))


def start_again(vm: str, facts: Facts, done: Done) -> Next | None:
    """After a failure: a VM that was stopped for this is started, and has its run strategy again."""
    if not power.noted(vm, facts):
        return None
    if facts.value(f"machine/{vm}/run") == power.HALTED:
        if done.attempts.get(f"start:{vm}", 0) >= power.TRIES:
            return Stop(f"VM {vm} is halted again after each start: somebody else keeps it so")
        return Perform((start(vm, facts),))
    if not _is_up(vm, facts) and f"again:{vm}" not in done.outcomes:
        checks = power.up_checks(vm)
        return Perform(
            (Wait(label=f"again:{vm}", title=f"{vm} up again", checks=checks, deadline=power.UP_DEADLINE),)
        )
    if done.attempts.get(f"restore:{vm}", 0) >= power.TRIES:
        return Stop(f"the run strategy of VM {vm} is changed back each time: somebody else keeps it")
    return Perform((restore(vm, facts),))


def stop(vm: str, facts: Facts) -> Patch:
    """The op that stops the VM."""
    return power.stop_op(f"stop:{vm}", vm, power.original(vm, facts), facts)


def start(vm: str, facts: Facts) -> Patch:
    """The op that starts it. The note stays until it is seen up, so that nobody takes it for done before."""
    return power.start_op(f"start:{vm}", vm, power.original(vm, facts), facts, keep_note=True)


def restore(vm: str, facts: Facts) -> Patch:
    """The op that gives it back its run strategy."""
    return power.restore_op(f"restore:{vm}", vm, power.original(vm, facts), facts)


def every_op(vm: str, facts: Facts) -> tuple[AnyOp, ...]:
    """All that a restart may do, for the plan to show."""
    return stop(vm, facts), start(vm, facts), restore(vm, facts)


def _unreadable(vm: str, node: str, facts: Facts) -> Stop | None:
    for path in (f"machine/{vm}", f"vm/{vm}/node"):
        if isinstance(fact := facts.get(path), Unknown):
            return Stop(f"cannot tell how VM {vm} stands: {fact.why}", unsure=True)
    if isinstance(facts.get(f"machine/{vm}"), Absent) and facts.get(f"vm/{vm}/node") == Known(node):
        return Stop(
            f"{vm} has no VirtualMachine: stopped, nobody would start it again (H14). It is left alone",
            moved=True,
        )
    return None


def _stop(vm: str, node: str, facts: Facts, done: Done) -> Next:
    at = f"machine/{vm}"
    if facts.value(f"{at}/run") == power.HALTED:
        return _await_gone(vm, node, facts, done) or Stop(f"VM {vm} does not stop", unsure=True)
    if facts.value(f"{at}/run") not in power.STRATEGIES:
        return Stop(
            f"VM {vm} has the run strategy {facts.value(f'{at}/run')}, which this version does not know how to restore",
            moved=True,
        )
    if done.attempts.get(f"stop:{vm}", 0) >= power.TRIES:
        return Stop(
            f"VM {vm} was started again {power.TRIES} times: somebody else keeps it running", moved=True
        )
    return Perform((stop(vm, facts),))


def _gone_then_start(vm: str, node: str, facts: Facts, done: Done) -> Next:
    if (wait := _await_gone(vm, node, facts, done)) is not None:
        return wait
    if done.attempts.get(f"start:{vm}", 0) >= power.TRIES:
        return Stop(f"VM {vm} is halted again after each start: somebody else keeps it so", moved=True)
    return Perform((start(vm, facts),))


def _await_gone(vm: str, node: str, facts: Facts, done: Done) -> Next | None:
    """A wait for the guest to shut down; None when it is gone."""
    at, label = f"machine/{vm}/instance", f"gone:{vm}"
    if not isinstance(facts.get(at), Known):
        return None
    if done.outcomes.get(label) == "timed-out":
        return Stop(f"VM {vm} did not shut down within {power.GONE_DEADLINE:g} s: look at its guest")
    left = [name for name in facts.value(f"node/{node}/vms", []) if name != vm]
    changes = ((f"vm/{vm}/node", ABSENT), (f"node/{node}/vms", Known(left)))
    check = Check(at, "absent", why=f"the guest of {vm} is still shutting down")
    return Perform(
        (
            Wait(
                label=label,
                title=f"{vm} shut down",
                checks=(check,),
                deadline=power.GONE_DEADLINE,
                changes=changes,
            ),
        )
    )


def _is_up(vm: str, facts: Facts) -> bool:
    return not judge_all(power.up_checks(vm), facts)


def _await_up(vm: str, node: str, facts: Facts, done: Done) -> Next:
    label = f"up:{vm}"
    if done.outcomes.get(label) == "timed-out":
        phase = facts.value(f"machine/{vm}/instance") or "no guest"
        return Stop(
            f"VM {vm} was stopped on {node} and is not up elsewhere within {power.UP_DEADLINE:g} s ({phase})"
        )
    landed = Later("the restart", f"a schedulable node other than {node}")
    wait = Wait(
        label=label, title=f"{vm} up on another node", checks=power.up_checks(vm), deadline=power.UP_DEADLINE,
        changes=((f"vm/{vm}/node", landed),),
    )  # fmt: skip
    return Perform((wait,))
