"""The program behind `ping.py`: probes until its standard input is closed, then prints its tally as JSON.

It runs inside a guest's namespace and needs the standard library only.

Invariant: only a probe that was sent and not answered counts as lost; time in which the machine gave us no
processor, and no probe was sent, never does.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time

_ECHO, _REPLY = 8, 0
_LAST_ANSWERS = 0.5
_HEADER = struct.Struct("!BBHHH")
_NUMBER = struct.Struct("!Q")


def main(target: str, every: float) -> None:
    """Probe until standard input is closed."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.setblocking(False)
        sock.connect((target, 0))
        print("started", flush=True)
        sent, answered = _probe(sock, every)
    print(json.dumps(tally(sent, answered, every)))


def tally(sent: list[float], answered: set[int], every: float) -> dict[str, float]:
    """`sent[n]` is when probe n left. A run of lost probes lasts until the next one left."""
    runs: list[float] = []
    previous_lost = False
    for number, instant in enumerate(sent):
        lost = number not in answered
        if lost:
            if not previous_lost:
                runs.append(0.0)
            # A pause of the sender's own inside an outage is not evidence of one.
            following = sent[number + 1] if number + 1 < len(sent) else instant + every
            runs[-1] += min(following - instant, 20 * every)
        previous_lost = lost
    milliseconds = [run * 1000 for run in runs]
    return {
        "sent": len(sent),
        "lost": len(sent) - len(answered),
        "lost_ms": round(sum(milliseconds), 1),
        "longest_gap_ms": round(max(milliseconds, default=0.0), 1),
    }


def _probe(sock: socket.socket, every: float) -> tuple[list[float], set[int]]:
    ident = os.getpid() & 0xFFFF
    sent: list[float] = []
    answered: set[int] = set()
    due = time.monotonic()
    end = float("inf")
    while (now := time.monotonic()) < end and not (end < float("inf") and len(answered) == len(sent)):
        if end == float("inf") and now >= due:
            _send(sock, ident, len(sent))
            sent.append(now)
            # Not made up for: a burst of late probes would measure our own absence.
            due = max(due + every, now)
        wake = (due if end == float("inf") else end) - time.monotonic()
        ready, _, _ = select.select(
            [sock, sys.stdin] if end == float("inf") else [sock], [], [], max(0.0, wake)
        )
        if sys.stdin in ready:
            end = time.monotonic() + _LAST_ANSWERS
        if sock in ready:
            answered |= _answers(sock, ident)
    return sent, answered


def _send(sock: socket.socket, ident: int, number: int) -> None:
    body = _NUMBER.pack(number)
    checksum = _checksum(_HEADER.pack(_ECHO, 0, 0, ident, number & 0xFFFF) + body)
    try:
        sock.send(_HEADER.pack(_ECHO, 0, checksum, ident, number & 0xFFFF) + body)
    except OSError:
        # The guest's own link is down at this instant: the probe is lost, which is what is being counted.
        return


def _answers(sock: socket.socket, ident: int) -> set[int]:
    found: set[int] = set()
    for _ in range(64):
        try:
            packet = sock.recv(2048)
        except OSError:
            break
        start = (packet[0] & 15) * 4
        kind, _, _, whose, _ = _HEADER.unpack_from(packet, start)
        if kind == _REPLY and whose == ident:
            found.add(_NUMBER.unpack_from(packet, start + _HEADER.size)[0])
    return found


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
