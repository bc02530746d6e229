"""The real command against a lab, for the tests of whole migrations.

Invariant: what is tested is the program that a person runs, in a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from cli.target import open_target
from engine.observe import observe
from plans.actions import Done, Finished, Perform, find_routine
from plans.checks import judge_all
from plans.facts import Facts
from plans.ops import Record, Wait
from plans.readings import view_of
from providers.interpreters import Interpreter
from providers.ports import Clock, Ref, World

from .lab import Lab

EXAMPLES = Path(__file__).parents[2] / "examples"


@contextmanager
def lab_of(example: str, folder: Path) -> Iterator[Lab]:
    """A lab of its own for one test, from an example's World file."""
    document = yaml.safe_load((EXAMPLES / example / "world.yaml").read_text())
    with Lab.up(document, folder / "lab") as lab:
        yield lab


class Job:
    """`ovsplan` in a folder of its own, with one lab as its target."""

    def __init__(self, lab: Lab, desired: Path, folder: Path) -> None:
        self.lab = lab
        self.desired = desired
        self.folder = folder
        self.state = folder / "state.db"

    def argv(self, verb: str, *more: str) -> list[str]:
        """The command line of a verb."""
        where = [] if verb == "init" else ["--state", str(self.state)]
        if verb in ("init", "plan", "apply", "status"):
            where += ["--target", str(self.lab.target)]
        return [sys.executable, "-m", "cli.main", verb, *more, *where]

    def run(self, verb: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.argv(verb, *more), cwd=self.folder, capture_output=True, text=True, timeout=300
        )

    def plan(self, *more: str) -> subprocess.CompletedProcess[str]:
        return self.run("plan", str(self.desired), *more)

    def apply(self, *more: str) -> subprocess.CompletedProcess[str]:
        return self.run("apply", str(self.desired), "--auto-approve", *more)

    def start(self) -> subprocess.Popen[str]:
        """Start an apply and leave it running."""
        argv = self.argv("apply", str(self.desired), "--auto-approve")
        return subprocess.Popen(
            argv, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def finish(self, running: subprocess.Popen[str], *, within: float = 240) -> str:
        """What an apply says until its end; AssertionError with it, when there is no end."""
        try:
            return running.communicate(timeout=within)[0]
        except subprocess.TimeoutExpired:
            running.kill()
            raise AssertionError(f"no end within {within:g} s:\n{running.communicate()[0]}") from None

    def kill_at(
        self, running: subprocess.Popen[str], action: str, label: str, *, within: float = 120
    ) -> None:
        """SIGKILL the apply as soon as its journal has an intent for that op."""
        self.await_intent(running, action, label, within=within)
        os.kill(running.pid, signal.SIGKILL)
        running.communicate()

    def await_intent(
        self, running: subprocess.Popen[str], action: str, label: str, *, within: float = 120
    ) -> None:
        """Return as soon as the journal of the apply has an intent for that op."""
        end = time.monotonic() + within
        while not self._has_intent(action, label):
            assert running.poll() is None, running.communicate()[0]
            assert time.monotonic() < end, f"no intent for {label} of {action}"
            time.sleep(0.0005)

    def _has_intent(self, action: str, label: str) -> bool:
        if not self.state.exists():
            return False
        try:
            with sqlite3.connect(f"file:{self.state}?mode=ro", uri=True) as db:
                query = (
                    "SELECT 1 FROM events e JOIN steps s ON s.id = e.step WHERE s.action = ? AND e.label = ?"
                )
                return db.execute(query, (action, label)).fetchone() is not None
        except sqlite3.OperationalError:
            return False  # the apply has not made its tables yet

    def document(self) -> dict[str, object]:
        """The plan, as JSON."""
        found: dict[str, object] = json.loads(self.plan("--json").stdout)
        return found


def play(lab: Lab, routine: str, args: Mapping[str, Any], reads: Sequence[str]) -> None:
    """One routine to its end, without a journal: what an undo is, until a verb of its own does it."""
    hands, clock = Interpreter(lab_world(lab)), lab_world(lab).clock
    outcomes: dict[str, str] = {}
    attempts: dict[str, int] = {}
    while True:
        facts = Facts(observe(hands, clock, reads))
        upcoming = find_routine(routine).step(args, facts, Done("by-hand", outcomes, {}, attempts))
        if isinstance(upcoming, Finished):
            return
        assert isinstance(upcoming, Perform), upcoming
        for op in upcoming.ops:
            attempts[op.label] = attempts.get(op.label, 0) + 1
            outcomes[op.label] = "done"
            if isinstance(op, Wait):
                outcomes[op.label] = _wait(op, hands, clock)
            elif not isinstance(op, Record):
                outcomes[op.label] = hands.perform(op)[0]


def _wait(op: Wait, hands: Interpreter, clock: Clock) -> str:
    views = sorted({view_of(check.path) for check in op.checks})
    end = clock.now() + op.deadline
    while judge_all(op.checks, Facts(observe(hands, clock, views))):
        if clock.now() > end:
            return "timed-out"
        clock.wait_until(clock.now() + 0.01)
    return "done"


def lab_world(lab: Lab) -> World:
    """The lab as the program itself opens it: through its target file."""
    return open_target(twin=None, context=None, target=str(lab.target))[1]


def unschedulable(lab: Lab, node: str) -> bool:
    """Whether the API says that the node is cordoned."""
    found = lab.cluster.get(Ref("v1", "Node", node))
    assert found is not None
    return bool(found["spec"].get("unschedulable"))


def by_hand(lab: Lab, node: str, line: str) -> str:
    """A command line as a person on the node types it."""
    return _on_node(lab, node, ["sh", "-c", line])


def vsctl(lab: Lab, node: str, *words: str) -> str:
    """`ovs-vsctl` on a node."""
    return _on_node(lab, node, ["ovs-vsctl", *words])


def _on_node(lab: Lab, node: str, argv: Sequence[str]) -> str:
    done = lab_world(lab).shell(node).run(argv, timeout=20)
    assert done.rc == 0, (argv, done.err)
    return done.out.strip()
