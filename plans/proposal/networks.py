"""Which NADs of a localnet a VMNetwork can declare, and who is on them.

The one invariant: what is declared is what is there; a NAD for which a VMNetwork has no words is told and left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from plans import nads
from plans.desired import load_desired, names
from plans.desired.models import Network, VMNetwork
from plans.desired.networks import config_of
from plans.facts import Facts, Unknown
from plans.guests import networks_of
from plans.networks import field_changes
from plans.proposal.draft import Draft

MOST = 20
"""How many VMs are listed in a comment: who they are is in the cluster, and changes."""


def with_networks(draft: Draft, facts: Facts, taken: dict[str, Mapping[str, Any]]) -> Draft:
    """The draft with each NAD of its localnet that can be declared as it is; `taken`: those declared so far."""
    bare = load_desired([(draft.file, draft.text)]).networks[0]
    declared: dict[str, Mapping[str, Any]] = {}
    told = []
    if isinstance(listed_nads := facts.get("cluster/nads"), Unknown):
        told.append(f"could not be read: {listed_nads.why}")
    for key in facts.value("cluster/networks", []):
        if (facts.value(f"network/{key}") or {}).get("localnet") != draft.localnet:
            continue
        config = facts.value(f"nad/{key}/config") or {}
        if why := _undeclarable(key, config, bare, facts, taken):
            told.append(f"{key}, left as it is: {why}")
            continue
        declared[key] = _fields(key, config)
        taken[key] = config
    told += [f"{key}: {why}; it may be on this localnet too" for key, why in _unclear(facts)]
    draft = replace(draft, networks=declared, attachments=attachments_of(draft.localnet, facts))
    if declared:
        draft = draft.saying(
            "networks", "NetworkAttachmentDefinitions as they are: declared, they are kept so"
        )
    if isinstance(vms := facts.get("cluster/vms"), Unknown):
        draft = draft.saying("attachments", f"VMs could not be read: {vms.why}")
    uses = len(draft.attachments)
    if uses:
        more = f"; {MOST} of {uses} are shown" if uses > MOST else ""
        draft = draft.saying("attachments", f"VMs on these networks, told and not declared{more}")
        draft = replace(draft, attachments=dict(list(draft.attachments.items())[:MOST]))
    return draft.saying("networks", *told)


def _unclear(facts: Facts) -> list[tuple[str, str]]:
    """NADs of which it can't be told what they are: they are in no list, only below their paths."""
    keys = facts.value("cluster/nads", [])
    return [(key, fact.why) for key in keys if isinstance(fact := facts.get(f"network/{key}"), Unknown)]


def _fields(key: str, config: nads.Config) -> dict[str, Any]:
    """A NAD as a VMNetwork declares it."""
    meant = nads.meaning(config)
    name = config.get("name")
    found = {
        "name": name if name != key.partition("/")[2] else None,
        "vlan": meant.get("vlanID"),
        "mtu": meant.get("mtu"),
        "subnets": meant.get("subnets"),
        "excludeSubnets": meant.get("excludeSubnets"),
        "allowPersistentIPs": meant.get("allowPersistentIPs"),
    }
    return {field_: value for field_, value in found.items() if value is not None}


def _undeclarable(
    key: str, config: nads.Config, network: VMNetwork, facts: Facts, taken: Mapping[str, nads.Config]
) -> str:
    """Why a NAD can't be declared without changing it; empty when it can."""
    about = facts.value(f"nad/{key}") or {}
    if about.get("generated"):
        return f"{about.get('keeper') or 'a UserDefinedNetwork'} makes it (H27)"
    if about.get("keeper"):
        return f"{about['keeper']} keeps it (H50)"
    if not nads.is_ours_to_judge(config):
        return f"it is of another plug-in (type {config.get('type', '')!r})"
    if faults := nads.faults(config, key):
        return "; ".join(faults)
    for other, its in taken.items():
        if _collides(config, its):
            return f"it cannot be declared beside {other}: their networks have one name in OVN (H25)"
    try:
        names.nad_address(key)
        wanted = config_of(network, key, Network.model_validate(_fields(key, config)))
    except ValueError as error:
        return f"it is not what a VMNetwork can say: {_first_line(error)}"
    differences = field_changes(config, nads.merged(wanted, config))
    return (
        f"a VMNetwork has no word for its {', '.join(name for name, _, _ in differences)}"
        if differences
        else ""
    )


def _first_line(error: ValueError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("Value error")), lines[0]).removeprefix(
        "Value error, "
    )


def _collides(one: nads.Config, other: nads.Config) -> bool:
    first, second = str(one.get("name")), str(other.get("name"))
    if first == second:
        return bool(nads.contradictions(one, other))
    return nads.folded(first) == nads.folded(second)


def attachments_of(localnet: str, facts: Facts) -> dict[str, dict[str, str]]:
    """`namespace/vm` → interface → NAD, of the VMs that run."""
    on = networks_of(facts, localnet)
    found: dict[str, dict[str, str]] = {}
    for vm in facts.value("cluster/vms", []):
        cards = (facts.value(f"vm/{vm}") or {}).get("macs", ())
        if mine := {card["interface"]: card["nad"] for card in cards if card["nad"] in on}:
            found[vm] = mine
    return found
