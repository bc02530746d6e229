"""One HTTP exchange by the official client, and what it means when there is no answer.

Invariant: an error here tells whether the request can have reached the server; a write that may have is InDoubt.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from providers.kubernetes.answers import Answer
from providers.kubernetes.calls import Call
from providers.ports import InDoubt, PortError, Unreachable

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

CONNECTING = 5.0
"""Seconds for a connection to be made."""

_UNTRUSTED = re.compile(r"certificate verify failed:? *([^(]*)", re.I)
_CLIENTS = re.compile(
    r"<[^>]*>|HTTPS?Connection(Pool)?\([^)]*\)|Failed to establish a new connection:|\(?\[Errno -?\d+\]|^[:, ]+"
)


class NotSent(Unreachable):
    """No connection was made: nothing can have happened."""


class Untrusted(NotSent):
    """The server's certificate is not trusted, so nothing was said to it. Asking again won't help."""


class Silent(Unreachable):
    """The server took the connection, and does not answer in time."""


class Stream:
    """An answer whose lines come one by one. It is to be closed, by `with`."""

    def __init__(
        self, title: str, response: Any, failures: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self.title = title
        self._response = response
        self._failures = failures
        with failures():
            body = response.data if response.status >= 300 else b""
        self.head = Answer(response.status, body, response.headers)

    def lines(self) -> Iterator[bytes]:
        """Each line, as soon as it is whole. Raises Unreachable when the connection is lost."""
        from urllib3.exceptions import ReadTimeoutError

        rest = b""
        with self._failures(), suppress(ReadTimeoutError):
            for piece in self._response.stream(amt=None):
                *lines, rest = (rest + piece).split(b"\n")
                yield from filter(None, lines)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        # Not given back for another request: the rest of the stream is still in it.
        self._response.close()


class Transport:
    """Exchanges with one API server. May be used by many threads at once.

    `timeout` is in seconds, for the server to begin its answer, and again for each piece of it.
    """

    def __init__(self, client: ApiClient, timeout: float = 30.0) -> None:
        self.client = client
        self._api: Any = client
        self._timeout = timeout
        self._credentials = threading.Lock()

    @property
    def url(self) -> str:
        return str(self._api.configuration.host)

    def close(self) -> None:
        """Close the connections that are idle."""
        self._api.close()

    def exchange(self, call: Call) -> Answer:
        """The answer to one request, whole. Raises Unreachable, or InDoubt for a write that may have arrived."""
        with self._failures(call):
            answer = self._send(call, self._timeout)
            return Answer(answer.status, answer.data, answer.headers)

    def stream(self, call: Call, *, silence: float) -> Stream:
        """An answer that goes on, until the server ends it or is silent for `silence` seconds. Raises Unreachable."""
        with self._failures(call):
            return Stream(call.title, self._send(call, silence), lambda: self._failures(call))

    def _send(self, call: Call, reading: float) -> Any:
        query = f"?{urlencode(call.query)}" if call.query else ""
        headers = {**self._api.default_headers, "Accept": "application/json", "Content-Type": call.content}
        with self._credentials:
            # One at a time: it may run a credential plug-in, which asks a person.
            self._api.update_params_for_auth(headers, [], ["BearerToken"], call.path, call.method, call.body)
        url = f"{self.url}{call.path}{query}"
        timeouts = (CONNECTING, reading)
        answer = self._api.call_api(call.method, url, headers, call.body, _request_timeout=timeouts)
        return answer.response

    @contextmanager
    def _failures(self, call: Call) -> Iterator[None]:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            # The client raises it, without a status, for every failure of TLS.
            raise self._tls(call, str(error.reason)) from error
        except (HTTPError, OSError) as error:
            raise self._lost(call, error) from error

    def _tls(self, call: Call, reason: str) -> PortError:
        if found := _UNTRUSTED.search(reason):
            why = found[1].strip().rstrip(".") or "certificate verify failed"
            return Untrusted(f"{call.title}: the certificate of {self.url} is not trusted: {why}")
        text = f"{call.title}: TLS with {self.url} failed: {_plain(reason.partition(chr(10))[2] or reason)}"
        return InDoubt(text) if call.writes else Unreachable(text)

    def _lost(self, call: Call, error: Exception) -> PortError:
        from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxyError, ReadTimeoutError

        if isinstance(error, NewConnectionError | ConnectTimeoutError | ProxyError):
            return NotSent(f"{call.title}: {self.url} was not reached: {_plain(str(error))}")
        cause = error.args[-1] if error.args and isinstance(error.args[-1], Exception) else error
        what = "no answer in time" if isinstance(error, ReadTimeoutError) else _plain(str(cause))
        text = f"{call.title}: the connection to {self.url} was lost: {what}"
        if call.writes:
            return InDoubt(f"{text}. It may have been done")
        return Silent(text) if isinstance(error, ReadTimeoutError) else Unreachable(text)


def _plain(text: str) -> str:
    """An error of the client's layers without the names of its objects."""
    return " ".join(_CLIENTS.sub("", text).split()).strip(" :,.()") or text
