"""Jobs that crash, meet faults and live among other people, in orders that nobody thought of; the promises hold."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from crash.lives import MUTATING, Boundary, Ended, Job, is_mutating, job_of, kill_at
from crash.others import NETWORK, ROLLOUT, cordon, delete_port, move_vm, set_pair, small_world
from crash.replay import Replay
from state import schema
from state.journal import UNFINISHED, Journal
from state.store import Store

CODES = {0, 1, 3, 4, 7, 130}
KILLED = -signal.SIGKILL
NODES = ("worker-01", "worker-02", "worker-03")
OUTER = "patch-vlan224_ovn_localnet_port-to-br-int"
ALL_MIGRATIONS_OVER = 600
nodes = st.sampled_from(NODES)
moments = st.integers(0, 60)


class Jobs(RuleBasedStateMachine):
    """One job after the other on one world: whatever happens in between, what was promised holds at every instant."""

    rollout: ClassVar[str] = ""
    job: Job

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ovsplan-machine-"))
        self.hand = 0
        self.tampered = False

    @initialize(
        foreign=st.sampled_from([None, *NODES]),
        orphaned=st.booleans(),
        silent=st.sets(st.sampled_from(["a-1", "b-1", "a-2"])),
    )
    def begin(self, foreign: str | None, orphaned: bool, silent: set[str]) -> None:
        spec = world_of(foreign, orphaned, silent)
        texts = {"network.yaml": NETWORK, **({"rollout.yaml": self.rollout} if self.rollout else {})}
        self.job = job_of(self.folder / "job", spec, texts)
        pairs = {"physnet": "br-ex", "vmnet": "br-vmdata", "storage": "br-storage"}
        self.replay = Replay({node: pairs for node in NODES})

    # What we do.

    @rule()
    def apply(self) -> None:
        before = self._fired()
        if self._unfinished() is None:
            self.tampered = False
        ended = self._ran(self.job.apply())
        if ended.code == 0 and self._fired() == before and not self.tampered:
            self._is_done()

    @rule(moment=moments)
    def apply_and_crash(self, moment: int) -> None:
        self._ran(self.job.apply(boundary=kill_at(moment)), may_die=True)

    @rule(moment=moments)
    def apply_and_be_stopped(self, moment: int) -> None:
        self._ran(self.job.apply(boundary=stop_at(moment, self.job.state)))

    @rule()
    def plan(self) -> None:
        before = self.job.log()
        self._ran(self.job.run("plan"))
        assert not any(is_mutating(call) for call in self.job.log()[len(before) :])

    @precondition(lambda self: self._unfinished() is not None)
    @rule()
    def abandon(self) -> None:
        assert self.job.run("abandon", str(self._unfinished())).code == 0

    # What goes wrong.

    @rule(
        match=st.sampled_from([*MUTATING.values(), "cluster - list *", "ovsdb * transact *"]),
        nth=st.integers(1, 4),
        effect=st.sampled_from(["fail", "hang", "lose-reply", "kill", "kill-after"]),
    )
    def fault(self, match: str, nth: int, effect: str) -> None:
        self.job.fault(match, nth, effect)

    # What other people do.

    @rule(
        node=nodes, localnet=st.sampled_from(["storage", "theirs"]), to=st.sampled_from(["br-ex", "br-phy"])
    )
    def others_change_their_pair(self, node: str, localnet: str, to: str) -> None:
        with self.job.world() as world:
            set_pair(world, node, localnet, to)

    @rule(node=nodes, to=st.sampled_from(["br-vmdata", "br-storage", "br-phy"]))
    def others_change_our_pair(self, node: str, to: str) -> None:
        self.tampered = True  # a run that resumes need not look back at nodes that it has done
        with self.job.world() as world:
            if to in world.show()["nodes"][node]["bridges"]:
                set_pair(world, node, "vmnet", to)

    @rule(node=nodes, on=st.booleans())
    def others_cordon(self, node: str, on: bool) -> None:
        with self.job.world() as world:
            cordon(world, node, on=on)

    @rule(node=nodes)
    def others_delete_a_patch_port(self, node: str) -> None:
        self.tampered = True  # a run that resumes need not look back at nodes that it has done
        with self.job.world() as world:
            delete_port(world, node, OUTER)
            world.tick(1)

    @rule(vm=st.sampled_from(["a-1", "b-1", "a-2"]), node=nodes)
    def others_move_a_vm(self, vm: str, node: str) -> None:
        self.hand += 1
        with self.job.world() as world:
            shown = world.show()
            moving = any(m["phase"] not in ("Succeeded", "Failed") for m in shown["migrations"].values())
            if not moving and shown["vms"][f"default/{vm}"]["node"] != node:
                move_vm(world, f"default/{vm}", node, f"by-hand-{self.hand}")

    # What is promised.

    @invariant()
    def nothing_of_others_is_ever_changed(self) -> None:
        if hasattr(self, "job"):
            self.replay.read(self.job.log())
            assert self.replay.wrong == []
            assert all(pairs["physnet"] == "br-ex" for pairs in self.replay.mappings.values())

    @invariant()
    def no_step_is_done_twice(self) -> None:
        if hasattr(self, "job") and self.job.state.exists():
            assert [step for step, count in _done(self.job.state).items() if count > 1] == []

    def teardown(self) -> None:
        if hasattr(self, "job"):
            self._comes_to_its_end()
        shutil.rmtree(self.folder)

    def _comes_to_its_end(self) -> None:
        """Whatever was done to it: once people leave it alone, a new plan brings the world to where it should be."""
        if (run := self._unfinished()) is not None:
            assert self.job.run("abandon", run).code == 0
        with self.job.world() as world:
            for node in NODES:
                cordon(world, node, on=False)
            world.tick(ALL_MIGRATIONS_OVER)
        ended = self._undisturbed("apply")
        if "was blocked" in ended.err:
            ended = self._undisturbed("apply")  # that was the plan of a moment in which a node did not answer
        assert ended.code == 0, ended.text
        self._is_done()

    def _is_done(self) -> None:
        assert "No changes." in self._undisturbed("plan").out
        with self.job.world() as world:
            world.tick(2)
            dark = {name: vm["why"] for name, vm in world.show()["vms"].items() if not vm["reachable"]}
        assert dark == {}

    def _undisturbed(self, verb: str) -> Ended:
        """Run it until no fault meets it."""
        while True:
            before = self._fired()
            ended = self._ran(self.job.run(verb))
            if self._fired() == before:
                return ended

    def _ran(self, ended: Ended, *, may_die: bool = False) -> Ended:
        assert not ended.crashed, ended.text
        killed = {KILLED} if may_die or "kill" in self.job.log()[-1].outcome else set()
        assert ended.code in CODES | killed, ended.text
        return ended

    def _fired(self) -> int:
        with self.job.world() as world:
            return sum(fault.fired for fault in world.faults())

    def _unfinished(self) -> str | None:
        if not hasattr(self, "job") or not self.job.state.exists():
            return None
        with self.job.journal() as journal:
            found = journal.unfinished()
        return found.id if found else None


def _done(state: Path) -> Counter[tuple[str, str]]:
    """How often each action of each run was done."""
    store = Store(state)
    s = schema.steps.c
    with store.read() as db:
        rows = db.execute(select(s.run, s.action).where(s.status == "done")).all()
    store.close()
    return Counter((row.run, row.action) for row in rows)


def stop_at(moment: int, state: Path) -> Boundary:
    """Ask the run to stop, as another terminal does, at a commit of its journal."""
    seen = 0

    def at(_: str) -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            store = Store(state)
            runs = [run for run in Journal(store).runs() if run.status in UNFINISHED]
            if runs:
                Journal(store).request_stop(runs[0].id, "somebody", 0.0)
            store.close()

    return at


def world_of(foreign: str | None, orphaned: bool, silent: set[str]) -> dict[str, Any]:
    """Three nodes, the last without a VM; one may be cordoned by somebody else, all may have lost their old uplink."""
    spec = small_world(nodes={node: {"cordoned": True} if node == foreign else {} for node in NODES})
    spec["vms"] = {
        f"default/{name}": {
            "node": f"worker-0{name[-1]}",
            "networks": {"net": {"nad": "default/vlan224", "mac": f"02:00:00:00:e0:0{number}"}},
            "silent": name in silent,
        }
        for number, name in enumerate(("a-1", "b-1", "a-2"))
    }
    if orphaned:
        nics = {name: link for name, link in spec["nodeDefaults"]["nics"].items() if name != "bond0"}
        spec["nodeDefaults"] = {**spec["nodeDefaults"], "nics": nics}
    return spec


class ColdJobs(Jobs):
    """The same, with a rollout that empties each node first."""

    rollout = ROLLOUT.replace("[worker-01, worker-02]", "[worker-01, worker-02, worker-03]")


BOUNDED = settings(
    max_examples=12,
    stateful_step_count=12,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
TestHotJobs = Jobs.TestCase
TestHotJobs.settings = BOUNDED
TestColdJobs = ColdJobs.TestCase
TestColdJobs.settings = BOUNDED
