"""The ways to one node, as what a contract test needs of each."""

from __future__ import annotations

from dataclasses import dataclass

from providers.ports import NodeShell, Ovsdb

WAYS = ("local", "ssh", "ssh-sudo", "pod")


@dataclass(frozen=True)
class Way:
    """A node whose run directory is the `server` fixture's."""

    name: str
    shell: NodeShell
    ovsdb: Ovsdb
