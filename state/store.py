"""Opening the state database, and refusing the ones that must not be touched.

The one invariant: a store is bound to one cluster from its first run on, and nothing is ever written to a database
that is corrupt, newer, or another cluster's.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, insert, select
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import NullPool

from plans.errors import JournalError
from state import schema

BUSY_TIMEOUT_MS = 30_000
APPLICATION_ID = 0x0F5B1A27


class Store:
    """One state database. Raises JournalError, with a way out, for every database that it can't serve."""

    def __init__(self, path: Path, identity: str | None = None, *, create: bool = False) -> None:
        self.path = path
        self._check_path(create)
        self._engine = create_engine(
            f"sqlite:///{path}", poolclass=NullPool, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000}
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        self._kept: Connection | None = None
        with self._translated():
            self._open(create)
            self.bind(identity)

    def bind(self, identity: str | None) -> None:
        """Check that the store is `identity`'s; a fresh one becomes so. Raises JournalError when it is another's."""
        if identity is None:
            return
        with self.write() as db:
            owner = self._meta(db, "identity")
            if owner is None:
                db.execute(insert(schema.meta).values(key="identity", value=identity))
            elif owner != identity:
                raise JournalError(
                    f"{self.path} belongs to another cluster ({self._title(db)}{owner}); this one is {identity}. "
                    "Give this cluster a state database of its own with --state FILE."
                )

    def name(self) -> str:
        """What tells this store from every other one, given when it is first asked for."""
        with self.write() as db:
            found = self._meta(db, "name")
            if found is None:
                found = secrets.token_hex(8)
                db.execute(insert(schema.meta).values(key="name", value=found))
        return found

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read transaction."""
        with self._translated(), self._connection().begin():
            yield self._connection()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A write transaction, begun at once: committed and on disk when the block ends, or rolled back."""
        connection = self._connection().execution_options(immediate=True)
        try:
            with self._translated(), connection.begin():
                yield connection
        finally:
            connection.execution_options(immediate=False)

    def another(self) -> Store:
        """The same database through a connection of its own, for another thread."""
        return Store(self.path)

    def close(self) -> None:
        """Let go of the database."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        self._engine.dispose()

    def _connection(self) -> Connection:
        if self._kept is None:
            self._kept = self._engine.connect()
        return self._kept

    def _check_path(self, create: bool) -> None:
        if self.path.is_dir():
            raise JournalError(f"{self.path} is a folder, not a state database. Name a file with --state.")
        if self.path.exists():
            if not os.access(self.path, os.W_OK) or not os.access(self.path.parent, os.W_OK):
                raise JournalError(
                    f"{self.path} is read-only: without a journal nothing may be done. Make it writable, or use --state FILE."
                )
            return
        if not create:
            raise JournalError(
                f"there is no state database at {self.path}: nothing was applied from here. Is --state right?"
            )
        try:
            made = not self.path.parent.exists()
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if made:
                (self.path.parent / ".gitignore").write_text("*\n")
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise JournalError(
                f"cannot create the state database {self.path}: {error.strerror}. Name another place with --state."
            ) from error

    def _open(self, create: bool) -> None:
        with self.write() as db:
            tables = db.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
            if tables == 0:
                self._create(db)
                return
            application = db.exec_driver_sql("PRAGMA application_id").scalar_one()
            if application != APPLICATION_ID:
                raise JournalError(
                    f"{self.path} is a SQLite database, but not ovsplan's. Name another file with --state."
                )
            found = int(self._meta(db, "version") or 0)
            if found > schema.VERSION:
                raise JournalError(
                    f"{self.path} was written by a newer ovsplan (database version {found}, this one knows {schema.VERSION}). "
                    "Use that version."
                )
            if db.exec_driver_sql("PRAGMA quick_check(1)").scalar_one() != "ok":
                raise JournalError(_corrupt(self.path, "its quick check fails"))

    def _create(self, db: Connection) -> None:
        schema.metadata.create_all(db)
        for trigger in schema.IMMUTABLE:
            db.exec_driver_sql(trigger)
        db.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(insert(schema.meta).values(key="version", value=str(schema.VERSION)))

    def _title(self, db: Connection) -> str:
        """What the latest plan calls its target, for a message; empty when there is none."""
        latest = select(schema.plans.c.document).join(
            schema.runs, schema.runs.c.plan == schema.plans.c.digest
        )
        found = db.execute(latest.order_by(schema.runs.c.seq.desc()).limit(1)).scalar_one_or_none()
        return f"{json.loads(found)['target']['title']}, " if found else ""

    def _meta(self, db: Connection, key: str) -> str | None:
        return db.execute(select(schema.meta.c.value).where(schema.meta.c.key == key)).scalar_one_or_none()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLAlchemy's errors as ours, once, at this edge."""
        try:
            yield
        except OperationalError as error:
            text = str(error.orig)
            if "readonly" in text or "read-only" in text:
                raise JournalError(
                    f"{self.path} is read-only: without a journal nothing may be done. Make it writable."
                ) from error
            raise JournalError(f"cannot use the state database {self.path}: {text}.") from error
        except DatabaseError as error:
            raise JournalError(_corrupt(self.path, str(error.orig))) from error


def _corrupt(path: Path, why: str) -> str:
    return (
        f"{path} is not a usable state database: {why}. Nothing was done. Keep the file aside, restore a copy, "
        "or start another with --state FILE; a run that it held is then resumed from nothing."
    )


def _configure(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's "begin" event below says which kind of BEGIN
    if _may_be_ours(connection):
        _write_ahead(connection)
    connection.execute("PRAGMA synchronous = FULL")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Turn the write-ahead log on. SQLite waits for no other opener here, whatever its timeout: so it is asked again."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)  # the lock of another process: nothing tells when it goes


def _may_be_ours(connection: sqlite3.Connection) -> bool:
    """Whether a database is ovsplan's, or still empty: another program's keeps the journal mode that it has."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return bool(application == APPLICATION_ID or tables == 0)


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
