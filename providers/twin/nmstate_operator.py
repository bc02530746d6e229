"""The handlers of kubernetes-nmstate, one on every node that has nmstate.

Invariant: a handler reconciles one policy at a time, first come first served; what failed or found no slot comes back
after 1, 2, 4, 8 ... s, and others go before it meanwhile. So the order of names holds only while nothing waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from providers.ports import Body, Conflict, NotServed, Ref
from providers.twin import nns
from providers.twin.nncp_job import (
    API,
    BETA,
    ENACTMENT,
    HANDLERS,
    POLICY,
    REFRESH,
    STATE,
    End,
    Job,
    Step,
    carry_on,
    interrupted,
    is_ready,
    policy_ref,
    start,
)
from providers.twin.stage import Change, Settings, Stage

REACTION = 0.01
_LONGEST_PAUSE = 30.0
QUEUES = "nmstate-queues"
_POLICIES = "nmstate-policies"
_NODES = "nmstate-nodes"
_VERSION = "nmstate-version"
_NM_VERSION = "networkmanager-version"


class NmstateOperator:
    name = "nmstate-operator"

    def keys(self, change: Change, settings: Settings) -> Iterable[tuple[str, float]]:
        if change.kind == POLICY:
            yield f"policy {change.name}", REACTION
        elif change.kind == "Node":
            yield f"node {change.name}", REACTION
        elif change.kind == "handler":
            yield f"restart {change.name}", 0.0
        elif change.kind == "unit":
            yield f"work {change.name}", 0.0
            yield f"report {change.name}", 0.0
        elif change.kind == STATE and not change.deleted and _is_asked(change.body or {}):
            yield f"report {change.name}", REACTION

    def reconcile(self, stage: Stage, key: str) -> float | None:
        what, _, name = key.partition(" ")
        # A cluster without the operator's kinds has no operator.
        with suppress(NotServed):
            match what:
                case "policy":
                    self._policy_changed(stage, name)
                case "node":
                    self._node_changed(stage, name)
                case "restart":
                    self._start_handler(stage, name)
                case "work":
                    return self._work(stage, name)
                case "report":
                    return nns.report(stage, name)
        return None

    def _policy_changed(self, stage: Stage, name: str) -> None:
        """A policy is new, has another spec, or is gone: every handler looks at it."""
        have = stage.cluster.get(policy_ref(name))
        # Status and metadata change all the time, and mean nothing here.
        mark = _mark(have) if have is not None else None
        if stage.recall(_POLICIES, name) == mark:
            return
        stage.keep(_POLICIES, name, mark)
        for node in stage.remembered(HANDLERS):
            # A handler that has just started found the policy by itself.
            if mark is None or _queue(stage, node)["found"].get(name) != mark:
                self._add(stage, node, [name])

    def _node_changed(self, stage: Stage, name: str) -> None:
        """Any change of a node's labels makes its handler look at all policies again."""
        have = stage.cluster.get(Ref("v1", "Node", name))
        known = stage.recall(_NODES, name)
        if have is None:
            for memory in (_NODES, HANDLERS, QUEUES):
                stage.keep(memory, name, None)
            return
        seen = {"labels": dict(have["metadata"].get("labels") or {}), "ready": is_ready(have)}
        if known is None:
            self._start_handler(stage, name)
        stage.keep(_NODES, name, seen)
        if known is None:
            return
        if known["labels"] != seen["labels"]:
            self._add(stage, name, _all_policies(stage))
        elif known["ready"] != seen["ready"]:
            stage.remind(self.name, f"work {name}", stage.clock.now())

    def _start_handler(self, stage: Stage, node: str) -> None:
        # Asked first: where the kinds are not served there is nothing to start.
        stage.cluster.list(API, POLICY)
        stage.keep(QUEUES, node, None)
        nns.forget(stage, node)
        stage.begin(node, _VERSION, ("nmstatectl", "--version"))
        stage.begin(node, _NM_VERSION, ("NetworkManager", "--version"))

    def _has_handler(self, stage: Stage, node: str) -> bool:
        """Whether a handler runs; the first time it is seen to, it takes up everything that is there."""
        if _queue(stage, node)["runs"]:
            return True
        version, networkmanager = stage.ended(node, _VERSION), stage.ended(node, _NM_VERSION)
        if version is None or networkmanager is None or version.rc != 0:
            return False
        known = networkmanager.out.strip() if networkmanager.rc == 0 else ""
        stage.keep(HANDLERS, node, {"nmstate": version.out.strip(), "networkmanager": known})
        for enactment in stage.cluster.list(BETA, ENACTMENT, labels={"nmstate.io/node": node}).items:
            interrupted(stage, node, enactment)
        found = {
            policy["metadata"]["name"]: _mark(policy) for policy in stage.cluster.list(API, POLICY).items
        }
        stage.keep(QUEUES, node, {**_queue(stage, node), "runs": True, "found": found})
        self._add(stage, node, sorted(found))
        stage.remind(self.name, f"report {node}", stage.clock.now())
        return True

    def _add(self, stage: Stage, node: str, policies: Iterable[str]) -> None:
        queue = _queue(stage, node)
        if not queue["runs"]:
            return
        waiting = [*queue["waiting"], *(p for p in policies if p not in queue["waiting"])]
        stage.keep(QUEUES, node, {**queue, "waiting": waiting})
        stage.remind(self.name, f"work {node}", stage.clock.now())

    def _work(self, stage: Stage, node: str) -> float | None:
        if not self._has_handler(stage, node):
            return None
        while True:
            queue = _queue(stage, node)
            job = Job(**queue["job"]) if queue["job"] else None
            if job is None:
                queue = _with_due(queue, stage.clock.now())
                if not queue["waiting"]:
                    stage.keep(QUEUES, node, queue)
                    return min(queue["delayed"].values(), default=None)
                policy, *rest = queue["waiting"]
                queue = {**queue, "waiting": rest}
                step = _attempt(stage, node, policy, None)
            else:
                policy, step = job.policy, _attempt(stage, node, job.policy, job)
            if step == job:
                return job.due if job is not None else None
            stage.keep(QUEUES, node, _after(queue, policy, step, stage.clock.now()))


def _attempt(stage: Stage, node: str, policy: str, job: Job | None) -> Step:
    try:
        return start(stage, node, policy) if job is None else carry_on(stage, node, job)
    except Conflict:
        # Somebody wrote the object between our reading and our writing it.
        return End.AGAIN


def _queue(stage: Stage, node: str) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "runs": False,
        "waiting": [],
        "delayed": {},
        "failures": {},
        "job": None,
        "found": {},
    }
    return dict(stage.recall(QUEUES, node) or empty)


def _mark(policy: Body) -> list[Any]:
    """What of a policy tells a handler that there is something to do."""
    return [policy["metadata"]["uid"], policy["metadata"]["generation"]]


def _with_due(queue: dict[str, Any], now: float) -> dict[str, Any]:
    due = sorted((at, policy) for policy, at in queue["delayed"].items() if at <= now)
    back = [policy for _, policy in due if policy not in queue["waiting"]]
    delayed = {policy: at for policy, at in queue["delayed"].items() if at > now}
    return {**queue, "waiting": [*queue["waiting"], *back], "delayed": delayed}


def _after(queue: dict[str, Any], policy: str, step: Step, now: float) -> dict[str, Any]:
    if isinstance(step, Job):
        return {**queue, "job": asdict(step)}
    failures = {name: count for name, count in queue["failures"].items() if name != policy}
    if step is End.DONE:
        return {**queue, "job": None, "failures": failures}
    count = queue["failures"].get(policy, 0)
    pause = min(_LONGEST_PAUSE, 2.0**count)
    delayed = {**queue["delayed"], policy: now + pause}
    return {**queue, "job": None, "failures": {**failures, policy: min(count + 1, 5)}, "delayed": delayed}


def _all_policies(stage: Stage) -> list[str]:
    return sorted(policy["metadata"]["name"] for policy in stage.cluster.list(API, POLICY).items)


def _is_asked(state: Body) -> bool:
    return REFRESH in (state.get("metadata", {}).get("labels") or {})
