"""Reboot and settle: an emptied node is restarted, and what was made on it must still be so afterwards (H17).

Promises kept here: which boot the node was in is written on the node itself before the reboot is asked for, so that
whoever comes after a crash can tell one that is to come from one that was; the reboot is asked for once, and again only
when the node has plainly stayed up; silence is waited through and never taken for an answer. A node that does not come
back stops the line, and stays cordoned.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from plans.actions import Action, Done, Finished, Next, Perform, Stop, routine
from plans.checks import CannotTell, Check, Fails, judge_all
from plans.desired import Desired
from plans.errors import InputError
from plans.facts import ABSENT, KNOWN_AFTER_APPLY, Facts, Known, Unknown
from plans.maintenance import budgets
from plans.ops import ObjectRef, Patch, Record, Run, Wait
from plans.readings import view_of
from plans.readings.cluster import CORDONED_BY
from plans.readings.reboots import NOTE, UP

GONE_DEADLINE = 300.0
"""Seconds after which a node that is Ready, and in the same boot, counts as one that did not hear the request."""

TRIES = 3
BACK_DEADLINE = 1800.0
"""Seconds for a node that went down to boot: servers test themselves for minutes."""

UP_DEADLINE = 600.0
"""Seconds from its first word to Ready, with its Lease renewed."""

PODS_DEADLINE = 600.0
SETTLE_DEADLINE = 900.0
"""Seconds for every policy to be applied again: 154 s for one that needs each of its retries (measured)."""

STRICTLY = 0.001


def reboot(node: str, *, own_cordon: bool, limits: Mapping[str, Any]) -> Action:
    """Restart the node, and see it come back. `own_cordon`: this run cordons it; somebody else had done so otherwise.

    `limits`: what disruption budgets have to do with it (`budgets.args`).
    """
    return Action(
        id=f"{node}/reboot",
        routine="reboot@1",
        title=f"restart it, minutes as a rule, {BACK_DEADLINE / 60:.0f} at most; pods that stay on it restart too",
        node=node,
        args={"node": node, "own_cordon": own_cordon, **limits},
        reads=("nodes", "vms", f"boot:{node}", *budgets.views(node, limits)),
        expect=(
            Check(f"node/{node}/unschedulable", "eq", True, "a node that takes new VMs is never empty"),
            Check(
                f"node/{node}/vms", "subset_of", [], "a VM that is on a node when it restarts dies with it"
            ),
        ),
        no_undo="a restart can't be taken back",
        disruption="node",
        rows=(6,),
        deadline=budgets.DEADLINE + TRIES * GONE_DEADLINE + BACK_DEADLINE + UP_DEADLINE + 60.0,
    )


def settle(node: str, checks: Sequence[Check]) -> Action:
    """After the reboot: daemons, policies, OVN and the switch are as they were before it."""
    views = {view_of(check.path) for check in checks}
    return Action(
        id=f"{node}/settle",
        routine="settle@1",
        title=(
            f"as before the restart, within {(PODS_DEADLINE + SETTLE_DEADLINE) / 60:.0f} minutes: daemons Ready, policies "
            "applied again, OVN answers, all mappings and what was verified"
        ),
        node=node,
        args={"node": node, "checks": [[c.path, c.test, c.value, c.why] for c in checks]},
        reads=tuple(sorted({"nodes", *(f"{view}:{node}" for view in _SETTLED_BY), *views})),
        uses=(f"{node}/reboot",),
        done_when=tuple(checks),
        no_undo="it only takes away the note that the restart needed",
        deadline=PODS_DEADLINE + SETTLE_DEADLINE + 60.0,
        rows=(6, 9),
    )


_SETTLED_BY = ("boot", "daemons", "enactments", "ovn", "ovs")


def refuse_stayers(desired: Desired, facts: Facts, nodes: Sequence[str]) -> None:
    """No node is rebooted under a VM that was told to stay. Raises InputError with the place that says so."""
    rollout = desired.rollout
    evacuate = rollout.spec.evacuate if rollout else None
    if rollout is None or evacuate is None or not evacuate.reboot:
        return
    problems = []
    for node in nodes:
        for vm in facts.value(f"node/{node}/vms", []):
            if evacuate.leaving(vm) == "stay":
                field = f"spec.evacuate.vms[{vm}]" if vm in evacuate.vms else "spec.evacuate.default"
                problems.append(desired.problem(f"{rollout.address}#{field}", _stays(vm, node, field)))
    if problems:
        raise InputError(problems)


def _stays(vm: str, node: str, field: str) -> str:
    return (
        f"{field}: {vm} stays on {node}, which is to be rebooted (spec.evacuate.reboot) and would take it down. "
        "Let it live-migrate or restart, or reboot no node."
    )


@routine("reboot@1")
def step_reboot(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Write down the boot that it is in, ask, and wait for another one that is up."""
    node = args["node"]
    at = f"node/{node}/boot"
    note, boot = _note(node, facts, done), facts.get(f"{at}/id")
    if note is None:
        return _begin(args, facts, done)
    if not isinstance(boot, Known):
        return _out_of_reach(node, facts, done)
    if boot.value == note["boot"]:
        return _await_another_boot(args, note, facts, done)
    state = facts.value(f"{at}/state")
    if state == UP:
        return Finished(f"rebooted: boot id {note['boot']} before, {boot.value} now")
    if "up" in done.outcomes:
        return Stop(f"{node} has rebooted and is not up {UP_DEADLINE:g} s later: {state}. {_way_out(node)}")
    check = Check(f"{at}/state", "eq", UP, f"{node} has rebooted and is not up yet")
    return Perform((Wait(label="up", title=f"{node} up", checks=(check,), deadline=UP_DEADLINE),))


def _note(node: str, facts: Facts, done: Done) -> Mapping[str, Any] | None:
    """What this run wrote on the node; from the journal if somebody took it away."""
    note = facts.value(f"node/{node}/boot/note")
    if note and note["run"] == done.run:
        return dict(note)
    before = done.results.get("before") if done.has("note") else None
    return {"boot": before.get(f"node/{node}/boot/id")} if before else None


def _begin(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Before anything is asked for: may the node be rebooted, what is there, and in which boot is it."""
    node = args["node"]
    boot = facts.get(f"node/{node}/boot/id")
    if not isinstance(boot, Known) and done.run != KNOWN_AFTER_APPLY:
        why = boot.why if isinstance(boot, Unknown) else "its object names no boot id"
        return Stop(f"cannot tell in which boot {node} is: {why}", unsure=True)
    if held := _held(args, facts, done):
        return held
    if not done.has("before"):
        views = tuple(f"{view}:{node}" for view in ("ovs", "boot", "daemons", "enactments"))
        title = f"record the switch, daemons and policies of {node}"
        return Perform((Record(label="before", title=title, views=views),))
    return Perform((_write_note(node, facts, done.run),))


def _held(args: Mapping[str, Any], facts: Facts, done: Done) -> Next | None:
    """What keeps the node from being restarted now; a budget of its pods is waited for. None: it may be."""
    return _refusal(args, facts, done.run) or budgets.await_leave(args, facts, done)


def _refusal(args: Mapping[str, Any], facts: Facts, run: str) -> Stop | None:
    """Why the node may not be rebooted now: a VM is on it, or may come to it, or it is in other hands."""
    node = args["node"]
    vms, cordoned = facts.get(f"node/{node}/vms"), facts.get(f"node/{node}/unschedulable")
    for fact, what in ((vms, f"which VMs run on {node}"), (cordoned, f"whether {node} is cordoned")):
        if not isinstance(fact, Known) and run != KNOWN_AFTER_APPLY:
            why = fact.why if isinstance(fact, Unknown) else "the API has no such node"
            return Stop(f"cannot tell {what}: {why}. It is not rebooted", unsure=True)
    holder = facts.value(f"node/{node}/cordoned-by")
    if left := facts.value(f"node/{node}/vms", []):
        why = f"{', '.join(left)} on {node} would die with it"
    elif facts.value(f"node/{node}/unschedulable") is False:
        why = f"{node} was uncordoned, and may be given a VM at any time"
    elif args["own_cordon"] and holder != run:
        why = f"{node} is cordoned by {f'run {holder}' if holder else 'somebody else'} now"
    else:
        return None
    mend = [f"`oc adm cordon {node}`"]
    if args["own_cordon"]:
        mend.append(f"`oc annotate --overwrite node {node} {CORDONED_BY}={run}`")
    return Stop(
        f"{why}: it is not rebooted. Once it is free for this run: {', '.join(mend)}, live-migrate every VM that is on it; "
        "then `ovsplan apply` goes on from here",
        moved=True,
    )


def _write_note(node: str, facts: Facts, run: str) -> Patch:
    at = f"node/{node}/boot"
    note = {
        "boot": facts.value(f"{at}/id", KNOWN_AFTER_APPLY),
        "heard": facts.value(f"{at}/heard", KNOWN_AFTER_APPLY),
        "run": run,
    }
    text = json.dumps(note, sort_keys=True)
    return Patch(
        label="note",
        title=f"write on {node} in which boot it is",
        ref=ObjectRef("v1", "Node", node),
        patch={"metadata": {"annotations": {NOTE: text}}},
        resource_version=facts.value(f"{at}/version"),
        commands=(f"oc annotate node {node} {NOTE}={shlex.quote(text)}",),
        changes=((f"{at}/note", Known(note)), (f"{at}/id", Known(note["boot"]))),
    )


def _await_another_boot(args: Mapping[str, Any], note: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """It was asked for, or may have been by an earlier life of ours: only one that plainly stayed up is asked again."""
    node, asked = args["node"], done.attempts.get("ask", 0)
    if not asked and "note" in done.attempts:
        return _held(args, facts, done) or Perform((_ask(node),))
    if f"went:{asked}" not in done.outcomes:
        return _wait(f"went:{asked}", node, note, GONE_DEADLINE)
    if facts.get(f"node/{node}/ready") == Known(True):
        if asked < TRIES:
            return _held(args, facts, done) or Perform((_ask(node),))
        return Stop(
            f"{node} does not reboot: it was asked {asked} times, is Ready, and still in boot {note['boot']}. "
            f"{_way_out(node)}"
        )
    if f"back:{asked}" not in done.outcomes:
        return _wait(f"back:{asked}", node, note, BACK_DEADLINE)
    return Stop(f"{node} went down and is not back after {BACK_DEADLINE / 60:.0f} minutes. {_way_out(node)}")


def _ask(node: str) -> Run:
    """The request returns at once; the stream that carries it may be cut, which says nothing."""
    return Run(
        label="ask",
        title=f"reboot {node}",
        node=node,
        argv=("systemctl", "reboot"),
        commands=("systemctl reboot",),
    )


def _wait(label: str, node: str, note: Mapping[str, Any], deadline: float) -> Perform:
    path = f"node/{node}/boot/id"
    check = Check(path, "ne", note["boot"], f"{node} has not booted anew yet")
    changes = ((path, Known(f"another than {note['boot']}")),)
    title = f"another boot of {node}"
    return Perform((Wait(label=label, title=title, checks=(check,), deadline=deadline, changes=changes),))


def _out_of_reach(node: str, facts: Facts, done: Done) -> Next:
    """The API could not be asked, or has no such node just now: waited through, as long as for the node itself."""
    fact = facts.get(f"node/{node}/boot/id")
    why = fact.why if isinstance(fact, Unknown) else "the API has no such node"
    if "reached" in done.outcomes:
        return Stop(f"cannot tell whether {node} is back: {why}. {_way_out(node)}", unsure=True)
    check = Check(f"node/{node}/boot/id", "present", why=f"cannot tell whether {node} is back")
    title = f"the API to tell of {node}"
    return Perform((Wait(label="reached", title=title, checks=(check,), deadline=BACK_DEADLINE),))


def _way_out(node: str) -> str:
    return (
        f"It stays cordoned. Look at its console; when it is back, `ovsplan apply` goes on from here. "
        f"To do without it: `ovsplan abandon`, and once it is well `oc annotate node {node} {NOTE}-` "
        f"and `oc adm uncordon {node}`"
    )


@routine("settle@1")
def step_settle(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Daemons first, for the rest depends on them; then everything at once; then the note goes."""
    node = args["node"]
    before = done.used.get(f"{node}/reboot", {}).get("before") or {}
    since = float(before.get(f"node/{node}/boot/heard", 0.0)) + STRICTLY
    daemons, rest = _daemons(node, before, since), _rest(args, before, since)
    for label, title, checks, deadline in (
        ("daemons", f"the daemons of {node} Ready again", daemons, PODS_DEADLINE),
        ("settled", f"{node} as it was before the reboot", [*daemons, *rest], SETTLE_DEADLINE),
    ):
        missed, ended = judge_all(checks, facts), done.outcomes.get(label)
        if missed and ended == "timed-out":
            why = "; ".join(_words(one) for one in missed)
            return Stop(
                f"not as before the reboot within {deadline / 60:.0f} minutes: {why}. {_way_out(node)}"
            )
        if missed and not (ended and done.run == KNOWN_AFTER_APPLY):
            awaited = tuple(one.check for one in missed)
            return Perform((Wait(label=label, title=title, checks=awaited, deadline=deadline),))
    if isinstance(ready := facts.get(f"node/{node}/ready"), Unknown):
        return Stop(f"cannot tell whether {node} is Ready: {ready.why}", unsure=True)
    note = facts.value(f"node/{node}/boot/note")
    if note and note["run"] == done.run:
        return Perform((_take_note_away(node, facts),))
    applied = before.get(f"node/{node}/enacted", [])
    told = [f"{len(daemons)} daemon(s) Ready again"] if daemons else []
    told += [f"{len(applied)} polic{'y' if len(applied) == 1 else 'ies'} applied again"] if applied else []
    return Finished("; ".join([*told, f"{len(rest)} checks hold"]))


def _words(missed: Fails | CannotTell) -> str:
    """Of an instant that was not reached people want to hear what is late, not the seconds."""
    late = missed.check.test == "min" and isinstance(missed, Fails)
    return missed.check.why if late and missed.check.why else str(missed)


def _daemons(node: str, before: Mapping[str, Any], since: float) -> list[Check]:
    """Those that were there before are Ready since the reboot; KubeVirt takes the node again if it did."""
    at = f"node/{node}"
    checks = [
        Check(f"{at}/daemon/{name}", "min", since, f"{name} of {node} is not Ready since the reboot")
        for name in before.get(f"{at}/daemons", [])
    ]
    if before.get(f"{at}/boot/schedulable") == "true":
        checks.append(Check(f"{at}/boot/schedulable", "eq", "true", f"KubeVirt does not take {node} yet"))
    return checks


def _rest(args: Mapping[str, Any], before: Mapping[str, Any], since: float) -> list[Check]:
    node = args["node"]
    at = f"node/{node}"
    checks = [Check(f"{at}/boot/state", "eq", UP), Check(f"{at}/ovn/version", "present")]
    if (pairs := before.get(f"{at}/ovs/mappings")) is not None:
        checks.append(Check(f"{at}/ovs/mappings", "eq", pairs))
    checks += [
        Check(f"{at}/enacted/{name}", "min", since, f"policy {name} is not applied again on {node}")
        for name in before.get(f"{at}/enacted", [])
    ]
    # What had failed before may fail again.
    checks.append(Check(f"{at}/enacting", "subset_of", before.get(f"{at}/enacting", [])))
    return [*checks, *(Check(*c) for c in args["checks"])]


def _take_note_away(node: str, facts: Facts) -> Patch:
    at = f"node/{node}/boot"
    return Patch(
        label="forget",
        title=f"take the note off {node}",
        ref=ObjectRef("v1", "Node", node),
        patch={"metadata": {"annotations": {NOTE: None}}},
        resource_version=facts.value(f"{at}/version"),
        commands=(f"oc annotate node {node} {NOTE}-",),
        changes=((f"{at}/note", ABSENT),),
    )
