"""Changes: what differs between desired and observed, before anybody says by which means it is made.

Neutral on purpose: a delivery turns a change into actions. `data` is what the kind needs for that, as plain JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from plans.actions import Action
from plans.checks import Check
from plans.desired import Desired
from plans.facts import Facts

Verb = Literal["+", "~", "-", "-/+"]
Shape = Literal["hot", "cold", "orphaned"]
"""How a node's VM traffic moves: hot with its VMs there, cold after they left, at once when they are dark already."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """That a change moves VM traffic: of which localnet, from which bridge (None: none yet) to which.

    `dark` says why that traffic reaches nobody as things stand; empty when it may.
    """

    localnet: str
    source: str | None
    bridge: str
    dark: str = ""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One resource on one node that is not as desired. `depends` names the changes that must be made first.

    `traffic` is set when VMs notice; the bracket of the node is shaped by it.
    """

    address: str
    kind: str
    node: str
    verb: Verb
    before: str
    after: str
    why: str
    depends: tuple[str, ...] = ()
    traffic: Traffic | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Blocked:
    """A change that is wanted and can't be made, with every reason by name."""

    address: str
    node: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Same:
    """A resource that is as desired. `note` says what could not be told."""

    address: str
    node: str
    note: str = ""


Outcome = Change | Blocked | Same


@dataclass(frozen=True, slots=True)
class Context:
    """What a fragment may look at besides its change. `away`: VMs that have left the node by then."""

    facts: Facts
    shape: Shape
    away: frozenset[str] = frozenset()


Fragment = Callable[[Change, Context], Action]


@dataclass(frozen=True, slots=True)
class Kind:
    """Everything about one kind of resource; see `plans/kinds/`. All pure.

    `fragments`: delivery name → how that delivery makes a change of this kind. `diff(desired, node, facts)`: what is
    desired of it on a node, against the facts, in a stable order. `preflight(change, facts)`: the checks without which
    the change's node is not touched at all. `verify(change, context)`: those that prove the change, once its node is
    done.
    """

    name: str
    fragments: Mapping[str, Fragment]
    diff: Callable[[Desired, str, Facts], list[Outcome]]
    preflight: Callable[[Change, Facts], tuple[Check, ...]]
    verify: Callable[[Change, Context], tuple[Check, ...]]
