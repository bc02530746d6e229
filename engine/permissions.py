"""Ask the API server what we may do, before anything is done. Nothing is stored by it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from plans.permissions import Permission, as_attributes
from providers.ports import Cluster, Create, PortError, Ref

AT_ONCE = 16
_MAY_I = Ref("authorization.k8s.io/v1", "SelfSubjectAccessReview", "may-i")
_WHO_AM_I = Ref("authentication.k8s.io/v1", "SelfSubjectReview", "who")


def missing(cluster: Cluster, needed: Collection[Permission]) -> set[Permission]:
    """Those of some permissions that we lack. One that the server can't answer for is taken as there.

    Asked for all namespaces first, and only where the answer is no for each one by itself.
    """
    broad = sorted({permission.everywhere for permission in needed})
    denied = _denied(cluster, broad)
    narrow = sorted(p for p in needed if p.everywhere in denied)
    named = {p for p in narrow if p.namespace}
    return _denied(cluster, sorted(named)) | {p for p in narrow if not p.namespace}


def user(cluster: Cluster) -> str:
    """Who we are to the API server."""
    try:
        return str(cluster.write(Create(_WHO_AM_I, {}))["status"]["userInfo"]["username"])
    except (PortError, KeyError):
        return "the user of this kubeconfig"  # asking for it is younger than some API servers


def _denied(cluster: Cluster, asked: Iterable[Permission]) -> set[Permission]:
    asked = list(asked)
    if not asked:
        return set()
    with ThreadPoolExecutor(min(AT_ONCE, len(asked))) as pool:
        allowed = pool.map(lambda permission: _is_allowed(cluster, permission), asked)
        return {permission for permission, ok in zip(asked, allowed, strict=True) if not ok}


def _is_allowed(cluster: Cluster, permission: Permission) -> bool:
    try:
        answer = cluster.write(
            Create(_MAY_I, {"spec": {"resourceAttributes": dict(as_attributes(permission))}})
        )
    except PortError:
        return True  # the request itself will be refused then, and say so
    return bool((answer.get("status") or {}).get("allowed", True))
