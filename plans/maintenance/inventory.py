"""The inventory: what was there before the first effect of a run (procedure §4.3, H32).

Its five items, and a dump of each node's database, are read in one op and kept in the journal: immutable, hashed and
timestamped. A second run makes its own and can't overwrite this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plans import ovs
from plans.actions import Action, Done, Finished, Next, Perform, routine
from plans.facts import Facts
from plans.nmstate.policies import POLICY
from plans.ops import ListRequest, Record, SelectRequest
from plans.readings import cluster

ID = "inventory"


def action(nodes: Sequence[str]) -> Action:
    """The first action of every plan."""
    return Action(
        id=ID,
        routine="inventory@1",
        title="record networks, mappings, VMs with networks, a NAD backup and each node's database",
        args={"nodes": list(nodes)},
        no_undo="it changes nothing",
        rows=(1, 2),
    )


@routine("inventory@1")
def inventory(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Record everything at one go."""
    if done.has("inventory"):
        return Finished(f"kept in the state database; `ovsplan show {done.run} --inventory` prints it")
    kinds = (cluster.NAD, cluster.VM, cluster.VMI, ("v1", "Node"), POLICY)
    objects = tuple(ListRequest(*kind, optional=kind != ("v1", "Node")) for kind in kinds)
    dumps = tuple(SelectRequest(node, ovs.TABLES) for node in args["nodes"])
    return Perform(
        (
            Record(
                label="inventory",
                title="record NADs, VMs, nodes, policies and each node's database",
                requests=(*objects, *dumps),
            ),
        )
    )
