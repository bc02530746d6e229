"""Who acts, and what outlives them: the lock and the Lease of an apply, and the copy of its run in the cluster.

Invariant: whatever acts on a target does so between `held` and its end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from cli.wiring import Failures, Opened
from engine import lease as leases
from engine.copies import Copies, Copy, RunCopy, human
from engine.keeping import Keeper
from engine.lease import NAMESPACE, Lease
from engine.reach import Hands, Reporter
from plans.document import Plan
from plans.errors import ActionFailed, InputError
from providers.ports import Forbidden, PortError
from state.head import check
from state.journal import UNFINISHED, Journal, Run
from state.lock import Holder, Lock, is_held, note
from state.store import Store


class StoreAt:
    """The state database at a path, while the `with` block lasts: `found` when it is there, else made when asked for."""

    def __init__(self, path: str, identity: str) -> None:
        self._path = Path(path)
        self._identity = identity
        self.found = Store(self._path, identity) if self._path.exists() else None

    def __enter__(self) -> StoreAt:
        return self

    def __exit__(self, *_: object) -> None:
        if self.found is not None:
            self.found.close()

    def make(self) -> Store:
        """The store, made if need be. Raises JournalError."""
        if self.found is None:
            self.found = Store(self._path, self._identity, create=True)
        return self.found


@dataclass(frozen=True, slots=True)
class Held:
    """An apply that may act: it has the store's lock and the cluster's Lease."""

    store: Store
    lock: Lock
    lease: Lease

    @property
    def journal(self) -> Journal:
        """The journal, each write of which is fenced by the lock."""
        return Journal(self.store, self.lock)


@contextmanager
def held(opened: Opened, store: Store, lock: Lock) -> Iterator[Held]:
    """Take the Lease besides a lock that is held already. Raises Locked, InputError."""
    with Lease(opened.world.cluster, opened.world.clock, lock.holder) as lease:
        lock.also(lease.renew)
        if lease.taken_from:
            click.echo(f"Took over the Lease of {lease.taken_from}.")
            with store.write() as db:
                note(db, f"took over the Lease of {lease.taken_from}")
        yield Held(store, lock, lease)


def standing(store: Store, run: Run) -> str:
    """How a run stands: its status, but `interrupted` when it was left running and nobody carries it on here."""
    return "interrupted" if run.status == "running" and not is_held(store) else run.status


def copies_of(opened: Opened) -> Copies:
    """The copies of runs in the target's cluster."""
    return Copies(opened.world.cluster, opened.world.clock)


def unfinished_copy(copies: Copies, store: Store | None) -> Copy | None:
    """A run that is not over in the cluster, and that this store does not know to be over. Raises InputError."""
    over = {run.id for run in Journal(store).runs() if run.status not in UNFINISHED} if store else set()
    try:
        found = copies.unfinished()
    except Forbidden as error:
        raise InputError(
            f"cannot look for an unfinished run in namespace {NAMESPACE}: {error}. The role ovsplan-writer in "
            "deploy/rbac.yaml grants it; `ovsplan apply --no-copy` neither looks for one nor keeps a copy."
        ) from error
    return next((copy for copy in found if copy.run not in over), None)


def close_own(copies: Copies, held: Held) -> None:
    """Have the copies of runs that this store knows to be over say so too: their last word did not come through."""
    runs = {run.id: run for run in Journal(held.store).runs() if run.status not in UNFINISHED}
    for copy in copies.unfinished():
        if copy.run in runs:
            write_end(copies, held, copy, runs[copy.run])


def write_end(copies: Copies, held: Held, copy: Copy, run: Run) -> None:
    """Have a copy say how its run ended. Raises PortError."""
    plan = Journal(held.store).plan_of(run)
    RunCopy(copies, held.store, run, plan, held.lock.holder.host, held.lease.guard).begin(copy)


def told_of(copy: Copy, run_at: str) -> str:
    """A copy's run, for a person; `run_at` is when it began."""
    return f"run {copy.run}, begun {run_at} by {copy.who}, last on {copy.host}"


def check_plan_of(copies: Copies, copy: Copy, opened: Opened) -> Plan:
    """The plan of a copy, if this version can go on with it here. Raises InputError."""
    check(copy.head, f"the copy of run {copy.run} in namespace {NAMESPACE}")
    plan = copies.plan_of(copy)
    if plan.target.identity != opened.info.identity:
        raise InputError(
            f"the copy of run {copy.run} in namespace {NAMESPACE} is of another cluster ({plan.target.identity}); "
            f"this one is {opened.info.identity}. Somebody copied it here: remove it, with "
            f"`oc delete secret -n {NAMESPACE} -l ovsplan.io/run={copy.run}`."
        )
    return plan


class Kept:
    """The copy of the run that is being carried out. Does nothing with --no-copy."""

    def __init__(self, copies: Copies | None, held: Held, run: Run, plan: Plan) -> None:
        self._copies = copies
        self._copy = (
            RunCopy(copies, held.store, run, plan, held.lock.holder.host, held.lease.guard)
            if copies
            else None
        )
        self._keeper: Keeper | None = None
        self._run = run

    def between(self, hands: Hands, reporter: Reporter) -> tuple[Hands, Reporter]:
        """What the executor gets for its hands and its reporter."""
        if self._copy is None:
            return hands, reporter
        self._keeper = Keeper(self._copy, hands, reporter, Failures())
        return self._keeper, self._keeper

    def begin(self) -> None:
        """Write the plan and the head as it stands. Raises ActionFailed."""
        if self._copies is None or self._copy is None:
            return
        try:
            self._copy.begin(self._copies.find(self._run.id))
        except PortError as error:
            raise ActionFailed(
                f"the copy of the run in namespace {NAMESPACE} could not be written, and nothing was begun: {error}. "
                "`ovsplan apply` tries again; --no-copy goes on without one"
            ) from error

    def end(self) -> None:
        """Write how the run stands now, and say what there is."""
        if self._copies is None or self._copy is None or self._keeper is None:
            return
        self._keeper.keep()
        if self._keeper.trouble:
            click.echo(
                f"The copy of this run in the cluster is not up to date: {self._keeper.trouble}", err=True
            )
            return
        click.echo(f"Copy of this run in the cluster: {in_secrets(self._copy.size)}.")

    def tidy(self) -> None:
        """Remove the copies of runs that ended long ago."""
        if self._copies is None:
            return
        try:
            self._copies.prune()
        except PortError as error:
            click.echo(f"Older copies in the cluster could not be removed: {error}", err=True)


def in_secrets(size: int) -> str:
    """How large a copy is, and where."""
    return f"{human(size)} in Secrets of namespace {NAMESPACE}"


def lease_holder(opened: Opened) -> Holder | None:
    """Who acts on the cluster now, if anybody may. None also when it can't be told."""
    try:
        found = leases.current(opened.world.cluster)
    except PortError:
        return None
    return found if found is not None and leases.is_running(found, time.time()) else None
