"""One apply at a time: the lock of a store.

A lock says who holds it, where, as which process, since when, and when it was last seen alive. A holder that is
provably dead (its process or its boot is gone from this very host) loses it to the next apply, which is written to
the audit; one that can't be judged keeps it until somebody says `force-unlock`. Every intent that the journal takes
is fenced by the holder's token, in the same transaction.
"""

from __future__ import annotations

import getpass
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select, update

from plans.errors import JournalError, Locked
from state import schema
from state.store import Store

HEARTBEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lock. Times are seconds since the epoch, by the wall."""

    token: str
    who: str
    host: str
    boot: str
    pid: int
    process_start: str
    operation: str
    since: float
    heartbeat: float

    def describe(self) -> str:
        """The holder, for a person."""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"{self.who} on {self.host}, pid {self.pid}, `{self.operation}`, since {since}"


def who_am_i() -> str:
    """The user, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _process_start(pid: int) -> str | None:
    """When a process started, in clock ticks since boot, after its PID namespace; None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    words = text.rpartition(")")[2].split()
    return None if words[0] == "Z" else f"{_namespace()}:{words[19]}"


def _namespace() -> str:
    """The PID namespace that we see; process numbers of another one say nothing here."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "unknown"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def death(holder: Holder) -> str | None:
    """Why the holder is certainly dead; None when it lives or can't be judged from here."""
    if holder.host != platform.node():
        return None
    if holder.boot != _boot():
        return "its machine was restarted"
    if not Path("/proc/self/stat").exists() or holder.process_start.rpartition(":")[0] != _namespace():
        return None
    if _process_start(holder.pid) != holder.process_start:
        return f"process {holder.pid} is gone"
    return None


def is_alive(holder: Holder) -> bool:
    """Whether the holder certainly lives: its very process runs on this host."""
    return holder.host == platform.node() and _process_start(holder.pid) == holder.process_start


class Lock:
    """The lock of a store, held by this process while the `with` block lasts. Raises Locked."""

    def __init__(self, store: Store, operation: str) -> None:
        self._store = store
        self.token = secrets.token_hex(8)
        now = time.time()
        self._me = Holder(
            self.token,
            who_am_i(),
            platform.node(),
            _boot(),
            os.getpid(),
            _process_start(os.getpid()) or "unknown:?",
            operation,
            now,
            now,
        )
        self._over = threading.Event()
        self._also: list[Callable[[], object]] = []
        self._beat = threading.Thread(target=self._keep_beating, name="lock-heartbeat", daemon=True)

    @property
    def holder(self) -> Holder:
        """Who we are, as others find us in the lock."""
        return self._me

    def also(self, beat: Callable[[], object]) -> None:
        """Call this with every heartbeat too. It must not raise: the lock would look as if its holder were dead."""
        self._also.append(beat)

    def __enter__(self) -> Lock:
        with self._store.write() as db:
            holder = current(db)
            if holder is not None:
                why = death(holder)
                if why is None:
                    raise Locked(_refusal(holder))
                db.execute(delete(schema.lock))
                note(db, f"took over the lock of {holder.describe()}: {why}")
            db.execute(
                insert(schema.lock).values(id=1, **{k: getattr(self._me, k) for k in Holder.__slots__})
            )
        self._beat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._beat.join()
        try:
            with self._store.write() as db:
                db.execute(delete(schema.lock).where(schema.lock.c.token == self.token))
        except JournalError:
            return  # a store that can't be written any more frees the lock by this process' end

    def fence(self, db: Connection) -> None:
        """Fail the transaction at hand unless the lock is still ours. Raises Locked."""
        mine = update(schema.lock).where(schema.lock.c.token == self.token).values(heartbeat=time.time())
        if db.execute(mine).rowcount != 1:
            raise Locked(
                "the lock of this run was taken away (`ovsplan force-unlock`): stopped before the next step. `ovsplan apply` resumes."
            )

    def _keep_beating(self) -> None:
        store = self._store.another()
        while not self._over.wait(HEARTBEAT_SECONDS):
            # A store that can't be written now: the run finds that out; the Lease goes on meanwhile.
            with suppress(JournalError), store.write() as db:
                db.execute(
                    update(schema.lock).where(schema.lock.c.token == self.token).values(heartbeat=time.time())
                )
            for beat in tuple(self._also):
                beat()
        store.close()


def current(db: Connection) -> Holder | None:
    """Who holds the lock now."""
    row = db.execute(select(schema.lock)).one_or_none()
    return None if row is None else Holder(**{k: getattr(row, k) for k in Holder.__slots__})


def is_held(store: Store) -> bool:
    """Whether somebody holds the lock who may be alive."""
    with store.read() as db:
        holder = current(db)
    return holder is not None and death(holder) is None


def force_unlock(store: Store) -> Holder | None:
    """Take the lock from whoever holds it; returns them. The loser stops before its next step."""
    with store.write() as db:
        holder = current(db)
        if holder is not None:
            db.execute(delete(schema.lock))
            note(db, f"force-unlock: took the lock from {holder.describe()}")
        return holder


def note(db: Connection, what: str) -> None:
    """Write a line of the audit."""
    db.execute(insert(schema.audit).values(at=time.time(), who=who_am_i(), what=what))


def _refusal(holder: Holder) -> str:
    quiet = time.time() - holder.heartbeat
    silent = f" It was last seen {quiet:.0f} s ago." if quiet > SILENT_SECONDS else ""
    elsewhere = (
        " It runs on another host, so from here it can't be told whether it lives."
        if holder.host != platform.node()
        else ""
    )
    return (
        f"another apply holds the lock: {holder.describe()}.{silent}{elsewhere} "
        "Wait for it, stop it with `ovsplan stop`, or, if you know that it is dead, `ovsplan force-unlock`."
    )
