"""Power: stopping a VM and starting it again, with the run strategy that it had (H16).

The one invariant: how a VM ran is noted on the VM itself in the same patch that stops it, and the note goes in the
same patch that gives the strategy back. So whoever comes after a crash, with our journal or without, can finish it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plans.actions import Done, Next, Perform, Stop
from plans.checks import Check, judge_all
from plans.facts import ABSENT, Facts, Known
from plans.ops import Changes, ObjectRef, Patch, Wait
from plans.readings.cluster import VM
from plans.readings.machines import RUN_STRATEGY

HALTED, ALWAYS = "Halted", "Always"
STRATEGIES = (ALWAYS, HALTED, "Manual", "RerunOnFailure", "Once")
NOTES = ("running=true", *(f"runStrategy={name}" for name in STRATEGIES if name != HALTED))
"""What ovsplan notes on a VM that it stops."""

TRIES = 3
"""How often a VM that somebody else changes back is written."""

GONE_DEADLINE = 300.0
"""Seconds for a guest to shut down; KubeVirt kills it after its grace period, 180 s where nobody says otherwise."""

UP_DEADLINE = 600.0
"""Seconds for a VM to run again, its volumes attached."""


def noted(vm: str, facts: Facts) -> str:
    """What was noted on the VM when it was stopped; empty when it was not."""
    return str(facts.value(f"machine/{vm}/recorded") or "")


def original(vm: str, facts: Facts) -> str:
    """How the VM is to run afterwards: as it was noted, else as it does now; `runStrategy=Manual`, `running=true`."""
    if left := noted(vm, facts):
        return left
    field, run = facts.value(f"machine/{vm}/field"), facts.value(f"machine/{vm}/run")
    return f"running={'true' if run == ALWAYS else 'false'}" if field == "running" else f"runStrategy={run}"


def is_always(before: str) -> bool:
    """Whether a VM that ran so is started for good by `start_op` alone."""
    return before in (f"runStrategy={ALWAYS}", "running=true")


def up_checks(vm: str) -> tuple[Check, ...]:
    """What holds of a VM that is up."""
    at = f"machine/{vm}"
    return (
        Check(f"{at}/instance", "eq", "Running", f"{vm} does not run yet"),
        Check(f"{at}/ready", "eq", True, f"{vm} is not ready yet"),
    )


def stop_op(label: str, vm: str, before: str, facts: Facts) -> Patch:
    """Stop the VM, and note on it how it ran."""
    at = f"machine/{vm}"
    patch = {"metadata": {"annotations": {RUN_STRATEGY: before}}, "spec": _spec(vm, HALTED, facts)}
    changes: Changes = ((f"{at}/run", Known(HALTED)), (f"{at}/recorded", Known(before)))
    return patch_op(label, f"stop {vm}, and note on it that it had {before}", vm, patch, facts, changes)


def start_op(label: str, vm: str, before: str, facts: Facts, *, keep_note: bool = False) -> Patch:
    """Start the VM as Always, whatever it had: Halted alone starts nothing, and Manual waits for a request.

    For a VM that had Always nothing else is left to do: its note goes at once, unless `keep_note`.
    """
    at = f"machine/{vm}"
    patch: dict[str, Any] = {"spec": _spec(vm, ALWAYS, facts)}
    changes: Changes = ((f"{at}/run", Known(ALWAYS)),)
    if is_always(before) and not keep_note:
        patch["metadata"] = {"annotations": {RUN_STRATEGY: None}}
        changes = (*changes, (f"{at}/recorded", ABSENT))
    return patch_op(label, f"start {vm}", vm, patch, facts, changes)


def restore_op(label: str, vm: str, before: str, facts: Facts) -> Patch:
    """Give the VM back its run strategy, and take the note away."""
    at, run = f"machine/{vm}", before.partition("=")[2]
    run = {"true": ALWAYS, "false": HALTED}.get(run, run)
    spec = _spec(vm, run, facts)
    patch = {"metadata": {"annotations": {RUN_STRATEGY: None}}, "spec": spec}
    field = "runStrategy" if "runStrategy" in spec else "running"
    changes: Changes = (
        (f"{at}/run", Known(run)),
        (f"{at}/field", Known(field)),
        (f"{at}/recorded", ABSENT),
    )
    return patch_op(label, f"give {vm} back its run strategy {before}", vm, patch, facts, changes)


@dataclass(frozen=True, slots=True)
class Cycle:
    """One stop and start of a VM, step by step, from what is there and from what its action did so far.

    `tag` tells its ops from those for the other VMs of the action, `before` is how the VM is to run afterwards,
    `tries` how often it is written when somebody else changes it back, `patience` the seconds that its guest is given
    to shut down. `keep_note`: the note stays until the VM is seen up, so that nobody takes it for done before.
    """

    vm: str
    facts: Facts
    done: Done
    before: str
    tag: str = ""
    tries: int = TRIES
    patience: float = GONE_DEADLINE
    keep_note: bool = False

    def stop(self) -> Next:
        """Stop it, and note how it runs now."""
        if self._spent("stop"):
            why = f"VM {self.vm} was started again {self.tries} times: somebody else keeps it running"
            return Stop(why, moved=True)
        now = original(self.vm, self.facts)
        return Perform((stop_op(f"stop{self.tag}", self.vm, now, self.facts),))

    def await_gone(self, changes: Changes) -> Next | None:
        """A wait for its guest to shut down, which changes what is given; None when there is no guest."""
        at, label = f"machine/{self.vm}/instance", f"gone{self.tag}"
        if not isinstance(self.facts.get(at), Known):
            return None
        if self.done.outcomes.get(label) == "timed-out":
            return Stop(f"VM {self.vm} did not shut down within {self.patience:g} s: look at its guest")
        gone = Check(at, "absent", why=f"the guest of {self.vm} is still shutting down")
        title = f"{self.vm} shut down"
        return Perform(
            (Wait(label=label, title=title, checks=(gone,), deadline=self.patience, changes=changes),)
        )

    def start(self) -> Next:
        """Start it."""
        if self._spent("start"):
            why = f"VM {self.vm} is halted again after each start: somebody else keeps it so"
            return Stop(why, moved=True)
        op = start_op(f"start{self.tag}", self.vm, self.before, self.facts, keep_note=self.keep_note)
        return Perform((op,))

    def restore(self) -> Next:
        """Give it back its run strategy."""
        if self._spent("restore"):
            why = f"the run strategy of VM {self.vm} is changed back each time: somebody else keeps it"
            return Stop(why)
        return Perform((restore_op(f"restore{self.tag}", self.vm, self.before, self.facts),))

    def again(self, up: Wait) -> Next | None:
        """After a failure: a VM that was stopped is started, awaited once, and has its run strategy again.

        None when there is nothing to do: it was not stopped, or somebody else has said meanwhile how it is to run.
        """
        run = self.facts.value(f"machine/{self.vm}/run")
        if not noted(self.vm, self.facts) or run not in (HALTED, ALWAYS):
            return None
        if run == HALTED:
            return self.start()
        if judge_all(up.checks, self.facts) and up.label not in self.done.outcomes:
            return Perform((up,))
        return self.restore()

    def _spent(self, word: str) -> bool:
        return self.done.attempts.get(f"{word}{self.tag}", 0) >= self.tries


Events = Iterable[tuple[str, Mapping[str, Any], str | None]]
"""Ops as the journal has them: label, op, outcome; in order."""


def left_stopped(events: Events) -> dict[str, str]:
    """The VMs whose last op of these stopped them, or may have: each with the command that makes it run as it did."""
    found: dict[str, str] = {}
    for word, vm, op, outcome in _of_vms(events):
        if word == "stop" and outcome != "failed":
            found[vm] = _by_hand(vm, op["patch"]["metadata"]["annotations"][RUN_STRATEGY])
        elif word == "start" and outcome in ("done", "first"):
            found.pop(vm, None)
    return found


def left_noted(events: Events) -> dict[str, str]:
    """The VMs that these ops stopped and started, and whose note may still be on them: each with the command that gives
    it back its run strategy, and takes the note away.
    """
    events = list(events)
    stopped = left_stopped(events)
    found: dict[str, str] = {}
    for _, vm, op, outcome in _of_vms(events):
        notes = op["patch"].get("metadata", {}).get("annotations", {})
        if notes.get(RUN_STRATEGY) and outcome != "failed":
            found[vm] = _restore(vm, notes[RUN_STRATEGY])
        elif RUN_STRATEGY in notes and outcome in ("done", "first"):
            found.pop(vm, None)
    return {vm: command for vm, command in found.items() if vm not in stopped}


def _of_vms(events: Events) -> Iterator[tuple[str, str, Mapping[str, Any], str | None]]:
    """The patches of VMs: the first word of the label, the VM, the op and its outcome."""
    for label, op, outcome in events:
        ref = op.get("ref") or {}
        if op.get("op") == "patch" and ref.get("kind") == VM[1]:
            yield label.partition(":")[0], f"{ref['namespace']}/{ref['name']}", op, outcome


def _by_hand(vm: str, before: str) -> str:
    namespace, _, name = vm.partition("/")
    command = _restore(vm, before)
    return f"{command}; virtctl start {name} -n {namespace}" if before.endswith("=Manual") else command


def _restore(vm: str, before: str) -> str:
    facts = Facts({f"machine/{vm}/field": Known(before.partition("=")[0])})
    (command,) = restore_op("restore", vm, before, facts).commands
    return command


def patch_op(
    label: str, title: str, vm: str, patch: Mapping[str, Any], facts: Facts, changes: Changes
) -> Patch:
    """A merge patch of a VirtualMachine, at the version that `facts` know."""
    namespace, _, name = vm.partition("/")
    command = (
        f"oc patch vm {name} -n {namespace} --type merge -p {shlex.quote(json.dumps(patch, sort_keys=True))}"
    )
    return Patch(
        label=label, title=title, ref=ObjectRef(*VM, name, namespace), patch=patch,
        resource_version=facts.value(f"machine/{vm}/version"), commands=(command,), changes=changes,
    )  # fmt: skip


def _spec(vm: str, run: str, facts: Facts) -> dict[str, Any]:
    """What makes the VM run as `run`, in the field that it uses now: the server refuses both fields in one VM (H16).

    Somebody may have moved it from one field to the other since it was stopped. `running` can say Always and Halted
    only; for what it can't say, it gives way.
    """
    if facts.value(f"machine/{vm}/field") != "running":
        return {"runStrategy": run}
    return {"running": run == ALWAYS} if run in (ALWAYS, HALTED) else {"running": None, "runStrategy": run}
