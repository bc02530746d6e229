"""Hazards of NICs that a bridge is to take: networks of pods that have the same NIC for a master."""

from __future__ import annotations

from collections import defaultdict

from plans import masters
from plans.changes import Change
from plans.document import Finding
from plans.facts import Known, Unknown
from plans.hazards import Scene
from plans.networks import listed


def taken_by_pods(scene: Scene) -> list[Finding]:
    """H65: a NIC that a macvlan or ipvlan network names as its master is refused to a bridge, or later to those pods."""
    changes = [change for diff in scene.diffs for change in diff.changes if change.kind == "new-bridge"]
    if not changes:
        return []
    if isinstance(unread := scene.facts.get("cluster/nads"), Unknown):
        return [_cannot_tell(changes, unread)]
    found: list[Finding] = []
    unused: defaultdict[tuple[str, str, str, str], list[Change]] = defaultdict(list)
    for change in changes:
        for nic in change.data["ports"]:
            for nad, kind in masters.networks_of(nic, scene.facts):
                users = masters.users_on(change.node, nad, scene.facts)
                if users == []:
                    unused[nad, kind, nic, change.bridge].append(change)
                else:
                    found.append(_in_use(scene, change, nic, nad, kind, users))
    return [*found, *(_unused(*what, of_it) for what, of_it in unused.items())]


def _what(nad: str, kind: str, nic: str, bridge: str, nodes: str) -> str:
    gives = nic + " itself" if kind == masters.WHOLE else f"a{'n' * (kind[0] == 'i')} {kind} on {nic}"
    return f"network {nad} gives pods {gives}, which {bridge} is to take on {nodes}, and a NIC has one taker only"


def _in_use(scene: Scene, change: Change, nic: str, nad: str, kind: str, users: list[str] | None) -> Finding:
    node = change.node
    if users is None:
        told = "who has it there could not be asked"
    else:
        told = f"{', '.join(users)} {'has' if len(users) == 1 else 'have'} it there now, and Open vSwitch would be refused {nic}"
    left = next(diff.changes for diff in scene.diffs if diff.node == node)
    return Finding(
        "H65", "block", node, (f"network/{nad}", change.address), f"{_what(nad, kind, nic, change.bridge, node)}: {told}",
        f"have its pods leave {node}, or name another port. Accepted: {node} is left out",
        leaves_out=tuple(c.address for c in left),
    )  # fmt: skip


def _unused(nad: str, kind: str, nic: str, bridge: str, changes: list[Change]) -> Finding:
    nodes = listed([change.node for change in changes])
    return Finding(
        "H65", "warn", "", (f"network/{nad}", *(change.address for change in changes)),
        f"{_what(nad, kind, nic, bridge, nodes)}: no pod has it there now; once {bridge} has {nic}, none can start there",
        f"nothing to do where no pod of {nad} is to run; else name another port",
    )  # fmt: skip


def _cannot_tell(changes: list[Change], unread: Unknown) -> Finding:
    nodes = ", ".join(dict.fromkeys(change.node for change in changes))
    nics = ", ".join(dict.fromkeys(nic for change in changes for nic in change.data["ports"]))
    return Finding(
        "H65", "warn", "", tuple(change.address for change in changes),
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
