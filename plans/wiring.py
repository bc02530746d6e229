"""A VM's network cards, as its template writes them: what is there, what is wanted, and the two lists that say it.

The one invariant: read, merge, write. Whatever else the template says of its networks and interfaces survives, in its
order; a card that is declared absent and one that is not there are the same. Source: docs/desired-state.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plans.facts import Facts, Json
from plans.readings.machines import nad_of

POD_NETWORK = "default"
_BINDINGS = ("bridge", "masquerade", "sriov", "passt", "slirp", "macvtap", "binding")


@dataclass(frozen=True, slots=True)
class Card:
    """One wanted card; without `nad` it is to be gone. Without `mac` any address is right."""

    name: str
    nad: str
    mac: str = ""

    def told(self) -> str:
        """As a sentence says it."""
        return f"{self.nad}{f', {self.mac}' if self.mac else ''}" if self.nad else "absent"

    def plain(self) -> dict[str, str]:
        """As the arguments of an action keep it; `card_of` reads it again."""
        return {"name": self.name, "nad": self.nad, "mac": self.mac}


def card_of(plain: Mapping[str, str]) -> Card:
    """The card that `plain` wrote."""
    return Card(plain["name"], plain["nad"], plain["mac"])


def template_of(vm: str, facts: Facts) -> Template:
    """The template of a VM, as it was read."""
    there = facts.value(f"machine/{vm}/template") or {"networks": [], "interfaces": [], "implicit": False}
    return Template(vm.partition("/")[0], there["networks"], there["interfaces"], there["implicit"])


@dataclass(frozen=True, slots=True)
class Template:
    """The two lists of a VM's template. `implicit`: it lists no interface, so KubeVirt adds one on the pod network."""

    namespace: str
    networks: Sequence[Json]
    interfaces: Sequence[Json]
    implicit: bool = False

    def network(self, name: str) -> Mapping[str, Any] | None:
        return next((n for n in self.networks if n["name"] == name), None)

    def interface(self, name: str) -> Mapping[str, Any] | None:
        return next((i for i in self.interfaces if i["name"] == name), None)

    def nad(self, name: str) -> str:
        """The NAD of a card that is not declared absent; empty when there is none."""
        network, interface = self.network(name), self.interface(name) or {}
        return nad_of(network, self.namespace) if network and interface.get("state") != "absent" else ""

    def has(self, card: Card) -> bool:
        """Whether the template says of a card what is wanted."""
        if not card.nad:
            return not self.nad(card.name)
        interface = self.interface(card.name) or {}
        address = str(interface.get("macAddress", "")).lower()
        return self.nad(card.name) == card.nad and "bridge" in interface and card.mac in ("", address)

    def told(self, card: Card) -> str:
        """What it says of a card now, told by what is wanted otherwise."""
        nad, interface = self.nad(card.name), self.interface(card.name) or {}
        if nad != card.nad or not nad:
            return nad or "absent"
        address = interface.get("macAddress") or "any MAC"
        return f"{nad}, {address}" if "bridge" in interface else f"{nad}, not bridged"


def as_it_is(name: str, template: Template) -> Card:
    """A card as the template has it now."""
    address = str((template.interface(name) or {}).get("macAddress", "")).lower()
    return Card(name, template.nad(name), address)


def rewired(template: Template, cards: Sequence[Card], *, plug: bool = False) -> Template:
    """The template with the cards as they are wanted.

    `plug`: its guest runs on, so a card is not taken out but declared absent, which is how KubeVirt unplugs it.
    """
    networks, interfaces = list(template.networks), list(template.interfaces)
    if template.implicit and not interfaces and any(card.nad for card in cards):
        # With the first interface that is listed, the one that nobody listed would be gone.
        networks.insert(0, {"name": POD_NETWORK, "pod": {}})
        interfaces.insert(0, {"name": POD_NETWORK, "masquerade": {}})
    for card in cards:
        if template.has(card):
            continue
        if card.nad:
            _put(networks, {"name": card.name, "multus": {"networkName": card.nad}})
            _put(interfaces, _interface(template.interface(card.name) or {}, card))
        elif plug:
            _put(interfaces, {**(template.interface(card.name) or {"name": card.name}), "state": "absent"})
        else:
            networks = [n for n in networks if n["name"] != card.name]
            interfaces = [i for i in interfaces if i["name"] != card.name]
    return Template(template.namespace, networks, interfaces, template.implicit)


def _interface(there: Mapping[str, Any], card: Card) -> dict[str, Any]:
    kept = {key: value for key, value in there.items() if key not in _BINDINGS}
    if kept.get("state") == "absent":
        del kept["state"]
    address = {"macAddress": card.mac} if card.mac else {}
    return {**kept, "name": card.name, "bridge": there.get("bridge", {}), **address}


def _put(entries: list[Json], entry: Mapping[str, Any]) -> None:
    at = next((i for i, e in enumerate(entries) if e["name"] == entry["name"]), None)
    if at is None:
        entries.append(entry)
    else:
        entries[at] = entry
