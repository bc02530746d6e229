"""A plan as text: what changes and why, what it costs whom, what is dangerous, and what is done in which order."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from itertools import groupby

import click

from plans.actions import Action
from plans.bracket import NOTHING_MOVES
from plans.document import Finding, NodePlan, Plan, ShownChange

COLOURS = {"+": "green", "~": "yellow", "-": "red", "-/+": "red"}
MEANING = {"+": "create", "~": "update in place", "-": "destroy", "-/+": "destroy, then create"}
WIDTH = 110
NO_NMSTATE = "the cluster serves no nmstate API"
"""The one reason for a delivery that needs no telling: there is no other."""


def render_plan(plan: Plan) -> str:
    """The whole screen below the `Target:` line."""
    parts = [*_resources(plan), *_findings(plan.findings)]
    if plan.is_empty:
        if plan.is_partial:
            parts.append("No changes can be made: what is wanted is blocked, see above.")
        else:
            parts.append("No changes. The nodes are as the files declare.")
        return "\n\n".join(parts)
    parts.append(_steps(plan))
    restarts = any(node.restarting for node in plan.nodes)
    if not restarts and not any(c.address.startswith(("network/", "attachment/")) for c in plan.cluster):
        parts.append("No NetworkAttachmentDefinition and no VirtualMachine is changed.")
    parts.append(summary(plan))
    parts += [textwrap.fill(sentence, WIDTH) for sentence in plan.afterwards]
    if blocking := plan.blocking():
        ids = sorted({f.id for f in blocking})
        accept = " ".join(f"--accept-hazard {i}" for i in ids)
        parts.append(
            click.style(f"Blocked by {', '.join(ids)}.", fg="red", bold=True)
            + f" Mend it as said above, or accept it by id: {accept}"
        )
    return "\n\n".join(parts)


def summary(plan: Plan) -> str:
    """The two lines that everybody reads."""
    verbs = Counter(change.verb for change in _all_changes(plan))
    add, change, destroy = verbs["+"] + verbs["-/+"], verbs["~"], verbs["-"] + verbs["-/+"]
    touched = [n.node for n in plan.nodes if n.changes]
    affected = sorted({vm for n in plan.nodes for vm in n.affected})
    cut = sum(1 for n in plan.nodes if n.affected)
    told = [f"vm-traffic on {_count(cut, 'node')}, {_count(len(affected), 'VM')}"] if affected else []
    reboots = sum(1 for n in plan.nodes if n.reboots)
    told += [f"{_count(reboots, 'node')} {'restarts' if reboots == 1 else 'restart'}"] if reboots else []
    at = [i for i, a in enumerate(plan.actions) if a.node]
    first = at[0] if at else 0
    for when, actions in (
        ("before the first", plan.actions[:first]),
        ("after the last", plan.actions[first:]),
    ):
        cut_off = sorted({vm for a in actions if not a.node and a.disruption != "none" for vm in a.vms})
        told += [f"{when} node {_count(len(cut_off), 'VM')} ({_short(cut_off)})"] if cut_off else []
    plugged = sorted({vm for a in plan.actions if a.routine == "hotplug@1" for vm in a.vms})
    told += [f"{_count(len(plugged), 'VM')} may live-migrate ({_short(plugged)})"] if plugged else []
    disruption = "; ".join(told) or "none"
    return (
        f"Plan: {add} to add, {change} to change, {destroy} to destroy.\n"
        f"Nodes: {len(touched)}{f' ({_short(touched)})' if touched else ''}  Disruption: {disruption}"
    )


def _all_changes(plan: Plan) -> list[ShownChange]:
    return [*plan.cluster, *(change for node in plan.nodes for change in node.changes)]


def _resources(plan: Plan) -> list[str]:
    """The changes: those before the first node, node by node, and those after the last."""
    used = sorted({c.verb for c in _all_changes(plan)}, key=list(MEANING).index)
    blocks = []
    if used:
        legend = ", ".join(f"{click.style(v, fg=COLOURS[v])} {MEANING[v]}" for v in used)
        blocks.append(f"Resource actions are indicated with the following symbols: {legend}")
    blocks += _cluster(plan, "prologue", "the cluster, before the first node")
    blocks += [_node(n) for n in plan.nodes if n.changes or n.blocked or n.unreadable]
    blocks += _cluster(plan, "epilogue", "the cluster, after the last node")
    if plan.cluster_blocked:
        lines = [click.style("the cluster", bold=True)]
        for blocked in plan.cluster_blocked:
            lines += _blocked(blocked.address, blocked.reasons)
        blocks.append("\n".join(lines))
    return blocks


def _cluster(plan: Plan, phase: str, title: str) -> list[str]:
    changes = [c for c in plan.cluster if c.phase == phase]
    lines = [click.style(title, bold=True)]
    for change in changes:
        lines += _change(change)
    return ["\n".join(lines)] if changes else []


def _change(change: ShownChange) -> list[str]:
    symbol = click.style(f"{change.verb:>3}", fg=COLOURS[change.verb])
    lines = [f"{symbol} {change.address}: {change.before} -> {change.after}", f"      ({change.why})"]
    if change.delivery and change.delivery_why != NO_NMSTATE:
        lines.append(f"      (by {change.delivery}: {change.delivery_why})")
    return lines


def _blocked(address: str, reasons: Iterable[str]) -> list[str]:
    head = f"{click.style('  !', fg='red')} {address}: {click.style('blocked', fg='red')}"
    return [head, *(f"      {reason}" for reason in reasons)]


def _node(node: NodePlan) -> str:
    name = click.style(node.node, bold=True)
    if node.unreadable:
        return f"{name}  {click.style('BLOCKED', fg='red')}: it cannot be read: {node.unreadable}. Nothing is planned for it."
    head = name + (
        f"  {click.style(node.shape, bold=True)}, by {node.delivery}: {node.why}" if node.changes else ""
    )
    lines = [head]
    for change in node.changes:
        lines += _change(change)
    for blocked in node.blocked:
        lines += _blocked(blocked.address, blocked.reasons)
    lines += [f"    label {way}" for way in node.labels]
    if node.dark:
        lines.append(f"    without network now: {', '.join(node.dark)}")
    if migrating := [vm for vm in node.leaving if vm not in node.restarting]:
        lines.append(f"    leave first, by live migration: {', '.join(migrating)}")
    if node.restarting:
        lines.append(f"    leave first, by a restart elsewhere: {', '.join(node.restarting)}")
    lines += [f"      {way}" for way in node.ways]
    if node.staying:
        lines.append(f"    stay, by the rollout: {', '.join(node.staying)}")
    if node.proof:
        lines.append(f"    proof: {node.proof}")
    if moved := [vm for vm in node.affected if vm not in node.restarting]:
        link = node.why.startswith(NOTHING_MOVES)
        when = "while a link may be down" if link else "while their path moves (measured: ~20 ms)"
        lines.append(f"    disruption: vm-traffic of {', '.join(moved)}, {when}")
    if node.restarting:
        lines.append(f"    disruption: down between stop and start: {', '.join(node.restarting)}")
    if node.reboots:
        lines.append("    disruption: the node restarts, and with it the pods that stay on it")
    if node.changes and not node.affected and not node.reboots:
        lines.append("    disruption: none")
    return "\n".join(lines)


def _findings(findings: Iterable[Finding]) -> list[str]:
    """Hazards; those that say the same of several nodes are told once."""
    lines = []
    order = sorted(findings, key=lambda f: (not f.blocks, f.id, f.way_out, f.node))
    for (_, _, way_out), group in groupby(order, key=lambda f: (not f.blocks, f.id, f.way_out)):
        same = list(group)
        first = same[0]
        level = "ACCEPTED" if first.accepted else "BLOCKS" if first.blocks else "note"
        colour = {"BLOCKS": "red", "ACCEPTED": "yellow", "note": "cyan"}[level]
        for finding in same[:3]:
            lines.append(_wrap(f"{finding.id} {level}: {finding.message}", colour, f"{finding.id} {level}:"))
        if len(same) > 3:
            lines.append(
                f"      (and the same for {_count(len(same) - 3, 'more')}: {_short([f.node for f in same[3:]])})"
            )
        lines.append(_fill(f"way out: {way_out}", "      "))
    return ["Hazards\n" + "\n".join(lines)] if lines else []


def _wrap(text: str, colour: str, head: str) -> str:
    return _fill(text, "  ").replace(head, click.style(head, fg=colour), 1)


_KEPT = "\0"


def _fill(text: str, indent: str) -> str:
    """Wrapped at blanks, and not within a command: a line that is broken there can't be copied."""
    whole = re.sub(r"`[^`]*`", lambda found: found[0].replace(" ", _KEPT), text)
    wrapped = textwrap.fill(
        whole,
        WIDTH,
        initial_indent=indent,
        subsequent_indent="      ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    return wrapped.replace(_KEPT, " ")


def _steps(plan: Plan) -> str:
    lines = ["Steps, one node at a time"]
    numbered = list(enumerate(plan.actions, start=1))
    width = len(str(len(numbered)))
    names = max((len(_name(a)) for a in plan.actions), default=0)
    for node, group in groupby(numbered, key=lambda pair: pair[1].node):
        for number, action in group:
            shown = f"{_name(action):<{max(18, min(names, 34))}}"
            lines.append(f"  {number:>{width}}  {node or '-':<12} {shown} {_title(action)}".rstrip())
    return "\n".join(lines)


def _name(action: Action) -> str:
    return action.id.removeprefix(f"{action.node}/") if action.node else action.id


def _title(action: Action) -> str:
    return (
        ""
        if action.title == action.id.rpartition("/")[2]
        else textwrap.shorten(action.title, 90, placeholder=" …")
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 or noun == "more" else "s")


def _short(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:4])}, … {names[-1]}"
