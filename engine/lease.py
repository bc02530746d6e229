"""The Lease: one apply at a time on one cluster, wherever it was started.

The lock of a store keeps two applies of one folder apart; this keeps apart those of two laptops. Invariant: whoever
acts holds the cluster's Lease, every change of it is a compare-and-swap, and who has lost it stops before the next op.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from plans.errors import InputError, Locked
from providers.ports import (
    AlreadyExists,
    Body,
    Clock,
    Cluster,
    Conflict,
    Create,
    Forbidden,
    InDoubt,
    MergePatch,
    NotFound,
    PortError,
    Ref,
    Unreachable,
)
from state.lock import Holder, death, is_alive

NAMESPACE = "ovsplan"
"""Where all of ovsplan's own objects in a cluster are."""

LEASE = Ref("coordination.k8s.io/v1", "Lease", "ovsplan", NAMESPACE)
HOLDER = "ovsplan.io/holder"
"""The annotation that says more of the holder than `holderIdentity` can."""

DURATION_SECONDS = 60
"""A Lease that was not renewed for so long is stale. It is renewed with every heartbeat of the store's lock."""

SIGN_OF_LIFE_SECONDS = 15.0
"""For so long a stale Lease is watched before it is taken over: its holder's clock may only be slow."""

TRIES = 5
PAUSE_SECONDS = 0.5


class Lease:
    """The Lease of a cluster, held by this process while the `with` block lasts. Raises Locked, InputError, PortError."""

    def __init__(
        self, cluster: Cluster, clock: Clock, me: Holder, *, wall: Callable[[], float] = time.time
    ) -> None:
        """`clock` is the world's, for pauses; the Lease itself goes by the wall's, as all who look at it do."""
        self._cluster = cluster
        self._clock = clock
        self._me = me
        self._wall = wall
        self._identity = f"{me.who}@{me.host}/{me.pid}/{me.token}"
        self._version = ""
        self._renewed = 0.0
        self._lost = ""
        self._trouble = ""
        self._turn = threading.Lock()
        self.taken_from = ""
        """Whose Lease was taken over, and why; empty when it was free."""

    def __enter__(self) -> Lease:
        try:
            self._take()
        except Forbidden as error:
            raise InputError(
                f"cannot take the Lease {NAMESPACE}/{LEASE.name}, without which two laptops could apply at the same "
                f"time: {error}. The roles in deploy/rbac.yaml grant it."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        with self._turn:
            if self._lost:
                return
            try:
                self._write(_free(), self._version)
            except PortError:
                return  # a Lease that can't be given back is stale within a minute, and its holder known to be dead

    def renew(self) -> None:
        """Say that we live. Never raises: what came of it is for `guard` to tell."""
        with self._turn:
            self._renew()

    def guard(self) -> None:
        """Return when the Lease is ours. Raises Locked when it was taken away, or could not be renewed for too long."""
        with self._turn:
            # A laptop that slept has missed heartbeats: it must look before it acts.
            if not self._lost and self._age() > DURATION_SECONDS / 2:
                self._renew()
            if self._lost:
                raise Locked(self._lost)
            if self._age() >= DURATION_SECONDS:
                raise Locked(
                    f"the Lease {NAMESPACE}/{LEASE.name} could not be renewed for {self._age():.0f} s ({self._trouble}), "
                    "so another apply may hold it by now: stopped before the next op. `ovsplan apply` resumes."
                )

    def _age(self) -> float:
        return abs(self._wall() - self._renewed)

    def _take(self) -> None:
        trouble: PortError | None = None
        for _ in range(TRIES):
            if trouble is not None:
                self._clock.wait_until(self._clock.now() + PAUSE_SECONDS)
            try:
                made = self._taken()
            except (Conflict, AlreadyExists, InDoubt, Unreachable) as error:
                trouble = error  # somebody was quicker, or an answer was lost: look again
            except NotFound as error:
                self._make_namespace(error)
                trouble = None
            else:
                self._renewed = self._wall()
                self._version = made["metadata"]["resourceVersion"]
                return
        raise trouble or Unreachable(
            f"namespace {NAMESPACE} does not last: it is gone whenever the Lease is made"
        )

    def _taken(self) -> Body:
        found = self._cluster.get(LEASE)
        if found is None:
            return self._cluster.write(Create(LEASE, self._content(taken=True, transitions=0)))
        held = holder_of(found)
        transitions = int(found["spec"].get("leaseTransitions") or 0)
        if held is not None and held.token != self._me.token:
            self.taken_from = self._may_take(found, held)
            transitions += 1
        return self._write(
            self._content(taken=True, transitions=transitions), found["metadata"]["resourceVersion"]
        )

    def _may_take(self, found: Body, held: Holder) -> str:
        """Why a Lease that somebody else holds may be taken. Raises Locked when it may not."""
        if (why := death(held)) is not None:
            return f"{held.describe()}: {why}"
        quiet = self._wall() - held.heartbeat
        lasts = float(found["spec"].get("leaseDurationSeconds") or 0)
        if is_alive(held) or quiet <= lasts or self._is_renewed(found):
            raise Locked(
                f"another apply acts on this cluster: {held.describe()}; it was last seen {max(0.0, quiet):.0f} s ago. "
                "Wait for it, stop it there with `ovsplan stop`, or, if you know that it is dead, run "
                "`ovsplan force-unlock` with this target."
            )
        return f"{held.describe()}: not seen for {quiet:.0f} s"

    def _is_renewed(self, found: Body) -> bool:
        """Whether the holder of a Lease that looks stale is seen to renew it all the same."""
        until = self._clock.now() + SIGN_OF_LIFE_SECONDS
        while self._clock.now() < until:
            self._clock.wait_until(min(until, self._clock.now() + 1))
            now = self._cluster.get(LEASE)
            if now is None or now["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
                return now is not None and holder_of(now) is not None
        return False

    def _make_namespace(self, missing: NotFound) -> None:
        labels = {"app.kubernetes.io/managed-by": "ovsplan"}
        try:
            self._cluster.write(Create(Ref("v1", "Namespace", NAMESPACE), {"metadata": {"labels": labels}}))
        except (AlreadyExists, InDoubt, Unreachable):
            return
        except Forbidden as error:
            raise InputError(
                f"there is no namespace {NAMESPACE}, where the Lease and the copies of runs are kept ({missing}), and it "
                f"can't be made: {error}. Somebody who may has to apply deploy/rbac.yaml once."
            ) from error

    def _renew(self) -> None:
        if self._lost:
            return
        try:
            made = self._write(self._content(taken=False), self._version)
        except (Conflict, NotFound, InDoubt):
            self._look_again()
        except PortError as error:
            self._trouble = str(error)
        else:
            self._version, self._renewed = made["metadata"]["resourceVersion"], self._wall()

    def _look_again(self) -> None:
        """Our last word may have come through, or somebody took the Lease."""
        try:
            found = self._cluster.get(LEASE)
        except PortError as error:
            self._trouble = str(error)
            return
        held = None if found is None else holder_of(found)
        if found is not None and held is not None and held.token == self._me.token:
            self._version, self._renewed = found["metadata"]["resourceVersion"], held.heartbeat
            return
        now = f"it is held by {held.describe()} now" if held else "nobody holds it now"
        self._lost = (
            f"the Lease {NAMESPACE}/{LEASE.name} of this run was taken away (`ovsplan force-unlock`), {now}: "
            "stopped before the next op. `ovsplan apply` resumes."
        )

    def _write(self, content: Body, version: str) -> Body:
        return self._cluster.write(MergePatch(LEASE, content, version))

    def _content(self, *, taken: bool, transitions: int = 0) -> dict[str, Any]:
        now = micro_time(self._wall())
        spec: dict[str, Any] = {"renewTime": now}
        if not taken:
            return {"spec": spec}
        spec |= {
            "holderIdentity": self._identity,
            "acquireTime": now,
            "leaseDurationSeconds": DURATION_SECONDS,
            "leaseTransitions": transitions,
        }
        about = json.dumps(asdict(self._me), sort_keys=True)
        return {"metadata": {"annotations": {HOLDER: about}}, "spec": spec}


def holder_of(lease: Body) -> Holder | None:
    """Who holds a Lease, last seen when it was renewed; None when it is free."""
    spec = lease.get("spec") or {}
    identity = spec.get("holderIdentity")
    if not identity:
        return None
    seen = instant(spec.get("renewTime"))
    about = _about(lease)
    if about is not None and identity.endswith(f"/{about['token']}"):
        return Holder(**{**about, "heartbeat": seen})
    return Holder(identity, identity, "unknown host", "", 0, "", "?", instant(spec.get("acquireTime")), seen)


def _about(lease: Body) -> Mapping[str, Any] | None:
    try:
        about = json.loads((lease["metadata"].get("annotations") or {}).get(HOLDER, "null"))
        return None if about is None else asdict(Holder(**about))
    except (ValueError, TypeError):
        return None  # somebody else's Lease, or a later version's: its holderIdentity has to do


def current(cluster: Cluster) -> Holder | None:
    """Who holds the Lease now. Raises PortError."""
    found = cluster.get(LEASE)
    return None if found is None else holder_of(found)


def is_running(held: Holder, now: float) -> bool:
    """Whether a holder may still be at work: not known to be dead, and seen lately. `now` is the wall's time."""
    return is_alive(held) or (death(held) is None and now - held.heartbeat <= DURATION_SECONDS)


def take_away(cluster: Cluster) -> Holder | None:
    """Take the Lease from whoever holds it; returns them. The loser stops before its next op. Raises PortError."""
    found = cluster.get(LEASE)
    held = None if found is None else holder_of(found)
    if found is not None and held is not None:
        cluster.write(MergePatch(LEASE, _free(), found["metadata"]["resourceVersion"]))
    return held


def _free() -> dict[str, Any]:
    return {"metadata": {"annotations": {HOLDER: None}}, "spec": {"holderIdentity": None}}


def micro_time(at: float) -> str:
    """An instant as a Lease has it, with microseconds."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def instant(text: str | None) -> float:
    """The instant that a Lease names, in seconds since the epoch; 0, long ago, when it names none."""
    if not text:
        return 0.0
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
