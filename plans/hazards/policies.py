"""Hazards of nmstate policies: two that disagree, one that is stuck, somebody who keeps one, an nmstate too old."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

from plans.desired import VMNetwork
from plans.document import Finding
from plans.facts import Facts, Known, Unknown
from plans.hazards import Scene
from plans.nmstate import documents, enactments, enforcing, names, policies
from plans.nmstate.ownership import ABSENT_KEPT_SINCE, SINGLE_KEYS_SINCE, version
from plans.selection import applies_to, is_there, nodes_of_policy, selected_nodes


def contradictions(scene: Scene) -> list[Finding]:
    """H04: two policies that disagree about one node are obeyed in turn, at every label change, until one is skipped.

    A policy that disagrees with a VMNetwork is as bad by whatever means the nodes are changed: the next label of the
    node brings the old bridge back. It is no hazard to a node that this plan leaves where the policy has it.
    """
    found = []
    going, rewritten = _of_this_plan(scene, "withdraw"), _of_this_plan(scene, "prepare", "finalise")
    labels = {
        node: scene.facts.value(f"node/{node}/labels", {}) for node in scene.facts.value("cluster/nodes", [])
    }
    there = {
        name: have
        for name in scene.facts.value("cluster/policies") or []
        if name not in going and (have := scene.facts.value(f"policy/{name}"))
    }
    for network in scene.desired.networks:
        wanted = policies.final_document(network)
        selected = selected_nodes(network, scene.facts)
        moved = {c.node for diff in scene.diffs for c in diff.changes if network.name in c.localnets}
        moved |= {node for node in selected if is_there(network, node, scene.facts)}
        own = {names.mapping_name(network), *(names.node_name(network, node) for node in selected)}
        for name, have in there.items():
            if name in rewritten or (have["ours"] and name in own):
                continue
            reasons = documents.contradictions(wanted, have["document"])
            for node, carried in labels.items() if reasons else ():
                if node in moved and _will_match(network, have["selector"], carried):
                    found.append(_against_network(network, name, node, reasons))
    found += _natives(scene, there)
    for (one, first), (other, second) in combinations(there.items(), 2):
        reasons = documents.contradictions(first["document"], second["document"])
        for node, carried in labels.items() if reasons else ():
            if _matches(first["selector"], carried) and _matches(second["selector"], carried):
                found.append(_between(one, other, node, reasons))
    return found


def unseen(scene: Scene) -> list[Finding]:
    """H04, H41: what a node's policies say, and whether nmstate looks after its bridges, could not be asked.

    Only OVN's patch ports are mended without: no policy holds them.
    """
    moved = [
        c
        for diff in scene.diffs
        for c in diff.changes
        if c.kind != "native" and not (c.traffic and c.traffic.source == c.traffic.bridge)
    ]
    asked = {
        "which policies match its nodes": "cluster/nmstate",
        "on which nodes nmstate looks after the bridges": "cluster/nmstate-nodes",
    }
    return [
        Finding("H04", "block", "", tuple(c.address for c in moved),
                f"cannot tell {what}: {fact.why}. What holds a bridge by nmstate, and is moved by other means, is led back at its next apply",
                "mend what stands in the way, and plan again. Accepted: what can't be told is taken to be not there")
        for what, path in asked.items()
        if moved and isinstance(fact := scene.facts.get(path), Unknown)
    ]  # fmt: skip


def _natives(scene: Scene, there: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """The policies of the files against those of the cluster, and against the networks of the files."""
    found = []
    for policy in scene.desired.policies:
        own = {policy.name, *(names.node_name(policy, node) for node in nodes_of_policy(policy, scene.facts))}
        for name, have in there.items():
            reasons = (
                documents.contradictions(policy.spec.desired_state, have["document"])
                if name not in own
                else []
            )
            for node in nodes_of_policy(policy, scene.facts) if reasons else ():
                if _matches(have["selector"], scene.facts.value(f"node/{node}/labels", {})):
                    found.append(replace(_between(policy.name, name, node, reasons), level="block"))
        for network in scene.desired.networks:
            reasons = documents.contradictions(policy.spec.desired_state, policies.final_document(network))
            for node in nodes_of_policy(policy, scene.facts) if reasons else ():
                if applies_to(network, node, scene.facts):
                    found.append(
                        replace(
                            _between(policy.name, names.shared_name(network), node, reasons), level="block"
                        )
                    )
    return found


def _of_this_plan(scene: Scene, *what: str) -> set[str]:
    """The policies with which this plan does one of these: those that it withdraws, before the first node."""
    changes = [c for c in scene.cluster.changes if c.kind == "policy" and c.data["do"] in what]
    return {c.data["policy"] for c in changes if c.phase == "prologue" or c.data["do"] != "withdraw"}


def _replaced(scene: Scene) -> set[str]:
    """The policies that this plan takes away: not those that somebody else would bring back."""
    return {
        name
        for network in scene.desired.networks
        for name in (network.spec.replaces.policies if network.spec.replaces else ())
        if not network.is_labelled
        if not (scene.facts.value(f"policy/{name}") or {}).get("owner")
    }


def _matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.items())


def _will_match(network: VMNetwork, selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a policy matches a node at any moment of its migration: with labels, the node's label changes on its way."""
    label = network.spec.delivery.label if network.spec.delivery else None
    if not network.is_labelled or label is None:
        return _matches(selector, labels)
    return any(_matches(selector, {**labels, label: value}) for value in (enforcing.MAPPED, enforcing.DONE))


def _against_network(network: VMNetwork, name: str, node: str, reasons: list[str]) -> Finding:
    label = network.spec.delivery.label if network.spec.delivery else None
    way_out = (
        f'narrow its nodeSelector to the nodes that are not begun ({label}: "false"), or use the strategy per-node'
        if label
        else f"let this plan take it away: spec.replaces.policies: [{name}] of VMNetwork {network.name}"
    )
    return Finding(
        "H04", "block", node, (f"policy/{name}", f"vmnetwork/{network.name}"),
        f"policy {name} matches {node} and says otherwise than VMNetwork {network.name} ({'; '.join(reasons)}): the next label "
        "change or handler restart would bring its own state back",
        way_out,
    )  # fmt: skip


def _between(one: str, other: str, node: str, reasons: list[str]) -> Finding:
    return Finding(
        "H04", "warn", node, (f"policy/{one}", f"policy/{other}"),
        f"policies {one} and {other} both match {node} and disagree ({'; '.join(reasons)}): each label change applies both",
        "delete one of them, or narrow its nodeSelector",
    )  # fmt: skip


def too_old(scene: Scene) -> list[Finding]:
    """H40, H43: an nmstate that loses parts of a document, or other people's external_ids."""
    found = []
    for bracket in scene.brackets:
        if not any(a.routine.startswith("policy-") for a in bracket.actions):
            continue
        fact = scene.facts.get(f"node/{bracket.node}/nmstate/version")
        have = version(str(fact.value)) if isinstance(fact, Known) else ()
        where = (f"node/{bracket.node}/nmstate",)
        if have and have < ABSENT_KEPT_SINCE:
            found.append(
                Finding("H43", "block", bracket.node, where,
                        f"nmstate {fact.value} on {bracket.node} loses `state: absent` of what it is given" if isinstance(fact, Known) else "",
                        "update the nmstate operator, or `delivery.by: ovsdb`")
            )  # fmt: skip
        elif have and have < SINGLE_KEYS_SINCE:
            found.append(
                Finding("H40", "block", bracket.node, where,
                        f"nmstate on {bracket.node} ({'.'.join(map(str, have))}) writes all external_ids from an earlier read: what OVN-Kubernetes writes meanwhile is lost",
                        "update the nmstate operator (2.2.41 mends it), or `delivery.by: ovsdb`")
            )  # fmt: skip
    return found


def stuck(scene: Scene) -> list[Finding]:
    """H60: an enactment that has not begun with its policy's generation: its handler is stuck, dead, or just now busy."""
    if not any(a.routine.startswith("policy-") for b in scene.brackets for a in b.actions):
        return []
    own = {b.node for b in scene.brackets}
    going = _of_this_plan(scene, "withdraw")
    return [
        Finding(
            "H60", "block", node, (f"policy/{name}",),
            f"the handler of {node} has not begun with the present generation of policy {name}: it is stuck, or busy",
            f"wait until `oc get nnce {node}.{name}` is Available; if it stays so, keep a copy of policy {name}, `oc delete nncp {name}`, "
            "and create it anew: an edit is refused while it is stuck",
        )
        for name, node in _enactments(scene.facts)
        if node in own and name not in going and enactments.state(scene.facts, node, name) == "waiting"
    ]  # fmt: skip


def _enactments(facts: Facts) -> Iterator[tuple[str, str]]:
    for name in facts.value("cluster/policies") or []:
        for node in facts.value(f"policy/{name}/enacted-on", []):
            yield name, node


def names_taken(scene: Scene) -> list[Finding]:
    """H50: a policy of somebody else's has the name of one that this plan would make for a while."""
    wanted = {
        a.args["policy"]: a.node
        for b in scene.brackets
        for a in b.actions
        if "policy" in a.args and not a.args.get("label")
    }
    return [
        Finding("H50", "block", node, (f"policy/{name}",),
                f"policy {name} is there, and ovsplan did not make it: this plan would write it anew for {node}, and delete it at the end",
                "choose another `delivery.policy`, or rename theirs")
        for name, node in sorted(wanted.items())
        if policies.exists(scene.facts, name) and not policies.is_ours(scene.facts, name)
    ]  # fmt: skip


def hostnames(scene: Scene) -> list[Finding]:
    """H04: a policy for one node selects it by its hostname label, which must be there, and be its alone."""
    facts = scene.facts
    every = {
        node: facts.value(f"node/{node}/labels", {}).get(policies.HOSTNAME)
        for node in facts.value("cluster/nodes", [])
    }
    found = []
    for bracket in scene.brackets:
        if not any(a.args.get("hostname") for a in bracket.actions):
            continue
        mine = every.get(bracket.node)
        twins = [node for node, name in every.items() if name == mine and node != bracket.node]
        if mine is None or twins:
            wrong = f"{', '.join(twins)} has the same one, {mine}" if mine else "it has none"
            found.append(
                Finding("H04", "block", bracket.node, (f"node/{bracket.node}",),
                        f"a policy for {bracket.node} alone selects it by the label {policies.HOSTNAME}, and {wrong}",
                        f"give each node its own {policies.HOSTNAME} label, or `delivery.by: ovsdb`")
            )  # fmt: skip
    return found


def no_longer_held(scene: Scene) -> list[Finding]:
    """H08: what a policy says besides that which is replaced stays on today's nodes, and nobody holds it for new ones."""
    covered = {n.name for n in scene.desired.networks}
    bridges = {b for n in scene.desired.networks for b in (n.bridge, n.replaced_bridge) if b}
    found = []
    for name in sorted(_replaced(scene) & _of_this_plan(scene, "withdraw")):
        have = scene.facts.value(f"policy/{name}")
        if not have:
            continue
        more = [
            f"localnet {net} on {to}"
            for net, to in documents.mapped_pairs(have["document"]).items()
            if net not in covered
        ]
        more += [f"interface {name}" for name in documents.present(have["document"]) if name not in bridges]
        if more:
            found.append(
                Finding("H08", "warn", "", (f"policy/{name}",),
                        f"policy {name} also says: {', '.join(more)}. It stays so on today's nodes; after this plan nothing says so any more",
                        "nothing to do for today's nodes; keep that part in a policy of its own for those that come")
            )  # fmt: skip
    return found


def without_bridge(scene: Scene) -> list[Finding]:
    """H03: with labels a node is led to a bridge that it must have already: their policies are for many nodes, and make none."""
    found = []
    for network in (n for n in scene.desired.networks if n.is_labelled):
        for diff in scene.diffs:
            view = scene.facts.value(f"node/{diff.node}/ovs")
            if (
                not view
                or not applies_to(network, diff.node, scene.facts)
                or network.bridge in view["bridges"]
            ):
                continue
            node, bridge, name = diff.node, network.bridge, names.shared_name(network)
            ports = ", ".join(network.ports) or "ITS UPLINK"
            found.append(
                Finding("H03", "block", node, (f"node/{node}/bridge/{bridge}",),
                        f"{node} has no bridge {bridge}, and `delivery.strategy: labelled` makes none: its VMs would have no network",
                        f"make {bridge} with an enabled bond on {node} first, and write `bridge: {bridge}`; or have it made, node by node: "
                        f"`bridge: {{name: {bridge}, ports: [{ports}]}}` and `delivery: {{by: nncp, policy: {name}}}`, without `strategy` and "
                        f"`label`. Accepted: {node} is left out",
                        leaves_out=tuple(c.address for c in diff.changes))
            )  # fmt: skip
    return found


def at_one_stroke(scene: Scene) -> list[Finding]:
    """H07: with labels, a policy moves every node that has its value already the moment it is written, with no bracket."""
    found = []
    for change in scene.cluster.changes:
        if change.kind != "policy" or change.data["do"] != "prepare":
            continue
        name, selector = change.data["policy"], change.data["selector"]
        carried = ", ".join(f"{key}={value}" for key, value in selector.items())
        taken_off = " ".join(f"{key}={enforcing.BETWEEN}" for key in selector)
        for node in policies.selected(scene.facts, selector):
            said = policies.not_yet(scene.facts, node, change.data["document"])
            if not said:
                continue
            own = [c.address for diff in scene.diffs if diff.node == node for c in diff.changes]
            found.append(
                Finding("H07", "block", node, (change.address, f"node/{node}"),
                        f"{node} has {carried} already: policy {name} would change it the moment it is written, before its turn, "
                        f"not cordoned, its VMs not announced ({said})",
                        f"`oc label node {node} {taken_off} --overwrite`, which no policy selects, then plan again: it is led there in "
                        f"its turn. Accepted: the policy does so, and this plan leaves {node} out",
                        leaves_out=tuple(own))
            )  # fmt: skip
    return found


def without_label(scene: Scene) -> list[Finding]:
    """H07: with labels, a node that is as declared and lacks the label is held by no policy."""
    changing = {b.node for b in scene.brackets} | {d.node for d in scene.diffs if d.blocked or d.unreadable}
    found = []
    for network in scene.desired.networks:
        label = network.spec.delivery.label if network.spec.delivery else None
        if label is None or not isinstance(scene.facts.get("cluster/nmstate"), Known):
            continue
        for node in selected_nodes(network, scene.facts):
            has = scene.facts.value(f"node/{node}/labels", {}).get(label)
            if (
                has != enforcing.DONE
                and node not in changing
                and isinstance(scene.facts.get(f"node/{node}/ovs"), Known)
            ):
                found.append(
                    Finding("H07", "warn", node, (f"node/{node}",),
                            f"{node} is as VMNetwork {network.name} declares, and has {label}={has or 'no value'}: policy {names.shared_name(network)} does not hold it",
                            f"`oc label node {node} {label}={enforcing.DONE} --overwrite`")
                )  # fmt: skip
    return found


def kept_by_others(scene: Scene) -> list[Finding]:
    """H50: a tool that keeps the shared policy as its git says reverts what we write."""
    found = []
    for network in scene.desired.networks:
        name = names.shared_name(network)
        have: Mapping[str, Any] = scene.facts.value(f"policy/{name}") or {}
        if have.get("owner") and not documents.same(have["document"], policies.final_document(network)):
            found.append(
                Finding("H50", "block", "", (f"policy/{name}",),
                        f"policy {name} is kept by {have['owner']}, which reverts what is changed here",
                        f"change it there to: {documents.in_words(policies.final_document(network))}")
            )  # fmt: skip
    return found


FINDERS = (
    contradictions,
    names_taken,
    hostnames,
    too_old,
    stuck,
    no_longer_held,
    without_bridge,
    at_one_stroke,
    unseen,
    without_label,
    kept_by_others,
)
