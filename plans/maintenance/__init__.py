"""What surrounds the changes of a node: the actions that every kind needs and no kind owns.

One file per idea: `inventory` (the before-image of all), `checkpoints` (preflight and verify), `cordon`,
`migrations` (evacuate, and VMs that return), `proof`. They are the same machinery as the kinds' actions: data, and a
pure step function.
"""

from plans.maintenance import checkpoints, cordon, inventory, migrations, proof

__all__ = ["checkpoints", "cordon", "inventory", "migrations", "proof"]
