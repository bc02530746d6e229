"""L2Advertisements of MetalLB: on which interfaces of the nodes service addresses are announced.

The one invariant: the list is never empty, at no time: to MetalLB an empty one means every interface (H13). So what is to
be listed for good is added beside what is there before the first node changes, and what is not is dropped after the last.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from plans import networks
from plans.actions import Action, Done, Finished, Invocation, Next, Perform, Stop, routine
from plans.changes import Blocked, Change, ClusterKind, Context, Outcome, Same, Survey
from plans.checks import Check
from plans.desired import Desired, VMNetwork
from plans.document import Finding
from plans.facts import Absent, Facts, Known, Unknown
from plans.ops import ObjectRef, Patch, Record
from plans.readings.l2advertisements import ADVERTISEMENT

WRITES = 5
"""How often a list that somebody else changes back is written."""


def address(key: str) -> str:
    """The address of an L2Advertisement."""
    return f"l2advertisement/{key}"


def views(desired: Desired) -> tuple[str, ...]:
    """L2Advertisements, when one is declared."""
    return ("l2advertisements",) if any(n.spec.l2_advertisements for n in desired.networks) else ()


def diff(desired: Desired, facts: Facts, survey: Survey) -> list[Outcome]:
    """What becomes of each declared L2Advertisement: at most a widening before the nodes, and a narrowing after them."""
    return [
        outcome
        for network in desired.networks
        for key, interfaces in sorted((network.spec.l2_advertisements or {}).items())
        for outcome in _diff_one(key, list(interfaces), network, facts, survey)
    ]


def _diff_one(
    key: str, wanted: Sequence[str], network: VMNetwork, facts: Facts, survey: Survey
) -> list[Outcome]:
    where = address(key)
    if (reason := _not_there(key, facts)) is not None:
        return [Blocked(where, "", (reason,))]
    have: list[str] = facts.value(f"{where}/interfaces")
    if set(have) == set(wanted):
        return [Same(where, "")]
    if keeper := facts.value(where)["keeper"]:
        reason = f"{keeper} keeps it and would change it back (H50): set interfaces there to {', '.join(wanted)}, then plan again"
        return [Blocked(where, "", (reason,))]
    missing = [name for name in wanted if name not in have] if have else []
    wide = [*have, *missing]
    outcomes: list[Outcome] = []
    if missing:
        outcomes.append(
            _change(
                key,
                have,
                wide,
                network,
                "prologue",
                "added beside what is listed: it announces on a node by whichever of them the node has",
            )
        )
    if set(wide) != set(wanted):
        if held := networks.unmapped(network, facts, survey):
            reasons = [
                f"{_interfaces(sorted(set(wide) - set(wanted)))} stays listed: {node} will not be as declared: {why}"
                for node, why in sorted(held.items())
            ]
            return [*outcomes, Blocked(where, "", tuple(reasons))]
        outcomes.append(
            _change(key, wide, wanted, network, "epilogue", "no node announces by the others any more")
        )
    return outcomes  # fmt: skip


def _not_there(key: str, facts: Facts) -> str | None:
    match facts.get("cluster/l2advertisements"):
        case Absent():
            return "MetalLB is not installed (no metallb.io API)"
        case Unknown(why):
            return f"cannot list the L2Advertisements: {why}"
        case Known(known) if key not in known:
            return f"there is no L2Advertisement {key}{networks.near(key, known)}"
    return None


def _interfaces(names: Sequence[str]) -> str:
    return ", ".join(names) or "every interface"


def _change(
    key: str, before: Sequence[str], after: Sequence[str], network: VMNetwork, phase: Any, why: str
) -> Change:
    return Change(
        address=address(key), kind="l2advertisement", node="", verb="~", before=_interfaces(before),
        after=_interfaces(after), why=why, data={"key": key, "before": list(before), "interfaces": list(after), "last": phase == "epilogue"},
        localnets=(network.name,), phase=phase,
    )  # fmt: skip


def hazards(desired: Desired, facts: Facts) -> list[Finding]:
    """H13: one that lists nothing announces everywhere, also on the networks of VMs."""
    return [
        Finding(
            "H13", "warn", "", (address(key),),
            f"L2Advertisement {key} lists no interface, which means every one; it is narrowed to {_interfaces(list(interfaces))} after the last node",
            "list more interfaces here, if others are in use",
        )
        for network in desired.networks
        for key, interfaces in sorted((network.spec.l2_advertisements or {}).items())
        if facts.get(f"{address(key)}/interfaces") == Known([])
    ]  # fmt: skip


def fragment(change: Change, context: Context) -> Action:
    """The action that writes the list."""
    key, names = change.data["key"], change.data["interfaces"]
    where, read = address(key), (f"l2advertisement:{key}",)
    undo: tuple[Invocation, ...] = ()
    if change.data["before"]:
        undo = (Invocation("set-interfaces@1", {"key": key, "interfaces": change.data["before"]}, read),)
    return Action(
        id=f"{where}/{'narrow' if change.data['last'] else 'widen'}", routine="set-interfaces@1",
        title=f"announce on {_interfaces(names)}", address=change.address, args={"key": key, "interfaces": names}, reads=read,
        expect=(Check(f"{where}/interfaces", "eq", change.data["before"], "somebody has changed it since the plan"),),
        done_when=(Check(f"{where}/interfaces", "eq", names),), undo=undo,
        no_undo="" if undo else "it listed none, which means every interface: to go back there would be H13",
    )  # fmt: skip


def verify(change: Change, context: Context) -> tuple[Check, ...]:
    """What was declared is listed."""
    path, wanted = f"{change.address}/interfaces", change.data["interfaces"]
    if change.data["last"]:
        return (Check(path, "eq", wanted),)
    return (Check(path, "has", [name for name in wanted if name not in change.data["before"]]),)


KIND = ClusterKind("l2advertisement", fragment, diff, verify, hazards, views)


@routine("set-interfaces@1")
def set_interfaces(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Write the list of interfaces whole, at the version that was read."""
    key, names, where = args["key"], args["interfaces"], address(args["key"])
    match facts.get(where):
        case Unknown(why):
            return Stop(f"cannot tell how L2Advertisement {key} stands: {why}", unsure=True)
        case Absent():
            return Stop(f"L2Advertisement {key} is gone", moved=True)
    have = facts.value(f"{where}/interfaces")
    if have == names:
        return Finished(f"L2Advertisement {key} announces on {_interfaces(names)}")
    if "before" not in done.outcomes:
        views = (f"l2advertisement:{key}",)
        return Perform((Record(label="before", title=f"record L2Advertisement {key}", views=views),))
    if done.attempts.get("write", 0) >= WRITES:
        return Stop(
            f"L2Advertisement {key} was changed back {WRITES} times: somebody else keeps it", moved=True
        )
    namespace, _, name = key.partition("/")
    patch = {"spec": {"interfaces": list(names)}}
    command = (
        f"oc patch l2advertisement {name} -n {namespace} --type merge -p {shlex.quote(json.dumps(patch))}"
    )
    return Perform(
        (
            Patch(
                label="write", title=f"list {_interfaces(names)} instead of {_interfaces(have)}",
                ref=ObjectRef(*ADVERTISEMENT, name, namespace), patch=patch, resource_version=facts.value(f"{where}/version"),
                commands=(command,), changes=((f"{where}/interfaces", Known(list(names))),),
            ),
        )
    )  # fmt: skip
