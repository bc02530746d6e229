"""Changes: what differs between desired and observed, before anybody says by which means it is made.

Neutral on purpose: a delivery turns a change into actions. `data` is what the kind needs for that, as plain JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from plans.actions import Action
from plans.checks import Check
from plans.desired import Desired
from plans.document import Finding
from plans.facts import Facts

Verb = Literal["+", "~", "-", "-/+"]
Shape = Literal["hot", "cold", "orphaned", "new"]
"""How a node's VM traffic moves: hot with its VMs there, cold after they left, at once when they are dark already.

New: no VM is on the localnet, which is mapped to nothing yet.
"""

NOTHING_TO_LOSE: tuple[Shape, ...] = ("orphaned", "new")
"""The shapes in which no VM has traffic to lose, so that none is moved away first."""

Phase = Literal["prologue", "node", "epilogue"]
"""When a change is made: before the first node, in its node's bracket, or after the last node."""


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
    """One resource that is not as desired: on one node, or of the cluster (`node` is empty then).

    `depends` names the changes that must be made first. `traffic` is set when VMs notice; the bracket of the node is
    shaped by it. `bridge`: the bridge of the node that it is made on, whose owner decides the delivery. `localnets`: the
    VMNetworks that want it. `nics`: those of the node that are themselves changed, and must be known to the delivery. `vms`: those that notice a change of the cluster.
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
    bridge: str = ""
    localnets: tuple[str, ...] = ()
    nics: tuple[str, ...] = ()
    phase: Phase = "node"
    vms: tuple[str, ...] = ()


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
class Choice:
    """By which delivery a change is made, and why by that one."""

    by: str
    why: str


@dataclass(frozen=True, slots=True)
class Context:
    """What a fragment may look at besides its change. `away`: VMs that have left the node by then."""

    facts: Facts
    shape: Shape
    away: frozenset[str] = frozenset()
    desired: Desired = field(default_factory=lambda: Desired(()))


@dataclass(frozen=True, slots=True)
class Survey:
    """What the nodes' diffs came to, for kinds of the cluster. Addresses lead to changes, nodes to reasons.

    `held`: for each localnet, the nodes that it selects and that will not be as desired when the nodes are done.
    `choices`: address of a node's change → its delivery.
    """

    nodes: tuple[str, ...]
    changes: tuple[Change, ...]
    held: Mapping[str, Mapping[str, str]]
    choices: Mapping[str, Choice]


Fragment = Callable[[Change, Context], Action]


@dataclass(frozen=True, slots=True)
class Kind:
    """Everything about one kind of resource; see `plans/kinds/`. All pure.

    `fragments`: delivery name → how that delivery makes a change of this kind. `diff(desired, node, facts)`: what is
    desired of it on a node, against the facts, in a stable order. `preflight(change, facts)`: the checks without which
    the change's node is not touched at all. `verify(change, context)`: those that prove the change, once its node is
    done. `views(desired, node)`: what has to be read of a node for it, besides what every plan reads.
    """

    name: str
    fragments: Mapping[str, Fragment]
    diff: Callable[[Desired, str, Facts], list[Outcome]]
    preflight: Callable[[Change, Facts], tuple[Check, ...]]
    verify: Callable[[Change, Context], tuple[Check, ...]]
    views: Callable[[Desired, str], tuple[str, ...]] = lambda desired, node: ()


def _nothing_found(desired: Desired, facts: Facts) -> list[Finding]:
    return []


@dataclass(frozen=True, slots=True)
class ClusterKind:
    """Everything about one kind of resource that belongs to no node: an object of the Kubernetes API. All pure.

    `diff(desired, facts, survey)`: as a Kind's; each Change says in which `phase` it is made. `fragment`: its action.
    `verify`: the checks that must still hold at the end of the run. `hazards`: what is dangerous about what is desired.
    `views`: what has to be read for it, besides what every plan reads. `afterwards(desired, facts, changes)`: a sentence for
    each thing that a person has to know once these changes are made.
    """

    name: str
    fragment: Fragment
    diff: Callable[[Desired, Facts, Survey], list[Outcome]]
    verify: Callable[[Change, Context], tuple[Check, ...]]
    hazards: Callable[[Desired, Facts], list[Finding]] = _nothing_found
    views: Callable[[Desired], tuple[str, ...]] = lambda desired: ()
    afterwards: Callable[[Desired, Facts, Sequence[Change]], tuple[str, ...]] = (
        lambda desired, facts, changes: ()
    )
