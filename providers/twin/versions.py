"""Which programs a node has, and what depends on their versions.

Invariant: a version is what the world file says of the node; no other file of the twin compares versions.
"""

from __future__ import annotations

from providers.twin.stage import Stage

OVN = "ovn-version"
NMSTATE = "nmstate-version"
NETWORKMANAGER = "1.52.1"
_OVS = {"23.03": "3.1.0", "25.03": "3.5.0"}
_OVS_SCHEMA = {"23.03": "8.3.1", "25.03": "8.8.0"}
_SOUTHBOUND_SCHEMA = {"23.03": "20.27.0", "25.03": "20.41.0"}


def ovn(stage: Stage, node: str) -> str:
    """The version of OVN on the node."""
    found: str = (stage.recall(OVN, node) or {"ovn": stage.settings.ovn})["ovn"]
    return found


def ovs(ovn_version: str) -> str:
    """The Open vSwitch that came with that OVN."""
    return _OVS[_series(ovn_version)]


def ovs_schema(ovn_version: str) -> str:
    """The version of the Open_vSwitch schema."""
    return _OVS_SCHEMA[_series(ovn_version)]


def southbound_schema(ovn_version: str) -> str:
    """The version of OVN's southbound schema."""
    return _SOUTHBOUND_SCHEMA[_series(ovn_version)]


def _series(version: str) -> str:
    return version.rpartition(".")[0]


def ovn_moves_ports(ovn_version: str) -> bool:
    """Whether ovn-controller takes a patch port from a bridge that its mapping no longer names.

    Not in the releases between b600316f2 and 2609cd9f0: there it tries to insert the port a second time.
    """
    return _series(ovn_version) != "23.03"


def vswitchd_moves_ports(ovn_version: str) -> bool:
    """Whether ovs-vswitchd gets a patch port straight that changes bridges within one transaction."""
    return _series(ovn_version) != "23.03"


def nmstate(stage: Stage, node: str) -> str | None:
    """The version of nmstate on the node; None where there is none, and no NetworkManager either."""
    found: dict[str, str] | None = stage.recall(NMSTATE, node)
    return found["nmstate"] if found else None


def checks_mapped_bridge(nmstate_version: str) -> bool:
    """Whether an OVN mapping to a bridge that nmstate does not know is refused."""
    return _ordered(nmstate_version) >= (2, 2, 47)


def writes_single_keys(nmstate_version: str) -> bool:
    """Whether single external_ids are changed; before, the whole map was replaced by what had been read."""
    return _ordered(nmstate_version) >= (2, 2, 41)


def _ordered(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
