"""The two documents that a user writes, as values: what a VM network is, and how a rollout goes.

The one invariant: a value of these types keeps every rule that can be told from one document alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from plans.desired import names

API_VERSION = "ovsplan.io/v1alpha1"
WORKERS: Mapping[str, str] = {"node-role.kubernetes.io/worker": ""}

SMALLEST_MTU = 576
LARGEST_MTU = 65535


def _mtu(value: int) -> int:
    if value < SMALLEST_MTU:
        raise ValueError(f"{value} is below {SMALLEST_MTU}, which every IPv4 link must carry. Raise it.")
    if value > LARGEST_MTU:
        raise ValueError(f"{value} is above {LARGEST_MTU}, the largest packet there is. Lower it.")
    return value


Localnet = Annotated[str, AfterValidator(names.localnet_name)]
Node = Annotated[str, AfterValidator(names.node_name)]
VmAddress = Annotated[str, AfterValidator(names.vm_address)]
LabelKey = Annotated[str, AfterValidator(names.label_key)]
LabelValue = Annotated[str, AfterValidator(names.label_value)]
Leaving = Literal["live-migrate", "stay"]


class Model(BaseModel):
    """Strict: no coercion, no unknown fields, no change afterwards."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Delivery(Model):
    """By which means the nodes are changed; `policy` names the one that holds the localnet when all is done."""

    by: Literal["ovsdb", "nncp"] | None = None
    policy: Annotated[str, AfterValidator(names.policy_name)] | None = None


class Replaces(Model):
    """All that may be taken away."""

    bridge: Annotated[str, AfterValidator(names.bridge_to_replace)]
    policies: Annotated[
        tuple[Annotated[str, AfterValidator(names.policy_name)], ...], Field(strict=False)
    ] = ()


class NetworkMetadata(Model):
    name: Localnet


class VMNetworkSpec(Model):
    nodes: Mapping[LabelKey, LabelValue] = Field(default_factory=dict)
    bridge: Annotated[str, AfterValidator(names.bridge_to_ride_on)]
    mtu: Annotated[int, AfterValidator(_mtu)] | None = None
    delivery: Delivery | None = None
    replaces: Replaces | None = None


class VMNetwork(Model):
    """One localnet and the bridge it is on, on every node that `selector` matches."""

    api_version: Literal["ovsplan.io/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["VMNetwork"]
    metadata: NetworkMetadata
    spec: VMNetworkSpec

    @property
    def name(self) -> str:
        """The localnet: physicalNetworkName in the NADs."""
        return self.metadata.name

    @property
    def address(self) -> str:
        return f"vmnetwork/{self.name}"

    @property
    def selector(self) -> Mapping[str, str]:
        """The labels that a node must have; the workers when the user names none."""
        return self.spec.nodes or WORKERS

    @property
    def replaced_bridge(self) -> str | None:
        return self.spec.replaces.bridge if self.spec.replaces else None


class Canary(Model):
    """One node first, then the rest."""

    canary: Node
    then: Literal["fewest-vms", "name"] = "fewest-vms"


class Evacuate(Model):
    """How VMs leave a node before it changes, and whether they come back."""

    default: Leaving = "live-migrate"
    vms: Mapping[VmAddress, Leaving] = Field(default_factory=dict)
    return_to: Literal["origin", "none"] = Field(default="origin", alias="return")

    def leaving(self, vm: str) -> Leaving:
        """How the VM `namespace/name` is treated."""
        return self.vms.get(vm, self.default)


def _not_empty(nodes: tuple[str, ...]) -> tuple[str, ...]:
    if not nodes:
        raise ValueError("the list is empty. Name the nodes, or remove 'order'.")
    return nodes


def _form_of_order(value: Any) -> str | None:
    if isinstance(value, Mapping | Canary):
        return ORDER_CANARY
    return ORDER_LIST if isinstance(value, list | tuple) else None


ORDER_LIST, ORDER_CANARY = "(list)", "(canary)"

# A YAML list is a Python list: the tuple alone is taken leniently, its items stay strict.
NodeList = Annotated[tuple[Node, ...], Field(strict=False), AfterValidator(_not_empty)]
Order = Annotated[
    Annotated[NodeList, Tag(ORDER_LIST)] | Annotated[Canary, Tag(ORDER_CANARY)],
    Discriminator(_form_of_order, custom_error_type="order_form", custom_error_message="wrong form"),
]


class RolloutMetadata(Model):
    name: Annotated[str, AfterValidator(names.object_name)]


class RolloutSpec(Model):
    order: Order | None = None
    evacuate: Evacuate | None = None


class Rollout(Model):
    """How tonight goes. Without `evacuate` nodes are cordoned only, and the remap is hot."""

    api_version: Literal["ovsplan.io/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["Rollout"]
    metadata: RolloutMetadata
    spec: RolloutSpec = RolloutSpec()

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def address(self) -> str:
        return f"rollout/{self.name}"


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything the files declare. `places` leads from an address, and `ADDRESS#FIELD`, to `file:line`."""

    networks: tuple[VMNetwork, ...]
    rollout: Rollout | None = None
    places: Mapping[str, str] = field(default_factory=dict, compare=False)

    def digest(self) -> str:
        """sha256 of the content; where it was written, and in which order, is not part of it."""
        rollout = self.rollout and _plain(self.rollout)
        content = {"networks": [_plain(network) for network in self.networks], "rollout": rollout}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(model: Model) -> dict[str, Any]:
    # None is left out: a field added by a later version must not change the digest of files without it.
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
