"""The lock: one apply at a time, and a dead holder told from a live one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert, text

from plans.errors import Locked
from state import lock as locks
from state import schema
from state.lock import Holder, Lock, current, force_unlock
from state.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state.db", "cluster-1", create=True)
    yield opened
    opened.close()


def myself() -> Holder:
    start = locks._process_start(os.getpid())
    assert start is not None
    now = time.time()
    return Holder("t0", "ann", platform.node(), locks._boot(), os.getpid(), start, "ovsplan apply", now, now)


def held_by(store: Store, holder: Holder) -> None:
    with store.write() as db:
        db.execute(insert(schema.lock).values(id=1, **{k: getattr(holder, k) for k in Holder.__slots__}))


def holder_of(store: Store) -> Holder | None:
    with store.read() as db:
        return current(db)


def audit(store: Store) -> list[str]:
    with store.read() as db:
        return [row.what for row in db.execute(text("SELECT what FROM audit ORDER BY id"))]


def test_the_lock_is_held_while_the_block_lasts(store: Store) -> None:
    with Lock(store, "ovsplan apply") as lock:
        holder = holder_of(store)
        assert holder is not None
        assert (holder.token, holder.pid, holder.operation) == (lock.token, os.getpid(), "ovsplan apply")
    assert holder_of(store) is None


def test_the_lock_is_freed_when_the_block_fails(store: Store) -> None:
    with pytest.raises(RuntimeError), Lock(store, "ovsplan apply"):
        raise RuntimeError
    assert holder_of(store) is None


def test_a_second_holder_is_refused_and_told_who_where_and_since_when(store: Store) -> None:
    with Lock(store, "ovsplan apply") as lock, pytest.raises(Locked) as refused, Lock(store, "ovsplan apply"):
        pass
    told = str(refused.value)
    holder = replace(myself(), token=lock.token)
    since = time.strftime("%Y-%m-%d", time.localtime(holder.since))
    assert f"on {platform.node()}, pid {os.getpid()}, `ovsplan apply`, since {since}" in told
    assert locks.who_am_i() in told
    assert "`ovsplan stop`" in told and "`ovsplan force-unlock`" in told


def test_who_was_refused_does_not_take_the_lock_away(store: Store) -> None:
    with Lock(store, "first") as lock:
        with pytest.raises(Locked), Lock(store, "second"):
            pass
        holder = holder_of(store)
        assert holder is not None and holder.token == lock.token


def _dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


def test_a_dead_process_of_this_host_loses_the_lock_and_the_audit_says_so(store: Store) -> None:
    dead = _dead_process()
    held_by(store, replace(myself(), pid=dead))
    with Lock(store, "ovsplan apply") as lock:
        holder = holder_of(store)
        assert holder is not None and holder.token == lock.token
    (line,) = audit(store)
    assert line.startswith("took over the lock of ann on") and line.endswith(f"process {dead} is gone")


def test_another_process_with_the_number_of_the_dead_one_does_not_hold_its_lock(store: Store) -> None:
    held_by(store, replace(myself(), process_start=myself().process_start.rpartition(":")[0] + ":1"))
    with Lock(store, "ovsplan apply"):
        assert audit(store)[0].endswith(f"process {os.getpid()} is gone")


def test_a_boot_that_is_over_took_its_processes_along(store: Store) -> None:
    held_by(store, replace(myself(), boot="an earlier one"))
    with Lock(store, "ovsplan apply"):
        assert audit(store)[0].endswith("its machine was restarted")


def test_a_holder_on_another_host_is_believed_to_live(store: Store) -> None:
    held_by(store, replace(myself(), host="bastion-2", pid=_dead_process(), boot="another"))
    with (
        pytest.raises(
            Locked, match="It runs on another host, so from here it can't be told whether it lives"
        ),
        Lock(store, "ovsplan apply"),
    ):
        pass
    assert audit(store) == []


def test_a_process_of_another_namespace_cannot_be_judged_by_its_number(store: Store) -> None:
    """Two containers of one host see numbers of their own."""
    held_by(store, replace(myself(), pid=_dead_process(), process_start="pid:[1]:99"))
    with pytest.raises(Locked), Lock(store, "ovsplan apply"):
        pass
    assert audit(store) == []


def test_a_process_that_ended_and_that_nobody_buried_is_dead(store: Store) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        start = locks._process_start(process.pid)
        assert start is not None
        held_by(store, replace(myself(), pid=process.pid, process_start=start))
        with pytest.raises(Locked), Lock(store, "ovsplan apply"):
            pass
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with Lock(store, "ovsplan apply"):
            assert audit(store)[0].endswith(f"process {process.pid} is gone")


def test_every_write_of_its_holder_shows_that_it_lives(store: Store) -> None:
    with Lock(store, "ovsplan apply") as lock:
        with store.write() as db:
            db.execute(text("UPDATE lock SET heartbeat = 1"))
            lock.fence(db)
        held = holder_of(store)
        assert held is not None and held.heartbeat > lock.holder.since - 1


def test_what_else_is_to_be_kept_alive_is_called_with_each_heartbeat(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.01)
    beaten = threading.Event()
    with Lock(store, "ovsplan apply") as lock:
        lock.also(beaten.set)
        assert beaten.wait(20)


def test_a_holder_that_is_silent_is_said_to_be_so(store: Store) -> None:
    held_by(store, replace(myself(), host="bastion-2", heartbeat=time.time() - 300))
    with pytest.raises(Locked, match=r"It was last seen 30\d s ago"), Lock(store, "ovsplan apply"):
        pass


def test_the_heartbeat_moves_while_the_lock_is_held(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.01)
    with Lock(store, "ovsplan apply") as lock:
        held = holder_of(store)
        assert held is not None
        deadline = time.monotonic() + 5
        while lock._me.heartbeat == held.heartbeat and time.monotonic() < deadline:
            lock._over.wait(0.01)
            held = holder_of(store)
            assert held is not None
        assert held.heartbeat > lock._me.heartbeat


def test_an_unlock_by_force_names_the_loser_and_is_audited(store: Store) -> None:
    assert force_unlock(store) is None and audit(store) == []
    with Lock(store, "ovsplan apply") as lock:
        loser = force_unlock(store)
        assert loser is not None and loser.token == lock.token
        with pytest.raises(Locked, match="was taken away"), store.write() as db:
            lock.fence(db)
    assert audit(store)[0].startswith("force-unlock: took the lock from ")


def test_a_loser_that_ends_does_not_free_the_winners_lock(store: Store) -> None:
    with Lock(store, "loser"):
        force_unlock(store)
        winner = Lock(store, "winner")
        winner.__enter__()
    holder = holder_of(store)
    assert holder is not None and holder.operation == "winner"
    winner.__exit__()
