"""The program behind `timeline.Watch`: follows an OVSDB server until its standard input is closed, then prints all updates.

It needs the standard library only.

Invariant: it does nothing but receive, as a server puts several transactions into one update for a client that lags.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from typing import Any


def main(path: str, columns: str) -> None:
    """Print a JSON array: the first contents, then each update, in the form of RFC 7047's <table-updates>."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        _send(server, {"method": "monitor", "params": ["Open_vSwitch", None, json.loads(columns)], "id": 1})
        chunks = [_first(server)]
        print("started", flush=True)
        while True:
            ready, _, _ = select.select([server, sys.stdin], [], [])
            if server in ready:
                chunks.append(server.recv(1 << 18))
                if b'"echo"' in chunks[-1]:
                    _send(server, {"result": [], "error": None, "id": "echo"})
            elif sys.stdin in ready:
                break
    print(json.dumps(list(_updates(b"".join(chunks).decode()))))


def _first(server: socket.socket) -> bytes:
    """The answer to the monitor request, whole."""
    text = b""
    while True:
        text += server.recv(1 << 18)
        try:
            json.JSONDecoder().raw_decode(text.decode())
        except (json.JSONDecodeError, UnicodeDecodeError):
            continue
        return text


def _updates(text: str) -> Any:
    decoder = json.JSONDecoder()
    while text:
        message, end = decoder.raw_decode(text)
        text = text[end:].lstrip()
        if message.get("method") == "update":
            yield message["params"][1]
        elif message.get("id") == 1:
            yield message["result"]


def _send(server: socket.socket, message: dict[str, Any]) -> None:
    server.sendall(json.dumps(message).encode())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
