"""Worlds to test in, and the moves that people make in them, as plain requests to the ports."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from providers.ports import Create, Ref, World
from providers.twin import TwinWorld, init_world, open_world

DATABASE = "Open_vSwitch"
KUBEVIRT = "kubevirt.io/v1"
VMI = "VirtualMachineInstance"
MIGRATION = "VirtualMachineInstanceMigration"
OLD = "physnet:br-ex,vmnet:br-vmdata"
NEW = "physnet:br-ex,vmnet:br-phy"
LSP = "vlan224_ovn_localnet_port"
OUTER = f"patch-{LSP}-to-br-int"
INNER = f"patch-br-int-to-{LSP}"
TALKER = "02:00:00:00:e0:0b"
SILENT = "02:00:00:00:e0:0c"

SPEC: dict[str, Any] = {
    "networks": {"default/vlan224": {"localnet": "vmnet", "vlan": 224, "mtu": 9000}},
    "nodeDefaults": {
        "mappings": OLD,
        "nics": {"bond0": "up", "ens33": "up", "ens34": "up"},
        "bridges": {
            "br-ex": {
                "ports": {"patch-ex-to-phy": {"peer": "patch-phy-to-ex"}},
                "externalIds": {"bridge-uplink": "patch-ex-to-phy"},
            },
            "br-phy": {
                "ports": {
                    "ovs-bond": {"bond": ["ens33", "ens34"], "mode": "balance-slb"},
                    "patch-phy-to-ex": {"peer": "patch-ex-to-phy", "tag": 100},
                }
            },
            "br-vmdata": {"ports": {"bond0": {}}},
        },
    },
    "nodes": {"worker-01": {}, "worker-02": {}},
    "vms": {
        "default/talker": {
            "node": "worker-01",
            "networks": {"net": {"nad": "default/vlan224", "mac": TALKER}},
        },
        "default/silent": {
            "node": "worker-01",
            "networks": {"net": {"nad": "default/vlan224", "mac": SILENT}},
            "silent": True,
        },
    },
}


def spec(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(SPEC), **changes}


def make(folder: Path, **changes: Any) -> TwinWorld:
    init_world(spec(**changes), folder)
    return open_world(folder)


def transact(world: World, node: str, *operations: dict[str, Any], timeout: float = 10) -> list[Any]:
    return world.ovsdb(node).transact(DATABASE, list(operations), timeout=timeout)


def carry_out(world: World, node: str, *operations: dict[str, Any]) -> list[Any]:
    """A transaction that has to succeed, awaited until vswitchd has taken it in."""
    results = transact(world, node, *operations, BUMP)
    assert not any("error" in result for result in results if result), results
    settle(world, node)
    return results


def settle(world: World, node: str) -> None:
    (root,) = select(world, node, DATABASE)
    wait = {
        "op": "wait",
        "timeout": 1000,
        "table": DATABASE,
        "where": [],
        "columns": ["cur_cfg"],
        "until": "==",
        "rows": [{"cur_cfg": root["next_cfg"]}],
    }
    assert transact(world, node, wait) == [{}]


def select(world: World, node: str, table: str, name: str | None = None) -> list[Any]:
    where = [] if name is None else [["name", "==", name]]
    return list(transact(world, node, {"op": "select", "table": table, "where": where})[0]["rows"])


BUMP = {"op": "mutate", "table": DATABASE, "where": [], "mutations": [["next_cfg", "+=", 1]]}


def mapping(value: str) -> dict[str, Any]:
    change = [
        ["external_ids", "delete", ["set", ["ovn-bridge-mappings"]]],
        ["external_ids", "insert", ["map", [["ovn-bridge-mappings", value]]]],
    ]
    return {"op": "mutate", "table": DATABASE, "where": [], "mutations": change}


def without(world: World, node: str, bridge: str, port: str) -> dict[str, Any]:
    (row,) = select(world, node, "Port", port)
    out = [["ports", "delete", row["_uuid"]]]
    return {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]], "mutations": out}


def with_port(world: World, node: str, bridge: str, port: str) -> dict[str, Any]:
    (row,) = select(world, node, "Port", port)
    into = [["ports", "insert", row["_uuid"]]]
    return {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]], "mutations": into}


def patch_rows(bridge: str, port: str, peer: str) -> list[dict[str, Any]]:
    into = [["ports", "insert", ["named-uuid", "p"]]]
    row = {"name": port, "type": "patch", "options": ["map", [["peer", peer]]]}
    ids = ["map", [["ovn-localnet-port", LSP]]]
    held = {"name": port, "interfaces": ["named-uuid", "i"], "external_ids": ids}
    return [
        {"op": "insert", "table": "Interface", "uuid-name": "i", "row": row},
        {"op": "insert", "table": "Port", "uuid-name": "p", "row": held},
        {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]], "mutations": into},
    ]


def without_bridge(world: World, node: str, bridge: str) -> dict[str, Any]:
    (row,) = select(world, node, "Bridge", bridge)
    out = [["bridges", "delete", row["_uuid"]]]
    return {"op": "mutate", "table": DATABASE, "where": [], "mutations": out}


def bridge_of(world: TwinWorld, node: str, port: str) -> str | None:
    bridges = world.show()["nodes"][node]["bridges"]
    return next((name for name, bridge in bridges.items() if port in bridge["ports"]), None)


def port(world: TwinWorld, node: str, name: str) -> Any:
    bridge = bridge_of(world, node, name)
    return None if bridge is None else world.show()["nodes"][node]["bridges"][bridge]["ports"][name]


def move_port_first(world: TwinWorld, node: str, value: str, old: str) -> None:
    """The mapping and the old patch port in one transaction; OVN makes the new port."""
    carry_out(world, node, mapping(value), without(world, node, old, OUTER))
    world.tick(0.1)


def announce(world: World, node: str, bridge: str, mac: str, vlan: int = 224) -> Any:
    plain = mac.replace(":", "")
    frame = f"ffffffffffff{plain}80350001080006040003{plain}00000000{plain}00000000"
    what = f"in_port=controller packet={frame} actions=mod_vlan_vid:{vlan},normal"
    return world.shell(node).run(["ovs-ofctl", "packet-out", bridge, what], timeout=5)


def learned(world: World, node: str, bridge: str) -> dict[str, tuple[str, int]]:
    """The forwarding table: MAC to (port, age)."""
    out = world.shell(node).run(["ovs-appctl", "fdb/show", bridge], timeout=5).out
    rows = [line.split() for line in out.splitlines()[1:]]
    return {mac: (number, int(age)) for number, _, mac, age in rows}


def migrate(world: World, vm: str, name: str, target: str | None = None, namespace: str = "default") -> None:
    inside: dict[str, Any] = {"vmiName": vm}
    if target is not None:
        inside["addedNodeSelector"] = {"kubernetes.io/hostname": target}
    world.cluster.write(Create(Ref(KUBEVIRT, MIGRATION, name, namespace), {"spec": inside}))


def vmi(world: World, name: str, namespace: str = "default") -> Any:
    return world.cluster.get(Ref(KUBEVIRT, VMI, name, namespace))


def phase(world: World, name: str, namespace: str = "default") -> Any:
    found = world.cluster.get(Ref(KUBEVIRT, MIGRATION, name, namespace))
    return None if found is None else found.get("status", {}).get("phase")
