"""Two nodes whose bridges nmstate made, and the policies that people write for them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from providers.ports import Body, Create, MergePatch, Ref, World
from providers.twin import TwinWorld, init_world, open_world
from twin.worlds import DATABASE, SPEC, transact

POLICY = "NodeNetworkConfigurationPolicy"
ENACTMENT = "NodeNetworkConfigurationEnactment"
STATE = "NodeNetworkState"
VM = "default/talker"
WORKER = {"node-role.kubernetes.io/worker": ""}

NODE1 = {"kubernetes.io/hostname": "node1"}
ABSENT: dict[str, Any] = {"interfaces": [{"name": "br-vmdata", "type": "ovs-bridge", "state": "absent"}]}


def mapped(bridge: str) -> dict[str, Any]:
    """A desired state that maps vmnet to a bridge."""
    return {"ovn": {"bridge-mappings": [{"localnet": "vmnet", "bridge": bridge, "state": "present"}]}}


S47: dict[str, Any] = {**ABSENT, **mapped("br-phy")}
OLD: dict[str, Any] = {
    "interfaces": [
        {
            "name": "br-vmdata",
            "type": "ovs-bridge",
            "state": "up",
            "bridge": {
                "allow-extra-patch-ports": True,
                "options": {"datapath": "netdev"},
                "port": [{"name": "bond0"}],
            },
        }
    ],
    **mapped("br-vmdata"),
}
REFUSED: dict[str, Any] = {"interfaces": [{"name": "only2", "type": "ethernet", "state": "up"}]}

SAMPLES: Mapping[str, Any] = json.loads(
    Path(__file__).with_name("samples").joinpath("operator.json").read_text()
)
"""Objects that the real operator wrote, without their times; long messages as what they begin and end with."""


def spec(**changes: Any) -> dict[str, Any]:
    defaults = copy.deepcopy(SPEC["nodeDefaults"])
    defaults["labels"] = dict(WORKER)
    for bridge in ("br-vmdata", "br-phy"):
        defaults["bridges"][bridge]["madeBy"] = "networkmanager"
    vms = {VM: {**SPEC["vms"][VM], "node": "node1"}}
    found = {
        "networks": SPEC["networks"],
        "nodeDefaults": defaults,
        "nodes": {"node1": {}, "node2": {}},
        "vms": vms,
    }
    return {**found, "nmstate": "2.2.62", "ovn": "25.03.0", **changes}


def make(folder: Path, **changes: Any) -> TwinWorld:
    init_world(spec(**changes), folder)
    return open_world(folder)


def create(
    world: World, name: str, desired: Body, selector: Body = WORKER, at_once: int | str | None = None
) -> Ref:
    ref = Ref("nmstate.io/v1", POLICY, name)
    limit = {} if at_once is None else {"maxUnavailable": at_once}
    world.cluster.write(Create(ref, {"spec": {"desiredState": desired, "nodeSelector": selector, **limit}}))
    return ref


def label(world: World, node: str, **labels: str | None) -> None:
    named = {f"x/{name}": value for name, value in labels.items()}
    world.cluster.write(MergePatch(Ref("v1", "Node", node), {"metadata": {"labels": named}}))


def set_ready(world: World, node: str, ready: bool) -> None:
    status = {"conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}]}
    world.cluster.write(MergePatch(Ref("v1", "Node", node), {"status": status}, subresource="status"))


def nnce_ref(node: str, policy: str) -> Ref:
    return Ref("nmstate.io/v1beta1", ENACTMENT, f"{node}.{policy}")


def nnce(world: World, node: str, policy: str) -> Any:
    return world.cluster.get(nnce_ref(node, policy))


def nns(world: World, node: str) -> Any:
    return world.cluster.get(Ref("nmstate.io/v1beta1", STATE, node))


def trues(body: Any) -> str:
    """The conditions that are True, as `kubectl get` prints them."""
    conditions = (body or {}).get("status", {}).get("conditions", ())
    return ",".join(sorted(c["type"] for c in conditions if c["status"] == "True"))


def said(body: Any, kind: str) -> str:
    """The status and the message of one condition."""
    conditions = (body or {}).get("status", {}).get("conditions", ())
    return next(
        (f"{c['status']} {c.get('message', '')}".strip() for c in conditions if c["type"] == kind), ""
    )


def history(world: World, ref: Ref, since: str) -> list[Any]:
    """Every state of an object since a version, deletions left out."""
    events = world.cluster.watch(ref.api, ref.kind, since=since, timeout=0)
    return [e.object for e in events if e.object["metadata"]["name"] == ref.name and e.type != "DELETED"]


def version(world: World, kind: str) -> str:
    api = "nmstate.io/v1" if kind == POLICY else "nmstate.io/v1beta1"
    return world.cluster.list(api, kind).resource_version


def shape(body: Any) -> dict[str, Any]:
    """An object as the samples have it: without times, uids and versions."""
    status = copy.deepcopy(dict(body.get("status", {})))
    for condition in status.get("conditions", ()):
        del condition["lastHeartbeatTime"], condition["lastTransitionTime"]
    owners = body["metadata"].get("ownerReferences", ())
    return {
        "labels": body["metadata"].get("labels", {}),
        "owner": [[owner["kind"], owner["name"]] for owner in owners],
        "status": status,
    }


def sample(name: str, **policy: str) -> dict[str, Any]:
    """The sample in the form of `shape`. `policy` renames what its name was to what it is here."""
    text = json.dumps({k: v for k, v in SAMPLES[name].items() if k in ("labels", "owner", "status")})
    for before, after in policy.items():
        text = text.replace(before.replace("_", "-"), after)
    found: dict[str, Any] = json.loads(text)
    return found


def switch(world: World, node: str) -> dict[str, Any]:
    """What OVSDB holds, but for what a daemon reports and the count of changes."""
    found: dict[str, Any] = {}
    for table in ("Bridge", "Port", "Interface"):
        rows = transact(world, node, {"op": "select", "table": table, "where": []})[0]["rows"]
        found[table] = {
            row["name"]: [row["_uuid"], row.get("ports"), row.get("external_ids")] for row in rows
        }
    (root,) = transact(world, node, {"op": "select", "table": DATABASE, "where": []})[0]["rows"]
    return {**found, "ids": root["external_ids"]}


def mapping_of(world: TwinWorld, node: str) -> str:
    return str(world.show()["nodes"][node]["mapping"])


def dark_for(world: TwinWorld, seconds: float, step: float = 0.05, vm: str = VM) -> float:
    """Let time pass; for how much of it the VM was not reached."""
    dark = 0.0
    for _ in range(round(seconds / step)):
        world.tick(step)
        dark += 0.0 if world.reachable(vm)[0] else step
    return dark


def until(world: TwinWorld, ref: Ref, wanted: str, most: float, step: float = 0.1) -> float:
    """Let time pass until the conditions that are True are `wanted`; the seconds that took."""
    start = world.clock.now()
    while trues(world.cluster.get(ref)) != wanted:
        assert world.clock.now() < start + most, shape(world.cluster.get(ref))
        world.tick(step)
    return world.clock.now() - start


def states(bodies: Iterable[Any]) -> list[str]:
    """The successive sets of True conditions, each told once."""
    found: list[str] = []
    for body in bodies:
        if not found or found[-1] != trues(body):
            found.append(trues(body))
    return found
