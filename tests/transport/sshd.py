"""Real sshds on loopback, each with keys, users and a sudoers of its own.

Invariant: nothing of the machine is changed. The users exist only in the mount namespace of the sshd.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .waiting import await_true

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
OPERATOR, GUEST = "ovsplan-operator", "ovsplan-guest"
_PASSWD = f"""\
root:x:0:0:root:/root:/bin/bash
sshd:x:100:65534::/run/sshd:/usr/sbin/nologin
{OPERATOR}:x:61001:61001::/:/bin/sh
{GUEST}:x:61002:61002::/:/bin/sh
"""
_SUDOERS = f"""\
Defaults secure_path="{PATH}"
root ALL=(ALL:ALL) ALL
{OPERATOR} ALL=(ALL:ALL) NOPASSWD: ALL
"""
_START = """\
set -e
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/shadow" /etc/shadow
mount --bind "$1/sudoers" /etc/sudoers
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -f "$1/sshd_config" -E "$1/sshd.log"
"""


def lacking() -> list[str]:
    """What this machine lacks to run them."""
    needed = ["ssh", "sshd", "ssh-keygen", "sudo", "unshare", "timeout"]
    missing = [tool for tool in needed if not shutil.which(tool, path=f"{os.environ.get('PATH', '')}:{PATH}")]
    return ([] if os.geteuid() == 0 else ["root"]) + missing


def new_key(path: Path) -> None:
    """An ED25519 key pair at `path`, and `path`.pub."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@dataclass(frozen=True)
class Sshd:
    """A running sshd, and what a client needs to enter it."""

    folder: Path
    port: int
    identity: Path
    known_hosts: Path
    process: subprocess.Popen[bytes]

    @property
    def public_key(self) -> str:
        return (self.folder / "host_key.pub").read_text().strip()

    def sessions(self) -> list[int]:
        """The pids of the processes that serve a connection now."""
        return _children(self.process.pid)

    def cut(self) -> None:
        """Kill every connection, as a reset of the network would."""
        for pid in self.sessions():
            for inner in [*_children(pid), pid]:
                with suppress(ProcessLookupError):
                    os.kill(inner, signal.SIGKILL)

    def stop(self) -> None:
        """End it with its connections."""
        self.cut()
        self.process.terminate()
        self.process.wait(timeout=10)


@contextmanager
def running(folder: Path, *, options: str = "", client_key: Path | None = None) -> Iterator[Sshd]:
    """An sshd that lets `client_key` (made when not given) in as root, OPERATOR and GUEST."""
    folder.mkdir(parents=True)
    if client_key is None:
        client_key = folder / "id"
        new_key(client_key)
    new_key(folder / "host_key")
    port = free_port()
    _write_settings(folder, port, client_key, options)
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", _START, "sh", str(folder)],
        stdin=subprocess.DEVNULL,
        env={"PATH": PATH},
        start_new_session=True,
    )
    known_hosts = folder / "known_hosts"
    sshd = Sshd(folder, port, client_key, known_hosts, process)
    known_hosts.write_text(f"[127.0.0.1]:{port} {sshd.public_key}\n")
    try:
        await_true(lambda: _listens(port), f"sshd listens ({_log(folder)})")
        yield sshd
    finally:
        sshd.stop()


def free_port() -> int:
    """A TCP port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_settings(folder: Path, port: int, client_key: Path, options: str) -> None:
    (folder / "passwd").write_text(_PASSWD)
    # An account without a password, which is not locked either: sshd lets locked ones in by no key.
    names = [line.split(":")[0] for line in _PASSWD.splitlines()]
    (folder / "shadow").write_text("".join(f"{name}:*:19000:0:99999:7:::\n" for name in names))
    (folder / "sudoers").write_text(_SUDOERS)
    (folder / "sudoers").chmod(0o440)
    (folder / "authorized_keys").write_text(client_key.with_suffix(".pub").read_text())
    (folder / "sshd_config").write_text(
        f"{options}\nPort {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\n"
        f"AuthorizedKeysCommand /bin/cat {folder}/authorized_keys\nAuthorizedKeysCommandUser root\nPidFile none\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        "MaxStartups 100\nUseDNS no\nPrintMotd no\n"
    )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _log(folder: Path) -> str:
    path = folder / "sshd.log"
    return path.read_text() if path.exists() else "no log"


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
