"""Hazards of NICs that a bridge is to take: networks of pods that have the same NIC for a master."""

from __future__ import annotations

from collections import defaultdict

from plans import masters
from plans.changes import Change
from plans.document import Finding
from plans.facts import Known, Unknown
from plans.hazards import Scene


def taken_by_pods(scene: Scene) -> list[Finding]:
    """H12: a NIC that a macvlan or ipvlan network names as its master is refused to a bridge, or later to those pods."""
    changes = [change for diff in scene.diffs for change in diff.changes if change.kind == "new-bridge"]
    if not changes:
        return []
    if isinstance(unread := scene.facts.get("cluster/nads"), Unknown):
        return [_cannot_tell(changes, unread)]
    return [
        _found(scene, change, nic, nad, kind)
        for change in changes
        for nic in change.data["ports"]
        for nad, kind in masters.networks_of(nic, scene.facts)
    ]


def _found(scene: Scene, change: Change, nic: str, nad: str, kind: str) -> Finding:
    node = change.node
    users = masters.users_on(node, nad, scene.facts)
    gives = nic + " itself" if kind == masters.WHOLE else f"a{'n' * (kind[0] == 'i')} {kind} on {nic}"
    what = f"network {nad} gives pods {gives}, which {change.bridge} is to take on {node}, and a NIC has one taker only"
    if users:
        told = f"{', '.join(users)} {'has' if len(users) == 1 else 'have'} it there now, and Open vSwitch would be refused {nic}"
        out = f"have them leave {node}, or name another port. Accepted: {node} is left out"
    else:
        told = "no pod has it there now" if users is not None else "who has it there could not be asked"
        told += f"; once {change.bridge} has {nic}, none can start there"
        out = f"keep pods of {nad} off {node}, or name another port. Accepted: {change.bridge} gets it all the same"
    left = next(diff.changes for diff in scene.diffs if diff.node == node) if users else ()
    return Finding(
        "H12", "block", node, (f"network/{nad}", change.address), f"{what}: {told}", out,
        leaves_out=tuple(c.address for c in left),
    )  # fmt: skip


def _cannot_tell(changes: list[Change], unread: Unknown) -> Finding:
    nodes = ", ".join(dict.fromkeys(change.node for change in changes))
    nics = ", ".join(dict.fromkeys(nic for change in changes for nic in change.data["ports"]))
    return Finding(
        "H12", "warn", "", tuple(change.address for change in changes),
        f"cannot tell whether a network of pods (macvlan, ipvlan) has {nics} on {nodes}: {unread.why}",
        "make sure that none names one of these NICs as its master",
    )  # fmt: skip


def unseen(scene: Scene) -> list[Finding]:
    """H12: where nmstate tells nothing of a node's NICs, what else uses one that a bridge takes is not known."""
    unread: defaultdict[tuple[str, str], list[Change]] = defaultdict(list)
    for change in (c for diff in scene.diffs for c in diff.changes if c.kind == "new-bridge"):
        nics = scene.facts.get(f"node/{change.node}/nics")
        if not isinstance(nics, Known):
            why = nics.why if isinstance(nics, Unknown) else "nmstate does not report its NICs"
            unread[why, ", ".join(change.data["ports"])].append(change)
    return [
        Finding(
            "H12", "warn", "", tuple(change.address for change in changes),
            f"cannot tell whether anything else uses {ports} on {', '.join(change.node for change in changes)}: {why}",
            "look there that none is in a bond or a bridge, has an address, or carries a macvlan: `ip -d addr`",
        )
        for (why, ports), changes in unread.items()
    ]  # fmt: skip


FINDERS = (taken_by_pods, unseen)
