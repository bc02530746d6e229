"""Reading nmstate: policies, what came of each on each node, and which nmstate a node runs.

The one invariant: an enactment of another generation of its policy says nothing about this one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from plans.facts import ABSENT, Fact, Json, Known, Unknown
from plans.nmstate.enactments import ATTEMPTS, ENACTMENT, OVER, STATE, by_node
from plans.nmstate.policies import FIELD_MANAGER, MADE_FOR, OURS, POLICY
from plans.ops import CommandRequest, ListRequest
from plans.readings.cluster import NODE_REQUEST
from plans.readings.reply import NoReply

MESSAGE_LIMIT = 300
NO_NICS = ("ovs-bridge", "ovs-interface", "loopback")

_POLICY_KEEP = ("metadata", "spec", "status.conditions")
ENACTMENT_KEEP = (
    "metadata.name",
    "metadata.labels",
    "status.conditions",
    "status.policyGeneration",
    "status.retryCount",
)

REQUESTS = (
    ListRequest(*POLICY, keep=_POLICY_KEEP, optional=True),
    ListRequest(*ENACTMENT, keep=ENACTMENT_KEEP, optional=True),
)
_STATE_KEEP = (
    *("metadata.name", "status.handlerNmstateVersion"),
    *("status.currentState.routes.running", "status.currentState.dns-resolver"),
)
STATE_REQUESTS = (ListRequest(*STATE, keep=_STATE_KEEP, optional=True), NODE_REQUEST)

_EVERYWHERE = ("0.0.0.0/0", "::/0")
_MAIN_TABLE = 254
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def one_policy(name: str) -> tuple[ListRequest, ListRequest]:
    """One policy, and its enactments."""
    return (
        ListRequest(*POLICY, keep=_POLICY_KEEP, optional=True, fields=(("metadata.name", name),)),
        ListRequest(*ENACTMENT, keep=ENACTMENT_KEEP, optional=True, labels=(("nmstate.io/policy", name),)),
    )


def one_enactment(key: str) -> tuple[ListRequest, ListRequest]:
    """One enactment, `node/policy`, and its policy: a wait need not read all of them."""
    node, _, name = key.partition("/")
    enactment = ListRequest(
        *ENACTMENT, keep=ENACTMENT_KEEP, optional=True, fields=(("metadata.name", f"{node}.{name}"),)
    )
    return (one_policy(name)[0], enactment)


def parse_policy(name: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`policy/<name>` and all below it, and its enactments."""
    at = f"policy/{name}"
    found = dict(parse_policies(replies))
    gone: dict[str, Fact] = {at: ABSENT, f"{at}/*": ABSENT, **dict.fromkeys(by_node(name), Known([]))}
    return {**gone, **_without(found, "policy/*", "enactment/*", "cluster/policies")}


def parse_enactment(key: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`enactment/<node>/<policy>` and all below it, and its policy but for who has enacted it."""
    name = key.partition("/")[2]
    found = dict(parse_policies(replies))
    gone: dict[str, Fact] = {f"policy/{name}": ABSENT, f"policy/{name}/editable": ABSENT}
    gone |= {f"enactment/{key}/{part}": ABSENT for part in ("state", "message", "setback")}
    told = _without(found, "policy/*", "enactment/*", "cluster/policies", *by_node(name))
    return {**gone, **told}


def _without(facts: Mapping[str, Fact], *paths: str) -> dict[str, Fact]:
    return {path: fact for path, fact in facts.items() if path not in paths}


def parse_policies(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`cluster/nmstate`, `policy/<name>` and `enactment/<node>/<policy>/state`; Absent where nmstate is not served.

    Of each policy also on which nodes there is an enactment, an available one, and one that has failed for good.
    """
    policies, enactments = replies
    facts: dict[str, Fact] = {"policy/*": ABSENT, "enactment/*": ABSENT}
    if policies is None:
        return {**facts, "cluster/nmstate": ABSENT, "cluster/policies": ABSENT}
    generations: dict[str, int] = {}
    for item in policies:
        name = item["metadata"]["name"]
        generations[name] = item["metadata"].get("generation", 0)
        facts[f"policy/{name}"] = Known(_policy(item))
        facts[f"policy/{name}/editable"] = Known(_editable(item))
        facts[f"policy/{name}/version"] = Known(item["metadata"].get("resourceVersion"))
    enacted: dict[str, dict[str, str]] = defaultdict(dict)
    for item in enactments or ():
        labels = item["metadata"].get("labels", {})
        node, name = labels.get("nmstate.io/node"), labels.get("nmstate.io/policy")
        if not node or not name:
            node, _, name = _split(item["metadata"]["name"], generations)
        status = item.get("status", {})
        current = status.get("policyGeneration") == generations.get(name)
        enacted[name][node] = state_of(status) if current else "waiting"
        facts[f"enactment/{node}/{name}/state"] = Known(enacted[name][node])
        facts[f"enactment/{node}/{name}/message"] = Known(_message(status))
        facts[f"enactment/{node}/{name}/setback"] = _setback(status) if current else ABSENT
    for name in {*generations, *enacted}:
        of_states = ((*OVER, *enacted[name].values()), OVER[:1], OVER[1:])
        for path, states in zip(by_node(name), of_states, strict=True):
            facts[path] = Known(sorted(n for n, state in enacted[name].items() if state in states))
    facts["cluster/nmstate"] = Known(True)
    facts["cluster/policies"] = Known(sorted(generations))
    return facts


def parse_states(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`node/<n>/nmstate/version` of every node whose handler reports: what it calls itself, without the word.

    `node/<n>/nmstate/gateway`: the way out that its handler pings before each apply (H61); Absent without one.
    `node/<n>/nmstate/name-servers`: whom it asks for a name then; Absent where it does not report them.
    All are Absent of a node whose handler does not report, and unknown of all when they could not be listed.
    """
    states, nodes = replies
    missing: Fact = Unknown(states.why) if isinstance(states, NoReply) else ABSENT
    facts: dict[str, Fact] = {f"node/{item['metadata']['name']}/nmstate/*": missing for item in nodes}
    if isinstance(states, NoReply):
        return {**facts, "cluster/nmstate-nodes": missing}
    reporting = []
    for item in states or ():
        name, status = item["metadata"]["name"], item.get("status", {})
        if text := status.get("handlerNmstateVersion"):
            reporting.append(name)
            facts[f"node/{name}/nmstate/version"] = Known(str(text).rpartition(" ")[2])
            facts[f"node/{name}/nmstate/gateway"] = _gateway(status)
            facts[f"node/{name}/nmstate/name-servers"] = _name_servers(status)
    facts["cluster/nmstate-nodes"] = Known(sorted(reporting))
    return facts


def _gateway(status: Mapping[str, Any]) -> Fact:
    """The next hop of the default route in the main table, as the operator's own probe looks it up."""
    for route in status.get("currentState", {}).get("routes", {}).get("running") or ():
        hop = route.get("next-hop-address")
        main = route.get("table-id", _MAIN_TABLE) == _MAIN_TABLE
        if hop and main and route.get("destination") in _EVERYWHERE:
            return Known(str(hop))
    return ABSENT


def _name_servers(status: Mapping[str, Any]) -> Fact:
    resolver = status.get("currentState", {}).get("dns-resolver")
    if resolver is None:
        return ABSENT
    return Known([str(server) for server in (resolver.get("running") or {}).get("server") or ()])


def profile_requests(node: str) -> tuple[CommandRequest]:
    """The profiles that NetworkManager has on a node, those in memory too."""
    return (CommandRequest(node, ("nmcli", "-g", "UUID", "connection", "show")),)


def parse_profiles(node: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`node/<n>/profiles`: their UUIDs, sorted. Raises ValueError for none: it was not the NetworkManager that marks rows."""
    found = sorted(_UUID.findall(replies[0]))
    if not found:
        raise ValueError("NetworkManager lists no profile at all")
    return {f"node/{node}/profiles": Known(found)}


def ping_requests(node: str, address: str) -> tuple[CommandRequest]:
    """One echo request, waited for one second. Exit code 1: no answer came."""
    return (CommandRequest(node, ("ping", "-c1", "-W1", address), fine=(0, 1)),)


def parse_ping(node: str, address: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`node/<n>/ping/<address>`: whether it answers."""
    received = re.search(r"(\d+)(?: packets)? received", replies[0])
    if received is None:
        raise ValueError(f"no count of answers in {replies[0].strip()[:60]!r}")
    return {f"node/{node}/ping/{address}": Known(int(received[1]) > 0)}


def nic_requests(node: str) -> tuple[ListRequest]:
    """What nmstate sees of one node's interfaces."""
    keep = ("metadata.name", "status.currentState.interfaces")
    return (ListRequest(*STATE, keep=keep, optional=True, fields=(("metadata.name", node),)),)


def parse_nics(node: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`node/<n>/nics`: name → type and MTU of each NIC that nmstate lists; Absent where it reports nothing of the node.

    `used`, of one that something else rides on: by what. What Open vSwitch makes itself is no NIC, and neither is the
    loopback.
    """
    for item in replies[0] or ():
        interfaces = item.get("status", {}).get("currentState", {}).get("interfaces")
        if interfaces is not None:
            on_top = _on_top(interfaces)
            nics = {
                str(i["name"]): {"type": i.get("type", ""), "mtu": i.get("mtu"), **_used(i, on_top)}
                for i in interfaces
                if i.get("type") not in NO_NICS
            }
            return {f"node/{node}/nics": Known(nics)}
    return {f"node/{node}/nics": ABSENT}


_TAKERS = ("mac-vlan", "mac-vtap", "ipvlan", "macsec")
"""What takes all that the NIC below it (`base-iface`) receives."""


def _on_top(interfaces: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """NIC → what has taken it, of the node itself: what is in a pod's network namespace is not seen from here."""
    found: dict[str, list[str]] = defaultdict(list)
    for interface in interfaces:
        for kind in _TAKERS:
            if below := (interface.get(kind) or {}).get("base-iface"):
                found[str(below)].append(f"{kind} {interface['name']} is on it")
    return found


def _used(interface: Mapping[str, Any], on_top: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What rides on a NIC and is cut when a bridge takes it: a bond or bridge that it is in, an address of the node, or
    a macvlan and its like, which would refuse it to the bridge.

    A VLAN on it is not cut: the kernel takes its frames before the bridge does.
    """
    addresses = [
        str(address.get("ip"))
        for family in ("ipv4", "ipv6")
        for address in (interface.get(family) or {}).get("address") or ()
        if not str(address.get("ip")).lower().startswith("fe80:")
    ]
    holder = [f"a port of {interface['controller']}"] if interface.get("controller") else []
    ways = [
        *holder,
        *(f"the node's address {address}" for address in addresses),
        *on_top.get(str(interface["name"]), ()),
    ]
    return {"used": ", ".join(ways)} if ways else {}


def _policy(item: Mapping[str, Any]) -> dict[str, Any]:
    spec, metadata = item.get("spec", {}), item["metadata"]
    return {
        "uid": metadata.get("uid", ""),
        "generation": metadata.get("generation", 0),
        "selector": dict(spec.get("nodeSelector") or {}),
        "document": spec.get("desiredState") or {},
        "at_once": spec.get("maxUnavailable"),
        "owner": owner(metadata),
        "ours": (metadata.get("labels") or {}).get(OURS) == FIELD_MANAGER,
        "labelled": bool(metadata.get("labels")),
        "annotated": bool(metadata.get("annotations")),
        "network": (metadata.get("annotations") or {}).get(MADE_FOR, ""),
    }


TRACKED = (
    "argocd.argoproj.io/tracking-id",
    "argocd.argoproj.io/instance",
    "apps.open-cluster-management.io/hosting-subscription",
)


def owner(metadata: Mapping[str, Any]) -> str:
    """Who else keeps an object as it is: a GitOps tool's mark, or a controller that owns it; empty when nobody (H50)."""
    marks = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
    for key in TRACKED:
        if key in marks:
            return f"{key.partition('/')[0].split('.')[0]} ({key}: {marks[key]})"
    if marks.get(OURS, FIELD_MANAGER) != FIELD_MANAGER:
        return f"{marks[OURS]} ({OURS})"
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller"):
            return f"{reference['kind']} {reference['name']}"
    managers = [str(m.get("manager", "")) for m in metadata.get("managedFields") or ()]
    return next((m for m in managers if m.startswith(("argocd", "multicluster-operators", "klusterlet"))), "")


def _editable(item: Mapping[str, Any]) -> bool:
    """Whether the admission rule lets the spec be edited: Available has a reason that is not "in progress"."""
    for condition in item.get("status", {}).get("conditions", ()):
        if condition.get("type") == "Available":
            return condition.get("reason") not in ("", None, "ConfigurationProgressing")
    return False


def state_of(status: Mapping[str, Any]) -> str:
    """One word for an enactment's conditions. Failing alone is final; with Progressing it is being retried."""
    true = {c.get("type") for c in status.get("conditions", ()) if c.get("status") == "True"}
    if {"Failing", "Progressing"} <= true:
        return "retrying"
    for condition, word in (
        ("Available", "available"),
        ("Failing", "failed"),
        ("Aborted", "aborted"),
        ("Pending", "pending"),
        ("Progressing", "progressing"),
    ):
        if condition in true:
            return word
    return "waiting"


def _setback(status: Mapping[str, Any]) -> Fact:
    """How many attempts at this generation have failed so far, while the handler has not given up; Absent for none.

    The count survives a success, so it tells nothing of a policy that is enacted, or given up.
    """
    failed = (status.get("retryCount") or {}).get(str(status.get("policyGeneration")), 0)
    if not failed or state_of(status) in OVER:
        return ABSENT
    return Known(f"attempt {failed} of {ATTEMPTS} failed, its handler tries again")


def _message(status: Mapping[str, Any]) -> str:
    """The line of a handler's message that says what is wrong: the last one of nmstate's own, the log left out."""
    texts = [
        str(c.get("message", ""))
        for c in status.get("conditions", ())
        if c.get("status") == "True" and c.get("message")
    ]
    whole = "\n".join(dict.fromkeys(texts))
    lines = [line.strip() for line in whole.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("NmstateError:")]
    line = errors[-1] if errors else lines[-1] if lines else ""
    return re.sub(r" still found as .*", " still found", line)[:MESSAGE_LIMIT]


def _split(name: str, known: Mapping[str, int]) -> tuple[str, str, str]:
    """Node and policy of an enactment without labels: `<node>.<policy>`, both of which may hold dots."""
    for policy in sorted(known, key=len, reverse=True):
        if name.endswith(f".{policy}"):
            return name.removesuffix(f".{policy}"), ".", policy
    return name.partition(".")
