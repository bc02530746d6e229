"""One reconcile of one policy (NNCP) by the nmstate handler of one node, from reading it to the last condition.

Invariant: a `Job` is all that is known between two steps; every step looks at the API and at the command it waits for,
and never waits itself. Whatever counts something is the last write of its step: a step is done over when the API is
away. What the operator gets wrong is kept: it never resets `retryCount` on success, it completes an apply whose policy
has gone, and it gives up without a word when the node's state can't be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from providers.ports import Body, Create, Delete, Finished, MergePatch, NotFound, Ref
from providers.twin import nncp_conditions as conditions
from providers.twin.kube import stamp
from providers.twin.nncp_conditions import MOST_RETRIES, conditions_of, status_of
from providers.twin.stage import Stage

API = "nmstate.io/v1"
BETA = "nmstate.io/v1beta1"
POLICY = "NodeNetworkConfigurationPolicy"
ENACTMENT = "NodeNetworkConfigurationEnactment"
STATE = "NodeNetworkState"
REFRESH = "nmstate.io/force-nns-refresh"
HANDLERS = "nmstate-handlers"
UNIT = "nncp"
PROBE_SECONDS = 120.0
APPLY = ("nmstatectl", "apply", "--no-commit", "--timeout", "480")
_COMMAND_PHASES = ("show", "policy", "rollback", "apply", "commit", "undo")


class End(Enum):
    """How a reconcile ends: for now, or to be tried again after a pause that doubles each time."""

    DONE = "done"
    AGAIN = "again"


@dataclass(frozen=True, slots=True)
class Job:
    """Where a reconcile stands: `phase` is the command or the time it waits for, or what it does next.

    `due` is the end of that time.

    `silent` says whether the policy, when it was last read for it, said nothing of its availability.
    """

    policy: str
    phase: str
    generation: int
    spec: Mapping[str, Any]
    retrying: bool
    silent: bool
    desired: Mapping[str, Any] = field(default_factory=dict)
    due: float | None = None


Step = Job | End


def policy_ref(name: str) -> Ref:
    return Ref(API, POLICY, name)


def enactment_ref(node: str, policy: str) -> Ref:
    return Ref(BETA, ENACTMENT, f"{node}.{policy}")


def is_ready(node: Body) -> bool:
    found = node.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found)


def start(stage: Stage, node: str, policy: str) -> Step:
    """Begin to reconcile: decide whether the policy concerns this node at all."""
    have = stage.cluster.get(policy_ref(policy))
    if have is None:
        _delete_enactment(stage, node, policy)
        return End.DONE
    if status_of(conditions_of(have), "Progressing") != "True":
        _patch_policy(stage, policy, {"conditions": conditions.reset_conditions(_now(stage))})
    host = stage.cluster.get(Ref("v1", "Node", node))
    if host is None or not _matches(have, host):
        _delete_enactment(stage, node, policy)
        update_policy(stage, policy)
        return End.DONE
    before = conditions_of(_enactment(stage, host, policy))
    job = Job(
        policy,
        "show",
        have["metadata"]["generation"],
        have["spec"],
        conditions.is_retrying(before),
        _is_silent(have),
    )
    return _run(stage, node, job, "show", ("nmstatectl", "show", "--json"))


def carry_on(stage: Stage, node: str, job: Job) -> Step:
    """The next step, or the same job when what it waits for has not come."""
    if job.phase not in _COMMAND_PHASES:
        return _OWN_STEPS[job.phase](stage, node, job)
    done = stage.ended(node, UNIT)
    return job if done is None else _COMMANDS[job.phase](stage, node, job, done)


def _run(stage: Stage, node: str, job: Job, phase: str, argv: tuple[str, ...], stdin: bytes = b"") -> Job:
    stage.begin(node, UNIT, argv, stdin)
    return replace(job, phase=phase, due=None)


def _shown(stage: Stage, node: str, job: Job, done: Finished) -> Step:
    if done.rc != 0:
        update_policy(stage, job.policy)
        return End.DONE
    given = {name: job.spec[name] for name in ("capture", "desiredState") if name in job.spec}
    return _run(stage, node, job, "policy", ("nmstatectl", "policy", "--json", "/dev/stdin"), _bytes(given))


def _generated(stage: Stage, node: str, job: Job, done: Finished) -> Step:
    """nmstate has read the document: write down what will be applied, and see whether it may be now."""
    try:
        if done.rc != 0:
            _patch_generation(stage, node, job, {})
            called = _failure(("nmstatectl", "policy", "--json", "/dev/stdin"), done)
            why = f"failure generating desiredState and capturedStates: failed calling nmstatectl rollback: {called}"
            _notify(stage, node, job, "failed", why)
            update_policy(stage, job.policy)
            return End.DONE
        read = json.loads(done.out) if done.out.strip() else {}
        desired = json.loads(json.dumps(read, sort_keys=True))
        features = conditions.features_of(desired)
        _patch_generation(stage, node, job, {"desiredState": desired, "features": features or None})
    except NotFound:
        # Somebody deleted the enactment meanwhile.
        update_policy(stage, job.policy)
        return End.AGAIN
    return replace(job, phase="claim", desired=desired)


def _claim(stage: Stage, node: str, job: Job) -> Step:
    have = stage.cluster.get(policy_ref(job.policy))
    enactment = stage.cluster.get(enactment_ref(node, job.policy))
    if have is None or enactment is None:
        _delete_enactment(stage, node, job.policy)
        return End.DONE
    if _retries(enactment, job) >= MOST_RETRIES:
        update_policy(stage, job.policy)
        return End.DONE
    if not job.retrying:
        if not _take_slot(stage, have, job):
            return _stand_back(stage, node, have, job)
        job = replace(job, silent=_is_silent(have))
    return replace(job, phase="announce")


def _announce(stage: Stage, node: str, job: Job) -> Step:
    _notify(stage, node, job, "progressing", "Applying desired state")
    if job.silent:
        update_policy(stage, job.policy)
    dead = sum(
        state == "down" for probe, state in stage.settings.probes.items() if probe in ("gateway", "dns")
    )
    return replace(job, phase="select", due=stage.clock.now() + dead * PROBE_SECONDS)


def _take_slot(stage: Stage, policy: Body, job: Job) -> bool:
    taken = _taken(policy, job)
    if taken >= _slots(stage, policy):
        return False
    _patch_policy(stage, job.policy, {"unavailableNodeCountMap": {str(job.generation): taken + 1}})
    return True


def _slots(stage: Stage, policy: Body) -> int:
    enactments = _enactments(stage, policy["metadata"]["name"])
    return conditions.slots(policy["spec"].get("maxUnavailable"), len(enactments))


def _stand_back(stage: Stage, node: str, policy: Body, job: Job) -> End:
    """No slot is free: wait for one, or give up when failed nodes hold them all."""
    _notify(stage, node, job, "pending", "Waiting for progressing nodes to finish")
    failed = sum(
        each.get("status", {}).get("policyGeneration") == job.generation
        and conditions.is_failed_for_good(conditions_of(each))
        for each in _enactments(stage, job.policy)
    )
    aborted = failed >= _slots(stage, policy)
    if aborted:
        why = f'reconciliation of enactment "{node}.{job.policy}" has aborted'
        _notify(stage, node, job, "aborted", why)
    update_policy(stage, job.policy)
    return End.DONE if aborted else End.AGAIN


def _selected(stage: Stage, node: str, job: Job) -> Step:
    if job.due is not None and stage.clock.now() < job.due:
        return job
    # A checkpoint that somebody left open, this handler before it died for one, would make the apply fail.
    return _run(stage, node, job, "rollback", ("nmstatectl", "rollback"))


def _cleared(stage: Stage, node: str, job: Job, done: Finished) -> Step:
    return _run(stage, node, job, "apply", APPLY, _bytes(job.desired))


def _applied(stage: Stage, node: str, job: Job, done: Finished) -> Step:
    if done.rc != 0:
        return _fail(stage, node, job, _failure(APPLY, done))
    return replace(job, phase="probe", due=stage.clock.now() + PROBE_SECONDS)


def _probe(stage: Stage, node: str, job: Job) -> Step:
    if _node_is_ready(stage, node):
        return _run(stage, node, job, "commit", ("nmstatectl", "commit"))
    if job.due is not None and stage.clock.now() < job.due:
        return job
    return _run(stage, node, job, "undo", ("nmstatectl", "rollback"))


def _undone(stage: Stage, node: str, job: Job, done: Finished) -> Step:
    return replace(job, phase="probe-again", due=stage.clock.now() + PROBE_SECONDS)


def _probe_again(stage: Stage, node: str, job: Job) -> Step:
    if not _node_is_ready(stage, node) and job.due is not None and stage.clock.now() < job.due:
        return job
    why = "failed runnig probe 'node-readiness' with after network reconfiguration: timed out waiting for the condition"
    return _fail(stage, node, job, f"rolling back desired state configuration: {why}")


def _committed(stage: Stage, node: str, job: Job, done: Finished) -> Step:
    if done.rc != 0:
        return _fail(stage, node, job, _failure(("nmstatectl", "commit"), done))
    _notify(stage, node, job, "available", "successfully reconciled")
    return replace(job, phase="release")


def _release(stage: Stage, node: str, job: Job) -> Step:
    policy = stage.cluster.get(policy_ref(job.policy))
    taken = _taken(policy, job) if policy is not None else 0
    if taken:
        _patch_policy(stage, job.policy, {"unavailableNodeCountMap": {str(job.generation): taken - 1}})
    return replace(job, phase="publish")


def _publish(stage: Stage, node: str, job: Job) -> Step:
    now = str(int(stage.clock.now() * 1e9))
    # Without a state there is nothing to refresh: it will be made in its own time.
    with suppress(NotFound):
        stage.cluster.write(MergePatch(Ref(BETA, STATE, node), {"metadata": {"labels": {REFRESH: now}}}))
    update_policy(stage, job.policy)
    return End.DONE


def _fail(stage: Stage, node: str, job: Job, why: str) -> Step:
    enactment = stage.cluster.get(enactment_ref(node, job.policy))
    if enactment is None:
        update_policy(stage, job.policy)
        return End.AGAIN
    failed = _retries(enactment, job) + 1
    if failed >= MOST_RETRIES:
        state, what = (
            "failed",
            f'error reconciling {POLICY} on node {node} at desired state apply: "",\n {why}',
        )
    else:
        state = "retrying"
        what = f"failed to reconcile {POLICY} on node {node}. Retrying {failed + 1}/{MOST_RETRIES}"
    found = conditions.enactment_conditions(conditions_of(enactment), state, what, _now(stage))
    status = {"retryCount": {str(job.generation): failed}, "conditions": found}
    with suppress(NotFound):
        _patch_enactment(stage, node, job.policy, status)
    return replace(job, phase=state)


def _retry(stage: Stage, node: str, job: Job) -> Step:
    update_policy(stage, job.policy)
    return End.AGAIN


def _give_up(stage: Stage, node: str, job: Job) -> Step:
    _tell(stage, node, job)
    update_policy(stage, job.policy)
    return End.DONE


def _tell(stage: Stage, node: str, job: Job) -> None:
    policy = stage.cluster.get(policy_ref(job.policy))
    if policy is None:
        return
    metadata, now = policy["metadata"], _now(stage)
    body = {
        "involvedObject": {
            "apiVersion": API,
            "kind": POLICY,
            "name": job.policy,
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "reason": "ReconcileFailed",
        "message": f'reconciliation of enactment "{node}.{job.policy}" has failed after {MOST_RETRIES} retries',
        "type": "Warning",
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": f"{node}.nmstate-handler"},
        "reportingComponent": f"{node}.nmstate-handler",
        "reportingInstance": "",
    }
    # Two nodes of a virtual clock fail at one instant: as each real handler names its own, so the node is in the name.
    name = f"{job.policy}.{node}.{int(stage.clock.now() * 1e9):x}"
    stage.cluster.write(Create(Ref("v1", "Event", name, "default"), body))


def update_policy(stage: Stage, name: str) -> None:
    """Compute the conditions of a policy from its enactments and the nodes that run a handler and match."""
    policy = stage.cluster.get(policy_ref(name))
    if policy is None:
        return
    handlers = set(stage.remembered(HANDLERS))
    nodes = stage.cluster.list("v1", "Node").items
    matching = [is_ready(n) for n in nodes if n["metadata"]["name"] in handlers and _matches(policy, n)]
    counted = conditions.count(policy["metadata"]["generation"], matching, _enactments(stage, name))
    found, available = conditions.policy_conditions(conditions_of(policy), counted, _now(stage))
    status: dict[str, Any] = {"conditions": found}
    if available:
        status["unavailableNodeCountMap"] = None
    _patch_policy(stage, name, status)


def interrupted(stage: Stage, node: str, enactment: Body) -> None:
    """What a handler that starts does with an enactment that its predecessor left unfinished."""
    policy = enactment["metadata"]["labels"]["nmstate.io/policy"]
    status = enactment.get("status", {})
    generation = str(status.get("policyGeneration", 0))
    found = conditions_of(enactment)
    if status_of(found, "Available") != "True" and generation in status.get("retryCount", {}):
        _patch_enactment(stage, node, policy, {"retryCount": {generation: 0}})
    have = stage.cluster.get(policy_ref(policy))
    taken = (have or {}).get("status", {}).get("unavailableNodeCountMap", {}).get(generation, 0)
    if taken and status_of(found, "Progressing") == "True":
        _patch_policy(stage, policy, {"unavailableNodeCountMap": {generation: taken - 1}})


def _matches(policy: Body, node: Body) -> bool:
    labels = node["metadata"].get("labels") or {}
    selector = policy["spec"].get("nodeSelector") or {}
    return all(labels.get(name) == value for name, value in selector.items())


def _is_silent(policy: Body) -> bool:
    return status_of(conditions_of(policy), "Available") in (None, "Unknown")


def _node_is_ready(stage: Stage, node: str) -> bool:
    return is_ready(stage.cluster.get(Ref("v1", "Node", node)) or {})


def _enactments(stage: Stage, policy: str) -> tuple[Body, ...]:
    return stage.cluster.list(BETA, ENACTMENT, labels={"nmstate.io/policy": policy}).items


def _enactment(stage: Stage, node: Body, policy: str) -> Body:
    """The enactment, made without conditions when it is not there."""
    name = node["metadata"]["name"]
    have = stage.cluster.get(enactment_ref(name, policy))
    if have is not None:
        return have
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node["metadata"]["uid"]}
    labels = {"nmstate.io/policy": policy, "nmstate.io/node": name}
    body = {"metadata": {"labels": labels, "ownerReferences": [owner]}}
    stage.cluster.write(Create(enactment_ref(name, policy), body))
    return _patch_enactment(stage, name, policy, {"desiredStateMetaInfo": {}})


def _delete_enactment(stage: Stage, node: str, policy: str) -> None:
    with suppress(NotFound):
        stage.cluster.write(Delete(enactment_ref(node, policy)))


def _patch_generation(stage: Stage, node: str, job: Job, filled: Mapping[str, Any]) -> None:
    """Note the generation on the enactment; what was said of another one goes."""
    have = (stage.cluster.get(enactment_ref(node, job.policy)) or {}).get("status", {})
    status = {"policyGeneration": job.generation, **filled}
    if have.get("policyGeneration") != job.generation:
        status["conditions"] = None
    if "desiredState" in filled:
        status["desiredState"] = replacing(have.get("desiredState"), filled["desiredState"])
    _patch_enactment(stage, node, job.policy, status)


def replacing(old: Any, new: Any) -> Any:
    """The merge patch that turns `old` into `new`, names that are gone included."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return new
    gone = dict.fromkeys(name for name in old if name not in new)
    return {**gone, **{name: replacing(old.get(name), value) for name, value in new.items()}}


def _notify(stage: Stage, node: str, job: Job, state: str, message: str) -> None:
    # An enactment that was deleted by hand has nobody left to tell.
    with suppress(NotFound):
        have = stage.cluster.get(enactment_ref(node, job.policy)) or {}
        found = conditions.enactment_conditions(conditions_of(have), state, message, _now(stage))
        _patch_enactment(stage, node, job.policy, {"conditions": found})


def _patch_enactment(stage: Stage, node: str, policy: str, status: Mapping[str, Any]) -> Body:
    request = MergePatch(enactment_ref(node, policy), {"status": status}, subresource="status")
    return stage.cluster.write(request)


def _patch_policy(stage: Stage, policy: str, status: Mapping[str, Any]) -> None:
    # It may be deleted at any moment.
    with suppress(NotFound):
        stage.cluster.write(MergePatch(policy_ref(policy), {"status": status}, subresource="status"))


def _retries(enactment: Body, job: Job) -> int:
    return int(enactment.get("status", {}).get("retryCount", {}).get(str(job.generation), 0))


def _taken(policy: Body, job: Job) -> int:
    taken = policy.get("status", {}).get("unavailableNodeCountMap") or {}
    return int(taken.get(str(job.generation), 0))


def _failure(argv: tuple[str, ...], done: Finished) -> str:
    return f"{done.out}, {done.err}: failed to execute {' '.join(argv)}: exit status {done.rc}"


def _bytes(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()


def _now(stage: Stage) -> str:
    return stamp(stage.clock.now())


_COMMANDS: Mapping[str, Callable[[Stage, str, Job, Finished], Step]] = {
    "show": _shown,
    "policy": _generated,
    "rollback": _cleared,
    "apply": _applied,
    "undo": _undone,
    "commit": _committed,
}
_OWN_STEPS: Mapping[str, Callable[[Stage, str, Job], Step]] = {
    "claim": _claim,
    "announce": _announce,
    "select": _selected,
    "probe": _probe,
    "probe-again": _probe_again,
    "release": _release,
    "publish": _publish,
    "retrying": _retry,
    "failed": _give_up,
}
