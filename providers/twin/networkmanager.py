"""NetworkManager with its Open vSwitch plug-in, and the nmstatectl commands that are under way on its node.

Invariant: it acts only for its profiles: a port of theirs that disappears comes back `REPAIR` later when there is
something to put there, and a bridge that no profile of its names is never touched. A command's steps happen at
instants of their own; a roll-back restores profiles, and nothing that nmstate wrote into the root row.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from providers.twin import cards, nmstate, nmstate_documents, nmstate_state, versions
from providers.twin.nm_profiles import PortProfile, Profiles, from_json, to_json
from providers.twin.nm_rows import Operations, attach, detach, release, update
from providers.twin.nmstate_documents import NmstateError
from providers.twin.ovs_view import BUMP, CALL, DATABASE
from providers.twin.stage import UNITS, Change, Settings, Stage

NAME = "networkmanager"
CHECKPOINT = "/org/freedesktop/NetworkManager/Checkpoint/"
# Seconds. Those of an apply count from its start, the last four from the step before.
READ = 0.15
CHECKPOINT_AT = 0.25
DELETE = 0.75
ACTIVATE = 0.85
WRITE = 1.05
VERIFY = 1.1
CONFLICT = 2.2
VERIFY_PAUSE = 1.3
ROLLED_BACK = 0.15
REPAIR = 0.015
REACTIVATE = 0.03
TRIES = 10
ROUNDS = 2
_SHAPE = frozenset({"_row", "bridges", "ports", "interfaces"})
_SOON = 1e-6

Memory = dict[str, Any]
Job = dict[str, Any]


def recall(stage: Stage, node: str) -> Memory:
    """What NetworkManager knows on the node; a copy that may be altered and given to `Stage.keep`."""
    kept = stage.recall(NAME, node) or {}
    empty: Memory = {"bridges": {}, "minted": 0, "checkpoint": None, "jobs": {}, "lost": None, "undone": None}
    return {**empty, "checkpoints": 0, **kept, "jobs": dict(kept.get("jobs", {}))}


def profiles(stage: Stage, node: str) -> list[str]:
    """The UUIDs of the profiles of bridges, their ports and interfaces, sorted."""
    found = []
    for bridge in from_json(recall(stage, node)["bridges"]).values():
        found.append(bridge.uuid)
        for port in bridge.ports:
            found += [port.uuid, *(interface.uuid for interface in port.interfaces)]
    return sorted(found)


class NetworkManager:
    name = NAME

    def keys(self, change: Change, settings: Settings) -> Iterable[tuple[str, float]]:
        if change.kind == "nics" or (
            change.kind == "ovsdb" and any(column in _SHAPE for _, column in change.columns)
        ):
            yield change.name, 0.0

    def reconcile(self, stage: Stage, key: str) -> float | None:
        if versions.nmstate(stage, key) is None:
            return None
        node = _Node(stage, key)
        node.expire()
        for unit in sorted(node.memory["jobs"]):
            if node.memory["jobs"][unit]["at"] <= node.now + _SOON:
                node.step(unit)
        node.reactivate()
        node.repair()
        stage.keep(NAME, key, node.memory)
        return node.next_instant()


class _Node:
    """One reconciliation of one node."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage = stage
        self.name = name
        self.now = stage.clock.now()
        self.memory = recall(stage, name)
        self.version = versions.nmstate(stage, name) or ""

    @property
    def profiles(self) -> Profiles:
        return from_json(self.memory["bridges"])

    def rows(self) -> nmstate_state.Rows:
        return nmstate_state.read(self.stage, self.name)

    def transact(self, operations: Operations) -> None:
        """What the database refuses is in NetworkManager's log, and nowhere else."""
        if operations:
            self.stage.ovsdb(self.name).transact(DATABASE, [*operations, BUMP], timeout=CALL)

    def mint(self) -> str:
        self.memory["minted"] += 1
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"profile {self.memory['minted']} of {self.name}"))

    def next_instant(self) -> float | None:
        instants = [job["at"] for job in self.memory["jobs"].values()]
        checkpoint, undone, lost = (self.memory[name] for name in ("checkpoint", "undone", "lost"))
        instants += [checkpoint["ends"]] if checkpoint else []
        instants += [undone["until"]] if undone else []
        instants += [lost + REPAIR] if lost is not None else []
        return min(instants, default=None)

    def become(self, after: Profiles, can_come: Callable[[PortProfile], bool]) -> None:
        """Take the profiles over, and bring the switch in line with them."""
        before = self.profiles
        self.memory["bridges"] = to_json(after)
        self.transact(detach(self.rows(), before, after))
        self.attach(can_come)
        self.transact(update(self.rows(), before, after))

    def attach(self, can_come: Callable[[PortProfile], bool]) -> None:
        for operations in attach(self.rows(), self.profiles, can_come):
            self.transact(operations)

    def can_come(self, port: PortProfile) -> bool:
        return port.can_come(self.stage.nics(self.name))

    def comes_by_itself(self, port: PortProfile) -> bool:
        return port.comes_by_itself(self.stage.nics(self.name))

    def repair(self) -> None:
        """Let go of cards that are gone; notice that ports are missing, and put them back a little later."""
        if self.memory["undone"] or not self.memory["bridges"]:
            return
        self.transact(release(self.rows(), self.profiles))
        missing = any(attach(self.rows(), self.profiles, self.comes_by_itself))
        lost = self.memory["lost"]
        self.memory["lost"] = (self.now if lost is None else lost) if missing else None
        if missing and lost is not None and lost + REPAIR <= self.now + _SOON:
            self.memory["lost"] = None
            self.attach(self.comes_by_itself)

    def set_mtus(self, desired: nmstate_documents.Desired) -> None:
        for interface in desired.interfaces:
            if interface.mtu is not None and interface.state == "up":
                cards.ask(self.stage, self.name, interface.name, interface.mtu)
                self.stage.remind("vswitchd", self.name, self.now)

    def open_checkpoint(self, timeout: float) -> None:
        self.memory["checkpoints"] += 1
        self.memory["checkpoint"] = {
            "number": self.memory["checkpoints"],
            "bridges": self.memory["bridges"],
            "cards": self.stage.recall(cards.MEMORY, self.name),
            "ends": self.now + timeout,
        }

    def expire(self) -> None:
        checkpoint = self.memory["checkpoint"]
        if checkpoint and checkpoint["ends"] <= self.now + _SOON:
            self.roll_back()

    def roll_back(self) -> None:
        """Restore the checkpoint's profiles: what changed goes out now and comes in again `REACTIVATE` later."""
        before, after = self.profiles, from_json(self.memory["checkpoint"]["bridges"])
        self.transact(detach(self.rows(), before, after, again=True))
        if (kept := self.memory["checkpoint"]["cards"]) != self.stage.recall(cards.MEMORY, self.name):
            self.stage.keep(cards.MEMORY, self.name, kept)
            self.stage.remind("vswitchd", self.name, self.now)
        self.memory |= {
            "undone": {"until": self.now + REACTIVATE, "bridges": self.memory["bridges"]},
            "bridges": self.memory["checkpoint"]["bridges"],
            "checkpoint": None,
        }

    def reactivate(self) -> None:
        undone = self.memory["undone"]
        if undone and undone["until"] <= self.now + _SOON:
            self.memory["undone"] = None
            self.attach(self.can_come)
            self.transact(update(self.rows(), from_json(undone["bridges"]), self.profiles))

    def step(self, unit: str) -> None:
        job: Job = dict(self.memory["jobs"].pop(unit))
        try:
            finished = getattr(self, f"do_{job['step']}")(unit, job)
        except NmstateError as error:
            finished = self.end(unit, job, 1, str(error))
        if not finished:
            self.memory["jobs"][unit] = job

    def end(self, unit: str, job: Job, rc: int, err: str, out: str = "") -> bool:
        log = "".join(f"{line}\n" for line in job["log"])
        result = {"rc": rc, "out": out, "err": log + (f"{err}\n" if err else "")}
        self.stage.keep(UNITS, f"{self.name} {unit}", result)
        return True

    def say(self, job: Job, text: str, *, level: str = "INFO ", module: str = "net_state") -> None:
        job["log"] = [*job["log"], log_line(self.now, level, f"nmstate::query_apply::{module}", text)]

    def then(self, job: Job, step: str, at: float) -> bool:
        job |= {"step": step, "at": at}
        return False

    def do_show(self, unit: str, job: Job) -> bool:
        return self.end(unit, job, 0, "", show_text(self.rows(), job["only"]))

    def do_commit(self, unit: str, job: Job) -> bool:
        self.check_named(job)
        self.memory["checkpoint"] = None
        return self.end(unit, job, 0, "")

    def do_rollback(self, unit: str, job: Job) -> bool:
        self.check_named(job)
        self.roll_back()
        return self.then(job, "rolled_back", self.now + ROLLED_BACK)

    def do_rolled_back(self, unit: str, job: Job) -> bool:
        return self.end(unit, job, 0, "")

    def check_named(self, job: Job) -> None:
        checkpoint = self.memory["checkpoint"]
        if job["checkpoint"] and (not checkpoint or job["checkpoint"] != path_of(checkpoint)):
            raise NmstateError(_no_checkpoint(job["checkpoint"]))
        if not checkpoint:
            raise NmstateError("NmstateError: Bug: NotFound: Not active checkpoints")

    def do_read(self, unit: str, job: Job) -> bool:
        """Everything that is decided is decided from what is read here."""
        rows = self.rows()
        desired = nmstate_documents.parse(job["document"])
        shown = nmstate_state.show(rows)
        intent = nmstate.intend(desired, rows, shown, self.profiles, self.version, self.mint)
        job |= {"profiles": to_json(intent.profiles), "root": list(intent.root), "refusal": intent.refusal}
        return self.then(job, "checkpoint", job["begun"] + CHECKPOINT_AT)

    def do_checkpoint(self, unit: str, job: Job) -> bool:
        if self.memory["checkpoint"]:
            return self.then(job, "conflict", job["begun"] + CONFLICT)
        self.open_checkpoint(job["timeout"])
        job["path"] = path_of(self.memory["checkpoint"])
        self.say(job, f"Created checkpoint {job['path']}")
        return self.then(job, "delete", job["begun"] + DELETE)

    def do_conflict(self, unit: str, job: Job) -> bool:
        raise NmstateError(
            "NmstateError: Bug: CheckpointConflict: Another checkpoint exists, please wait its timeout or destroy it"
        )

    def do_delete(self, unit: str, job: Job) -> bool:
        """Absent interfaces first, and the mapping last: between the two a bridge's VMs are dark."""
        wanted = from_json(job["profiles"])
        kept = {name: profile for name, profile in self.profiles.items() if name in wanted}
        self.become(kept, self.comes_by_itself)
        return self.then(job, "activate", self.now + ACTIVATE - DELETE)

    def do_activate(self, unit: str, job: Job) -> bool:
        if job["refusal"]:
            self.roll_back()
            raise NmstateError(job["refusal"])
        self.become(from_json(job["profiles"]), self.can_come)
        self.set_mtus(nmstate_documents.parse(job["document"]))
        return self.then(job, "write", self.now + WRITE - ACTIVATE)

    def do_write(self, unit: str, job: Job) -> bool:
        if job["root"]:
            self.stage.ovsdb(self.name).transact(DATABASE, job["root"], timeout=CALL)
        job["tries"] = 0
        return self.then(job, "verify", self.now + VERIFY - WRITE)

    def do_verify(self, unit: str, job: Job) -> bool:
        try:
            if job["verify"]:
                nmstate.verify(nmstate_documents.parse(job["document"]), nmstate_state.show(self.rows()))
        except NmstateError as error:
            return self.retry(job, str(error))
        checkpoint = self.memory["checkpoint"]
        if not checkpoint or path_of(checkpoint) != job["path"]:
            raise NmstateError(_no_checkpoint(job["path"]))
        if job["commit"]:
            self.memory["checkpoint"] = None
            self.say(job, f"Destroyed checkpoint {job['path']}")
        return self.end(unit, job, 0, "", json.dumps(job["document"], indent=2) + "\n")

    def retry(self, job: Job, error: str) -> bool:
        """Look ten times, do it all once more, look ten times again, then give up."""
        plain = error.removeprefix("NmstateError: ")
        self.say(job, plain, level="ERROR", module="inter_ifaces")
        job["tries"] += 1
        again = job["tries"] < TRIES
        if not plain.startswith("VerificationError") or (not again and job["round"] == ROUNDS):
            if self.memory["checkpoint"]:
                self.roll_back()
            self.say(job, f"Rollbacked to checkpoint {job['path']}")
            job["error"] = error
            return self.then(job, "failed", self.now + ROLLED_BACK)
        self.say(job, f"Retrying on: {plain}")
        if again:
            return self.then(job, "verify", self.now + VERIFY_PAUSE)
        job["round"] += 1
        return self.then(job, "delete", self.now + VERIFY_PAUSE)

    def do_failed(self, unit: str, job: Job) -> bool:
        return self.end(unit, job, 1, job["error"])


def log_line(instant: float, level: str, module: str, text: str) -> str:
    """A line of nmstate's log, as it stands on standard error."""
    stamp = datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"[{stamp} {level} {module}] {text}"


def path_of(checkpoint: Mapping[str, Any]) -> str:
    return f"{CHECKPOINT}{checkpoint['number']}"


def _no_checkpoint(path: str) -> str:
    return f"NmstateError: Bug: Manager(InvalidArguments): checkpoint {path} does not exist"


def show_text(rows: nmstate_state.Rows, only: str) -> str:
    """The output of `nmstatectl show`, or of one interface's name alone. Raises NmstateError."""
    state = nmstate_state.show(rows)
    if only:
        state = {"interfaces": [i for i in state["interfaces"] if i["name"] == only]}
    return json.dumps(state, indent=2) + "\n"
