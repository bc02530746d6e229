"""One command in one container, through the API server.

Invariant: until the API server has taken the request, nothing ran (Unreachable, Forbidden, ...); after that, only the
status that the runtime sends at the command's end says what it came to, and without it the command is InDoubt.
"""

from __future__ import annotations

import json
import re
import select
import ssl
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from providers.ports import (
    Finished,
    Forbidden,
    InDoubt,
    NotFound,
    PortError,
    Refused,
    Unauthorized,
    Unreachable,
)

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, Configuration
    from websocket import WebSocket

_STDIN, _STDOUT, _STDERR, _STATUS, _CLOSE = 0, 1, 2, 3, 255
_V5, _V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
_CHUNK = 1 << 13
"""Bytes sent at once: far less than the room that a writable socket has, so that sending never waits."""

_NOT_STARTED = re.compile(
    r"dial tcp|dialing backend|unable to upgrade connection|container not found|stopped (container|state)"
    r"|executable file not found|no such file or directory"
)


@dataclass(frozen=True, slots=True)
class Container:
    """Where a command runs."""

    namespace: str
    pod: str
    name: str

    def __str__(self) -> str:
        return f"pod {self.namespace}/{self.pod}"


class Execs:
    """Runs commands in containers with the rights of `api`; safe for several threads."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._tls: tuple[tuple[Any, ...], ssl.SSLContext] | None = None

    def run(self, container: Container, argv: Sequence[str], *, stdin: bytes, timeout: float) -> Finished:
        """Run to its end, within `timeout` seconds.

        Raises NotFound (no such pod or container now), Forbidden, Unauthorized, Refused, Unreachable or InDoubt.
        """
        deadline = time.monotonic() + timeout
        connection = self._dial(container, argv, with_stdin=bool(stdin), timeout=timeout)
        try:
            return _Exchange(connection, container, deadline).carry_out(stdin)
        finally:
            connection.shutdown()

    def _dial(
        self, container: Container, argv: Sequence[str], *, with_stdin: bool, timeout: float
    ) -> WebSocket:
        import websocket

        configuration = self._api.configuration
        url = f"{configuration.host}/api/v1/namespaces/{container.namespace}/pods/{container.pod}/exec"
        words = [("container", container.name), ("stdout", "true"), ("stderr", "true")]
        words += [("stdin", "true")] if with_stdin else []
        words += [("command", word) for word in argv]
        options: dict[str, Any] = {"context": self._context(configuration)}
        if configuration.tls_server_name:
            options["server_hostname"] = configuration.tls_server_name
        connection = websocket.WebSocket(sslopt=options, skip_utf8_validation=True)
        try:
            connection.connect(
                re.sub(r"^http", "ws", url) + "?" + urlencode(words),
                header=self._headers(),
                subprotocols=[_V5, _V4],
                timeout=timeout,
                **_by_proxy(configuration),
            )
        except websocket.WebSocketBadStatusException as exc:
            raise _refusal(container, exc.status_code, exc.resp_body) from exc
        except (OSError, websocket.WebSocketException) as exc:
            raise Unreachable(
                f"{container}: the API server was not reached: {exc or type(exc).__name__}"
            ) from exc
        return connection

    def _headers(self) -> dict[str, str]:
        # Asking for the settings renews a token that has expired.
        settings: Any = self._api.configuration.auth_settings()
        return {item["key"]: item["value"] for item in settings.values() if item["in"] == "header"}

    def _context(self, configuration: Configuration) -> ssl.SSLContext:
        """The client's settings; kept, for reading the system's certificates takes longer than a command."""
        settings = (
            configuration.verify_ssl,
            configuration.ssl_ca_cert,
            configuration.cert_file,
            configuration.key_file,
            configuration.assert_hostname,
        )
        if self._tls is None or self._tls[0] != settings:
            self._tls = (settings, _context(configuration))
        return self._tls[1]


class _Exchange:
    """The frames of one command: input out, output, errors and at last the status in."""

    def __init__(self, connection: WebSocket, container: Container, deadline: float) -> None:
        self._connection = connection
        self._container = container
        self._deadline = deadline
        self._outgoing: deque[bytes] = deque()
        self._received: dict[int, bytearray] = {number: bytearray() for number in (_STDOUT, _STDERR, _STATUS)}

    def carry_out(self, stdin: bytes) -> Finished:
        if stdin and self._connection.getsubprotocol() != _V5:
            raise Refused(
                f"{self._container}: this API server is too old to end a command's input; it takes Kubernetes 1.30"
            )
        self._outgoing = _frames(stdin)
        self._pass_frames()
        return self._finished()

    def _pass_frames(self) -> None:
        import websocket

        try:
            while self._step():
                pass
        except websocket.WebSocketTimeoutException as exc:
            raise InDoubt(f"{self._container}: nothing was heard of a command's end within its time") from exc
        except (OSError, websocket.WebSocketException) as exc:
            if not self._received[_STATUS]:
                raise InDoubt(
                    f"{self._container}: the connection was lost while a command ran: {exc}"
                ) from exc

    def _step(self) -> bool:
        """Pass what can be passed now, either way; False at the end.

        One thread does both, for TLS allows no two; and neither way waits for the other, for a command that answers
        while it still reads would stop when nobody takes its answer.
        """
        import websocket

        ready, readable = self._ready()
        left = self._deadline - time.monotonic()
        if left <= 0 or not ready:
            raise websocket.WebSocketTimeoutException("out of time")
        self._connection.settimeout(left)
        if not readable:
            self._send_next()
            return True
        kind, data = self._connection.recv_data()
        if kind == websocket.ABNF.OPCODE_CLOSE:
            return False
        if data and data[0] in self._received:
            self._received[data[0]] += data[1:]
        return True

    def _ready(self) -> tuple[bool, bool]:
        """Whether anything can be passed before the deadline, and whether that is something to read."""
        sock: Any = self._connection.sock
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True, True
        poll = select.poll()
        poll.register(sock, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
        left = max(self._deadline - time.monotonic(), 0)
        seen = poll.poll(left * 1000)
        return bool(seen), bool(seen and seen[0][1] & ~select.POLLOUT)

    def _send_next(self) -> None:
        import websocket

        try:
            self._connection.send_binary(self._outgoing.popleft())
        except (OSError, websocket.WebSocketException):
            # A command may end before it has read all; what became of it is told by what comes in.
            self._outgoing.clear()

    def _finished(self) -> Finished:
        if not self._received[_STATUS]:
            raise InDoubt(f"{self._container}: the connection was closed while a command ran")
        status = json.loads(bytes(self._received[_STATUS]))
        return Finished(
            self._code(status),
            self._received[_STDOUT].decode(errors="replace"),
            self._received[_STDERR].decode(errors="replace"),
        )

    def _code(self, status: dict[str, Any]) -> int:
        if status.get("status") == "Success":
            return 0
        message = str(status.get("message", "no reason given"))
        if status.get("reason") == "NonZeroExitCode":
            causes = status.get("details", {}).get("causes", [])
            codes = [cause["message"] for cause in causes if cause.get("reason") == "ExitCode"]
            return int(codes[0])
        if _NOT_STARTED.search(message):
            raise Unreachable(f"{self._container}: no command can be started in it: {message}")
        raise InDoubt(f"{self._container}: the runtime did not say how a command ended: {message}")


def _frames(stdin: bytes) -> deque[bytes]:
    """The input, and its end; nothing for no input, as then the command was started without."""
    pieces = [bytes([_STDIN]) + stdin[start : start + _CHUNK] for start in range(0, len(stdin), _CHUNK)]
    return deque([*pieces, bytes([_CLOSE, _STDIN])] if stdin else [])


def _context(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl or configuration.assert_hostname is False:
        context.check_hostname = False
    if not configuration.verify_ssl:
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    return context


def _by_proxy(configuration: Configuration) -> dict[str, Any]:
    from kubernetes.stream.ws_client import websocket_proxycare

    if not (configuration.proxy or configuration.proxy_headers):
        return {}
    return dict(websocket_proxycare({}, configuration, None, None))


def _refusal(container: Container, code: int, body: bytes | None) -> PortError:
    """What the API server said instead of taking the request: nothing ran."""
    message = _message(body)
    if code == 401:
        return Unauthorized(
            f"the API server does not know who asks to run commands in {container}: {message}"
        )
    if code == 403:
        return Forbidden(
            f"to `exec` in pods of namespace {container.namespace} is not allowed here: {message}. "
            f"It takes the verbs `get` and `create` on pods/exec in namespace {container.namespace}."
        )
    if code == 404:
        return NotFound(f"{container} is gone: {message}")
    if code in (400, 422):
        return Refused(f"{container}: {message}")
    return Unreachable(f"{container}: HTTP {code}: {message}")


def _message(body: bytes | None) -> str:
    text = (body or b"").decode(errors="replace").strip()
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text or "no reason given"
