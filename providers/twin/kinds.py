"""The kinds that the twin's API serves: scope, subresources, and the schemas of those defined by a CRD.

Invariant: what is said of a custom resource here is read from `crds/`, which a real API server accepts as it stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from providers.ports import NotServed

CRDS = Path(__file__).parent / "crds"

# A world file switches an operator's group off or on by the operator's name.
GROUPS = {"nmstate": "nmstate.io", "kubevirt": "kubevirt.io", "metallb": "metallb.io"}
DEFAULT_APIS = {"nmstate": False, "kubevirt": True, "metallb": False}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind in one version. `stored` is the apiVersion under which its objects are kept, whatever was asked for."""

    api: str
    name: str
    plural: str
    namespaced: bool
    status: bool
    """Whether status is a subresource: then a write of the object itself leaves it alone, and the other way round."""
    stored: str
    schema: Mapping[str, Any] | None = None
    kept: bool = True
    """False for reviews, which are answered and forgotten."""

    @property
    def group(self) -> str:
        return self.api.rpartition("/")[0]

    @property
    def resource(self) -> str:
        """As messages name it: `nodes`, `leases.coordination.k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified(self) -> str:
        """As messages about an invalid object name it."""
        return f"{self.name}.{self.group}" if self.group else self.name


# (apiVersion, kind, plural, namespaced, status is a subresource)
_BUILT_IN = (
    ("v1", "Namespace", "namespaces", False, True),
    ("v1", "Node", "nodes", False, True),
    ("v1", "Pod", "pods", True, True),
    ("v1", "ConfigMap", "configmaps", True, False),
    ("v1", "Secret", "secrets", True, False),
    ("v1", "Event", "events", True, False),
    ("v1", "ServiceAccount", "serviceaccounts", True, False),
    ("coordination.k8s.io/v1", "Lease", "leases", True, False),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", True, True),
)
_REVIEWS = (
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews"),
    ("authentication.k8s.io/v1", "SelfSubjectReview", "selfsubjectreviews"),
)


@cache
def all_kinds() -> Mapping[tuple[str, str], Kind]:
    """Every kind that a world can serve, by (apiVersion, kind)."""
    found = [Kind(api, name, plural, spaced, status, api) for api, name, plural, spaced, status in _BUILT_IN]
    found += [Kind(api, name, plural, False, False, api, kept=False) for api, name, plural in _REVIEWS]
    for file in sorted(CRDS.glob("*.json")):
        definition = json.loads(file.read_text())
        if definition["kind"] == "CustomResourceDefinition":
            found += _defined(definition["spec"])
    return {(kind.api, kind.name): kind for kind in found}


def _defined(spec: Mapping[str, Any]) -> Iterator[Kind]:
    (stored,) = (v["name"] for v in spec["versions"] if v["storage"])
    for version in spec["versions"]:
        yield Kind(
            f"{spec['group']}/{version['name']}",
            spec["names"]["kind"],
            spec["names"]["plural"],
            spec["scope"] == "Namespaced",
            "status" in version.get("subresources", {}),
            f"{spec['group']}/{stored}",
            version["schema"]["openAPIV3Schema"],
        )


def kind_of(api: str, name: str, switched: Mapping[str, bool] | None = None) -> Kind:
    """The kind, if the world serves it. `switched` is the world file's `apis`. Raises NotServed."""
    found = all_kinds().get((api, name))
    off = {GROUPS[operator] for operator, on in {**DEFAULT_APIS, **(switched or {})}.items() if not on}
    if found is None or found.group in off:
        raise NotServed(f"the server could not find the requested resource ({api} {name})")
    return found
