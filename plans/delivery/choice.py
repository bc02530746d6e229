"""Which delivery makes a change of a node: delivery follows the owner.

A bridge that NetworkManager made goes by nmstate, one that `ovs-vsctl` made by a guarded transaction: each undoes, or does
not see, what is done to its own by the other means (H41, H54). nmstate refuses a mapping onto a bridge that
NetworkManager does not know (H58). Source: docs/nmstate-facts.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from plans.changes import Change, Choice
from plans.desired import Desired
from plans.facts import Absent, Facts, Known, Unknown
from plans.nmstate.ownership import lost_profiles, made_by_network_manager
from plans.selection import applies_to

NATIVE = "native"
"""The kind of a policy of the files, which has one delivery."""


def choose(change: Change, desired: Desired, facts: Facts) -> Choice:
    """By which means a change of a node is made, and why."""
    if change.kind == NATIVE:
        return Choice("nncp", "it is a policy")
    asked = _asked(change, desired)
    owned = made_by_network_manager(facts, change.node, change.bridge)
    free = _is_free(change, desired, facts)
    nics = facts.value(f"node/{change.node}/nics") or {}
    served = facts.get("cluster/nmstate")
    handler = facts.get(f"node/{change.node}/nmstate/version")
    insisted = " although `delivery.by: nncp` asks for a policy" if asked == "nncp" else ""
    if isinstance(served, Absent):
        return Choice("ovsdb", f"the cluster serves no nmstate API{insisted}")
    if isinstance(served, Unknown):
        return Choice("ovsdb", f"cannot tell whether the cluster serves nmstate: {served.why}{insisted}")
    if change.traffic and change.traffic.source == change.traffic.bridge:
        return Choice("ovsdb", "only OVN's patch ports are mended, which are nobody's but OVN's")
    if not owned and not free:
        lost = change.bridge in lost_profiles(facts, change.node, change.bridge)
        which = f"has no profile of {change.bridge} any more" if lost else f"did not make {change.bridge}"
        return Choice("ovsdb", f"NetworkManager {which}{insisted}")
    if asked == "ovsdb":
        return Choice("ovsdb", "`delivery.by: ovsdb`")
    if isinstance(handler, Unknown):
        return Choice(
            "ovsdb",
            f"cannot tell whether an nmstate handler reports from {change.node}: {handler.why}{insisted}",
        )
    if not isinstance(handler, Known):
        return Choice("ovsdb", f"no nmstate handler reports from {change.node}{insisted}")
    if strangers := [nic for nic in change.nics if nic not in nics]:
        return Choice("ovsdb", f"nmstate does not list {', '.join(strangers)} on {change.node}{insisted}")
    if free:
        why = f"{change.bridge} is nobody's yet, and nmstate {handler.value} can look after it"
        return Choice("nncp", why)
    return Choice("nncp", f"NetworkManager made {change.bridge}, and nmstate {handler.value} looks after it")


def _is_free(change: Change, desired: Desired, facts: Facts) -> bool:
    """Whether the bridge of a change is not there, and this plan makes it: it belongs to nobody yet."""
    view = facts.value(f"node/{change.node}/ovs") or {"bridges": {}}
    makers = (n for n in desired.networks if n.ports and n.bridge == change.bridge)
    return change.bridge not in view["bridges"] and any(applies_to(n, change.node, facts) for n in makers)


def choose_all(changes: Sequence[Change], desired: Desired, facts: Facts) -> dict[str, Choice]:
    """The choice for each change of the nodes, by address."""
    return {change.address: choose(change, desired, facts) for change in changes}


def _asked(change: Change, desired: Desired) -> str:
    """What the files ask for: the first word of a network that wants the change."""
    for network in desired.networks:
        if network.name in change.localnets and network.spec.delivery and network.spec.delivery.by:
            return network.spec.delivery.by
    return ""
