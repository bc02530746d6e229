"""Switch views made by hand: the four tables of a node's Open vSwitch database, as OVSDB returns their rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plans import ovs

LSP = "vlan224_ovn_localnet_port"
OUTER = ovs.outer_port(LSP)
INNER = ovs.inner_port(LSP)


def interface(name: str, kind: str = "", **columns: Any) -> dict[str, Any]:
    """An Interface row that vswitchd has brought up."""
    row = {"name": name, "type": kind, "options": ["map", []], "ofport": 1, "error": ["set", []]}
    row |= {"link_state": "up", "mtu": 9000, "external_ids": ["map", []], "other_config": ["map", []]}
    return {**row, **columns}


def patch(name: str, peer: str, **columns: Any) -> dict[str, Any]:
    """A healthy patch Interface."""
    return interface(name, "patch", options=["map", [["peer", peer]]], **columns)


Bridges = Mapping[str, Mapping[str, list[dict[str, Any]]]]


def rows(bridges: Bridges, mapping: str | None = None, next_cfg: int = 7) -> dict[str, list[Any]]:
    """The tables: bridge → port → its Interface rows. An OVN patch port gets its Port's `ovn-localnet-port`."""
    tables: dict[str, list[Any]] = {"Bridge": [], "Port": [], "Interface": []}
    ids = [] if mapping is None else [["ovn-bridge-mappings", mapping]]
    for bridge, ports in bridges.items():
        for port, members in ports.items():
            marks = [["ovn-localnet-port", LSP]] if port in (OUTER, INNER) else []
            for row in members:
                tables["Interface"].append({"_uuid": ["uuid", f"i-{bridge}-{row['name']}"], **row})
            links = [["uuid", f"i-{bridge}-{row['name']}"] for row in members]
            tables["Port"].append(
                {
                    "_uuid": ["uuid", f"p-{bridge}-{port}"],
                    "name": port,
                    "interfaces": links[0] if len(links) == 1 else ["set", links],
                    "tag": ["set", []],
                    "external_ids": ["map", marks],
                    "other_config": ["map", []],
                }
            )
        links = [["uuid", f"p-{bridge}-{port}"] for port in ports]
        tables["Bridge"].append(
            {
                "_uuid": ["uuid", f"b-{bridge}"],
                "name": bridge,
                "ports": links[0] if len(links) == 1 else ["set", links],
                "external_ids": ["map", []],
                "other_config": ["map", []],
                "datapath_type": "netdev",
            }
        )
    root = {
        "_uuid": ["uuid", "root"],
        "external_ids": ["map", ids],
        "next_cfg": next_cfg,
        "cur_cfg": next_cfg,
    }
    return {"Open_vSwitch": [root], **tables}


def switch(mapping: str | None = "physnet:br-ex,vmnet:br-vmdata", **changes: Any) -> ovs.View:
    """A node whose vmnet rides on br-vmdata over bond0; `changes` replace whole bridges (`br_phy=...`)."""
    bridges: dict[str, Any] = {
        "br-int": {"br-int": [interface("br-int", "internal")], INNER: [patch(INNER, OUTER)]},
        "br-ex": {"br-ex": [interface("br-ex", "internal")]},
        "br-phy": {
            "br-phy": [interface("br-phy", "internal")],
            "ovs-bond": [interface("ens33"), interface("ens34")],
        },
        "br-vmdata": {
            "br-vmdata": [interface("br-vmdata", "internal")],
            "bond0": [interface("bond0")],
            OUTER: [patch(OUTER, INNER)],
        },
    }
    bridges |= {name.replace("_", "-"): ports for name, ports in changes.items()}
    return ovs.read_switch(rows({b: p for b, p in bridges.items() if p is not None}, mapping))
