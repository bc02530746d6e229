"""What only the providers that reach the lab's nodes have: namespaces, and one kept connection to the database."""

from __future__ import annotations

import json
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from providers.node.local import LocalShell
from providers.ovsdb.client import UnixOvsdb
from providers.ports import InDoubt, Unreachable

from . import daemons
from .netns import run

pytestmark = pytest.mark.lab

DB = "Open_vSwitch"
SELECT: dict[str, Any] = {"op": "select", "table": DB, "where": [], "columns": ["external_ids"]}


def note(value: str) -> dict[str, Any]:
    """An operation that leaves a trace which a later select can find."""
    return {
        "op": "mutate",
        "table": DB,
        "where": [],
        "mutations": [["external_ids", "insert", ["map", [["note", value]]]]],
    }


@pytest.fixture
def rundir(needs_daemons: None, tmp_path: Path) -> Iterator[Path]:
    """An ovsdb-server of its own, which a test may stop and kill."""
    folder = tmp_path / "ovsdb"
    folder.mkdir()
    run("ovsdb-tool", "create", f"{folder}/conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
    start_server(folder)
    run("ovs-vsctl", f"--db=unix:{folder}/db.sock", "--no-wait", "init")
    yield folder
    daemons.end_all(folder, ())


def start_server(folder: Path) -> None:
    run(
        *("ovsdb-server", "-vconsole:off", f"{folder}/conf.db", f"--remote=punix:{folder}/db.sock"),
        *(f"--unixctl={folder}/ctl", f"--pidfile={folder}/ovsdb-server.pid", "--detach", "--no-chdir"),
    )


def notes(database: UnixOvsdb) -> dict[str, str]:
    rows = database.transact(DB, [SELECT], timeout=5)[0]["rows"]
    return dict(rows[0]["external_ids"][1])


def test_transaction_takes_less_than_a_millisecond(rundir: Path) -> None:
    with UnixOvsdb(f"{rundir}/db.sock") as database:
        seconds = []
        for number in range(200):
            begun = time.perf_counter()
            database.transact(DB, [note(str(number))], timeout=5)
            seconds.append(time.perf_counter() - begun)
    assert statistics.median(seconds) < 0.001


def test_nobody_at_the_socket_is_unreachable(tmp_path: Path) -> None:
    database = UnixOvsdb(f"{tmp_path}/db.sock")
    with pytest.raises(Unreachable, match="No such file or directory"):
        database.transact(DB, [SELECT], timeout=1)


def test_path_longer_than_a_socket_address_is_reached(rundir: Path) -> None:
    deep = rundir / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    (deep / "db.sock").hardlink_to(rundir / "db.sock")
    with UnixOvsdb(f"{deep}/db.sock") as database:
        assert notes(database) == {}


@contextmanager
def peer(tmp_path: Path, serve: Callable[[socket.socket], None]) -> Iterator[UnixOvsdb]:
    """A server that takes one connection and does with it what real ones do only after seconds, or by dying."""
    path = f"{tmp_path}/peer.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def accept() -> None:
            connection, _ = listening.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        with UnixOvsdb(path) as database:
            yield database
        thread.join(timeout=5)
        assert not thread.is_alive()


def test_echo_request_is_answered_before_the_server_loses_patience(tmp_path: Path) -> None:
    heard: list[Any] = []

    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b'{"method":"echo","params":["\xc3\xa9"],"id":"probe"}')
        heard.append(json.loads(connection.recv(4096)))
        for piece in (b'{"id":1,"error":null,"result":[{"rows":"\xc3', b'\xa9"', b"}]}"):
            connection.sendall(piece)
            time.sleep(0.01)

    with peer(tmp_path, serve) as database:
        assert database.transact(DB, [SELECT], timeout=5) == [{"rows": "é"}]
    assert heard == [{"id": "probe", "result": ["é"], "error": None}]


def test_connection_that_dies_after_the_request_leaves_it_in_doubt(tmp_path: Path) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)

    with (
        peer(tmp_path, serve) as database,
        pytest.raises(InDoubt, match="closed the connection"),
    ):
        database.transact(DB, [note("?")], timeout=5)


@pytest.mark.parametrize("prefix", [(), ("ip", "netns", "exec", "{node}")], ids=["bare", "namespace"])
def test_missing_program_is_127(lab: Any, prefix: tuple[str, ...], tmp_path: Path) -> None:
    words = [word.format(node=lab.place.namespace("worker-01")) for word in prefix]
    done = LocalShell(words, str(tmp_path)).run(["no-such-program", "x"], timeout=5)
    assert done.rc == 127
    assert "no-such-program" in done.err


def test_missing_namespace_is_unreachable(needs_daemons: None, tmp_path: Path) -> None:
    shell = LocalShell(("ip", "netns", "exec", "ovsplan-no-such"), str(tmp_path))
    with pytest.raises(Unreachable, match="ovsplan-no-such"):
        shell.run(["true"], timeout=5)


def test_missing_prefix_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no-such-prefix"):
        LocalShell(("no-such-prefix",), str(tmp_path)).run(["true"], timeout=5)
