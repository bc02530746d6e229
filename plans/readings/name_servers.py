"""Reading whether a node's name servers tell what its nmstate handler asks them before each apply (H61).

Facts: `cluster/nmstate-probe`: the name that handlers ask for; `node/<n>/dns/<server>/<name>`: whether that server tells it.
The question is the handler's own (`pkg/probe/probes.go`): the name servers of a name that nobody set, else addresses of the
one that `probeConfiguration` names. A node needs bash and coreutils for it, and no resolver's tools.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence

from plans.facts import Fact, Json, Known, Unknown
from plans.ops import CommandRequest, ListRequest

DEFAULT_NAME = "root-servers.net"
"""What a handler asks for where the NMState object names nothing else."""

PROBE_REQUEST = ListRequest(
    "nmstate.io/v1", "NMState", keep=("metadata.name", "spec.probeConfiguration"), optional=True
)

_ID = 0x6F76
_ASK = 'exec 3<>"/dev/udp/$1/53" || exit 5; base64 -d <<<"$2" >&3; head -c 12 <&3 | od -An -v -tx1'
_SECONDS = "2"
_A, _NS, _INTERNET = 1, 2, 1
_HEADER = 12
_TIMED_OUT = 124


def parse_probe(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """The name of the NMState object; there is one at most."""
    found = {item["metadata"]["name"]: item.get("spec") or {} for item in replies[0] or ()}
    names = [(spec.get("probeConfiguration") or {}).get("dns", {}).get("host") for spec in found.values()]
    name = str(next(filter(None, names), DEFAULT_NAME))
    try:
        _question(name)
    except UnicodeError:
        return {
            "cluster/nmstate-probe": Unknown(f"probeConfiguration.dns.host of NMState is no name: {name!r}")
        }
    return {"cluster/nmstate-probe": Known(name)}


def requests(node: str, name: str, server: str) -> tuple[CommandRequest]:
    """One question, of which no more than the head of the answer is looked at. Silence ends it: no answer came."""
    argv = ("timeout", _SECONDS, "bash", "-c", _ASK, "dns", server, _question(name))
    return (CommandRequest(node, argv, fine=(0, _TIMED_OUT)),)


def _question(name: str) -> str:
    """A DNS message (RFC 1035) that asks for a name, in base64. Raises UnicodeError for what is no name."""
    kind = _NS if name == DEFAULT_NAME else _A
    labels = [label.encode("idna") for label in name.rstrip(".").split(".")]
    if not all(labels):
        raise UnicodeError("an empty label")
    asked = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    head = struct.pack(">6H", _ID, 0x0100, 1, 0, 0, 0)
    return base64.b64encode(head + asked + struct.pack(">2H", kind, _INTERNET)).decode()


def parse(node: str, name: str, server: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """Whether it told anything. Raises ValueError for an answer that is none to this question, or says neither."""
    head = bytes.fromhex(str(replies[0]))
    path = f"node/{node}/dns/{server}/{name}"
    if not head:
        return {path: Known(False)}
    if len(head) != _HEADER or head[:2] != _ID.to_bytes(2, "big"):
        raise ValueError(f"no answer of a name server: {replies[0]!r}")
    failed, count = head[3] & 0x0F, int.from_bytes(head[6:8], "big")
    if not failed and not count:
        raise ValueError(f"{server} knows {name}, and tells nothing of it")
    return {path: Known(not failed)}
