"""Preflight and verify: the two points of a bracket at which everything is checked and nothing is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plans.actions import Action, Done, Finished, Next, Perform, Stop, routine
from plans.checks import Check, Fails, judge_all
from plans.facts import Facts, Unknown
from plans.ops import Wait
from plans.readings import view_of

VERIFY_DEADLINE = 30.0
LINES = 10
"""How many differences a look back tells."""


def preflight(node: str, expect: Sequence[Check]) -> Action:
    """What must hold before a node is touched (H18). Its checks are an action's `expect`, so a miss is exit 4."""
    return Action(
        id=f"{node}/preflight",
        routine="preflight@1",
        title=f"{len(expect)} checks before the node is touched",
        node=node,
        reads=tuple(sorted({"nodes", *(view_of(check.path) for check in expect)})),
        expect=tuple(expect),
        no_undo="it changes nothing",
    )


@routine("preflight@1")
def step_preflight(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Nothing to do: its `expect` was judged. What could not be judged by anything is said."""
    kubelets = facts.get("cluster/kubelets")
    if isinstance(kubelets, Unknown):
        return Finished(f"cannot tell by their Leases whether the kubelets are alive: {kubelets.why}")
    return Finished("; ".join(f"{node}: {why}" for node, why in facts.value("cluster/kubelets", {}).items()))


def verify(node: str, checks: Sequence[Check]) -> Action:
    """What must hold once a node's changes are made."""
    return Action(
        id=f"{node}/verify",
        routine="verify@1",
        title="; ".join(sorted({_short(check, node) for check in checks})),
        node=node,
        args={"checks": [[c.path, c.test, c.value, c.why] for c in checks]},
        reads=tuple(sorted({view_of(check.path) for check in checks})),
        done_when=tuple(checks),
        no_undo="it changes nothing",
        rows=(9,),
    )


@routine("verify@1")
def step_verify(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Wait for every check to hold; a miss stops the line."""
    checks = tuple(Check(*c) for c in args["checks"])
    missed = judge_all(checks, facts)
    if not missed:
        return Finished(f"{len(checks)} checks hold")
    if "verified" in done.outcomes:
        return Stop("; ".join(str(m) for m in missed))
    return Perform(
        (
            Wait(
                label="verified",
                title="every check of the node holds",
                checks=checks,
                deadline=VERIFY_DEADLINE,
            ),
        )
    )


def look_back(checks: Sequence[Check]) -> Action:
    """The last action: what was made on the first node must still hold when the last one is done."""
    return Action(
        id="look-back",
        routine="look-back@1",
        title=f"{len(checks)} checks: every node is still as this run left it",
        args={"checks": [[c.path, c.test, c.value, c.why] for c in checks]},
        reads=tuple(sorted({view_of(check.path) for check in checks})),
        no_undo="it changes nothing",
    )


@routine("look-back@1")
def step_look_back(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Judge every check once; somebody else's change since is told with both values."""
    missed = judge_all([Check(*c) for c in args["checks"]], facts)
    changed = [m for m in missed if isinstance(m, Fails)]
    if changed:
        lines = [line for miss in changed for line in miss.lines]
        more = [f"and {len(lines) - LINES} more"] if len(lines) > LINES else []
        told = "".join(f"\n  {line}" for line in [*lines[:LINES], *more])
        return Stop(
            f"changed by somebody else since (as this run left it -> as it is now):{told}", moved=True
        )
    if missed:
        return Stop("; ".join(str(m) for m in missed), unsure=True)
    return Finished()


def _short(check: Check, node: str) -> str:
    return str(check).replace(f"node/{node}/ovs/", "")
