"""The world file: read, checked and completed, before anything is written.

What belongs here: one file for each thing that a world describes, with the fields that a file may have there, their
defaults, and what they become. What does not: anything that a world does. docs/world.md tells users the same.
"""

from providers.twin.spec.behaviour import CONTROLLERS
from providers.twin.spec.cluster import NetworkSpec
from providers.twin.spec.fields import Default, Shape, WorldError, bytes_of
from providers.twin.spec.nodes import BridgeSpec, NodeSpec, PortSpec
from providers.twin.spec.vms import LiveUpdates, VmSpec, derived_mac
from providers.twin.spec.world import WorldSpec, read_spec

__all__ = [
    "CONTROLLERS",
    "BridgeSpec",
    "Default",
    "LiveUpdates",
    "NetworkSpec",
    "NodeSpec",
    "PortSpec",
    "Shape",
    "VmSpec",
    "WorldError",
    "WorldSpec",
    "bytes_of",
    "derived_mac",
    "read_spec",
]
