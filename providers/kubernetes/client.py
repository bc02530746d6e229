"""`ports.Cluster` on the Kubernetes API.

Invariant: a request is repeated here only when the one before cannot have changed anything.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from providers.kubernetes import calls
from providers.kubernetes.answers import Answer, BudgetSpent, WebhookDown, failure, judged
from providers.kubernetes.calls import Call, Resource
from providers.kubernetes.discovery import Discovery
from providers.kubernetes.pod_exec import Container, Execs
from providers.kubernetes.pruning import pruned
from providers.kubernetes.transport import NotSent, Stream, Transport, Untrusted
from providers.ports import (
    Body,
    Busy,
    Conflict,
    Delete,
    Event,
    Expired,
    Finished,
    JsonPatch,
    Listing,
    NotFound,
    NotServed,
    Ref,
    Refused,
    Selectors,
    Unreachable,
    Write,
)

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds for which a request that can't have changed anything is repeated: an API server restarts in less."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
_ANEW = 3
"""How often a list is begun again whose pages grew too old."""


class KubernetesCluster:
    """The API server that `client` leads to. May be used by many threads at once.

    `patience` is in seconds, as PATIENCE; `timeout` in seconds is for the server to begin its answer.
    """

    def __init__(self, client: ApiClient, *, patience: float = PATIENCE, timeout: float = 30.0) -> None:
        self._transport = Transport(client, timeout)
        self.patience = patience
        self._discovery = Discovery(self._ask)
        self._execs = Execs(client)

    @property
    def api_client(self) -> ApiClient:
        """The official client, for ways to nodes: they run commands under names and limits of their own."""
        return self._transport.client

    @property
    def url(self) -> str:
        return self._transport.url

    def close(self) -> None:
        """Close idle connections. The next request opens new ones."""
        self._transport.close()

    def get(self, ref: Ref) -> Body | None:
        try:
            return self._ask_for(ref.api, ref.kind, lambda resource: calls.reading(resource, ref))
        except NotFound:
            return None

    def list(
        self, api: str, kind: str, *, keep: Sequence[str] = (), **selectors: Unpack[Selectors]
    ) -> Listing:
        def page(continued: str) -> dict[str, Any]:
            return self._ask_for(
                api, kind, lambda resource: calls.page(resource, kind, continued, **selectors)
            )

        for attempt in range(1, _ANEW + 1):
            try:
                return _whole(api, kind, page, keep)
            except Expired:
                if attempt == _ANEW:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def watch(
        self, api: str, kind: str, *, since: str, timeout: float, **selectors: Unpack[Selectors]
    ) -> Iterator[Event]:
        resource = self._resource(api, kind)
        silent_at = time.monotonic() + timeout
        while (left := silent_at - time.monotonic()) > 0:
            # The server counts whole seconds from the start of a stream, we from the last event: a stream that
            # ended before its time, or was lost, is taken up where it ended.
            call = calls.watching(resource, kind, since, math.ceil(left), **selectors)
            with self._opened(call, left) as stream:
                try:
                    for event in _events(stream):
                        since = event.object["metadata"]["resourceVersion"]
                        yield event
                        silent_at = time.monotonic() + timeout
                except Unreachable:
                    pass
            # A server that ends every stream at once is not asked without a pause; there is nothing to await.
            time.sleep(max(min(_FIRST_PAUSE, silent_at - time.monotonic()), 0.0))

    def write(self, request: Write, *, dry_run: bool = False) -> Body:
        match request:
            case Delete():
                return self._delete(request, dry_run)
            case JsonPatch(resource_version=str()):
                return self._patch_at_version(request, dry_run)
        return self._send(request, dry_run)

    def exec(self, pod: Ref, container: str, argv: Sequence[str], *, timeout: float) -> Finished:
        where = Container(pod.namespace or "", pod.name, container)
        return self._execs.run(where, argv, stdin=b"", timeout=timeout)

    def _send(self, request: Write, dry_run: bool) -> Body:
        ref = request.ref
        return self._ask_for(
            ref.api, ref.kind, lambda resource: calls.writing(resource, request, dry_run=dry_run)
        )

    def _delete(self, request: Delete, dry_run: bool) -> Body:
        """Read first: for most kinds the server answers with a Status, and not with what it deleted."""
        before = self.get(request.ref)
        if before is None:
            raise NotFound(f"delete {request.ref}: there is none")
        self._send(request, dry_run)
        return before

    def _patch_at_version(self, request: JsonPatch, dry_run: bool) -> Body:
        try:
            return self._send(request, dry_run)
        except Refused as refusal:
            # The server says no more than "error in our request", be it the version or an operation.
            found = self.get(request.ref)
            if found is None:
                raise NotFound(f"patch {request.ref}: there is none any more") from refusal
            version = found["metadata"]["resourceVersion"]
            if version != request.resource_version:
                raise Conflict(
                    f"patch {request.ref}: the object has been modified (version {version}, not "
                    f"{request.resource_version})"
                ) from refusal
            raise

    def version(self) -> tuple[int, int]:
        """The server's Kubernetes version: major and minor. Raises as any read."""
        said = self._ask(Call("ask for the version", "GET", "/version"))
        minor = re.match(r"\d*", str(said.get("minor", "")))
        return int(said.get("major") or 0), int(minor[0] or 0) if minor else 0

    def _ask_for(self, api: str, kind: str, call: Callable[[Resource], Call]) -> dict[str, Any]:
        """Ask about a kind, where discovery says that it is."""
        try:
            return self._ask(call(self._resource(api, kind)))
        except NotServed:
            self._discovery.forget(api)
            raise

    def _resource(self, api: str, kind: str) -> Resource:
        return self._discovery.resource(api, kind)

    def _ask(self, call: Call) -> dict[str, Any]:
        return self._repeated(
            call, lambda: judged(call.title, self._transport.exchange(call), writes=call.writes)
        )

    def _opened(self, call: Call, silence: float) -> Stream:
        def attempt() -> Stream:
            stream = self._transport.stream(call, silence=silence)
            if stream.head.status >= 300:
                judged(call.title, stream.head, writes=False)
            return stream

        return self._repeated(call, attempt)

    def _repeated(self, call: Call, attempt: Callable[[], T]) -> T:
        """Try until it is done, or refused, or patience is at its end."""
        end = time.monotonic() + self.patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return attempt()
            except Unreachable as error:
                asked = error.retry_after if isinstance(error, Busy) else 0.0
                wait = max(pause, asked)
                if not _repeatable(call, error) or time.monotonic() + wait > end:
                    raise
            # The server asked for this pause, or was not reached: nothing tells when it can be.
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _repeatable(call: Call, error: Unreachable) -> bool:
    if isinstance(error, Untrusted | BudgetSpent | WebhookDown):
        return False
    return isinstance(error, NotSent | Busy) if call.writes else True


def _whole(api: str, kind: str, page: Callable[[str], dict[str, Any]], keep: Sequence[str]) -> Listing:
    """All pages of a list. Of each, only what is to be kept outlives its reading."""
    items: list[Body] = []
    version = continued = ""
    while True:
        answer = page(continued)
        for item in answer["items"]:
            # In a list of a built-in kind, the items don't say what they are.
            named = {"apiVersion": api, "kind": kind, **item}
            items.append(pruned(named, keep) if keep else named)
        version = version or answer["metadata"]["resourceVersion"]
        continued = answer["metadata"].get("continue") or ""
        if not continued:
            items.sort(key=lambda body: (body["metadata"].get("namespace") or "", body["metadata"]["name"]))
            return Listing(tuple(items), version)


def _events(stream: Stream) -> Iterator[Event]:
    for line in stream.lines():
        event = json.loads(line)
        if event["type"] == "ERROR":
            status = event["object"]
            raise failure(stream.title, Answer(int(status.get("code") or 500), line), status, writes=False)
        if event["type"] != "BOOKMARK":
            yield Event(event["type"], event["object"])
