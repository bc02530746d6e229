"""Latecomers: VMs that come to a node between the plan and its evacuation, off a node before it or by themselves.

Invariant: they leave as the rollout says of them, each by its own entry or else by the default; what that may take is
shown in the plan by a rule, for who they are only the run knows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from plans.actions import Done
from plans.facts import KNOWN_AFTER_APPLY, Facts, Known
from plans.guests import networks_of
from plans.maintenance import restarts
from plans.ops import AnyOp, Create, ObjectRef
from plans.readings.cluster import VMIM


def way(vm: str, args: Mapping[str, Any]) -> str:
    """How a VM leaves the node of an evacuation, or that it stays."""
    if vm in args["staying"]:
        return "stay"
    ways = args.get("ways", {})
    return str(ways.get("vms", {}).get(vm, _default(args)))


def by_restart(args: Mapping[str, Any], here: Collection[str], done: Done) -> list[str]:
    """Whom the evacuation restarts: those that the plan names, those here that leave so, and those that it stopped."""
    named = args.get("restarting", ())
    return sorted({*named, *(vm for vm in here if way(vm, args) == "restart"), *_stopped(done)})


def _stopped(done: Done) -> Iterable[str]:
    labels = (*done.outcomes, *done.attempts)
    return (label.removeprefix("stop:") for label in labels if label.startswith("stop:"))


def _default(args: Mapping[str, Any]) -> str:
    return str(args.get("ways", {}).get("default", "live-migrate"))


def foreseen(args: Mapping[str, Any], facts: Facts, here: Collection[str]) -> tuple[AnyOp, ...]:
    """What may have to be done with latecomers, for the plan to show."""
    known = [vm for vm in _named(args) if isinstance(facts.get(f"machine/{vm}"), Known)]
    return (
        *_migrations(args, facts, here),
        *(op for vm in known for op in restarts.every_op(vm, facts)),
        *(op for space, field in _spaces(args) for op in restarts.of_any(space, field, args["node"])),
    )


def starts_again(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    """What starts again, after a failure, whoever was stopped."""
    vms = sorted({*args.get("restarting", ()), *_named(args)})
    known = [vm for vm in vms if isinstance(facts.get(f"machine/{vm}"), Known)]
    return (
        *(op for vm in known for op in (restarts.start(vm, facts), restarts.restore(vm, facts))),
        *(op for space, field in _spaces(args) for op in restarts.of_any(space, field, args["node"])[1:]),
    )


def _named(args: Mapping[str, Any]) -> list[str]:
    return [vm for vm in args.get("late", ()) if vm not in args["restarting"]]


def _spaces(args: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(space, field) for space, fields in args.get("late_in", {}).items() for field in fields]


def _migrations(args: Mapping[str, Any], facts: Facts, here: Collection[str]) -> tuple[AnyOp, ...]:
    """One op for each namespace in which no migration is shown, and that has a VM which may come."""
    node = args["node"]
    nads = {nad for localnet in args["localnets"] for nad in networks_of(facts, localnet)}
    everyone = "everyone" in args
    shown = {vm.partition("/")[0] for vm in here if way(vm, args) == "live-migrate"}
    spaces = {
        namespace
        for namespace, vms in _migrating(args, facts).items()
        # One VM decides for its namespace: reading every VM for every node would make planning quadratic.
        if namespace not in shown
        and any(way(vm, args) == "live-migrate" and (everyone or _uses(facts, vm, nads)) for vm in vms)
    }
    return tuple(
        Create(
            label=f"migrate:any:{namespace}",
            title=f"live-migrate whoever is on {node} by then, in {namespace}",
            ref=ObjectRef(*VMIM, name=KNOWN_AFTER_APPLY, namespace=namespace),
            body={"spec": {"vmiName": KNOWN_AFTER_APPLY}},
            commands=(f"virtctl migrate -n {namespace} VM",),
        )
        for namespace in sorted(spaces)
    )


def _migrating(args: Mapping[str, Any], facts: Facts) -> Mapping[str, Collection[str]]:
    """The VMs among which to look for those that leave by migration, by namespace: all, or those that are named."""
    if _default(args) == "live-migrate":
        return dict(facts.value("cluster/vms/by-namespace", {}))
    named: defaultdict[str, list[str]] = defaultdict(list)
    for vm in args["ways"]["vms"]:
        named[vm.partition("/")[0]].append(vm)
    return named


def _uses(facts: Facts, vm: str, nads: Collection[str]) -> bool:
    return any(attached["nad"] in nads for attached in (facts.value(f"vm/{vm}") or {}).get("macs", ()))
