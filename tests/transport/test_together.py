"""Several questions to one node at one go, by every way: each is answered by itself."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from providers.kubernetes.pod_exec import Execs
from providers.node.ssh_connection import Connection
from providers.ports import Command, Finished, InDoubt, Refused, Transaction, Unreachable

from .servers import OvsdbServer
from .test_contract import DB, HOSTILE, SELECT, note
from .waiting import await_true, is_dead
from .ways import Way

pytestmark = pytest.mark.transport

VERSION = ("ovs-appctl", "-t", "ovsdb-server", "version")


def command(*argv: str, timeout: float = 20) -> Command:
    return Command(argv, timeout)


def transaction(*operations: Any, database: str = DB, timeout: float = 20) -> Transaction:
    return Transaction(database, operations, timeout)


def test_a_command_and_a_transaction_are_answered_in_the_order_of_the_questions(way: Way) -> None:
    way.ovsdb.transact(DB, [note("é'\"\\ 名\n")], timeout=10)
    shown, results, failed = way.ask(
        command(*VERSION),
        transaction(SELECT, {"op": "abort"}),
        command("sh", "-c", "echo o; echo e >&2; exit 3"),
    )
    assert isinstance(shown, Finished) and (shown.rc, shown.out.split()[0]) == (0, "ovsdb-server")
    assert isinstance(results, list)
    assert dict(results[0]["rows"][0]["external_ids"][1]) == {"note": "é'\"\\ 名\n"}
    assert results[1] == {"error": "aborted", "details": "aborted by request"}
    assert failed == Finished(3, "o\n", "e\n")


def test_words_and_bytes_stay_as_they_are_and_apart(way: Way) -> None:
    count = 'i=0; while [ $i -lt 256 ]; do printf "\\\\$(printf %o $i)"; i=$((i+1)); done'
    words, all_bytes, again = way.ask(
        command("printf", "%s\\0", *HOSTILE),
        command("sh", "-c", f"{count}; ({count}) >&2"),
        command("echo", "x"),
    )
    assert isinstance(words, Finished) and words.out.split("\0")[:-1] == HOSTILE
    text = bytes(range(256)).decode(errors="replace")
    assert all_bytes == Finished(0, text, text)
    assert again == Finished(0, "x\n", "")


def test_one_out_of_time_is_in_doubt_and_ended_and_the_others_are_answered(way: Way, tmp_path: Path) -> None:
    child = tmp_path / "child.pid"
    first, slow, missing, forbidden, last = way.ask(
        command("echo", "first"),
        command("sh", "-c", f"sleep 60 & echo $! > {child}; wait", timeout=1.5),
        command("no-such-program"),
        command("/etc/passwd"),
        transaction(SELECT),
    )
    assert first == Finished(0, "first\n", "")
    assert isinstance(slow, InDoubt) and "sh did not end within 1.5 s" in str(slow)
    assert isinstance(missing, Finished) and missing.rc == 127 and "no-such-program" in missing.err
    assert isinstance(forbidden, Finished) and forbidden.rc == 126
    assert isinstance(last, list)
    pid = child.read_text().strip()
    await_true(lambda: is_dead(pid), "its child is dead too", within=5)


def test_nobody_at_the_socket_is_unreachable_and_hides_no_command(way: Way, server: OvsdbServer) -> None:
    server.stop()
    lost, said = way.ask(transaction(SELECT), command("echo", "x"))
    assert isinstance(lost, Unreachable)
    assert said == Finished(0, "x\n", "")


def test_a_server_that_does_not_answer_is_in_doubt_and_hides_no_command(
    way: Way, server: OvsdbServer
) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    late, said = way.ask(transaction(SELECT, timeout=1), command("echo", "x"))
    os.kill(server.pid, signal.SIGCONT)
    assert isinstance(late, InDoubt)
    assert said == Finished(0, "x\n", "")


def test_an_unknown_database_is_refused_and_hides_no_other(way: Way) -> None:
    refused, results = way.ask(transaction(SELECT, database="No_Such"), transaction(SELECT))
    assert isinstance(refused, Refused) and "unknown database" in str(refused)
    assert isinstance(results, list)


def test_answers_of_a_megabyte_arrive_whole_beside_each_other(way: Way) -> None:
    long = "head -c 1000000 /dev/zero | tr '\\0' '{}'"
    a, short, b = way.ask(
        command("sh", "-c", long.format("a")), command("echo", "x"), command("sh", "-c", long.format("b"))
    )
    assert (a, short, b) == (
        Finished(0, "a" * 1_000_000, ""),
        Finished(0, "x\n", ""),
        Finished(0, "b" * 1_000_000, ""),
    )


def test_all_questions_of_an_observation_are_one_journey(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    journeys: list[str] = []

    def counted(method: Any, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            journeys.append(name)
            return method(*args, **kwargs)

        return call

    monkeypatch.setattr(Execs, "run", counted(Execs.run, "exec"))
    monkeypatch.setattr(Connection, "command", counted(Connection.command, "session"))
    answers = way.ask(
        transaction(SELECT), command("ovn-appctl", "--version"), command("ovs-appctl", "--version")
    )
    assert [type(answer) for answer in answers] == [list, Finished, Finished]
    assert journeys == {"local": [], "pod": ["exec"]}.get(way.name, ["session"])
