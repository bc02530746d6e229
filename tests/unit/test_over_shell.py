"""A database behind a shell: what the shell's answers mean for the transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from providers.node.remote import LONGEST
from providers.ovsdb.over_shell import OverShellOvsdb
from providers.ports import Finished, InDoubt, PortError, Refused, Unreachable


class _Shell:
    def __init__(self, answer: Finished) -> None:
        self.answer = answer
        self.calls: list[list[str]] = []

    def run(self, argv: Sequence[str], *, timeout: float, stdin: bytes = b"") -> Finished:
        self.calls.append(list(argv))
        return self.answer


def test_transaction_is_one_argument_as_it_stands() -> None:
    shell = _Shell(Finished(0, '[{"count":1},null]\n', ""))
    operation = {"op": "comment", "comment": 'it\'s "é" $(id)\n'}
    assert OverShellOvsdb("n", shell, "/run/ovs").transact("DB", [operation], timeout=5) == [
        {"count": 1},
        None,
    ]
    ((*words, request),) = shell.calls
    assert words[0] == "ovsdb-client"
    assert words[-2:] == ["transact", "unix:/run/ovs/db.sock"]
    assert json.loads(request) == ["DB", operation]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Finished(1, "", 'ovsdb-client: failed to connect to "unix:x" (Connection refused)'), Unreachable),
        (Finished(127, "", "timeout: failed to run command 'ovsdb-client'"), Unreachable),
        (Finished(126, "", "Permission denied"), Unreachable),
        (Finished(1, "", "ovsdb-client: transaction failed (End of file)"), InDoubt),
        (Finished(1, "", "ovsdb-client: transaction returned error: {...}"), Refused),
        (Finished(142, "", ""), InDoubt),
        (Finished(0, '[{"count":', ""), InDoubt),
        (Finished(0, "", ""), InDoubt),
    ],
)
def test_what_may_have_happened_is_in_doubt_and_what_has_not_is_said_so(
    answer: Finished, kind: type[PortError]
) -> None:
    with pytest.raises(kind, match="node n"):
        OverShellOvsdb("n", _Shell(answer), "/run/ovs").transact("DB", [], timeout=5)


def test_transaction_that_is_too_long_never_reaches_the_shell() -> None:
    shell = _Shell(Finished(0, "[]", ""))
    ovsdb = OverShellOvsdb("n", shell, "/run/ovs")
    with pytest.raises(Refused, match="does not fit"):
        ovsdb.transact("DB", [{"op": "comment", "comment": "x" * LONGEST}], timeout=5)
    assert shell.calls == []
