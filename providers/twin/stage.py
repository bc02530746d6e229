"""What the twin's controllers stand on: the four ports, unlogged and without faults, and memory of their own.

Invariant: a controller reaches the world only through `ports.World`; what else a `Stage` offers is what a real
daemon has in its own process or hardware (memory, network cards, guests), never a short cut to somebody's objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from providers.ports import Body, Finished, World

UNITS = "units"
"""What `Stage.recall` has the results of ended commands under, by "node unit": {"rc": , "out": , "err": }."""


DOWN = "down"
"""The memory of a node that is rebooting: {"since": , "until": }. Until then nothing on it runs."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something changed: an object of `kind`, or the `ovsdb` or the `nics` of the node `name`.

    The kind `kubelet` is the kubelet of the node `name` that fell silent or is heard again.
    The kind `unit` is a command begun on the node `name` that has ended now; the kind `handler` is the restart of the
    nmstate handler there. `body` is the object as it is now, or as it was when `deleted`. `columns` are the (table, column) pairs that an
    OVSDB transaction touched.
    """

    kind: str
    name: str
    namespace: str = ""
    body: Body | None = None
    deleted: bool = False
    columns: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Settings:
    """The world file's timings (seconds) and limits."""

    vswitchd: float
    ovn_controller: float
    migration: float
    mac_ageing: float
    per_cluster: int
    per_node: int
    ovn: str
    probes: Mapping[str, str] = field(default_factory=dict)
    """What the nmstate handler pings and resolves before an apply (`gateway`, `dns`): up or down."""
    vm_start: float = 10.0
    vm_stop: float = 5.0
    multus_isolation: bool = False
    reboot: float = 120.0
    """From a reboot's being asked for to the kubelet's first word; below 40 nobody sees the node go."""
    node_ready: float = 10.0
    """From there until the node is Ready; with 0 it never says that it is not."""
    pods_ready: float = 20.0
    """From there until its pods are."""


class Stage(World, Protocol):
    """The world as a controller sees it."""

    @property
    def settings(self) -> Settings: ...

    def recall(self, controller: str, key: str) -> Any:
        """What `keep` was given last, or None. Not to be altered."""
        ...

    def keep(self, controller: str, key: str, memory: Any) -> None:
        """Remember; None forgets."""
        ...

    def remembered(self, controller: str) -> Iterable[str]:
        """The keys of that controller that hold memory."""
        ...

    def remind(self, controller: str, key: str, at: float) -> None:
        """Have `controller` asked for `key` at `at`, or earlier if that is planned already."""
        ...

    def nics(self, node: str) -> Mapping[str, str]:
        """The network cards of a node and their link: up or down."""
        ...

    def is_silent(self, vm: str) -> bool:
        """Whether the guest of `namespace/name` sends nothing by itself."""
        ...

    def guest_agent(self, vm: str) -> Mapping[str, Any] | None:
        """What the guest agent of `namespace/name` does (`exec`, `ping`, `os`); None where there is none."""
        ...

    def carries(self, node: str, nic: str, vlan: int) -> bool:
        """Whether the switch port behind a card of a node carries a VLAN."""
        ...

    def begin(self, node: str, unit: str, argv: Sequence[str], stdin: bytes = b"") -> None:
        """Start a command on the node that runs on by itself, under a name; what ended under that name is forgotten.

        When it ends, controllers are told of a `Change("unit", node)`. Raises Unreachable when no way to the node
        is known.
        """
        ...

    def ended(self, node: str, unit: str) -> Finished | None:
        """How the command begun as `unit` ended; None while it runs, and when there was none."""
        ...


class Controller(Protocol):
    """One real controller. It is told of changes, and asked to look again at the keys it named."""

    name: str

    def keys(self, change: Change, settings: Settings) -> Iterable[tuple[str, float]]:
        """The keys to look at because of `change`, each with the seconds until then."""
        ...

    def reconcile(self, stage: Stage, key: str) -> float | None:
        """Bring `key` one step on; returns the instant to be asked again, if time alone will change something."""
        ...
