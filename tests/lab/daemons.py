"""Starting and ending the daemons of the lab: ovsdb-server, ovs-vswitchd, ovn-northd, ovn-controller.

Invariant: only a process whose command line names the lab's own folder is ever signalled.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from .kit import Kit
from .netns import run

_OVS_SCHEMA, _NB_SCHEMA, _SB_SCHEMA = (
    "openvswitch/vswitch.ovsschema",
    "ovn/ovn-nb.ovsschema",
    "ovn/ovn-sb.ovsschema",
)
_PROGRAMS = {
    "ip": "iproute2",
    "ovsdb-server": "openvswitch-switch",
    "ovs-vswitchd": "openvswitch-switch",
    "ovn-northd": "ovn-central",
    "ovn-controller": "ovn-host",
}


_DYING = 10.0
_STARTED = {"ovsdb-server", "ovsdb-tool", "ovs-vswitchd", "ovs-vsctl", "ovn-northd", "ovn-controller"}
_STARTED |= {"ld-linux-x86-64"}  # by which a newer OVN's programs run


def lacking() -> tuple[str, ...]:
    """What this machine lacks for a lab, in words; empty when nothing."""
    wants = [] if os.geteuid() == 0 else ["root"]
    wants += [
        f"{program} (Debian package {package})"
        for program, package in _PROGRAMS.items()
        if not _found(program)
    ]
    return tuple(wants)


def start_ovs(namespace: str, rundir: Path, kit: Kit) -> None:
    """One node's database and switch, which find each other (and are found) through `rundir` alone."""
    rundir.mkdir(parents=True, exist_ok=True)
    _start_database(kit, rundir, _OVS_SCHEMA, "conf.db", "db.sock", "ovsdb-server", namespace)
    run("env", *kit.environment, "ovs-vsctl", f"--db=unix:{rundir}/db.sock", "--no-wait", "init")
    _start(kit, namespace, rundir, "ovs-vswitchd", f"unix:{rundir}/db.sock")


def start_controller(namespace: str, rundir: Path, kit: Kit) -> None:
    """ovn-controller; 23.03 takes its control socket's place from the run directory only."""
    _start(kit, namespace, rundir, "ovn-controller", f"unix:{rundir}/db.sock")


def start_central(rundir: Path, kit: Kit) -> None:
    """The northbound and southbound databases and northd."""
    rundir.mkdir(parents=True)
    _start_database(kit, rundir, _NB_SCHEMA, "nb.db", "nb.sock", "ovn-nb")
    _start_database(kit, rundir, _SB_SCHEMA, "sb.db", "sb.sock", "ovn-sb")
    databases = (f"--ovnnb-db=unix:{rundir}/nb.sock", f"--ovnsb-db=unix:{rundir}/sb.sock")
    _start(kit, "", rundir, "ovn-northd", *databases)


def pid_of(rundir: Path, daemon: str) -> int:
    """From its pidfile: all nodes share the process space, only the run directory tells them apart."""
    return int((rundir / f"{daemon}.pid").read_text())


def end_all(folder: Path, namespaces: Iterable[str]) -> None:
    """Kill every process of the lab in `folder` at once, stopped ones too, and return when all are dead."""
    namespaces = tuple(namespaces)
    end = time.monotonic() + _DYING
    # More than once: a daemon whose starter was killed may only now get its final process and its pidfile.
    while (handles := _kill_all(folder, namespaces)) and time.monotonic() < end:
        _await_death(handles)


def end(pid: int, folder: Path) -> None:
    """Kill one process of the lab in `folder`, and return when it is dead."""
    handle = _kill(pid, folder)
    _await_death([] if handle is None else [handle])


def _await_death(handles: Iterable[int]) -> None:
    for handle in handles:
        # Readable as soon as the process is dead, a zombie included: init may take seconds to reap it.
        select.select([handle], [], [], _DYING)
        os.close(handle)


def _kill_all(folder: Path, namespaces: Iterable[str]) -> list[int]:
    pids = _pids(folder, namespaces)
    return [handle for pid in sorted(pids) if (handle := _kill(pid, folder)) is not None]


def _found(program: str) -> bool:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None


def _start(kit: Kit, namespace: str, rundir: Path, program: str, *arguments: str) -> None:
    prefix = ("ip", "netns", "exec", namespace) if namespace else ()
    environment = [f"{name}={rundir}" for name in ("OVS_RUNDIR", "OVN_RUNDIR", "OVS_LOGDIR", "OVN_LOGDIR")]
    common = (
        f"--pidfile={rundir}/{program}.pid",
        f"--log-file={rundir}/{program}.log",
        "--detach",
        "--no-chdir",
    )
    run(*prefix, "env", *kit.environment, *environment, program, "-vconsole:off", *arguments, *common)


def _start_database(
    kit: Kit, rundir: Path, schema: str, database: str, socket: str, name: str, namespace: str = ""
) -> None:
    run("env", *kit.environment, "ovsdb-tool", "create", str(rundir / database), str(kit.schemas / schema))
    prefix = ("ip", "netns", "exec", namespace) if namespace else ()
    run(
        *(*prefix, "env", *kit.environment, f"OVS_RUNDIR={rundir}", f"OVS_LOGDIR={rundir}"),
        *("ovsdb-server", "-vconsole:off"),
        *(str(rundir / database), f"--remote=punix:{rundir}/{socket}", f"--unixctl={rundir}/{name}.ctl"),
        *(f"--pidfile={rundir}/{name}.pid", f"--log-file={rundir}/{name}.log", "--detach", "--no-chdir"),
    )


def _pids(folder: Path, namespaces: Iterable[str]) -> set[int]:
    """By pidfile and by namespace; and by name, for one that was killed at before it had written its pidfile."""
    pids = {int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _program(entry) in _STARTED}
    for pidfile in folder.glob("**/*.pid"):
        with suppress(ValueError, OSError):
            pids.add(int(pidfile.read_text()))
    for namespace in namespaces:
        pids.update(int(pid) for pid in run("ip", "netns", "pids", namespace).split())
    return pids - {os.getpid()}


def _program(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return ""


def _kill(pid: int, folder: Path) -> int | None:
    """A handle that becomes readable when the process is dead, or None when it is gone or not ours."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return None
    if not _is_ours(pid, folder):
        os.close(handle)
        return None
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    return handle


def _is_ours(pid: int, folder: Path) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    inside = os.fsencode(folder)
    return any(word == inside or inside + b"/" in word for word in words)
