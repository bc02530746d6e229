"""Cards of VMs: written in a VM's template, and plugged into its guest while it runs.

KubeVirt takes a new card, or one declared absent, over from the template into the running instance; the guest has it when
the card is plugged in place, or has arrived on another node. Where `workloadUpdateMethods` has LiveMigrate, KubeVirt
migrates it by itself after a while, else ovsplan does. When `ATTEMPTS` of these migrations have failed in a row, whoever made
them, that is told instead of waiting on. Invariant: a guest is migrated for its cards only when KubeVirt
says that it has to be (`MigrationRequired`), and never while another migration of it is under way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plans.actions import Done, Finished, Next, Perform, Stop
from plans.checks import Check, judge_all
from plans.facts import ABSENT, KNOWN_AFTER_APPLY, Facts, Known, Unknown
from plans.maintenance.migrations import (
    ATTEMPTS,
    MIGRATION_DEADLINE,
    MOST_NAMES,
    migration_name,
    migration_op,
)
from plans.maintenance.power import patch_op
from plans.ops import AnyOp, Changes, Create, Wait
from plans.readings.machines import cards
from plans.wiring import Card, Template, card_of, rewired, template_of

TRIES = 10
"""How often a VM is written that somebody else changes back, or was first to write: KubeVirt writes its status often."""

PLUG_DEADLINE = 60.0
"""Seconds for a card to be plugged in place; KubeVirt asks for a migration after 15 s without."""

OWN_DEADLINE = 60.0
"""Seconds for KubeVirt to begin the migration that it asks for: it looks every 5 s, and waits for other migrations."""

_INSTEAD = "`ovsplan abandon` this run, and plan again with `attach: restart`"


def is_written(vm: str, wanted: Sequence[Card], facts: Facts) -> bool:
    """Whether the template says of each card what is wanted."""
    template = template_of(vm, facts)
    return all(template.has(card) for card in wanted)


def is_staged(vm: str, card: Card, facts: Facts) -> bool:
    """Whether the running instance does not know of the card what its template says: only a restart brings that."""
    return bool(facts.value(f"machine/{vm}/live/{card.name}", "") != card.nad)


def is_in_guest(vm: str, card: Card, facts: Facts) -> bool:
    """Whether the guest has the card as it is wanted.

    One that KubeVirt wants to migrate, or to restart, may have it in words only: then what is reported counts. A KubeVirt
    before 1.6 asks for no migration, but for a restart.
    """
    if is_staged(vm, card, facts):
        return False
    at = f"machine/{vm}"
    if isinstance(facts.get(f"{at}/migration-required"), Known):
        return not judge_all((_plugged(vm, card),), facts)
    if facts.value(f"{at}/restart-required") and facts.value(f"{at}/ready"):
        return ("domain" in facts.value(f"{at}/sources/{card.name}", ())) is bool(card.nad)
    return True


def _plugged(vm: str, card: Card) -> Check:
    at = f"machine/{vm}/sources/{card.name}"
    if not card.nad:
        return Check(at, "absent", why=f"{card.name} is still plugged")
    return Check(at, "has", ["domain", "multus-status"], f"{card.name} is not plugged yet")


def plugs(wanted: Sequence[Card]) -> bool:
    """Whether any of the cards is to come; else they are to go."""
    return any(card.nad for card in wanted)


def why_not(vm: str, edits: Sequence[Card], pending: Sequence[Card], facts: Facts) -> str:
    """Why cards can't get into, or out of, a guest that runs on; empty when they can."""
    template = template_of(vm, facts)
    replaced = [card.name for card in edits if card.nad and template.nad(card.name)]
    if any(is_staged(vm, card, facts) for card in pending):
        return "its guest has it only after a restart (RestartRequired)"
    if facts.value(f"machine/{vm}/restart-required"):
        return "KubeVirt wants a restart for other changes first (RestartRequired)"
    if facts.value("cluster/live-update") is not True:
        return "KubeVirt's vmRolloutStrategy is not LiveUpdate"
    if replaced:
        return f"{', '.join(replaced)} is there and changes"
    if template.implicit:
        return "its card on the pod network is implicit and has to be written out"
    if facts.value(f"machine/{vm}/migratable") is not True:
        return "it cannot live-migrate, and by a migration cards get into its guest"
    return ""


def edit(vm: str, wanted: Sequence[Card], facts: Facts, done: Done, *, plug: bool) -> Next:
    """Write the cards in the template; `plug`: of a VM that runs on."""
    if done.attempts.get("edit", 0) >= TRIES:
        why = f"the cards of VM {vm} were changed back {TRIES} times: somebody else keeps them"
        return Stop(why, moved=True)
    at, template = f"machine/{vm}", template_of(vm, facts)
    after = rewired(template, wanted, plug=plug)
    devices = {"devices": {"interfaces": list(after.interfaces)}}
    patch = {"spec": {"template": {"spec": {"domain": devices, "networks": list(after.networks)}}}}
    title = f"edit {vm}: {', '.join(f'{c.name} {c.told()}' for c in wanted if not template.has(c))}"
    before = cards(at, "nic", template.networks, template.interfaces, template.namespace)
    there = cards(at, "nic", after.networks, after.interfaces, after.namespace)
    changes: Changes = (
        (f"{at}/template", Known(_listed(after))),
        *((path, there.get(path, ABSENT)) for path in {**before, **there}),
    )
    return Perform((patch_op("edit", title, vm, patch, facts, changes),))


def _listed(template: Template) -> dict[str, Any]:
    return {
        "networks": list(template.networks),
        "interfaces": list(template.interfaces),
        "implicit": not template.interfaces and template.implicit,
    }


def perhaps_migrated(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    """The migration that `plugged` may make, for the plan to show."""
    return (_create(args, _name(args, facts, Done(KNOWN_AFTER_APPLY), 1)),)


def _name(args: Mapping[str, Any], facts: Facts, done: Done, attempt: int) -> str:
    uid = (facts.value(f"machine/{args['vm']}") or {}).get("uid", "")
    return migration_name(done.run, uid, "hotplug", attempt)


def _create(args: Mapping[str, Any], name: str) -> Create:
    word = "plug" if plugs([card_of(card) for card in args["cards"]]) else "unplug"
    title = f"live-migrate {args['vm']}, as KubeVirt asks for it to {word} the card"
    return migration_op(f"migrate:{name}", title, args["vm"], name)


def _attempt(args: Mapping[str, Any], facts: Facts, done: Done) -> tuple[str, bool] | Stop:
    """The migration to look at or to create, and whether it was begun; Stop when no more is to be made in this life.

    KubeVirt keeps a failed migration for a while: whoever resumes makes another one, under another name.
    """
    vm, namespace = args["vm"], args["vm"].partition("/")[0]
    if isinstance(unread := facts.get("migration/*"), Unknown):
        return Stop(f"cannot read migrations: {unread.why}", unsure=True)
    tried = sum(1 for label in done.attempts if label.startswith("migrate:"))
    for attempt in range(1, MOST_NAMES):
        name = _name(args, facts, done, attempt)
        at = f"migration/{namespace}/{name}"
        phase = facts.value(f"{at}/phase")
        if phase == "Failed":
            continue
        begun = phase is not None or done.has(f"migrate:{name}")
        if begun and phase is None and f"settled:{name}" in done.outcomes:
            continue  # it is over and gone, and the cards are still not plugged
        if not begun and tried >= ATTEMPTS:
            break
        return name, begun
    return Stop(f"{vm} was migrated {tried} times, and its cards are still not plugged: {_INSTEAD}")


def _failed(vm: str, facts: Facts, done: Done) -> list[str]:
    """The migrations of this life, KubeVirt's own too, that have failed since one last succeeded, in their order."""
    names = [label.partition(":")[2] for label in done.attempts if label.startswith(("moved:", "migrate:"))]
    failed: list[str] = []
    for name in dict.fromkeys(names):
        phase = facts.value(f"migration/{vm.partition('/')[0]}/{name}/phase")
        if phase == "Failed":
            failed.append(name)
        elif phase == "Succeeded":
            failed = []
    return failed


def _in_vain(vm: str, failed: Sequence[str], args: Mapping[str, Any], facts: Facts) -> Stop:
    namespace, last = vm.partition("/")[0], failed[-1]
    reasons = [(facts.value(f"migration/{namespace}/{name}") or {}).get("reason") for name in failed]
    told = "; ".join(dict.fromkeys(filter(None, reasons))) or "KubeVirt gives no reason"
    on = "KubeVirt goes on trying by itself. " if args.get("own") else ""
    return Stop(
        f"the migration of {vm} failed {len(failed)} times, so its cards are not plugged: {told}. {on}"
        f"`oc describe vmim -n {namespace} {last}` tells more. Once it can migrate, `ovsplan apply` goes on from here; "
        f"to do without: {_INSTEAD}"
    )


def plugged(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """See the cards plugged into a guest that runs on, once its template has them."""
    vm, at = args["vm"], f"machine/{args['vm']}"
    wanted = [card_of(card) for card in args["cards"]]
    checks = tuple(_plugged(vm, card) for card in wanted)
    if not judge_all(checks, facts):
        return Finished(f"VM {vm} runs on with {', '.join(f'{card.name} {card.told()}' for card in wanted)}")
    if facts.value(f"{at}/restart-required"):
        return Stop(
            f"KubeVirt can't plug the cards into {vm}, and wants a restart (RestartRequired): {_INSTEAD}"
        )
    if facts.value(f"{at}/migration-required") and done.outcomes.get("plugged") != "timed-out":
        return _by_migration(args, facts, done, checks)
    if "plugged" in done.outcomes and not facts.value(f"{at}/migration-required"):
        return Stop(
            f"the cards of {vm} are not plugged within {PLUG_DEADLINE:g} s, and KubeVirt does not say why"
        )
    asked = tuple(Check(f"{at}/{word}", "eq", True) for word in ("migration-required", "restart-required"))
    return _wait("plugged", _title(vm, wanted), checks, PLUG_DEADLINE, unless=asked)


def _title(vm: str, wanted: Sequence[Card]) -> str:
    return f"cards {'plugged into' if plugs(wanted) else 'unplugged from'} {vm}"


def _by_migration(args: Mapping[str, Any], facts: Facts, done: Done, checks: tuple[Check, ...]) -> Next:
    vm = args["vm"]
    if facts.value(f"machine/{vm}/migratable") is not True:
        return Stop(f"KubeVirt wants to migrate {vm} to plug its cards, and it can't be migrated: {_INSTEAD}")
    if len(vain := _failed(vm, facts, done)) >= ATTEMPTS:
        return _in_vain(vm, vain, args, facts)
    under_way = f"cluster/migrating/{vm}"
    if isinstance(other := facts.get(under_way), Known):
        label = f"moved:{other.value}"
        if label in done.outcomes:
            return Stop(f"the migration of {vm} does not come to an end")
        over = Check(under_way, "ne", other.value, why=f"{vm} is migrating")
        return _wait(label, f"{vm} migrated", (over,), MIGRATION_DEADLINE)
    has_moved = any(label.startswith("moved:") for label in done.outcomes)
    if args.get("own") and "own" not in done.outcomes and not has_moved:
        begun = Check(under_way, "present", why=f"KubeVirt has not begun to migrate {vm}")
        return _wait("own", f"KubeVirt migrates {vm}", (begun,), OWN_DEADLINE, unless=checks)
    found = _attempt(args, facts, done)
    if isinstance(found, Stop):
        return found
    name, is_begun = found
    if not is_begun:
        return Perform((_create(args, name),))
    if f"settled:{name}" in done.outcomes:
        return Stop(f"{vm} was migrated, and its cards are still not plugged")
    title = _title(vm, [card_of(card) for card in args["cards"]])
    failed = Check(f"migration/{vm.partition('/')[0]}/{name}/phase", "eq", "Failed")
    return _wait(f"settled:{name}", title, checks, PLUG_DEADLINE, unless=(failed,))


def _wait(
    label: str, title: str, checks: tuple[Check, ...], deadline: float, unless: tuple[Check, ...] = ()
) -> Perform:
    return Perform((Wait(label=label, title=title, checks=checks, unless=unless, deadline=deadline),))
