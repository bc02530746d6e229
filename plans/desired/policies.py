"""What is wrong with a native NodeNetworkConfigurationPolicy that no schema tells.

The one invariant: a policy that passed is one that nmstate can be given node by node, and no bridge of it would lose
OVN's ports.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plans.desired.declared import Declared
from plans.desired.source import Loc
from plans.errors import Problem

KNOWN = ("interfaces", "ovn", "routes", "route-rules", "dns-resolver", "ovs-db", "hostname")


def policy_problems(declared: Declared) -> Iterator[Problem]:
    """What is wrong with a desiredState that no schema tells."""
    state: Loc = ("spec", "desiredState")
    document = declared.document.get(state)
    if declared.kind != "NodeNetworkConfigurationPolicy" or not isinstance(document, dict):
        return
    for key in document:
        if key not in KNOWN:
            message = f"nmstate knows no {key!r} here and would refuse the whole document; it knows {', '.join(KNOWN)}. Correct it."
            yield declared.problem((*state, key), message, at_key=True)
    if document.get("ovs-db") == {}:
        message = "an empty map takes system-id, ovn-remote and the encapsulation away from the node (H40). Remove it."
        yield declared.problem((*state, "ovs-db"), message, at_key=True)
    interfaces = document.get("interfaces")
    for index, interface in enumerate(interfaces if isinstance(interfaces, list) else ()):
        yield from _bridge_problems(declared, (*state, "interfaces", index), interface)


def _bridge_problems(declared: Declared, loc: Loc, interface: Any) -> Iterator[Problem]:
    bridge = interface.get("bridge") if isinstance(interface, dict) else None
    if (
        not isinstance(bridge, dict)
        or interface.get("type") != "ovs-bridge"
        or interface.get("state") == "absent"
    ):
        return
    if "port" in bridge and bridge.get("allow-extra-patch-ports") is not True:
        message = (
            "a list of ports without `allow-extra-patch-ports: true`: nmstate fails after 26 s over OVN's patch port, and the "
            "roll-back takes the bridge's bond out and in again (H24). Add it."
        )
        yield declared.problem((*loc, "bridge", "port"), message, at_key=True)
