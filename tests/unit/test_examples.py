"""The examples whose end no other test looks at: applied on the twin, and looked at as a user would.

Invariant: the worlds and files are those of `examples/`, unchanged.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from crash.lives import ROOT, Job, job_of

from providers.ports import Ref

POLICY = ("nmstate.io/v1", "NodeNetworkConfigurationPolicy")
NODES = ("worker-01", "worker-02", "worker-03")


def applied(folder: Path, name: str) -> Job:
    """The world of an example after its files were applied."""
    example = ROOT / "examples" / name
    spec = yaml.safe_load((example / "world.yaml").read_text())["spec"]
    job = job_of(folder / "job", spec, {"vmnet.yaml": (example / "desired" / "vmnet.yaml").read_text()})
    ended = job.apply()
    assert ended.code == 0, ended.text
    assert "No changes." in job.run("plan").out
    return job


def test_a_site_that_began_by_hand_is_finished_and_its_policy_is_for_all(tmp_path: Path) -> None:
    job = applied(tmp_path, "half-way")
    with job.world() as world:
        shown = world.show()["nodes"]
        policies = {p["metadata"]["name"]: p["spec"] for p in world.edit().cluster.list(*POLICY).items}
    assert {shown[node]["mapping"] for node in NODES} == {"physnet:br-ex,vmnet:br-phy"}
    assert not any("br-vmdata" in shown[node]["bridges"] for node in NODES)
    assert list(policies) == ["br-vmdata-migrated"]
    assert policies["br-vmdata-migrated"]["nodeSelector"] == {"node-role.kubernetes.io/worker": ""}


def test_a_new_cluster_gets_its_mapping_its_networks_and_a_vm_on_them(tmp_path: Path) -> None:
    job = applied(tmp_path, "new-cluster")
    with job.world() as world:
        shown = world.show()["nodes"]
        cluster = world.edit().cluster
        policies = [p["metadata"]["name"] for p in cluster.list(*POLICY).items]
        nads = cluster.list("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition").items
        machine: Any = cluster.get(Ref("kubevirt.io/v1", "VirtualMachine", "vm-multi-network", "default"))
    assert {shown[node]["mapping"] for node in NODES} == {"physnet:br-ex,vmnet:br-phy"}
    assert policies == ["vmnet-bridge-mapping"]
    assert {json.loads(nad["spec"]["config"])["vlanID"] for nad in nads} == {224, 300}
    cards = {n["name"]: n.get("multus") for n in machine["spec"]["template"]["spec"]["networks"]}
    assert cards["production-net"] == {"networkName": "default/vlan224"}
    assert cards["management-net"] == {"networkName": "default/vlan300"}
