"""The documents that a user writes, as values: what a VM network is, how a rollout goes, and native NADs.

The one invariant: a value of these types keeps every rule that can be told from one document alone.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from plans import nads
from plans.desired import names
from plans.errors import Problem

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
Leaving = Literal["live-migrate", "restart", "stay"]


class Model(BaseModel):
    """Strict: no coercion, no unknown fields, no change afterwards."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _vlan(value: int) -> int:
    if value == 0:
        raise ValueError("0 is no VLAN. Leave 'vlan' out for an untagged network.")
    if not nads.LOWEST_VLAN <= value <= nads.HIGHEST_VLAN:
        raise ValueError(f"{value} is not from {nads.LOWEST_VLAN} to {nads.HIGHEST_VLAN}. Correct it.")
    return value


def _network(value: str) -> str:
    if nads.network(value) is None:
        raise ValueError(f"{value!r} is not a network. Write ADDRESS/LENGTH, as in 192.0.2.0/24.")
    return value


def _address(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(f"{value!r} is not an IP address. Write it as in 192.0.2.1.") from None
    return value


Mtu = Annotated[int, AfterValidator(_mtu)]
AdvertisementAddress = Annotated[str, AfterValidator(names.advertisement_address)]
NadAddress = Annotated[str, AfterValidator(names.nad_address)]
InterfaceName = Annotated[str, AfterValidator(names.vm_interface)]
State = Literal["present", "absent"]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], Field(strict=False)]


class Network(Model):
    """One NetworkAttachmentDefinition on the localnet. `gateway` serves proofs only and is written nowhere."""

    vlan: Annotated[int, AfterValidator(_vlan)] | None = None
    mtu: Mtu | None = None
    name: Annotated[str, AfterValidator(names.ovn_network)] | None = None
    subnets: Networks = ()
    exclude_subnets: Networks = Field(default=(), alias="excludeSubnets")
    allow_persistent_ips: bool = Field(default=False, alias="allowPersistentIPs")
    gateway: Annotated[str, AfterValidator(_address)] | None = None
    state: State = "present"

    @model_validator(mode="after")
    def _addresses_fit(self) -> Network:
        strangers = nads.outside(self.exclude_subnets, self.subnets)
        if strangers:
            raise ValueError(
                f"excludeSubnets: {', '.join(strangers)} lies in none of the subnets. Correct one of them."
            )
        if self.allow_persistent_ips and not self.subnets:
            raise ValueError(
                "allowPersistentIPs needs 'subnets', from which the addresses would be. Add them."
            )
        return self


class Nic(Model):
    """One network card of a VM. Without `mac` KubeVirt gives it one, and any that it has is fine."""

    network: NadAddress | None = None
    mac: Annotated[str, AfterValidator(names.mac_address)] | None = None
    state: State = "present"

    @model_validator(mode="after")
    def _has_a_network(self) -> Nic:
        if self.state == "present" and self.network is None:
            raise ValueError("'network' is missing: the NAD as NAMESPACE/NAME. Add it, or 'state: absent'.")
        return self


def _form_of_nic(value: Any) -> str | None:
    if isinstance(value, Mapping | Nic):
        return NIC_LONG
    return NIC_SHORT if isinstance(value, str) else None


NIC_SHORT, NIC_LONG = "(name)", "(nic)"

NicForm = Annotated[
    Annotated[NadAddress, Tag(NIC_SHORT)] | Annotated[Nic, Tag(NIC_LONG)],
    Discriminator(_form_of_nic, custom_error_type="nic_form", custom_error_message="wrong form"),
]


def _some_interfaces(interfaces: tuple[str, ...]) -> tuple[str, ...]:
    if not interfaces:
        raise ValueError(
            "the list is empty, which means every interface to MetalLB (H13). Name at least one."
        )
    return interfaces


Interfaces = Annotated[
    tuple[Annotated[str, AfterValidator(names.nic_name)], ...],
    Field(strict=False),
    AfterValidator(_some_interfaces),
]


class Delivery(Model):
    """By which means the nodes are changed; `policy` names the one that holds the localnet when all is done."""

    by: Literal["ovsdb", "nncp"] | None = None
    policy: Annotated[str, AfterValidator(names.policy_name)] | None = None
    strategy: Literal["per-node", "labelled"] = "per-node"
    label: LabelKey | None = None

    @model_validator(mode="after")
    def _has_its_label(self) -> Delivery:
        if self.strategy == "labelled" and self.label is None:
            raise ValueError(
                "the strategy 'labelled' needs `label`: the key whose value says which policy a node obeys. Add it."
            )
        if self.strategy != "labelled" and self.label is not None:
            raise ValueError(
                "`label` is for the strategy 'labelled'. Add `strategy: labelled`, or remove it."
            )
        return self


def _each_once(ports: tuple[str, ...]) -> tuple[str, ...]:
    if not ports:
        raise ValueError("the list is empty: a bridge without a port reaches nobody. Name its uplink.")
    if twice := next((port for port in ports if ports.count(port) > 1), None):
        raise ValueError(f"{twice!r} is in the list twice. Remove one.")
    return ports


class Bridge(Model):
    """A dedicated bridge that is made where it is not there, and the ports that it has at least."""

    name: Annotated[str, AfterValidator(names.bridge_to_ride_on)]
    ports: Annotated[
        tuple[Annotated[str, AfterValidator(names.nic_name)], ...],
        Field(strict=False),
        AfterValidator(_each_once),
    ]

    @model_validator(mode="after")
    def _is_no_port_of_its_own(self) -> Bridge:
        if self.name in self.ports:
            raise ValueError(f"{self.name!r} cannot be a port of itself. Name its uplink.")
        return self


def _form_of_bridge(value: Any) -> str | None:
    if isinstance(value, Mapping | Bridge):
        return BRIDGE_LONG
    return None if isinstance(value, list | tuple) else BRIDGE_SHORT


BRIDGE_SHORT, BRIDGE_LONG = "(bridge name)", "(bridge to make)"

BridgeForm = Annotated[
    Annotated[Annotated[str, AfterValidator(names.bridge_to_ride_on)], Tag(BRIDGE_SHORT)]
    | Annotated[Bridge, Tag(BRIDGE_LONG)],
    Discriminator(_form_of_bridge, custom_error_type="bridge_form", custom_error_message="wrong form"),
]


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
    bridge: BridgeForm
    mtu: Mtu | None = None
    delivery: Delivery | None = None
    replaces: Replaces | None = None
    networks: Mapping[NadAddress, Network] | None = None
    attachments: Mapping[VmAddress, Mapping[InterfaceName, NicForm]] | None = None
    l2_advertisements: Mapping[AdvertisementAddress, Interfaces] | None = Field(
        default=None, alias="l2Advertisements"
    )


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
    def bridge(self) -> str:
        """The name of the bridge that the localnet is to be on."""
        form = self.spec.bridge
        return form.name if isinstance(form, Bridge) else form

    @property
    def ports(self) -> tuple[str, ...]:
        """The ports that the bridge is to have; empty when the bridge is only required, and nothing is made."""
        form = self.spec.bridge
        return form.ports if isinstance(form, Bridge) else ()

    @property
    def is_labelled(self) -> bool:
        """Whether a label of the node says which policy it obeys, instead of a policy of its own."""
        return bool(self.spec.delivery and self.spec.delivery.strategy == "labelled")

    @property
    def replaced_bridge(self) -> str | None:
        return self.spec.replaces.bridge if self.spec.replaces else None

    @property
    def attachments(self) -> Mapping[str, Mapping[str, Nic]]:
        """`namespace/vm` → interface → its card, in the long form."""
        return {
            vm: {name: nic if isinstance(nic, Nic) else Nic(network=nic) for name, nic in nics.items()}
            for vm, nics in (self.spec.attachments or {}).items()
        }


class Canary(Model):
    """One node first, then the rest."""

    canary: Node
    then: Literal["fewest-vms", "name"] = "fewest-vms"


class Evacuate(Model):
    """How VMs leave a node before it changes, and whether they come back."""

    default: Leaving = "live-migrate"
    vms: Mapping[VmAddress, Leaving] = Field(default_factory=dict)
    return_to: Literal["origin", "none"] = Field(default="origin", alias="return")
    pods: Literal["evict", "leave"] | None = None
    reboot: bool | None = None

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


def _image(value: str) -> str:
    if not value or any(character.isspace() for character in value):
        raise ValueError(f"{value!r} is not the name of an image. Write one that has `sleep` in it.")
    return value


class CanaryPod(Model):
    """The pod that proves an emptied node's path before VMs return to it.

    `image`: any that has `sleep`; without it, one that is on the node already.
    """

    image: Annotated[str, AfterValidator(_image)] | None = None


class Proof(Model):
    """How an emptied node's new path is proven."""

    canary: CanaryPod


class RolloutSpec(Model):
    order: Order | None = None
    evacuate: Evacuate | None = None
    attach: Literal["restart", "hotplug"] | None = None
    proof: Proof | None = None


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


class NadMetadata(Model):
    name: Annotated[str, AfterValidator(names.object_name)]
    namespace: Annotated[str, AfterValidator(names.namespace_name)]
    labels: Mapping[LabelKey, LabelValue] | None = None
    annotations: Mapping[LabelKey, str] | None = None


class NadSpec(Model):
    config: str


class NativeNad(Model):
    """A NetworkAttachmentDefinition as the cluster has it; its `config` has been read once and is right."""

    api_version: Literal["k8s.cni.cncf.io/v1"] = Field(alias="apiVersion")
    kind: Literal["NetworkAttachmentDefinition"]
    metadata: NadMetadata
    spec: NadSpec

    @property
    def name(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def address(self) -> str:
        return f"networkattachmentdefinition/{self.name}"

    @property
    def config(self) -> nads.Config:
        return nads.read_config(self.spec.config)


class PolicyMetadata(Model):
    name: Annotated[str, AfterValidator(names.policy_name)]
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)


def _at_once(value: int | str) -> int | str:
    if isinstance(value, int) and value < 1:
        raise ValueError(f'{value} is no number of nodes. Write 1 or more, or a percentage as in "50%".')
    if isinstance(value, str) and not (
        value.endswith("%") and value[:-1].isdigit() and 0 < int(value[:-1]) <= 100
    ):
        raise ValueError(f'{value!r} is no number of nodes. Write 1 or more, or a percentage as in "50%".')
    return value


class PolicySpec(Model):
    node_selector: Mapping[LabelKey, LabelValue] = Field(default_factory=dict, alias="nodeSelector")
    desired_state: Mapping[str, Any] = Field(alias="desiredState")
    max_unavailable: Annotated[int | str, AfterValidator(_at_once)] | None = Field(
        default=None, alias="maxUnavailable"
    )


class NativePolicy(Model):
    """A NodeNetworkConfigurationPolicy as the cluster has it; it is rolled out one node at a time."""

    api_version: Literal["nmstate.io/v1"] = Field(alias="apiVersion")
    kind: Literal["NodeNetworkConfigurationPolicy"]
    metadata: PolicyMetadata
    spec: PolicySpec

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def address(self) -> str:
        return f"policy/{self.name}"


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything the files declare. `places` leads from an address, and `ADDRESS#FIELD`, to `file:line`, `columns` to the column there."""

    networks: tuple[VMNetwork, ...]
    rollout: Rollout | None = None
    places: Mapping[str, str] = field(default_factory=dict, compare=False)
    manifests: tuple[NativeNad, ...] = ()
    policies: tuple[NativePolicy, ...] = ()
    columns: Mapping[str, int] = field(default_factory=dict, compare=False)

    def problem(self, address: str, message: str) -> Problem:
        """`message`, placed where the files declare the address or `ADDRESS#FIELD`."""
        path, _, line = self.places.get(address, "").rpartition(":")
        return Problem(path, int(line or 0), self.columns.get(address, 1) if line else 0, message)

    @property
    def gateways(self) -> Mapping[str, str]:
        """The IPv4 gateway declared for a network: `namespace/nad` → address. One of IPv6 can't be asked by ARP."""
        declared = (item for network in self.networks for item in (network.spec.networks or {}).items())
        return {
            nad: n.gateway
            for nad, n in declared
            if n.gateway and ipaddress.ip_address(n.gateway).version == 4
        }

    def digest(self) -> str:
        """sha256 of the content; where it was written, and in which order, is not part of it."""
        rollout = self.rollout and _plain(self.rollout)
        content: dict[str, Any] = {"networks": [_plain(n) for n in self.networks], "rollout": rollout}
        if self.manifests:
            content["manifests"] = [_plain(manifest) for manifest in self.manifests]
        if self.policies:
            content["policies"] = [_plain(policy) for policy in self.policies]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()


def _plain(model: Model) -> dict[str, Any]:
    # None is left out: a field added by a later version must not change the digest of files without it.
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
