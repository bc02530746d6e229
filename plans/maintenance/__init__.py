"""What surrounds the changes of a node: the actions that every kind needs and no kind owns.

One file per idea: `inventory` (the before-image of all), `checkpoints` (preflight and verify), `cordon`,
`ways` (how each VM leaves), `migrations` (evacuate, and VMs that return), `restarts` (those that leave so), `power` (stop and
start of a VM), `plugging` (cards of VMs that run on), `evictions` (the pods beside them), `reboot` (and settle), `proof` and `canary`. They are the same machinery as the kinds'
actions: data, and a pure step function.
"""

from plans.maintenance import (
    canary,
    checkpoints,
    cordon,
    evictions,
    inventory,
    migrations,
    proof,
    reboot,
    ways,
)

__all__ = [
    "canary",
    "checkpoints",
    "cordon",
    "evictions",
    "inventory",
    "migrations",
    "proof",
    "reboot",
    "ways",
]
