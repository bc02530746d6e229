"""Two policies of the files for the same nodes: what is a disagreement (H04) and what is not, whichever comes first."""

from __future__ import annotations

import json
from typing import Any

import pytest

from plans.desired import load_desired
from plans.errors import InputError


def policy(name: str, state: Any) -> str:
    spec = json.dumps({"desiredState": state})
    head = "apiVersion: nmstate.io/v1\nkind: NodeNetworkConfigurationPolicy\n"
    return f"{head}metadata: {{name: {name}}}\nspec: {spec}\n"


def said(one: Any, other: Any) -> str:
    """What the files are refused for; empty when they are not."""
    try:
        load_desired([("a.yaml", policy("p1", one)), ("b.yaml", policy("p2", other))])
    except InputError as error:
        (problem,) = error.problems
        assert problem.path == "b.yaml" and "policy 'p1' (a.yaml:3), and both select the same nodes: " in str(
            error
        )
        return problem.message.partition("same nodes: ")[2].partition(". Each would")[0]
    return ""


def interfaces(*found: dict[str, Any]) -> dict[str, Any]:
    return {"interfaces": list(found)}


def bridge(name: str, *ports: Any, state: str = "up") -> dict[str, Any]:
    listed = [{"name": port} if isinstance(port, str) else port for port in ports]
    held = {"allow-extra-patch-ports": True, "port": listed}
    return {"name": name, "type": "ovs-bridge", "state": state, "bridge": held}


def nic(name: str, state: str = "up", kind: str | None = "ethernet") -> dict[str, Any]:
    return {"name": name, "state": state, **({"type": kind} if kind else {})}


def mapped(localnet: str, to: str | None) -> dict[str, Any]:
    entry = {"localnet": localnet, **({"bridge": to, "state": "present"} if to else {"state": "absent"})}
    return {"ovn": {"bridge-mappings": [entry]}}


BOND = {
    "name": "bond0",
    "link-aggregation": {"mode": "active-backup", "port": [{"name": "ens1"}, {"name": "ens2"}]},
}
KERNEL_BOND = {
    "name": "bond1", "type": "bond", "state": "up",
    "link-aggregation": {"mode": "active-backup", "port": ["ens1", "ens2"]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "reason", "turned"),
    [
        (mapped("blue", "br-a"), mapped("blue", "br-b"), "localnet blue: br-a against br-b", "localnet blue: br-b against br-a"),
        (mapped("blue", "br-a"), mapped("blue", None), "localnet blue: br-a against absent", "localnet blue: absent against br-a"),
        (
            mapped("blue", "br-a"), interfaces(nic("br-a", "absent", "ovs-bridge")),
            "localnet blue: on br-a against br-a absent", "localnet blue: on br-a against br-a absent",
        ),
        (
            interfaces(nic("ens1")), interfaces(nic("ens1", "absent")),
            "interface ens1: up against absent", "interface ens1: absent against up",
        ),
        (
            interfaces(nic("ens1")), interfaces(nic("ens1", "absent", None)),
            "interface ens1: up against absent", "interface ens1: absent against up",
        ),
        (
            interfaces(nic("ens1")), interfaces(nic("ens1", "down")),
            "interface ens1: up against down", "interface ens1: down against up",
        ),
        (
            interfaces(bridge("br-a", "ens1")), interfaces(bridge("br-b", "ens1")),
            "port ens1: under br-a against under br-b", "port ens1: under br-b against under br-a",
        ),
        (
            interfaces(bridge("br-a", BOND)), interfaces(bridge("br-b", "ens2")),
            "port ens2: under br-a against under br-b", "port ens2: under br-b against under br-a",
        ),
        (
            interfaces(KERNEL_BOND), interfaces(bridge("br-b", "ens2")),
            "port ens2: under bond1 against under br-b", "port ens2: under br-b against under bond1",
        ),
        (
            interfaces(bridge("br-a", "ens1")), interfaces(nic("ens1", "absent")),
            "port ens1: under br-a against absent", "port ens1: under br-a against absent",
        ),
    ],
)  # fmt: skip
def test_what_each_would_undo_of_the_other_is_told(one: Any, other: Any, reason: str, turned: str) -> None:
    assert said(one, other) == reason
    assert said(other, one) == turned


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (mapped("blue", "br-a"), mapped("blue", "br-a")),
        (mapped("blue", "br-a"), mapped("green", "br-b")),
        (mapped("blue", None), interfaces(nic("br-a", "absent", "ovs-bridge"))),
        (interfaces(nic("br-x", "up", "ovs-bridge")), interfaces(nic("br-x", "absent", "ovs-interface"))),
        (interfaces(nic("ens1", "ignore")), interfaces(nic("ens1", "down"))),
        (interfaces(bridge("br-a", "ens1")), interfaces(bridge("br-a", "ens1"))),
        (interfaces(bridge("br-a", "ens1", state="absent")), interfaces(bridge("br-b", "ens1"))),
        (interfaces(bridge("br-a", "ens1")), interfaces(nic("ens2", "absent"))),
        (interfaces(bridge("br-a", "ens1")), interfaces(nic("ens1"))),
        ({"routes": {"config": []}}, interfaces(nic("ens1"))),
    ],
)
def test_what_goes_together_is_taken(one: Any, other: Any) -> None:
    assert (said(one, other), said(other, one)) == ("", "")
