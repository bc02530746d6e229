"""From a context to a cluster that has answered, and what it is called.

Invariant: what `connect` returns has been reached, and has said by its kube-system which cluster it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from providers.kubernetes.client import PATIENCE, KubernetesCluster
from providers.kubernetes.kubeconfig import ConnectError, Place, checked
from providers.kubernetes.transport import NotSent, Silent, Untrusted
from providers.ports import Busy, Create, Forbidden, PortError, Ref, Unauthorized

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

_CONNECTIONS = 32
"""Idle connections that are kept: as many as requests are made at once."""

_ASK_WHO = Create(Ref("authentication.k8s.io/v1", "SelfSubjectReview", "who"), {})
_SYSTEM = Ref("v1", "Namespace", "kube-system")
OLDEST = (1, 27)
"""The oldest Kubernetes that validates fields strictly without being asked to."""

_FIRST_PATIENCE = 2.0
"""Seconds of patience with a server that has never answered yet: most often its address is wrong."""


def connect(context: str, kubeconfig: str | None = None) -> tuple[KubernetesCluster, str, str]:
    """The cluster of a context, the title by which people know it, and its identity, which outlives names and URLs.

    `kubeconfig` is a file; without one, those of KUBECONFIG, or the usual one. Raises ConnectError.
    """
    place = checked(context, kubeconfig)
    client = _client(place)
    cluster = KubernetesCluster(client, patience=_FIRST_PATIENCE)
    try:
        with _told(place):
            namespace = cluster.get(_SYSTEM)
            user = _user(cluster, place)
            _new_enough(cluster, place)
    except ConnectError:
        cluster.close()
        raise
    if namespace is None:
        cluster.close()
        raise ConnectError(
            f"{_at(place)} is no cluster: it has no namespace kube-system. Check its server's URL."
        )
    title = f"cluster {place.context} ({place.server}, user {user})"
    cluster.patience = PATIENCE
    return cluster, title, f"cluster {namespace['metadata']['uid']}"


def _client(place: Place) -> ApiClient:
    from kubernetes import client, config

    settings: Any = client.Configuration()
    load: Any = config.load_kube_config
    with _logged() as log:
        try:
            load(place.paths, place.context, settings, persist_config=False)
        except (config.ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            # The loader answers a file of another shape than it expects with whatever error comes of it.
            raise ConnectError(f"{_at(place)}: its entry in {place.paths} cannot be used: {error}") from error
    if place.plugin and not (settings.api_key or settings.cert_file):
        why = "; ".join(log) or "it gave no token and no certificate"
        raise ConnectError(f"{_at(place)}: the credential plug-in `{place.plugin}` failed: {why}")
    # The client would repeat deletes whose answer was lost.
    settings.retries = False
    settings.connection_pool_maxsize = _CONNECTIONS
    api: Any = client.ApiClient
    made: ApiClient = api(settings)
    made.user_agent = "ovsplan"
    return made


@contextmanager
def _logged() -> Iterator[list[str]]:
    """What the client logs as errors, where it should raise them."""
    said: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield said
    finally:
        logging.getLogger().removeHandler(handler)


def _new_enough(cluster: KubernetesCluster, place: Place) -> None:
    """Before 1.27 a server drops the fields that it does not know, whatever it is asked: a write would be half done."""
    have = cluster.version()
    if have < OLDEST:
        raise ConnectError(
            f"{_at(place)} runs Kubernetes {have[0]}.{have[1]}; ovsplan needs {OLDEST[0]}.{OLDEST[1]} (OpenShift 4.14) or "
            "later, which refuse a field that they do not know. Update the cluster first."
        )


def _user(cluster: KubernetesCluster, place: Place) -> str:
    """Who we are to the server, or, where it can't say (before Kubernetes 1.28), in the kubeconfig."""
    try:
        review = cluster.write(_ASK_WHO)
    except Unauthorized:
        raise
    except PortError:
        return place.user
    return str(review["status"]["userInfo"]["username"])


@contextmanager
def _told(place: Place) -> Iterator[None]:
    try:
        yield
    except Unauthorized as error:
        raise ConnectError(
            f"{_at(place)} does not know the user {place.user!r}: the token has expired, or was never good. Log in again."
        ) from error
    except Forbidden as error:
        raise ConnectError(
            f"{_at(place)} does not say which cluster it is: {error}. Grant `get` on the namespace kube-system."
        ) from error
    except Untrusted as error:
        raise ConnectError(
            f"{_at(place)}: {_why(error, place)}. Name its authority in the kubeconfig (certificate-authority)."
        ) from error
    except NotSent as error:
        raise ConnectError(
            f"{_at(place)} is not reachable: {_why(error, place)}. Check the network, and the server's URL."
        ) from error
    except Silent as error:
        raise ConnectError(
            f"{_at(place)} takes the connection, and does not answer in time: it is overloaded, or hangs. Try again; "
            "if it stays so, look at the API server, and at what is on the way to it."
        ) from error
    except Busy as error:
        raise ConnectError(
            f"{_at(place)} is not ready: {_why(error, place)}. Try again, or check the server's URL."
        ) from error
    except PortError as error:
        raise ConnectError(
            f"{_at(place)} does not answer as a Kubernetes API does: {_why(error, place)}. Check the server's URL."
        ) from error


def _at(place: Place) -> str:
    return f"the cluster of context {place.context!r} at {place.server}"


def _why(error: PortError, place: Place) -> str:
    """Without what was asked, for it was nothing that the user asked for, and where, which is said already."""
    why = str(error)
    for known in ("discover v1: ", f"get {_SYSTEM}: ", f"{place.server} was not reached: "):
        why = why.removeprefix(known)
    return why.rstrip(".")
