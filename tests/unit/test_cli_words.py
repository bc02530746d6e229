"""What an apply and `status` do not claim: what a person marked as done, and what nobody was heard of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from crash.lives import ROOT, Job, job_of, kill_when, live
from crash.others import NETWORK, small_world

from cli.render.run import render_untold
from plans.progress import NodeProgress
from state.lock import who_am_i

FIRST_NODE_DONE = ("step-done", 8)
BY_HAND = rf"marked by hand \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC, {re.escape(who_am_i())}: I looked; "


@pytest.fixture
def half(tmp_path: Path) -> Job:
    """A job whose run died between its two nodes."""
    job = job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK})
    assert job.apply(boundary=kill_when(*FIRST_NODE_DONE)).code == -9
    return job


def mark(job: Job, action: str) -> str:
    ended = job.run("mark", action, "done", "--reason", "I looked")
    assert ended.code == 0, ended.text
    return ended.out


def test_what_was_marked_is_told_so_until_it_is_checked(half: Job) -> None:
    assert "that it is not verified, until something has checked it" in mark(half, "worker-02/verify")
    mark(half, "worker-02/cordon")
    mark(half, "worker-02/preflight")
    told = half.run("status").out
    assert re.search(r"^worker-02  under way .*\(3 marked by hand, not verified\)$", told, re.M), told
    for row, action in (("9  Validate", "verify"), ("3  Cordon node", "cordon")):
        line = rf"{row} +marked-done  worker-02/{action}: {BY_HAND}not verified$"
        assert re.search(line, told, re.M), told
    assert re.search(rf"^      worker-02/preflight: {BY_HAND}not verified$", told, re.M)
    run = half.latest().id
    for shown in (
        live(half.folder, "show", run).wait().out,
        live(half.folder, "show", run, "--format", "runbook").wait().out,
    ):
        assert re.search(rf"worker-02/verify: {BY_HAND}not verified$", shown, re.M), shown

    ended = half.apply()
    assert ended.code == 0, ended.text
    after = ended.out.partition("Apply complete.")[2]
    assert re.search(rf"^  worker-02/cordon: {BY_HAND}not verified$", after, re.M), after
    assert "worker-02/verify" not in after, "the look back went over it"
    told = half.run("status").out
    assert re.search(
        rf"9  Validate +done  worker-02/verify: {BY_HAND}verified since by look-back$", told, re.M
    )
    assert re.search(rf"3  Cordon node +marked-done  worker-02/cordon: {BY_HAND}not verified$", told, re.M)


def test_what_was_done_for_the_whole_cluster_and_marked_is_told_so(half: Job) -> None:
    mark(half, "look-back")
    assert re.search(rf"look-back +marked-done  {BY_HAND}not verified$", half.run("status").out, re.M)


def test_a_plan_file_and_a_run_without_marks_say_nothing_of_any(half: Job) -> None:
    assert "word" not in live(half.folder, "show", half.latest().id).wait().out
    assert "marked" not in half.run("status").out


def example(folder: Path, rollout: str) -> Job:
    found = ROOT / "examples" / "uplink-alive"
    files = {path.name: path.read_text() for path in (found / rollout).glob("*.yaml")}
    return job_of(folder / "job", yaml.safe_load((found / "world.yaml").read_text()), files)


NOT_HEARD = """\
Not proven, as nothing was heard of these VMs:
  {}
  Have each send something, a ping from inside: its path works once `ovs-appctl fdb/show br-phy` on its node lists its MAC.
"""


@pytest.mark.parametrize(
    ("rollout", "lines"),
    [
        ("hot", ["worker-01, network default/vlan300: default/sensor-1"]),
        (
            "cold",
            [
                "worker-01, network default/vlan224: default/web-1",
                "worker-02, network default/vlan224: default/web-2",
            ],
        ),
    ],
)
def test_of_whom_nothing_was_heard_is_told_by_node_network_and_name(
    rollout: str, lines: list[str], tmp_path: Path
) -> None:
    """Hot: the only VM of the second network is silent. Cold: who proves the node is in one network of two."""
    job = example(tmp_path, rollout)
    ended = job.apply()
    assert ended.code == 0, ended.text
    block = NOT_HEARD.format("\n  ".join(lines))
    assert block in ended.out, ended.out
    told = job.run("status").out
    assert block in told, told
    assert "worker-01  done  proven, not for all its VMs" in told


def test_where_everybody_was_heard_nothing_is_told(tmp_path: Path) -> None:
    job = job_of(
        tmp_path / "job",
        small_world(vms={k: v for k, v in small_world()["vms"].items() if not v["silent"]}),
        {"network.yaml": NETWORK},
    )
    assert "nothing was heard" not in job.apply().out
    told = job.run("status").out
    assert "nothing was heard" not in told and "not for all" not in told


def test_of_a_large_cluster_some_are_named_and_where_the_others_are() -> None:
    many = [
        NodeProgress(f"w-{n:02}", "done", (), "proven", (("default/n", tuple("abcdefgh")),), ("br-phy",))
        for n in range(30)
    ]
    lines = render_untold(many)
    assert len(lines) == 13
    assert lines[1] == "  w-00, network default/n: a, b, c, d, e, f and 2 more"
    assert lines[11].startswith("  and 20 more like these: `ovsplan status` names them in row 11")
