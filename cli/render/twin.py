"""A simulated world as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click


def render_world(world: Mapping[str, Any]) -> str:
    """Nodes with their bridges, then VMs and whether a frame from their gateway reaches them."""
    lines = [f"World '{world['name']}' at {world['clock']}", ""]
    for name, node in world["nodes"].items():
        cordoned = "  cordoned" if node.get("cordoned") else ""
        lines.append(f"{click.style(name, bold=True)}{cordoned}  {node.get('mapping') or 'no mapping'}")
        for bridge, row in node.get("bridges", {}).items():
            ports = [_port(port, details) for port, details in row["ports"].items() if port != bridge]
            lines.append(f"    {bridge}: {', '.join(ports) or 'no port'}")
    lines.append("")
    width = max((len(vm) for vm in world["vms"]), default=2)
    for vm, row in world["vms"].items():
        reach = (
            click.style("reachable", fg="green")
            if row["reachable"]
            else click.style("NOT reachable", fg="red")
        )
        silent = "  silent" if row.get("silent") else ""
        why = "" if row["reachable"] else f": {row.get('why', '')}"
        lines.append(f"{vm:<{width}}  {row['node']}  {reach}{why}{silent}")
    return "\n".join(lines)


def _port(name: str, details: Mapping[str, Any]) -> str:
    return f"{name} ({click.style(details['error'], fg='red')})" if details.get("error") else name
