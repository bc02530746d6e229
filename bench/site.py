"""A large cluster's objects, made up at the size that real ones have.

Invariant: pure; an object is as long as its like in a real cluster (a node or a VM some kB, the state that nmstate
reports of a node some 30 kB), for what is read of it has to be found among the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

WORKER = {"node-role.kubernetes.io/worker": ""}
NETWORKS = 4
POLICY = "br-vmdata"
NODE_VERSION = "5.14.0-570.el9.x86_64"
_TIME = "2026-01-15T01:00:00Z"
_ROUTE = {"destination": "0.0.0.0/0", "next-hop-interface": "br-ex", "next-hop-address": "192.168.255.254"}
_IMAGES, _PODS_SEEN, _FEATURES = 20, 12, 24
_MEMORY = "67108864Ki"


def node_name(number: int) -> str:
    """`worker-0001` and so on."""
    return f"worker-{number:04d}"


def network(number: int) -> Object:
    """One of a few networks on the localnet vmnet; the first is VLAN 224."""
    config = {
        "cniVersion": "0.4.0", "type": "ovn-k8s-cni-overlay", "topology": "localnet", "mtu": 9000,
        "name": f"vlan{223 + number}", "physicalNetworkName": "vmnet", "vlanID": 223 + number,
        "netAttachDefName": f"default/vlan{223 + number}",
    }  # fmt: skip
    metadata = {"namespace": "default", "name": f"vlan{223 + number}"}
    return {
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": metadata, "spec": {"config": json.dumps(config)},
    }  # fmt: skip


def node(number: int) -> Object:
    """A worker with its images, addresses and conditions."""
    name = node_name(number)
    kinds = ("MemoryPressure", "DiskPressure", "PIDPressure")
    conditions = [_condition(kind, "False", f"KubeletHasNo{kind}") for kind in kinds]
    images = [_image(image) for image in range(_IMAGES)]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {**WORKER, "kubernetes.io/hostname": name, "kubernetes.io/arch": "amd64", **_features()},
            "annotations": {"ovn.openshift.io/node-chassis": name, "csi.volume.kubernetes.io/nodeid": "x" * 200},
        },
        "status": {
            "addresses": [{"type": "InternalIP", "address": f"192.168.{number >> 8}.{number & 255}"}],
            "conditions": [*conditions, _condition("Ready", "True", "KubeletReady")],
            "allocatable": {"cpu": "63500m", "memory": _MEMORY, "pods": "250"},
            "capacity": {"cpu": "64", "memory": "68157440Ki", "pods": "250"},
            "images": images,
            "nodeInfo": {
                "kernelVersion": NODE_VERSION, "osImage": "Red Hat Enterprise Linux CoreOS", "architecture": "amd64",
                "bootID": f"boot-{number}", "containerRuntimeVersion": "cri-o://1.33", "kubeProxyVersion": "",
                "kubeletVersion": "v1.33.4", "machineID": f"machine-{number}", "operatingSystem": "linux",
                "systemUUID": f"system-{number}",
            },
        },
    }  # fmt: skip


def machine(number: int, at: int) -> tuple[Object, Object]:
    """A VM, and it running on a node: one network on the localnet, guest-agent and all."""
    name, uid = f"vm-{number:05d}", f"00000000-0000-4000-8000-{number:012d}"
    spec = _guest(number)
    mac = spec["domain"]["devices"]["interfaces"][1]["macAddress"]
    vm = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {"namespace": "default", "name": name, "labels": {"app": name, "os": "rhel9"}},
        "spec": {"runStrategy": "Always", "template": {"metadata": {"labels": {"vm": name}}, "spec": spec}},
        "status": {"ready": True, "created": True, "printableStatus": "Running"},
    }
    interfaces = [
        {"name": "default", "ipAddress": f"10.128.{number >> 8 & 255}.{number & 255}", "mac": "02:00:00:00:00:01"},
        {"name": "net", "mac": mac, "infoSource": "domain, guest-agent", "interfaceName": "eth1", "queueCount": 1},
    ]  # fmt: skip
    conditions = [_condition(kind, "True", "") for kind in ("Ready", "LiveMigratable", "AgentConnected")]
    vmi = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"namespace": "default", "name": name, "labels": {"vm": name, "kubevirt.io/nodeName": node_name(at)},
                     "annotations": {"kubevirt.io/vm-uid": uid, "vm.kubevirt.io/os": "rhel9"}},
        "spec": spec,
        "status": {
            "phase": "Running", "nodeName": node_name(at), "interfaces": interfaces, "conditions": conditions,
            "guestOSInfo": {"id": "rhel", "name": "Red Hat Enterprise Linux", "kernelRelease": NODE_VERSION},
            "volumeStatus": [{"name": volume["name"], "target": "vda"} for volume in spec["volumes"]],
            "phaseTransitionTimestamps": [
                {"phase": phase, "phaseTransitionTimestamp": _TIME} for phase in ("Pending", "Scheduling", "Running")
            ],
        },
    }  # fmt: skip
    return vm, vmi


def policy() -> Object:
    """The policy that made br-vmdata on every worker."""
    bridge = {"allow-extra-patch-ports": True, "port": [{"name": "bond0"}]}
    state = {
        "interfaces": [{"name": "br-vmdata", "type": "ovs-bridge", "state": "up", "bridge": bridge}],
        "ovn": {"bridge-mappings": [{"localnet": "vmnet", "bridge": "br-vmdata", "state": "present"}]},
    }
    return {
        "apiVersion": "nmstate.io/v1", "kind": "NodeNetworkConfigurationPolicy", "metadata": {"name": POLICY},
        "spec": {"nodeSelector": WORKER, "desiredState": state},
        "status": {"conditions": [_condition("Available", "True", "SuccessfullyConfigured")]},
    }  # fmt: skip


def enactment(number: int, generation: int) -> Object:
    """What came of the policy on a node; it repeats the policy's document, as the operator's do."""
    name = node_name(number)
    states = {
        "Available": "True",
        "Failing": "False",
        "Progressing": "False",
        "Pending": "False",
        "Aborted": "False",
    }
    return {
        "apiVersion": "nmstate.io/v1beta1", "kind": "NodeNetworkConfigurationEnactment",
        "metadata": {
            "name": f"{name}.{POLICY}", "labels": {"nmstate.io/node": name, "nmstate.io/policy": POLICY},
        },
        "status": {
            "conditions": [_condition(kind, state, "SuccessfullyConfigured") for kind, state in states.items()],
            "desiredState": policy()["spec"]["desiredState"], "policyGeneration": generation,
        },
    }  # fmt: skip


def state(number: int) -> Object:
    """What nmstate reports of a node: each of its interfaces with all features, as it does."""
    names = (
        "bond0",
        "ens33",
        "ens34",
        "br-ex",
        "br-int",
        "br-phy",
        "br-vmdata",
        "ovs-bond",
        "genev_sys_6081",
    )
    pods = [f"veth{number:04d}{pod:02d}" for pod in range(_PODS_SEEN)]
    return {
        "apiVersion": "nmstate.io/v1beta1", "kind": "NodeNetworkState", "metadata": {"name": node_name(number)},
        "status": {
            "currentState": {
                "interfaces": [_interface(name) for name in (*names, *pods)],
                "routes": {"running": [_ROUTE] * 8},
            },
            "handlerNmstateVersion": "nmstatectl 2.2.62", "lastSuccessfulUpdateTime": _TIME,
        },
    }  # fmt: skip


def all_objects(nodes: int, vms_per_node: int) -> Iterator[Object]:
    """Everything but the enactments, which need the policy's generation."""
    yield from (network(number) for number in range(1, NETWORKS + 1))
    for number in range(1, nodes + 1):
        yield node(number)
        yield state(number)
        for vm in range(vms_per_node):
            yield from machine((number - 1) * vms_per_node + vm, number)


def _guest(number: int) -> Object:
    disks = [
        {"name": name, "disk": {"bus": "virtio"}, "bootOrder": 1} for name in ("root", "cloudinit", "data")
    ]
    mac = f"02:00:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    interfaces = [
        {"name": "default", "masquerade": {}, "model": "virtio"},
        {"name": "net", "bridge": {}, "model": "virtio", "macAddress": mac},
    ]
    return {
        "domain": {
            "cpu": {"cores": 2, "sockets": 1, "threads": 1, "model": "host-model"},
            "memory": {"guest": "2Gi"},
            "resources": {"requests": {"memory": "2Gi"}},
            "machine": {"type": "pc-q35-rhel9.6.0"},
            "firmware": {"uuid": f"00000000-0000-4000-8000-{number:012d}"},
            "features": {"acpi": {"enabled": True}, "smm": {"enabled": True}},
            "devices": {"disks": disks, "interfaces": interfaces, "rng": {}},
        },
        "networks": [
            {"name": "default", "pod": {}},
            {"name": "net", "multus": {"networkName": "default/vlan224"}},
        ],
        "volumes": [
            {"name": "root", "dataVolume": {"name": f"vm-{number:05d}-root"}},
            {"name": "data", "persistentVolumeClaim": {"claimName": f"vm-{number:05d}-data"}},
            {"name": "cloudinit", "cloudInitNoCloud": {"userData": "#cloud-config\n" + "x" * 600}},
        ],
        "evictionStrategy": "LiveMigrate",
        "terminationGracePeriodSeconds": 180,
    }


def _interface(name: str) -> Object:
    feature = {
        f"tx-{kind}-segmentation-{number:02d}": True
        for kind in ("tcp", "udp")
        for number in range(_FEATURES // 2)
    }
    return {
        "name": name, "type": "ethernet", "state": "up", "identifier": "name", "mac-address": "02:00:00:00:00:02",
        "mtu": 9000, "min-mtu": 68, "max-mtu": 65535, "wait-ip": "any", "accept-all-mac-addresses": False,
        "ipv4": {"enabled": False, "dhcp": False}, "ipv6": {"enabled": False, "dhcp": False, "autoconf": False},
        "lldp": {"enabled": False}, "ethtool": {"feature": feature},
    }  # fmt: skip


def _condition(kind: str, status: str, reason: str) -> Object:
    return {
        "type": kind, "status": status, "reason": reason, "message": f"{kind} is {status}", "lastTransitionTime": _TIME,
    }  # fmt: skip


def _image(number: int) -> Object:
    name = f"example.test/openshift/image-{number:02d}@sha256:{number:064d}"
    return {"names": [name], "sizeBytes": 400_000_000 + number}


def _features() -> dict[str, str]:
    return {f"cpu-feature.node.kubevirt.io/feature-{number:02d}": "true" for number in range(_FEATURES)}
