"""`ovsplan --context NAME`: nothing but a kubeconfig, a real API server, and the nodes by exec into their pods."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from providers.ports import Create, MergePatch, Ref

from .job import EXAMPLES
from .netns import await_true
from .nmlab import NmLab, nm_lab

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("needs_nmstate", "needs_api_server")]

NNCP = ("nmstate.io/v1", "NodeNetworkConfigurationPolicy")
SPACE = "openshift-ovn-kubernetes"
TELLS_RIGHT_FROM_WRONG_MS = 250.0
"""The procedure's own document loses more than 270 ms, and an outage that nobody ends has no end."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NmLab]:
    with nm_lab(tmp_path_factory.mktemp("context"), ovn="25.03", nodes=2, api="real") as site:
        site.lab.steady()
        _old_policy(site)
        _ovnkube_nodes(site)
        yield site


def _old_policy(site: NmLab) -> None:
    """The policy that made br-vmdata, and its enactments."""
    policy: dict[str, Any] = yaml.safe_load((EXAMPLES / "nncp/world.yaml").read_text())["spec"]["objects"][0]
    policy["spec"]["desiredState"]["interfaces"][0]["bridge"]["options"] = {"datapath": "netdev"}
    ref = Ref(*NNCP, "br-vmdata")
    site.world.cluster.write(Create(ref, policy))

    def is_available() -> bool:
        status = (site.world.cluster.get(ref) or {}).get("status", {})
        return {c["type"]: c["status"] for c in status.get("conditions", ())}.get("Available") == "True"

    await_true(is_available, "the old policy is Available", within=120, every=0.2)


def _ovnkube_nodes(site: NmLab) -> None:
    """What every OpenShift node has: an ovnkube-node pod, here with the lab's node behind it."""
    cluster = site.world.cluster
    cluster.write(Create(Ref("v1", "Namespace", SPACE), {}))
    for node in site.lab.spec.nodes:
        ref = Ref("v1", "Pod", f"ovnkube-node-{node}", SPACE)
        container = {"name": "ovn-controller", "image": "ovn"}
        body = {
            "metadata": {"labels": {"app": "ovnkube-node"}},
            "spec": {"nodeName": node, "containers": [container]},
        }
        cluster.write(Create(ref, body))
        running = {**container, "ready": True, "imageID": "", "restartCount": 0, "state": {"running": {}}}
        status = {"phase": "Running", "containerStatuses": [running]}
        cluster.write(MergePatch(ref, {"status": status}, subresource="status"))


def ovsplan(site: NmLab, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The program, in a folder of its own, with a context of a kubeconfig as all that it knows."""
    assert site.server is not None
    kubeconfig = site.server.kubeconfig("admin")
    context = yaml.safe_load(Path(kubeconfig).read_text())["current-context"]
    argv = [sys.executable, "-m", "cli.main", *words, "--context", context, "--kubeconfig", str(kubeconfig)]
    root = str(EXAMPLES.parent)
    return subprocess.run(
        argv, cwd=folder, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, timeout=300
    )


def test_what_init_writes_is_what_is_there_or_the_migration_alone(site: NmLab, tmp_path: Path) -> None:
    as_it_is = ovsplan(site, tmp_path, "init", "--out", "now")
    assert as_it_is.returncode == 0 and "  No changes." in as_it_is.stdout, as_it_is.stdout + as_it_is.stderr
    moved = ovsplan(site, tmp_path, "init", "--bridge", "br-phy", "--replace", "br-vmdata", "--out", "new")
    assert moved.returncode == 0, moved.stdout + moved.stderr
    assert "  Plan: 1 to add, 2 to change, 3 to destroy." in moved.stdout
    spec = yaml.safe_load((tmp_path / "new" / "vmnetwork-vmnet.yaml").read_text())["spec"]
    assert spec["replaces"] == {"bridge": "br-vmdata", "policies": ["br-vmdata"]}


def test_a_migration_by_context_alone_cuts_no_vm_for_long(site: NmLab, tmp_path: Path) -> None:
    desired = str(EXAMPLES / "nncp/hot")
    pings = {vm: site.ping(vm) for vm in ("default/web-1", "default/web-2")}
    done = ovsplan(site, tmp_path, "apply", desired, "--auto-approve")
    lost = {vm: ping.stop().lost_ms for vm, ping in pings.items()}
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("Target: cluster "), done.stdout[:200]
    assert "nodes by pod exec" in done.stdout.splitlines()[0]
    assert {vm: ms for vm, ms in lost.items() if ms > TELLS_RIGHT_FROM_WRONG_MS} == {}
    assert [p["metadata"]["name"] for p in site.world.cluster.list(*NNCP).items] == ["br-vmdata-migrated"]
    again = ovsplan(site, tmp_path, "plan", desired)
    assert "No changes." in again.stdout, again.stdout + again.stderr
