"""The whole file: its head, its `spec`, and the world that they describe.

Invariant: a `WorldSpec` is whole. Defaults are filled in, every name refers to something in the file, and what is
wrong with a file is found here and names the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from providers.twin.spec.behaviour import read_controllers, read_probes, read_timings
from providers.twin.spec.cluster import NetworkSpec, read_apis, read_networks, read_objects
from providers.twin.spec.fields import Default, Field, Shape, WorldError
from providers.twin.spec.nodes import NodeSpec, read_nodes, read_ovn
from providers.twin.spec.vms import LiveUpdates, VmSpec, read_limits, read_live_updates, read_vms

_HEAD = Shape(
    "World",
    {name: Default.REQUIRED for name in ("apiVersion", "kind", "metadata", "spec")},
)
_METADATA = Shape("metadata", {"name": Default.REQUIRED})
_SPEC = Shape(
    "spec",
    {
        "seed": 1,
        "start": "2026-01-15T01:00:00Z",
        "ovn": "23.03.1",
        "ovnStarted": 3600,
        "nmstate": Default.NOTHING,
        "controllers": Default.NOTHING,
        "timings": Default.NOTHING,
        "limits": Default.NOTHING,
        "networks": Default.NOTHING,
        "nodeDefaults": Default.NOTHING,
        "nodes": Default.REQUIRED,
        "vms": Default.NOTHING,
        "kubevirt": Default.NOTHING,
        "apis": Default.NOTHING,
        "multusIsolation": "off",
        "probes": Default.NOTHING,
        "objects": Default.NOTHING,
    },
)
_OF_EACH_NODE = ("ovn", "ovnStarted", "nmstate")


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """A world. `start` is in seconds since the epoch, `timings` are in seconds."""

    name: str
    seed: int
    start: float
    ovn: str
    controllers: Mapping[str, bool]
    timings: Mapping[str, float]
    limits: Mapping[str, int]
    networks: tuple[NetworkSpec, ...]
    nodes: tuple[NodeSpec, ...]
    vms: tuple[VmSpec, ...]
    apis: Mapping[str, bool]
    multus_isolation: bool
    probes: Mapping[str, str]
    objects: tuple[Mapping[str, Any], ...]
    live_updates: LiveUpdates


def read_spec(document: Mapping[str, Any], name: str) -> WorldSpec:
    """Check a world file: the whole document, or its `spec` alone (the name is then `name`). Raises WorldError."""
    if not isinstance(document, Mapping):
        raise WorldError(f"expected a mapping, found {document!r}")
    whole = "spec" in document or "kind" in document
    if whole:
        name = _read_head(document)
    fields = Field(document.get("spec") if whole else document, ("spec",) if whole else ()).fields(_SPEC)
    networks = read_networks(fields["networks"])
    nodes = read_nodes(
        fields["nodes"], fields["nodeDefaults"], {name: fields[name] for name in _OF_EACH_NODE}
    )
    apis = read_apis(fields["apis"], nmstate=fields["nmstate"].given)
    vms = fields["vms"]
    if vms.value and not apis["kubevirt"]:
        raise vms.fail("a world without KubeVirt (apis.kubevirt: absent) has no VMs")
    return WorldSpec(
        name,
        fields["seed"].integer(),
        fields["start"].instant(),
        read_ovn(fields["ovn"]),
        read_controllers(fields["controllers"]),
        read_timings(fields["timings"]),
        read_limits(fields["limits"]),
        networks,
        nodes,
        read_vms(vms, networks, nodes),
        apis,
        fields["multusIsolation"].switch(),
        read_probes(fields["probes"]),
        read_objects(fields["objects"]),
        read_live_updates(fields["kubevirt"]),
    )


def _read_head(document: Mapping[str, Any]) -> str:
    fields = Field(document, ()).fields(_HEAD)
    for name, want in (("apiVersion", "ovsplan.io/v1alpha1"), ("kind", "World")):
        if fields[name].value != want:
            raise fields[name].fail(f"expected {want}, found {fields[name].value!r}")
    if fields["spec"].value is None:
        raise fields["spec"].fail("missing")
    named = fields["metadata"].fields(_METADATA)["name"]
    if not named.given:
        raise named.fail("missing")
    return named.text()
