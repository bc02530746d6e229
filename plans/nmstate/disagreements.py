"""Policies of the files that disagree: two that one node would obey each in its turn, for ever (H04).

The one invariant: such a pair never reaches a plan. What their nodeSelectors alone tell is refused when the files are read,
the rest when the nodes' labels are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from plans.desired.models import NativePolicy
from plans.nmstate import documents


@dataclass(frozen=True, slots=True)
class Disagreement:
    """What two policies say otherwise of the same nodes. `nodes` is empty when it is of whatever node both select."""

    one: NativePolicy
    other: NativePolicy
    reasons: tuple[str, ...]
    nodes: tuple[str, ...] = ()

    def in_words(self, place: str) -> str:
        """The fault, and how to mend it, as said of `other`; `place` is where `one` is declared."""
        nodes = f"both select {', '.join(self.nodes)}" if self.nodes else "both select the same nodes"
        return (
            f"policy {self.other.name!r} says otherwise than policy {self.one.name!r} ({place}), and {nodes}: "
            f"{'; '.join(self.reasons)}. Each would be obeyed in its turn (H04). Change one of them, or narrow its nodeSelector."
        )


def by_selectors(policies: Sequence[NativePolicy]) -> Iterator[Disagreement]:
    """Those of which the files alone tell: whatever node the one selects, the other selects too."""
    for one, other, reasons in _pairs(policies):
        first, second = one.spec.node_selector.items(), other.spec.node_selector.items()
        if first <= second or second <= first:
            yield Disagreement(one, other, reasons)


def on_nodes(
    policies: Sequence[NativePolicy], nodes_of: Callable[[NativePolicy], Sequence[str]]
) -> Iterator[Disagreement]:
    """Those that show on some node."""
    for one, other, reasons in _pairs(policies):
        theirs = nodes_of(other)
        if both := tuple(node for node in nodes_of(one) if node in theirs):
            yield Disagreement(one, other, reasons, both)


def _pairs(
    policies: Sequence[NativePolicy],
) -> Iterator[tuple[NativePolicy, NativePolicy, tuple[str, ...]]]:
    for one, other in combinations(policies, 2):
        reasons = documents.contradictions(one.spec.desired_state, other.spec.desired_state)
        if reasons and one.name != other.name:
            yield one, other, tuple(reasons)
