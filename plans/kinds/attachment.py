"""Attachments: the network cards of VMs on the declared networks.

The one invariant: a VM that ovsplan stopped is started again, with the run strategy that it had (H16). What it had is
written on the VM itself in the same patch that stops it, so that whoever comes after a crash, with or without our
journal, knows it; a VM that did not run is edited, and not started.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plans import nads, networks
from plans.actions import Action, Done, Finished, Invocation, Next, Perform, Stop, routine
from plans.changes import Blocked, Change, ClusterKind, Context, Outcome, Same, Survey
from plans.checks import Check, judge_all
from plans.desired import Desired, Nic, WantedNad, wanted_networks
from plans.document import Finding
from plans.facts import ABSENT, KNOWN_AFTER_APPLY, Absent, Facts, Known, Later, Unknown
from plans.maintenance.power import (
    ALWAYS,
    HALTED,
    NOTES,
    STRATEGIES,
    UP_DEADLINE,
    is_always,
    noted,
    original,
    patch_op,
    restore_op,
    start_op,
    stop_op,
    up_checks,
)
from plans.ops import AnyOp, Changes, Create, ObjectRef, Wait
from plans.readings.cluster import VMIM
from plans.readings.machines import RUN_STRATEGY, cards
from plans.wiring import Card, Template, rewired

TRIES = 10
"""How often a VM is written that somebody else changes back, or was first to write: KubeVirt writes its status often."""

GONE_MARGIN = 120.0
"""Seconds beyond a guest's own grace period, after which KubeVirt kills it: one of Windows may have an hour."""

MIGRATION_DEADLINE = 900.0
"""Seconds for a live migration; KubeVirt gives up earlier by itself."""

PLUG_DEADLINE = 60.0
"""Seconds for a card to be plugged in; KubeVirt asks for a migration after 15 s without."""


def address(vm: str) -> str:
    """The address of a VM's attachments. All cards of one VM are one resource: it is stopped once for them."""
    return f"attachment/{vm}"


def views(desired: Desired) -> tuple[str, ...]:
    """VirtualMachines, the NADs that their cards may be on, and whether a running guest can be changed."""
    if not any(network.spec.attachments for network in desired.networks):
        return ()
    return ("machines", "nads", "kubevirt")


def _wanted(desired: Desired) -> dict[str, dict[str, Nic]]:
    """Every VM that is declared, with its cards, whichever VMNetworks declare them."""
    found: dict[str, dict[str, Nic]] = {}
    for network in desired.networks:
        for vm, nics in network.attachments.items():
            found.setdefault(vm, {}).update(nics)
    return {vm: dict(sorted(nics.items())) for vm, nics in sorted(found.items())}


def _cards(nics: Mapping[str, Nic]) -> list[Card]:
    return [
        Card(name, nic.network if nic.network and nic.state == "present" else "", nic.mac or "")
        for name, nic in nics.items()
    ]


@dataclass(frozen=True, slots=True)
class _Ground:
    """What all attachments are judged by. `waits`: localnet → why what is on it has to wait."""

    desired: Desired
    facts: Facts
    declared: Mapping[str, WantedNad]
    machines: frozenset[str]
    waits: Mapping[str, tuple[str, ...]]


def diff(desired: Desired, facts: Facts, survey: Survey) -> list[Outcome]:
    """What becomes of each declared VM."""
    wanted = _wanted(desired)
    if not wanted:
        return []
    ground = _Ground(
        desired,
        facts,
        {one.key: one for one in wanted_networks(desired)},
        frozenset(facts.value("cluster/machines") or ()),
        networks.waiting(desired, facts, survey),
    )
    return [_diff_one(vm, _cards(nics), ground) for vm, nics in wanted.items()]


def _diff_one(vm: str, wanted: Sequence[Card], ground: _Ground) -> Outcome:
    where, at, facts, desired = address(vm), f"machine/{vm}", ground.facts, ground.desired
    if (reason := _not_there(vm, ground)) is not None:
        return Blocked(where, "", (reason,))
    template = _template(vm, facts)
    edits = [card for card in wanted if not template.has(card)]
    pending = _pending(vm, wanted, facts)
    left = facts.value(f"{at}/recorded")
    # What is right already is not judged: nothing is done to it.
    reasons = [
        reason
        for card in edits
        for reason in (*_unfit(card, vm, template, wanted), *_network_missing(card, ground))
    ]
    if edits or pending or left:
        reasons += _untouchable(vm, edits, facts)
    if reasons:
        return Blocked(where, "", tuple(dict.fromkeys(reasons)))
    if not edits and not pending and not left:
        return Same(where, "")
    how, why = _how(vm, edits, pending, desired, facts)
    ran = _runs(vm, facts) or left is not None
    return Change(
        address=where, kind="attachment", node="", verb=_verb(edits, template), before=_before(edits, pending, left, template),
        after=_after(edits, pending, left), why=why,
        depends=tuple(sorted({f"network/{card.nad}" for card in wanted if card.nad})),
        data={"vm": vm, "how": how, "cards": [_plain(card) for card in wanted], "original": original(vm, facts)},
        localnets=tuple(n.name for n in desired.networks if vm in (n.spec.attachments or {})), phase="epilogue",
        vms=(vm,) if ran and how == "restart" else (),
    )  # fmt: skip


def _not_there(vm: str, ground: _Ground) -> str | None:
    """Why nothing can be done to a VM: it is not there, or could not be asked for."""
    match ground.facts.get("cluster/machines"):
        case Absent():
            return "KubeVirt is not installed (no kubevirt.io API): there are no VirtualMachines"
        case Unknown(why):
            return f"cannot list the VirtualMachines: {why}"
    if vm not in ground.machines:
        return f"there is no VirtualMachine {vm}{networks.near(vm, ground.machines)}"
    return None


def _template(vm: str, facts: Facts) -> Template:
    there = facts.value(f"machine/{vm}/template") or {"networks": [], "interfaces": [], "implicit": False}
    return Template(vm.partition("/")[0], there["networks"], there["interfaces"], there["implicit"])


def _runs(vm: str, facts: Facts) -> bool:
    """Whether the VM has a guest, or is about to have one."""
    return (
        isinstance(facts.get(f"machine/{vm}/instance"), Known) or facts.value(f"machine/{vm}/run") == ALWAYS
    )


def _pending(vm: str, wanted: Sequence[Card], facts: Facts) -> list[Card]:
    """The cards that the template has right and the running guest has not, or that it has still."""
    if not isinstance(facts.get(f"machine/{vm}/instance"), Known):
        return []
    template = _template(vm, facts)
    return [c for c in wanted if template.has(c) and facts.value(f"machine/{vm}/live/{c.name}", "") != c.nad]


def _unfit(card: Card, vm: str, template: Template, wanted: Sequence[Card]) -> Iterator[str]:
    """Why a card can't be made what is wanted, by the VM's own template."""
    network = template.network(card.name)
    if network is not None and "multus" not in network:
        yield f"interface {card.name} is on the pod network: ovsplan looks after cards on NADs only. Give the new one another name"
    settled = {c.name: c.nad for c in wanted}
    for other in template.interfaces:
        name = other["name"]
        if card.nad and name != card.name and settled.get(name, template.nad(name)) == card.nad:
            yield f"{vm} is on {card.nad} by interface {name} already, and OVN-Kubernetes refuses one NAD twice in a pod: declare {name}"


def _network_missing(card: Card, ground: _Ground) -> Iterator[str]:
    """Why a card can't be attached yet: its NAD is not there and not declared, or its localnet is not mapped everywhere."""
    if not card.nad:
        return
    declared, there = ground.declared.get(card.nad), ground.facts.get(f"nad/{card.nad}")
    if declared is None and isinstance(there, Unknown):
        yield f"cannot tell whether network {card.nad} is there: {there.why}"
    elif declared is None and not isinstance(there, Known):
        known = {*ground.declared, *ground.facts.value("cluster/nads", [])}
        yield f"interface {card.name}: there is no network {card.nad}, and none is declared{networks.near(card.nad, known)}"
    found = ground.facts.value(f"network/{card.nad}") or {}
    yield from ground.waits.get(declared.localnet if declared else found.get("localnet", ""), ())


def _untouchable(vm: str, edits: Sequence[Card], facts: Facts) -> Iterator[str]:
    at = f"machine/{vm}"
    keeper = facts.value(at)["keeper"]
    if keeper:
        said = (
            "; ".join(f"{card.name}: {card.nad or 'absent'}" for card in edits)
            or "nothing, but it has to be restarted"
        )
        yield f"{keeper} keeps it and would change it back (H50): change it there ({said}), then plan again"
    run, left = facts.value(f"{at}/run"), facts.value(f"{at}/recorded")
    if run not in STRATEGIES:
        yield f"it has the run strategy {run}, which this version does not know how to stop and restore"
    if left is not None and left not in NOTES:
        yield f"its annotation {RUN_STRATEGY} says {left!r}, which is no run strategy: set the right one, and remove it"


def _how(
    vm: str, edits: Sequence[Card], pending: Sequence[Card], desired: Desired, facts: Facts
) -> tuple[str, str]:
    """By a restart or by hotplug, and what to tell of it."""
    at = f"machine/{vm}"
    if facts.value(f"{at}/recorded") is not None:
        return "restart", "an earlier run stopped it, and noted on it how it ran, and did not come to its end"
    if not _runs(vm, facts):
        return "restart", "it does not run: it is edited, and has the card when it starts"
    how = f"it is stopped, edited and started, and has its run strategy {facts.value(f'{at}/run')} afterwards"
    asked = desired.rollout is not None and desired.rollout.spec.attach == "hotplug"
    if not asked:
        return "restart", how if edits else f"its guest has it only after a restart (RestartRequired): {how}"
    template = _template(vm, facts)
    replaced = [card.name for card in edits if card.nad and template.nad(card.name)]
    if pending:
        return "restart", f"no hotplug: its guest has it only after a restart (RestartRequired): {how}"
    if facts.value(f"{at}/restart-required"):
        return (
            "restart",
            f"no hotplug: KubeVirt wants a restart for other changes first (RestartRequired): {how}",
        )
    if facts.value("cluster/live-update") is not True:
        return "restart", f"no hotplug: KubeVirt's vmRolloutStrategy is not LiveUpdate: {how}"
    if replaced:
        return "restart", f"no hotplug: {', '.join(replaced)} is there and changes: {how}"
    if template.implicit:
        return (
            "restart",
            f"no hotplug: its card on the pod network is implicit and has to be written out: {how}",
        )
    return (
        "hotplug",
        "it runs on: the card is plugged into its guest, by a live migration if KubeVirt asks for one",
    )


def _verb(edits: Sequence[Card], template: Template) -> Any:
    if edits and all(card.nad and not template.nad(card.name) for card in edits):
        return "+"
    return "-" if edits and all(not card.nad for card in edits) else "~"


def _before(edits: Sequence[Card], pending: Sequence[Card], left: str | None, template: Template) -> str:
    told = [f"{card.name}: {_now(card, template)}" for card in edits]
    told += [
        f"{card.name}: not in the guest" if card.nad else f"{card.name}: in the guest" for card in pending
    ]
    return ", ".join(told) or "stopped by an earlier run"


def _now(card: Card, template: Template) -> str:
    """What the template has of a card now, told by what is wanted otherwise."""
    nad, interface = template.nad(card.name), template.interface(card.name) or {}
    if nad != card.nad or not nad:
        return nad or "absent"
    return (
        f"{nad}, {interface.get('macAddress') or 'any MAC'}"
        if "bridge" in interface
        else f"{nad}, not bridged"
    )


def _after(edits: Sequence[Card], pending: Sequence[Card], left: str | None) -> str:
    if len(edits) == 1 and not pending:
        return _told(edits[0])
    return ", ".join(f"{card.name}: {_told(card)}" for card in [*edits, *pending]) or f"as it was ({left})"


def _told(card: Card) -> str:
    return f"{card.nad}{f', {card.mac}' if card.mac else ''}" if card.nad else "absent"


def _plain(card: Card) -> dict[str, str]:
    return {"name": card.name, "nad": card.nad, "mac": card.mac}


def hazards(desired: Desired, facts: Facts) -> list[Finding]:
    """H28: a NAD of a namespace that Multus keeps to itself."""
    return [
        Finding(
            "H28", "block", "", (address(vm), f"network/{card.nad}"),
            f"{vm} would use network {card.nad} from another namespace, which Multus refuses where it isolates namespaces "
            "(as OpenShift's does): its pod would not start",
            f"make the NAD in namespace {vm.partition('/')[0]}, or in one whose NADs are for all: {', '.join(nads.GLOBAL_NAMESPACES)}",
        )
        for vm, nics in _wanted(desired).items()
        for card in _cards(nics)
        if card.nad and not nads.may_use(vm.partition("/")[0], card.nad) and not _has_it(vm, card, facts)
    ]  # fmt: skip


def _has_it(vm: str, card: Card, facts: Facts) -> bool:
    """Whether the guest runs with the card: then Multus does not mind."""
    return bool(facts.value(f"machine/{vm}/live/{card.name}") == card.nad)


def fragment(change: Change, context: Context) -> Action:
    """The action that attaches and detaches the cards of one VM."""
    vm, facts = change.data["vm"], context.facts
    at, plug = f"machine/{vm}", change.data["how"] == "hotplug"
    args = {
        "vm": vm, "cards": change.data["cards"], "original": change.data["original"],
        "grace": facts.value(f"{at}/grace", 0),
    }  # fmt: skip
    words = ", ".join(f"{c.name} {_told(c)}" for c in map(_card, change.data["cards"]))
    undo = Invocation("attach@1", {**args, "cards": _as_they_are(change, facts)}, (f"machine:{vm}",))
    return Action(
        id=f"attachment/{vm}/{'hotplug' if plug else 'attach'}", routine="hotplug@1" if plug else "attach@1",
        title=f"{'plug into' if plug else 'stop, edit, start' if change.vms else 'edit'} {vm}: {words}", address=change.address,
        args=args, reads=(f"machine:{vm}", *(("migrations",) if plug else ())),
        expect=(
            Check(at, "present", why="the VM that the plan saw"),
            Check(f"{at}/run", "eq", facts.value(f"{at}/run"), "somebody has changed its run strategy since the plan"),
        ),
        done_when=tuple(verify(change, context)), undo=(undo,), disruption="vm-traffic" if change.vms else "none",
        vms=change.vms or ((vm,) if plug else ()), deadline=args["grace"] + GONE_MARGIN + 2 * UP_DEADLINE + MIGRATION_DEADLINE,
    )  # fmt: skip


def _as_they_are(change: Change, facts: Facts) -> list[dict[str, str]]:
    """The cards as the template has them now, for the way back."""
    template = _template(change.data["vm"], facts)
    found = []
    for card in change.data["cards"]:
        address = str((template.interface(card["name"]) or {}).get("macAddress", "")).lower()
        found.append({"name": card["name"], "nad": template.nad(card["name"]), "mac": address})
    return found


def _card(plain: Mapping[str, str]) -> Card:
    return Card(plain["name"], plain["nad"], plain["mac"])


def verify(change: Change, context: Context) -> tuple[Check, ...]:
    """The template has each card as it was declared, and the VM runs as it did."""
    at = f"machine/{change.data['vm']}"
    of_cards = [_check(f"{at}/nic", _card(card)) for card in change.data["cards"]]
    return (
        *of_cards,
        Check(f"{at}/recorded", "absent", why="ovsplan has stopped it, and not started it again"),
    )


def _check(at: str, card: Card) -> Check:
    path = f"{at}/{card.name}"
    return Check(path, "eq", card.nad) if card.nad else Check(path, "absent")


KIND = ClusterKind("attachment", fragment, diff, verify, hazards, views)


def _start_again(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """After a failure: a VM that was stopped for the edit is started, and has its run strategy again."""
    vm, at = args["vm"], f"machine/{args['vm']}"
    recorded = facts.value(f"{at}/recorded")
    if recorded is None:
        return Finished()
    run = facts.value(f"{at}/run")
    if run == HALTED:
        if done.attempts.get("start", 0) >= TRIES:
            return Stop(f"VM {vm} is halted again after each start: somebody else keeps it so")
        return Perform((start_op("start", args["vm"], _before_stop(args, facts), facts),))
    if run != ALWAYS or is_always(recorded):
        return Finished(f"somebody else has set the run strategy of VM {vm} to {run} meanwhile")
    if not _is_up(args, facts) and "up" not in done.outcomes:
        return Perform((_await_up(args),))
    if done.attempts.get("restore", 0) >= TRIES:
        return Stop(f"the run strategy of VM {vm} is changed back each time: somebody else keeps it")
    return Perform((restore_op("restore", args["vm"], _before_stop(args, facts), facts),))


def _on_failure(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    if not _runs(args["vm"], facts) and not noted(args["vm"], facts):
        return ()
    return (
        start_op("start", args["vm"], _before_stop(args, facts), facts),
        *(
            ()
            if is_always(_before_stop(args, facts))
            else (restore_op("restore", args["vm"], _before_stop(args, facts), facts),)
        ),
    )


@routine("attach@1", rescue=_start_again, on_failure=_on_failure)
def attach(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Stop the VM if it runs, write its cards, start it, and give it back its run strategy."""
    if (stop := _unreadable(args, facts)) is not None:
        return stop
    at = f"machine/{args['vm']}"
    runs = isinstance(facts.get(f"{at}/instance"), Known)
    is_written = _is_written(args, facts)
    halted = facts.value(f"{at}/run") == HALTED
    if runs and (not is_written or not _is_live(args, facts) or (halted and noted(args["vm"], facts))):
        return _stopping(args, facts, done)
    if not is_written:
        if facts.value(f"{at}/run") == ALWAYS:
            return _stopping(args, facts, done)
        return _edit(args, facts, done, plug=False)
    return _starting(args, facts, done)


def _before_stop(args: Mapping[str, Any], facts: Facts) -> str:
    """How the VM ran before it was stopped: as it is noted on it, else as the plan saw it."""
    return noted(args["vm"], facts) or str(args["original"])


def _unreadable(args: Mapping[str, Any], facts: Facts) -> Stop | None:
    match facts.get(f"machine/{args['vm']}"):
        case Unknown(why):
            return Stop(f"cannot tell how VM {args['vm']} stands: {why}", unsure=True)
        case Known():
            return None
    return Stop(f"VM {args['vm']} is gone", moved=True)


def _is_written(args: Mapping[str, Any], facts: Facts) -> bool:
    template = _template(args["vm"], facts)
    return all(template.has(_card(card)) for card in args["cards"])


def _is_live(args: Mapping[str, Any], facts: Facts) -> bool:
    """Whether the guest was made with the cards as they are wanted."""
    return all(
        facts.value(f"machine/{args['vm']}/live/{card['name']}", "") == card["nad"] for card in args["cards"]
    )


def _stopping(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Stop the VM, once; then wait until its guest has shut down."""
    vm, at = args["vm"], f"machine/{args['vm']}"
    if facts.value(f"{at}/run") != HALTED:
        if noted(args["vm"], facts):
            return Stop(f"VM {vm} was started by somebody else while it was stopped for the edit", moved=True)
        if done.attempts.get("stop", 0) >= TRIES:
            return Stop(
                f"VM {vm} was started again {TRIES} times: somebody else keeps it running", moved=True
            )
        return Perform((stop_op("stop", vm, original(vm, facts), facts),))
    if done.outcomes.get("gone") == "timed-out":
        return Stop(f"VM {vm} did not shut down within {_patience(args):g} s: look at its guest")
    gone = Check(f"{at}/instance", "absent", why=f"the guest of {vm} is still shutting down")
    unplugged = tuple(
        (f"{at}/{word}/{c['name']}", ABSENT) for word in ("live", "sources") for c in args["cards"]
    )
    return Perform(
        (
            Wait(
                label="gone",
                title=f"{vm} shut down",
                checks=(gone,),
                deadline=_patience(args),
                changes=unplugged,
            ),
        )
    )


def _patience(args: Mapping[str, Any]) -> float:
    """Seconds that the VM is given to shut down."""
    return float(args["grace"]) + GONE_MARGIN


def _starting(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Start what was stopped, see it up with its cards, then give it back its run strategy."""
    vm, at = args["vm"], f"machine/{args['vm']}"
    recorded, run = noted(args["vm"], facts), facts.value(f"{at}/run")
    if recorded and run == HALTED:
        if done.attempts.get("start", 0) >= TRIES:
            return Stop(f"VM {vm} is halted again after each start: somebody else keeps it so", moved=True)
        return Perform((start_op("start", args["vm"], _before_stop(args, facts), facts),))
    if (recorded or run == ALWAYS or done.has("start")) and not _is_up(args, facts):
        if "up" in done.outcomes:
            return Stop(
                f"VM {vm} is not up with its cards within {UP_DEADLINE:g} s: {_standing(args, facts)}"
            )
        return Perform((_await_up(args),))
    if recorded:
        return Perform((restore_op("restore", args["vm"], _before_stop(args, facts), facts),))
    told = ", ".join(f"{c.name} {_told(c)}" for c in map(_card, args["cards"]))
    others = (
        "; KubeVirt wants another restart for other changes" if facts.value(f"{at}/restart-required") else ""
    )
    how = "runs with" if isinstance(facts.get(f"{at}/instance"), Known) else "will start with"
    return Finished(f"VM {vm} {how} {told}, run strategy {run}{others}")


def _standing(args: Mapping[str, Any], facts: Facts) -> str:
    at = f"machine/{args['vm']}"
    phase = facts.value(f"{at}/instance") or "no guest"
    missing = [c["name"] for c in args["cards"] if c["nad"] and not facts.value(f"{at}/sources/{c['name']}")]
    return f"{phase}{', not ready' if not facts.value(f'{at}/ready') else ''}" + (
        f", nobody reports {', '.join(missing)}" if missing else ""
    )


def _up_checks(args: Mapping[str, Any]) -> tuple[Check, ...]:
    at = f"machine/{args['vm']}"
    present = [_card(card) for card in args["cards"] if card["nad"]]
    return (
        *up_checks(args["vm"]),
        *(Check(f"{at}/live/{card.name}", "eq", card.nad) for card in present),
        *(
            Check(f"{at}/sources/{card.name}", "has", ["domain"], f"{card.name} is not reported yet")
            for card in present
        ),
    )


def _is_up(args: Mapping[str, Any], facts: Facts) -> bool:
    return not judge_all(_up_checks(args), facts)


def _await_up(args: Mapping[str, Any]) -> Wait:
    return Wait(
        label="up", title=f"{args['vm']} up with its cards", checks=_up_checks(args), deadline=UP_DEADLINE
    )


def _edit(args: Mapping[str, Any], facts: Facts, done: Done, *, plug: bool) -> Next:
    vm, at = args["vm"], f"machine/{args['vm']}"
    if done.attempts.get("edit", 0) >= TRIES:
        return Stop(
            f"the cards of VM {vm} were changed back {TRIES} times: somebody else keeps them", moved=True
        )
    template = _template(vm, facts)
    after = rewired(template, [_card(card) for card in args["cards"]], plug=plug)
    patch = {
        "spec": {
            "template": {
                "spec": {
                    "domain": {"devices": {"interfaces": list(after.interfaces)}},
                    "networks": list(after.networks),
                }
            }
        }
    }
    named = [_card(c) for c in args["cards"] if not template.has(_card(c))]
    title = f"edit {vm}: {', '.join(f'{card.name} {_told(card)}' for card in named)}"
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


def _migration_name(run: str, uid: str) -> str:
    """The same for the same run and VM: "already exists" means that it is ours."""
    if run == KNOWN_AFTER_APPLY:
        return f"{KNOWN_AFTER_APPLY} {uid}"
    return f"ovsplan-{hashlib.sha256(f'{run}/{uid}/hotplug'.encode()).hexdigest()[:16]}"


def _migration(args: Mapping[str, Any], facts: Facts, done: Done) -> tuple[str, Create]:
    vm = args["vm"]
    namespace, _, name = vm.partition("/")
    uid = (facts.value(f"machine/{vm}") or {}).get("uid", "")
    migration = _migration_name(done.run, uid)
    return migration, Create(
        label="migrate", title=f"live-migrate {vm}, as KubeVirt asks for it to plug the card", ref=ObjectRef(*VMIM, migration, namespace),
        body={"metadata": {"name": migration, "namespace": namespace}, "spec": {"vmiName": name}},
        commands=(f"virtctl migrate -n {namespace} {name}",),
        changes=((f"migration/{namespace}/{migration}/phase", Later("the migration", "KubeVirt's phases")),),
    )  # fmt: skip


def _perhaps_migrated(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    return (_migration(args, facts, Done(KNOWN_AFTER_APPLY))[1],)


@routine("hotplug@1", contingent=_perhaps_migrated)
def hotplug(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Write the cards of a VM that runs on, and see them plugged into its guest."""
    if (stop := _unreadable(args, facts)) is not None:
        return stop
    vm, at = args["vm"], f"machine/{args['vm']}"
    if not _is_written(args, facts):
        return _edit(args, facts, done, plug=True)
    if not isinstance(facts.get(f"{at}/instance"), Known):
        return Finished(f"VM {vm} has stopped meanwhile, and will start with its cards")
    checks = _plugged_checks(args)
    if not judge_all(checks, facts):
        return Finished(f"VM {vm} runs on with its cards plugged")
    if facts.value(f"{at}/restart-required"):
        return Stop(
            f"KubeVirt can't plug the cards into {vm}, and wants a restart (RestartRequired): `ovsplan abandon` this run, and plan again with `attach: restart`"
        )
    if facts.value(f"{at}/migration-required") and done.outcomes.get("plugged") != "timed-out":
        return _by_migration(args, facts, done, checks)
    if "plugged" in done.outcomes and not facts.value(f"{at}/migration-required"):
        return Stop(
            f"the cards of {vm} are not plugged within {PLUG_DEADLINE:g} s, and KubeVirt does not say why"
        )
    asked = tuple(Check(f"{at}/{word}", "eq", True) for word in ("migration-required", "restart-required"))
    return Perform(
        (
            Wait(
                label="plugged",
                title=f"cards plugged into {vm}",
                checks=checks,
                unless=asked,
                deadline=PLUG_DEADLINE,
            ),
        )
    )


def _plugged_checks(args: Mapping[str, Any]) -> tuple[Check, ...]:
    at = f"machine/{args['vm']}/sources"
    return tuple(
        Check(f"{at}/{c['name']}", "has", ["domain", "multus-status"], f"{c['name']} is not plugged yet")
        if c["nad"]
        else Check(f"{at}/{c['name']}", "absent", why=f"{c['name']} is still plugged")
        for c in args["cards"]
    )


def _by_migration(args: Mapping[str, Any], facts: Facts, done: Done, checks: tuple[Check, ...]) -> Next:
    """KubeVirt plugs the card on the way to another node, and does not always send the VM there by itself."""
    vm, namespace = args["vm"], args["vm"].partition("/")[0]
    if facts.value(f"machine/{vm}/migratable") is not True:
        return Stop(
            f"KubeVirt wants to migrate {vm} to plug its cards, and it can't be migrated: `ovsplan abandon` this run, and plan again with `attach: restart`"
        )
    if isinstance(facts.get(f"cluster/migrating/{vm}"), Known):
        if "moved" in done.outcomes:
            return Stop(f"the migration of {vm} does not come to an end")
        over = Check(f"cluster/migrating/{vm}", "absent", why=f"{vm} is migrating")
        return Perform(
            (Wait(label="moved", title=f"{vm} migrated", checks=(over,), deadline=MIGRATION_DEADLINE),)
        )
    name, create = _migration(args, facts, done)
    if facts.value(f"migration/{namespace}/{name}/phase") == "Failed":
        reason = (facts.value(f"migration/{namespace}/{name}") or {}).get(
            "reason"
        ) or "KubeVirt gives no reason"
        return Stop(f"the migration of {vm} failed: {reason}")
    if not done.has("migrate"):
        return Perform((create,))
    if "settled" in done.outcomes:
        return Stop(f"{vm} was migrated, and its cards are still not plugged")
    return Perform(
        (Wait(label="settled", title=f"cards plugged into {vm}", checks=checks, deadline=PLUG_DEADLINE),)
    )
