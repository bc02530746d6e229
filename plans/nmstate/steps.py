"""The steps of a policy of the cluster: withdrawn, had ready for a label, made final for all its nodes.

Invariant: nothing is deleted before it is exported, unless ovsplan made it for one node; and a policy for all nodes is
written only while it selects none but those that the plan led there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plans.actions import Done, Finished, Next, Perform, Stop, routine
from plans.checks import Check
from plans.facts import Facts, Known, Unknown
from plans.networks import listed
from plans.nmstate import enactments, policies
from plans.ops import AnyOp, ListRequest, Record, Wait

GONE_DEADLINE = 60.0
"""Seconds for the handlers to drop the enactments of a deleted policy (measured: 2 to 70 ms)."""

NAMED = 20
"""How many of the nodes that a policy did not reach are named."""

AT_ONCE = 1
"""maxUnavailable of the shared policy: one failed node must not let half the others follow (H07)."""


@routine("withdraw-policy@1")
def withdraw(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Export a policy, delete it, and see its enactments gone."""
    name = args["policy"]
    if isinstance(fact := facts.get(f"policy/{name}"), Unknown):
        return Stop(f"cannot tell whether policy {name} is there: {fact.why}", unsure=True)
    if isinstance(fact, Known):
        if "export" not in done.outcomes:
            return Perform(
                (
                    Record(
                        label="export",
                        title=f"export policy {name}",
                        views=(f"policy:{name}",),
                        requests=(ListRequest(*policies.POLICY, fields=(("metadata.name", name),)),),
                    ),
                )
            )
        if facts.value(f"policy/{name}/editable") is False and "ended" not in done.outcomes:
            # An apply that runs is completed, also after the policy is deleted: it would strike later (H39).
            return Perform((enactments.await_editable("ended", name),))
        if done.attempts.get("delete", 0) >= 3:
            return Stop(f"policy {name} comes back after it is deleted: somebody else makes it", moved=True)
        return Perform((policies.delete_op("delete", name, facts, tuple(args["nodes"])),))
    left = facts.value(f"policy/{name}/enacted-on", [])
    if not left:
        return Finished(f"policy {name} is gone; its export is kept with the run")
    if "gone" in done.outcomes:
        return Finished(f"policy {name} is gone; the handler of {', '.join(left)} has not noticed yet")
    return Perform((_await_gone("gone", name),))


def _await_gone(label: str, name: str) -> Wait:
    check = Check(f"policy/{name}/enacted-on", "eq", [], f"an enactment of policy {name} is still there")
    # A policy and its enactments, all gone, have no path of their own any more: absent is as good.
    return Wait(
        label=label,
        title=f"enactments of {name} gone",
        checks=(check,),
        unless=(Check(check.path, "absent"),),
        deadline=GONE_DEADLINE,
    )


@routine("prepare-policy@1")
def prepare(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Have a policy there that selects nobody yet."""
    name = args["policy"]
    if isinstance(served := facts.get("cluster/nmstate"), Unknown):
        return Stop(f"cannot tell how policy {name} stands: {served.why}", unsure=True)
    wanted = policies.body(name, args["selector"], args["document"], AT_ONCE, args.get("network", ""))
    if policies.is_applied(facts, wanted):
        return _prepared(args, facts, done)
    if (stop := _come_too_early(args, facts)) is not None:
        return stop
    if (wait := enactments.not_editable(args, facts, done)) is not None:
        return wait
    if done.attempts.get("policy", 0) >= 3:
        return Stop(
            f"policy {name} was changed 3 times after it was applied: somebody else edits it", moved=True
        )
    return Perform((policies.write_op("policy", wanted, facts),))


def _prepared(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """The policy is there; nodes that the plan saw under it already obey it before the first node's turn."""
    name, nodes = args["policy"], args.get("selected", [])
    _, available, failed = (facts.value(path, []) for path in enactments.by_node(name))
    left = [node for node in nodes if node not in available]
    if not left:
        return Finished(f"policy {name} is there")
    if "enacted" in done.outcomes or left[0] in failed:
        return Stop(enactments.failure(facts, left[0], name))
    return Perform((enactments.await_everywhere("enacted", nodes, name),))


def _come_too_early(args: Mapping[str, Any], facts: Facts) -> Stop | None:
    """A node that the plan did not see under the policy, and that has its label's value by now.

    A plan of an earlier version did not look: its action has no `selected`, and does not read the nodes.
    """
    if "selected" not in args:
        return None
    name = args["policy"]
    if isinstance(every := facts.get("cluster/nodes"), Unknown):
        return Stop(f"cannot tell which nodes policy {name} selects: {every.why}", unsure=True)
    if strangers := sorted(set(policies.selected(facts, args["selector"])) - set(args["selected"])):
        return Stop(
            f"{', '.join(strangers)} came under policy {name} since the plan, and would be changed before its turn, its VMs there: "
            "plan again, which says how it is led there",
            moved=True,
        )
    return None


@routine("finalise-policy@1")
def finalise(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Apply the shared policy, await each node's enactment, then drop the policies of single nodes."""
    name, nodes = args["policy"], args["nodes"]
    if isinstance(served := facts.get("cluster/nmstate"), Unknown):
        return Stop(f"cannot tell how policy {name} stands: {served.why}", unsure=True)
    if isinstance(every := facts.get("cluster/nodes"), Unknown):
        return Stop(f"cannot tell which nodes policy {name} selects: {every.why}", unsure=True)
    matching = policies.selected(facts, args["selector"])
    if strangers := sorted(set(matching) - set(nodes)):
        return Stop(
            f"{', '.join(strangers)} came under policy {name} since the plan, and would be changed at one stroke, its VMs there: "
            "plan again, which leads it there like the others",
            moved=True,
        )
    nodes = [node for node in nodes if node in matching]
    wanted = policies.body(name, args["selector"], args["document"], args["at_once"], args.get("network", ""))
    if not policies.is_applied(facts, wanted):
        editable = facts.get(f"policy/{name}/editable")
        if isinstance(editable, Known) and not editable.value and "editable" not in done.outcomes:
            return Perform((enactments.await_editable("editable", name),))
        if done.attempts.get("policy", 0) >= 3:
            return Stop(
                f"policy {name} was changed 3 times after it was applied: somebody else edits it", moved=True
            )
        return Perform((policies.write_op("policy", wanted, facts),))
    _, available, failed = (facts.value(path, []) for path in enactments.by_node(name))
    left = [node for node in nodes if node not in available]
    if over := [node for node in left if node in failed]:
        return Stop(enactments.failure(facts, over[0], name))
    if left and "enacted" in done.outcomes:
        others = f"; still to come: {listed(left[1:], NAMED)}" if len(left) > 1 else ""
        return Stop(enactments.failure(facts, left[0], name) + others)
    if left:
        return Perform((enactments.await_everywhere("enacted", nodes, name),))
    drops: list[AnyOp] = [
        policies.delete_op(f"drop:{policy}", policy, facts)
        for policy in args["drop"]
        if policies.exists(facts, policy)
    ]
    if drops and all(done.attempts.get(op.label, 0) < 3 for op in drops):
        return Perform(tuple(drops))
    if drops:
        return Stop(
            f"policies come back after they are deleted: {', '.join(op.label.partition(':')[2] for op in drops)}"
        )
    return Finished(f"policy {name} is Available on {len(nodes)} nodes")
