"""Who made what: NetworkManager marks its rows in OVSDB, and the operator writes which nmstate a node runs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from plans.facts import Facts, Known

NM_MARK = "NM.connection.uuid"
"""The external_ids key that NetworkManager writes on each row it makes."""

MAPPING_CHECKED_SINCE = (2, 2, 47)
"""From here on nmstate refuses a mapping to a bridge that it does not know (H58)."""

SINGLE_KEYS_SINCE = (2, 2, 41)
"""Before this one, an apply that changes the mapping writes all external_ids from an earlier read (H40)."""

ABSENT_KEPT_SINCE = (2, 2, 23)
"""Before this one, the operator's own policy step loses `state: absent` and `allow-extra-patch-ports` (H43)."""


def made_by_network_manager(facts: Facts, node: str, bridge: str) -> bool:
    """Whether NetworkManager made a bridge of a node, and still has its profile. What is not there was made by nobody."""
    mark = _marks(facts, node, bridge).get(bridge)
    return mark is not None and mark not in _lost(facts, node, [mark])


def lost_profiles(facts: Facts, node: str, bridge: str) -> dict[str, str]:
    """The rows of a bridge (itself, ports, interfaces) whose profile is gone: name → UUID (H55). Empty when nobody asked."""
    marks = _marks(facts, node, bridge)
    lost = _lost(facts, node, marks.values())
    return {name: mark for name, mark in marks.items() if mark in lost}


def is_marked(facts: Facts, node: str) -> bool:
    """Whether any bridge of a node has rows of NetworkManager's."""
    view = facts.value(f"node/{node}/ovs") or {"bridges": {}}
    return any(_marks(facts, node, bridge) for bridge in view["bridges"])


def _marks(facts: Facts, node: str, bridge: str) -> dict[str, str]:
    """What NetworkManager made of a bridge: the names of its rows, with the profile that each is of."""
    row = (facts.value(f"node/{node}/ovs") or {"bridges": {}})["bridges"].get(bridge)
    if row is None:
        return {}
    interfaces = [(i["name"], i) for port in row["ports"].values() for i in port["interfaces"]]
    rows = [*interfaces, *row["ports"].items(), (bridge, row)]
    return {name: r["external_ids"][NM_MARK] for name, r in rows if r["external_ids"].get(NM_MARK)}


def _lost(facts: Facts, node: str, marks: Iterable[str]) -> set[str]:
    profiles = facts.get(f"node/{node}/profiles")
    return set(marks) - set(profiles.value) if isinstance(profiles, Known) else set()


def nmstate_acts(facts: Facts, node: str) -> bool:
    """Whether nmstate is served and its handler reports from a node, so that it could make something there."""
    handler = facts.get(f"node/{node}/nmstate/version")
    return isinstance(facts.get("cluster/nmstate"), Known) and isinstance(handler, Known)


def version(text: str) -> tuple[int, ...]:
    """`2.2.62` of `nmstatectl 2.2.62`, as numbers; () when there is none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
