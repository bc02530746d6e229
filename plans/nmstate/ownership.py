"""Who made what: NetworkManager marks its rows in OVSDB, and the operator writes which nmstate a node runs."""

from __future__ import annotations

import re

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
    """Whether NetworkManager made a bridge of a node. A bridge that is not there was made by nobody."""
    view = facts.value(f"node/{node}/ovs")
    row = (view or {"bridges": {}})["bridges"].get(bridge)
    return bool(row and row["external_ids"].get(NM_MARK))


def nmstate_acts(facts: Facts, node: str) -> bool:
    """Whether nmstate is served and its handler reports from a node, so that it could make something there."""
    handler = facts.get(f"node/{node}/nmstate/version")
    return isinstance(facts.get("cluster/nmstate"), Known) and isinstance(handler, Known)


def version(text: str) -> tuple[int, ...]:
    """`2.2.62` of `nmstatectl 2.2.62`, as numbers; () when there is none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
