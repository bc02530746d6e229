"""Restarts: a VM leaves its node by being stopped, and started again where the scheduler puts it.

The one invariant: a VM that was stopped for this is started again, whatever fails and whoever resumes; what it needs
for that is noted on the VM itself (see `power`). The node's cordon sees to it that it starts elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

from plans.actions import Done, Next, Perform, Stop
from plans.checks import judge_all
from plans.facts import ABSENT, KNOWN_AFTER_APPLY, Absent, Facts, Known, Later, Unknown
from plans.maintenance import power
from plans.ops import AnyOp, ObjectRef, Patch, Wait
from plans.readings.cluster import VM


def restart(vm: str, node: str, facts: Facts, done: Done) -> Next | None:
    """The next op that brings the VM off `node`; None when it is up elsewhere, or has left without us."""
    at, cycle = f"machine/{vm}", _cycle(vm, facts, done)
    if (stop := _unreadable(vm, node, facts)) is not None:
        return stop
    here = facts.get(f"vm/{vm}/node") == Known(node)
    if not power.noted(vm, facts):
        return _stop(node, cycle) if here else None
    if facts.value(f"{at}/run") == power.HALTED:
        return _await_gone(node, cycle) or cycle.start()
    if here:
        return Stop(f"VM {vm} was started on {node} by somebody else while it was stopped", moved=True)
    return _await_up(node, cycle) or cycle.restore()


def start_again(vm: str, facts: Facts, done: Done) -> Next | None:
    """After a failure: a VM that was stopped for this is started, and has its run strategy again."""
    up = Wait(
        label=f"again:{vm}", title=f"{vm} up again", checks=power.up_checks(vm), deadline=power.UP_DEADLINE
    )
    return _cycle(vm, facts, done).again(up)


def _cycle(vm: str, facts: Facts, done: Done) -> power.Cycle:
    return power.Cycle(vm, facts, done, power.original(vm, facts), tag=f":{vm}", keep_note=True)


def stop(vm: str, facts: Facts) -> Patch:
    """The op that stops the VM."""
    return power.stop_op(f"stop:{vm}", vm, power.original(vm, facts), facts)


def start(vm: str, facts: Facts) -> Patch:
    """The op that starts it."""
    return power.start_op(f"start:{vm}", vm, power.original(vm, facts), facts, keep_note=True)


def restore(vm: str, facts: Facts) -> Patch:
    """The op that gives it back its run strategy."""
    return power.restore_op(f"restore:{vm}", vm, power.original(vm, facts), facts)


def every_op(vm: str, facts: Facts) -> tuple[AnyOp, ...]:
    """All that a restart may do, for the plan to show."""
    return stop(vm, facts), start(vm, facts), restore(vm, facts)


def of_any(namespace: str, field: str, node: str) -> tuple[AnyOp, ...]:
    """The same three ops for a VM of a namespace that only the run knows, and that says in `field` how it runs."""
    vm = f"{namespace}/VM"
    before = "running=true" if field == "running" else f"runStrategy={KNOWN_AFTER_APPLY}"
    facts = Facts({f"machine/{vm}/field": Known(field)})
    who, at = (
        f"whoever is on {node} by then and leaves by a restart, in {namespace}",
        f"any:{namespace}:{field}",
    )
    ops = {
        f"stop {who}, and note on it how it ran": power.stop_op(f"stop:{at}", vm, before, facts),
        f"start {who}": power.start_op(f"start:{at}", vm, before, facts, keep_note=True),
        f"give {who}, back its run strategy": power.restore_op(f"restore:{at}", vm, before, facts),
    }
    ref = ObjectRef(*VM, KNOWN_AFTER_APPLY, namespace)
    return tuple(replace(op, title=title, ref=ref, changes=()) for title, op in ops.items())


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


def _stop(node: str, cycle: power.Cycle) -> Next:
    vm, run = cycle.vm, cycle.facts.value(f"machine/{cycle.vm}/run")
    if run == power.HALTED:
        return _await_gone(node, cycle) or Stop(f"VM {vm} does not stop", unsure=True)
    if run not in power.STRATEGIES:
        return Stop(
            f"VM {vm} has the run strategy {run}, which this version does not know how to restore", moved=True
        )
    return cycle.stop()


def _await_gone(node: str, cycle: power.Cycle) -> Next | None:
    """A wait for the guest to shut down; None when it is gone."""
    left = [name for name in cycle.facts.value(f"node/{node}/vms", []) if name != cycle.vm]
    return cycle.await_gone(((f"vm/{cycle.vm}/node", ABSENT), (f"node/{node}/vms", Known(left))))


def _await_up(node: str, cycle: power.Cycle) -> Next | None:
    """A wait for the VM to be up elsewhere; None when it is."""
    vm, label = cycle.vm, f"up:{cycle.vm}"
    if not judge_all(power.up_checks(vm), cycle.facts):
        return None
    if cycle.done.outcomes.get(label) == "timed-out":
        phase = cycle.facts.value(f"machine/{vm}/instance") or "no guest"
        return Stop(
            f"VM {vm} was stopped on {node} and is not up elsewhere within {power.UP_DEADLINE:g} s ({phase})"
        )
    landed = Later("the restart", f"a schedulable node other than {node}")
    wait = Wait(
        label=label, title=f"{vm} up on another node", checks=power.up_checks(vm), deadline=power.UP_DEADLINE,
        changes=((f"vm/{vm}/node", landed),),
    )  # fmt: skip
    return Perform((wait,))
