"""One kept OpenSSH connection to one node, which commands and forwarded sockets share.

Invariant: whatever happened before the connection stood is Unreachable; once it stands, a command whose end was not
heard is InDoubt, however ssh ended. The end is heard by a token, for ssh's exit code 255 may be the command's own.

The connection lives as long as its stdin is open, so that none outlives this process, killed or not.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import secrets
import select
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from providers.node.process import Ended, OutOfTime, end, finish
from providers.ports import InDoubt, Refused, Unreachable

_KEEP = "exec cat >/dev/null"
_TELL_END = 'token=$1; shift; "$@"; rc=$?; printf "%s %d\\n" "$token" "$rc" >&2; exit "$rc"'
_CLIENT_FAILED = 255
_NO_SESSION = "Session open refused by peer"
_SESSIONS = 8
"""Commands at once on one connection: sshd allows ten sessions, and the connection is one."""

_PARTING = 2.0
_LONGEST_FOLDER = 60
_PREFIX, _LOCK, _NEW = "ovsplan-ssh-", "lock", 60.0
_NEVER_SENT = re.compile(r"exchange_identification|Connection (closed|reset) by UNKNOWN")


@dataclass(frozen=True, slots=True)
class SshSettings:
    """How ssh enters the nodes. What is not given is left to the user's own ssh configuration."""

    user: str | None = None
    port: int | None = None
    identity: str | None = None
    known_hosts: str | None = None
    jump: str | None = None
    sudo: bool = False


class SshFolder:
    """A private folder for control sockets, forwarded sockets and the configuration they all use."""

    def __init__(self, settings: SshSettings) -> None:
        base = tempfile.gettempdir()
        # A control socket's whole path has to fit in the 107 bytes of an address.
        base = base if len(base) < _LONGEST_FOLDER else "/tmp"
        _remove_orphans(Path(base))
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.configuration = self.path / "config"
        self.configuration.write_text(_configuration(settings), encoding="utf-8")

    def name(self, suffix: str) -> Path:
        """A path in it that nothing else has."""
        return self.path / f"{secrets.token_hex(4)}.{suffix}"

    def remove(self) -> None:
        """Remove it with what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _remove_orphans(base: Path) -> None:
    """Remove the folders of processes that were killed: nobody holds their locks."""
    for folder in base.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            # Seconds after it was made, a folder may not have its lock yet.
            if folder.stat().st_mtime > time.time() - _NEW:
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


class Connection:
    """The connection to one host. Made when first needed, and again when it was lost; safe for several threads."""

    def __init__(self, node: str, host: str, settings: SshSettings, folder: SshFolder) -> None:
        self._node = node
        self._host = host
        self._settings = settings
        self._folder = folder
        self._control = folder.name("c")
        self._master: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._sessions = threading.BoundedSemaphore(_SESSIONS)

    def command(self, argv: Sequence[str], *, sudo: bool, stdin: bytes, deadline: float) -> Ended:
        """Run `argv` there until it ends; `deadline` is on the monotonic clock.

        Raises Unreachable (not begun), Refused (sudo would not) or InDoubt (the connection or the time ended first).
        """
        for _ in range(2):
            master = self._standing(deadline)
            if not self._sessions.acquire(timeout=max(deadline - time.monotonic(), 0)):
                raise Unreachable(f"node {self._node}: too many commands run there to begin another in time")
            try:
                ended = self._in_session(argv, sudo, stdin, deadline)
            finally:
                self._sessions.release()
            if ended is not None:
                return ended
            self._drop(master)
        raise Unreachable(f"node {self._node}: sshd at {self._host} closes the connection before any command")

    def forward(self, remote: str, deadline: float) -> str:
        """A local socket that leads to the socket `remote` there. Raises Unreachable."""
        self.connect(deadline)
        local = str(self._folder.name("s"))
        argv = [*self._client(), "-O", "forward", "-L", f"{local}:{remote}", "--", self._host]
        try:
            ended = finish(argv, timeout=max(deadline - time.monotonic(), 0.1))
        except (OSError, OutOfTime) as exc:
            raise Unreachable(f"node {self._node}: ssh forwards no socket: {exc}") from exc
        if ended.rc:
            raise Unreachable(f"node {self._node}: ssh forwards no socket: {_last_line(_text(ended.err))}")
        return local

    def connect(self, deadline: float) -> None:
        """Have a connection that stands. Raises Unreachable, with how to mend it where that is known."""
        self._standing(deadline)

    @property
    def stands(self) -> bool:
        """Whether the connection is there now."""
        return self._master is not None and self._master.poll() is None

    def let_go(self) -> None:
        """Let it end by itself, without waiting for it."""
        if self._master is not None:
            _close(self._master.stdin)

    def close(self) -> None:
        """Hang up; what still runs there is ended by its bound."""
        with self._lock:
            self._hang_up()

    def _standing(self, deadline: float) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._master is None or self._master.poll() is not None:
                self._hang_up()
                self._master = self._begin(deadline)
            return self._master

    def _drop(self, master: subprocess.Popen[bytes]) -> None:
        """Hang up on `master`, unless somebody has replaced it already: others' commands run on the new one."""
        with self._lock:
            if self._master is master:
                self._hang_up()

    def _begin(self, deadline: float) -> subprocess.Popen[bytes]:
        left = deadline - time.monotonic()
        if left <= 0:
            raise Unreachable(f"node {self._node}: no time left to connect to {self._host}")
        token = secrets.token_hex(8)
        log = self._folder.name("log")
        lasting = _options(
            "ControlMaster=yes",
            "ControlPersist=no",
            "ClearAllForwardings=yes",
            f"ConnectTimeout={math.ceil(left)}",
            *([f"ProxyJump={self._settings.jump}"] if self._settings.jump else []),
        )
        keep = shlex.join(["exec", "sh", "-c", f"echo {token}; {_KEEP}"])
        argv = [*self._client(), *lasting, "--", self._host, keep]
        try:
            with log.open("wb") as errors:
                master = subprocess.Popen(
                    argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
                )
        except OSError as exc:
            raise Unreachable(f"the OpenSSH client `ssh` can't be started: {exc.strerror}") from exc
        try:
            standing = _says(master, token.encode(), deadline)
        except BaseException:
            # Whatever ends the wait, Ctrl-C included, no connection is left standing that nobody knows.
            _bury(master)
            raise
        told = log.read_text(encoding="utf-8", errors="replace")
        log.unlink()
        if not standing:
            _bury(master)
            raise Unreachable(f"node {self._node}: {self._why(told)}")
        return master

    def _hang_up(self) -> None:
        master, self._master = self._master, None
        if master is None:
            return
        _close(master.stdin)
        try:
            master.wait(timeout=_PARTING)
        except subprocess.TimeoutExpired:
            # Commands still run on it, for somebody who will hear that theirs is in doubt.
            end(master)
        _close(master.stdout)
        self._control.unlink(missing_ok=True)

    def _in_session(self, argv: Sequence[str], sudo: bool, stdin: bytes, deadline: float) -> Ended | None:
        """The command's end; None when the connection turned out to be gone before anything was sent."""
        token = secrets.token_hex(8)
        log = self._folder.name("log")
        remote = [*(["sudo", "-n", "--"] if sudo else []), "sh", "-c", _TELL_END, "sh", token, *argv]
        # Without a master the client would connect by itself: outside our count, and with no word on what was sent.
        alone = _options("ProxyCommand=false", "ClearAllForwardings=yes")
        call = [*self._client(), *alone, "-E", str(log), "--", self._host, shlex.join(["exec", *remote])]
        left = deadline - time.monotonic()
        if left <= 0:
            raise Unreachable(f"node {self._node}: no time left to run {argv[0]}")
        try:
            ended = finish(call, timeout=left, stdin=stdin)
        except OutOfTime as exc:
            raise InDoubt(f"node {self._node}: nothing was heard of a command's end within its time") from exc
        except OSError as exc:
            raise Unreachable(f"the OpenSSH client `ssh` can't be started: {exc.strerror}") from exc
        finally:
            told = _take(log)
        return self._heard(ended, token, told)

    def _heard(self, ended: Ended, token: str, told: str) -> Ended | None:
        if found := re.search(rb"%s (\d+)\n" % token.encode(), ended.err):
            return Ended(int(found[1]), ended.out, ended.err[: found.start()] + ended.err[found.end() :])
        err = _text(ended.err)
        if ended.rc == _CLIENT_FAILED:
            if _NO_SESSION in told:
                raise Unreachable(
                    f"node {self._node}: sshd at {self._host} allows too few sessions on one connection; "
                    f"set MaxSessions in its sshd_config to {_SESSIONS + 1} or more"
                )
            if _NEVER_SENT.search(told):
                return None
            raise InDoubt(
                f"node {self._node}: the connection was lost while a command ran. {_last_line(told)}".rstrip()
            )
        if err.startswith("sudo: "):
            raise Refused(
                f"node {self._node}: {_last_line(err)}. Let the user run commands by sudo without a password."
            )
        raise InDoubt(f"node {self._node}: a command ended with {ended.rc} and its shell did not say how")

    def _client(self) -> list[str]:
        settings = self._settings
        user = ["-l", settings.user] if settings.user else []
        port = ["-p", str(settings.port)] if settings.port else []
        return ["ssh", "-F", str(self._folder.configuration), "-S", str(self._control), "-T", *user, *port]

    def _why(self, told: str) -> str:
        file = self._settings.known_hosts or "~/.ssh/known_hosts"
        if changed := re.search(r"Host key for (\S+) has changed", told):
            where = changed[1]
            return (
                f"{where} shows another host key than {file} holds: it was installed anew, or somebody stands in "
                f"between. Find out which; then `ssh-keygen -R {shlex.quote(where)} -f {file}` and add the new key."
            )
        if unknown := re.search(r"No (\S+) host key is known for (\S+) and", told):
            where = unknown[2]
            return (
                f"{file} holds no host key of {where}. Add its line there "
                f"(`ssh-keyscan {_scan_words(where)} >> {file}`), after comparing it with what "
                "`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints on the machine itself."
            )
        if "Permission denied" in told:
            return f"sshd at {self._host} lets nobody in by the keys it is offered: {_last_line(told)}"
        return f"ssh to {self._host}: {_last_line(told) or 'no answer in time'}"


def _configuration(settings: SshSettings) -> str:
    """The first value of an option counts: what we rely on, then what the target says, then what the user has."""
    lines = [
        *("Host *", "StrictHostKeyChecking yes", "UpdateHostKeys no", "BatchMode yes", "LogLevel ERROR"),
        *("RequestTTY no", "RemoteCommand none", "PermitLocalCommand no", "ForwardAgent no", "ForwardX11 no"),
        *("ControlMaster no", "ControlPath none", "ServerAliveInterval 5", "ServerAliveCountMax 3"),
    ]
    if settings.known_hosts:
        lines.append(f"UserKnownHostsFile {_quoted(settings.known_hosts)}")
    if settings.identity:
        lines += [f"IdentityFile {_quoted(settings.identity)}", "IdentitiesOnly yes"]
    lines += ["Include ~/.ssh/config", "Include /etc/ssh/ssh_config"]
    return "\n".join(lines) + "\n"


def _options(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("-o", pair)]


def _quoted(path: str) -> str:
    return '"' + path.replace("%", "%%") + '"'


def _bury(master: subprocess.Popen[bytes]) -> None:
    end(master)
    _close(master.stdin)
    _close(master.stdout)


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with suppress(BrokenPipeError):
            pipe.close()


def _says(process: subprocess.Popen[bytes], word: bytes, deadline: float) -> bool:
    """Whether `word` comes from it by `deadline`; a login shell may print things of its own before."""
    assert process.stdout is not None
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    heard = b""
    while word not in heard:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return False
        data = os.read(process.stdout.fileno(), 4096)
        if not data:
            return False
        heard += data
    return True


def _take(log: Path) -> str:
    try:
        told = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    log.unlink()
    return told


def _scan_words(where: str) -> str:
    if port := re.fullmatch(r"\[(.+)\]:(\d+)", where):
        return f"-p {port[2]} {port[1]}"
    return where


def _text(data: bytes) -> str:
    return data.decode(errors="replace").strip()


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
