"""Evictions: the pods beside the VMs leave a node through the Eviction API, as `kubectl drain` has it.

The one invariant: nothing is ever deleted; the server is asked to evict, and a disruption budget that says no is waited
for and told. A pod that `kubectl drain` would only delete by force stops the line by its name.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from plans.actions import Action, Done, Finished, Next, Perform, Stop, routine
from plans.checks import Check
from plans.facts import ABSENT, KNOWN_AFTER_APPLY, Facts, Json, Known
from plans.ops import AnyOp, Create, ObjectRef, Wait
from plans.readings.maintenance import POD

PUT_OFF = "busy"
"""The outcome of an eviction that a disruption budget has put off."""

AGAIN_AFTER = 5.0
"""Seconds between two requests for one pod, as `kubectl drain` waits."""

TRIES = 120
"""How often a pod is asked for: ten minutes."""

GONE_DEADLINE = 600.0
"""Seconds for an evicted pod to end: its grace period is its owner's to choose."""


def evict(node: str, facts: Facts) -> Action:
    """Evict what is on the node beside VMs and DaemonSets."""
    leaving = [pod["pod"] for pod in pods_of(node, facts) if pod["way"] == "evict"]
    shown = ", ".join(leaving[:5]) + (f" and {len(leaving) - 5} more" if len(leaving) > 5 else "")
    return Action(
        id=f"{node}/evict",
        routine="evict@1",
        title=f"evict pods, within their disruption budgets: {shown or 'none now'}",
        node=node,
        args={"node": node},
        reads=("nodes", f"pods:{node}"),
        no_undo="their owners have made them anew elsewhere",
        deadline=AGAIN_AFTER * TRIES + GONE_DEADLINE + 60.0 * max(1, len(leaving)),
        rows=(4,),
    )


def pods_of(node: str, facts: Facts) -> list[dict[str, str]]:
    """The pods of a node, each with its way out; none where none was seen."""
    return list(facts.value(f"node/{node}/pods") or [])


def _elsewhere(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    """By the rule that the plan states, whoever was evicted onto the node since leaves it too."""
    ours = {p["pod"].partition("/")[0] for p in pods_of(args["node"], facts) if p["way"] == "evict"}
    spaces = [name for name in facts.value("cluster/evictable-namespaces") or [] if name not in ours]
    return tuple(
        Create(
            label=f"evict:any:{namespace}",
            title=f"evict whoever is on {args['node']} by then, in {namespace}",
            ref=ObjectRef(*POD, KNOWN_AFTER_APPLY, namespace),
            body=_body(f"{namespace}/{KNOWN_AFTER_APPLY}", KNOWN_AFTER_APPLY),
            subresource="eviction",
        )
        for namespace in spaces
    )


@routine("evict@1", contingent=_elsewhere)
def step_evict(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Ask for every pod that may leave, once each; then wait for those, and ask again for those put off."""
    node = args["node"]
    fact = facts.get(f"node/{node}/pods")
    if not isinstance(fact, Known) and done.run != KNOWN_AFTER_APPLY:
        return Stop(f"cannot tell which pods run on {node}: {fact}", unsure=True)
    pods = pods_of(node, facts)
    if held := [f"{pod['pod']} ({pod['why']})" for pod in pods if pod["way"] == "block"]:
        return Stop(
            f"not evicted, and never by force: {', '.join(held)}. Move or delete them, or let pods stay: `evacuate.pods: leave`",
            moved=True,
        )
    leaving = [pod for pod in pods if pod["way"] == "evict"]
    fresh = [pod for pod in leaving if _label(pod) not in done.outcomes]
    if fresh:
        return Perform((_eviction(fresh[0], node, facts),))
    if leaving:
        return _wait_or_again(leaving, node, facts, done)
    evicted = sorted({label.split(":")[1] for label in done.outcomes if label.startswith("evict:")})
    return Finished(f"{len(evicted)} pod(s) evicted" if evicted else "no pod had to leave")


def _wait_or_again(leaving: list[dict[str, str]], node: str, facts: Facts, done: Done) -> Next:
    pod = leaving[0]
    label, tried = _label(pod), done.attempts.get(_label(pod), 0)
    if done.outcomes[label] not in (PUT_OFF, "failed", "doubt"):
        if done.outcomes.get(f"gone:{pod['pod']}:{pod['uid']}") == "timed-out":
            return Stop(f"pod {pod['pod']} was evicted and does not end within {GONE_DEADLINE:g} s")
        return Perform((_gone(pod, node, f"gone:{pod['pod']}:{pod['uid']}", GONE_DEADLINE),))
    if tried >= TRIES:
        why = (done.results.get(label) or {}).get("why", "a disruption budget says no")
        return Stop(f"pod {pod['pod']} may not be evicted, asked {tried} times: {why}")
    pause = f"budget:{pod['pod']}:{tried}"
    if pause not in done.outcomes:
        return Perform((_gone(pod, node, pause, AGAIN_AFTER),))
    return Perform((_eviction(pod, node, facts),))


def _label(pod: Mapping[str, str]) -> str:
    return f"evict:{pod['pod']}:{pod['uid']}"


def _body(key: str, uid: str) -> Json:
    namespace, _, name = key.partition("/")
    return {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": {"preconditions": {"uid": uid}},
    }


def _eviction(pod: Mapping[str, str], node: str, facts: Facts) -> Create:
    namespace, _, name = pod["pod"].partition("/")
    left = [other for other in pods_of(node, facts) if other["pod"] != pod["pod"]]
    return Create(
        label=_label(pod),
        title=f"evict pod {pod['pod']} from {node}",
        ref=ObjectRef(*POD, name, namespace),
        body=_body(pod["pod"], pod["uid"]),
        subresource="eviction",
        commands=(
            f"oc create --raw /api/v1/namespaces/{namespace}/pods/{name}/eviction -f - <<< "
            + shlex.quote(json.dumps(_body(pod["pod"], pod["uid"]), sort_keys=True)),
        ),
        changes=((f"node/{node}/pods", Known(left)), (f"node/{node}/pod/{pod['pod']}", ABSENT)),
    )


def _gone(pod: Mapping[str, str], node: str, label: str, deadline: float) -> Wait:
    check = Check(f"node/{node}/pod/{pod['pod']}", "ne", pod["uid"], f"pod {pod['pod']} is still there")
    return Wait(label=label, title=f"pod {pod['pod']} off {node}", checks=(check,), deadline=deadline)
