"""Which localnet is on which bridge, node by node, as far as the nodes could be read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plans import ovs
from plans.errors import PlanError
from plans.facts import Facts, Known, Unknown
from plans.networks import listed
from plans.nmstate.ownership import made_by_network_manager

CLUSTERS = ("physnet", "exgwphysnet")


@dataclass(frozen=True, slots=True)
class Seen:
    """Which localnet is on which bridge, node by node; and the nodes of which that can't be told, with the reason."""

    facts: Facts
    pairs: Mapping[str, Mapping[str, str]]
    unread: Mapping[str, str]

    def homes(self, localnet: str) -> dict[str, str]:
        """Node → bridge."""
        return {node: pairs[localnet] for node, pairs in self.pairs.items() if localnet in pairs}

    def with_bridge(self, bridge: str) -> list[str]:
        """The nodes that have a bridge."""
        return [n for n in self.pairs if bridge in self.facts.value(f"node/{n}/ovs")["bridges"]]

    @property
    def localnets(self) -> list[str]:
        """Every localnet of VMs that a node maps."""
        return sorted({net for pairs in self.pairs.values() for net in pairs if net not in CLUSTERS})

    @property
    def named(self) -> list[str]:
        """Every localnet that a NAD names and no node maps."""
        keys = self.facts.value("cluster/networks", [])
        found = {str((self.facts.value(f"network/{key}") or {}).get("localnet", "")) for key in keys}
        return sorted(found - {"", *CLUSTERS, *self.localnets})


def look(facts: Facts) -> Seen:
    """What the facts tell. Raises PlanError when nothing could be read."""
    if isinstance(nodes := facts.get("cluster/nodes"), Unknown):
        raise PlanError(f"cannot list the cluster's nodes: {nodes.why}. Nothing can be told.")
    if not facts.value("cluster/nodes", []):
        raise PlanError(
            "the cluster has no nodes, so it has no bridges either. Is it the cluster that was meant?"
        )
    pairs: dict[str, Mapping[str, str]] = {}
    unread: dict[str, str] = {}
    for node in facts.value("cluster/nodes", []):
        match facts.get(f"node/{node}/ovs/mappings"):
            case Known(value):
                pairs[node] = value
            case Unknown(why):
                unread[node] = why
            case _:
                unread[node] = "its mapping cannot be told"
    if not pairs:
        raise PlanError(
            "\n".join(["no node could be read, so nothing can be told of its bridges:", *reasons_of(unread)])
        )
    return Seen(facts, pairs, unread)


def reasons_of(unread: Mapping[str, str]) -> list[str]:
    """Each reason once, with the nodes that it is of."""
    nodes: dict[str, list[str]] = defaultdict(list)
    for node, why in unread.items():
        nodes[why.replace(node, "the node")].append(node)
    return [
        f"{listed(found)}: {unread[found[0]] if len(found) == 1 else why}" for why, found in nodes.items()
    ]


def who_made(bridge: str, nodes: Sequence[str], facts: Facts) -> list[str]:
    """Who made a bridge and what leads out of it, nodes of one kind together."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        view = facts.value(f"node/{node}/ovs")
        if bridge not in view["bridges"]:
            kinds["not there"].append(node)
            continue
        maker = "NetworkManager" if made_by_network_manager(facts, node, bridge) else "ovs-vsctl"
        uplinks = ", ".join(ovs.live_uplinks(view, bridge)) or "none that works"
        kinds[f"made by {maker}, uplink {uplinks}"].append(node)
    everywhere = len(kinds) == 1
    return [f"{bridge}: {what}{'' if everywhere else f' ({listed(found)})'}" for what, found in kinds.items()]
