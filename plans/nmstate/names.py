"""The names of the policies that are written for what the files declare.

The one invariant: a name stands for one thing. Two things that come to one name are refused, when the files are read or,
where a node's name makes it, when the plan is made: the later would overwrite the earlier.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from plans.desired.models import NativePolicy, VMNetwork

LONGEST = 63
"""A policy's name becomes a label's value on its enactments."""

Thing = VMNetwork | NativePolicy


def shared_name(thing: Thing) -> str:
    """The policy for all nodes, today's and tomorrow's."""
    if isinstance(thing, NativePolicy):
        return thing.name
    given = thing.spec.delivery.policy if thing.spec.delivery else None
    return given or _short(f"ovsplan-{thing.name}".lower().replace("_", "-").strip("-."))


def node_name(thing: Thing, node: str) -> str:
    """The policy of one node while it is on its way."""
    return _short(f"{shared_name(thing)}-{node}")


def mapping_name(network: VMNetwork) -> str:
    """With labels: the policy of nodes whose mapping has moved and whose old bridge is still there."""
    return _short(f"{shared_name(network)}-mapping")


def _short(name: str) -> str:
    """A name that fits a label's value: cut, and told apart by a digest, when it is too long."""
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9].rstrip('-.')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def written(thing: Thing, nodes: Sequence[str] = ()) -> dict[str, str]:
    """The policies that may be written for a thing: name → the node that it is for, empty when it is for many."""
    if isinstance(thing, VMNetwork):
        if thing.spec.delivery and thing.spec.delivery.by == "ovsdb":
            return {}
        if thing.is_labelled:
            return {shared_name(thing): "", mapping_name(thing): ""}
    return {shared_name(thing): "", **{node_name(thing, node): node for node in nodes}}


@dataclass(frozen=True, slots=True)
class Clash:
    """A policy that one thing would write, and another too, or take away (`taken`). `nodes`: those that it is for."""

    name: str
    one: Thing
    other: Thing
    nodes: tuple[str, ...] = ()
    taken: bool = False

    def in_words(self, place: str) -> str:
        """The fault, and how to mend it, as said of `other`; `place` is where `one` is declared."""
        earlier = f"{self.one.kind} {self.one.name!r} ({place})"
        on = f", on {' and '.join(self.nodes)}" if self.nodes else ""
        if self.taken:
            return (
                f"policy {self.name!r} is taken away here, and is written for {earlier}{on}. Remove it here."
            )
        return (
            f"policy {self.name!r} would be written for this {self.other.kind} and for {earlier}{on}. "
            "Give one of them another name (spec.delivery.policy of a VMNetwork)."
        )


def clashes(
    things: Sequence[Thing], nodes_of: Callable[[Thing], Sequence[str]] = lambda thing: ()
) -> Iterator[Clash]:
    """The names that stand for two of these things, one for each later thing, in the order given."""
    names = [(thing, written(thing, nodes_of(thing))) for thing in things]
    first: dict[str, tuple[Thing, str]] = {}
    for thing, mine in names:
        clash = None
        for name, node in mine.items():
            one, its_node = first.setdefault(name, (thing, node))
            if one is not thing and clash is None:
                clash = Clash(name, one, thing, tuple(dict.fromkeys(filter(None, (its_node, node)))))
        if clash is not None:
            yield clash
    for thing in things:
        if isinstance(thing, VMNetwork) and thing.spec.replaces:
            for name in thing.spec.replaces.policies:
                one, node = first.get(name, (thing, ""))
                if one is not thing:
                    yield Clash(name, one, thing, (node,) if node else (), taken=True)
