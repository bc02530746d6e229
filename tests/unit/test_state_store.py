"""Opening a state database, and each that must not be touched: the reason, and a way out."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest
from sqlalchemy import text

from plans.errors import JournalError
from state.store import Store


def made(path: Path, identity: str | None = "cluster-1") -> Path:
    Store(path, identity, create=True).close()
    return path


def refusal(path: Path, identity: str | None = "cluster-1") -> str:
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(JournalError) as refused:
        Store(path, identity)
    assert (path.read_bytes() if path.is_file() else b"") == before, "a refused database must not be touched"
    return str(refused.value)


def test_a_fresh_database_is_its_owners_alone_and_kept_out_of_git(tmp_path: Path) -> None:
    path = made(tmp_path / ".ovsplan" / "state.db")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert (path.parent / ".gitignore").read_text() == "*\n"


def test_a_folder_that_was_there_gets_no_gitignore(tmp_path: Path) -> None:
    made(tmp_path / "state.db")
    assert not (tmp_path / ".gitignore").exists()


def test_the_journal_files_beside_it_are_its_owners_alone_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db", "cluster-1", create=True)
    beside = [p for p in tmp_path.iterdir() if p.name.startswith("state.db-")]
    assert beside and all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in beside)
    store.close()


def test_every_commit_is_on_disk_when_it_returns(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db", "cluster-1", create=True)
    with store.read() as db:
        assert db.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert db.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
    store.close()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db", "cluster-1", create=True)
    with pytest.raises(RuntimeError), store.write() as db:
        db.execute(text("INSERT INTO audit (at, who, what) VALUES (1, 'a', 'b')"))
        raise RuntimeError
    with store.read() as db:
        assert db.execute(text("SELECT count(*) FROM audit")).scalar_one() == 0
    store.close()


def test_a_database_that_is_not_there_is_not_made_by_looking(tmp_path: Path) -> None:
    path = tmp_path / "none" / "state.db"
    assert (
        refusal(path)
        == f"there is no state database at {path}: nothing was applied from here. Is --state right?"
    )
    assert not path.parent.exists()


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path} is a folder, not a state database. Name a file with --state."


def test_a_corrupt_database_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_text("this is no database, and long enough to be looked at " * 40)
    told = refusal(path)
    assert told.startswith(f"{path} is not a usable state database: file is not a database.")
    assert "--state FILE" in told


def test_a_database_with_damaged_pages_is_named(tmp_path: Path) -> None:
    path = made(tmp_path / "state.db")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    told = refusal(path)
    assert str(path) in told and "--state FILE" in told


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    assert refusal(path) == f"{path} is a SQLite database, but not ovsplan's. Name another file with --state."


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "state.db")
    store = Store(path)
    with store.write() as db:
        db.execute(text("UPDATE meta SET value = '99' WHERE key = 'version'"))
    store.close()
    told = refusal(path)
    assert told == (
        f"{path} was written by a newer ovsplan (database version 99, this one knows 1). Use that version."
    )


def test_another_clusters_database_is_refused_and_both_are_named(tmp_path: Path) -> None:
    path = made(tmp_path / "state.db")
    assert refusal(path, "cluster-2") == (
        f"{path} belongs to another cluster (cluster-1); this one is cluster-2. "
        "Give this cluster a state database of its own with --state FILE."
    )


def test_a_database_without_an_owner_becomes_the_first_ones(tmp_path: Path) -> None:
    path = made(tmp_path / "state.db", identity=None)
    Store(path, "cluster-1").close()
    assert "belongs to another cluster (cluster-1)" in refusal(path, "cluster-2")


def test_a_read_only_database_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "state.db")
    # Root may write everywhere, so it is the question that is answered here.
    monkeypatch.setattr(os, "access", lambda where, mode: not (mode & os.W_OK))
    told = refusal(path)
    assert told == (
        f"{path} is read-only: without a journal nothing may be done. Make it writable, or use --state FILE."
    )


def test_a_folder_in_which_nothing_can_be_written_is_read_only_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal's files are made beside the database."""
    path = made(tmp_path / "state.db")
    monkeypatch.setattr(os, "access", lambda where, mode: Path(where) != tmp_path)
    assert "state.db is read-only" in refusal(path)


def test_a_store_keeps_its_name_and_no_two_have_the_same(tmp_path: Path) -> None:
    paths = [made(tmp_path / name) for name in ("one.db", "two.db")]
    names = [Store(path).name() for path in (*paths, *paths)]
    assert names[:2] == names[2:] and names[0] != names[1]


def test_a_place_where_nothing_can_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        JournalError, match=r"^cannot create the state database .*Name another place with --state\.$"
    ):
        Store(tmp_path / "file" / "state.db", "cluster-1", create=True)


def test_a_database_that_another_process_is_just_making_is_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waits: list[float] = []

    def let_go(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            other.execute("ROLLBACK")

    monkeypatch.setattr("state.store.time.sleep", let_go)
    Store(path, "cluster-1", create=True).close()
    assert len(waits) == 3
    other.close()
