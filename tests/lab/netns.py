"""Network namespaces: make them, run in them, open sockets in them.

Invariant: the calling thread never leaves its own namespace.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_FOLDER = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The lab could not be built, or did not do what it was asked in time."""


def run(*argv: str, stdin: str | None = None, timeout: float = 30) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(argv)}: rc {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def ip(namespace: str, *lines: str) -> None:
    """The lines of one `ip -batch` in a namespace ("" is the machine's own)."""
    where = ["-n", namespace] if namespace else []
    run("ip", *where, "-batch", "-", stdin="\n".join(lines) + "\n")


def add_all(names: Iterable[str], *, ipv6: bool = False) -> None:
    """Make namespaces whose loopback is up; without `ipv6` they never speak by themselves."""
    names = tuple(names)
    ip("", *(f"netns add {name}" for name in names))
    for name in names:
        ip(name, "link set dev lo up")
        if not ipv6:
            inside(name, _ipv6_off)


def links(namespace: str) -> set[str]:
    """The names of a namespace's devices."""
    return {name for _, name in inside(namespace, socket.if_nameindex)}


def present(prefix: str) -> tuple[str, ...]:
    """The namespaces whose names begin with `prefix`."""
    if not _FOLDER.is_dir():
        return ()
    return tuple(sorted(entry.name for entry in _FOLDER.iterdir() if entry.name.startswith(prefix)))


def delete_all(names: Iterable[str]) -> None:
    """Delete namespaces; one that is half made or already gone is no error."""
    lines = "".join(f"netns del {name}\n" for name in names)
    if lines:
        subprocess.run(
            ("ip", "-force", "-batch", "-"), input=lines, capture_output=True, text=True, check=False
        )


def inside(namespace: str, act: Callable[[], T]) -> T:
    """The result of `act`, called by a thread of its own that has entered the namespace."""
    results: list[T] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            _enter(namespace)
            results.append(act())
        except BaseException as exc:  # handed to the caller's thread, whatever it is
            errors.append(exc)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def await_true(condition: Callable[[], T], what: str, *, within: float, every: float = 0.005) -> T:
    """Poll until `condition` is truthy, and return its value; LabError names `what` did not come true."""
    end = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > end:
            raise LabError(f"not within {within:g} s: {what}")
        time.sleep(every)
    return value


def _enter(namespace: str) -> None:
    handle = os.open(_FOLDER / namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(handle, _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, f"setns to {namespace}: {os.strerror(code)}")
    finally:
        os.close(handle)


def _ipv6_off() -> None:
    for scope in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
