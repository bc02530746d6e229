"""Hazards: what goes wrong in the manual procedure, found in a plan before it runs.

Each hazard has an id that never changes. One file per theme; each finder is a pure function of what is desired, what
is there, and the brackets that were made. `block` stops the plan unless the user accepts the id; `warn` is shown and
recorded. Hazards that cannot arise, because of how the plan is made, need no finder.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from plans.bracket import Bracket
from plans.desired import Desired
from plans.diff import ClusterDiff, NodeDiff
from plans.document import Finding
from plans.errors import InputError
from plans.facts import Facts
from plans.kinds import CLUSTER_KINDS


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a finder looks at."""

    desired: Desired
    facts: Facts
    diffs: Sequence[NodeDiff]
    brackets: Sequence[Bracket]
    cluster: ClusterDiff = field(default_factory=ClusterDiff)


Finder = Callable[[Scene], list[Finding]]


def lint(scene: Scene, accepted: Collection[str] = (), besides: Sequence[Finding] = ()) -> list[Finding]:
    """Every hazard found here or `besides`, sorted; those whose id is accepted say so.

    Raises InputError when an accepted id is no hazard at all.
    """
    from plans.hazards import budgets, handlers, nics, nodes, policies, switches, vms

    finders: tuple[Finder, ...] = (
        *switches.FINDERS,
        *policies.FINDERS,
        *handlers.FINDERS,
        *nodes.FINDERS,
        *vms.FINDERS,
        *budgets.FINDERS,
        *nics.FINDERS,
    )
    _known(accepted)
    of_kinds = [f for kind in CLUSTER_KINDS.values() for f in kind.hazards(scene.desired, scene.facts)]
    found = sorted({*besides, *of_kinds, *(finding for finder in finders for finding in finder(scene))})
    return [replace(f, accepted=f.level == "block" and f.id in accepted) for f in found]


HIGHEST = 65


def _known(accepted: Collection[str]) -> None:
    for name in accepted:
        if not (len(name) == 3 and name[0] == "H" and name[1:].isdigit() and 1 <= int(name[1:]) <= HIGHEST):
            raise InputError(
                f"--accept-hazard {name}: hazards are H01 to H{HIGHEST}; the plan names those that it found"
            )
