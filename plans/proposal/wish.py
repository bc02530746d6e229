"""What is asked for: a bridge to be on, one that goes, and which localnets that is about.

The one invariant: a wish that could be read in two ways is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from plans.desired import names
from plans.errors import InputError
from plans.networks import listed
from plans.proposal.seen import Seen


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for: a bridge to be on, one to be replaced by it, and the localnets that this is about."""

    bridge: str | None = None
    replaces: str | None = None
    localnets: tuple[str, ...] = ()


def check(wish: Wish, seen: Seen) -> None:
    """The options against each other and against what is there. Raises InputError."""
    if wish.replaces and not wish.bridge:
        raise InputError("--replace needs --bridge: the bridge that VM traffic is on instead")
    if wish.bridge and wish.bridge == wish.replaces:
        raise InputError(f"--replace {wish.replaces}: a bridge cannot replace itself")
    for option, name, rule in (
        ("--bridge", wish.bridge, names.bridge_to_ride_on),
        ("--replace", wish.replaces, names.bridge_to_replace),
    ):
        if name is not None:
            _fits(option, name, rule)
            if not seen.with_bridge(name):
                raise InputError(f"{option}: no node has a bridge {name!r}{_hint(name, seen)}")
    for localnet in wish.localnets:
        _fits("--localnet", localnet, names.localnet_name)
        if not wish.bridge and localnet not in seen.localnets:
            near = get_close_matches(localnet, seen.localnets, 1)
            hint = f"did you mean {near[0]}?" if near else f"they map {', '.join(seen.localnets) or 'none'}"
            raise InputError(
                f"--localnet: no node maps a localnet {localnet!r}; {hint} With --bridge it would be mapped"
            )


def _fits(option: str, name: str, rule: Callable[[str], str]) -> None:
    try:
        rule(name)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from error


def _hint(name: str, seen: Seen) -> str:
    known = sorted({b for n in seen.pairs for b in seen.facts.value(f"node/{n}/ovs")["bridges"]})
    near = get_close_matches(name, known, 1)
    unread = f". It cannot be told of {listed(sorted(seen.unread))}" if seen.unread else ""
    return (f"; did you mean {near[0]}?" if near else f"; they have {', '.join(known)}") + unread


def movers_of(wish: Wish, seen: Seen) -> list[str]:
    """The localnets that `--bridge` is about. Raises InputError when that is not clear."""
    if wish.bridge is None:
        return []
    if wish.localnets:
        return list(wish.localnets)
    riders: dict[str, set[str]] = {net: set(seen.homes(net).values()) for net in seen.localnets}
    for bridge in filter(None, (wish.replaces, wish.bridge)):
        if found := [net for net, homes in riders.items() if bridge in homes]:
            return found
    choices = seen.localnets or seen.named
    if len(choices) == 1:
        return choices
    if not choices:
        raise InputError(
            "no node maps a localnet of VMs, and no NAD names one: say with --localnet which one is to be mapped"
        )
    told = ", ".join(f"{net} ({', '.join(sorted(riders[net]))})" if net in riders else net for net in choices)
    raise InputError(
        f"--bridge {wish.bridge}: which localnet? There are {told}. Say it with --localnet, or --replace its bridge"
    )
