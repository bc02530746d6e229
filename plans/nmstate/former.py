"""Policies that an earlier run made for a network, and that nothing writes now: its `delivery` was changed since.

The one invariant: only what a run of this network made is found, by the mark that it wrote (`policies.MADE_FOR`), and only
while it speaks of this network and of nothing else. What it says is no proof: policies of the files say the same things.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plans.desired import Desired, VMNetwork
from plans.facts import Facts
from plans.nmstate import documents, enactments, enforcing, names, policies
from plans.selection import applies_to, nodes_of_policy, selected_nodes


@dataclass(frozen=True, slots=True)
class Former:
    """A policy of an earlier run. `single`: it is for one node.

    `in_the_way`: it says otherwise than the network now, or its handler is not done with it, and would act meanwhile.
    """

    name: str
    network: VMNetwork
    single: bool
    in_the_way: bool


def former(desired: Desired, facts: Facts) -> list[Former]:
    """The policies of earlier runs, by name, each with the network that it was made for."""
    listed = facts.value("cluster/policies") or []
    known = {name for network in desired.networks for name in _replaced(network)} | _written(desired, facts)
    found: dict[str, Former] = {}
    for network in desired.networks:
        for name in listed:
            have = facts.value(f"policy/{name}")
            made = have and have["ours"] and have["network"] == network.name
            if made and name not in known and _is_of(network, have):
                for one in _judged(network, name, have, facts):
                    found[name] = one
    return [found[name] for name in sorted(found)]


def _replaced(network: VMNetwork) -> tuple[str, ...]:
    return network.spec.replaces.policies if network.spec.replaces else ()


def _written(desired: Desired, facts: Facts) -> set[str]:
    of_networks = {names.shared_name(n) for n in desired.networks}
    of_networks |= {name for n in desired.networks for name in names.written(n, selected_nodes(n, facts))}
    return of_networks | {
        name for p in desired.policies for name in names.written(p, nodes_of_policy(p, facts))
    }


def _is_of(network: VMNetwork, have: Mapping[str, Any]) -> bool:
    """Whether a policy speaks of the network's localnet, or its bridges, and of nothing else.

    One of a single node may speak of NICs too, whose MTU was raised for the network.
    """
    document, single = have["document"], _is_single(have)
    localnets = {*documents.mapped_pairs(document), *documents.unmapped_localnets(document)}
    interfaces = {*documents.present(document), *documents.switched_off(document)}
    if localnets != {network.name} and (localnets or not single or not interfaces):
        return False
    return bool(single and localnets) or interfaces <= {network.bridge, network.replaced_bridge}


def _is_single(have: Mapping[str, Any]) -> bool:
    return set(have["selector"]) == {policies.HOSTNAME}


def _judged(network: VMNetwork, name: str, have: Mapping[str, Any], facts: Facts) -> list[Former]:
    wrong = bool(documents.contradictions(have["document"], policies.final_document(network)))
    if _is_single(have):
        nodes = policies.selected(facts, have["selector"])
        if not all(applies_to(network, node, facts) for node in nodes):
            return []
        unsettled = any(enactments.state(facts, node, name) != "available" for node in nodes)
        return [Former(name, network, True, wrong or unsettled)]
    return [Former(name, network, False, wrong)] if have["selector"] in _selectors(network) else []


def _selectors(network: VMNetwork) -> list[Mapping[str, str]]:
    """What the network's policies for more than one node select by."""
    delivery = network.spec.delivery
    if not network.is_labelled or delivery is None or delivery.label is None:
        return [network.selector]
    return [{delivery.label: value} for value in (enforcing.MAPPED, enforcing.DONE)]
