"""A node whose network belongs to NetworkManager: its own /run, D-Bus and NetworkManager beside its own Open vSwitch.

Invariant: all that NetworkManager reads and writes is the node's own (its configuration, state, bus and /run); the
machine's bus, NetworkManager and /etc are out of its sight.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .kit import Kit
from .netns import LabError, await_true, run

_APPLYING = 300.0
_STARTING = 20.0

# Read-only /sys: NetworkManager then does without udev, and takes veths for the NICs that they stand for.
_ENTER = r"""
set -e
hostname "$1"
mount -t tmpfs tmpfs /run
mkdir /run/openvswitch /run/dbus /run/NetworkManager
mount --bind "$2" /run/openvswitch
mount --bind "$2/etc" "$3/etc"
mount --bind "$2/var" "$3/var"
mount -o remount,bind,ro /sys
(exec -a "$2/holder" sleep infinity) </dev/null >/dev/null 2>&1 &
echo $! >"$2/holder.pid"
"""

_CONFIGURATION = """\
[main]
plugins=keyfile
no-auto-default=*
dns=none
rc-manager=unmanaged
hostname-mode=none
dhcp=internal
[keyfile]
unmanaged-devices=interface-name:tap*;interface-name:br-int;interface-name:ovn-*;interface-name:ovs-netdev
[logging]
level=INFO
"""

_BUS = """\
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow own="*"/><allow receive_sender="*"/>
<allow user="*"/></policy></busconfig>
"""


def isolate(namespace: str, node: str, rundir: Path, kit: Kit) -> None:
    """Give the node a mount and UTS namespace of its own beside its network namespace, held by one sleeping process."""
    configuration = rundir / "etc/NetworkManager"
    for folder in (
        configuration / "conf.d",
        configuration / "system-connections",
        rundir / "var/lib/NetworkManager",
    ):
        folder.mkdir(parents=True)
    (configuration / "NetworkManager.conf").write_text(_CONFIGURATION)
    (rundir / "dbus.conf").write_text(_BUS)
    words = ("bash", "-c", _ENTER, "bash", node, str(rundir), str(kit.manager))
    run("ip", "netns", "exec", namespace, "unshare", "-m", "-u", "--propagation", "private", *words)


def enter(rundir: Path, kit: Kit) -> tuple[str, ...]:
    """The command that leads into the node."""
    pid = (rundir / "holder.pid").read_text().strip()
    libraries = f"LD_LIBRARY_PATH={kit.manager}/lib"  # for nmcli
    return ("nsenter", "-t", pid, "-m", "-n", "-u", "env", *kit.environment, libraries)


def is_managed(rundir: Path) -> bool:
    """Whether the node that has this run directory belongs to NetworkManager."""
    return (rundir / "holder.pid").exists()


def start_manager(rundir: Path, kit: Kit) -> None:
    """D-Bus and NetworkManager; returns when NetworkManager answers."""
    run(*enter(rundir, kit), "dbus-daemon", f"--config-file={rundir}/dbus.conf", "--fork", "--nopidfile")
    start_networkmanager(rundir, kit)


def start_networkmanager(rundir: Path, kit: Kit) -> None:
    """NetworkManager alone, logging to `nm.log`; in the foreground, as there is no syslog here."""
    program = (f"{kit.manager}/sbin/NetworkManager", "--debug", f"--pid-file={rundir}/NetworkManager.pid")
    with (rundir / "nm.log").open("ab") as log:
        subprocess.run(
            ("setsid", "--fork", *enter(rundir, kit), *program),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=True,
        )
    await_true(
        partial(_answers, rundir, kit), f"NetworkManager answers; see {rundir}/nm.log", within=_STARTING
    )


def _answers(rundir: Path, kit: Kit) -> bool:
    argv = (*enter(rundir, kit), "nmcli", "-t", "-f", "RUNNING", "general")
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.startswith("running")


def nmstatectl(
    rundir: Path, kit: Kit, arguments: Sequence[str], document: Mapping[str, Any] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run nmstatectl on the node; a document goes to its standard input."""
    return subprocess.run(
        (*enter(rundir, kit), "RUST_BACKTRACE=0", "nmstatectl", *arguments),
        input=None if document is None else json.dumps(document),
        capture_output=True,
        text=True,
        timeout=_APPLYING,
        check=False,
    )


def apply(rundir: Path, kit: Kit, document: Mapping[str, Any]) -> None:
    """Apply a document that must succeed. Raises LabError with nmstate's error."""
    done = nmstatectl(rundir, kit, ["-q", "apply", "-"], document)
    if done.returncode:
        raise LabError(f"nmstatectl apply: rc {done.returncode}: {done.stderr.strip()[-400:]}")
