"""What a world's API holds besides nodes and VMs: networks, the APIs of operators, and objects as they stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from providers.twin.kinds import DEFAULT_APIS
from providers.twin.spec.fields import Default, Field, Shape


def _word(present: bool) -> str:
    return "present" if present else "absent"


_NETWORK = Shape(
    "spec.networks.NAMESPACE/NAME",
    {"localnet": Default.REQUIRED, "vlan": 0, "mtu": 1500, "gateway": Default.NOTHING},
)
_APIS = Shape(
    "spec.apis",
    {name: Default.INHERITED if name == "nmstate" else _word(on) for name, on in DEFAULT_APIS.items()},
)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A NAD. `vlan` 0 is untagged; `gateway` is a host on the wire that answers, empty for none."""

    namespace: str
    name: str
    localnet: str
    vlan: int
    mtu: int
    gateway: str = ""


def read_networks(field: Field) -> tuple[NetworkSpec, ...]:
    """The NADs."""
    found = []
    seen: dict[str, tuple[str, int]] = {}
    for item in field.mapping().values():
        namespace, name = item.object_key()
        fields = item.fields(_NETWORK)
        if not fields["localnet"].given:
            raise item.fail("localnet: missing")
        vlan = fields["vlan"].integer(0, 4094)
        mtu = fields["mtu"].integer(68, 65535)
        localnet = fields["localnet"].text()
        if not localnet or set(localnet) & set(":, "):
            raise fields["localnet"].fail(f"a localnet holds no colon, comma or space: {localnet!r}")
        if seen.setdefault(name, (localnet, vlan)) != (localnet, vlan):
            raise item.fail(f"network {name} is described twice, and differently")
        gateway = fields["gateway"].text() if fields["gateway"].given else ""
        found.append(NetworkSpec(namespace, name, localnet, vlan, mtu, gateway))
    return tuple(found)


def read_apis(field: Field, nmstate: bool) -> dict[str, bool]:
    """Which operators' APIs are served; nmstate's is, unless it is said otherwise, where the world has nmstate."""
    fields = field.fields(_APIS)
    if not fields["nmstate"].given:
        fields["nmstate"] = field.part("nmstate", _word(nmstate))
    return {name: item.one_of("present", "absent") == "present" for name, item in fields.items()}


def read_objects(field: Field) -> tuple[Mapping[str, Any], ...]:
    """Kubernetes objects that are there from the beginning, whole, as anybody would create them."""
    items = [] if field.value is None else field.value
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise field.fail(f"expected a list of objects, found {items!r}")
    for index, item in enumerate(items):
        at = field.part(index, item)
        parts = at.mapping()
        for name in ("apiVersion", "kind", "metadata"):
            if name not in parts:
                raise at.fail(f"an object has apiVersion, kind and metadata; {name} is missing")
        if "name" not in parts["metadata"].mapping():
            raise parts["metadata"].fail("missing: name")
    return tuple(items)
