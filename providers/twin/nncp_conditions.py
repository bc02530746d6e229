"""The conditions that kubernetes-nmstate writes on a policy (NNCP) and on its enactment on one node (NNCE).

Invariant: pure. `Set` keeps the place of a condition in the list and the time of its last change of status; which
reason and message stand where is as the operator's own objects have it, oddities included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from providers.ports import Body

Conditions = Sequence[Mapping[str, Any]]

MOST_RETRIES = 5
DEFAULT_UNAVAILABLE = "50%"

_OK = "SuccessfullyConfigured"
_FAILED = "FailedToConfigure"
_ABORTED = "ConfigurationAborted"
_PROGRESSING = "ConfigurationProgressing"
_FULL = "MaxUnavailableLimitReached"
_RETRYING = "Retrying"
_NOBODY = "NoMatchingNode"

Entry = tuple[str, str, str, bool]
"""Type, status, reason, and whether the message belongs here."""

# In the order in which the operator sets them: it decides the order in the object.
_ENACTMENT: Mapping[str, tuple[Entry, ...]] = {
    "progressing": (
        ("Progressing", "True", _PROGRESSING, True),
        ("Failing", "Unknown", _PROGRESSING, False),
        ("Available", "Unknown", _PROGRESSING, False),
        ("Pending", "False", _PROGRESSING, False),
        ("Aborted", "False", _PROGRESSING, False),
    ),
    "available": (
        ("Available", "True", _OK, True),
        ("Failing", "False", _OK, False),
        ("Progressing", "False", _OK, False),
        ("Pending", "False", _OK, False),
        ("Aborted", "False", _OK, False),
    ),
    "retrying": (
        ("Failing", "True", _RETRYING, True),
        ("Progressing", "True", _RETRYING, True),
        ("Available", "False", _RETRYING, False),
        ("Pending", "False", _RETRYING, False),
        ("Aborted", "False", _OK, False),
    ),
    "failed": (
        ("Failing", "True", _FAILED, True),
        ("Available", "False", _FAILED, False),
        ("Progressing", "False", _FAILED, False),
        ("Pending", "False", _FAILED, False),
        ("Aborted", "False", _OK, False),
    ),
    "pending": (
        ("Pending", "True", _FULL, True),
        ("Aborted", "False", _FULL, False),
        ("Progressing", "False", _FULL, True),
        ("Failing", "False", _FULL, False),
        ("Available", "False", _FULL, False),
    ),
    "aborted": (
        ("Failing", "False", _ABORTED, False),
        ("Available", "False", _ABORTED, False),
        ("Progressing", "False", _ABORTED, False),
        ("Pending", "False", _ABORTED, False),
        ("Aborted", "True", _ABORTED, True),
    ),
}
_POLICY: Mapping[str, tuple[Entry, ...]] = {
    "unknown": tuple(
        (kind, "Unknown", "", False) for kind in ("Available", "Degraded", "Progressing", "Ignored")
    ),
    "progressing": (
        ("Degraded", "Unknown", _PROGRESSING, False),
        ("Available", "Unknown", _PROGRESSING, False),
        ("Progressing", "True", _PROGRESSING, True),
        ("Ignored", "False", _PROGRESSING, False),
    ),
    "available": (
        ("Degraded", "False", _OK, False),
        ("Available", "True", _OK, True),
        ("Progressing", "False", _OK, False),
        ("Ignored", "False", _OK, False),
    ),
    "degraded": (
        ("Degraded", "True", _FAILED, True),
        ("Available", "False", _FAILED, False),
        ("Progressing", "False", _PROGRESSING, False),
        ("Ignored", "False", _FAILED, False),
    ),
    "ignored": (
        ("Degraded", "False", _NOBODY, False),
        ("Available", "False", _NOBODY, False),
        ("Progressing", "False", _NOBODY, False),
        ("Ignored", "True", _NOBODY, True),
    ),
}


def enactment_conditions(have: Conditions, state: str, message: str, now: str) -> list[dict[str, Any]]:
    """The conditions of an enactment that comes into `state`; `now` as Kubernetes writes an instant."""
    return _set_all(have, _ENACTMENT[state], message, now)


def reset_conditions(now: str) -> list[dict[str, Any]]:
    """What a policy shows from the beginning of a reconcile until it is computed anew."""
    return _set_all((), _POLICY["unknown"], "", now)


def _set_all(have: Conditions, entries: Iterable[Entry], message: str, now: str) -> list[dict[str, Any]]:
    found = {str(condition["type"]): dict(condition) for condition in have}
    for kind, status, reason, speaks in entries:
        before = found.get(kind, {})
        since = before.get("lastTransitionTime") if before.get("status") == status else None
        condition = {
            "lastHeartbeatTime": now,
            "lastTransitionTime": since or now,
            "message": message if speaks else "",
            "reason": reason,
            "status": status,
            "type": kind,
        }
        # The operator's own serialisation leaves out what is empty.
        found[kind] = {name: value for name, value in condition.items() if value}
    return list(found.values())


def status_of(conditions: Conditions, kind: str) -> str | None:
    """The status of one condition: True, False, Unknown, or None when it is not there."""
    return next((str(c["status"]) for c in conditions if c["type"] == kind), None)


def conditions_of(body: Body) -> Conditions:
    found: Conditions = body.get("status", {}).get("conditions") or ()
    return found


def is_retrying(conditions: Conditions) -> bool:
    return status_of(conditions, "Failing") == "True" and status_of(conditions, "Progressing") == "True"


def is_failed_for_good(conditions: Conditions) -> bool:
    return status_of(conditions, "Failing") == "True" and status_of(conditions, "Progressing") == "False"


@dataclass(frozen=True, slots=True)
class Counted:
    """What the conditions of a policy follow from: its matching nodes, and the enactments of its generation."""

    matching: int
    ready: int
    available: int
    failing: int
    aborted: int
    pending: int

    @property
    def finished(self) -> int:
        return self.available + self.failing + self.aborted


def count(generation: int, matching: Sequence[bool], enactments: Iterable[Body]) -> Counted:
    """Count for a policy at `generation`; `matching` says of each node that it matches whether it is Ready."""
    current = [e for e in enactments if e.get("status", {}).get("policyGeneration") == generation]

    def with_true(kind: str) -> int:
        return sum(status_of(conditions_of(each), kind) == "True" for each in current)

    return Counted(
        len(matching),
        sum(matching),
        with_true("Available"),
        with_true("Failing"),
        with_true("Aborted"),
        with_true("Pending"),
    )


def policy_conditions(have: Conditions, counted: Counted, now: str) -> tuple[list[dict[str, Any]], bool]:
    """The conditions of a policy, and whether it is Available: then its count of unavailable nodes is dropped."""
    state, message = _judge(counted)
    return _set_all(have, _POLICY[state], message, now), state == "available"


def _judge(counted: Counted) -> tuple[str, str]:
    away = counted.matching - counted.ready
    ignored = f", {away} nodes ignored due to NotReady state" if away else ""
    if not counted.matching:
        return "ignored", "Policy does not match any node"
    if counted.failing or counted.aborted:
        aborted = f", {counted.aborted} nodes aborted configuration" if counted.aborted else ""
        return "degraded", f"{counted.failing}/{counted.matching} nodes failed to configure{aborted}"
    progress = f"Policy is progressing {counted.finished}/{counted.ready} nodes finished"
    if counted.finished < counted.ready:
        return "progressing", progress + ignored
    if counted.pending:
        return "progressing", f"{progress}, {counted.pending} pending{ignored}"
    return "available", f"{counted.available}/{counted.matching} nodes successfully configured{ignored}"


def slots(asked: Any, enactments: int) -> int:
    """How many nodes may be unavailable at once: `spec.maxUnavailable` over the enactments there are, at least one."""
    found = _scaled(asked, enactments)
    return max(1, found if found is not None else _scaled(DEFAULT_UNAVAILABLE, enactments) or 1)


def _scaled(asked: Any, enactments: int) -> int | None:
    if isinstance(asked, int) and not isinstance(asked, bool):
        return asked
    text = str(asked or DEFAULT_UNAVAILABLE)
    if not text.endswith("%") or not text[:-1].isdigit():
        return None
    return -(-int(text[:-1]) * enactments // 100)


def features_of(state: Body) -> list[str]:
    """What nmstate's own statistics call the parts of a desired state that are used, as far as switches go."""
    found = set()
    if (state.get("ovn") or {}).get("bridge-mappings"):
        found.add("ovn-mapping")
    for interface in state.get("interfaces") or ():
        ports = (interface.get("bridge") or {}).get("port") or ()
        if interface.get("type") == "ovs-bridge" and any("link-aggregation" in port for port in ports):
            found.add("ovs-bond")
        if "patch" in interface:
            found.add("ovs-patch")
    return sorted(found)
