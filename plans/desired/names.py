"""The rules of the names that a user types, each by the thing it names.

A rule takes a text and returns it, or raises ValueError: what was found, why it cannot be, and what to do.
The one invariant: a name that passed can stand in a command, an OVSDB value and a Kubernetes path as it is.
"""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[A-Za-z0-9_.-]")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")

_VM_INTERFACE = re.compile(r"[A-Za-z0-9_-]+")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")

OWNED_LOCALNETS = ("physnet", "exgwphysnet")
"""The localnets of OVN-Kubernetes: nobody else maps them (H01)."""

_LONGEST_INTERFACE = 15
_LONGEST_NAME = 253
_LONGEST_LABEL = 63


def interface_name(name: str) -> str:
    """A bridge that is, or was, on a node."""
    complaints = _plain_complaints(name, "bridge")
    size = len(name.encode())
    if size > _LONGEST_INTERFACE:
        rule = f"Linux interface names have at most {_LONGEST_INTERFACE}"
        complaints.append(f"{name!r} is {size} bytes; {rule}. Shorten it.")
    return _raise_or_return(name, complaints)


def bridge_to_ride_on(name: str) -> str:
    """The bridge that a localnet is mapped to."""
    if name == "br-int":
        raise ValueError(
            "'br-int' is OVN's own integration bridge; a localnet mapped to it has no way out. "
            "Name the bridge that holds the uplink."
        )
    if name == "br-ex":
        raise ValueError(
            "'br-ex' carries the node's own traffic and belongs to OVN-Kubernetes, which remakes it at boot. "
            "Name a bridge that VM traffic may have, such as br-phy."
        )
    return interface_name(name)


def bridge_to_replace(name: str) -> str:
    """The bridge that is taken away once the localnet is off it."""
    if name in ("br-int", "br-ex"):
        raise ValueError(
            f"{name!r} belongs to OVN-Kubernetes; without it the node is off the network. "
            "Name the bridge that was made for VMs, or remove 'replaces'."
        )
    return interface_name(name)


def localnet_name(name: str) -> str:
    """A physicalNetworkName: the left side of a pair of ovn-bridge-mappings."""
    if name in OWNED_LOCALNETS:
        raise ValueError(
            f"{name!r} belongs to OVN-Kubernetes: every node's own way out is mapped by it (H01). "
            "Choose another localnet."
        )
    complaints = _plain_complaints(name, "localnet")
    if len(name) > _LONGEST_NAME:
        rule = f"the name of a localnet has at most {_LONGEST_NAME}"
        complaints.append(f"{name[:20]!r}... is {len(name)} characters; {rule}. Shorten it.")
    return _raise_or_return(name, complaints)


def node_name(name: str) -> str:
    """A node, as the cluster has it."""
    return _subdomain(name, "node name")


def object_name(name: str) -> str:
    """The name of an object of ours."""
    return _subdomain(name, "name")


def policy_name(name: str) -> str:
    """A NodeNetworkConfigurationPolicy: its name becomes a label's value too."""
    _subdomain(name, "policy name")
    if len(name) > _LONGEST_LABEL:
        raise ValueError(
            f"{name!r} is {len(name)} characters; the name of a policy has at most {_LONGEST_LABEL}. Shorten it."
        )
    return name


def vm_address(address: str) -> str:
    """A VM as NAMESPACE/NAME: one name may stand in several namespaces."""
    return _address(address, "VM name")


def nad_address(address: str) -> str:
    """A NetworkAttachmentDefinition as NAMESPACE/NAME."""
    return _address(address, "name of a NetworkAttachmentDefinition")


def advertisement_address(address: str) -> str:
    """A MetalLB L2Advertisement as NAMESPACE/NAME."""
    return _address(address, "name of an L2Advertisement")


def _address(address: str, thing: str) -> str:
    namespace, slash, name = address.partition("/")
    if not slash:
        raise ValueError(f"{address!r} has no namespace. Write NAMESPACE/NAME, as in 'default/{address}'.")
    _label(namespace, "namespace")
    _subdomain(name, thing)
    return address


def namespace_name(name: str) -> str:
    """A namespace."""
    return _label(name, "namespace")


def vm_interface(name: str) -> str:
    """The name that a VM gives to one of its network cards."""
    if not _fits(_VM_INTERFACE, name, _LONGEST_LABEL):
        raise ValueError(
            f"{name!r} is not an interface name: 1 to {_LONGEST_LABEL} letters, digits, '_' and '-'. Rename it."
        )
    return name


def nic_name(name: str) -> str:
    """A network interface on a node."""
    complaints = _plain_complaints(name, "interface")
    if len(name.encode()) > _LONGEST_INTERFACE:
        rule = f"Linux interface names have at most {_LONGEST_INTERFACE}"
        complaints.append(f"{name!r} is {len(name.encode())} bytes; {rule}. Shorten it.")
    return _raise_or_return(name, complaints)


def ovn_network(name: str) -> str:
    """The name of a network, one for the whole cluster."""
    if name in ("default", "ovn-kubernetes"):
        raise ValueError(f"{name!r} is a network of OVN-Kubernetes' own. Choose another name.")
    return _raise_or_return(name, _plain_complaints(name, "network"))


def mac_address(text: str) -> str:
    """A MAC address of a VM: lower case, not a group's."""
    if not _MAC.fullmatch(text):
        raise ValueError(f"{text!r} is not a MAC address. Write it as in '02:00:00:00:00:01', in lower case.")
    if int(text[1], 16) & 1:
        raise ValueError(f"{text!r} is the address of a group, which no card can have. Change it.")
    return text


def label_key(key: str) -> str:
    """A Kubernetes label key, its prefix included."""
    prefix, slash, name = key.rpartition("/")
    if slash and not _fits(_SUBDOMAIN, prefix, _LONGEST_NAME):
        raise ValueError(
            f"{key!r} is not a label key: {prefix!r} is not a DNS name in lower case. Correct it."
        )
    if not _fits(_QUALIFIED, name, _LONGEST_LABEL):
        raise ValueError(f"{key!r} is not a label key: {name!r} {_LABEL_RULE}. Correct it.")
    return key


def label_value(value: str) -> str:
    """A Kubernetes label value; the empty one is a value too."""
    if value and not _fits(_QUALIFIED, value, _LONGEST_LABEL):
        raise ValueError(f"{value!r} is not a label value: it {_LABEL_RULE}. Correct it.")
    return value


_LABEL_RULE = "must be 1 to 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit"


def _plain_complaints(name: str, thing: str) -> list[str]:
    if name in ("", ".", ".."):
        return [f"{name!r} names no {thing}. Give its name."]
    if name.startswith("-"):
        return [f"{name!r} begins with '-', which commands read as an option. Rename the {thing}."]
    strange = list(dict.fromkeys(c for c in name if not _PLAIN.fullmatch(c)))
    if not strange:
        return []
    found = " and ".join(repr(c) for c in strange)
    why = " (':' and ',' separate the pairs of ovn-bridge-mappings)" if {":", ","} & set(strange) else ""
    rule = f"the name of a {thing} has letters, digits, '_', '.' and '-' only"
    return [f"{name!r} contains {found}; {rule}{why}. Rename it."]


def _raise_or_return(name: str, complaints: list[str]) -> str:
    if complaints:
        raise ValueError(" ".join(complaints))
    return name


def _subdomain(name: str, thing: str) -> str:
    if not _fits(_SUBDOMAIN, name, _LONGEST_NAME):
        raise ValueError(
            f"{name!r} is not a {thing}: at most {_LONGEST_NAME} lower-case letters, digits, '-' and '.', "
            "each part beginning and ending with a letter or digit. Write it as the cluster has it."
        )
    return name


def _label(name: str, thing: str) -> str:
    if not _fits(_LABEL, name, _LONGEST_LABEL):
        raise ValueError(
            f"{name!r} is not a {thing}: at most {_LONGEST_LABEL} lower-case letters, digits and '-', "
            "beginning and ending with a letter or digit. Write it as the cluster has it."
        )
    return name


def _fits(pattern: re.Pattern[str], text: str, longest: int) -> bool:
    # The length first: the patterns are not run on texts of any size.
    return len(text) <= longest and pattern.fullmatch(text) is not None
