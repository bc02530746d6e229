"""Whole runs by policies on the twin, in the worlds of cases: what they say at their end, and that it is the end.

Invariant: the world and the files are those of the case that is named.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cases.test_cases import load
from crash.lives import Job, job_of
from support.planning import world_spec

from providers.ports import MergePatch, Ref

FINALISE = "policy/br-vmdata-migrated/finalise"
SENTENCE = "A node that comes later is held by policy br-vmdata-migrated once it has br-phy and the label"


def site(folder: Path, name: str = "policy/labelled") -> Job:
    case = load(name)
    return job_of(folder / "job", world_spec(case["world"]), {"desired.yaml": case["desired"]})


def test_the_plan_and_the_run_end_with_what_a_later_node_needs(tmp_path: Path) -> None:
    job = site(tmp_path)
    assert SENTENCE in " ".join(job.run("plan").out.split())
    ended = job.apply()
    assert ended.code == 0, ended.text
    after = ended.out.partition("Apply complete.")[2]
    assert SENTENCE in " ".join(after.split())
    assert "`oc label node NODE balance-slb-migrated=true`" in " ".join(after.split())
    again = job.run("plan").out
    assert "No changes." in again and SENTENCE not in again


def test_the_label_alone_brings_a_later_node_under_the_policy(tmp_path: Path) -> None:
    job = site(tmp_path)
    assert job.apply().code == 0
    with job.world() as world:
        node = Ref("v1", "Node", "worker-02")
        labels = {"metadata": {"labels": {"balance-slb-migrated": None}}}
        world.edit().cluster.write(MergePatch(node, labels))
        world.tick(10)
    assert "H07" in job.run("plan").out
    with job.world() as world:
        labels = {"metadata": {"labels": {"balance-slb-migrated": "true"}}}
        world.edit().cluster.write(MergePatch(node, labels))
        world.tick(10)
    assert "H07" not in job.run("plan").out


@pytest.mark.parametrize("name", ["native/new", "policy/left-half-way-under-another-name"])
def test_after_a_run_nothing_is_left_to_do(name: str, tmp_path: Path) -> None:
    job = site(tmp_path, name)
    ended = job.apply()
    assert ended.code == 0, ended.text
    assert "No changes." in job.run("plan").out


def test_what_a_networks_run_writes_carries_its_mark_and_an_adopted_policy_keeps_those_of_others(
    tmp_path: Path,
) -> None:
    job = site(tmp_path, "policy/half-way-by-hand")
    ref = Ref("nmstate.io/v1", "NodeNetworkConfigurationPolicy", "br-vmdata-migrated")
    theirs = {"metadata": {"annotations": {"example.com/owner": "net"}, "labels": {"team": "a"}}}
    with job.world() as world:
        world.edit().cluster.write(MergePatch(ref, theirs))
        world.tick(1)
    ended = job.apply()
    assert ended.code == 0, ended.text
    with job.world() as world:
        (there,) = world.cluster.list(ref.api, ref.kind).items
    assert there["metadata"]["annotations"]["ovsplan.io/network"] == "vmnet"
    assert there["metadata"]["annotations"]["example.com/owner"] == "net"
    assert there["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "ovsplan", "team": "a"}


def test_a_policy_of_the_files_carries_no_networks_mark(tmp_path: Path) -> None:
    job = site(tmp_path, "native/new")
    assert job.apply().code == 0
    with job.world() as world:
        listed = world.cluster.list("nmstate.io/v1", "NodeNetworkConfigurationPolicy").items
    assert listed
    assert not [p for p in listed if "ovsplan.io/network" in p["metadata"].get("annotations", {})]


def test_the_wait_for_all_nodes_ends_when_no_further_one_comes(tmp_path: Path) -> None:
    """Three nodes whose handlers do nothing any more cost the time of one, not of three."""
    job, off = site(tmp_path, "policy/named-by-the-site"), []

    def switch_off(boundary: str) -> None:
        at = list(Job(Path.cwd()).steps())[-1:]
        if boundary == "step-begun" and at == [FINALISE] and not off:
            off.append(True)
            with job.world() as world:
                world.controllers_off("nmstate-operator")

    ended = job.apply(boundary=switch_off)
    assert ended.code == 3, ended.text
    took = re.search(r"failed after ([0-9.]+)s: policy br-vmdata-migrated on worker-01", ended.text)
    assert took and float(took[1]) < 400, ended.text
    assert "0 of 2 so far" in ended.text
    assert "still to come: worker-02" in ended.text
