"""Whole jobs on a twin of their own, run by real processes that may be killed; and what they left.

Invariant: a life is a forked process that runs the command line as users do, so that what outlives it is on disk.
"""

from __future__ import annotations

import functools
import gc
import importlib
import io
import json
import os
import re
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

import cli.main
import cli.verbs.apply
from engine.execute import Executor
from providers.twin import Call, TwinWorld, init_world, open_world
from state.journal import EventRow, Journal, Run, StepRow
from state.store import Store

# A forked child has what its parent imported: paid for once, not in each of some hundred lives.
for _verb in cli.main.VERBS:
    if _verb != "demo":
        importlib.import_module(f"cli.verbs.{_verb.replace('-', '_')}")
gc.freeze()  # and a collection in a child needn't touch, and so copy, all that it has from here

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = {
    "hot": ("uplink-alive", "hot"),
    "cold": ("uplink-alive", "cold"),
    "orphaned": ("orphaned", "desired"),
    "nncp": ("nncp", "hot"),
}
LEFT_OUT = {"nncp": "worker-02"}
"""A node that a sweep of hundreds of lives does without: there is another like it."""

LIMIT_SECONDS = 60.0
Boundary = Callable[[str], None]


def _nothing(_: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a life ended: an exit code, or the negative number of the signal that killed it."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"

    @property
    def crashed(self) -> bool:
        """Whether the program met an error that it did not expect."""
        return "Traceback" in self.err or self.code == CRASH


CRASH = 70


@dataclass(frozen=True, slots=True)
class Life:
    """A process that runs the command line, and where it prints."""

    pid: int
    folder: Path

    def kill(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def wait(self) -> Ended:
        """Its end; a life that goes on for too long is killed, and its end says so."""
        overdue = time.monotonic() + LIMIT_SECONDS
        pidfd = os.pidfd_open(self.pid)
        try:
            if not select.select([pidfd], [], [], max(0.0, overdue - time.monotonic()))[0]:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"not over after {LIMIT_SECONDS:g} s: {self.printed()}")
        finally:
            os.close(pidfd)
        _, status = os.waitpid(self.pid, 0)
        return Ended(os.waitstatus_to_exitcode(status), self.printed(), self.printed("err"))

    def await_printed(self, text: str, stream: str) -> None:
        """Return once it has printed `text`."""
        overdue = time.monotonic() + LIMIT_SECONDS
        while text not in self.printed(stream):
            assert time.monotonic() < overdue, f"it never printed {text!r}: {self.printed(stream)}"
            time.sleep(0.005)

    def printed(self, stream: str = "out") -> str:
        """What it has printed so far."""
        return (self.folder / f"{stream}.{self.pid}").read_text()


def live(
    folder: Path, *args: str, boundary: Boundary = _nothing, before: Callable[[], object] | None = None
) -> Life:
    """Begin a life: `ovsplan ARGS` in `folder`. `boundary` is called after each commit of the journal, in the child."""
    pid = os.fork()
    if pid == 0:
        _child(folder, list(args), boundary, before)
    return Life(pid, folder)


def _child(
    folder: Path, args: list[str], boundary: Boundary, before: Callable[[], object] | None
) -> NoReturn:
    code = CRASH
    gc.disable()
    try:
        os.chdir(folder)
        _print_to(folder)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if before is not None:
            before()
        vars(cli.verbs.apply)["Executor"] = functools.partial(Executor, boundary=boundary)
        code = cli.main.run(args)
    except BaseException:  # a child must never return into the test runner that it is a copy of
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _print_to(folder: Path) -> None:
    for number, stream in ((1, "out"), (2, "err")):
        target = os.open(folder / f"{stream}.{os.getpid()}", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(target, number)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    sys.stdin = io.StringIO()
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(number, "wb", closefd=False), write_through=True) for number in (1, 2)
    )


@dataclass(frozen=True, slots=True)
class Job:
    """Desired files, a twin and a state database in a folder of their own."""

    folder: Path

    @property
    def world_folder(self) -> Path:
        return self.folder / "world"

    @property
    def state(self) -> Path:
        return self.folder / ".ovsplan" / "state.db"

    def begin(
        self, verb: str, *args: str, boundary: Boundary = _nothing, before: Callable[[], object] | None = None
    ) -> Life:
        target = [] if verb in ("stop", "mark", "abandon", "force-unlock", "show") else ["--twin", "world"]
        approve = ["--auto-approve"] if verb == "apply" else []
        return live(self.folder, verb, *args, *target, *approve, boundary=boundary, before=before)

    def run(self, verb: str, *args: str, boundary: Boundary = _nothing) -> Ended:
        """One life, to its end."""
        return self.begin(verb, *args, boundary=boundary).wait()

    def apply(self, *args: str, boundary: Boundary = _nothing) -> Ended:
        return self.run("apply", *args, boundary=boundary)

    @contextmanager
    def world(self) -> Iterator[TwinWorld]:
        with open_world(self.world_folder) as world:
            yield world

    def log(self) -> tuple[Call, ...]:
        with self.world() as world:
            return world.log()

    def fault(self, match: str, nth: int, effect: str) -> None:
        with self.world() as world:
            world.add_fault(match, nth=nth, effect=effect)

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        store = Store(self.state)
        try:
            yield Journal(store)
        finally:
            store.close()

    def latest(self) -> Run:
        with self.journal() as journal:
            return journal.runs()[0]

    def runs(self) -> list[str]:
        """The ids of its runs, the newest first."""
        with self.journal() as journal:
            return [run.id for run in journal.runs()]

    def steps(self) -> dict[str, StepRow]:
        with self.journal() as journal:
            return journal.steps(journal.runs()[0].id)

    def events(self, action: str) -> list[EventRow]:
        with self.journal() as journal:
            return journal.events(journal.runs()[0].id, action)


def make_job(folder: Path, example: str) -> Job:
    """One of the examples, in `folder`."""
    name, rollout = EXAMPLES[example]
    spec = yaml.safe_load((ROOT / "examples" / name / "world.yaml").read_text())
    if node := LEFT_OUT.get(example):
        del spec["spec"]["nodes"][node]
        spec["spec"]["vms"] = {vm: how for vm, how in spec["spec"]["vms"].items() if how["node"] != node}
        objects = [one for one in spec["spec"]["objects"] if one.get("spec", {}).get("nodeName") != node]
        spec["spec"]["objects"] = objects
    texts = {
        path.name: path.read_text() for path in sorted((ROOT / "examples" / name / rollout).glob("*.yaml"))
    }
    return job_of(folder, spec, texts)


def job_of(folder: Path, spec: Mapping[str, Any], texts: Mapping[str, str]) -> Job:
    """A job on a world of `spec` with these desired files."""
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    init_world(spec, folder / "world")
    return Job(folder)


def kill_at(n: int) -> Boundary:
    """End the process, as the kernel would, at the `n`-th commit of the journal (from 0)."""
    seen = 0

    def at(_: str) -> None:
        nonlocal seen
        if seen == n:
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()
        seen += 1

    return at


def kill_when(name: str, nth: int) -> Boundary:
    """End the process at the `nth` commit of that name (from 1)."""
    return at(name, nth, lambda: os.kill(os.getpid(), signal.SIGKILL))


def at(name: str, nth: int, act: Callable[[], object]) -> Boundary:
    """Do something at the `nth` commit of that name (from 1)."""
    seen = 0

    def met(what: str) -> None:
        nonlocal seen
        seen += what == name
        if what == name and seen == nth:
            act()

    return met


class Halt:
    """A commit at which a life waits until it is told to go on; and how to await that it has got there."""

    def __init__(self) -> None:
        self._reached = os.pipe()
        self._go = os.pipe()

    def at(self, name: str, nth: int) -> Boundary:
        return at(name, nth, self._wait)

    def _wait(self) -> None:
        os.write(self._reached[1], b"x")
        os.read(self._go[0], 1)

    def await_reached(self, life: Life) -> None:
        """Return once `life` has come to the commit."""
        pidfd = os.pidfd_open(life.pid)
        found = select.select([self._reached[0], pidfd], [], [], LIMIT_SECONDS)[0]
        os.close(pidfd)
        assert self._reached[0] in found, f"it never came there: {life.printed()}{life.printed('err')}"
        os.read(self._reached[0], 1)

    def go_on(self) -> None:
        os.write(self._go[1], b"x")

    def close(self) -> None:
        for end in (*self._reached, *self._go):
            os.close(end)


def note_in(file: Path) -> Boundary:
    """Write the name of each commit into a file."""

    def at(name: str) -> None:
        with file.open("a") as out:
            out.write(f"{name}\n")

    return at


# What became of a world.

WRITES = ("insert", "update", "mutate", "delete")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
_POD_PORT = re.compile(r"^[0-9a-f]{12}_\d+$")
MUTATING = {
    "node patch": "cluster - patch Node *}",
    "migration": "cluster - create VirtualMachineInstanceMigration *}",
    "ovsdb": 'ovsdb * transact *"op":"mutate"*',
    "announcement": "shell * run ovs-ofctl packet-out *",
    "lease": "cluster - [!g]* Lease *}",
    "copy": "cluster - apply Secret *-head as *}",
}
"""Calls that write something, as faults name them; one that is only rehearsed ends in no brace."""

BOOKKEEPING = ("Lease ovsplan/", "Secret ovsplan/", "Namespace ovsplan ")
"""What a run keeps in the cluster about itself."""


def is_mutating(call: Call) -> bool:
    """Whether the call may change what the job is about."""
    match call.port:
        case "cluster":
            is_asked = call.verb in ("get", "list", "watch") or call.text.startswith("SelfSubject")
            return not (is_asked or call.text.endswith("(dry run)") or call.text.startswith(BOOKKEEPING))
        case "ovsdb":
            return any(op["op"] in WRITES for op in json.loads(call.text))
        case "shell":
            return "packet-out" in call.text.split()
    return False


def is_done(call: Call) -> bool:
    """Whether the call took effect, whatever became of its answer."""
    return call.outcome.startswith("ok")


def effects(log: tuple[Call, ...]) -> Counter[str]:
    """What took effect and must not do so twice, without what differs from run to run.

    Announcements may repeat, and so may asking vswitchd to look again.
    """
    done = [call for call in log if is_mutating(call) and is_done(call) and call.port != "shell"]
    return Counter(_plain(call) for call in done if not _only_asks_to_look(call))


def _only_asks_to_look(call: Call) -> bool:
    if call.port != "ovsdb":
        return False
    writes = [op for op in json.loads(call.text) if op["op"] in WRITES]
    return all(op.get("mutations") == [["next_cfg", "+=", 1]] for op in writes)


def _plain(call: Call) -> str:
    if call.port == "ovsdb":
        operations = [op for op in json.loads(call.text) if op["op"] in WRITES]
        return f"{call.node} {_UUID.sub('UUID', json.dumps(operations))}"
    text = call.text
    if "VirtualMachineInstanceMigration" in text:
        _, place, body = text.split(" ", 2)
        text = f"migrate {place.partition('/')[0]} {json.dumps(json.loads(body)['spec'], sort_keys=True)}"
    return f"{call.verb} " + _RUN.sub("RUN", re.sub(r" at \d+", "", text))


def picture(world: TwinWorld) -> dict[str, Any]:
    """What a world came to, as far as two runs of one job must agree on it."""
    shown = world.show()
    return {
        "nodes": {
            name: {
                "cordoned": node["cordoned"],
                "mapping": node["mapping"],
                "bridges": {bridge: _ports(what["ports"]) for bridge, what in node["bridges"].items()},
            }
            for name, node in shown["nodes"].items()
        },
        "vms": {
            name: {"node": vm["node"], "reachable": vm["reachable"]} for name, vm in shown["vms"].items()
        },
    }


def _ports(ports: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    """Each port, and whether it is broken. Ports of pods have names that no two runs share: they are counted."""
    found = Counter(_POD_PORT.sub("port of a pod", name) for name in ports)
    broken = {_POD_PORT.sub("port of a pod", name) for name, port in ports.items() if port["error"]}
    return {f"{count} x {name}": name in broken for name, count in found.items()}


def difference(found: Any, wanted: Any, at: str = "") -> list[str]:
    """Where two pictures differ, each place with both values."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            line
            for key in sorted({*found, *wanted})
            for line in difference(found.get(key, "nothing"), wanted.get(key, "nothing"), f"{at}/{key}")
        ]
    return [] if found == wanted else [f"{at}: found {found}, expected {wanted}"]


@dataclass(frozen=True, slots=True)
class Whole:
    """An uninterrupted run of an example: its commits, code, effects, calls, and what the world came to."""

    boundaries: tuple[str, ...]
    code: int
    effects: Counter[str]
    log: tuple[Call, ...]
    picture: dict[str, Any]

    def mutating(self) -> list[tuple[str, int]]:
        """Every call that writes, as a fault addresses it: the pattern, and which of its calls (from 1).

        Of what a run keeps about itself it is every fourth: those calls are alike, and have sweeps of their own.
        """
        found = []
        for name, pattern in MUTATING.items():
            count = sum(1 for call in self.log if _matches(call, pattern))
            step = 4 if name in ("lease", "copy") else 1
            found += [(pattern, nth) for nth in range(1, count + 1, step)]
        return found


def _matches(call: Call, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    return fnmatchcase(f"{call.port} {call.node} {call.verb} {call.text}", pattern)


@functools.cache
def uninterrupted(example: str) -> Whole:
    """What an example comes to when nothing goes wrong; run once in a test process."""
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(Path(folder) / example, example)
        ended = job.apply(boundary=note_in(job.folder / "boundaries"))
        assert not ended.crashed, ended.text
        log = job.log()
        with job.world() as world:
            shown = picture(world)
        boundaries = tuple((job.folder / "boundaries").read_text().split())
    return Whole(boundaries, ended.code, effects(log), log, shown)


def departures(job: Job, last: Ended, whole: Whole) -> list[str]:
    """In what a job that was interrupted, and then resumed to its end, differs from the uninterrupted one."""
    wrong = (
        [] if last.code == whole.code else [f"exit {last.code}, expected {whole.code}: {last.err.strip()}"]
    )
    with job.world() as world:
        wrong += difference(picture(world), whole.picture)
        done = effects(world.log())
    # What ovn-controller was quick enough to do in the one run, and we had to do in the other, is no repetition.
    wrong += [f"{n} times: {what}" for what, n in done.items() if n > max(1, whole.effects[what])]
    after = job.run("plan")
    if "No changes." not in after.out:
        wrong.append(f"plan afterwards: {after.text.strip()}")
    return wrong
