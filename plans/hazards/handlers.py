"""Hazards of nmstate on a node: what its NetworkManager has forgotten, what its handler cannot read, and what it waits for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from plans import ovs
from plans.bracket import Bracket
from plans.document import Finding
from plans.facts import Known, Unknown
from plans.hazards import Scene
from plans.nmstate import documents
from plans.nmstate.enactments import PROBE_MINUTES
from plans.nmstate.ownership import is_marked, lost_profiles, nmstate_acts

POLICY_ROUTINES = ("policy-", "enact-policy")


def zombies(scene: Scene) -> list[Finding]:
    """H55: rows of a bridge whose NetworkManager profile is gone. No port can be put on such a bridge by nmstate.

    One that is to go is taken away in the database, for it is nobody's any more.
    """
    found, silent = [], defaultdict(list)
    for bracket in scene.brackets:
        node = bracket.node
        profiles = scene.facts.get(f"node/{node}/profiles")
        if isinstance(profiles, Unknown) and _applies(bracket) and is_marked(scene.facts, node):
            silent[profiles.why].append(node)
        used = _used(scene, node)
        for bridge in sorted(scene.facts.value(f"node/{node}/ovs", {"bridges": {}})["bridges"]):
            if lost := lost_profiles(scene.facts, node, bridge):
                found.append(_zombie(scene, node, bridge, lost, used))
    for why, nodes in silent.items():
        found.append(_cannot_ask(nodes, why))
    return found


def _used(scene: Scene, node: str) -> set[str]:
    """The bridges of a node that this plan maps to or puts ports on, or that a policy of the files speaks of."""
    used: set[str] = set()
    for change in next(d.changes for d in scene.diffs if d.node == node):
        if change.kind == "native":
            document = change.data["document"]
            used |= {*documents.mapped_pairs(document).values(), *documents.port_lists(document)}
        elif change.kind != "bridge":
            used.add(change.bridge)
    return used


def _zombie(scene: Scene, node: str, bridge: str, lost: dict[str, str], used: set[str]) -> Finding:
    rows = ", ".join(f"{name} ({uuid})" for name, uuid in sorted(lost.items()))
    message = (
        f"bridge {bridge} on {node} was left by an apply that failed: NetworkManager has no profile any more of {rows}, "
        "so nmstate can put no port on it"
    )
    where = (f"node/{node}/bridge/{bridge}",)
    if bridge not in used:
        return Finding(
            "H55", "warn", node, where, message,
            "nothing to do for this plan; one that it replaces is taken away in OVSDB, after the mapping",
        )  # fmt: skip
    pairs = scene.facts.value(f"node/{node}/ovs/mappings", {})
    riding = sorted(localnet for localnet, home in pairs.items() if home == bridge)
    first = (
        f"first map {', '.join(riding)} to another bridge that has an uplink, so that OVN's patch ports leave it; then "
        if riding
        else ""
    )
    return Finding(
        "H55", "block", node, where, message,
        f"on {node}: {first}`ovs-vsctl del-br {bridge}`, have it made again (by its policy, or by `ports` of the "
        f"VMNetwork), and plan again. Accepted: {node} is left out",
        leaves_out=tuple(c.address for d in scene.diffs if d.node == node for c in d.changes),
    )  # fmt: skip


def _cannot_ask(nodes: list[str], why: str) -> Finding:
    return Finding(
        "H55", "warn", "", tuple(f"node/{node}" for node in nodes),
        f"cannot tell whether NetworkManager still has the profiles of its bridges on {', '.join(nodes)}: {why}",
        "nothing to do as a rule: where one is gone, the policy fails there and stops the line; no VM notices",
    )  # fmt: skip


def malformed_mapping(scene: Scene) -> list[Finding]:
    """H57: one entry that is not `<localnet>:<bridge>` freezes nmstate: its show and its apply both fail."""
    found = []
    for diff in scene.diffs:
        node, at = diff.node, f"node/{diff.node}/ovs"
        fact, view = scene.facts.get(f"{at}/mappings"), scene.facts.get(at)
        if isinstance(fact, Unknown) and isinstance(view, Known) and nmstate_acts(scene.facts, node):
            found.append(
                Finding(
                    "H57", "block", node, (f"{at}/mappings",),
                    f"{ovs.MAPPING_KEY} of {node} is malformed ({fact.why}): nmstate can neither show nor apply anything "
                    "there, so it cannot repair it",
                    f"on {node}, once you are sure of each pair: {_repair(view.value['mapping'])}. Accepted: {node} is left as it is",
                )
            )  # fmt: skip
    return found


def _repair(text: str | None) -> str:
    command = f"`ovs-vsctl set Open_vSwitch . external_ids:{ovs.MAPPING_KEY}="
    guess = ovs.mended_mappings(text)
    return f'{command}"{guess or "<localnet>:<bridge>,..."}"`'


def silent_gateway(scene: Scene) -> list[Finding]:
    """H61: the handler pings the node's gateway before every apply, and waits two minutes for one that is silent."""
    found, unknown = [], defaultdict(list)
    for bracket in scene.brackets:
        node, applies = bracket.node, _applies(bracket)
        gateway = scene.facts.value(f"node/{node}/nmstate/gateway")
        if not applies or gateway is None:
            continue
        answer = scene.facts.get(f"node/{node}/ping/{gateway}")
        if isinstance(answer, Unknown):
            unknown[answer.why].append(node)
        elif isinstance(answer, Known) and not answer.value:
            why = f"gateway {gateway} does not answer ping from {node}"
            found.append(_slow(node, why, applies, "let the gateway answer ping from the nodes"))
    return [*found, *_untold("the gateway answers ping", unknown)]


def silent_name_servers(scene: Scene) -> list[Finding]:
    """H61: it asks the node's name servers for a name too, one after the other, and waits as long for those that don't
    tell it: where there is none as well (`pkg/probe/probes.go`; only the gateway was measured).
    """
    found, unknown = [], defaultdict(list)
    name = scene.facts.get("cluster/nmstate-probe")
    for bracket in scene.brackets:
        node, applies = bracket.node, _applies(bracket)
        servers = scene.facts.value(f"node/{node}/nmstate/name-servers")
        if not applies or servers is None:
            continue
        asked = name.value if isinstance(name, Known) else ""
        answers = [
            scene.facts.get(f"node/{node}/dns/{server}/{asked}") if asked else name for server in servers
        ]
        if Known(True) in answers:
            continue
        if silent := [answer.why for answer in answers if isinstance(answer, Unknown)]:
            unknown[silent[0]].append(node)
            continue
        which = (
            f"no name server of {node} ({', '.join(servers)}) tells {asked}"
            if servers
            else f"{node} has no name server"
        )
        way_out = (
            "have one tell it, or name another in `spec.probeConfiguration.dns.host` of the NMState object"
        )
        found.append(_slow(node, which, applies, way_out))
    return [*found, *_untold("a name server tells what nmstate asks", unknown)]


def _slow(node: str, why: str, applies: int, way_out: str) -> Finding:
    times = f"{applies} of them in its round: about {applies * PROBE_MINUTES} min longer"
    return Finding(
        "H61", "warn", node, (f"node/{node}",),
        f"{why}: nmstate waits {PROBE_MINUTES} min for it before every apply of a policy ({times})",
        f"{way_out}, or be patient: the deadlines leave room for it, and VMs notice nothing",
    )  # fmt: skip


def _untold(what: str, unknown: Mapping[str, Sequence[str]]) -> list[Finding]:
    return [
        Finding(
            "H61", "warn", "", tuple(f"node/{node}" for node in nodes),
            f"cannot tell whether {what} on {', '.join(nodes)}: {why}",
            f"nothing to do: where it does not, each apply of a policy takes {PROBE_MINUTES} min longer",
        )
        for why, nodes in unknown.items()
    ]  # fmt: skip


def _applies(bracket: Bracket) -> int:
    """How many actions of a node's round have a policy applied there."""
    return sum(action.routine.startswith(POLICY_ROUTINES) for action in bracket.actions)


FINDERS = (zombies, malformed_mapping, silent_gateway, silent_name_servers)
