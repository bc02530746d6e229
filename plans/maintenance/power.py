"""Power: stopping a VM and starting it again, with the run strategy that it had (H16).

The one invariant: how a VM ran is noted on the VM itself in the same patch that stops it, and the note goes in the
same patch that gives the strategy back. So whoever comes after a crash, with our journal or without, can finish it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from plans.checks import Check
from plans.facts import ABSENT, Facts, Known
from plans.ops import Changes, ObjectRef, Patch
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
