"""The remap by a policy: nmstate writes the mapping, and what it does not do is done by the steps of the other ways.

Invariant: after a failure no policy is left trying, and the localnet is on a bridge that has an uplink (H42).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from plans import ovs
from plans.actions import Done, Finished, Next, Perform, Stop, routine
from plans.checks import Check
from plans.facts import Facts, Unknown
from plans.guests import switch_ports_of
from plans.nmstate import enactments, enforcing, policies
from plans.ops import AnyOp, Wait
from plans.remap import before, cold, hot, rescue


def _contingent(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    """What follows a policy where OVN or vswitchd do not do their part, besides what a remap by OVSDB may call for."""
    node, to = args["node"], args["bridge"]
    view = facts.value(f"node/{node}/ovs")
    mapped = ovs.with_mapping(view, ovs.set_pair(view["mapping"], args["localnet"], to)) if to else view
    after = facts.with_changes(ovs.changes(node, view, mapped))
    moved = {
        lsp: ovs.bridges_of_port(mapped, ovs.outer_port(lsp))
        for lsp in switch_ports_of(facts, view, args["localnet"])
    }
    strays = {lsp: homes for lsp, homes in moved.items() if homes and homes != [to]}
    if args["cold"] or not to:
        lsps = list(switch_ports_of(facts, view, args["localnet"]))
        whole = mapped
        for lsp in lsps:
            if not ovs.bridges_of_port(whole, ovs.outer_port(lsp)):
                whole = ovs.with_patch(
                    whole, to or args["from"], ovs.outer_port(lsp), ovs.inner_port(lsp), lsp
                )
            if not ovs.bridges_of_port(whole, ovs.inner_port(lsp)):
                whole = ovs.with_patch(
                    whole, ovs.INTEGRATION_BRIDGE, ovs.inner_port(lsp), ovs.outer_port(lsp), lsp
                )
        return (
            (replace(cold.take_down(args, whole, lsps, mapped["mapping"], []), label="move:otherwise"),)
            if lsps
            else ()
        )
    moves = (
        tuple(replace(op, label=f"{op.label}:otherwise") for op in hot.move_ops(args, after, mapped, strays))
        if strays
        else ()
    )
    return (*moves, *hot.contingent(args, after))


def _rescue_ops(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    """What a failure may call for: the policy taken back, and the localnet led to where there is an uplink."""
    return (enforcing.retract_op("withdraw", args, facts), *rescue.foreseen(args, facts))


def _rescue(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """After a failure: no policy is left trying, and the localnet is on a bridge that has an uplink.

    nmstate rolls NetworkManager back, and not the mapping (H42): so the mapping is read first, whatever else failed.
    """
    node, name, localnet = args["node"], args["policy"], args["localnet"]
    if isinstance(fact := facts.get(f"node/{node}/ovs"), Unknown):
        why = f"cannot tell where {localnet} is mapped on {node} now: {fact.why}"
        return Stop(why + rescue.dark(args, facts), unsure=True)
    if (ahead := enforcing.taken_back(args, facts, done)) is not None:
        return ahead
    if (
        enactments.state(facts, node, name) not in ("waiting", "available", "unknown")
        and "withdrawn" not in done.outcomes
    ):
        # An apply that runs is completed, also after the delete: what it writes is waited for.
        return Perform((enactments.await_ended("withdrawn", node, name),))
    return rescue.lead_to_an_uplink(args, facts, done)


@routine("policy-remap@1", rescue=_rescue, contingent=_contingent, on_failure=_rescue_ops)
def policy_remap(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Let nmstate write the mapping, then see that the path follows it, then that the enactment is Available."""
    view = before.readable(args, facts)
    if isinstance(view, Stop):
        return view
    node, name, to = args["node"], args["policy"], args["bridge"]
    if isinstance(served := facts.get("cluster/nmstate"), Unknown):
        return Stop(f"cannot tell how policy {name} stands: {served.why}", unsure=True)
    if args["cold"] and (stay := before.still_here(args, facts)) is not None:
        return stay
    if (settle := before.ovn_settle(args, facts, done)) is not None:
        return settle
    if not enforcing.in_force(args, facts):
        return _write_policy(args, facts, view, done)
    mapped = ovs.parse_mappings(view["mapping"]).get(args["localnet"])
    state = enactments.state(facts, node, name)
    if mapped != (to or None):
        if state in enactments.OVER[1:]:
            return Stop(enactments.failure(facts, node, name))
        if state == "waiting" and (done.outcomes.get("begun") == "timed-out" or "mapped" in done.outcomes):
            return Stop(enactments.failure(facts, node, name))
        if state == "available" or "mapped" in done.outcomes:
            return Stop(
                f"policy {name} is {state} on {node}, and {args['localnet']} is still mapped to {mapped or 'no bridge'}"
            )
        if "begun" not in done.outcomes:
            return Perform((_await_handler(args),), unbroken=True)
        return Perform((_await_mapping(args, view),), unbroken=True)
    follow = (cold.cold_remap if args["cold"] else hot.hot_remap) if to else cold.unmap
    upcoming = follow(args, facts, done)
    if not isinstance(upcoming, Finished):
        return upcoming
    if state in enactments.OVER[1:]:
        return Stop(enactments.failure(facts, node, name))
    if state != "available":
        if done.outcomes.get("enacted") == "timed-out" or done.attempts.get("enacted", 0) >= policies.EDITS:
            return Stop(enactments.failure(facts, node, name))
        return Perform((enactments.await_enactment("enacted", node, name, unless=_dark(node, to)),))
    if "others" not in done.outcomes and (wait := enforcing.await_others("others", args, facts)) is not None:
        return Perform((wait,))
    return upcoming


def _dark(node: str, bridge: str | None) -> tuple[Check, ...]:
    """That the bridge has lost its uplink: what a handler goes on trying is not waited for while VMs are dark."""
    at = f"node/{node}/ovs/bridge/{bridge}"
    return (Check(f"{at}/uplinks", "eq", []), Check(at, "absent")) if bridge else ()


def _write_policy(args: Mapping[str, Any], facts: Facts, view: ovs.View, done: Done) -> Next:
    """The before-image, then the policy and the wait for the mapping: what follows a changed mapping can't wait."""
    name = args["policy"]
    if (wait := enactments.not_editable(args, facts, done)) is not None:
        return wait
    if "before" not in done.outcomes:
        return Perform((before.image(args, view, {}),))
    if done.attempts.get("policy", 0) >= policies.EDITS:
        return Stop(
            f"policy {name} was changed {policies.EDITS} times after it was applied: somebody else edits it",
            moved=True,
        )
    burst: list[AnyOp] = [enforcing.enforce_op("policy", args, facts)]
    if ovs.parse_mappings(view["mapping"]).get(args["localnet"]) != (args["bridge"] or None):
        burst.append(_await_handler(args))
    return Perform(tuple(burst), unbroken=True)


def _await_handler(args: Mapping[str, Any]) -> Wait:
    """Wait until the node's handler has begun with the policy: one that never begins is not waited for any longer."""
    node, name, localnet, to = args["node"], args["policy"], args["localnet"], args["bridge"]
    state, mapping = enactments.state_path(node, name), f"node/{node}/ovs/mapping/{localnet}"
    why = f"policy {name} has not reached the handler of {node} yet"
    return Wait(
        label="begun",
        title=f"the handler of {node} has begun with policy {name}",
        checks=(Check(state, "present", why=why), Check(state, "ne", "waiting", why)),
        unless=(Check(mapping, "eq", to) if to else Check(mapping, "absent"),),
        deadline=enactments.SEEN_DEADLINE,
        tells=enactments.setback_path(node, name),
    )


def _await_mapping(args: Mapping[str, Any], view: ovs.View) -> Wait:
    """Wait until nmstate has written the mapping. Waited for in the database: the enactment is seconds behind it."""
    node, name, localnet, to = args["node"], args["policy"], args["localnet"], args["bridge"]
    path = f"node/{node}/ovs/mapping/{localnet}"
    text = (
        ovs.set_pair(view["mapping"], localnet, to)
        if to
        else ovs.drop_pair(view["mapping"], localnet) or None
    )
    return Wait(
        label="mapped",
        title=f"nmstate on {node} has mapped {localnet} to {to}"
        if to
        else f"nmstate on {node} has unmapped {localnet}",
        checks=(
            Check(path, "eq", to, f"policy {name} has not reached {node} yet")
            if to
            else Check(path, "absent"),
        ),
        unless=tuple(Check(enactments.state_path(node, name), "eq", over) for over in enactments.OVER[1:]),
        deadline=enactments.APPLY_DEADLINE,
        tells=enactments.setback_path(node, name),
        changes=ovs.changes(node, view, ovs.with_mapping(view, text)),
    )
