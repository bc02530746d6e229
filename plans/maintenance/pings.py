"""Pings: gateways asked from inside VMs, by their guest agents, before and after the path is moved.

By `virt-probe` in a launcher's container, which hands a command to the guest agent (KubeVirt 1.0 to 1.6): exit code and
output are the guest's; what keeps a command from being run is a line of JSON on stderr and a panic, never the guest's
own exit code. Red Hat's guests forbid commands as a rule. The ping's TTL is 1: a gateway that is only reached by another
way (the pod network, a router) does not answer it, and so proves nothing.

The one invariant: only a ping that was answered before the move and is not answered after it is a failure. Whatever
else becomes of one is "cannot tell", and the evidence of the node stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from plans.actions import Action, Done, Finished, Next, Perform, Stop, routine
from plans.desired import Desired
from plans.facts import KNOWN_AFTER_APPLY, Facts, Json, Known, Unknown
from plans.guests import guests
from plans.maintenance.cordon import cordon_op, uncordon_op
from plans.ops import AnyOp, Exec, InContainer, Wait

COMPUTE = "compute"
GUEST_SECONDS = 5
"""What the guest has for a ping; two packets, each waited for a second, take at most three."""

DEADLINE = 20.0
"""Seconds for all VMs of a node, which are asked at the same time."""

TRIES = 5
PAUSE = 2.0
"""Seconds until a gateway that has not answered is asked again: a guest agent comes back so long after a migration."""

Verdict = Literal["answered", "silent", "unknown"]

_COMMANDS = {
    "linux": ("ping", "--", "-c", "2", "-W", "1", "-t", "1"),
    "windows": ("ping", "--", "-n", "2", "-w", "1000", "-i", "1"),
}
_ANSWERS = re.compile(r"the gateway answers ([^;]+)")
_FAILED = re.compile(r'^\{.*"msg":\s*"Failed ')
_MESSAGE = re.compile(r"Message='(.*)'\)", re.S)
_PREFIX = "internal error: unable to execute QEMU agent command 'guest-exec': "


Ping = Mapping[str, Json]
"""What one ping is: `vm`, `gateway`, the `nad` that has it, and the guest's `system`."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Which gateways are asked by which VMs of a node, and of the other VMs on such networks why not."""

    pings: tuple[dict[str, Json], ...] = ()
    others: Mapping[str, str] = field(default_factory=dict)

    def of(self, vms: Collection[str]) -> tuple[dict[str, Json], ...]:
        return tuple(ping for ping in self.pings if ping["vm"] in vms)

    def but(self, vms: Collection[str]) -> tuple[dict[str, Json], ...]:
        return tuple(ping for ping in self.pings if ping["vm"] not in vms)

    @property
    def are_told(self) -> bool:
        """Whether the plan has anything to say of pings."""
        return bool(self.pings or self.others)


def of_node(
    node: str, localnets: Sequence[str], desired: Desired, facts: Facts, but: Collection[str] = ()
) -> Asked:
    """The pings of the VMs on a node that use some localnets, without those of `but`."""
    gateways = desired.gateways
    pings: dict[str, dict[str, Json]] = {}
    others: dict[str, str] = {}
    for guest in (g for localnet in localnets for g in guests(facts, node, localnet) if g.vm not in but):
        system = (facts.value(f"vm/{guest.vm}") or {}).get("guest_agent")
        gateway = gateways.get(guest.nad)
        if gateway is None and system:
            others.setdefault(guest.vm, "no IPv4 gateway declared")
        elif gateway is None:
            continue
        elif not system:
            others.setdefault(guest.vm, "no guest agent")
        elif facts.get(may_exec(guest.vm)) == Known(False):
            space = guest.vm.partition("/")[0]
            others.setdefault(guest.vm, f"no right to exec in pods of namespace {space}")
        else:
            ping = {"vm": guest.vm, "gateway": gateway, "nad": guest.nad, "system": system}
            pings[_key(ping)] = ping
    asked = {ping["vm"] for ping in pings.values()}
    return Asked(
        tuple(ping for _, ping in sorted(pings.items())),
        {vm: why for vm, why in sorted(others.items()) if vm not in asked},
    )


def may_exec(vm: str) -> str:
    """The path of the fact that says whether we may run commands in the pods of a VM's namespace."""
    return f"namespace/{vm.partition('/')[0]}/may-exec"


def namespaces(desired: Desired, facts: Facts) -> list[str]:
    """Those of the VMs that could be asked, which takes the right to exec there."""
    gateways = desired.gateways
    vms = facts.value("cluster/vms", []) if gateways else []
    found = {vm: facts.value(f"vm/{vm}") or {} for vm in vms}
    return sorted(
        {
            vm.partition("/")[0]
            for vm, known in found.items()
            if known.get("guest_agent") and any(at["nad"] in gateways for at in known.get("macs", ()))
        }
    )


def _whose(ping: Ping) -> str:
    return f"{ping['vm']} ({ping['gateway']})"


def _key(ping: Ping) -> str:
    return f"{ping['vm']} {ping['gateway']}"


def argv_of(ping: Ping) -> tuple[str, ...]:
    """The command in the launcher's container. KubeVirt names a domain by namespace and name."""
    domain = str(ping["vm"]).replace("/", "_", 1)
    head = ("virt-probe", "--domainName", domain, "--timeoutSeconds", str(GUEST_SECONDS), "--command")
    return (*head, *_COMMANDS[str(ping["system"])], str(ping["gateway"]))


def judge(ping: Ping, answer: Mapping[str, Any] | None) -> tuple[Verdict, str]:
    """What one answer means, and why nothing can be told by it."""
    if answer is None:
        return "unknown", "it was not asked"
    if "why" in answer:
        return "unknown", str(answer["why"])
    rc, out, err = answer["rc"], str(answer["out"]), str(answer["err"])
    if (failed := _failure(err)) is not None:
        return "unknown", failed
    if ping["system"] == "windows":
        # Its ping takes "destination host unreachable" for an answer: only a real one has a TTL.
        return ("answered" if "TTL=" in out else "silent", "") if out.strip() else ("unknown", f"rc {rc}")
    if rc == 0:
        return "answered", ""
    if rc == 1 and "100%" in out:
        return "silent", ""
    return "unknown", f"rc {rc}: {' '.join((err or out).split())[:120]}".rstrip(": ")


def _failure(err: str) -> str | None:
    """Why virt-probe got no command run in the guest, in libvirt's words; None when it has."""
    for line in err.splitlines():
        if _FAILED.match(line):
            try:
                reason = str(json.loads(line).get("reason", ""))
            except ValueError:
                reason = line
            found = _MESSAGE.search(reason)
            return (found[1] if found else reason).removeprefix(_PREFIX)
    return None


def before(node: str, asked: Sequence[Ping]) -> Action:
    """Ask before anything changes: what is not answered now says nothing later."""
    return Action(
        id=f"{node}/pings",
        routine="ping@1",
        title=f"ask {_gateways(asked)} by the guest agents of {_vms(asked)}, to compare",
        node=node,
        args={"node": node, **args_of(asked)},
        reads=reads_of(node, asked),
        no_undo="it changes nothing",
        deadline=2 * DEADLINE,
    )


def after_return(node: str, asked: Sequence[Ping]) -> Action:
    """Ask when the VMs are back."""
    return Action(
        id=f"{node}/ping-returned",
        routine="ping-returned@1",
        title=f"{_gateways(asked)} answers the guest agents of {_vms(asked)} as before",
        node=node,
        args={"node": node, **args_of(asked)},
        uses=uses_of(node, asked),
        reads=(*reads_of(node, asked), "nodes", "vms"),
        no_undo="it changes nothing",
        deadline=TRIES * (DEADLINE + PAUSE),
        rows=(11,),
    )


def words(asked: Asked) -> str:
    """As the plan says it of a node's proof; empty where nothing can be said of pings."""
    many = len({ping["vm"] for ping in asked.pings}) > 1
    said = (
        f"a ping of {_gateways(asked.pings)} by the guest agent{'s' if many else ''} of {_vms(asked.pings)}"
    )
    whys: dict[str, list[str]] = {}
    for vm, why in asked.others.items():
        whys.setdefault(why, []).append(vm)
    reasons = "; ".join(f"{_names(vms)}: {why}" for why, vms in sorted(whys.items()))
    if not asked.pings:
        return f"no ping from inside ({reasons})" if reasons else ""
    return f"{said} ({reasons})" if reasons else said


def args_of(asked: Sequence[Ping]) -> dict[str, Json]:
    """What an action that asks again has in its arguments; nothing for no pings."""
    return {"pings": [dict(ping) for ping in asked]} if asked else {}


def uses_of(node: str, asked: Sequence[Ping]) -> tuple[str, ...]:
    """The action whose answers it compares with."""
    return (f"{node}/pings",) if asked else ()


def reads_of(node: str, asked: Sequence[Ping]) -> tuple[str, ...]:
    """What it has to look at besides."""
    return (f"launchers:{node}",) if asked else ()


def _gateways(asked: Sequence[Ping]) -> str:
    return ", ".join(sorted({str(ping["gateway"]) for ping in asked}))


def _vms(asked: Sequence[Ping]) -> str:
    return _names(sorted({str(ping["vm"]) for ping in asked}))


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def ask_op(label: str, node: str, asked: Sequence[Ping], facts: Facts, done: Done) -> Exec | str:
    """All of some pings at once; or why none can be sent."""
    launchers = facts.get(f"node/{node}/launchers")
    planned = done.run == KNOWN_AFTER_APPLY
    if isinstance(launchers, Unknown) and not planned:
        return launchers.why
    there: Mapping[str, str] = facts.value(f"node/{node}/launchers") or {}
    runs, commands = [], []
    for ping in asked:
        vm, argv = str(ping["vm"]), argv_of(ping)
        if not planned and vm not in there:
            continue
        space, _, name = vm.partition("/")
        pod = KNOWN_AFTER_APPLY if planned else there[vm]
        runs.append(InContainer(_key(ping), space, pod, COMPUTE, argv))
        commands.append(
            f"oc exec -n {space} $(oc get pod -n {space} -l kubevirt.io=virt-launcher,vm.kubevirt.io/name={name} "
            f"--field-selector status.phase=Running -o name) -c {COMPUTE} -- {' '.join(argv)}"
        )
    if not runs:
        return f"no launcher of {_vms(asked)} runs on {node}"
    return Exec(
        label=label,
        title=f"ping {_gateways(asked)} from inside {_vms(asked)}",
        runs=tuple(runs),
        deadline=DEADLINE,
        commands=tuple(commands),
    )


def of_others(args: Mapping[str, Any], vm: str, facts: Facts) -> tuple[AnyOp, ...]:
    """The pings of an action that are not that VM's, for its plan to show."""
    others = [ping for ping in args.get("pings", ()) if ping["vm"] != vm]
    op = ask_op("ping:others", args["node"], others, facts, Done(KNOWN_AFTER_APPLY)) if others else ""
    return (op,) if isinstance(op, Exec) else ()


@routine("ping@1")
def step_ping(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Ask once. What can't be asked is no reason to stop."""
    if not done.has("ping"):
        op = ask_op("ping", args["node"], args["pings"], facts, done)
        if isinstance(op, str):
            return Finished(f"cannot tell by a ping: {op}")
        return Perform((op,))
    told = Told()
    for ping in args["pings"]:
        told.note(ping, *judge(ping, done.results.get("ping", {}).get(_key(ping))), "silent")
    return Finished(str(told))


@dataclass(slots=True)
class Told:
    """What came of some pings: by VM and gateway, `lost` those answered before the move only; `proven`: VM and network of
    those answered.
    """

    answered: list[str] = field(default_factory=list)
    proven: set[tuple[str, str]] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)

    def note(self, ping: Ping, verdict: Verdict, why: str, earlier: Verdict) -> None:
        """One more. `earlier`: what it was before the move."""
        whose = _whose(ping)
        if verdict == "answered":
            self.answered.append(whose)
            self.proven.add((str(ping["vm"]), str(ping["nad"])))
        elif verdict == "silent":
            (self.lost if earlier == "answered" else self.unproven).append(whose)
        else:
            self.unknown[whose] = why

    def __str__(self) -> str:
        said = [f"the gateway answers {', '.join(self.answered)}"] if self.answered else []
        said += (
            [f"a gateway that does not answer before the move proves nothing: {', '.join(self.unproven)}"]
            if self.unproven
            else []
        )
        said += [f"cannot tell by a ping of {whose}: {why}" for whose, why in self.unknown.items()]
        return "; ".join(said)

    @property
    def why_lost(self) -> str:
        return (
            f"the gateway answered the ping of {', '.join(self.lost)} before the move and does not now: "
            "look at the VLANs of the switch ports"
        )


def networks_answered(asked: Sequence[Ping], note: str) -> set[str]:
    """The networks in which a gateway answered one of some pings, by the note of the action that asked."""
    told = [whose for part in _ANSWERS.findall(note) for whose in part.split(", ")]
    return {str(ping["nad"]) for ping in asked if _whose(ping) in told}


def ask_again(asked: Sequence[Ping], args: Mapping[str, Any], facts: Facts, done: Done) -> Perform | Told:
    """Ask after the move, those that were answered before it a few times; then what came of it.

    Compared with what `ping@1` recorded on the node: who could not be asked then is not asked now.
    """
    node, planned = args["node"], done.run == KNOWN_AFTER_APPLY
    earlier = done.used.get(f"{node}/pings", {}).get("ping") or {}
    first: dict[str, Verdict] = {
        _key(p): "answered" if planned else judge(p, earlier.get(_key(p)))[0] for p in asked
    }
    open_to = [p for p in asked if first[_key(p)] != "unknown"]
    labels = [label for label in done.attempts if label.startswith("ping:")]
    answers: dict[str, Any] = {}
    for label in labels:
        answers |= done.results.get(label) or {}
    now: dict[str, tuple[Verdict, str]] = {
        _key(p): ("answered", "") if planned else judge(p, answers.get(_key(p))) for p in open_to
    }
    left = [p for p in open_to if now[_key(p)][0] != "answered" and first[_key(p)] == "answered"]
    again = open_to if not labels else left if len(labels) < TRIES else []
    why = "it could not be asked before the move"
    if again:
        op = ask_op(f"ping:{len(labels) + 1}", node, again, facts, done)
        if not isinstance(op, str):
            pause = Wait(
                label=f"pause:{len(labels) + 1}",
                title=f"{PAUSE:g} s, until the gateway is asked again",
                checks=(),
                deadline=PAUSE,
                at_least=PAUSE,
            )
            return Perform((pause, op) if labels else (op,))
        why = op
    told = Told()
    for ping in asked:
        verdict, reason = now.get(_key(ping), ("unknown", why))
        told.note(ping, verdict, why if _key(ping) not in answers else reason, first[_key(ping)])
    return told


def rescue_returned(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """No further VM comes to a node whose path is lost; those that are there are left to a person."""
    node = args["node"]
    if facts.value(f"node/{node}/unschedulable") is False:
        return Perform((cordon_op(node, done.run, facts),))
    return Finished(f"{node} is cordoned")


def _uncordon(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    return (uncordon_op(args["node"], facts),)


@routine("ping-returned@1", rescue=rescue_returned, contingent=_uncordon)
def step_returned(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Every VM that is back, and was answered before, is answered again."""
    node = args["node"]
    here = facts.value(f"node/{node}/vms", [])
    asked = [ping for ping in args["pings"] if ping["vm"] in here or done.run == KNOWN_AFTER_APPLY]
    if not asked:
        return Finished(f"none of {_vms(args['pings'])} is on {node}: nothing to ask")
    told = ask_again(asked, args, facts, done)
    if isinstance(told, Perform):
        return told
    if told.lost:
        return Stop(told.why_lost)
    if facts.value(f"node/{node}/cordoned-by") == done.run:
        return Perform(_uncordon(args, facts))
    return Finished(str(told), proven=True if told.answered else None)
