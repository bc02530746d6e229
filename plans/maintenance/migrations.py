"""Moving VMs by live migration: evacuating a node, and bringing its VMs back.

One VirtualMachineInstanceMigration per move, under a name that follows from the run, the VM's UID and the attempt:
after a crash, "already exists" means that it is ours (H15). As many leave a node at once as KubeVirt allows (two by
default, parallelOutboundMigrationsPerNode); more would only wait in its queue. VMs that leave by a restart follow one
by one (`restarts`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plans.actions import Action, Done, Finished, Invocation, Next, Perform, Stop, routine
from plans.checks import Check
from plans.facts import ABSENT, KNOWN_AFTER_APPLY, Absent, Facts, Known, Later, Unknown
from plans.guests import vms_on
from plans.maintenance import latecomers, restarts
from plans.maintenance.power import GONE_DEADLINE, UP_DEADLINE
from plans.maintenance.ways import NOBODY, Late
from plans.ops import AnyOp, Changes, Create, ObjectRef, Wait
from plans.readings.cluster import VMIM

AT_ONCE = 2
ATTEMPTS = 3
"""How often one VM is tried in one attempt of an action; resuming tries anew, under new names."""

MOST_NAMES = 1000
MIGRATION_DEADLINE = 900.0
"""Seconds for one VM: KubeVirt gives up earlier by itself (150 s without progress, 150 s per GiB in all)."""

VIEWS = ("nodes", "vms", "networks", "migrations")
NAME_PREFIX = "ovsplan-"


@dataclass(frozen=True, slots=True)
class Leavers:
    """Who leaves a node, and how. `late`: those that leave by a restart and may have come here by then.

    `default` and `exceptions`: what the rollout says of VMs, for those that come meanwhile. `everyone`: those too that
    use none of the localnets, as nothing may be left on the node.
    """

    migrating: tuple[str, ...] = ()
    restarting: tuple[str, ...] = ()
    staying: tuple[str, ...] = ()
    late: Late = NOBODY
    default: str = "live-migrate"
    exceptions: Mapping[str, str] = field(default_factory=dict)
    at_once: int = AT_ONCE
    everyone: bool = False

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(sorted((*self.migrating, *self.restarting)))

    @property
    def may_restart(self) -> bool:
        return bool(self.restarting or self.late.number)

    def views(self) -> tuple[str, ...]:
        """How the VMs are read that may be restarted: each, or all where the plan can't name them."""
        if self.late.spaces:
            return ("machines-now",)
        return tuple(f"machine:{vm}" for vm in sorted({*self.restarting, *self.late.named}))

    def args(self) -> dict[str, Any]:
        ways = {"default": self.default, "vms": dict(self.exceptions)}
        return {
            "staying": list(self.staying),
            **({"ways": ways} if set(self.exceptions.values()) | {self.default} != {"live-migrate"} else {}),
            **({"at_once": self.at_once} if self.at_once != AT_ONCE else {}),
            **(
                {"restarting": list(self.restarting), "late": list(self.late.named)}
                if self.may_restart
                else {}
            ),
            **({"late_in": {s: list(f) for s, f in self.late.spaces.items()}} if self.late.spaces else {}),
            **({"everyone": True} if self.everyone else {}),
        }


def evacuate(node: str, localnets: Sequence[str], who: Leavers, here: Sequence[str], rule: str) -> Action:
    """Empty a node of the VMs that use the localnets, but for those that stay. `here`: all of them, now."""
    stay_here = [vm for vm in who.staying if vm in here]
    words = [f"live-migrate away: {', '.join(who.migrating) or 'none now'}"]
    words += [f"restart elsewhere: {', '.join(who.restarting)}"] if who.restarting else []
    words += [f"{', '.join(stay_here)} stays"] if stay_here else []
    return Action(
        id=f"{node}/evacuate",
        routine="evacuate@1",
        title="; ".join(words if who.migrating or not who.restarting else words[1:]),
        node=node,
        args={"node": node, "localnets": list(localnets), "rule": rule, **who.args()},
        reads=(*VIEWS, *who.views()),
        done_when=(
            Check(f"node/{node}/unschedulable", "eq", True, "a node that takes new VMs is never empty"),
        ),
        no_undo="its VMs run elsewhere; once the node is uncordoned, `virtctl migrate` brings them back"
        if who.all
        else "no VM had to leave",
        vms=who.all,
        disruption="vm-traffic" if who.restarting else "none",
        deadline=MIGRATION_DEADLINE * max(1, len(who.migrating))
        + (GONE_DEADLINE + UP_DEADLINE) * max(len(who.restarting), who.late.number),
        rows=(4,),
    )


def bring_back(node: str, vms: Sequence[str], restarted: Sequence[str] = ()) -> Action:
    """Return to a node the VMs that left it for this run. One of the `restarted` that can't migrate now stays."""
    return Action(
        id=f"{node}/return",
        routine="return@1",
        title=f"live-migrate back: {', '.join(vms)}",
        node=node,
        args={"node": node, "vms": list(vms), **({"restarted": list(restarted)} if restarted else {})},
        reads=VIEWS,
        undo=(
            Invocation(
                "evacuate@1",
                {"node": node, "localnets": [], "only": list(vms), "staying": [], "rule": ""},
                VIEWS,
            ),
        ),
        vms=tuple(vms),
        deadline=MIGRATION_DEADLINE * max(1, len(vms)),
        rows=(11,),
    )


@dataclass(frozen=True, slots=True)
class Move:
    """One VM that should leave `node`, or, with `to`, arrive there."""

    vm: str
    purpose: str
    to: str = ""
    away_from: str = ""

    def arrived(self, facts: Facts) -> bool:
        """Whether the VM is where it should be. A VM that no longer runs has nowhere to go."""
        match facts.get(f"vm/{self.vm}/node"):
            case Absent():
                return True
            case Known(where):
                return bool(where == self.to if self.to else where != self.away_from)
            case Later():
                return not self.to
        return False

    def check(self) -> Check:
        path = f"vm/{self.vm}/node"
        return Check(path, "eq", self.to) if self.to else Check(path, "ne", self.away_from)


def migration_name(run: str, uid: str, purpose: str, attempt: int) -> str:
    """The name of a migration: the same for the same run, VM, purpose and attempt."""
    if run == KNOWN_AFTER_APPLY:
        return f"{KNOWN_AFTER_APPLY} {purpose} {uid}"
    return f"{NAME_PREFIX}{hashlib.sha256(f'{run}/{uid}/{purpose}/{attempt}'.encode()).hexdigest()[:16]}"


def migrate(moves: Sequence[Move], facts: Facts, done: Done, at_once: int = AT_ONCE) -> Next | None:
    """The next ops that bring every move nearer to its end; None when all have arrived."""
    waiting: list[tuple[Move, str]] = []
    creates: list[AnyOp] = []
    for move in moves:
        if isinstance(where := facts.get(f"vm/{move.vm}/node"), Unknown):
            return Stop(f"cannot tell where {move.vm} runs: {where.why}", unsure=True)
        if move.arrived(facts):
            continue
        if (other := _others(move, facts, done)) is not None:
            return other
        if (stuck := _nowhere_to_go(move, facts)) is not None:
            return stuck
        if len(waiting) + len(creates) >= at_once:
            break
        found = _attempt(move, facts, done)
        if isinstance(found, Stop):
            return found
        name, exists = found
        if exists:
            waiting.append((move, name))
        else:
            creates.append(_create(move, name))
    if creates:
        return Perform(tuple(creates))
    if not waiting:
        return None
    wait = _wait(waiting, facts)
    if done.outcomes.get(wait.label) == "timed-out":
        return Stop(f"waited {wait.deadline:g} s in vain for {wait.title}")
    return Perform((wait,))


def _nowhere_to_go(move: Move, facts: Facts) -> Stop | None:
    """A migration without a node that could take the VM only waits for its end: said at once instead."""
    if move.to or not isinstance(listed := facts.get("cluster/nodes"), Known):
        return None
    others = {node: _closed(node, facts) for node in listed.value if node != move.away_from}
    if any(not why for why in others.values()):
        return None
    told = ", ".join(f"{node} is {why}" for node, why in sorted(others.items())) or "there is no other node"
    return Stop(f"{move.vm} has nowhere to go: no other node takes VMs now ({told})")


def _closed(node: str, facts: Facts) -> str:
    """Why a node takes no VM; empty when it may, as far as was seen."""
    if facts.get(f"node/{node}/ready") == Known(False):
        return "not Ready"
    return "cordoned" if facts.get(f"node/{node}/unschedulable") == Known(True) else ""


def _others(move: Move, facts: Facts, done: Done) -> Next | None:
    """A wait for a migration of this VM that is under way and not ours: KubeVirt refuses a second one (H15)."""
    path = f"cluster/migrating/{move.vm}"
    under_way = facts.get(path)
    if not isinstance(under_way, Known) or under_way.value.startswith(NAME_PREFIX):
        return None
    label = f"others:{move.vm}:{under_way.value}"
    if done.outcomes.get(label) == "timed-out":
        return Stop(f"{move.vm} is being migrated by {under_way.value}, which does not end")
    check = Check(path, "ne", under_way.value, f"somebody else migrates {move.vm}")
    title = f"somebody else's migration of {move.vm} ({under_way.value}) to end"
    over = ((path, ABSENT),)
    return Perform(
        (Wait(label=label, title=title, checks=(check,), deadline=MIGRATION_DEADLINE, changes=over),)
    )


def _attempt(move: Move, facts: Facts, done: Done) -> tuple[str, bool] | Stop:
    """The migration to look at or to create for a move, and whether it exists; Stop when all attempts failed."""
    vm = facts.value(f"vm/{move.vm}") or {}
    if vm.get("migratable") is not True:
        return Stop(
            f"VM {move.vm} cannot live-migrate: {vm.get('migratable', 'it is not running')} (H14)", moved=True
        )
    if isinstance(missing := facts.get("migration/*"), Unknown):
        return Stop(f"cannot read migrations: {missing.why}", unsure=True)
    namespace = move.vm.partition("/")[0]
    reason = ""
    prefix = f"migrate:{move.vm}:{move.purpose}:"
    tried = sum(1 for label in done.attempts if label.startswith(prefix))
    for attempt in range(1, MOST_NAMES):
        name = migration_name(done.run, vm["uid"], move.purpose, attempt)
        at = f"migration/{namespace}/{name}"
        phase = facts.get(f"{at}/phase")
        if isinstance(phase, Known) and phase.value == "Failed":
            reason = (facts.value(at) or {}).get("reason", "")
            continue
        if isinstance(phase, Known) and phase.value == "Succeeded":
            # It did arrive and was moved again since, by somebody else: go on with a new attempt.
            continue
        if isinstance(phase, Known | Later):
            return name, True
        if done.has(f"{prefix}{name}"):
            continue  # KubeVirt keeps five finished migrations per VM: this one is over and gone
        if tried >= ATTEMPTS:
            break
        return name, False
    return Stop(f"VM {move.vm} did not migrate in {tried} attempts" + (f": {reason}" if reason else ""))


def _create(move: Move, name: str) -> Create:
    away = f"to {move.to}" if move.to else f"away from {move.away_from}"
    return migration_op(
        f"migrate:{move.vm}:{move.purpose}:{name}", f"live-migrate {move.vm} {away}", move.vm, name, move.to
    )


def migration_op(label: str, title: str, vm: str, name: str, to: str = "") -> Create:
    """The op that begins the migration `name` of a VM: to the node `to`, else to where the scheduler puts it."""
    namespace, _, vmi = vm.partition("/")
    spec: dict[str, Any] = {"vmiName": vmi}
    if to:
        spec["addedNodeSelector"] = {"kubernetes.io/hostname": to}
    return Create(
        label=label,
        title=title,
        ref=ObjectRef(*VMIM, name=name, namespace=namespace),
        body={"metadata": {"name": name, "namespace": namespace}, "spec": spec},
        commands=(
            f"virtctl migrate -n {namespace} {vmi}"
            + (f" --addedNodeSelector kubernetes.io/hostname={to}" if to else ""),
        ),
        changes=((f"migration/{namespace}/{name}/phase", Later("the migration", "KubeVirt's phases")),),
    )


def moved(labels: Sequence[str]) -> list[tuple[str, bool]]:
    """The VMs that ops with these labels move, in their order, and whether they leave the node by that (or return)."""
    found = []
    for label in labels:
        word, _, rest = label.partition(":")
        vm, _, purpose = rest.partition(":")
        if word == "migrate":
            found.append((vm, not purpose.startswith("return:")))
        elif word == "stop":
            found.append((rest, True))
    return found


def way_home(vm: str, node: str) -> str:
    """The command that brings a VM back to a node."""
    (command,) = migration_op("", "", vm, "", node).commands
    return command


def _wait(waiting: Sequence[tuple[Move, str]], facts: Facts) -> Wait:
    """Wait for the first of the moves under way; a failed migration, or another arrival, ends the wait early."""
    first, _ = waiting[0]
    phases = [f"migration/{move.vm.partition('/')[0]}/{name}/phase" for move, name in waiting]
    names = ", ".join(move.vm for move, _ in waiting)
    return Wait(
        label=f"moved:{first.vm}:{first.purpose}:{waiting[0][1]}",
        title=f"{names} " + (f"on {first.to}" if first.to else f"off {first.away_from}"),
        checks=tuple(move.check() for move, _ in waiting),
        unless=tuple(Check(path, "eq", "Failed") for path in phases),
        deadline=MIGRATION_DEADLINE,
        changes=_landed([move for move, _ in waiting], facts),
    )


def _landed(moves: Sequence[Move], facts: Facts) -> Changes:
    """What finished moves are predicted to change. Where an evacuated VM lands is for the scheduler to say."""
    changes: dict[str, Known | Later] = {}

    def residents(node: str) -> list[str]:
        path = f"node/{node}/vms"
        fact = changes.get(path)
        return list(fact.value if isinstance(fact, Known) else facts.value(path, []))

    for move in moves:
        source = facts.get(f"vm/{move.vm}/node")
        left = move.away_from or (source.value if isinstance(source, Known) else "")
        if left:
            changes[f"node/{left}/vms"] = Known([vm for vm in residents(left) if vm != move.vm])
        if move.to:
            changes[f"vm/{move.vm}/node"] = Known(move.to)
            changes[f"node/{move.to}/vms"] = Known(sorted({*residents(move.to), move.vm}))
        else:
            rule = f"a schedulable node other than {move.away_from}"
            changes[f"vm/{move.vm}/node"] = Later("the evacuation", rule)
    return tuple(changes.items())


def _here(args: Mapping[str, Any], facts: Facts) -> list[str]:
    """Those on the node who are to leave it, or to stay: the VMs of the localnets, or all."""
    if "everyone" in args:
        return list(facts.value(f"node/{args['node']}/vms", []))
    return vms_on(facts, args["node"], tuple(args["localnets"]))


def _foreseen(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    return latecomers.foreseen(args, facts, _here(args, facts))


def rescue_evacuate(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """After a failure no VM is left stopped."""
    for vm in latecomers.by_restart(args, (), done):
        if (ahead := restarts.start_again(vm, facts, done)) is not None:
            return ahead
    return Finished()


@routine("evacuate@1", contingent=_foreseen, rescue=rescue_evacuate, on_failure=latecomers.starts_again)
def step_evacuate(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Move every VM of the localnets off the node, but for those that stay; those that restart come last."""
    node = args["node"]
    fact = facts.get(f"node/{node}/vms")
    if not isinstance(fact, Known):
        return Stop(f"cannot tell which VMs run on {node}: {fact}")
    here = args["only"] if "only" in args else _here(args, facts)
    by_restart = latecomers.by_restart(args, here, done)
    moves = [
        Move(vm, "evacuate", away_from=node)
        for vm in here
        if vm not in by_restart and latecomers.way(vm, args) == "live-migrate"
    ]
    ahead = migrate(moves, facts, done, args.get("at_once", AT_ONCE))
    if ahead is not None:
        return ahead
    for vm in by_restart:
        if (ahead := restarts.restart(vm, node, facts, done)) is not None:
            return ahead
    return Finished(_left(done))


def _left(done: Done) -> str:
    moved = sorted({label.split(":")[1] for label in done.outcomes if label.startswith("migrate:")})
    restarted = sorted({label.split(":")[1] for label in done.outcomes if label.startswith("stop:")})
    told = [f"{len(moved)} VM(s) left: {', '.join(moved)}"] if moved else []
    told += [f"restarted elsewhere: {', '.join(restarted)}"] if restarted else []
    return "; ".join(told) or "no VM had to leave"


@routine("return@1")
def step_return(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Bring the VMs back to their node."""
    node = args["node"]
    cordoned = facts.get(f"node/{node}/unschedulable")
    if isinstance(cordoned, Unknown):
        return Stop(f"cannot tell whether {node} is cordoned: {cordoned.why}", unsure=True)
    if cordoned == Known(True):
        return Finished(
            f"{node} is cordoned by somebody else: its VMs can't return to it, and stay where they are"
        )
    stuck = [vm for vm in args.get("restarted", ()) if _cannot_return(vm, node, facts)]
    moves = [Move(vm, "return", to=node) for vm in args["vms"] if vm not in stuck]
    if (ahead := migrate(moves, facts, done)) is not None:
        return ahead
    gone = [vm for vm in args["vms"] if isinstance(facts.get(f"vm/{vm}/node"), Absent)]
    note = f"{len(args['vms']) - len(gone) - len(stuck)} VM(s) back on {node}"
    note += "".join(f"; {vm} cannot live-migrate and stays on {facts.value(f'vm/{vm}/node')}" for vm in stuck)
    return Finished(note + (f"; no longer running: {', '.join(gone)}" if gone else ""))


def _cannot_return(vm: str, node: str, facts: Facts) -> bool:
    """Whether a VM that was restarted elsewhere can't come back: it runs there, and cannot live-migrate any more."""
    where = facts.get(f"vm/{vm}/node")
    return (
        isinstance(where, Known)
        and where.value != node
        and (facts.value(f"vm/{vm}") or {}).get("migratable") is not True
    )
