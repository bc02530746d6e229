"""Attachments: the network cards of VMs on the declared networks.

The one invariant: a VM that ovsplan stopped is started again, with the run strategy that it had (H16). What it had is
written on the VM itself in the same patch that stops it, so that whoever comes after a crash, with or without our
journal, knows it; a VM that did not run is edited, and not started.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plans import nads, networks
from plans.actions import Action, Done, Finished, Invocation, Next, Perform, Stop, routine
from plans.changes import Blocked, Change, ClusterKind, Context, Outcome, Same, Survey
from plans.checks import Check, Fails, judge_all
from plans.desired import Desired, Nic, WantedNad, wanted_networks
from plans.document import Finding
from plans.facts import ABSENT, Absent, Facts, Known, Unknown
from plans.maintenance import plugging
from plans.maintenance.migrations import MIGRATION_DEADLINE
from plans.maintenance.power import (
    ALWAYS,
    HALTED,
    NOTES,
    STRATEGIES,
    UP_DEADLINE,
    Cycle,
    is_always,
    noted,
    original,
    restore_op,
    start_op,
    up_checks,
)
from plans.ops import AnyOp, Wait
from plans.readings.machines import RUN_STRATEGY
from plans.wiring import Card, Template, as_it_is, card_of, rewired, template_of

GONE_MARGIN = 120.0
"""Seconds beyond a guest's own grace period, after which KubeVirt kills it: one of Windows may have an hour."""


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
    template = template_of(vm, facts)
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
    if ran and how == "restart" and (lost := tuple(_not_to_start_on(vm, wanted, edits, ground))):
        return Blocked(where, "", lost)
    return Change(
        address=where, kind="attachment", node="", verb=_verb(edits, template), before=_before(edits, pending, left, template),
        after=_after(edits, pending, left), why=why,
        depends=tuple(sorted(f"network/{nad}" for nad in _to_be_made(vm, wanted, ground))),
        data={"vm": vm, "how": how, "cards": [card.plain() for card in wanted], "original": original(vm, facts)},
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


def _runs(vm: str, facts: Facts) -> bool:
    """Whether the VM has a guest, or is about to have one."""
    return (
        isinstance(facts.get(f"machine/{vm}/instance"), Known) or facts.value(f"machine/{vm}/run") == ALWAYS
    )


def _pending(vm: str, wanted: Sequence[Card], facts: Facts) -> list[Card]:
    """The cards that the template has right and the running guest has not, or that it has still."""
    if not isinstance(facts.get(f"machine/{vm}/instance"), Known):
        return []
    template = template_of(vm, facts)
    return [c for c in wanted if template.has(c) and not plugging.is_in_guest(vm, c, facts)]


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


def _not_to_start_on(
    vm: str, wanted: Sequence[Card], edits: Sequence[Card], ground: _Ground
) -> Iterator[str]:
    """Why a VM that is stopped would not start again: a network of a card that is not edited is gone already."""
    edited = {card.nad for card in edits}
    for nad, name in _networks_of(vm, wanted, ground.facts).items():
        there, made = ground.facts.get(f"nad/{nad}"), ground.declared.get(nad)
        if isinstance(there, Unknown):
            yield f"cannot tell whether network {nad} is there: {there.why}"
        elif isinstance(there, Absent) and nad not in edited and not (made and made.config):
            yield f"{vm} must be stopped, and could not start again: its interface {name} is on network {nad}, which is not there"


def _to_be_made(vm: str, wanted: Sequence[Card], ground: _Ground) -> set[str]:
    """The NADs whose own changes come first: of the declared cards, and of the others those that are not there yet."""
    own = {card.nad for card in wanted if card.nad}
    on = _networks_of(vm, wanted, ground.facts)
    return own | {nad for nad in on if isinstance(ground.facts.get(f"nad/{nad}"), Absent)}


def _networks_of(vm: str, wanted: Sequence[Card], facts: Facts) -> dict[str, str]:
    """The NADs that a VM is on once its cards are as wanted, each with the card."""
    after = rewired(template_of(vm, facts), wanted)
    return {nad: network["name"] for network in after.networks if (nad := after.nad(network["name"]))}


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
    if not asked and edits:
        return "restart", how
    if not asked and any(plugging.is_staged(vm, card, facts) for card in pending):
        return "restart", f"its guest has it only after a restart (RestartRequired): {how}"
    if not asked:
        return "restart", f"its guest has it only after a migration or a restart: {how}"
    if why := plugging.why_not(vm, edits, pending, facts):
        return "restart", f"no hotplug: {why}: {how}"
    way = "plugged into" if plugging.plugs([*edits, *pending]) else "unplugged from"
    return "hotplug", f"it runs on: the card is {way} its guest, by a live migration if KubeVirt asks for one"


def _verb(edits: Sequence[Card], template: Template) -> Any:
    if edits and all(card.nad and not template.nad(card.name) for card in edits):
        return "+"
    return "-" if edits and all(not card.nad for card in edits) else "~"


def _before(edits: Sequence[Card], pending: Sequence[Card], left: str | None, template: Template) -> str:
    told = [f"{card.name}: {template.told(card)}" for card in edits]
    told += [
        f"{card.name}: not in the guest" if card.nad else f"{card.name}: in the guest" for card in pending
    ]
    return ", ".join(told) or "stopped by an earlier run"


def _after(edits: Sequence[Card], pending: Sequence[Card], left: str | None) -> str:
    if len(edits) == 1 and not pending:
        return edits[0].told()
    return ", ".join(f"{card.name}: {card.told()}" for card in [*edits, *pending]) or f"as it was ({left})"


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
        if card.nad and not nads.may_use(vm.partition("/")[0], card.nad) and not plugging.is_in_guest(vm, card, facts)
    ]  # fmt: skip


def fragment(change: Change, context: Context) -> Action:
    """The action that attaches and detaches the cards of one VM."""
    vm, facts = change.data["vm"], context.facts
    at, plug = f"machine/{vm}", change.data["how"] == "hotplug"
    args = {
        "vm": vm, "cards": change.data["cards"], "original": change.data["original"],
        "grace": facts.value(f"{at}/grace", 0),
    }  # fmt: skip
    wanted = _cards_of(args)
    on = _networks_of(vm, wanted, facts) if change.vms else [card.nad for card in wanted if card.nad]
    declared = {one.key: one for one in wanted_networks(context.desired)}
    own = {card.nad for card in wanted}
    args["nads"] = {
        nad: networks.as_left(nad, declared.get(nad), facts) if nad in own or nad not in declared else None
        for nad in sorted(on)
    }  # of another card's network it is enough that it is there: whether its own change is made is not told here
    words = ", ".join(f"{card.name} {card.told()}" for card in wanted)
    hot = "plug into" if plugging.plugs(wanted) else "unplug from"
    by_kubevirt = {"own": facts.value("cluster/own-migrations") is True} if plug else {}
    undo = Invocation(
        "attach@1", {**args, "cards": _as_they_are(change, facts), "nads": {}}, (f"machine:{vm}",)
    )
    return Action(
        id=f"attachment/{vm}/{'hotplug' if plug else 'attach'}", routine="hotplug@1" if plug else "attach@1",
        title=f"{hot if plug else 'stop, edit, start' if change.vms else 'edit'} {vm}: {words}", address=change.address,
        args={**args, **by_kubevirt}, reads=(f"machine:{vm}", *(f"nad:{nad}" for nad in args["nads"]), *(("migrations",) if plug else ())),
        expect=(
            Check(at, "present", why="the VM that the plan saw"),
            Check(f"{at}/run", "eq", facts.value(f"{at}/run"), "somebody has changed its run strategy since the plan"),
            *_network_checks(args),
        ),
        done_when=tuple(verify(change, context)), undo=(undo,), disruption="vm-traffic" if change.vms else "none",
        vms=change.vms or ((vm,) if plug else ()), deadline=args["grace"] + GONE_MARGIN + 2 * UP_DEADLINE + MIGRATION_DEADLINE,
    )  # fmt: skip


def _as_they_are(change: Change, facts: Facts) -> list[dict[str, str]]:
    """The cards as the template has them now, for the way back."""
    template = template_of(change.data["vm"], facts)
    return [as_it_is(card["name"], template).plain() for card in change.data["cards"]]


def verify(change: Change, context: Context) -> tuple[Check, ...]:
    """The template has each card as it was declared, and the VM runs as it did."""
    at = f"machine/{change.data['vm']}"
    of_cards = [_check(f"{at}/nic", card_of(card)) for card in change.data["cards"]]
    return (
        *of_cards,
        Check(f"{at}/recorded", "absent", why="ovsplan has stopped it, and not started it again"),
    )


def _check(at: str, card: Card) -> Check:
    path = f"{at}/{card.name}"
    return Check(path, "eq", card.nad) if card.nad else Check(path, "absent")


KIND = ClusterKind("attachment", fragment, diff, verify, hazards, views)


def _cycle(args: Mapping[str, Any], facts: Facts, done: Done) -> Cycle:
    return Cycle(
        args["vm"], facts, done, _before_stop(args, facts), tries=plugging.TRIES, patience=_patience(args)
    )


def _start_again(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """After a failure: a VM that was stopped for the edit is started, and has its run strategy again."""
    vm, run = args["vm"], facts.value(f"machine/{args['vm']}/run")
    if (ahead := _cycle(args, facts, done).again(_up(args))) is not None:
        return ahead
    if noted(vm, facts):
        return Finished(f"somebody else has set the run strategy of VM {vm} to {run} meanwhile")
    return Finished()


def _on_failure(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    vm, before = args["vm"], _before_stop(args, facts)
    if not _runs(vm, facts) and not noted(vm, facts):
        return ()
    start = start_op("start", vm, before, facts)
    return (start,) if is_always(before) else (start, restore_op("restore", vm, before, facts))


@routine("attach@1", rescue=_start_again, on_failure=_on_failure)
def attach(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Stop the VM if it runs, write its cards, start it, and give it back its run strategy."""
    if (stop := _unreadable(args, facts)) is not None:
        return stop
    at = f"machine/{args['vm']}"
    runs = isinstance(facts.get(f"{at}/instance"), Known)
    is_written = plugging.is_written(args["vm"], _cards_of(args), facts)
    halted = facts.value(f"{at}/run") == HALTED
    if runs and (not is_written or not _is_live(args, facts) or (halted and noted(args["vm"], facts))):
        return _stopping(args, facts, done)
    if not is_written:
        if facts.value(f"{at}/run") == ALWAYS:
            return _stopping(args, facts, done)
        return plugging.edit(args["vm"], _cards_of(args), facts, done, plug=False)
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


def _cards_of(args: Mapping[str, Any]) -> list[Card]:
    return [card_of(card) for card in args["cards"]]


def _is_live(args: Mapping[str, Any], facts: Facts) -> bool:
    """Whether the guest has the cards as they are wanted."""
    return all(plugging.is_in_guest(args["vm"], card, facts) for card in _cards_of(args))


def _stopping(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Stop the VM, once; then wait until its guest has shut down."""
    vm, cycle = args["vm"], _cycle(args, facts, done)
    if facts.value(f"machine/{vm}/run") != HALTED:
        if noted(vm, facts):
            return Stop(f"VM {vm} was started by somebody else while it was stopped for the edit", moved=True)
        return _network_lost(args, facts) or cycle.stop()
    gone = [f"machine/{vm}/{word}/{c['name']}" for word in ("live", "sources") for c in args["cards"]]
    ahead = cycle.await_gone(tuple((path, ABSENT) for path in (*gone, f"machine/{vm}/migration-required")))
    return ahead or Stop(f"VM {vm} does not stop", unsure=True)


def _network_checks(args: Mapping[str, Any]) -> list[Check]:
    """That each network is there which the VM is to start on, as it was left."""
    left: Mapping[str, Any] = args.get("nads", {})
    return [check for nad in left for check in networks.to_start_on(nad, left[nad], args["vm"])]


def _network_lost(args: Mapping[str, Any], facts: Facts) -> Stop | None:
    """Why the VM must not be stopped now: it would not start again, or elsewhere."""
    for verdict in judge_all(_network_checks(args), facts):
        moved = isinstance(verdict, Fails)
        return Stop(f"VM {args['vm']} was not stopped: {verdict}", moved=moved, unsure=not moved)
    return None


def _patience(args: Mapping[str, Any]) -> float:
    """Seconds that the VM is given to shut down."""
    return float(args["grace"]) + GONE_MARGIN


def _starting(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Start what was stopped, see it up with its cards, then give it back its run strategy."""
    vm, at, cycle = args["vm"], f"machine/{args['vm']}", _cycle(args, facts, done)
    recorded, run = noted(vm, facts), facts.value(f"{at}/run")
    if recorded and run == HALTED:
        return cycle.start()
    up = _up(args)
    if (recorded or run == ALWAYS or done.has("start")) and judge_all(up.checks, facts):
        if up.label in done.outcomes:
            return Stop(
                f"VM {vm} is not up with its cards within {UP_DEADLINE:g} s: {_standing(args, facts)}"
            )
        return Perform((up,))
    if recorded:
        return cycle.restore()
    told = ", ".join(f"{card.name} {card.told()}" for card in _cards_of(args))
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


def _up(args: Mapping[str, Any]) -> Wait:
    """The wait for the VM to be up with its cards."""
    vm, at = args["vm"], f"machine/{args['vm']}"
    checks = list(up_checks(vm))
    present = [card for card in _cards_of(args) if card.nad]
    checks += [Check(f"{at}/live/{card.name}", "eq", card.nad) for card in present]
    checks += [
        Check(f"{at}/sources/{card.name}", "has", ["domain"], f"{card.name} is not reported yet")
        for card in present
    ]
    return Wait(label="up", title=f"{vm} up with its cards", checks=tuple(checks), deadline=UP_DEADLINE)


@routine("hotplug@1", contingent=plugging.perhaps_migrated)
def hotplug(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Write the cards of a VM that runs on, and see them plugged into its guest."""
    if (stop := _unreadable(args, facts)) is not None:
        return stop
    vm, wanted = args["vm"], _cards_of(args)
    if not plugging.is_written(vm, wanted, facts):
        return plugging.edit(vm, wanted, facts, done, plug=True)
    if not isinstance(facts.get(f"machine/{vm}/instance"), Known):
        return Finished(f"VM {vm} has stopped meanwhile, and will start with its cards")
    return plugging.plugged(args, facts, done)
