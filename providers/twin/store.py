"""The twin's memory on disk: documents, the log, faults, the watch history and the controllers' work queue.

Invariant: everything one served call changes becomes durable in one SQLite commit, or not at all. Several processes
may hold the same store: each call takes the write lock first and then rereads only what others committed since.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FORMAT = 1
FILE = "world.db"
SEP = "|"

_TABLES = """
CREATE TABLE documents (key TEXT PRIMARY KEY, body TEXT, rev INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX documents_rev ON documents (rev);
CREATE TABLE log (seq INTEGER PRIMARY KEY, at REAL, pid INTEGER, port TEXT, node TEXT, verb TEXT, text TEXT,
                  outcome TEXT);
CREATE TABLE faults (id INTEGER PRIMARY KEY, match TEXT, nth INTEGER, effect TEXT, seen INTEGER, fired INTEGER);
CREATE TABLE history (rv INTEGER PRIMARY KEY, type TEXT, api TEXT, kind TEXT, body TEXT);
CREATE TABLE queue (seq INTEGER PRIMARY KEY, controller TEXT, key TEXT, at REAL, UNIQUE (controller, key));
CREATE INDEX queue_at ON queue (at, seq);
"""


class Store:
    """One open connection to a world's file, with the documents read so far."""

    def __init__(self, path: Path) -> None:
        # Another process's controllers may hold the write lock for as long as its call takes.
        self.db = sqlite3.connect(path, isolation_level=None, timeout=120, check_same_thread=False)
        try:
            # Losing power may lose the last calls, which no promise covers; losing the process loses none.
            self.db.execute("PRAGMA synchronous=OFF")
        except sqlite3.DatabaseError:
            self.db.close()
            raise
        self._cache: dict[str, Any] = {}
        self._keys: dict[str, set[str]] | None = None
        self._sorted: dict[str, list[str]] = {}
        self._dirty: dict[str, Any] = {}
        self._rev = -1
        self._seen = -1
        self._lock = threading.RLock()

    def close(self) -> None:
        self.db.close()

    def create(self) -> None:
        """Lay out an empty file."""
        self.db.executescript(f"PRAGMA journal_mode=WAL; PRAGMA user_version={FORMAT}; {_TABLES}")

    @property
    def format(self) -> int:
        return int(self.db.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def call(self) -> Iterator[None]:
        """The extent of one served call: all of it is committed at the end, none of it after an exception."""
        with self._lock:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                self._catch_up()
                yield
                self._flush()
                self.db.execute("COMMIT")
            except BaseException:
                # Whatever stopped the call, Ctrl-C included, it is served whole or not at all.
                self.db.execute("ROLLBACK")
                self._forget()
                raise

    def _forget(self) -> None:
        self._cache.clear()
        self._dirty.clear()
        self._sorted.clear()
        self._keys = None
        self._rev = self._seen = -1

    def _catch_up(self) -> None:
        seen = self.db.execute("PRAGMA data_version").fetchone()[0]
        if seen == self._seen:
            return
        if self._rev >= 0:
            for key, body in self.db.execute("SELECT key, body FROM documents WHERE rev > ?", (self._rev,)):
                self._cache.pop(key, None)
                self._index(key, body is not None)
        self._rev = self.db.execute("SELECT coalesce(max(rev), 0) FROM documents").fetchone()[0]
        self._seen = seen

    def _flush(self) -> None:
        if not self._dirty:
            return
        self._rev += 1
        rows = [
            (key, None if body is None else json.dumps(body, separators=(",", ":")), self._rev)
            for key, body in self._dirty.items()
        ]
        self.db.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", rows)
        self._dirty.clear()

    def _index(self, key: str, present: bool) -> None:
        if self._keys is None:
            return
        group = key.rpartition(SEP)[0]
        members = self._keys.setdefault(group, set())
        if present != (key in members):
            (members.add if present else members.discard)(key)
            self._sorted.pop(group, None)

    def get(self, key: str) -> Any:
        """The document, or None. It is shared with every other reader: never alter it, `put` a new one."""
        if key in self._dirty:
            return self._dirty[key]
        if key not in self._cache:
            row = self.db.execute("SELECT body FROM documents WHERE key = ?", (key,)).fetchone()
            self._cache[key] = None if row is None or row[0] is None else json.loads(row[0])
        return self._cache[key]

    def put(self, key: str, body: Any) -> None:
        self._dirty[key] = self._cache[key] = body
        self._index(key, True)

    def drop(self, key: str) -> None:
        self._dirty[key] = self._cache[key] = None
        self._index(key, False)

    def keys(self, group: str) -> list[str]:
        """The keys `<group>|<last part>`, sorted."""
        if self._keys is None:
            found: dict[str, set[str]] = {}
            for (key,) in self.db.execute("SELECT key FROM documents WHERE body IS NOT NULL"):
                found.setdefault(key.rpartition(SEP)[0], set()).add(key)
            self._keys = found
            for key, body in self._dirty.items():
                self._index(key, body is not None)
        if group not in self._sorted:
            self._sorted[group] = sorted(self._keys.get(group, ()))
        return self._sorted[group]

    def enqueue(self, controller: str, key: str, at: float) -> None:
        """Have `controller` look at `key` at `at`, or earlier if that is planned already."""
        self.db.execute(
            "INSERT INTO queue (controller, key, at) VALUES (?, ?, ?) "
            "ON CONFLICT (controller, key) DO UPDATE SET at = min(at, excluded.at)",
            (controller, key, at),
        )

    def next_due(self) -> float | None:
        row = self.db.execute("SELECT at FROM queue ORDER BY at, seq LIMIT 1").fetchone()
        return None if row is None else float(row[0])

    def take_due(self, now: float) -> tuple[str, str] | None:
        row = self.db.execute(
            "SELECT seq, controller, key FROM queue WHERE at <= ? ORDER BY at, seq LIMIT 1", (now,)
        ).fetchone()
        if row is None:
            return None
        self.db.execute("DELETE FROM queue WHERE seq = ?", (row[0],))
        return row[1], row[2]

    def record_event(self, version: int, kind: str, api: str, of: str, body: Any) -> None:
        """Keep one change for watches: `kind` is ADDED, MODIFIED or DELETED."""
        self.db.execute(
            "INSERT INTO history VALUES (?, ?, ?, ?, ?)",
            (version, kind, api, of, json.dumps(body, separators=(",", ":"))),
        )

    def events(self, api: str, kind: str, since: int) -> tuple[tuple[int, str, str], ...]:
        """The (version, type, JSON) of the changes of one kind after `since`."""
        found = self.db.execute(
            "SELECT rv, type, body FROM history WHERE rv > ? AND api = ? AND kind = ? ORDER BY rv",
            (since, api, kind),
        )
        return tuple(found)

    def record_call(
        self, at: float, pid: int, port: str, node: str, verb: str, what: str, outcome: str
    ) -> None:
        self.db.execute(
            "INSERT INTO log (at, pid, port, node, verb, text, outcome) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (at, pid, port, node, verb, what, outcome),
        )

    def peek(self, key: str) -> Any:
        """A document as last committed by anybody, outside a call."""
        with self._lock:
            row = self.db.execute("SELECT body FROM documents WHERE key = ?", (key,)).fetchone()
        return None if row is None or row[0] is None else json.loads(row[0])

    def armed_faults(self) -> list[tuple[int, str, int, str, int]]:
        """The (id, match, nth, effect, seen) of every fault that has not fired."""
        return self.db.execute(
            "SELECT id, match, nth, effect, seen FROM faults WHERE fired = 0 ORDER BY id"
        ).fetchall()

    def count_fault(self, fault: int, seen: int, fired: bool) -> None:
        self.db.execute("UPDATE faults SET seen = ?, fired = ? WHERE id = ?", (seen, fired, fault))
