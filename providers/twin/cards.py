"""What a network card is asked for and takes: its MTU.

Invariant: a card takes any MTU up to its own limit and refuses a greater one, keeping what it has. The MTU of a card of
which the world file says nothing is not known, and reported by nobody, until somebody sets it.
"""

from __future__ import annotations

from collections.abc import Mapping

from providers.twin.stage import Stage

MEMORY = "cards"
MOST = 9000


def mtus(stage: Stage, node: str) -> Mapping[str, int]:
    """The MTU of each card of which it is known."""
    kept = stage.recall(MEMORY, node) or {}
    return {name: card["mtu"] for name, card in kept.items() if "mtu" in card}


def most(stage: Stage, node: str) -> Mapping[str, int]:
    """The greatest MTU that each card takes."""
    kept = stage.recall(MEMORY, node) or {}
    return {name: kept.get(name, {}).get("most", MOST) for name in stage.nics(node)}


def ask(stage: Stage, node: str, name: str, mtu: int) -> None:
    """Set a card's MTU, if it takes it."""
    if mtu <= most(stage, node).get(name, 0):
        kept = stage.recall(MEMORY, node) or {}
        stage.keep(MEMORY, node, {**kept, name: {**kept.get(name, {}), "mtu": mtu}})
