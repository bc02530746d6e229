"""`ovsplan init`: the files it writes, what it says, and that it changes nothing but those files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from crash.lives import Ended, Job, is_mutating, job_of, live
from crash.others import small_world

from providers.ports import Delete, Ref

FILES = {"rollout.yaml", "vmnetwork-storage.yaml", "vmnetwork-vmnet.yaml"}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_of(tmp_path / "job", small_world(), {})


def init(job: Job, *args: str) -> Ended:
    return live(job.folder, "init", "--twin", "world", *args).wait()


def plan(job: Job, folder: str) -> Ended:
    return live(job.folder, "plan", folder, "--twin", "world", "--detailed-exitcode").wait()


def written(job: Job, folder: str) -> dict[str, Any]:
    return {path.name: yaml.safe_load(path.read_text()) for path in (job.folder / folder).glob("*.yaml")}


def test_what_is_there_is_written_and_planned_without_a_change(job: Job) -> None:
    ended = init(job, "--out", "net")
    assert ended.code == 0, ended.text
    assert set(written(job, "net")) == FILES
    assert "Target: SIMULATED" in ended.out and "Wrote net/vmnetwork-vmnet.yaml" in ended.out
    assert "  No changes." in ended.out and "ovsplan plan net --twin world" in ended.out
    assert plan(job, "net").code == 0
    assert not any(is_mutating(call) for call in job.log())


def test_the_migration_that_is_asked_for_is_written_and_planned(job: Job) -> None:
    ended = init(job, "--out", "net", "--bridge", "br-phy", "--replace", "br-vmdata")
    assert ended.code == 0, ended.text
    spec = written(job, "net")["vmnetwork-vmnet.yaml"]["spec"]
    assert (spec["bridge"], spec["replaces"]) == ("br-phy", {"bridge": "br-vmdata"})
    assert "  Plan: 0 to add, 2 to change, 2 to destroy." in ended.out
    planned = plan(job, "net")
    assert planned.code == 2
    assert "Plan: 0 to add, 2 to change, 2 to destroy." in planned.out
    assert "storage" not in planned.out


def test_without_out_the_files_go_where_one_is_and_no_other_file_is_made(job: Job) -> None:
    before = {path.name for path in job.folder.iterdir()}
    assert init(job).code == 0
    after = {path.name for path in job.folder.iterdir() if not path.name.startswith(("out.", "err."))}
    assert after - before == FILES


def test_nothing_is_overwritten_and_every_file_in_the_way_is_named(job: Job) -> None:
    (job.folder / "net").mkdir()
    for name in ("rollout.yaml", "vmnetwork-vmnet.yaml"):
        (job.folder / "net" / name).write_text("mine")
    ended = init(job, "--out", "net")
    assert (ended.code, ended.out) == (1, "")
    assert "net/rollout.yaml: is there already" in ended.err
    assert "net/vmnetwork-vmnet.yaml: is there already" in ended.err
    assert "vmnetwork-storage" not in ended.err
    assert sorted(path.name for path in (job.folder / "net").iterdir()) == [
        "rollout.yaml",
        "vmnetwork-vmnet.yaml",
    ]
    assert (job.folder / "net" / "rollout.yaml").read_text() == "mine"


def test_a_dash_prints_the_documents_and_nothing_else(job: Job) -> None:
    ended = init(job, "--out", "-")
    assert ended.code == 0
    documents = list(yaml.safe_load_all(ended.out))
    assert [document["kind"] for document in documents] == ["VMNetwork", "VMNetwork", "Rollout"]
    (job.folder / "all").mkdir()
    (job.folder / "all" / "all.yaml").write_text(ended.out)
    assert plan(job, "all").code == 0
    assert not list(job.folder.glob("*.yaml"))


def test_what_is_left_out_is_told_beside_the_documents(tmp_path: Path) -> None:
    spec = small_world()
    spec["nodeDefaults"]["mappings"] = "physnet:br-ex,vmnet:br-vmdata,extra:br-ex"
    job = job_of(tmp_path / "job", spec, {})
    printed, kept = init(job, "--out", "-"), init(job, "--out", "net")
    assert "left out: localnet extra: 'br-ex' carries the node's own traffic" in printed.err
    assert "Left out: localnet extra: 'br-ex' carries the node's own traffic" in kept.out


def test_a_guess_and_a_node_that_could_not_be_read_are_told(tmp_path: Path) -> None:
    spec = small_world()
    spec["nodes"]["worker-03"] = {"reachable": False}
    job = job_of(tmp_path / "job", spec, {})
    ended = init(job, "--out", "net")
    assert "vmnetwork-vmnet.yaml  (1 guessed: look for `# guessed:`)" in ended.out
    assert "worker-03 could not be read: worker-03: no route to host" in ended.out
    assert "# guessed:" in (job.folder / "net" / "vmnetwork-vmnet.yaml").read_text()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--bridge", "br-phy"], "which localnet?"),
        (["--replace", "br-vmdata"], "--replace needs --bridge"),
        (["--bridge", "br-phi", "--localnet", "vmnet"], "did you mean br-phy?"),
        (["--out", "world/world.db"], "cannot write to world/world.db"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(args: list[str], words: str, job: Job) -> None:
    ended = init(job, *args)
    assert (ended.code, ended.crashed, ended.out) == (1, False, "")
    assert words in ended.err
    assert not list(job.folder.glob("**/*.yaml"))


def test_there_is_no_default_target(job: Job) -> None:
    ended = live(job.folder, "init").wait()
    assert ended.code == 1
    assert "no target" in ended.err and "--twin" in ended.err


def test_a_cluster_without_nodes_is_not_told_as_one_that_could_not_be_read(job: Job) -> None:
    with job.world() as world:
        for node in world.cluster.list("v1", "Node").items:
            world.edit().cluster.write(Delete(Ref("v1", "Node", node["metadata"]["name"])))
    ended = init(job, "--out", "-")
    assert ended.code == 1 and "Error: the cluster has no nodes" in ended.err, ended.text
