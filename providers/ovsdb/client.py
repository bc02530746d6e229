"""An ovsdb-server reached through its unix socket.

Invariant: an error says whether the transaction can have happened. Until the last byte of a request has
left, the server has no whole request and cannot have acted (Unreachable); after it, only its answer can
tell (InDoubt).
"""

from __future__ import annotations

import codecs
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from providers.ports import Body, InDoubt, Refused, Unreachable

_T = TypeVar("_T")
_CHUNK = 1 << 18
_LONGEST_ADDRESS = 107
_PARTING = 0.1


class _Gone(Exception):
    """The connection ended, or the time is up."""


class _Stream:
    """One connection: JSON values out, JSON values in, echo requests of the server answered on the way."""

    def __init__(self, path: str, timeout: float) -> None:
        self._text = ""
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._parse = json.JSONDecoder().raw_decode
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            _connect(self._socket, path)
        except BaseException:
            # Nobody else holds this socket yet, so nobody else can close it.
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def send(self, message: Body, deadline: float) -> None:
        self._within(deadline, lambda: self._socket.sendall(json.dumps(message).encode()))

    def greet(self, deadline: float) -> None:
        """Hear from the server itself; raises _Gone when there is none behind the socket."""
        self.send({"method": "echo", "params": [], "id": 0}, deadline)
        self.answer(0, deadline)

    def answer(self, ident: int, deadline: float) -> Body:
        """The response to request `ident`."""
        while True:
            message = self._next()
            if message is None:
                self._receive(deadline)
            elif message.get("method") == "echo":
                self._echo(message, deadline)
            elif "method" not in message and message.get("id") == ident:
                return message

    def withdraw(self, ident: int) -> None:
        """Ask the server to forget a request that still waits, so that it can't come true behind our back.

        Hanging up says the same, but a server may read the next connection first.
        """
        with suppress(_Gone):
            self.send({"method": "cancel", "params": [ident], "id": None}, time.monotonic() + _PARTING)

    def catch_up(self) -> None:
        """Take in what came while nobody listened; raises _Gone when the server has hung up meanwhile.

        ovsdb-server sends an echo request on an idle connection and hangs up when it stays unanswered.
        """
        with suppress(BlockingIOError):
            while True:
                self._socket.settimeout(0)
                self._take(self._socket.recv(_CHUNK))
        while (message := self._next()) is not None:
            if message.get("method") == "echo":
                self._echo(message, time.monotonic() + 1)

    def _echo(self, request: Body, deadline: float) -> None:
        self.send({"id": request["id"], "result": request["params"], "error": None}, deadline)

    def _receive(self, deadline: float) -> None:
        self._take(self._within(deadline, lambda: self._socket.recv(_CHUNK)))

    def _take(self, data: bytes) -> None:
        if not data:
            raise _Gone("the server closed the connection")
        self._text += self._utf8.decode(data)

    def _next(self) -> dict[str, Any] | None:
        self._text = self._text.lstrip()
        if not self._text.endswith("}"):
            # Most of a long answer: parsing it again after every chunk would be quadratic.
            return None
        try:
            message, end = self._parse(self._text)
        except json.JSONDecodeError:
            return None
        self._text = self._text[end:]
        return dict(message)

    def _within(self, deadline: float, act: Callable[[], _T]) -> _T:
        left = deadline - time.monotonic()
        if left <= 0:
            raise _Gone("out of time")
        self._socket.settimeout(left)
        try:
            return act()
        except TimeoutError as exc:
            raise _Gone("out of time") from exc
        except OSError as exc:
            raise _Gone(exc.strerror or str(exc)) from exc


def _connect(sock: socket.socket, path: str) -> None:
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        sock.connect(path)
        return
    # The kernel takes 107 bytes of address; a folder's descriptor makes a short name for a deep one.
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
    try:
        sock.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)


class UnixOvsdb:
    """`providers.ports.Ovsdb` over one kept connection, made when needed and again when it was lost.

    `greet` is for a socket that somebody forwards: its being open says nothing of the server, so an echo that
    comes back is the connection. `called` is what errors call the server; else its path.
    """

    def __init__(self, path: str, *, greet: bool = False, called: str | None = None) -> None:
        self._path = path
        self._name = called or f"ovsdb-server at {path}"
        self._greet = greet
        self._stream: _Stream | None = None
        self._requests = 0
        self._lock = threading.Lock()

    def __enter__(self) -> UnixOvsdb:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. The next transaction connects again."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def transact(self, database: str, operations: Sequence[Body], *, timeout: float) -> list[Any]:
        """See `providers.ports.Ovsdb`. Refused: the server knows no such database, or no such request."""
        deadline = time.monotonic() + timeout
        with self._lock:
            try:
                reply = self._exchange([database, *operations], deadline)
            except BaseException:
                # Half a request, or an answer nobody took, must not meet the next one.
                self.close()
                raise
        if reply.get("error") is not None:
            raise Refused(f"{self._name}: {_told(reply['error'])}")
        return list(reply["result"])

    def _exchange(self, params: list[Any], deadline: float) -> Body:
        self._requests += 1
        request = {"method": "transact", "params": params, "id": self._requests}
        try:
            stream = self._connected(deadline)
            stream.send(request, deadline)
        except (_Gone, OSError) as exc:
            why = getattr(exc, "strerror", None) or exc
            raise Unreachable(f"{self._name}: {why}") from exc
        try:
            return stream.answer(self._requests, deadline)
        except _Gone as exc:
            stream.withdraw(self._requests)
            raise InDoubt(f"{self._name} gave no answer to a transaction: {exc}") from exc

    def _connected(self, deadline: float) -> _Stream:
        if self._stream is not None:
            try:
                self._stream.catch_up()
            except (_Gone, OSError):
                self.close()
        if self._stream is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _Gone("out of time")
            self._stream = _Stream(self._path, left)
            if self._greet:
                self._stream.greet(deadline)
        return self._stream


def _told(error: Any) -> str:
    if isinstance(error, dict):
        return ": ".join(str(error[part]) for part in ("error", "details") if error.get(part))
    return str(error)
