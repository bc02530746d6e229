"""The examples whose end no other test looks at: applied on the twin, and looked at as a user would.

Invariant: the worlds and files are those of `examples/`, unchanged.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
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


EMPTIED = {
    "half-way/desired": {"worker-02", "worker-03"},
    # No VM is on the localnet yet, so none leaves.
    "new-cluster/desired": set(),
    "nncp/cold": set(NODES),
    # The VMs are dark: the nodes are changed at once.
    "orphaned/desired": set(),
    # One VM of worker-02 stays.
    "uplink-alive/cold": {"worker-01", "worker-03"},
}
"""The files of each example world, and the nodes that they empty when they are told to."""


def test_every_example_is_told_what_it_empties() -> None:
    worlds = {path.parent.name for path in (ROOT / "examples").glob("*/world.yaml")}
    assert {name.partition("/")[0] for name in EMPTIED} == worlds


@pytest.mark.parametrize("name", EMPTIED)
def test_a_canary_finds_an_image_on_every_node_that_an_example_empties(name: str, tmp_path: Path) -> None:
    files = ROOT / "examples" / name
    rollout = files / "rollout.yaml"
    head = {"apiVersion": "ovsplan.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "tonight"}}
    asked = yaml.safe_load(rollout.read_text()) if rollout.exists() else {**head, "spec": {"evacuate": {}}}
    asked["spec"]["proof"] = {"canary": {}}
    texts = {"vmnet.yaml": (files / "vmnet.yaml").read_text(), "rollout.yaml": yaml.safe_dump(asked)}
    world = yaml.safe_load((files.parent / "world.yaml").read_text())
    job = job_of(tmp_path / "job", world, texts)
    ended = job.apply()
    assert ended.code == 0, ended.text
    seen = re.findall(r"\] (\S+)/canary: .*\n +done: seen: a canary on default/vlan224", ended.out)
    assert set(seen) == EMPTIED[name], ended.out
    assert ended.out.count("of registry.example.com/ovn:1, which pod openshift-ovn-kubernetes/") == len(seen)
    with job.world() as after:
        ours = {"app.kubernetes.io/managed-by": "ovsplan"}
        assert after.edit().cluster.list("v1", "Pod", labels=ours).items == ()
        assert all(vm["reachable"] for vm in after.show()["vms"].values())
