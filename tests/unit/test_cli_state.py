"""State databases that can't serve: each one clear error, and neither the world nor the file is touched."""

from __future__ import annotations

import codecs
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crash.lives import Ended, Job, is_mutating, job_of, live
from crash.others import NETWORK, small_world

VERBS = ("plan", "apply", "status")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return begun(tmp_path / "job")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that an unprivileged process can reach: permissions do not hold the superuser."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def begun(folder: Path) -> Job:
    """A job that is done on one node of two; the database has its run."""
    made = job_of(folder, small_world(), {"network.yaml": NETWORK})
    assert made.apply("--node", "worker-01").code == 0
    return made


def garbage(state: Path) -> None:
    state.write_bytes(b"this is no database\n" * 300)


def somebody_elses(state: Path) -> None:
    state.unlink()
    db = sqlite3.connect(state)
    db.execute("CREATE TABLE t (x)")
    db.commit()
    db.close()


def newer(state: Path) -> None:
    change(state, "version", "99")


def another_clusters(state: Path) -> None:
    change(state, "identity", "cluster 00000000-0000-0000-0000-000000000000")


def change(state: Path, key: str, value: str) -> None:
    db = sqlite3.connect(state)
    db.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
    db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def truncated(state: Path) -> None:
    data = state.read_bytes()
    state.write_bytes(data[: len(data) // 2])


def a_folder(state: Path) -> None:
    state.unlink()
    state.mkdir()


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "garbage": (garbage, "not a usable state database"),
    "truncated": (truncated, "not a usable state database"),
    "somebody-elses": (somebody_elses, "not ovsplan's"),
    "newer": (newer, "newer ovsplan"),
    "another-clusters": (another_clusters, "another cluster"),
    "a-folder": (a_folder, "is a folder"),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("how", SPOILED)
def test_a_database_that_cannot_serve_is_one_clear_error(how: str, verb: str, job: Job) -> None:
    spoil, words = SPOILED[how]
    for left in job.state.parent.glob("state.db-*"):
        left.unlink()
    spoil(job.state)
    content = job.state.read_bytes() if job.state.is_file() else b""
    done = [call for call in job.log() if is_mutating(call)]
    ended = job.run(verb)
    refused(ended, words)
    assert [call for call in job.log() if is_mutating(call)] == done
    assert (job.state.read_bytes() if job.state.is_file() else b"") == content


def refused(ended: Ended, words: str) -> None:
    assert ended.code == 1, ended.text
    assert not ended.crashed
    assert ended.err.count("Error: ") == 1
    assert "state.db" in ended.err and words in ended.err
    assert "--state" in ended.err or "Use that version" in ended.err or "Make it writable" in ended.err


def test_a_database_of_another_cluster_is_told_by_the_name_of_that(job: Job) -> None:
    another_clusters(job.state)
    assert "belongs to another cluster (SIMULATED twin world" in job.run("plan").err


@pytest.mark.parametrize("verb", ["plan", "apply"])
def test_a_read_only_database_is_one_clear_error(verb: str, open_folder: Path) -> None:
    job = begun(open_folder / "job")
    job.state.chmod(0o444)
    for path in (job.folder, job.world_folder, *job.world_folder.iterdir(), *job.folder.glob("[oe]*.*")):
        path.chmod(0o777)
    job.state.parent.chmod(0o755)
    done = [call for call in job.log() if is_mutating(call)]

    codecs.lookup("utf-8-sig")  # the interpreter's own files may be out of reach then

    def unprivileged() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)

    approve = ["--auto-approve"] if verb == "apply" else []
    ended = live(job.folder, verb, "--twin", "world", *approve, before=unprivileged).wait()
    refused(ended, "read-only")
    assert [call for call in job.log() if is_mutating(call)] == done


def test_a_place_where_no_database_can_be_made_is_said_before_anything_is_done(tmp_path: Path) -> None:
    job = job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK})
    (job.folder / "file").write_text("")
    ended = job.apply("--state", "file/state.db")
    assert ended.code == 1
    assert "cannot create the state database" in ended.err
    assert not any(is_mutating(call) for call in job.log())


def test_the_database_is_for_its_owner_alone(job: Job) -> None:
    assert job.state.stat().st_mode & 0o777 == 0o600
    assert job.state.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "verb", [["stop"], ["mark", "a", "done", "--reason", "x"], ["abandon", "x"], ["force-unlock"]]
)
def test_commands_on_a_run_need_a_database_and_make_none(verb: list[str], tmp_path: Path) -> None:
    job = job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK})
    ended = job.run(*verb)
    assert ended.code == 1
    assert "there is no state database" in ended.err
    assert not job.state.exists()
