"""Label selectors, as Kubernetes has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def meets(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether labels meet one `matchExpressions` rule. One that this can't read (Gt, Lt of a node's) is held to be met."""
    value, values = labels.get(rule["key"]), rule.get("values") or ()
    match rule["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return True


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector selects what has these labels: `{}` selects everything, none at all nothing."""
    if selector is None:
        return False
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        meets(rule, labels) for rule in selector.get("matchExpressions") or ()
    )
