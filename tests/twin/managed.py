"""Nodes whose bridges NetworkManager made, and `nmstatectl` on them, watched instant by instant."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from providers.ports import Finished
from providers.twin import TwinWorld

from .worlds import SPEC, bridge_of, make

NODE = "worker-01"
NEWER, OLDER = "25.03.0", "23.03.1"
NMSTATE = "2.2.62"
TALKER = "default/talker"

PROCEDURE: dict[str, Any] = {
    "interfaces": [{"name": "br-vmdata", "type": "ovs-bridge", "state": "absent"}],
    "ovn": {"bridge-mappings": [{"localnet": "vmnet", "bridge": "br-phy", "state": "present"}]},
}


def mapped_to(bridge: str, localnet: str = "vmnet") -> dict[str, Any]:
    return {"ovn": {"bridge-mappings": [{"localnet": localnet, "bridge": bridge}]}}


def absent(bridge: str) -> dict[str, Any]:
    return {"interfaces": [{"name": bridge, "type": "ovs-bridge", "state": "absent"}]}


def bridge(name: str, *ports: Any, extra: bool = True, **more: Any) -> dict[str, Any]:
    """A bridge with exactly these ports (names, or whole entries)."""
    listed = [{"name": port} if isinstance(port, str) else port for port in ports]
    body = {"allow-extra-patch-ports": extra, "options": {"datapath": "netdev"}, "port": listed}
    return {"interfaces": [{"name": name, "type": "ovs-bridge", "state": "up", "bridge": body, **more}]}


def bond(*members: str, interval: int = 10000) -> dict[str, Any]:
    """br-phy's bond."""
    config = {"other_config": {"bond-rebalance-interval": interval}}
    listed = [{"name": member} for member in members]
    return {"name": "ovs-bond", "link-aggregation": {"mode": "balance-slb", "port": listed, "ovs-db": config}}


PATCH = {"name": "patch-phy-to-ex", "vlan": {"mode": "access", "tag": 100}}


def managed(folder: Path, ovn: str = NEWER, nmstate: str | None = NMSTATE, **changes: Any) -> TwinWorld:
    """The world of the other tests, its bridges made by NetworkManager."""
    defaults = copy.deepcopy(SPEC["nodeDefaults"])
    for made in defaults["bridges"].values():
        made["madeBy"] = "networkmanager"
    defaults["bridges"]["br-ex"]["ports"]["br-ex"] = {"internal": True}
    return make(folder, **{"ovn": ovn, "nmstate": nmstate, "nodeDefaults": defaults, **changes})


@dataclass(frozen=True, slots=True)
class Seen:
    """One node at one instant, `at` seconds after the start. A bridge that is not there is None in `ports`."""

    at: float
    mapping: str
    patch: str | None
    ports: dict[str, list[str] | None]
    reached: bool


@dataclass(frozen=True, slots=True)
class Run:
    """One command, and the node at every instant at which something happened while it ran."""

    done: Finished
    seconds: float
    seen: tuple[Seen, ...]

    @property
    def error(self) -> str:
        """The last line of what it said, when it failed."""
        return self.done.err.rstrip("\n").rpartition("\n")[2] if self.done.rc else ""

    def first(self, holds: Callable[[Seen], bool]) -> float:
        """The first instant at which this holds."""
        return next(seen.at for seen in self.seen if holds(seen))

    def dark(self) -> float:
        """Seconds during which the VM was not reached."""
        pairs = zip(self.seen, self.seen[1:], strict=False)
        return sum(after.at - before.at for before, after in pairs if not before.reached)


def start(
    world: TwinWorld, *argv: str, document: Any = None, unit: str = "command", node: str = NODE
) -> None:
    stdin = b"" if document is None else json.dumps(document).encode()
    with world._call() as host:
        host.begin(node, unit, ["nmstatectl", *argv], stdin)


def ended(world: TwinWorld, unit: str = "command", node: str = NODE) -> Finished | None:
    with world._call() as host:
        return host.ended(node, unit)


def watch(world: TwinWorld, seconds: float, stop: Callable[[], bool] = lambda: False) -> list[Seen]:
    """Let time pass up to `seconds`, and look whenever something happens."""
    begun = world.clock.now()
    seen = [look(world, begun)]
    while not stop() and world.clock.now() < begun + seconds - 1e-6:
        with world._call() as host:
            host.step(begun + seconds)
        seen.append(look(world, begun))
    return seen


def look(world: TwinWorld, begun: float, node: str = NODE) -> Seen:
    shown = world.show()
    found = shown["nodes"][node]
    bridges = {name: found["bridges"].get(name) for name in ("br-vmdata", "br-phy")}
    return Seen(
        world.clock.now() - begun,
        found["mapping"],
        bridge_of(world, node, "patch-vlan224_ovn_localnet_port-to-br-int"),
        {name: None if held is None else sorted(held["ports"]) for name, held in bridges.items()},
        TALKER not in shown["vms"] or shown["vms"][TALKER]["reachable"],
    )


def run(world: TwinWorld, *argv: str, document: Any = None, unit: str = "command") -> Run:
    """A command from its start to its end."""
    start(world, *argv, document=document, unit=unit)
    seen = watch(world, 60, lambda: ended(world, unit) is not None)
    done = ended(world, unit)
    assert done is not None
    return Run(done, seen[-1].at, tuple(seen))


def apply(world: TwinWorld, document: Any, *options: str) -> Run:
    return run(world, "apply", *options, document=document)


def shown(world: TwinWorld) -> Any:
    """What `nmstatectl show` says."""
    done = world.shell(NODE).run(["nmstatectl", "show", "--json"], timeout=5)
    assert done.rc == 0, done.err
    return json.loads(done.out)


def interface(world: TwinWorld, name: str, kind: str) -> Any:
    found = [i for i in shown(world)["interfaces"] if (i["name"], i["type"]) == (name, kind)]
    return found[0] if found else None
