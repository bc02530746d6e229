"""What every way to a node promises, asked of each in the same words."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from providers.ports import InDoubt, Refused, Unreachable

from .servers import OvsdbServer
from .waiting import await_true, is_dead
from .ways import Way

pytestmark = pytest.mark.transport

DB = "Open_vSwitch"
SELECT: dict[str, Any] = {"op": "select", "table": DB, "where": [], "columns": ["external_ids"]}
HOSTILE = [
    *("", " ", "a b", "'", '"', "$HOME", "$(id)", "`id`", "\\", "\\n", "new\nline", "*", "~", "!!"),
    *("-n", "--", ";exit 9", "&", "|cat", ">x", "%s", "{a,b}", "é", "a=b", "#", "\t"),
]


def note(value: str) -> dict[str, Any]:
    """An operation that leaves a trace which a later select can find."""
    insert = ["external_ids", "insert", ["map", [["note", value]]]]
    return {"op": "mutate", "table": DB, "where": [], "mutations": [insert]}


def notes(way: Way) -> dict[str, str]:
    rows = way.ovsdb.transact(DB, [SELECT], timeout=10)[0]["rows"]
    return dict(rows[0]["external_ids"][1])


@pytest.mark.parametrize("rc", [0, 1, 3, 124, 126, 127, 137, 255])
def test_command_ends_with_its_output_and_code(way: Way, rc: int) -> None:
    done = way.shell.run(["sh", "-c", f"echo out; echo err >&2; exit {rc}"], timeout=10)
    assert (done.rc, done.out, done.err) == (rc, "out\n", "err\n")


def test_control_programs_find_the_run_directory(way: Way, server: OvsdbServer) -> None:
    done = way.shell.run(["sh", "-c", 'echo "$OVS_RUNDIR $OVN_RUNDIR"'], timeout=10)
    assert done.out == f"{server.rundir} {server.rundir}\n"
    done = way.shell.run(["ovs-appctl", "-t", "ovsdb-server", "version"], timeout=10)
    assert (done.rc, done.out.split()[0]) == (0, "ovsdb-server")


def test_words_reach_the_program_as_they_stand(way: Way) -> None:
    done = way.shell.run(["printf", "%s\\0", *HOSTILE], timeout=10)
    assert done.out.split("\0")[:-1] == HOSTILE


def test_a_megabyte_goes_in_and_comes_back(way: Way) -> None:
    data = bytes(range(1, 128)) * 8300
    done = way.shell.run(["cat"], timeout=20, stdin=data)
    assert (done.rc, done.out.encode()) == (0, data)


def test_every_byte_goes_in_and_then_the_input_ends(way: Way) -> None:
    done = way.shell.run(["od", "-An", "-v", "-tu1"], timeout=10, stdin=bytes(range(256)))
    assert [int(word) for word in done.out.split()] == list(range(256))


def test_command_without_input_finds_its_end_at_once(way: Way) -> None:
    assert way.shell.run(["cat"], timeout=10).out == ""


def test_command_that_reads_little_of_its_input_ends_as_it_likes(way: Way) -> None:
    done = way.shell.run(["sh", "-c", "head -c 3; exit 4"], timeout=20, stdin=b"x" * 3_000_000)
    assert (done.rc, done.out) == (4, "xxx")


def test_missing_program_is_127(way: Way) -> None:
    done = way.shell.run(["no-such-program", "x"], timeout=10)
    assert done.rc == 127
    assert "no-such-program" in done.err


def test_program_that_may_not_be_run_is_126(way: Way) -> None:
    assert way.shell.run(["/etc/passwd"], timeout=10).rc == 126


def test_command_out_of_time_is_in_doubt_and_ended_with_its_children(way: Way, tmp_path: Path) -> None:
    child = tmp_path / "child.pid"
    begun = time.monotonic()
    with pytest.raises(InDoubt, match=r"sh did not end within 1\.5 s"):
        way.shell.run(["sh", "-c", f"sleep 60 & echo $! > {child}; wait"], timeout=1.5)
    assert time.monotonic() - begun < 3
    pid = child.read_text().strip()
    await_true(lambda: is_dead(pid), "the child is dead too", within=5)


def test_many_commands_at_once_keep_their_output_apart(way: Way) -> None:
    with ThreadPoolExecutor(12) as pool:
        outs = pool.map(lambda n: way.shell.run(["echo", str(n)], timeout=30).out, range(24))
        assert list(outs) == [f"{n}\n" for n in range(24)]


def test_results_come_back_as_the_server_gave_them_errors_included(way: Way) -> None:
    results = way.ovsdb.transact(DB, [note("kept"), {"op": "abort"}, SELECT], timeout=10)
    assert results == [{"count": 1}, {"error": "aborted", "details": "aborted by request"}, None]
    assert "note" not in notes(way)


def test_text_of_any_language_is_written_and_read(way: Way) -> None:
    way.ovsdb.transact(DB, [note("é'\"\\ 名\n")], timeout=10)
    assert notes(way)["note"] == "é'\"\\ 名\n"


def test_unknown_database_is_refused(way: Way) -> None:
    with pytest.raises(Refused, match="unknown database"):
        way.ovsdb.transact("No_Such", [SELECT], timeout=10)


def test_nobody_at_the_socket_is_unreachable(way: Way, server: OvsdbServer) -> None:
    server.stop()
    with pytest.raises(Unreachable):
        way.ovsdb.transact(DB, [SELECT], timeout=10)


def test_server_that_does_not_answer_in_time_leaves_the_transaction_in_doubt(
    way: Way, server: OvsdbServer
) -> None:
    assert notes(way) == {}
    os.kill(server.pid, signal.SIGSTOP)
    with pytest.raises(InDoubt):
        way.ovsdb.transact(DB, [note("late")], timeout=1)
    os.kill(server.pid, signal.SIGCONT)


def test_transaction_given_up_while_it_waits_never_comes_true(way: Way) -> None:
    where = [["external_ids", "includes", ["map", [["gate", "open"]]]]]
    gate = {"op": "wait", "table": DB, "where": where, "columns": ["_uuid"], "until": "!=", "rows": []}
    assert notes(way) == {}
    with pytest.raises(InDoubt):
        way.ovsdb.transact(DB, [gate, note("too late")], timeout=1)
    opened = [["external_ids", "insert", ["map", [["gate", "open"]]]]]
    way.ovsdb.transact(DB, [{"op": "mutate", "table": DB, "where": [], "mutations": opened}], timeout=10)
    assert notes(way) == {"gate": "open"}


def test_server_that_dies_after_the_request_leaves_it_in_doubt(way: Way, server: OvsdbServer) -> None:
    gate = {"op": "wait", "table": DB, "where": [], "columns": ["_uuid"], "until": "==", "rows": []}
    killer = threading.Timer(0.7, lambda: os.kill(server.pid, signal.SIGKILL))
    assert notes(way) == {}
    killer.start()
    with pytest.raises(InDoubt):
        way.ovsdb.transact(DB, [gate], timeout=10)
    killer.join()
    (server.rundir / "ovsdb-server.pid").unlink()


def test_server_that_was_restarted_is_reached_again(way: Way, server: OvsdbServer) -> None:
    way.ovsdb.transact(DB, [note("before")], timeout=10)
    server.stop()
    with pytest.raises(Unreachable):
        way.ovsdb.transact(DB, [note("meanwhile")], timeout=5)
    server.start()
    assert notes(way)["note"] == "before"


def test_answer_of_a_megabyte_arrives_whole(way: Way) -> None:
    for number in range(12):
        insert = ["other_config", "insert", ["map", [[f"big-{number}", "x" * 90_000]]]]
        way.ovsdb.transact(
            DB, [{"op": "mutate", "table": DB, "where": [], "mutations": [insert]}], timeout=10
        )
    select = {"op": "select", "table": DB, "where": [], "columns": ["other_config"]}
    (row,) = way.ovsdb.transact(DB, [select], timeout=20)[0]["rows"]
    assert {len(value) for _, value in row["other_config"][1]} == {90_000}
    assert len(row["other_config"][1]) == 12
