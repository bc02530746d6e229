"""What an answer of the API server lets its caller do next."""

from __future__ import annotations

import json
from typing import Any

import pytest

from providers.kubernetes.answers import Answer, failure, judged
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

RBAC = (
    'nodes "a" is forbidden: User "system:serviceaccount:x:y" cannot patch resource "nodes" in API group "" at the '
    "cluster scope"
)


def status(code: int, message: str, reason: str = "", **details: Any) -> Answer:
    body = {"kind": "Status", "status": "Failure", "code": code, "message": message, "reason": reason}
    return Answer(code, json.dumps({**body, "details": details}).encode())


def told(answer: Answer, *, writes: bool = True) -> PortError:
    with pytest.raises(PortError) as error:
        judged("patch Node a", answer, writes=writes)
    assert str(error.value).startswith("patch Node a: ")
    return error.value


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(401, "Unauthorized", "Unauthorized"), Unauthorized),
        (status(403, RBAC, "Forbidden", name="a"), Forbidden),
        (status(403, 'forbidden: User "u" cannot get path "/x" in it', "Forbidden"), Forbidden),
        (
            status(403, 'admission webhook "w" denied the request: User "u" cannot resource ', "Forbidden"),
            Refused,
        ),
        (
            status(
                403, 'admission webhook "w" denied the request: forbidden: User "u" cannot get resource x', ""
            ),
            Refused,
        ),
        (status(403, 'pods "a" is forbidden: violates PodSecurity "restricted"', "Forbidden"), Refused),
        (
            status(403, 'pods "a" is forbidden: unable to create new content in namespace x', "Forbidden"),
            Refused,
        ),
        (status(404, 'nodes "a" not found', "NotFound", name="a", kind="nodes"), NotFound),
        (status(404, "the server could not find the requested resource", "NotFound"), NotServed),
        (Answer(404, b"404 page not found\n"), NotServed),
        (status(409, 'nodes "a" already exists', "AlreadyExists"), AlreadyExists),
        (status(409, "the object has been modified", "Conflict"), Conflict),
        (status(409, "Apply failed", "Conflict", causes=[{"reason": "FieldManagerConflict"}]), Owned),
        (status(410, "too old", "Expired"), Expired),
        (status(400, "strict decoding error", "BadRequest"), Refused),
        (status(405, "not allowed", "MethodNotAllowed"), Refused),
        (status(413, "Request entity too large: limit is 3145728", "RequestEntityTooLarge"), Refused),
        (status(422, "invalid", "Invalid"), Refused),
        (status(429, "storage is (re)initializing", "TooManyRequests"), Busy),
        (
            status(500, 'Internal error occurred: failed calling webhook "w": refused', "InternalError"),
            Unreachable,
        ),
        (status(500, ".spec.bogus: field not declared in schema"), Refused),
        (status(503, "apiserver is shutting down", "ServiceUnavailable"), Busy),
        (Answer(503, b"<html>Application is not available</html>"), Busy),
        (Answer(302, b"", {"Location": "https://login"}), Unreachable),
    ],
)
@pytest.mark.parametrize("writes", [True, False])
def test_what_an_answer_lets_its_caller_do(answer: Answer, error: type[PortError], writes: bool) -> None:
    assert type(told(answer, writes=writes)) in (error, *error.__subclasses__())
    if error is Refused:
        assert type(told(answer, writes=writes)) is Refused


@pytest.mark.parametrize(
    "answer",
    [
        status(500, "etcdserver: request timed out", "InternalError"),
        status(504, "Timeout: request did not complete within the allotted timeout", "Timeout"),
        Answer(502, b"<html>Bad Gateway</html>"),
        Answer(200, b"<html>Welcome</html>"),
        Answer(200, b""),
    ],
)
def test_a_write_that_may_have_happened_is_in_doubt_and_a_read_is_not(answer: Answer) -> None:
    assert type(told(answer, writes=True)) is InDoubt
    assert type(told(answer, writes=False)) is Unreachable


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (status(429, "later", retryAfterSeconds=10), 10.0),
        (Answer(429, b"later", {"Retry-After": "7"}), 7.0),
        (Answer(503, b"later", {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}), 1.0),
        (Answer(503, b""), 1.0),
    ],
)
def test_how_long_to_leave_the_server_alone(answer: Answer, seconds: float) -> None:
    busy = told(answer)
    assert isinstance(busy, Busy)
    assert busy.retry_after == seconds


def test_why_an_eviction_has_to_wait_is_said_with_it() -> None:
    cause = {
        "reason": "DisruptionBudget",
        "message": "The disruption budget pdb needs 1 healthy pods and has 1 currently",
    }
    error = told(
        status(429, "Cannot evict pod as it would violate the pod's disruption budget.", causes=[cause])
    )
    assert str(error) == (
        "patch Node a: Cannot evict pod as it would violate the pod's disruption budget. "
        "The disruption budget pdb needs 1 healthy pods and has 1 currently"
    )


def test_a_patch_that_makes_an_object_invalid_is_told_without_that_object() -> None:
    said = ' "" is invalid: patch: Invalid value: "{\\"kind\\":\\"Node\\"}": strict decoding error: unknown field "x"'
    assert str(told(status(422, said))) == (
        'patch Node a: invalid patch: strict decoding error: unknown field "x"'
    )


def test_who_answered_instead_of_an_api_server_is_shown() -> None:
    page = b"<html>\n  <title>Bad Gateway</title>\n" + b"x" * 10_000
    said = str(failure("list Node", Answer(502, page), writes=False))
    assert said.startswith("list Node: HTTP 502 <html> <title>Bad Gateway</title>")
    assert len(said) < 600
