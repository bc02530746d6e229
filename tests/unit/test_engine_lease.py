"""The Lease of a cluster: who may take it, who keeps it, and who has to stop. On a twin, with a wall clock of its own."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.planning import make_world

from engine import lease as leases
from engine.lease import DURATION_SECONDS, LEASE, Lease, current, micro_time, take_away
from plans.errors import InputError, Locked
from providers.ports import (
    Body,
    Cluster,
    Conflict,
    Create,
    Delete,
    Forbidden,
    InDoubt,
    MergePatch,
    PortError,
    Ref,
    Unreachable,
    Write,
)
from providers.twin import TwinWorld
from state import lock as locks
from state.lock import Holder

NOON = 1_768_438_800.0


@dataclass
class Wall:
    """The time of day, as it is told."""

    time: float = NOON

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TwinWorld]:
    with make_world(tmp_path / "world") as made:
        yield made


def somebody(name: str = "ann", host: str = "elsewhere") -> Holder:
    return Holder(f"token-{name}", name, host, "boot-1", 4711, "1:1", "ovsplan apply", NOON, NOON)


def lease_of(world: TwinWorld, wall: Wall, who: str = "ann", cluster: Cluster | None = None) -> Lease:
    return Lease(cluster or world.cluster, world.clock, somebody(who), wall=wall)


def spec(world: TwinWorld) -> dict[str, Any]:
    found = world.cluster.get(LEASE)
    assert found is not None
    return dict(found["spec"])


class Failing:
    """A cluster whose next writes go wrong: an error before they are done, or after when it is InDoubt."""

    def __init__(self, cluster: Cluster, *errors: PortError) -> None:
        self._cluster = cluster
        self.errors = list(errors)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    def write(self, request: Write, *, dry_run: bool = False) -> Body:
        error = self.errors.pop(0) if self.errors else None
        if error is not None and not isinstance(error, InDoubt):
            raise error
        made = self._cluster.write(request, dry_run=dry_run)
        if error is not None:
            raise error
        return made


def test_it_is_held_while_the_block_lasts_and_free_afterwards(world: TwinWorld, wall: Wall) -> None:
    with lease_of(world, wall) as lease:
        held = spec(world)
        assert held["holderIdentity"].startswith("ann@elsewhere/4711/")
        assert held["leaseDurationSeconds"] == 60
        assert held["renewTime"] == held["acquireTime"] == "2026-01-15T01:00:00.000000Z"
        lease.guard()
        holder = current(world.cluster)
        assert holder is not None and holder.describe().startswith(
            "ann on elsewhere, pid 4711, `ovsplan apply`"
        )
    assert current(world.cluster) is None
    with lease_of(world, wall, "bob") as lease:
        assert lease.taken_from == ""


def test_the_namespace_is_made_when_it_is_missing(world: TwinWorld, wall: Wall) -> None:
    namespace = Ref("v1", "Namespace", "ovsplan")
    assert world.cluster.get(namespace) is None
    with lease_of(world, wall):
        assert world.cluster.get(namespace) is not None


def test_somebody_who_lives_keeps_it(world: TwinWorld, wall: Wall) -> None:
    with lease_of(world, wall):
        wall.time += DURATION_SECONDS - 1
        before = spec(world)
        with (
            pytest.raises(Locked, match=r"ann on elsewhere, pid 4711.*since .*last seen 59 s ago"),
            lease_of(world, wall, "bob"),
        ):
            pass
        assert spec(world) == before


def test_one_not_seen_for_longer_than_it_lasts_is_taken_over(world: TwinWorld, wall: Wall) -> None:
    with lease_of(world, wall) as ann:
        wall.time += DURATION_SECONDS + 1
        with lease_of(world, wall, "bob") as bob:
            assert "ann on elsewhere" in bob.taken_from and "not seen for 61 s" in bob.taken_from
            assert spec(world)["leaseTransitions"] == 1
            with pytest.raises(
                Locked, match=r"was taken away.*held by bob on elsewhere.*`ovsplan apply` resumes"
            ):
                ann.guard()
        bob.guard()
    assert current(world.cluster) is None


def test_one_whose_clock_is_only_slow_is_seen_to_live(world: TwinWorld, wall: Wall) -> None:
    """Its renewals come, and bear times that are long past here."""
    slow = Wall(NOON - 3600)
    with lease_of(world, slow) as ann:

        class Renewing(Failing):
            def get(self, ref: Ref) -> Body | None:
                slow.time += 10
                ann.renew()
                return world.cluster.get(ref)

        with (
            pytest.raises(Locked, match="another apply acts"),
            lease_of(world, wall, "bob", Renewing(world.cluster)),
        ):
            pass
        ann.guard()


def test_a_process_of_this_machine_that_is_gone_has_none(world: TwinWorld, wall: Wall) -> None:
    dead = replace(
        somebody(host=platform.node()), boot=locks._boot(), process_start=f"{locks._namespace()}:1"
    )
    with Lease(world.cluster, world.clock, dead, wall=wall), lease_of(world, wall, "bob") as bob:
        assert "process 4711 is gone" in bob.taken_from


def test_a_process_of_this_machine_that_lives_keeps_it_however_long_it_slept(
    world: TwinWorld, wall: Wall
) -> None:
    start = locks._process_start(os.getpid())
    assert start is not None
    alive = replace(somebody(host=platform.node()), boot=locks._boot(), pid=os.getpid(), process_start=start)
    with Lease(world.cluster, world.clock, alive, wall=wall):
        wall.time += 10 * DURATION_SECONDS
        with pytest.raises(Locked, match="another apply acts"), lease_of(world, wall, "bob"):
            pass


def test_it_is_renewed_by_the_beat_and_so_stays_fresh(world: TwinWorld, wall: Wall) -> None:
    with lease_of(world, wall) as ann:
        for _ in range(20):
            wall.time += 10
            ann.renew()
        assert spec(world)["renewTime"] == micro_time(wall.time)
        ann.guard()


def test_a_laptop_that_slept_looks_before_it_acts(world: TwinWorld, wall: Wall) -> None:
    with lease_of(world, wall) as ann:
        wall.time += 3600
        ann.guard()
        assert spec(world)["renewTime"] == micro_time(wall.time)


def test_who_cannot_renew_it_stops_when_it_may_be_somebody_elses(world: TwinWorld, wall: Wall) -> None:
    cluster = Failing(world.cluster)
    with lease_of(world, wall, cluster=cluster) as ann:
        cluster.errors = [Unreachable("no route")] * 10
        wall.time += DURATION_SECONDS - 1
        ann.guard()
        wall.time += 1
        with pytest.raises(Locked, match=r"could not be renewed for 60 s \(no route\)"):
            ann.guard()
        cluster.errors = []
        ann.guard()


def test_an_answer_that_was_lost_is_no_lost_lease(world: TwinWorld, wall: Wall) -> None:
    cluster = Failing(world.cluster, *[InDoubt("?")] * 2)
    with lease_of(world, wall, cluster=cluster) as ann:
        cluster.errors = [InDoubt("?")]
        wall.time += 10
        ann.renew()
        wall.time += 10
        ann.renew()
        ann.guard()
        assert spec(world)["renewTime"] == micro_time(wall.time)


def test_it_is_taken_by_force_and_the_loser_is_told(world: TwinWorld, wall: Wall) -> None:
    with lease_of(world, wall) as ann:
        taken = take_away(world.cluster)
        assert taken is not None and taken.who == "ann"
        wall.time += 10
        ann.renew()
        with pytest.raises(Locked, match=r"taken away \(`ovsplan force-unlock`\), nobody holds it now"):
            ann.guard()
        assert take_away(world.cluster) is None
        with lease_of(world, wall, "bob") as bob:
            ann.renew()
            bob.renew()
            bob.guard()


def test_deleted_by_hand_it_is_lost(world: TwinWorld, wall: Wall) -> None:
    with lease_of(world, wall) as ann:
        world.cluster.write(Delete(LEASE))
        ann.renew()
        with pytest.raises(Locked):
            ann.guard()


def test_somebody_elses_tool_that_holds_it_is_named_as_it_names_itself(world: TwinWorld, wall: Wall) -> None:
    world.cluster.write(Create(Ref("v1", "Namespace", "ovsplan"), {}))
    held = {"holderIdentity": "robot-7", "renewTime": micro_time(NOON), "leaseDurationSeconds": 60}
    world.cluster.write(Create(LEASE, {"spec": held}))
    with pytest.raises(Locked, match="robot-7"), lease_of(world, wall):
        pass
    world.cluster.write(MergePatch(LEASE, {"spec": {"renewTime": "rubbish"}}))
    with lease_of(world, wall) as ann:
        assert "robot-7" in ann.taken_from


def test_who_is_quicker_has_it(world: TwinWorld, wall: Wall) -> None:
    """Between our look and our write somebody else takes it: the compare-and-swap fails, and we look again."""
    with lease_of(world, wall):
        pass
    world_of_bob = lease_of(world, wall, "bob")

    class Overtaken(Failing):
        def write(self, request: Write, *, dry_run: bool = False) -> Body:
            if current(world.cluster) is None:
                world_of_bob.__enter__()
            return world.cluster.write(request, dry_run=dry_run)

    with (
        pytest.raises(Locked, match="bob on elsewhere"),
        lease_of(world, wall, cluster=Overtaken(world.cluster)),
    ):
        pass
    world_of_bob.guard()


def test_where_it_may_not_be_taken_the_roles_are_named(world: TwinWorld, wall: Wall) -> None:
    error = Forbidden(
        'leases is forbidden: User "ann" cannot create resource "leases" in namespace "ovsplan"'
    )
    with pytest.raises(InputError, match=r'(?s)User "ann" cannot create resource "leases".*deploy/rbac.yaml'):
        lease_of(world, wall, cluster=Failing(world.cluster, error)).__enter__()


def test_what_keeps_going_wrong_is_told_as_it_is(world: TwinWorld, wall: Wall) -> None:
    cluster = Failing(world.cluster, *[Conflict("the object has been modified")] * leases.TRIES)
    with pytest.raises(Conflict):
        lease_of(world, wall, cluster=cluster).__enter__()


def test_times_have_microseconds() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", micro_time(NOON + 0.25))
    assert leases.instant(micro_time(NOON + 0.25)) == NOON + 0.25
    assert leases.instant("2026-01-15T01:00:00Z") == NOON
