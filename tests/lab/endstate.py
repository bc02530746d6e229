"""What a migration leaves behind, as a value: of a lab with real daemons and of the twin of the same World.

Invariant: everything is read through the ports, by the same code for both; what only one of them can have is taken
out in one place (`comparable`), each with its reason.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from providers.ports import Body, Cluster, Create, MergePatch, Ref, World
from providers.twin import init_world, open_world

from .snapshot import normalise

POLICY = ("nmstate.io/v1", "NodeNetworkConfigurationPolicy")
ENACTMENT = ("nmstate.io/v1beta1", "NodeNetworkConfigurationEnactment")
STATE = ("nmstate.io/v1beta1", "NodeNetworkState")
VMI = ("kubevirt.io/v1", "VirtualMachineInstance")

_TABLES = ("Open_vSwitch", "Bridge", "Port", "Interface")
_SETTLING = 60.0
"""Virtual seconds for a twin's handlers to apply a policy and to tell the node's state once more."""

_REPORTS_OF_REAL_DAEMONS = {
    "Open_vSwitch": {
        *("db_version", "ovs_version", "system_type", "system_version", "datapath_types", "iface_types"),
        *("dpdk_initialized", "dpdk_version"),
    },
    "Interface": {"admin_state", "link_state", "link_speed", "duplex", "mtu"},
}
"""Columns in which a build or a veth pair describes itself."""

_SETTINGS_OF_NOBODY = {
    "Open_vSwitch": {"manager_options", "ssl"},
    "Bridge": {"auto_attach", "flood_vlans", "flow_tables", "ipfix", "mirrors", "netflow", "sflow"},
    "Port": {"bond_fake_iface", "cvlans", "fake_bridge", "mac", "protected", "qos"},
    "Interface": {
        *("bfd", "lldp", "ingress_policing_burst", "ingress_policing_rate"),
        *("ingress_policing_kpkts_burst", "ingress_policing_kpkts_rate"),
    },
}
"""Columns that the twin's schema lacks."""

_KEYS_OF_REAL_DAEMONS = (
    "ovn-remote",
    "ovn-encap-",
    "ovn-bridge-datapath-type",
    "ovn-chassis-idx-",
    "vlan-limit",
)
"""How a lab's ovn-controller finds its central, its tunnels and the userspace datapath, and its daemons' own marks."""

_TUNNEL = "ovn-chassis-id"
"""The mark of a port to another node; a twin's nodes have no overlay."""

_LAUNCHER = re.compile(r"(virt-launcher-.+)-[a-z0-9]{5}$")
"""A launcher pod's name ends at random."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Connections of NetworkManager's."""


def end_state(world: World) -> dict[str, Any]:
    """Databases, nodes, policies, enactments, the state that nmstate tells of each node, and the VMs."""
    cluster = world.cluster
    nodes = cluster.list("v1", "Node").items
    return {
        "databases": {_name(node): comparable(_database(world, _name(node))) for node in nodes},
        "nodes": {_name(node): _node(node) for node in nodes},
        "policies": {_name(each): _policy(each) for each in cluster.list(*POLICY).items},
        "enactments": {_name(each): _enactment(each) for each in cluster.list(*ENACTMENT).items},
        "states": {_name(each): _told(each) for each in cluster.list(*STATE).items},
        "vms": {_name(each): _vm(each) for each in cluster.list(*VMI).items},
    }


def twins_end_state(
    document: Mapping[str, Any],
    policies: Sequence[Body],
    labels: Mapping[str, str],
    desired: Path,
    folder: Path,
) -> dict[str, Any]:
    """The same after `desired` was applied to a twin of the World, whose nodes have these policies and labels."""
    place = folder / "twin"
    init_world(document, place)
    with open_world(place) as world:
        prepare(world.edit().cluster, policies, labels)
        world.tick(_SETTLING)
    argv = [sys.executable, "-m", "cli.main", "apply", str(desired), "--auto-approve"]
    where = ["--twin", str(place), "--state", str(folder / "twin.db")]
    done = subprocess.run([*argv, *where], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    with open_world(place) as world:
        world.tick(_SETTLING)
        return end_state(world.edit())


def prepare(cluster: Cluster, policies: Sequence[Body], labels: Mapping[str, str | None]) -> None:
    """Label all nodes, then make the policies."""
    for node in cluster.list("v1", "Node").items if labels else ():
        cluster.write(MergePatch(Ref("v1", "Node", _name(node)), {"metadata": {"labels": dict(labels)}}))
    for policy in policies:
        cluster.write(Create(Ref(*POLICY, _name(policy)), policy))


def comparable(tables: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """A node's database without what a lab or a twin has by its nature."""
    ports = {
        name: f"interface of {vm}"
        for name, row in tables["Interface"].items()
        if (vm := row["external_ids"].get("vm"))
    }
    tunnels = {name for name, row in tables["Port"].items() if _TUNNEL in row["external_ids"]}
    return {
        table: {
            ports.get(name, name): _row(row, table, ports, tunnels)
            for name, row in rows.items()
            if name not in tunnels
        }
        for table, rows in tables.items()
    }


def _row(row: Mapping[str, Any], table: str, ports: Mapping[str, str], tunnels: set[str]) -> dict[str, Any]:
    without = _REPORTS_OF_REAL_DAEMONS.get(table, set()) | _SETTINGS_OF_NOBODY[table]
    return {column: _value(value, ports, tunnels) for column, value in row.items() if column not in without}


def _value(value: Any, ports: Mapping[str, str], tunnels: set[str]) -> Any:
    match value:
        case dict():
            kept = {key: each for key, each in value.items() if not key.startswith(_KEYS_OF_REAL_DAEMONS)}
            return {key: _value(each, ports, tunnels) for key, each in kept.items()}
        case list():
            return sorted((_value(each, ports, tunnels) for each in value if each not in tunnels), key=str)
        case str():
            return _LAUNCHER.sub(r"\1-SUFFIX", _UUID.sub("UUID", ports.get(value, value)))
    return value


def _name(body: Body) -> str:
    return str(body["metadata"]["name"])


def _database(world: World, node: str) -> dict[str, Any]:
    select = [{"op": "select", "table": table, "where": []} for table in _TABLES]
    found = world.ovsdb(node).transact("Open_vSwitch", select, timeout=10)
    return normalise({table: result["rows"] for table, result in zip(_TABLES, found, strict=True)})


def _node(node: Body) -> dict[str, Any]:
    metadata, spec = node["metadata"], node.get("spec", {})
    return {
        "labels": dict(metadata.get("labels") or {}),
        "annotations": dict(metadata.get("annotations") or {}),
        "unschedulable": bool(spec.get("unschedulable")),
        "taints": spec.get("taints", []),
    }


def _policy(policy: Body) -> dict[str, Any]:
    metadata, status = policy["metadata"], policy.get("status", {})
    return {
        "spec": policy["spec"],
        "labels": metadata.get("labels", {}),
        "annotations": sorted(metadata.get("annotations", {})),
        "conditions": _conditions(status),
    }


def _enactment(enactment: Body) -> dict[str, Any]:
    status = enactment.get("status", {})
    return {"conditions": _conditions(status), "policyGeneration": status.get("policyGeneration")}


def _conditions(status: Body) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c.get("reason", "")) for c in status.get("conditions", ())}


def _told(state: Body) -> dict[str, Any]:
    told = state.get("status", {}).get("currentState", {})
    bridges = [each for each in told.get("interfaces", ()) if each["type"] == "ovs-bridge"]
    ports = {each["name"]: each.get("bridge", {}).get("port", []) for each in bridges}
    return {
        "mappings": told.get("ovn", {}).get("bridge-mappings", []),
        "bridges": {name: sorted(port["name"] for port in listed) for name, listed in ports.items()},
    }


def _vm(vmi: Body) -> dict[str, Any]:
    status = vmi.get("status", {})
    return {
        "node": status.get("nodeName"),
        "phase": status.get("phase"),
        "networks": vmi["spec"].get("networks"),
        "interfaces": [{"name": each["name"], "mac": each["mac"]} for each in status.get("interfaces", ())],
    }
