"""How a world behaves: which of its controllers run, how long things take, and which hosts outside of it answer."""

from __future__ import annotations

from providers.twin.spec.fields import Field, Shape

CONTROLLERS = ("scheduler", "kubelet", "kubevirt", "ovn-controller", "vswitchd", "forwarding", "ovn-kubernetes", "nmstate-operator",
               "networkmanager", "dynamic-networks")  # fmt: skip
_OFF_UNLESS_ASKED_FOR = ("dynamic-networks",)

_CONTROLLERS = Shape(
    "spec.controllers", {name: "off" if name in _OFF_UNLESS_ASKED_FOR else "on" for name in CONTROLLERS}
)
_TIMINGS = Shape(
    "spec.timings",
    {
        "vswitchd": 0.003,
        "ovnController": 0.002,
        "migration": 4,
        "macAgeing": 300,
        "start": 10,
        "stop": 5,
        "reboot": 120,
        "nodeReady": 10,
        "podsReady": 20,
    },
)
_PROBES = Shape("spec.probes", {"gateway": "up", "dns": "up"})


def read_controllers(field: Field) -> dict[str, bool]:
    """Which controllers run."""
    return {name: item.switch() for name, item in field.fields(_CONTROLLERS).items()}


def read_timings(field: Field) -> dict[str, float]:
    """Seconds."""
    return {name: item.seconds() for name, item in field.fields(_TIMINGS).items()}


def read_probes(field: Field) -> dict[str, str]:
    """`up` or `down`."""
    return {name: item.one_of("up", "down") for name, item in field.fields(_PROBES).items()}
