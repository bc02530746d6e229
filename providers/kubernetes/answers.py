"""What an answer of the API server means: from status and body to the `PortError` that tells what to do next.

Pure. Invariant: a write that may have happened is InDoubt, whatever the server called its error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.ports import (
    AlreadyExists,
    Busy,
    Conflict,
    Expired,
    Forbidden,
    InDoubt,
    NotFound,
    NotServed,
    Owned,
    PortError,
    Refused,
    Unauthorized,
    Unreachable,
)

_BY_AUTHORISER = re.compile(r'(\S+ ("[^"]*" )?is )?forbidden: User ".*?" cannot \S+ (resource|path) ')
"""At the beginning of a message only: a webhook may say such a thing too."""

_WHOLE_OBJECT = re.compile(r'^ ?"" is invalid: patch: Invalid value: ".*": (?=\w)', re.S)
_UNSAID = "the server rejected our request due to an error in our request"
_WEBHOOK_DOWN = "failed calling webhook"
"""Webhooks are called before anything is stored."""

_REFUSED_AS_500 = (
    "field not declared in schema",
    "failed to create typed patch object",
    "resourceVersion should not be set on objects to be created",
)
"""What the server says, before it stores anything, and counts among its own errors."""

_BUDGET = "DisruptionBudget"
_LONGEST = 500
"""Characters of an answer that is no Status: a proxy's page says who answered in its first lines."""


class BudgetSpent(Busy):
    """An eviction met a disruption budget: a matter of minutes, and of somebody else's pods."""


class WebhookDown(Unreachable):
    """An admission webhook did not answer the API server: until it does, this is refused."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def judged(title: str, answer: Answer, *, writes: bool) -> dict[str, Any]:
    """The JSON of an answer to the request that `title` names. Raises the PortError that an error stands for."""
    content = _json(answer.body)
    if answer.status >= 300:
        raise failure(title, answer, content, writes=writes)
    if content is None:
        said = f"{title}: HTTP {answer.status} without JSON: {_text(answer.body)}"
        raise InDoubt(said) if writes else Unreachable(said)
    return content


def failure(
    title: str, answer: Answer, content: Mapping[str, Any] | None = None, *, writes: bool
) -> PortError:
    """The error that an answer, or a Status in a watch, stands for."""
    status = content if content is not None and content.get("kind") == "Status" else {}
    said = f"{title}: {_said(status) or f'HTTP {answer.status} {_text(answer.body)}'.strip()}"
    match answer.status:
        case 401:
            return Unauthorized(f"{said} (HTTP 401: the token has expired, or was never good)")
        case 403 if _BY_AUTHORISER.match(_message(status)):
            return Forbidden(said)
        case 404:
            return NotFound(said) if _names_object(status) else NotServed(said)
        case 409:
            return _conflict(said, status)
        case 410:
            return Expired(said)
        case 429 if any(cause.get("reason") == _BUDGET for cause in _causes(status)):
            return BudgetSpent(said, _retry_after(answer, status))
        case 429 | 503:
            return Busy(said, _retry_after(answer, status))
    if answer.status == 500 and any(refusal in _message(status) for refusal in _REFUSED_AS_500):
        return Refused(said)
    if answer.status == 500 and _WEBHOOK_DOWN in _message(status):
        return WebhookDown(said)
    if answer.status >= 500 or answer.status == 408:
        return InDoubt(said) if writes else Unreachable(said)
    if answer.status < 400:
        return Unreachable(f"{said} (a redirect: something else than an API server answers here)")
    return Refused(said)


def _conflict(said: str, status: Mapping[str, Any]) -> PortError:
    if status.get("reason") == "AlreadyExists":
        return AlreadyExists(said)
    if any(cause.get("reason") == "FieldManagerConflict" for cause in _causes(status)):
        return Owned(said)
    return Conflict(said)


def _names_object(status: Mapping[str, Any]) -> bool:
    """A 404 that names an object is about that object; any other is about its kind, which nobody serves."""
    return bool((status.get("details") or {}).get("name"))


def _said(status: Mapping[str, Any]) -> str:
    """What the server said, with the causes that its message leaves out (why an eviction has to wait)."""
    # A patch that makes an object invalid is answered with the whole of that object, before the reason.
    message = _WHOLE_OBJECT.sub("invalid patch: ", _message(status))
    if message == _UNSAID:
        message = f"{message} (of a JSON patch: one of its operations does not apply)"
    more = [cause.get("message") or "" for cause in _causes(status)]
    return " ".join(filter(None, [message, *(cause for cause in more if cause not in message)]))


def _message(status: Mapping[str, Any]) -> str:
    return str(status.get("message") or "")


def _causes(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list((status.get("details") or {}).get("causes") or ())


def _retry_after(answer: Answer, status: Mapping[str, Any]) -> float:
    asked = (status.get("details") or {}).get("retryAfterSeconds") or answer.headers.get("Retry-After")
    try:
        return max(float(asked), 0.0) if asked else 1.0
    except (TypeError, ValueError):
        return 1.0  # a date, which no API server sends


def _json(body: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(body)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _text(body: bytes) -> str:
    return " ".join(body[:_LONGEST].decode(errors="replace").split())
