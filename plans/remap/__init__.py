"""Remaps: how a localnet is moved to another bridge on a node, patch pair and all. One file per way.

`hot`, with VMs there: one guarded transaction moves the mapping and takes the old patch port away, `cur_cfg` is
awaited, the new port is inserted if ovn-controller has not done so, both ends are checked, and every MAC is announced.
`cold`, with no VM there: ovn-controller may keep the old pair until it recomputes, so one transaction takes both ends
away and inserts nothing. `policy`: nmstate writes the mapping, and what it does not do is done as in the other two.
`rescue` is what follows a policy that failed.
`before` is what all of them ask first. Which mappings change, and by which way, is in `plans.kinds.mapping`.
Sources: measured, docs/ovs-facts.md and docs/nmstate-facts.md.
"""

from plans.remap import before, cold, hot, policy, rescue

__all__ = ["before", "cold", "hot", "policy", "rescue"]
