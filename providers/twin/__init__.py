"""The twin: a whole cluster below the ports, for a laptop without one, for rehearsals and for tests.

What belongs here: what Kubernetes, KubeVirt, Open vSwitch, OVN and a physical switch do, their known faults included,
one file per real controller, and the durable folder they live in. What does not: anything of ovsplan's. The twin
imports `providers.ports` and the standard library alone, so that it can disagree with the rest of the program.
"""

from providers.twin.spec import WorldError
from providers.twin.world import Call, Fault, TwinWorld, init_world, open_world

__all__ = ["Call", "Fault", "TwinWorld", "WorldError", "init_world", "open_world"]
