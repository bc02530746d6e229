"""What every command owes its user: help, options as people spell them, colours, and one clear error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from crash.lives import Ended, Job, at, job_of, live
from crash.others import NETWORK, small_world

from cli.main import VERBS

TWIN_VERBS = ("init", "log", "fault", "show")
WITH_A_TARGET = ("plan", "apply")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK})


def ran(job: Job, *args: str, **environment: str) -> Ended:
    return live(job.folder, *args, before=lambda: os.environ.update(environment)).wait()


def test_help_names_every_command(job: Job) -> None:
    ended = ran(job, "--help")
    assert ended.code == 0
    assert [verb for verb in VERBS if f"  {verb} " not in ended.out] == []


@pytest.mark.parametrize("args", [*([verb] for verb in VERBS), *(["twin", verb] for verb in TWIN_VERBS)])
def test_every_command_has_help_that_says_what_it_does(args: list[str], job: Job) -> None:
    ended = ran(job, *args, "--help")
    assert (ended.code, ended.err) == (0, "")
    usage, _, rest = ended.out.partition("\n\n")
    assert usage.startswith(f"Usage: ovsplan {' '.join(args)}")
    assert len(rest.split("Options:")[0].split()) >= 5


def test_the_version(job: Job) -> None:
    ended = ran(job, "--version")
    assert ended.code == 0
    assert ended.out.startswith("ovsplan ")


@pytest.mark.parametrize("verb", WITH_A_TARGET)
def test_there_is_no_default_target(verb: str, job: Job) -> None:
    ended = ran(job, verb, *(["--auto-approve"] if verb == "apply" else []))
    assert ended.code == 1
    assert "no target" in ended.err and "--twin" in ended.err
    assert job.log() == ()


def test_the_target_may_come_from_the_environment(job: Job) -> None:
    (job.folder / "target.yaml").write_text("cluster: {twin: world}\n")
    (job.folder / "desired").mkdir()
    (job.folder / "network.yaml").rename(job.folder / "desired" / "network.yaml")
    ended = ran(job, "plan", "desired", OVSPLAN_TARGET="target.yaml")
    assert ended.code == 0, ended.text
    assert "Plan: 0 to add" in ended.out


@pytest.mark.parametrize(
    ("args", "right"),
    [
        (["plan", "-out=plan.json"], "--out"),
        (["plan", "-detailed-exitcode"], "--detailed-exitcode"),
        (["apply", "-auto-approve"], "--auto-approve"),
    ],
)
def test_an_option_spelled_as_in_terraform_gets_the_right_one_named(
    args: list[str], right: str, job: Job
) -> None:
    ended = ran(job, *args, "--twin", "world")
    assert ended.code == 1
    assert f"two dashes here: {right}." in ended.err
    assert job.log() == ()


@pytest.mark.parametrize(
    ("typed", "meant"), [("aply", "apply"), ("pln", "plan"), ("forceunlock", "force-unlock")]
)
def test_a_misspelled_command_gets_the_nearest_one_named(typed: str, meant: str, job: Job) -> None:
    ended = ran(job, typed)
    assert ended.code == 1
    assert f"Did you mean '{meant}'?" in ended.err


@pytest.mark.parametrize(
    "args", [["plan", "--colour"], ["show"], ["mark", "x", "perhaps"], ["twin", "fault", "world"]]
)
def test_wrong_usage_is_an_error_of_the_user(args: list[str], job: Job) -> None:
    ended = ran(job, *args)
    assert ended.code == 1
    assert ended.err.startswith("Error: ")
    assert "--help" in ended.err
    assert not ended.crashed


def test_colours_only_where_they_are_wanted(job: Job) -> None:
    plan = ("plan", "--twin", "world")
    assert "\x1b[" not in ran(job, *plan).out
    assert "\x1b[" in ran(job, *plan, FORCE_COLOR="1").out
    assert "\x1b[" not in ran(job, *plan, FORCE_COLOR="1", NO_COLOR="1").out


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "there is no folder"),
        (lambda path: path.mkdir(), "there is no world"),
        (lambda path: path.write_text("x"), "there is no folder"),
        (lambda path: (path.mkdir(), (path / "world.db").write_bytes(b"garbage" * 999)), "cannot be used"),
    ],
    ids=["missing", "empty", "a-file", "garbage"],
)
@pytest.mark.parametrize("verb", [*WITH_A_TARGET, "status"])
def test_a_broken_twin_folder_is_one_clear_error(verb: str, make: object, words: str, job: Job) -> None:
    make(job.folder / "broken")  # type: ignore[operator]
    before = sorted(path.name for path in job.folder.rglob("*"))
    ended = ran(job, verb, "--twin", "broken", *(["--auto-approve"] if verb == "apply" else []))
    assert ended.code == 1
    assert len(ended.err.splitlines()) == 1
    assert "broken" in ended.err and words in ended.err
    after = sorted(path.name for path in job.folder.rglob("*"))
    assert [name for name in after if name not in before and not name.startswith(("out.", "err."))] == []


@pytest.mark.parametrize("verb", ["validate", *WITH_A_TARGET])
def test_paths_that_cannot_be_read_are_all_named(verb: str, job: Job) -> None:
    (job.folder / "binary.yaml").write_bytes(b"\xff\xfe")
    target = [] if verb == "validate" else ["--twin", "world"]
    approve = ["--auto-approve"] if verb == "apply" else []
    ended = ran(job, verb, "missing.yaml", "binary.yaml", *target, *approve)
    assert ended.code == 1
    assert "missing.yaml: no such file" in ended.err
    assert "binary.yaml: not UTF-8" in ended.err
    assert not ended.crashed
    assert not job.state.exists()


def test_a_folder_without_yaml_is_said_so(job: Job) -> None:
    (job.folder / "empty").mkdir()
    ended = ran(job, "plan", "empty", "--twin", "world")
    assert ended.code == 1
    assert "empty holds no *.yaml" in ended.err


@pytest.mark.parametrize(("verb", "code"), [("plan", 0), ("apply", 3)])
def test_a_reader_that_has_gone_ends_a_screen_and_stops_a_run(verb: str, code: int, job: Job) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    approve = ["--auto-approve"] if verb == "apply" else []
    ended = live(job.folder, verb, "--twin", "world", *approve, before=lambda: os.dup2(writer, 1)).wait()
    os.close(writer)
    assert (ended.code, ended.err) == (code, "")
    assert job.apply().code == 0


def test_a_reader_that_has_gone_does_not_make_changes_into_none(job: Job) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    asked = ("plan", "--twin", "world", "--detailed-exitcode")
    ended = live(job.folder, *asked, before=lambda: os.dup2(writer, 1)).wait()
    os.close(writer)
    assert (ended.code, ended.err) == (2, "")


def full() -> None:
    """Have standard output on a disk that is full."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def test_output_that_cannot_be_written_is_an_error_in_one_line(job: Job) -> None:
    ended = live(job.folder, "plan", "--twin", "world", before=full).wait()
    assert (ended.code, ended.err) == (1, "Error: cannot write the output: No space left on device.\n")


def test_a_run_whose_output_cannot_be_written_stops_where_it_may(job: Job) -> None:
    ended = job.begin("apply", boundary=at("intent", 4, full)).wait()
    assert ended.code == 3
    assert "its output cannot be written (No space left on device)" in ended.err
    assert "Traceback" not in ended.err
    assert job.latest().status == "stopped"
    assert all(event.outcome for name in job.steps() for event in job.events(name))
    assert job.apply().code == 0


def test_what_is_valid_is_named_by_its_kind(job: Job) -> None:
    policy = "apiVersion: nmstate.io/v1\nkind: NodeNetworkConfigurationPolicy\nmetadata: {name: %s}\nspec: {desiredState: {}}\n"
    (job.folder / "natives.yaml").write_text(f"{policy % 'p1'}---\n{policy % 'p2'}")
    assert ran(job, "validate", "natives.yaml").out == "Valid: NodeNetworkConfigurationPolicy p1, p2.\n"
    (job.folder / "more.yaml").write_text(
        "apiVersion: ovsplan.io/v1alpha1\nkind: VMNetwork\nmetadata: {name: vmnet}\nspec: {bridge: br-phy}\n"
    )
    both = ran(job, "validate", "natives.yaml", "more.yaml").out
    assert both == "Valid: VMNetwork vmnet, NodeNetworkConfigurationPolicy p1, p2.\n"
