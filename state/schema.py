"""The tables of the state database, and its version.

A change of any table raises VERSION; a program refuses a database that is newer than itself.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, MetaData, Table, Text, UniqueConstraint

VERSION = 1

metadata = MetaData()

meta = Table("meta", metadata, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

plans = Table(
    "plans", metadata,
    Column("digest", Text, primary_key=True),
    Column("document", Text, nullable=False),
)  # fmt: skip

runs = Table(
    "runs", metadata,
    Column("id", Text, primary_key=True),
    Column("plan", Text, nullable=False),
    Column("status", Text, nullable=False),  # running | stopped | failed | moved | done | partial | abandoned
    Column("began", Float, nullable=False),
    Column("ended", Float),
    Column("who", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("message", Text, nullable=False, default=""),
    Column("source", Text, nullable=False, default=""),
    Column("seq", Integer, nullable=False, unique=True),
)  # fmt: skip

steps = Table(
    "steps", metadata,
    Column("id", Integer, primary_key=True),
    Column("run", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status", Text, nullable=False),  # begun | done | failed | marked-done | marked-not-done
    Column("began", Float, nullable=False),
    Column("ended", Float),
    Column("note", Text, nullable=False, default=""),
    Column("proven", Integer),
    UniqueConstraint("run", "action", "attempt"),
)  # fmt: skip

events = Table(
    "events", metadata,
    Column("id", Integer, primary_key=True),
    Column("step", Integer, nullable=False),
    Column("burst", Integer, nullable=False),
    Column("label", Text, nullable=False),
    Column("op", Text, nullable=False),
    Column("intent_at", Float, nullable=False),
    Column("outcome", Text),  # null: in doubt | done | first | timed-out | failed
    Column("outcome_at", Float),
    Column("result", Text),
    Column("message", Text, nullable=False, default=""),
    Index("events_by_step", "step"),
)  # fmt: skip

images = Table(
    "images", metadata,
    Column("id", Integer, primary_key=True),
    Column("run", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("taken_at", Float, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("content", Text, nullable=False),
    Index("images_by_run", "run", "action"),
)  # fmt: skip

lock = Table(
    "lock", metadata,
    Column("id", Integer, primary_key=True),
    Column("token", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("boot", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("process_start", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("since", Float, nullable=False),
    Column("heartbeat", Float, nullable=False),
)  # fmt: skip

audit = Table(
    "audit", metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("who", Text, nullable=False),
    Column("what", Text, nullable=False),
)  # fmt: skip

stop_requests = Table(
    "stop_requests", metadata,
    Column("run", Text, primary_key=True),
    Column("at", Float, nullable=False),
    Column("who", Text, nullable=False),
)  # fmt: skip

IMMUTABLE = tuple(
    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, '{table} are immutable'); END"
    for table in ("images", "plans", "audit")
    for verb in ("UPDATE", "DELETE")
)
"""Before-images, plans and the audit can be added to, never changed (H32)."""
