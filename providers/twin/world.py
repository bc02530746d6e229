"""The twin as its users hold it: made from a world file, opened from a folder, looked at, and disturbed.

Invariant: a folder either holds a whole world or none; opening one changes nothing in it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from providers.ports import Clock, Cluster, Nodes, NodeShell, Ovsdb
from providers.twin import forwarding, node_leases, ovs_view
from providers.twin.build import build
from providers.twin.host import Host
from providers.twin.kube import stamp
from providers.twin.networks import KUBEVIRT, running_on
from providers.twin.ovn_controller import MAPPINGS
from providers.twin.served import EFFECTS, Desk, ServedWorld
from providers.twin.spec import CONTROLLERS, WorldError, WorldSpec, read_spec
from providers.twin.stage import Change
from providers.twin.store import FILE, FORMAT, Store


@dataclass(frozen=True, slots=True)
class Call:
    """One row of the log. `node` is "-" for the cluster and the clock; `port` is "other" for somebody else's."""

    seq: int
    at: float
    pid: int
    port: str
    node: str
    verb: str
    text: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Fault:
    """What will go wrong, once, at the `nth` call that matches; `seen` matching calls have come so far."""

    match: str
    nth: int
    effect: str
    seen: int
    fired: bool


def init_world(spec: Mapping[str, Any], folder: Path) -> None:
    """Make a world in `folder` from a world file: the whole document, or its `spec`. Raises WorldError."""
    read = read_spec(spec, folder.resolve().name)
    target = folder / FILE
    if target.exists():
        raise WorldError(f"{folder} already holds a world; choose another folder, or delete it")
    if folder.exists() and not folder.is_dir():
        raise WorldError(f"{folder} is not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f".{FILE}.{os.getpid()}"
    fresh.unlink(missing_ok=True)
    try:
        _write(read, fresh)
        os.link(fresh, target)
    except FileExistsError:
        raise WorldError(f"{folder} was given a world by somebody else just now") from None
    finally:
        fresh.unlink(missing_ok=True)


def _write(spec: WorldSpec, file: Path) -> None:
    store = Store(file)
    try:
        store.create()
        with store.call():
            build(spec, store)
        # The write-ahead log carries the file's name: it has to be empty before the file gets another.
        store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        store.close()


def open_world(folder: Path, *, wall_clock: bool = False) -> TwinWorld:
    """Open the world in `folder`. With `wall_clock`, its time is the machine's. Raises WorldError."""
    if not folder.is_dir():
        raise WorldError(f"there is no folder {folder}")
    if not (folder / FILE).is_file():
        raise WorldError(f"there is no world in {folder} (no {FILE}); make one with `twin init`")
    file = folder / FILE
    store = _open_store(file)
    try:
        return TwinWorld(store, _check(store, file), wall_clock)
    except sqlite3.DatabaseError as error:
        store.close()
        raise WorldError(f"{file} cannot be used: {error}") from error
    except WorldError:
        store.close()
        raise


def _check(store: Store, file: Path) -> str:
    """The name of the world in a store, once it is known to be whole and of use."""
    if store.format > FORMAT:
        raise WorldError(f"{file} has format {store.format}, from a newer version; this one knows {FORMAT}")
    name = store.peek("meta|name") if store.format == FORMAT else None
    if name is None:
        raise WorldError(f"{file} is not a world, or is damaged")
    with store.call():
        # Every call is logged: a folder that can't be written to is of no use.
        return str(name)


def _open_store(file: Path) -> Store:
    try:
        return Store(file)
    except sqlite3.DatabaseError as error:
        raise WorldError(f"{file} cannot be used: {error}") from error


class TwinWorld(Nodes):
    """A whole world behind the ports (`ports.World`), with the means to watch it and to make things go wrong."""

    def __init__(self, store: Store, name: str, wall_clock: bool) -> None:
        self.name = name
        self._store = store
        self._host = Host(store, wall_clock)
        self._served = ServedWorld(Desk(self._host))

    @property
    def cluster(self) -> Cluster:
        return self._served.cluster

    @property
    def clock(self) -> Clock:
        return self._served.clock

    def ovsdb(self, node: str) -> Ovsdb:
        return self._served.ovsdb(node)

    def shell(self, node: str) -> NodeShell:
        return self._served.shell(node)

    def close(self) -> None:
        self._store.close()

    def __enter__(self) -> TwinWorld:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _call(self) -> Iterator[Host]:
        with self._store.call():
            self._host.catch_up()
            yield self._host
            self._host.settle()

    def edit(self) -> ServedWorld:
        """The world as somebody else sees it: the same ports, no faults, logged with port "other"."""
        return ServedWorld(Desk(self._host, other=True))

    def log(self) -> tuple[Call, ...]:
        """Every call served so far, in order."""
        with self._store.call():
            rows = self._store.db.execute(
                "SELECT seq, at, pid, port, node, verb, text, outcome FROM log ORDER BY seq"
            ).fetchall()
        return tuple(Call(*row) for row in rows)

    def add_fault(self, match: str, *, nth: int, effect: str) -> None:
        """Let the `nth` call from now on that matches go wrong. `match` is a pattern over "port node verb text"."""
        if effect not in EFFECTS:
            raise ValueError(f"unknown effect {effect!r}; known: {', '.join(EFFECTS)}")
        if nth < 1:
            raise ValueError(f"nth counts from 1, found {nth}")
        with self._store.call():
            self._store.db.execute(
                "INSERT INTO faults (match, nth, effect, seen, fired) VALUES (?, ?, ?, 0, 0)",
                (match, nth, effect),
            )

    def faults(self) -> tuple[Fault, ...]:
        with self._store.call():
            rows = self._store.db.execute(
                "SELECT match, nth, effect, seen, fired FROM faults ORDER BY id"
            ).fetchall()
        return tuple(Fault(match, nth, effect, seen, bool(fired)) for match, nth, effect, seen, fired in rows)

    def reachable(self, vm: str) -> tuple[bool, str]:
        """Whether a frame from the gateway of each of its VLANs reaches the VM `namespace/name` now; why not."""
        with self._call() as host:
            return forwarding.reachable(host, vm)

    def tick(self, seconds: float) -> None:
        """Let time pass. On the wall's clock it only passes by itself."""
        with self._call() as host:
            host.advance(host.now() + (0.0 if host.wall_clock else seconds))

    def controllers_off(self, *names: str) -> None:
        """Switch controllers off, for good; what they have planned already is dropped."""
        for name in names:
            if name not in CONTROLLERS:
                raise ValueError(f"unknown controller {name!r}; known: {', '.join(CONTROLLERS)}")
        with self._call() as host:
            host.store.put(
                "meta|controllers", {**host.store.get("meta|controllers"), **dict.fromkeys(names, False)}
            )
            for name in names:
                host.store.db.execute("DELETE FROM queue WHERE controller = ?", (name,))

    def set_nic(self, node: str, nic: str, link: str) -> None:
        """Pull a cable or plug it in: `link` is up, down, or gone for a card that disappears."""
        if link not in ("up", "down", "gone"):
            raise ValueError(f"a link is up, down or gone, not {link!r}")
        with self._call() as host:
            others = {name: state for name, state in host.nics(node).items() if name != nic}
            host.store.put(f"nics|{node}", others if link == "gone" else {**others, nic: link})
            host.notify(Change("nics", node))

    def restart_handler(self, node: str) -> None:
        """Let the nmstate handler of a node die and come up again: it forgets its queue, and takes up every policy."""
        with self._call() as host:
            host.notify(Change("handler", node))

    def set_kubelet(self, node: str, runs: bool) -> None:
        """Let the kubelet of a node fall silent, or be heard again; the node's switch and guests go on working."""
        with self._call() as host:
            host.keep(node_leases.STOPPED, node, None if runs else host.now())
            host.notify(Change("kubelet", node))

    def set_reachable(self, node: str, reachable: bool) -> None:
        """Cut or restore the way to a node's database and shell; the node itself goes on working."""
        with self._call() as host:
            if reachable:
                host.store.drop(f"unreachable|{node}")
            else:
                host.store.put(f"unreachable|{node}", True)

    def show(self) -> dict[str, Any]:
        """Everything a person would want to see, as plain JSON."""
        with self._call() as host:
            nodes = host.cluster.list("v1", "Node").items
            vmis = host.cluster.list(KUBEVIRT, "VirtualMachineInstance").items
            moves = host.cluster.list(KUBEVIRT, "VirtualMachineInstanceMigration").items
            return {
                "name": self.name,
                "clock": stamp(host.now()),
                "nodes": {node["metadata"]["name"]: _show_node(host, node) for node in nodes},
                "vms": {_key(vmi): _show_vm(host, vmi) for vmi in vmis},
                "migrations": {
                    _key(move): {"vm": move["spec"]["vmiName"], "phase": move.get("status", {}).get("phase")}
                    for move in moves
                },
            }


def _key(body: Mapping[str, Any]) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"


def _show_node(host: Host, node: Mapping[str, Any]) -> dict[str, Any]:
    name = node["metadata"]["name"]
    view = ovs_view.read(host.ovsdb(name))
    return {
        "cordoned": bool(node.get("spec", {}).get("unschedulable")),
        "mapping": view.external_ids.get(MAPPINGS, ""),
        "bridges": {bridge.name: _show_bridge(bridge) for bridge in view.bridges.values()},
    }


def _show_bridge(bridge: ovs_view.Bridge) -> dict[str, Any]:
    return {
        "ports": {
            iface.name: {"ofport": iface.ofport, "error": iface.error}
            for port in bridge.ports.values()
            for iface in port.interfaces
        }
    }


def _show_vm(host: Host, vmi: Mapping[str, Any]) -> dict[str, Any]:
    reached, why = forwarding.reachable(host, _key(vmi))
    return {"node": running_on(vmi), "silent": host.is_silent(_key(vmi)), "reachable": reached, "why": why}
