"""KubeVirt and its VMs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from providers.twin.spec.cluster import NetworkSpec
from providers.twin.spec.fields import Default, Field, Shape
from providers.twin.spec.nodes import NodeSpec

_KUBEVIRT = Shape(
    "spec.kubevirt", {"vmRolloutStrategy": "LiveUpdate", "workloadUpdateMethods": ["LiveMigrate"]}
)
_LIMITS = Shape("spec.limits", {"migrationsPerCluster": 5, "outboundPerNode": 2})
_VM = Shape(
    "spec.vms.NAMESPACE/NAME",
    {
        "node": Default.REQUIRED,
        "networks": Default.NOTHING,
        "memory": "2Gi",
        "silent": "off",
        "migratable": True,
        "runStrategy": "Always",
        "vm": "on",
        "evictionStrategy": Default.NOTHING,
        "guestAgent": "off",
    },
)
_CARD = Shape("spec.vms.NAMESPACE/NAME.networks.NAME", {"nad": Default.REQUIRED, "mac": Default.NOTHING})
_GUEST_AGENT = Shape("spec.vms.NAMESPACE/NAME.guestAgent", {"exec": "on", "ping": "on", "os": "linux"})
_STRATEGIES = ("Always", "Halted", "Manual", "Once", "RerunOnFailure")
_EVICTIONS = ("LiveMigrate", "LiveMigrateIfPossible", "External", "None")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class VmSpec:
    """One VM. `node` is empty for one that does not run; `owned` is False for a VMI without a VirtualMachine."""

    namespace: str
    name: str
    node: str
    attached: Mapping[str, tuple[str, str]]
    memory: str
    silent: bool
    blocked: tuple[str, str] | None
    strategy: str
    owned: bool
    eviction: str
    guest_agent: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class LiveUpdates:
    """How KubeVirt takes changes of a VM's template to its guest; by default as OpenShift sets it up."""

    strategy: str
    methods: tuple[str, ...]


def derived_mac(seed: int, *names: str) -> str:
    """A locally administered address that only depends on its arguments."""
    digest = hashlib.sha256("/".join((str(seed), *names)).encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (2, *digest[:5]))


def read_live_updates(field: Field) -> LiveUpdates:
    """What the KubeVirt object says of live updates."""
    fields = field.fields(_KUBEVIRT)
    methods = fields["workloadUpdateMethods"]
    strategy = fields["vmRolloutStrategy"].one_of("LiveUpdate", "Stage")
    if not isinstance(methods.value, list) or not set(methods.value) <= {"LiveMigrate", "Evict"}:
        raise methods.fail(f"expected a list of LiveMigrate and Evict, found {methods.value!r}")
    return LiveUpdates(strategy, tuple(methods.value))


def read_limits(field: Field) -> dict[str, int]:
    """How many migrations are under way at once."""
    return {name: item.integer(1) for name, item in field.fields(_LIMITS).items()}


def read_vms(field: Field, networks: Sequence[NetworkSpec], nodes: Sequence[NodeSpec]) -> tuple[VmSpec, ...]:
    """The VMs, on these nodes and networks."""
    known = {f"{network.namespace}/{network.name}" for network in networks}
    names = {node.name for node in nodes}
    return tuple(_read_vm(item, known, names) for item in field.mapping().values())


def _read_vm(item: Field, networks: set[str], nodes: set[str]) -> VmSpec:
    namespace, name = item.object_key()
    fields = item.fields(_VM)
    strategy = fields["runStrategy"].one_of(*_STRATEGIES)
    node = fields["node"]
    if node.value not in nodes and not (node.value is None and strategy == "Halted"):
        raise node.fail(f"no such node: {node.value!r}")
    attached = fields["networks"].mapping()
    eviction = fields["evictionStrategy"]
    return VmSpec(
        namespace,
        name,
        "" if strategy == "Halted" else node.text(),
        {key: _read_card(entry, networks) for key, entry in attached.items()},
        fields["memory"].memory(),
        fields["silent"].switch(),
        _read_migratable(fields["migratable"]),
        strategy,
        fields["vm"].switch(),
        eviction.one_of(*_EVICTIONS) if eviction.given else "",
        _read_guest_agent(fields["guestAgent"]),
    )


def _read_guest_agent(item: Field) -> dict[str, Any] | None:
    """The guest agent: `on`, or what it does: `{exec: off}` refuses commands, `{ping: off}` has no such program."""
    if not isinstance(item.value, Mapping):
        if not item.switch():
            return None
        item = Field({}, item.path)
    fields = item.fields(_GUEST_AGENT)
    system = fields["os"].one_of("linux", "windows")
    return {**{name: fields[name].switch() for name in ("exec", "ping")}, "os": system}


def _read_card(item: Field, networks: set[str]) -> tuple[str, str]:
    fields = item.fields(_CARD)
    nad = fields["nad"]
    if nad.value not in networks:
        raise nad.fail(f"no such network: {nad.value!r}")
    mac = fields["mac"].text().lower() if fields["mac"].given else ""
    if mac and not _MAC.fullmatch(mac):
        raise fields["mac"].fail(f"not a MAC address: {mac!r}")
    return nad.text(), mac


def _read_migratable(item: Field) -> tuple[str, str] | None:
    if isinstance(item.value, str):
        reason, colon, message = item.value.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z]+", reason):
            raise item.fail(f"expected true, false, or 'Reason: message', found {item.value!r}")
        return reason, message.strip()
    return None if item.switch() else ("NotMigratable", "VMI is not migratable")
