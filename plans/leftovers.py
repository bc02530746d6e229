"""Leftovers: what a run that is given up leaves in the cluster besides cordons, and what takes each away.

Pure: a plan, what the journal has of its ops, and the policies that the inventory saw. The one invariant: what may be
there is told, so an op of which nobody knows what came of it counts when it puts something there, and not when it takes
it away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plans.document import Plan
from plans.maintenance.canary import LIFE_SECONDS
from plans.maintenance.power import left_noted
from plans.networks import listed
from plans.nmstate import documents
from plans.nmstate.enforcing import DONE
from plans.nmstate.policies import POLICY
from plans.progress import WAITING, StepState
from plans.readings.l2advertisements import ADVERTISEMENT
from plans.readings.maintenance import POD
from plans.readings.reboots import NOTE

CERTAIN = ("done", "first")
POSSIBLE = (*CERTAIN, "doubt", None)
"""What the journal says of an op that was done, or may have been."""

NAMED = 10
"""How many policies of single nodes are named."""

DROPPED = "What deletes it, which reverts nothing on a node"


@dataclass(frozen=True, slots=True)
class Deed:
    """One op of a run, in the order in which they were begun: the action's id, its label, the op and its outcome."""

    action: str
    label: str
    op: Mapping[str, Any]
    outcome: str | None

    @property
    def object(self) -> tuple[str, str, str]:
        """Kind, namespace and name of what it was done to; empty for what is no object of the cluster."""
        ref = self.op.get("ref") or {}
        return ref.get("kind", ""), ref.get("namespace") or "", ref.get("name", "")


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that is left, as a sentence without its stop, and the commands for it; none where it goes by itself.

    `vm`: the VM that it is about, and of which a look at the cluster may say that it is left no more.
    """

    what: str
    commands: tuple[str, ...] = ()
    vm: str = ""


def leftovers(
    plan: Plan,
    steps: Mapping[str, StepState],
    deeds: Sequence[Deed],
    before: Mapping[str, Mapping[str, Any]],
    export: str,
) -> list[Leftover]:
    """Everything that is left. `before`: the manifests of the policies that were there when the run began.

    `export`: the command that prints the export of a policy, whose name takes the place of `{}`.
    """
    over = {name for name, step in steps.items() if step.status == "done"}
    return [
        *_policies(plan, over, deeds, before, export, _changed(plan, steps)),
        *_labels(deeds),
        *_advertisements(plan, deeds),
        *_reboot_notes(over, deeds),
        *_notes_on_vms(over, deeds),
        *_canaries(plan, over, deeds),
    ]


def _changed(plan: Plan, steps: Mapping[str, StepState]) -> list[str]:
    """The nodes on which the run has changed something of what was declared, or may have."""
    touched = (a.node for a in plan.actions if a.address and steps.get(a.id, WAITING).acted)
    return [node for node in dict.fromkeys(touched) if node]


@dataclass(slots=True)
class _Fate:
    """What became of one policy: written or deleted last, and for which node it is, if for one."""

    written: bool = False
    deleted: bool = False
    node: str = ""


def _fates(plan: Plan, over: Collection[str], deeds: Iterable[Deed]) -> dict[str, _Fate]:
    actions = {action.id: action for action in plan.actions}
    found: dict[str, _Fate] = {}
    for deed in deeds:
        kind, _, name = deed.object
        if kind != POLICY[1] or deed.action not in actions or deed.outcome not in POSSIBLE:
            continue
        fate, action = found.setdefault(name, _Fate()), actions[deed.action]
        fate.node = fate.node or action.node
        if deed.op["op"] != "delete":
            fate.written, fate.deleted = True, False
        elif deed.outcome in CERTAIN or not fate.written:
            fate.written, fate.deleted = False, True
    for action in plan.actions:
        # A copy of a run tells no more of an action that is over than that it acted.
        if action.id in over and action.routine == "finalise-policy@1":
            for name in action.args["drop"]:
                found[name] = _Fate()
    return found


def _policies(
    plan: Plan,
    over: Collection[str],
    deeds: Sequence[Deed],
    before: Mapping[str, Mapping[str, Any]],
    export: str,
    changed: Sequence[str],
) -> list[Leftover]:
    fates = _fates(plan, over, deeds)
    found = []
    for name, fate in sorted(fates.items()):
        if fate.node:
            continue
        print_it = export.replace("{}", f"policy/{name}")
        if name in before and fate.deleted:
            what = f"Policy {name} was exported and deleted by this run, and {_instead(name, plan, fates, before)}"
            danger = _danger(_under(name, plan, changed))
            found.append(Leftover(f"{what}. {danger}", (f"{print_it} | oc create -f -",)))
        elif name in before and fate.written:
            what = f"Policy {name} was there before this run, which has replaced its spec. {_danger(changed)}"
            found.append(Leftover(what, (f"{print_it} | oc replace -f -",)))
        elif fate.written:
            what = f"Policy {name}, made by this run, stays: the next run of the same files goes on with it. {DROPPED}"
            found.append(Leftover(what, (f"oc delete nncp {name}",)))
    return [*found, *_of_single_nodes(fates)]


def _instead(
    name: str, plan: Plan, fates: Mapping[str, _Fate], before: Mapping[str, Mapping[str, Any]]
) -> str:
    """Whether anything has come in the place of a policy that was deleted: a policy that maps one of its localnets."""
    mapped = documents.mapped_pairs(before[name]["spec"].get("desiredState") or {})
    heirs = [
        action.args["policy"]
        for action in plan.actions
        if action.routine in ("finalise-policy@1", "prepare-policy@1")
        if documents.mapped_pairs(action.args["document"]).keys() & mapped.keys()
    ]
    there = sorted({heir for heir in heirs if heir in fates and fates[heir].written})
    return f"{listed(there, NAMED)} came in its place" if there else "nothing has come in its place yet"


def _under(name: str, plan: Plan, changed: Sequence[str]) -> list[str]:
    """The changed nodes that had enacted a policy before it was deleted."""
    action = plan.action(f"policy/{name}/withdraw")
    return [node for node in changed if action is None or node in action.args["nodes"]]


def _danger(changed: Sequence[str]) -> str:
    """What comes of putting a policy back as it was."""
    if not changed:
        return "Put back, it changes nothing: no node of it was changed yet. What puts it back"
    return f"Put back, it undoes what was done on {listed(changed, NAMED)} (H04). What puts it back"


def _of_single_nodes(fates: Mapping[str, _Fate]) -> list[Leftover]:
    own = {name: fate.node for name, fate in sorted(fates.items()) if fate.node and fate.written}
    if not own:
        return []
    nodes = listed(sorted({*own.values()}), NAMED)
    what = (
        f"Made by this run for one node each ({nodes}), {listed(list(own), NAMED)} stay{'s' if len(own) == 1 else ''}: the next run "
        f"of the same files goes on from there, and drops {'it' if len(own) == 1 else 'them'} at its end. {DROPPED}"
    )
    return [Leftover(what, (f"oc delete nncp {' '.join(own)}",))]


def _labels(deeds: Iterable[Deed]) -> list[Leftover]:
    """The labels by which nodes are led from one policy to the next, on nodes that have not come to the last one."""
    last: dict[tuple[str, str], str] = {}
    for deed in deeds:
        kind, _, node = deed.object
        if kind == "Node" and deed.op["op"] == "patch" and deed.outcome in POSSIBLE:
            labels = (deed.op.get("patch") or {}).get("metadata", {}).get("labels", {})
            last |= {(node, key): value for key, value in labels.items()}
    return [
        Leftover(
            f"{node} has the label {key}={value} of this run: the next run of the same files leads it on"
        )
        for (node, key), value in last.items()
        if value != DONE
    ]


def _advertisements(plan: Plan, deeds: Iterable[Deed]) -> list[Leftover]:
    """What was widened before the first node and would have been narrowed after the last: until then it lists both."""
    wide: dict[str, tuple[str, list[str]]] = {}
    for deed in deeds:
        kind, space, name = deed.object
        if kind != ADVERTISEMENT[1] or deed.op["op"] != "patch":
            continue
        widened, narrowed = deed.action.endswith("/widen"), deed.action.endswith("/narrow")
        if widened and deed.outcome in POSSIBLE:
            wide[f"{space}/{name}"] = (
                deed.action,
                (deed.op.get("patch") or {}).get("spec", {}).get("interfaces", []),
            )
        elif narrowed and deed.outcome in CERTAIN:
            wide.pop(f"{space}/{name}", None)
    found = []
    for key, (by, interfaces) in wide.items():
        action = plan.action(by)
        if action is None or plan.action(by.removesuffix("widen") + "narrow") is None:
            continue  # what it lists is what was declared
        what = f"L2Advertisement {key} lists {', '.join(interfaces)} since this run: the next run of the same files narrows it"
        back = action.undo_commands
        found.append(
            Leftover(f"{what}. What puts it back, once no node needs what was added" if back else what, back)
        )
    return found


def _reboot_notes(over: Collection[str], deeds: Iterable[Deed]) -> list[Leftover]:
    noted: dict[str, None] = {}
    for deed in deeds:
        kind, _, node = deed.object
        notes = _annotations(deed) if kind == "Node" else {}
        if notes.get(NOTE) and deed.outcome in POSSIBLE:
            noted[node] = None
        elif NOTE in notes and deed.outcome in CERTAIN:
            noted.pop(node, None)
    return [
        Leftover(
            f"{node} may still have the annotation {NOTE} of its restart, which no other run goes by. What takes it off",
            (f"oc annotate node {node} {NOTE}-",),
        )
        for node in noted
        if f"{node}/settle" not in over
    ]


def _annotations(deed: Deed) -> Mapping[str, Any]:
    patch = deed.op.get("patch") if deed.op["op"] == "patch" else None
    found: Mapping[str, Any] = (patch or {}).get("metadata", {}).get("annotations") or {}
    return found


def _notes_on_vms(over: Collection[str], deeds: Iterable[Deed]) -> list[Leftover]:
    left = left_noted((d.label, d.op, d.outcome) for d in deeds if d.action not in over)
    what = "VM {} was started again, and may not have its run strategy back, which is noted on it. What gives it back"
    return [Leftover(what.format(vm), (command,), vm) for vm, command in left.items()]


def _canaries(plan: Plan, over: Collection[str], deeds: Iterable[Deed]) -> list[Leftover]:
    actions = {a.id: a for a in plan.actions if a.routine == "canary@1" and a.id not in over}
    pods: dict[tuple[str, str], str] = {}
    for deed in deeds:
        kind, space, name = deed.object
        if kind != POD[1] or deed.action not in actions:
            continue
        if deed.op["op"] == "create" and deed.outcome in POSSIBLE:
            pods[space, name] = actions[deed.action].node
        elif deed.op["op"] == "delete" and deed.outcome in CERTAIN:
            pods.pop((space, name), None)
    return [
        Leftover(
            f"Canary pod {space}/{name} may still be on {node}: it ends {LIFE_SECONDS // 60} minutes after it began, "
            "and the next run of the same files takes it away. What does so now",
            (f"oc delete pod {name} -n {space}",),
        )
        for (space, name), node in pods.items()
    ]
