"""A bridge made and an MTU raised on real Open vSwitch and OVN, by OVSDB and by real nmstate.

Invariant: what is asserted is what the database, the kernel and a ping say, never what the program says of itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .job import EXAMPLES, Job, by_hand, vsctl
from .lab import Lab
from .nmlab import NmLab, nm_lab
from .nmstate_cases import NEWER
from .worlds import managed_world

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("needs_daemons")]

NODE = "worker-01"
VM = "default/web-1"
DESIRED = """\
apiVersion: ovsplan.io/v1alpha1
kind: VMNetwork
metadata: {{name: vmnet}}
spec:
  bridge: {{name: br-new, ports: [{port}]}}
  mtu: 4000
"""


def world() -> dict[str, Any]:
    """One worker with a card that no bridge has, and one VM; nothing carries more than 1500."""
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / "uplink-alive/world.yaml").read_text())
    spec = document["spec"]
    spec["networks"] = {name: {**network, "mtu": 1500} for name, network in spec["networks"].items()}
    spec["nodeDefaults"]["nics"]["ens41"] = "up"
    spec["nodes"] = {NODE: {}}
    spec["vms"] = {VM: spec["vms"][VM]}
    spec["objects"] = [one for one in spec["objects"] if one.get("spec", {}).get("nodeName") in (None, NODE)]
    return document


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab.up(world(), tmp_path / "lab") as made:
        made.settle()
        yield made


def job(lab: Lab, folder: Path, port: str) -> Job:
    desired = folder / "network.yaml"
    desired.write_text(DESIRED.format(port=port))
    return Job(lab, desired, folder)


def mtu(lab: Lab, nic: str) -> str:
    return by_hand(lab, NODE, f"cat /sys/class/net/{nic}/mtu")


def test_a_bridge_is_made_its_card_raised_and_the_vm_reached_by_it(lab: Lab, tmp_path: Path) -> None:
    making = job(lab, tmp_path, "ens41")
    assert mtu(lab, "ens41") == "1500"
    done = making.apply()
    assert done.returncode == 0, done.stdout + done.stderr
    assert vsctl(lab, NODE, "port-to-br", "ens41") == "br-new"
    assert vsctl(lab, NODE, "get", "Bridge", "br-new", "datapath_type") == vsctl(
        lab, NODE, "get", "Bridge", "br-int", "datapath_type"
    )
    assert mtu(lab, "ens41") == "4000"
    assert vsctl(lab, NODE, "get", "Interface", "ens41", "mtu") == "4000"
    assert lab.reachable(VM, within=3)
    again = making.plan("--detailed-exitcode")
    assert again.returncode == 0, again.stdout
    assert "No changes." in again.stdout


def test_a_bridge_on_a_card_that_is_not_there_is_taken_away_and_the_vm_stays_where_it_was(
    lab: Lab, tmp_path: Path
) -> None:
    making = job(lab, tmp_path, "ens77")
    done = making.apply()
    assert done.returncode == 3, done.stdout + done.stderr
    assert "could not open network device ens77" in done.stdout + done.stderr
    assert "br-new" not in vsctl(lab, NODE, "list-br").split()
    assert lab.reachable(VM, within=3)


@pytest.fixture
def site(needs_nmstate: None, tmp_path: Path) -> Iterator[NmLab]:
    document = copy.deepcopy(managed_world(NEWER, [NODE], {VM: NODE}))
    spec = document["spec"]
    spec["networks"] = {name: {**network, "mtu": 1500} for name, network in spec["networks"].items()}
    spec["nodeDefaults"]["nics"]["ens41"] = "up"
    with nm_lab(tmp_path / "site", document=document) as site:
        site.lab.steady()
        yield site


def test_real_nmstate_makes_the_bridge_and_raises_its_card(site: NmLab, tmp_path: Path) -> None:
    making = job(site.lab, tmp_path, "ens41")
    planned = making.plan()
    assert "by nncp: br-new is nobody's yet" in planned.stdout, planned.stdout + planned.stderr
    done = making.apply()
    assert done.returncode == 0, done.stdout + done.stderr
    assert vsctl(site.lab, NODE, "port-to-br", "ens41") == "br-new"
    assert "NM.connection.uuid" in vsctl(site.lab, NODE, "get", "Bridge", "br-new", "external_ids")
    assert mtu(site.lab, "ens41") == "4000"
    assert site.lab.reachable(VM, within=3)
    again = making.plan("--detailed-exitcode")
    assert again.returncode == 0, again.stdout
