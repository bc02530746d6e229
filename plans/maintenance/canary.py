"""Canary: a pod on an emptied node that proves the new path before any VM returns to it (H31, H51).

Without a local user OVN makes no patch pair, so an emptied node proves nothing by itself. The pod is such a user: it
is on each network of the localnet that VMs use. Its own frames, seen on the bridge, prove the way from br-int to there;
they are looked for before anything else is sent in its name. Where a gateway is declared, an ARP probe (RFC 5227:
sender address 0.0.0.0, so that it takes nobody's address) is sent into the bridge as if by the pod, and a flow counts
the gateway's answers: they prove the wire, in that VLAN. The gateway's MAC in the forwarding table would not: any
broadcast of its own leaves it there. The flow forwards as the bridge does anyway, and removes itself.

The one invariant: the pod is gone when the action is over, done or failed; its name follows from the node and the
namespace, so that whoever comes after a crash finds it.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plans import ovs
from plans.actions import Action, Done, Finished, Next, Perform, Stop, routine
from plans.checks import Check, judge_all
from plans.desired import Desired
from plans.errors import InputError
from plans.facts import ABSENT, KNOWN_AFTER_APPLY, Facts, Json, Known, Unknown
from plans.maintenance.ways import networks_with_vms
from plans.ops import AnyOp, Create, Delete, ObjectRef, Run, Wait
from plans.readings.images import PODS
from plans.readings.maintenance import ANSWER_COOKIE, CANARY, MANAGED_BY, POD, RUN_LABEL

PULL_DEADLINE = 180.0
"""Seconds for the pod to run: its image may have to be pulled."""

SEEN_DEADLINE = 60.0
"""Seconds for its frames to be seen: OVN announces a new port for 15 s, and its kernel speaks by itself."""

GONE_DEADLINE = 60.0
ANSWER_DEADLINE = 3.0
PROBES = 5
"""How often the gateway is asked; RFC 5227 asks three times, within seconds."""

FLOW_SECONDS = 120
LIFE_SECONDS = 1800
"""After that the kubelet ends the pod by itself, whatever became of us."""

ARP_REQUEST = "0806" + "0001080006040001"


def networks(node_bridges: Mapping[str, str], desired: Desired, facts: Facts) -> list[dict[str, Json]]:
    """What a canary has to be on, for localnets on their bridges: one entry for each network that VMs use."""
    gateways = desired.gateways
    return [
        {"nad": nad, "lsp": lsp, "vlan": vlan, "bridge": bridge, "gateway": gateways.get(nad, "")}
        for localnet, bridge in sorted(node_bridges.items())
        for nad, (lsp, vlan) in sorted(networks_with_vms(facts, localnet).items())
    ]


@dataclass(frozen=True, slots=True)
class Image:
    """What a canary is made of; `pod`: the one from which it was read, empty when the rollout names it."""

    name: str
    pod: str = ""

    @property
    def words(self) -> str:
        """As a sentence goes on after the canary; nothing where the rollout says it."""
        return f" (of {self.name}, which pod {self.pod} has there)" if self.pod else ""


def image_of(node: str, desired: Desired, facts: Facts) -> Image | None:
    """The image of the canary on a node; None when no canary is asked for.

    Where the rollout names none, that of a pod which runs on the node: it is there, and need not be pulled. Raises
    InputError when none can be told.
    """
    rollout = desired.rollout
    if rollout is None or rollout.spec.proof is None:
        return None
    if (named := rollout.spec.proof.canary.image) is not None:
        return Image(named)
    images = facts.get("cluster/images")
    found = (facts.value("cluster/images") or {}).get(node)
    if found:
        return Image(found["image"], found["pod"])
    spaces = " or ".join(namespace for namespace, _, _ in PODS)
    why = images.why if isinstance(images, Unknown) else f"no pod of {spaces} runs there"
    message = (
        f"spec.proof.canary: no image is named, and none can be told that is on {node} already: {why}. "
        "Name one that has `sleep`: {image: IMAGE}."
    )
    raise InputError([desired.problem(f"{rollout.address}#spec.proof.canary", message)])


def is_whole(proven: Sequence[Mapping[str, Json]]) -> bool:
    """Whether the canary proves the wire too, in every network."""
    return bool(proven) and all(network["gateway"] for network in proven)


def pod_name(node: str, namespace: str) -> str:
    """The name of the canary on a node in a namespace: always the same."""
    return f"ovsplan-canary-{hashlib.sha256(f'{node}/{namespace}'.encode()).hexdigest()[:12]}"


def prove(node: str, found: Sequence[Mapping[str, Json]], image: Image) -> Action:
    """Put a pod on the node, see it on every network, ask the gateways, take it away."""
    bridges = sorted({str(network["bridge"]) for network in found})
    return Action(
        id=f"{node}/canary",
        routine="canary@1",
        title=_title(found, bridges),
        node=node,
        args={"node": node, "networks": [dict(network) for network in found], "image": image.name},
        reads=(
            f"ovs:{node}",
            f"canaries:{node}",
            *(f"fdb:{node}:{bridge}" for bridge in bridges),
            *(f"answers:{node}:{bridge}" for bridge in bridges if any(n["gateway"] for n in found)),
        ),
        no_undo="its pod is gone when it ends",
        deadline=PULL_DEADLINE
        + 2 * SEEN_DEADLINE
        + len(found) * PROBES * ANSWER_DEADLINE
        + 2 * GONE_DEADLINE,
        rows=(11,),
    )


def _title(found: Sequence[Mapping[str, Json]], bridges: Sequence[str]) -> str:
    head = f"a pod on {', '.join(str(n['nad']) for n in found)} is seen on {', '.join(bridges)}"
    asked = [f"{n['gateway']} ({_vlan(n)})" for n in found if n["gateway"]]
    told = f"{', '.join(asked)} answers" if asked else ""
    return "; ".join(filter(None, [head, told, not_proven(found)]))


def not_proven(found: Sequence[Mapping[str, Json]]) -> str:
    """What the canary leaves open, as people read it; empty when it proves the wire in every network."""
    silent = [str(network["nad"]) for network in found if not network["gateway"]]
    return (
        f"the wire beyond is not proven for {', '.join(silent)}: no IPv4 gateway declared" if silent else ""
    )


def _vlan(network: Mapping[str, Json]) -> str:
    return f"VLAN {network['vlan']}" if network["vlan"] else "untagged"


def _spaces(args: Mapping[str, Any]) -> dict[str, list[Mapping[str, Json]]]:
    """The networks by namespace: one pod each, since Multus may keep a NAD to its namespace (H28)."""
    found: dict[str, list[Mapping[str, Json]]] = defaultdict(list)
    for network in args["networks"]:
        found[network["nad"].partition("/")[0]].append(network)
    return dict(sorted(found.items()))


def rescue_canary(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """After a failure the pod goes all the same."""
    return _remove(args, facts, done) or Finished("its pod is gone")


def _foreseen(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    node = args["node"]
    mine = [_delete(node, f"{space}/{pod_name(node, space)}", "") for space in _spaces(args)]
    return (
        *mine,
        *(_delete(node, pod["pod"], pod["uid"]) for pod in facts.value(f"node/{node}/canaries") or []),
    )


@routine("canary@1", rescue=rescue_canary, contingent=_foreseen, on_failure=_foreseen)
def step_canary(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """One thing after the other: leftovers away, pods there, frames seen, gateways asked, pods away."""
    node = args["node"]
    if (stop := _unreadable(node, facts, done)) is not None:
        return stop
    if not done.has("proven:seen"):
        ahead = _leftovers(args, facts, done) or _present(args, facts, done) or _seen(args, facts, done)
        if ahead is not None:
            return ahead
    asked = [network for network in args["networks"] if network["gateway"]]
    for network in asked:
        if (ahead := _ask(network, args, facts, done)) is not None:
            return ahead
    if (ahead := _remove(args, facts, done)) is not None:
        return ahead
    seen = ", ".join(network["nad"] for network in args["networks"])
    answers = "; ".join(f"{n['gateway']} answers in {n['nad']} ({_vlan(n)})" for n in asked)
    return Finished(
        f"seen: a canary on {seen}" + (f"; {answers}" if answers else ""),
        proven=True if is_whole(args["networks"]) else None,
    )


def _unreadable(node: str, facts: Facts, done: Done) -> Stop | None:
    for path in (f"node/{node}/ovs", f"node/{node}/canaries"):
        fact = facts.get(path)
        if isinstance(fact, Unknown) and done.run != KNOWN_AFTER_APPLY:
            return Stop(f"cannot tell how the canary on {node} stands: {fact.why}", unsure=True)
    return None


def _canaries(node: str, facts: Facts) -> list[dict[str, Any]]:
    return list(facts.value(f"node/{node}/canaries") or [])


def _leftovers(args: Mapping[str, Any], facts: Facts, done: Done) -> Next | None:
    """What another run left on the node, or what is going already: away with it first."""
    node = args["node"]
    old = [pod for pod in _canaries(node, facts) if pod["run"] != done.run or pod["going"]]
    return _away(node, old, done)


def _remove(args: Mapping[str, Any], facts: Facts, done: Done) -> Next | None:
    return _away(args["node"], _canaries(args["node"], facts), done)


def _away(node: str, pods: Sequence[Mapping[str, Any]], done: Done) -> Next | None:
    """Delete some pods and wait until they are gone; None when they are."""
    if not pods:
        return None
    fresh = [pod for pod in pods if not pod["going"] and not done.has(_label(pod["pod"], pod["uid"]))]
    if fresh:
        return Perform(tuple(_delete(node, pod["pod"], pod["uid"]) for pod in fresh))
    label = "gone:" + ",".join(sorted(pod["uid"] for pod in pods))
    if label in done.outcomes:
        return Stop(
            f"the canary {pods[0]['pod']} does not end within {GONE_DEADLINE:g} s: is its kubelet alive?"
        )
    checks = tuple(Check(f"node/{node}/canary/{pod['pod']}", "ne", pod["uid"]) for pod in pods)
    return Perform((Wait(label=label, title=f"canary off {node}", checks=checks, deadline=GONE_DEADLINE),))


def _label(pod: str, uid: str) -> str:
    return f"remove:{pod}:{uid}"


def _delete(node: str, pod: str, uid: str) -> Delete:
    namespace, _, name = pod.partition("/")
    return Delete(
        label=_label(pod, uid),
        title=f"remove the canary {pod} from {node}",
        ref=ObjectRef(*POD, name, namespace),
        uid=uid or None,
        commands=(f"oc delete pod {name} -n {namespace}",),
        changes=((f"node/{node}/canaries", Known([])), (f"node/{node}/canary/{pod}", ABSENT)),
    )


def _present(args: Mapping[str, Any], facts: Facts, done: Done) -> Next | None:
    """Every pod there, and running; None when they are."""
    node = args["node"]
    pods = {space: f"{space}/{pod_name(node, space)}" for space in _spaces(args)}
    there = {pod["pod"]: pod for pod in _canaries(node, facts)}
    missing = [space for space, pod in pods.items() if pod not in there]
    if missing:
        if done.attempts.get(f"create:{missing[0]}", 0) >= PROBES:
            return Stop(f"the canary {pods[missing[0]]} goes away each time: somebody removes it")
        return Perform(tuple(_create(space, args, facts, done) for space in missing))
    checks = tuple(
        Check(
            f"node/{node}/canary/{pod}/phase", "eq", "Running", there[pod]["why"] or f"{pod} does not run yet"
        )
        for pod in pods.values()
    )
    if not (missed := judge_all(checks, facts)):
        return None
    if "running" in done.outcomes:
        return Stop(
            f"the canary does not run on {node} within {PULL_DEADLINE:g} s: "
            + "; ".join(m.check.why for m in missed)
        )
    ended = tuple(Check(check.path, "eq", "Failed") for check in checks)
    return Perform(
        (
            Wait(
                label="running",
                title=f"canary running on {node}",
                checks=checks,
                unless=ended,
                deadline=PULL_DEADLINE,
            ),
        )
    )


def _create(space: str, args: Mapping[str, Any], facts: Facts, done: Done) -> Create:
    node, name = args["node"], pod_name(args["node"], space)
    nads = [network["nad"] for network in _spaces(args)[space]]
    key = f"{space}/{name}"
    run = done.run if done.run != KNOWN_AFTER_APPLY else KNOWN_AFTER_APPLY
    listed = {"pod": key, "uid": KNOWN_AFTER_APPLY, "run": run, "going": False, "why": ""}
    return Create(
        label=f"create:{space}",
        title=f"put a canary on {node}, on {', '.join(nads)}",
        ref=ObjectRef(*POD, name, space),
        body=_pod(name, space, node, nads, args["image"], done.run),
        commands=(
            f"# a pod with nodeName {node}, networks {','.join(nads)}, that runs `sleep {LIFE_SECONDS}`",
        ),
        changes=(
            (f"node/{node}/canaries", Known([*_canaries(node, facts), listed])),
            (f"node/{node}/canary/{key}", Known(KNOWN_AFTER_APPLY)),
        ),
    )


def _pod(name: str, space: str, node: str, nads: Sequence[str], image: str, run: str) -> dict[str, Json]:
    container = {
        "name": "canary",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", str(LIFE_SECONDS)],
        "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "metadata": {
            "name": name,
            "namespace": space,
            "labels": {MANAGED_BY[0]: MANAGED_BY[1], CANARY[0]: CANARY[1], RUN_LABEL: run},
            "annotations": {"k8s.v1.cni.cncf.io/networks": ",".join(nads)},
        },
        "spec": {
            # The scheduler is passed over: the node is cordoned, and is to stay so until the path is proven.
            "nodeName": node,
            "tolerations": [{"operator": "Exists"}],
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LIFE_SECONDS,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        },
    }


def address_of(view: ovs.View | None, pod: str, nad: str, lsp: str) -> str:
    """The MAC of a pod's card on a network, as OVN-Kubernetes' CNI wrote it on br-int; empty while it is not there."""
    key = pod.replace("/", "_")
    network = lsp.removesuffix("ovn_localnet_port")
    prefixes = (network, f"{nad.replace('-', '.').replace('/', '.')}_")
    ports = (view or {}).get("bridges", {}).get(ovs.INTEGRATION_BRIDGE, {}).get("ports", {})
    for port in ports.values():
        for interface in port["interfaces"]:
            ids = interface["external_ids"]
            if ids.get("iface-id") in [f"{prefix}{key}" for prefix in prefixes] and ids.get("attached_mac"):
                return str(ids["attached_mac"]).lower()
    return ""


def _mac(network: Mapping[str, Json], args: Mapping[str, Any], facts: Facts, done: Done) -> str:
    if done.run == KNOWN_AFTER_APPLY:
        return KNOWN_AFTER_APPLY
    node, space = args["node"], str(network["nad"]).partition("/")[0]
    pod = f"{space}/{pod_name(node, space)}"
    return address_of(facts.value(f"node/{node}/ovs"), pod, str(network["nad"]), str(network["lsp"]))


def _seen(args: Mapping[str, Any], facts: Facts, done: Done) -> Next | None:
    """The pod's own frames on the bridge, by a healthy pair."""
    node = args["node"]
    checks: list[Check] = []
    for network in args["networks"]:
        mac = _mac(network, args, facts, done)
        if not mac:
            return Stop(
                f"the canary runs, and has no port for {network['nad']} on br-int of {node}", unsure=True
            )
        entry = [ovs.outer_port(network["lsp"]), network["vlan"], mac]
        checks.append(Check(f"node/{node}/ovs/patch/{network['lsp']}/health", "eq", "healthy"))
        checks.append(Check(f"node/{node}/ovs/patch/{network['lsp']}", "eq", network["bridge"]))
        checks.append(
            Check(
                f"node/{node}/fdb/{network['bridge']}",
                "has",
                [entry],
                f"the canary is not seen on {network['nad']}",
            )
        )
    if "proven:seen" in done.outcomes:
        missed = judge_all(checks, facts)
        return (
            Stop(f"the canary on {node} is not seen: " + "; ".join(str(m) for m in missed))
            if missed
            else None
        )
    wait = Wait(
        label="proven:seen",
        title=f"frames of the canary on {node}",
        checks=tuple(checks),
        deadline=SEEN_DEADLINE,
    )
    return Perform((wait,))


def _ask(network: Mapping[str, Json], args: Mapping[str, Any], facts: Facts, done: Done) -> Next | None:
    """Ask one gateway until it answers; None when it has."""
    node, bridge, nad = args["node"], str(network["bridge"]), network["nad"]
    heard = Check(
        f"node/{node}/answers/{bridge}", "has", [[network["gateway"], network["vlan"]]],
        f"{network['gateway']} has not answered",
    )  # fmt: skip
    asked = sum(1 for label in done.outcomes if label.startswith(f"answer:{nad}:"))
    if asked and (not judge_all([heard], facts) or _heard(done, nad, asked)):
        return None
    if asked >= PROBES:
        return Stop(
            f"{network['gateway']} does not answer in {nad} ({_vlan(network)}) by {bridge} of {node}, asked {asked} times: "
            "look at the VLANs of the switch ports"
        )
    mac = _mac(network, args, facts, done)
    if not mac:
        return Stop(f"the canary on {node} has lost its port for {nad}", unsure=True)
    return Perform((
        _count(node, network, mac, asked + 1),
        _probe(node, network, mac, facts, asked + 1),
        Wait(
            label=f"answer:{nad}:{asked + 1}", title=f"answer of {network['gateway']} in {nad}", checks=(heard,),
            deadline=ANSWER_DEADLINE,
        ),
    ))  # fmt: skip


def _heard(done: Done, nad: Json, asked: int) -> bool:
    return any(done.has(f"answer:{nad}:{n}") for n in range(1, asked + 1))


def _count(node: str, network: Mapping[str, Json], mac: str, number: int) -> Run:
    vlan = f"dl_vlan={network['vlan']}" if network["vlan"] else "vlan_tci=0x0000"
    flow = (
        f"cookie={ANSWER_COOKIE},hard_timeout={FLOW_SECONDS},priority=65000,arp,{vlan},arp_op=2,"
        f"arp_spa={network['gateway']},dl_dst={mac},actions=normal"
    )
    return Run(
        label=f"count:{network['nad']}:{number}",
        title=f"count answers of {network['gateway']} on {network['bridge']}, for {FLOW_SECONDS} s",
        node=node,
        argv=("ovs-ofctl", "add-flow", str(network["bridge"]), flow),
        commands=(f'ovs-ofctl add-flow {network["bridge"]} "{flow}"',),
    )


def probe_frame(mac: str, gateway: str) -> str:
    """An ARP probe in hex: who has `gateway`, asked by nobody's address (RFC 5227 §2.1.1)."""
    digits = mac.replace(":", "").lower()
    asked = ipaddress.IPv4Address(gateway).packed.hex()
    return f"ffffffffffff{digits}{ARP_REQUEST}{digits}00000000{'0' * 12}{asked}"


def _probe(node: str, network: Mapping[str, Json], mac: str, facts: Facts, number: int) -> Run:
    bridge, port = str(network["bridge"]), ovs.outer_port(str(network["lsp"]))
    tagging = f"mod_vlan_vid:{network['vlan']},normal" if network["vlan"] else "normal"
    rest = f"packet={probe_frame(mac, str(network['gateway']))} actions={tagging}"
    return Run(
        label=f"probe:{network['nad']}:{number}",
        title=f"ask for {network['gateway']} in {network['nad']}, as the canary",
        node=node,
        argv=("ovs-ofctl", "packet-out", bridge, f"in_port={_number(facts, node, bridge, port)} {rest}"),
        commands=(
            f'ovs-ofctl packet-out {bridge} "in_port=$(ovs-vsctl get Interface {port} ofport) {rest}"',
        ),
    )


def _number(facts: Facts, node: str, bridge: str, port: str) -> str:
    view = facts.value(f"node/{node}/ovs") or {}
    found = view.get("bridges", {}).get(bridge, {}).get("ports", {}).get(port)
    return str(found["interfaces"][0]["ofport"]) if found else KNOWN_AFTER_APPLY


def collect(facts: Facts) -> list[Action]:
    """The action that removes what killed runs have left, when the plan sees any."""
    left = facts.value("cluster/canaries") or []
    if not left:
        return []
    nodes = sorted({pod["node"] for pod in left})
    return [
        Action(
            id="collect-canaries",
            routine="collect-canaries@1",
            title=f"remove canaries that an earlier run left: {', '.join(pod['pod'] for pod in left)}",
            args={"nodes": nodes},
            reads=tuple(f"canaries:{node}" for node in nodes),
            no_undo="they served a run that has ended",
            deadline=2 * GONE_DEADLINE * len(nodes),
        )
    ]


@routine("collect-canaries@1")
def step_collect(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Remove every canary of another run from some nodes."""
    for node in args["nodes"]:
        old = [pod for pod in _canaries(node, facts) if pod["run"] != done.run]
        if (ahead := _away(node, old, done)) is not None:
            return ahead
    return Finished()
