"""What other people do to a world while a job of ours is under way, as plain requests to the ports."""

from __future__ import annotations

from typing import Any

from twin.worlds import BUMP, KUBEVIRT, VMI, mapping, migrate, transact, without

from providers.ports import Create, MergePatch, Ref
from providers.twin import TwinWorld

KEY = "ovn-bridge-mappings"


def small_world(**changes: Any) -> dict[str, Any]:
    """Two nodes with a talking and a silent VM each, one node of somebody else's with none, and a foreign pair."""
    vms = {
        f"default/{name}-{number}": {
            "node": f"worker-0{number}",
            "networks": {"net": {"nad": "default/vlan224", "mac": f"02:00:00:00:e0:{kind}{number}"}},
            "silent": name == "silent",
        }
        for number in (1, 2)
        for kind, name in (("a", "talker"), ("b", "silent"))
    }
    spec = {
        "ovn": "23.03.1",
        "networks": {"default/vlan224": {"localnet": "vmnet", "vlan": 224, "mtu": 9000}},
        "nodeDefaults": {
            "labels": {"node-role.kubernetes.io/worker": ""},
            "mappings": "physnet:br-ex,vmnet:br-vmdata,storage:br-storage",
            "nics": {"bond0": "up", "ens33": "up", "ens34": "up", "ens40": "up"},
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
                "br-storage": {"ports": {"ens40": {}}},
            },
        },
        "nodes": {"worker-01": {}, "worker-02": {}},
        "vms": vms,
    }
    return {**spec, **changes}


NETWORK = """\
apiVersion: ovsplan.io/v1alpha1
kind: VMNetwork
metadata: {name: vmnet}
spec:
  bridge: br-phy
  replaces: {bridge: br-vmdata}
"""

ROLLOUT = """\
apiVersion: ovsplan.io/v1alpha1
kind: Rollout
metadata: {name: tonight}
spec:
  order: [worker-01, worker-02]
  evacuate: {default: live-migrate, return: origin}
"""


def pairs(world: TwinWorld, node: str) -> dict[str, str]:
    """The bridge mappings of a node."""
    text = str(world.show()["nodes"][node]["mapping"])
    return dict(pair.split(":", 1) for pair in text.split(",") if pair)


def set_pair(world: TwinWorld, node: str, localnet: str, bridge: str) -> None:
    """Map a localnet, and keep the other pairs."""
    wanted = {**pairs(world, node), localnet: bridge}
    text = ",".join(f"{name}:{to}" for name, to in wanted.items())
    assert not any(
        "error" in result for result in transact(world.edit(), node, mapping(text), BUMP) if result
    )


def cordon(world: TwinWorld, node: str, *, on: bool = True) -> None:
    patch = {"spec": {"unschedulable": True if on else None}}
    world.edit().cluster.write(MergePatch(Ref("v1", "Node", node), patch))


def delete_port(world: TwinWorld, node: str, port: str) -> bool:
    """Take a port out of whichever bridge it is on; whether there was one."""
    for bridge, shown in world.show()["nodes"][node]["bridges"].items():
        if port in shown["ports"]:
            transact(world.edit(), node, without(world.edit(), node, bridge, port), BUMP)
            return True
    return False


def move_vm(world: TwinWorld, vm: str, node: str, name: str) -> None:
    """Live-migrate a VM by hand, and await its arrival."""
    namespace, _, short = vm.partition("/")
    migrate(world.edit(), short, name, node, namespace)
    world.tick(30)


def add_vm(world: TwinWorld, name: str, node: str, mac: str, like: str) -> None:
    """Start a VM on a node; it is like another of the same namespace but for its MAC."""
    cluster = world.edit().cluster
    model: Any = cluster.get(Ref(KUBEVIRT, VMI, like, "default"))
    interfaces = [dict(i, mac=mac) if i["name"] == "net" else dict(i) for i in model["status"]["interfaces"]]
    devices = [
        dict(i, macAddress=mac) if i["name"] == "net" else i
        for i in model["spec"]["domain"]["devices"]["interfaces"]
    ]
    spec = {**model["spec"], "domain": {**model["spec"]["domain"], "devices": {"interfaces": devices}}}
    labels = {"kubevirt.io/nodeName": node, "vm.kubevirt.io/name": name}
    status = {**model["status"], "nodeName": node, "interfaces": interfaces, "activePods": None}
    made = cluster.write(
        Create(
            Ref(KUBEVIRT, VMI, name, "default"),
            {"metadata": {"labels": labels}, "spec": spec, "status": status},
        )
    )
    (old,) = [
        pod
        for pod in cluster.list("v1", "Pod").items
        if pod["metadata"]["labels"]["vm.kubevirt.io/name"] == like
    ]
    pod = {
        "metadata": {
            "labels": {
                **labels,
                "kubevirt.io": "virt-launcher",
                "kubevirt.io/created-by": made["metadata"]["uid"],
            },
            "annotations": old["metadata"].get("annotations", {}),
        },
        "spec": {"nodeName": node},
        "status": {"phase": "Pending"},
    }
    running = cluster.write(Create(Ref("v1", "Pod", f"virt-launcher-{name}-abcde", "default"), pod))
    active = {"status": {"activePods": {running["metadata"]["uid"]: node}}}
    cluster.write(MergePatch(Ref(KUBEVIRT, VMI, name, "default"), active))
    world.tick(2)
