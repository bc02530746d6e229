"""Copies of runs in the cluster: a lost laptop loses nothing that matters.

A run's plan, the head of its journal and its before-images are kept in Secrets of our own namespace. Invariant: the
head names all that belongs to it and is written last, so that a copy is either found whole or said to be damaged.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.lease import NAMESPACE, PAUSE_SECONDS
from plans.document import Plan, canonical, pieces, read
from plans.errors import InputError, Locked
from providers.ports import Apply, Body, Clock, Cluster, Conflict, Delete, InDoubt, NotFound, Ref, Unreachable
from state.head import Heads, Image, check, images_after, take_in
from state.journal import UNFINISHED, Run
from state.store import Store

CHUNK = 900_000
"""Bytes in one Secret: etcd takes 1 MiB of an object, names and labels included."""

KEPT = 5
"""How many copies of finished runs are kept."""

TRIES = 4
MANAGER = "ovsplan"
LABEL = "ovsplan.io/run"
PART = "ovsplan.io/part"
STATUS = "ovsplan.io/status"
OURS = {"app.kubernetes.io/managed-by": "ovsplan"}


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a copy: `chunks` Secrets, which together hold `size` bytes, gzipped, of that hash."""

    name: str
    chunks: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy as its head tells it. `store` names the store that wrote it last; `who` and `host` those who ran it."""

    run: str
    status: str
    who: str
    host: str
    store: str
    head: Mapping[str, Any]
    journal: Part
    plan: Part
    images: tuple[Part, ...]
    version: str
    size: int
    last_image: str = ""
    """Which before-image it has last, by `_mark`."""

    @property
    def is_unfinished(self) -> bool:
        """Whether the run is still to be gone on with."""
        return self.status in UNFINISHED

    @property
    def began(self) -> float:
        """When the run began, by the target's clock."""
        return float(self.head["run"]["began"])


class Copies:
    """All copies in one cluster. Every method may raise PortError."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock

    def unfinished(self) -> list[Copy]:
        """The copies of runs that are not over, the latest first. Raises InputError for a head that is damaged."""
        return [self._copy(secret) for secret in self._heads() if _label(secret, STATUS) in UNFINISHED]

    def latest(self) -> Copy | None:
        """The copy to tell of: of the run that is not over, else of the latest. Raises InputError when it is damaged."""
        heads = self._heads()
        return next(iter(self.unfinished()), None) or (self._copy(heads[0]) if heads else None)

    def find(self, run: str) -> Copy | None:
        """The copy of one run."""
        found = self._cluster.get(_ref(run, "head"))
        return None if found is None else self._copy(found)

    def restore(self, copy: Copy, store: Store, source: str = "") -> Run:
        """Write a copy's run into a store, over what that had of it. Raises InputError, JournalError."""
        where = f"the copy of run {copy.run} in namespace {NAMESPACE}"
        check(copy.head, where)
        plan = self._read_part(copy.run, copy.plan).decode()
        if read(plan, where).digest != copy.head["run"]["plan"]:
            raise InputError(_damaged(copy.run, "its plan is another one than its head names"))
        images: list[Image] = []
        for part in copy.images:
            rows = json.loads(self._read_part(copy.run, part))
            images += [Image(0, **{**row, "taken_at": float(row["taken_at"])}) for row in rows]
        take_in(store, copy.head, plan, images, source)
        return self.run_of(copy, source)

    def run_of(self, copy: Copy, source: str = "") -> Run:
        """The run of a copy."""
        row = copy.head["run"]
        return Run(
            copy.run,
            row["plan"],
            row["status"],
            row["began"],
            row["ended"],
            row["who"],
            row["message"],
            source,
        )

    def plan_of(self, copy: Copy) -> Plan:
        """The plan of a copy. Raises InputError."""
        return read(self._read_part(copy.run, copy.plan).decode(), f"the copy of run {copy.run}")

    def write(self, run: str, part: str, texts: Iterable[str]) -> Part:
        """Write one piece of a copy, in as many Secrets as it takes. It is packed bit by bit, and never held whole as it was."""
        packed = _packed(texts)
        chunks = [packed[at : at + CHUNK] for at in range(0, len(packed), CHUNK)] or [b""]
        for number, chunk in enumerate(chunks):
            self._apply(_ref(run, part, number), _body(run, part, {"data": chunk}))
        return Part(part, len(chunks), len(packed), hashlib.sha256(packed).hexdigest())

    def write_head(self, run: str, index: Mapping[str, Any], status: str, version: str) -> str:
        """Write what names all the rest, if it is still at `version`; returns its next one. Raises Conflict."""
        body = _body(run, "head", {"head": canonical(index).encode()}, {STATUS: status})
        if version:
            body["metadata"]["resourceVersion"] = version
        return str(self._apply(_ref(run, "head"), body)["metadata"]["resourceVersion"])

    def remove(self, run: str) -> None:
        """Remove a copy, its head first."""
        names = [secret["metadata"]["name"] for secret in self._list({LABEL: run}, keep=("metadata",))]
        for name in sorted(names, key=lambda name: not name.endswith("-head")):
            try:
                self._cluster.write(Delete(Ref("v1", "Secret", name, NAMESPACE)))
            except NotFound:
                continue

    def prune(self) -> None:
        """Remove the copies of finished runs but for the last KEPT."""
        over = [secret for secret in self._heads() if _label(secret, STATUS) not in UNFINISHED]
        for secret in over[KEPT:]:
            self.remove(_label(secret, LABEL))

    def _heads(self) -> list[Body]:
        """The latest first: a run's name begins with when it began."""
        return sorted(self._list({PART: "head"}), key=lambda secret: _label(secret, LABEL), reverse=True)

    def _list(self, labels: Mapping[str, str], keep: Sequence[str] = ()) -> tuple[Body, ...]:
        return self._cluster.list(
            "v1", "Secret", namespace=NAMESPACE, labels={**OURS, **labels}, keep=keep
        ).items

    def _apply(self, ref: Ref, body: Body) -> Body:
        """Said again when no answer came: the same words twice are said once."""
        for attempt in range(TRIES):
            if attempt:
                self._clock.wait_until(self._clock.now() + PAUSE_SECONDS)
            try:
                return self._cluster.write(Apply(ref, body, MANAGER, force=True))
            except (Unreachable, InDoubt):
                if attempt == TRIES - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _copy(self, secret: Body) -> Copy:
        run = _label(secret, LABEL)
        try:
            index = json.loads(base64.b64decode(secret["data"]["head"]))
            parts = [Part(**index[name]) for name in ("head", "plan")]
            images = tuple(Part(**part) for part in index["images"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(_damaged(run, f"its head can't be read ({error})")) from error
        head = json.loads(self._read_part(run, parts[0]))
        found = (*parts, *images)
        return Copy(
            run=run,
            status=str(head["run"]["status"]),
            who=str(head["run"]["who"]),
            host=str(index["host"]),
            store=str(index["store"]),
            head=head,
            journal=parts[0],
            plan=parts[1],
            images=images,
            version=str(secret["metadata"]["resourceVersion"]),
            size=sum(part.size for part in found),
            last_image=str(index.get("last_image", "")),
        )

    def _read_part(self, run: str, part: Part) -> bytes:
        packed = b""
        for number in range(part.chunks):
            ref = _ref(run, part.name, number)
            secret = self._cluster.get(ref)
            if secret is None:
                raise InputError(_damaged(run, f"Secret {ref.name} is missing"))
            packed += base64.b64decode((secret.get("data") or {}).get("data", ""))
        if hashlib.sha256(packed).hexdigest() != part.sha256:
            raise InputError(_damaged(run, f"its part {part.name} does not fit its hash"))
        return gzip.decompress(packed)


class RunCopy:
    """Keeps the copy of one run up to date. One writer at a time: a head that somebody else wrote meanwhile is a stop."""

    def __init__(
        self, copies: Copies, store: Store, run: Run, plan: Plan, host: str, guard: Callable[[], None]
    ) -> None:
        self._copies = copies
        self._store = store
        self._run = run
        self._plan = plan
        self._host = host
        self._guard = guard
        self._me = store.name()
        self._heads = Heads(store, run, plan)
        self._version = ""
        self._plan_part: Part | None = None
        self._head: Part | None = None
        self._images: list[Part] = []
        self._tail: list[Image] = []
        self._last_image = 0
        self._last_kept = ""

    def begin(self, found: Copy | None) -> None:
        """Write the plan and the first head; `found` is the copy that is there already, of a run that goes on."""
        if found is None:
            self._plan_part = self._copies.write(self._run.id, "plan", pieces(self._plan))
        else:
            self._plan_part, self._head = found.plan, found.journal
            self._images, self._version = list(found.images), found.version
            # Taken is not kept: what a process took that died, or that kept no copy, is written now.
            taken = images_after(self._store, self._run.id, 0)
            self._last_kept = found.last_image
            self._last_image = next((i.id for i in taken if _mark(i) == found.last_image), 0)
        self.push(images=found is not None)

    def push(self, *, images: bool) -> None:
        """Write the head as it stands, with the before-images taken since when `images`. Raises PortError, Locked."""
        self._guard()
        fresh = images_after(self._store, self._run.id, self._last_image) if images else []
        if fresh:
            self._keep(fresh)
            self._last_image, self._last_kept = fresh[-1].id, _mark(fresh[-1])
        head = self._heads.now()
        name = _turn("journal", self._head)
        self._head = self._copies.write(self._run.id, name, [canonical(head)])
        self._name(head["run"]["status"])

    def skip_images(self) -> None:
        """Leave out the images taken so far: of what was only looked at."""
        fresh = images_after(self._store, self._run.id, self._last_image)
        self._last_image = fresh[-1].id if fresh else self._last_image

    @property
    def size(self) -> int:
        """Bytes, as they are kept."""
        parts = (self._plan_part, self._head, *self._images)
        return sum(part.size for part in parts if part is not None)

    def _name(self, status: str) -> None:
        assert self._plan_part is not None and self._head is not None
        index = {
            "store": self._me,
            "host": self._host,
            "head": asdict(self._head),
            "plan": asdict(self._plan_part),
            "images": [asdict(part) for part in self._images],
            "last_image": self._last_kept,
        }
        try:
            self._version = self._copies.write_head(self._run.id, index, status, self._version)
        except Conflict:
            found = self._copies.find(self._run.id)
            if found is None or found.store != self._me:
                raise Locked(
                    f"somebody else goes on with run {self._run.id}: stopped before the next op. "
                    "`ovsplan status` with this target says who."
                ) from None
            # Our own word, the answer to which was lost.
            self._version = self._copies.write_head(self._run.id, index, status, found.version)

    def _keep(self, images: Sequence[Image]) -> None:
        """Add images to the piece begun last while that fits one Secret, else begin another."""
        both = [*self._tail, *images]
        size = sum(len(image.content) for image in both)
        if self._tail and size < CHUNK:
            self._tail, at = both, len(self._images) - 1
        else:
            self._tail, at = list(images), len(self._images)
        rows = [{key: value for key, value in asdict(image).items() if key != "id"} for image in self._tail]
        name = _turn(f"images-{at}", self._images[at] if at < len(self._images) else None)
        self._images[at:] = [self._copies.write(self._run.id, name, [canonical(rows)])]


def _packed(texts: Iterable[str]) -> bytes:
    found = io.BytesIO()
    with gzip.GzipFile(fileobj=found, mode="wb", compresslevel=6, mtime=0) as file:
        for text in texts:
            file.write(text.encode())
    return found.getvalue()


def _mark(image: Image) -> str:
    """What tells a before-image from every other one, in any store."""
    return f"{image.sha256} {image.taken_at}"


def _turn(name: str, before: Part | None) -> str:
    """What the head names stays whole until it names the next: two names take turns."""
    return f"{name}-b" if before is not None and before.name == f"{name}-a" else f"{name}-a"


def _label(secret: Body, name: str) -> str:
    return str((secret["metadata"].get("labels") or {}).get(name, ""))


def _ref(run: str, part: str, number: int | None = None) -> Ref:
    return Ref("v1", "Secret", f"run-{run}-{part}" + ("" if number is None else f"-{number}"), NAMESPACE)


def _body(
    run: str, part: str, data: Mapping[str, bytes], labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    return {
        "metadata": {"labels": {**OURS, LABEL: run, PART: part, **(labels or {})}},
        "data": {name: base64.b64encode(content).decode() for name, content in data.items()},
    }


def _damaged(run: str, why: str) -> str:
    return (
        f"the copy of run {run} in namespace {NAMESPACE} is damaged: {why}. Nothing was done. The state database of "
        f"whoever began it still has the run; without that, remove the copy (`oc delete secret -n {NAMESPACE} -l "
        f"{LABEL}={run}`), look at the nodes, and plan anew."
    )


def human(size: int) -> str:
    """A number of bytes, for a person."""
    return (
        f"{size} B"
        if size < 1000
        else f"{size / 1000:.0f} kB"
        if size < 1_000_000
        else f"{size / 1_000_000:.1f} MB"
    )
