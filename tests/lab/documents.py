"""Desired states for nmstate: the ones that a site's policies hold, and the wrong ones that people write.

Invariant: plain JSON values, made anew by every call, so that twin and real nmstatectl are given the same bytes.

There are no bonding and VLAN devices on a lab node: `bond0` and `bond0.100` are NICs of those names, and the switch
gives the latter VLAN 100 only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from providers.twin.spec import BridgeSpec, PortSpec

Document = dict[str, Any]

NODE_VLAN = 100
_NETDEV = {"datapath": "netdev"}


def merged(*documents: Document) -> Document:
    """One document that asks for all of them; a later entry of the same interface takes the earlier one's place."""
    interfaces = {(i["name"], i["type"]): i for each in documents for i in each.get("interfaces", [])}
    pairs = [pair for each in documents for pair in each.get("ovn", {}).get("bridge-mappings", [])]
    whole: Document = {"interfaces": list(interfaces.values())} if interfaces else {}
    return {**whole, "ovn": {"bridge-mappings": pairs}} if pairs else whole


def mapping(bridge: str, localnet: str = "vmnet") -> Document:
    """The localnet's pair of the mappings, and nothing else."""
    return {"ovn": {"bridge-mappings": [{"localnet": localnet, "bridge": bridge, "state": "present"}]}}


def absent(bridge: str) -> Document:
    """The bridge is to go, and nothing else."""
    return {"interfaces": [{"name": bridge, "type": "ovs-bridge", "state": "absent"}]}


def bridge(name: str, ports: Iterable[Mapping[str, Any]] | None, *, foreign_patches: bool = True) -> Document:
    """A bridge. `foreign_patches` is nmstate's `allow-extra-patch-ports`; without `ports` they are left as they are."""
    body: Document = {"options": dict(_NETDEV)}
    if foreign_patches:
        body["allow-extra-patch-ports"] = True
    if ports is not None:
        body["port"] = list(ports)
    return {"interfaces": [{"name": name, "type": "ovs-bridge", "state": "up", "bridge": body}]}


def nic(name: str) -> Document:
    """An Ethernet device without an address, named as such: nmstate then refuses when it is not there."""
    quiet = {"ipv4": {"enabled": False}, "ipv6": {"enabled": False}}
    return {"interfaces": [{"name": name, "type": "ethernet", "state": "up", **quiet}]}


def internal(name: str, address: str = "") -> Document:
    """An OVS port of the node's own, with an address if one is given."""
    body: Document = {"name": name, "type": "ovs-interface", "state": "up", "ipv6": {"enabled": False}}
    if address:
        lone = {"ip": address, "prefix-length": 24}
        body["ipv4"] = {"enabled": True, "dhcp": False, "address": [lone]}
    return {"interfaces": [body]}


def patch(name: str, peer: str) -> Document:
    """One end of a pair of patch ports."""
    return {"interfaces": [{"name": name, "type": "ovs-interface", "state": "up", "patch": {"peer": peer}}]}


def bond(name: str, members: Iterable[str], **other_config: str) -> dict[str, Any]:
    """A bridge port that is a balance-slb bond; keys of `other_config` with _ for -."""
    body: dict[str, Any] = {"mode": "balance-slb", "port": [{"name": member} for member in members]}
    if other_config:
        named = {key.replace("_", "-"): value for key, value in other_config.items()}
        body["ovs-db"] = {"other_config": named}
    return {"name": name, "link-aggregation": body}


def br_vmdata() -> Document:
    """The old policy: br-vmdata over bond0, and the localnet on it."""
    return merged(nic("bond0"), bridge("br-vmdata", [{"name": "bond0"}]), mapping("br-vmdata"))


def br_vmdata_short() -> Document:
    """The old policy as it is usually written: bond0 is named as a port only."""
    return merged(bridge("br-vmdata", [{"name": "bond0"}]), mapping("br-vmdata"))


def br_ex(address: str) -> Document:
    """The node's own bridge over bond0.100."""
    ports = [{"name": "bond0.100"}, {"name": "br-ex"}]
    return merged(nic("bond0.100"), bridge("br-ex", ports), internal("br-ex", address))


def br_phy(*, rebalance: int = 10000, foreign_patches: bool = True) -> Document:
    """The target: br-phy over a bond of two NICs, and a patch on VLAN 100 to br-ex, which gives bond0.100 up."""
    to_ex = {"name": "patch-phy-to-ex", "vlan": {"mode": "access", "tag": NODE_VLAN}}
    uplink = bond("ovs-bond", ["ens33", "ens34"], bond_rebalance_interval=str(rebalance))
    own = [{"name": "br-ex"}, {"name": "patch-ex-to-phy"}]
    return merged(
        nic("ens33"),
        nic("ens34"),
        bridge("br-phy", [to_ex, uplink], foreign_patches=foreign_patches),
        patch("patch-phy-to-ex", "patch-ex-to-phy"),
        bridge("br-ex", own, foreign_patches=foreign_patches),
        patch("patch-ex-to-phy", "patch-phy-to-ex"),
    )


def procedure() -> Document:
    """Section 4.7 of the procedure: the old bridge absent and the localnet moved, in one document."""
    return merged(absent("br-vmdata"), mapping("br-phy"))


def mistyped_bond() -> Document:
    """A bond of NICs that the node doesn't have."""
    return bridge("br-typo", [bond("typo-bond", ["ens33x", "ens34x"])], foreign_patches=False)


def failing() -> Document:
    """Fails while OVN's patch port is on br-vmdata, and asks for more: a new bridge, a mapping, a key of the database."""
    return {
        **merged(
            absent("br-vmdata"),
            bridge("br-new", [{"name": "br-new"}], foreign_patches=False),
            internal("br-new"),
            mapping("br-new", "extra"),
        ),
        "ovs-db": {"external_ids": {"probe-key": "set-by-nmstate"}},
    }


def of_bridges(bridges: Iterable[BridgeSpec], addresses: Mapping[str, str]) -> Document:
    """What makes a World's bridges. A bridge that is a key of `addresses` gets a port of its own name, with that one."""
    parts = [part for each in bridges for part in _of_bridge(each, addresses.get(each.name, ""))]
    return merged(*parts)


def _of_bridge(spec: BridgeSpec, address: str) -> Iterable[Document]:
    listed = {port.name for port in spec.ports}
    own = [{"name": spec.name}] if address and spec.name not in listed else []
    yield bridge(spec.name, [*own, *map(_of_port, spec.ports)])
    if address:
        yield internal(spec.name, address)
    for port in spec.ports:
        yield from _of_links(port, spec.name if address else "")


def _of_links(port: PortSpec, addressed: str) -> Iterable[Document]:
    if port.peer:
        yield patch(port.name, port.peer)
    elif port.internal:
        if port.name != addressed:
            yield internal(port.name)
    else:
        yield from map(nic, port.bond or (port.name,))


def _of_port(port: PortSpec) -> dict[str, Any]:
    if not port.bond:
        body: dict[str, Any] = {"name": port.name}
    else:
        members = [{"name": member} for member in port.bond]
        body = {"name": port.name, "link-aggregation": {"mode": port.mode or "balance-slb", "port": members}}
    return body if port.tag is None else {**body, "vlan": {"mode": "access", "tag": port.tag}}
