"""ssh to real sshds: who is let in, what is said when nobody is, and what is left behind."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from providers.node.ssh import SshNodes
from providers.ports import InDoubt, Refused, Unreachable

from . import sshd
from .conftest import NODE, SshMaker, settings
from .servers import OvsdbServer
from .sshd import GUEST, OPERATOR, Sshd
from .waiting import await_true, is_dead

pytestmark = pytest.mark.transport

DB = "Open_vSwitch"
SELECT = {"op": "select", "table": DB, "where": [], "columns": ["next_cfg"]}


def test_unknown_host_key_is_unreachable_and_the_way_to_mend_it_is_told(
    daemon: Sshd, ssh: SshMaker, tmp_path: Path
) -> None:
    empty = tmp_path / "known_hosts"
    empty.touch()
    with pytest.raises(Unreachable) as error:
        ssh(daemon, known_hosts=str(empty)).shell(NODE).run(["true"], timeout=10)
    told = str(error.value)
    assert f"node worker-01: {empty} holds no host key of [127.0.0.1]:{daemon.port}." in told
    assert f"`ssh-keyscan -p {daemon.port} 127.0.0.1 >> {empty}`" in told
    assert empty.read_text() == ""


def test_changed_host_key_is_unreachable_and_both_reasons_are_told(
    daemon: Sshd, ssh: SshMaker, tmp_path: Path
) -> None:
    sshd.new_key(tmp_path / "other")
    other = (tmp_path / "other.pub").read_text()
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{daemon.port} {other}")
    with pytest.raises(Unreachable, match=r"shows another host key than .* holds") as error:
        ssh(daemon, known_hosts=str(tmp_path / "known_hosts")).shell(NODE).run(["true"], timeout=10)
    assert f"`ssh-keygen -R '[127.0.0.1]:{daemon.port}' -f {tmp_path}/known_hosts`" in str(error.value)


def test_wrong_key_is_unreachable(daemon: Sshd, ssh: SshMaker, tmp_path: Path) -> None:
    sshd.new_key(tmp_path / "id")
    with pytest.raises(Unreachable, match=r"lets nobody in by the keys it is offered: .*Permission denied"):
        ssh(daemon, identity=str(tmp_path / "id")).shell(NODE).run(["true"], timeout=10)


def test_nobody_at_the_port_is_unreachable(daemon: Sshd, ssh: SshMaker) -> None:
    with pytest.raises(Unreachable, match=r"node worker-01: .*Connection refused"):
        ssh(daemon, port=sshd.free_port()).shell(NODE).run(["true"], timeout=10)


def test_command_passes_through_a_jump_host_whose_key_is_checked_too(
    daemon: Sshd, ssh: SshMaker, tmp_path: Path
) -> None:
    with sshd.running(tmp_path / "jump", client_key=daemon.identity) as jump:
        spec = f"root@127.0.0.1:{jump.port}"
        with pytest.raises(Unreachable, match=rf"holds no host key of \[127\.0\.0\.1\]:{jump.port}"):
            ssh(daemon, jump=spec).shell(NODE).run(["true"], timeout=10)
        both = tmp_path / "known_hosts"
        both.write_text(daemon.known_hosts.read_text() + jump.known_hosts.read_text())
        done = (
            ssh(daemon, jump=spec, known_hosts=str(both))
            .shell(NODE)
            .run(["printenv", "SSH_CONNECTION"], timeout=10)
        )
        assert (done.rc, done.out.split()[3]) == (0, str(daemon.port))
        assert jump.sessions()


def test_sudo_runs_as_root_and_passes_input_output_and_code(daemon: Sshd, ssh: SshMaker) -> None:
    assert ssh(daemon, user=OPERATOR).shell(NODE).run(["id", "-un"], timeout=10).out == f"{OPERATOR}\n"
    shell = ssh(daemon, user=OPERATOR, sudo=True).shell(NODE)
    done = shell.run(["sh", "-c", "id -un; cat; echo err >&2; exit 7"], timeout=10, stdin=b"given")
    assert (done.rc, done.out, done.err) == (7, "root\ngiven", "err\n")


def test_sudo_that_wants_a_password_is_refused(daemon: Sshd, ssh: SshMaker) -> None:
    with pytest.raises(Refused, match=r"node worker-01: sudo: a password is required\. Let the user"):
        ssh(daemon, user=GUEST, sudo=True).shell(NODE).run(["true"], timeout=10)


def test_exit_code_255_of_a_command_is_its_own(daemon: Sshd, ssh: SshMaker) -> None:
    done = ssh(daemon).shell(NODE).run(["sh", "-c", "echo 'Connection closed' >&2; exit 255"], timeout=10)
    assert (done.rc, done.err) == (255, "Connection closed\n")


def test_connection_cut_while_a_command_runs_leaves_it_in_doubt(
    own_daemon: Sshd, ssh: SshMaker, tmp_path: Path
) -> None:
    shell = ssh(own_daemon).shell(NODE)
    begun = tmp_path / "begun"

    def cut_when_begun() -> None:
        await_true(begun.exists, "the command has begun")
        own_daemon.cut()

    cut = threading.Thread(target=cut_when_begun)
    cut.start()
    with pytest.raises(InDoubt, match=r"node worker-01: the connection was lost while a command ran"):
        shell.run(["sh", "-c", f"touch {begun}; sleep 3"], timeout=10)
    cut.join()
    assert shell.run(["echo", "again"], timeout=10).out == "again\n"


def test_connection_that_was_cut_in_between_is_made_anew_and_the_command_runs_once(
    own_daemon: Sshd, ssh: SshMaker, tmp_path: Path
) -> None:
    shell = ssh(own_daemon).shell(NODE)
    count = ["sh", "-c", f"echo x >> {tmp_path}/runs"]
    shell.run(count, timeout=10)
    own_daemon.cut()
    assert shell.run(count, timeout=10).rc == 0
    assert (tmp_path / "runs").read_text() == "x\nx\n"


def test_daemon_that_is_gone_is_unreachable(own_daemon: Sshd, ssh: SshMaker) -> None:
    shell = ssh(own_daemon).shell(NODE)
    shell.run(["true"], timeout=10)
    own_daemon.stop()
    with pytest.raises(Unreachable):
        shell.run(["true"], timeout=10)


def test_twenty_commands_at_once_share_one_connection(own_daemon: Sshd, ssh: SshMaker) -> None:
    shell = ssh(own_daemon).shell(NODE)
    with ThreadPoolExecutor(20) as pool:
        outs = list(pool.map(lambda n: shell.run(["echo", str(n)], timeout=20).out, range(20)))
    assert outs == [f"{n}\n" for n in range(20)]
    assert len(own_daemon.sessions()) == 1


def test_command_that_finds_no_room_in_its_time_is_unreachable_and_does_not_run(
    daemon: Sshd, ssh: SshMaker, tmp_path: Path
) -> None:
    shell = ssh(daemon, user=OPERATOR).shell(NODE)
    shell.run(["true"], timeout=10)
    with ThreadPoolExecutor(8) as pool:
        begun = time.monotonic()
        long = [pool.submit(shell.run, ["sleep", "6.25"], timeout=20) for _ in range(8)]
        await_true(lambda: len(_sleeping("6.25")) == 8, "eight commands run")
        with pytest.raises(Unreachable, match="too many commands run there"):
            shell.run(["touch", f"{tmp_path}/ran"], timeout=0.5)
        assert time.monotonic() - begun < 6
        assert {done.result().rc for done in long} == {0}
    assert not (tmp_path / "ran").exists()


def _sleeping(seconds: str) -> list[str]:
    found = subprocess.run(["pgrep", "-x", "-f", f"sleep {seconds}"], capture_output=True, text=True)
    return found.stdout.split()


def test_sshd_that_allows_too_few_sessions_is_named_with_what_to_set(ssh: SshMaker, tmp_path: Path) -> None:
    with (
        sshd.running(tmp_path / "sshd", options="MaxSessions 1") as strict,
        pytest.raises(Unreachable, match="set MaxSessions in its sshd_config to 9 or more"),
    ):
        ssh(strict).shell(NODE).run(["true"], timeout=10)


def test_closing_ends_the_connection_and_removes_its_folder(own_daemon: Sshd) -> None:
    nodes = SshNodes(settings(own_daemon), lambda node: "127.0.0.1")
    nodes.shell(NODE).run(["true"], timeout=10)
    folder = Path(str(nodes._folder.path)) if nodes._folder else Path("none")
    assert folder.stat().st_mode & 0o777 == 0o700
    nodes.close()
    assert not folder.exists()
    await_true(lambda: not own_daemon.sessions(), "the connection ends")


def test_closing_does_not_wait_for_a_command_that_runs(own_daemon: Sshd, tmp_path: Path) -> None:
    nodes = SshNodes(settings(own_daemon), lambda node: "127.0.0.1")
    shell, begun = nodes.shell(NODE), tmp_path / "begun"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(shell.run, ["sh", "-c", f"touch {begun}; exec sleep 8"], timeout=20)
        await_true(begun.exists, "the command has begun")
        started = time.monotonic()
        nodes.close()
        assert time.monotonic() - started < 5
        with pytest.raises(InDoubt):
            running.result(timeout=3)


def test_forwarded_socket_takes_milliseconds_and_outlasts_a_cut(
    own_daemon: Sshd, ssh: SshMaker, server: OvsdbServer
) -> None:
    ovsdb = ssh(own_daemon, rundir=str(server.rundir)).ovsdb(NODE)
    ovsdb.transact(DB, [SELECT], timeout=10)
    seconds = []
    for _ in range(50):
        begun = time.perf_counter()
        ovsdb.transact(DB, [SELECT], timeout=10)
        seconds.append(time.perf_counter() - begun)
    # A session of its own takes ten times as long.
    assert statistics.median(seconds) < 0.005
    own_daemon.cut()

    def reached() -> bool:
        try:
            return bool(ovsdb.transact(DB, [SELECT], timeout=10)[0]["rows"])
        except (Unreachable, InDoubt):
            # In doubt once, if the cut is not felt yet when the next request goes out.
            return False

    await_true(reached, "the database is reached again")


def test_database_is_reached_where_sshd_forbids_forwarding(
    ssh: SshMaker, server: OvsdbServer, tmp_path: Path
) -> None:
    with sshd.running(tmp_path / "sshd", options="AllowStreamLocalForwarding no") as strict:
        ovsdb = ssh(strict, rundir=str(server.rundir)).ovsdb(NODE)
        assert ovsdb.transact(DB, [SELECT], timeout=10)[0]["rows"]


def test_database_that_the_login_may_not_open_is_unreachable(
    daemon: Sshd, ssh: SshMaker, server: OvsdbServer
) -> None:
    ovsdb = ssh(daemon, user=OPERATOR, rundir=str(server.rundir)).ovsdb(NODE)
    with pytest.raises(Unreachable, match="Permission denied"):
        ovsdb.transact(DB, [SELECT], timeout=10)


_KILLED = """\
import os, signal, sys
from providers.node.ssh import SshNodes
from providers.node.ssh_connection import SshSettings
user, port, identity, known = sys.argv[1:]
nodes = SshNodes(SshSettings(user, int(port), identity, known), lambda node: "127.0.0.1")
nodes.shell("worker-01").run(["true"], timeout=10)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for temporary files whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ot-") as folder:
        yield Path(folder)


def test_no_connection_outlives_a_process_that_was_killed(own_daemon: Sshd, short: Path) -> None:
    words = ["root", str(own_daemon.port), str(own_daemon.identity), str(own_daemon.known_hosts)]
    environment = {**os.environ, "TMPDIR": str(short)}
    killed = subprocess.run([sys.executable, "-c", _KILLED, *words], timeout=30, env=environment)
    assert killed.returncode == -signal.SIGKILL
    await_true(lambda: not own_daemon.sessions(), "the connection ends")


def test_folder_of_a_killed_process_is_removed_by_the_next_and_that_of_a_living_one_stays(
    daemon: Sshd, ssh: SshMaker, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    living = ssh(daemon)
    living.shell(NODE)
    (kept,) = short.iterdir()
    orphan = short / "ovsplan-ssh-orphan"
    orphan.mkdir()
    (orphan / "lock").touch()
    for folder in (kept, orphan):
        os.utime(folder, (0, 0))
    ssh(daemon).shell(NODE)
    assert kept.exists()
    assert not orphan.exists()


def test_no_setting_of_the_user_lets_a_command_go_elsewhere_or_ask(
    daemon: Sshd, ssh: SshMaker, tmp_path: Path
) -> None:
    home = tmp_path / "config"
    home.write_text(
        "Host *\n  RemoteCommand echo hijacked\n  RequestTTY force\n  StrictHostKeyChecking no\n"
        f"  LocalForward {sshd.free_port()} 127.0.0.1:1\n"
    )
    nodes = ssh(daemon)
    nodes.shell(NODE)
    assert nodes._folder is not None
    configuration = nodes._folder.configuration
    configuration.write_text(configuration.read_text().replace("~/.ssh/config", str(home)))
    done = nodes.shell(NODE).run(["sh", "-c", "tty; echo mine"], timeout=10)
    assert done.out == "not a tty\nmine\n"


def test_time_that_is_up_leaves_nothing_running_there_even_under_sudo(
    daemon: Sshd, ssh: SshMaker, tmp_path: Path
) -> None:
    shell = ssh(daemon, user=OPERATOR, sudo=True).shell(NODE)
    child = tmp_path / "child.pid"
    with pytest.raises(InDoubt):
        shell.run(["sh", "-c", f"sleep 60 & echo $! > {child}; wait"], timeout=1)
    pid = child.read_text().strip()
    await_true(lambda: is_dead(pid), "the child is dead too")
