"""Ways out: how each VM leaves a node, decided when the plan is made, and why.

The one invariant: what the rollout says of a VM is done, or blocks; no VM leaves in another way than was shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from plans.desired import Desired, Evacuate
from plans.desired.models import Leaving
from plans.facts import Absent, Facts, Known
from plans.guests import networks_of


@dataclass(frozen=True, slots=True)
class Way:
    """How one VM leaves its node; `why` is empty where nothing needs saying."""

    vm: str
    how: Leaving
    why: str = ""

    def __str__(self) -> str:
        return f"{self.vm}: {self.why or self.how}"


def way_out(vm: str, facts: Facts, evacuate: Evacuate) -> Way:
    """The way of one VM, by what the rollout says of it."""
    how = evacuate.leaving(vm)
    if how == "restart":
        return Way(vm, how, _why_restart(vm, facts))
    other = facts.get(f"cluster/migrating/{vm}")
    if how == "live-migrate" and isinstance(other, Known):
        return Way(vm, how, f"{other.value} migrates it now, whose end is awaited first")
    return Way(vm, how)


def _why_restart(vm: str, facts: Facts) -> str:
    migratable = can_migrate(vm, facts)
    if migratable is True:
        return "the rollout says so, though it can live-migrate; it returns by live migration"
    return f"the rollout says so; it cannot live-migrate: {migratable}; it stays where it starts"


def can_migrate(vm: str, facts: Facts) -> bool | str:
    """True, or why not, in KubeVirt's words."""
    found = (facts.value(f"vm/{vm}") or {}).get("migratable", "it does not run")
    return True if found is True else str(found)


def cannot_restart(vm: str, facts: Facts) -> str:
    """Why a VM can't leave by a restart; empty when it can."""
    if (facts.value(f"vm/{vm}") or {}).get("bare"):
        return "it has no VirtualMachine, so nobody would start it again"
    match facts.get(f"machine/{vm}"):
        case Known():
            return ""
        case Absent():
            return "it has no VirtualMachine, so nobody would start it again"
    return "its VirtualMachine could not be read"


@dataclass(frozen=True, slots=True)
class Late:
    """The VMs of the whole cluster that leave by a restart: they may land on a node that is emptied later.

    `named`: where the rollout names them. Where it does not, `spaces`: their namespaces, each with the fields by which
    VMs there say how they run (`running`, `runStrategy`). `number`: how many there are in all.
    """

    named: tuple[str, ...] = ()
    spaces: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    number: int = 0


NOBODY = Late()


def late(facts: Facts, evacuate: Evacuate, localnets: Sequence[str], everyone: bool) -> Late:
    """Who may come to a node and leaves it by a restart; `everyone`: those too that use none of the localnets."""
    if evacuate.default != "restart":
        named = tuple(
            vm
            for vm, how in sorted(evacuate.vms.items())
            if how == "restart" and not cannot_restart(vm, facts)
        )
        return Late(named, number=len(named))
    others = frozenset(vm for vm, how in evacuate.vms.items() if how != "restart")
    return _late_in(facts, others, None if everyone else tuple(localnets))


@lru_cache(maxsize=4)
def _late_in(facts: Facts, others: frozenset[str], localnets: tuple[str, ...] | None) -> Late:
    # Kept per observation: going through every VM for every node would make planning quadratic.
    nads = None if localnets is None else {nad for name in localnets for nad in networks_of(facts, name)}
    spaces: defaultdict[str, set[str]] = defaultdict(set)
    number = 0
    for vm in facts.value("cluster/vms", []):
        macs = (facts.value(f"vm/{vm}") or {}).get("macs", ())
        if vm in others or cannot_restart(vm, facts):
            continue
        if nads is None or any(attached["nad"] in nads for attached in macs):
            spaces[vm.partition("/")[0]].add(str(facts.value(f"machine/{vm}/field")))
            number += 1
    return Late((), {space: tuple(sorted(fields)) for space, fields in sorted(spaces.items())}, number)


@lru_cache(maxsize=4)
def used_networks(facts: Facts) -> frozenset[str]:
    """The NADs that any VM of the cluster uses. Kept per observation."""
    return frozenset(
        attached["nad"]
        for vm in facts.value("cluster/vms", [])
        for attached in (facts.value(f"vm/{vm}") or {}).get("macs", ())
    )


def networks_with_vms(facts: Facts, localnet: str) -> dict[str, tuple[str, int]]:
    """The NADs on a localnet that VMs use: `ns/name` → (localnet switch port, VLAN)."""
    used = used_networks(facts)
    return {nad: found for nad, found in networks_of(facts, localnet).items() if nad in used}


def views(desired: Desired) -> tuple[str, ...]:
    """What has to be read when nodes are emptied, besides what every plan reads."""
    spec = desired.rollout.spec if desired.rollout else None
    if spec is None or spec.evacuate is None:
        return ()
    restarts = "restart" in (spec.evacuate.default, *spec.evacuate.vms.values())
    return (
        "migration-limits",
        *(("machines",) if restarts else ()),
        *(("pods",) if spec.evacuate.pods == "evict" else ()),
        *(("budgets",) if spec.evacuate.reboot else ()),
        *(("canaries",) if spec.proof else ()),
        *(("images",) if spec.proof and spec.proof.canary.image is None else ()),
    )


def at_once(facts: Facts, default: int) -> int:
    """How many VMs may leave one node at the same time: what KubeVirt allows."""
    limits = facts.value("cluster/migration-limits")
    return max(1, min(limits["node"], limits["cluster"])) if limits else default
