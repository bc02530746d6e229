"""The nmstate handler's other half: it reports what `nmstatectl show` says of its node as a NodeNetworkState (NNS).

Invariant: the object is written only when what it says has changed; a node whose state can't be read keeps the last
one, however old.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

from providers.ports import Create, MergePatch, Ref
from providers.twin.kube import stamp
from providers.twin.nncp_job import BETA, HANDLERS, REFRESH, STATE, replacing
from providers.twin.stage import Stage

MEMORY = "nns"
UNIT = "nns"
PERIOD = 60.0
_KEPT = ("dns-resolver", "interfaces", "ovn", "routes")
_LONGEST_PAUSE = 30.0


def report(stage: Stage, node: str) -> float | None:
    """Refresh the state when it is time, or when somebody asks by the label; returns when to look again."""
    handler = stage.recall(HANDLERS, node)
    if handler is None:
        return None
    memory = dict(stage.recall(MEMORY, node) or {"due": 0.0, "asked": "", "failures": 0, "runs": False})
    now = stage.clock.now()
    if memory["runs"]:
        done = stage.ended(node, UNIT)
        if done is None:
            return None
        memory["runs"] = False
        if done.rc == 0:
            _write(stage, node, filtered(json.loads(done.out)), handler)
            memory["failures"], memory["due"] = 0, now + PERIOD + _jitter(node)
        else:
            memory["due"] = now + min(_LONGEST_PAUSE, 2.0 ** memory["failures"])
            memory["failures"] = min(memory["failures"] + 1, 5)
    asked = _asked(stage, node)
    if memory["due"] <= now or asked != memory["asked"]:
        memory["asked"], memory["runs"] = asked, True
        stage.begin(node, UNIT, ("nmstatectl", "show", "--json"))
    stage.keep(MEMORY, node, memory)
    return now if memory["runs"] else memory["due"]


def forget(stage: Stage, node: str) -> None:
    """A handler that starts knows nothing of what was reported."""
    stage.keep(MEMORY, node, None)


def filtered(state: Mapping[str, Any]) -> dict[str, Any]:
    """What the operator keeps of nmstate's own report: neither `ovs-db`, nor what others' veths show."""
    found = {name: state[name] for name in _KEPT if name in state}
    if "interfaces" in found:
        found["interfaces"] = [i for i in found["interfaces"] if not _is_foreign(i)]
    return found


def _is_foreign(interface: Mapping[str, Any]) -> bool:
    return interface.get("type") == "veth" and interface.get("state") == "ignore"


def _asked(stage: Stage, node: str) -> str:
    have = stage.cluster.get(Ref(BETA, STATE, node)) or {}
    return str((have.get("metadata", {}).get("labels") or {}).get(REFRESH, ""))


def _jitter(node: str) -> float:
    # The real one is random: up to a tenth of the period.
    return zlib.crc32(node.encode()) % 600 / 100


def _write(stage: Stage, node: str, found: Mapping[str, Any], handler: Mapping[str, str]) -> None:
    ref = Ref(BETA, STATE, node)
    have = stage.cluster.get(ref)
    if have is None:
        host = stage.cluster.get(Ref("v1", "Node", node))
        if host is None:
            return
        owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": host["metadata"]["uid"]}
        have = stage.cluster.write(Create(ref, {"metadata": {"ownerReferences": [owner]}}))
    before = have.get("status", {}).get("currentState")
    if before == found:
        return
    status = {
        "currentState": replacing(before, found),
        "handlerNmstateVersion": handler["nmstate"],
        "hostNetworkManagerVersion": handler["networkmanager"] or None,
        "lastSuccessfulUpdateTime": stamp(stage.clock.now()),
    }
    stage.cluster.write(MergePatch(ref, {"status": status}, subresource="status"))
