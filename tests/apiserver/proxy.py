"""A way to the API server that loses answers: what a network does, or a load balancer, at the wrong moment.

Invariant: it passes TLS on as it stands; all that it can do is not to pass it on.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Listens on a port of 127.0.0.1 and passes on to another. `passed` counts the connections."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._swallow = threading.Event()
        self.swallowed = threading.Event()
        self.passed = 0

    @classmethod
    @contextmanager
    def before(cls, target: int) -> Iterator[Proxy]:
        proxy = cls(target)
        proxy._spawn(proxy._accept)
        try:
            yield proxy
        finally:
            proxy._close()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def swallow_next(self) -> None:
        """The next answer is taken from the server, and the client's connection is closed instead."""
        self.swallowed.clear()
        self._swallow.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open += [client, server]
                self.passed += 1
                self._spawn(self._ask, client, server)
                self._spawn(self._answer, client, server)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if self._swallow.is_set():
                    self._swallow.clear()
                    self.swallowed.set()
                    break
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def _spawn(self, work: object, *arguments: object) -> None:
        assert callable(work)
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _close(self) -> None:
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join()
