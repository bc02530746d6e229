"""What somebody does to a node by hand before a plan is made: the `edits` of a case file.

Each edit is a mapping with `node` and one thing done. They go through the twin as another client's would, and
vswitchd and ovn-controller, where they are on, do with it what they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from providers.ports import Create, Delete, MergePatch, Ref
from providers.twin import TwinWorld

DATABASE = "Open_vSwitch"
BUMP = {"op": "mutate", "table": DATABASE, "where": [], "mutations": [["next_cfg", "+=", 1]]}
SETTLING = 1.0


def apply_edit(world: TwinWorld, edit: Mapping[str, Any]) -> None:
    """Do one edit, and let the daemons take it in."""
    rest = dict(edit)
    node = rest.pop("node", "")
    ((verb, what),) = rest.items()
    EDITS[verb](world, node, what)
    world.tick(SETTLING)


def _transact(world: TwinWorld, node: str, *operations: dict[str, Any]) -> list[Any]:
    results = world.edit().ovsdb(node).transact(DATABASE, [*operations, BUMP], timeout=10)
    wrong = [r for r in results if isinstance(r, dict) and "error" in r]
    assert not wrong, f"the edit was refused: {wrong}"
    return results


def _row(world: TwinWorld, node: str, table: str, name: str) -> Any:
    select = {"op": "select", "table": table, "where": [["name", "==", name]]}
    (row,) = world.edit().ovsdb(node).transact(DATABASE, [select], timeout=10)[0]["rows"]
    return row


def _map(pairs: Mapping[str, str]) -> list[Any]:
    return ["map", [list(pair) for pair in pairs.items()]]


def _set_mapping(world: TwinWorld, node: str, value: str | None) -> None:
    mutations: list[Any] = [["external_ids", "delete", ["set", ["ovn-bridge-mappings"]]]]
    if value is not None:
        mutations.append(["external_ids", "insert", _map({"ovn-bridge-mappings": value})])
    _transact(world, node, {"op": "mutate", "table": DATABASE, "where": [], "mutations": mutations})


def _del_port(world: TwinWorld, node: str, what: Mapping[str, str]) -> None:
    port = _row(world, node, "Port", what["port"])["_uuid"]
    where = [["name", "==", what["bridge"]]]
    out = [["ports", "delete", port]]
    _transact(world, node, {"op": "mutate", "table": "Bridge", "where": where, "mutations": out})


def _add_port(world: TwinWorld, node: str, what: Mapping[str, Any]) -> None:
    name, lsp = what["port"], what.get("localnetPort")
    interface = {"name": name, "type": what.get("type", "")}
    if "peer" in what:
        interface |= {"type": "patch", "options": _map({"peer": what["peer"]})}
    port = {"name": name, "interfaces": ["named-uuid", "i"]}
    if lsp:
        port["external_ids"] = _map({"ovn-localnet-port": lsp})
    where, into = [["name", "==", what["bridge"]]], [["ports", "insert", ["named-uuid", "p"]]]
    _transact(
        world,
        node,
        {"op": "insert", "table": "Interface", "uuid-name": "i", "row": interface},
        {"op": "insert", "table": "Port", "uuid-name": "p", "row": port},
        {"op": "mutate", "table": "Bridge", "where": where, "mutations": into},
    )


def _move_port(world: TwinWorld, node: str, what: Mapping[str, str]) -> None:
    """In one transaction, which is how vswitchd comes to keep a stale copy of it (H46)."""
    port = _row(world, node, "Port", what["port"])["_uuid"]
    moves = [(what["from"], "delete"), (what["to"], "insert")]
    _transact(
        world,
        node,
        *(
            {
                "op": "mutate",
                "table": "Bridge",
                "where": [["name", "==", b]],
                "mutations": [["ports", verb, port]],
            }
            for b, verb in moves
        ),
    )


def _set_interface(world: TwinWorld, node: str, what: Mapping[str, Any]) -> None:
    row = {c: _map(v) if isinstance(v, dict) else v for c, v in what["columns"].items()}
    where = [["name", "==", what["interface"]]]
    _transact(world, node, {"op": "update", "table": "Interface", "where": where, "row": row})


def _del_bridge(world: TwinWorld, node: str, bridge: str) -> None:
    out = [["bridges", "delete", _row(world, node, "Bridge", bridge)["_uuid"]]]
    _transact(world, node, {"op": "mutate", "table": DATABASE, "where": [], "mutations": out})


def _patch(world: TwinWorld, _node: str, what: Mapping[str, Any]) -> None:
    ref = Ref(what["apiVersion"], what["kind"], what["name"], what.get("namespace"))
    world.edit().cluster.write(MergePatch(ref, what["patch"], subresource=what.get("subresource", "")))


def _create(world: TwinWorld, _node: str, what: Mapping[str, Any]) -> None:
    metadata = what["metadata"]
    ref = Ref(what["apiVersion"], what["kind"], metadata["name"], metadata.get("namespace"))
    world.edit().cluster.write(Create(ref, what))


def _delete(world: TwinWorld, _node: str, what: Mapping[str, Any]) -> None:
    world.edit().cluster.write(
        Delete(Ref(what["apiVersion"], what["kind"], what["name"], what.get("namespace")))
    )


def _link(world: TwinWorld, node: str, what: Mapping[str, str]) -> None:
    for nic, link in what.items():
        world.set_nic(node, nic, link)


EDITS: dict[str, Callable[[TwinWorld, str, Any], None]] = {
    "mapping": _set_mapping,
    "del-port": _del_port,
    "add-port": _add_port,
    "move-port": _move_port,
    "set-interface": _set_interface,
    "del-bridge": _del_bridge,
    "patch": _patch,
    "delete": _delete,
    "create": _create,
    "links": _link,
}
