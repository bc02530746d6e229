"""Reading the Kubernetes objects that a plan looks at: nodes, networks, VMs and migrations."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from plans.facts import ABSENT, Fact, Json, Known, Unknown
from plans.ops import ListRequest
from plans.readings import kubelets
from plans.readings.reply import NoReply

NAD = ("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition")
VM = ("kubevirt.io/v1", "VirtualMachine")
VMI = ("kubevirt.io/v1", "VirtualMachineInstance")
VMIM = ("kubevirt.io/v1", "VirtualMachineInstanceMigration")

CORDONED_BY = "ovsplan.io/cordoned-by"
"""The annotation that says which run cordoned a node (H19)."""

NODE_REQUEST = ListRequest(
    "v1",
    "Node",
    keep=(
        "metadata.name",
        "metadata.labels",
        "metadata.annotations",
        "metadata.resourceVersion",
        "spec.unschedulable",
        "status.conditions",
        "status.allocatable",
    ),
)
VMI_KEEP = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.ownerReferences",
    "spec.networks",
    "spec.nodeSelector",
    "spec.affinity.nodeAffinity",
    "spec.domain.devices.interfaces",
    "spec.domain.memory",
    "spec.domain.resources",
    "status.phase",
    "status.nodeName",
    "status.interfaces",
    "status.conditions",
    "status.guestOSInfo.id",
)
VM_REQUESTS = (ListRequest(*VMI, keep=VMI_KEEP, optional=True), NODE_REQUEST)
NETWORKS_REQUEST = ListRequest(*NAD, keep=("metadata", "spec"))
MIGRATION_KEEP = (
    "metadata.name",
    "metadata.namespace",
    "spec.vmiName",
    "status.phase",
    "status.migrationState",
)
MIGRATIONS_REQUEST = ListRequest(*VMIM, keep=MIGRATION_KEEP, optional=True)


def one(kind: tuple[str, str], keep: tuple[str, ...], key: str) -> ListRequest:
    """One object, `namespace/name`, as a list of at most one: a wait need not read all of its kind."""
    namespace, _, name = key.partition("/")
    return ListRequest(*kind, keep=keep, namespace=namespace, fields=(("metadata.name", name),))


_SUFFIXES = {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "": 1,
}


def unknown(*paths: str) -> Callable[[str], Mapping[str, Fact]]:
    """Every given path unknown, with the reason."""
    return lambda why: {path: Unknown(why) for path in paths}


def quantity(text: str | int) -> int:
    """A Kubernetes quantity in units (bytes for memory). Raises ValueError on one that is none."""
    text = str(text)
    digits = text.rstrip("KMGTik")
    return int(float(digits) * _SUFFIXES[text[len(digits) :]])


def parse_nodes(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`cluster/nodes`, `cluster/not-ready`, `cluster/cordoned`, `cluster/kubelets` and what each node's object says.

    A node is Ready when its object says so, whatever its Lease looks like (`kubelets.stale`).
    """
    leases, items = replies
    facts: dict[str, Fact] = {"node/*": ABSENT}
    names, not_ready, outsiders = [], [], []
    facts["cluster/kubelets"] = kubelets.stale(leases, items)
    for item in items:
        name = item["metadata"]["name"]
        names.append(name)
        conditions = {c["type"]: c["status"] for c in item.get("status", {}).get("conditions", ())}
        ready = conditions.get("Ready") == "True"
        cordoned = bool(item.get("spec", {}).get("unschedulable"))
        by = item["metadata"].get("annotations", {}).get(CORDONED_BY)
        memory = item.get("status", {}).get("allocatable", {}).get("memory")
        if not ready:
            not_ready.append(name)
        if cordoned:
            outsiders.append(name)
        at = f"node/{name}"
        facts[at] = Known(name)
        facts[f"{at}/*"] = Unknown(f"nobody asked {name}")  # its object tells nothing of its switch
        facts[f"{at}/labels"] = Known(dict(item["metadata"].get("labels", {})))
        facts[f"{at}/ready"] = Known(ready)
        facts[f"{at}/unschedulable"] = Known(cordoned)
        facts[f"{at}/cordoned-by"] = Known(by) if by is not None else ABSENT
        facts[f"{at}/memory"] = Known(quantity(memory)) if memory is not None else ABSENT
        facts[f"{at}/resource-version"] = Known(item["metadata"].get("resourceVersion"))
    facts["cluster/nodes"] = Known(sorted(names))
    facts["cluster/not-ready"] = Known(sorted(not_ready))
    facts["cluster/cordoned"] = Known(sorted(outsiders))
    return facts


OF_OBJECT = ("labels", "ready", "unschedulable", "cordoned-by", "memory", "resource-version")
"""What of a node stands on its own object."""


def node_request(node: str) -> ListRequest:
    """The object of one node, as a list of at most one."""
    return replace(NODE_REQUEST, fields=(("metadata.name", node),))


def parse_node(node: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """What one node's object says of it, as `parse_nodes`. What follows from all of them it does not tell."""
    told = parse_nodes([NoReply("not asked"), *replies])
    mine = {path: fact for path, fact in told.items() if path.startswith(f"node/{node}")}
    return {f"node/{node}": ABSENT, f"node/{node}/*": ABSENT, **mine}


def parse_networks(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`network/<ns>/<name>` for every NAD with localnet topology; the others do not concern us."""
    facts: dict[str, Fact] = {"network/*": ABSENT}
    names = []
    for item in replies[0]:
        key = f"{item['metadata']['namespace']}/{item['metadata']['name']}"
        try:
            config = json.loads(item.get("spec", {}).get("config") or "{}")
        except (ValueError, RecursionError):
            facts[f"network/{key}"] = Unknown("spec.config is not JSON")
            continue
        if not isinstance(config, dict) or config.get("topology") != "localnet":
            continue
        network = config.get("name", "")
        names.append(key)
        facts[f"network/{key}"] = Known(
            {
                "name": network,
                "localnet": config.get("physicalNetworkName") or network,
                "vlan": config.get("vlanID", 0),
                "mtu": config.get("mtu"),
            }
        )
    facts["cluster/networks"] = Known(sorted(names))
    return facts


def parse_vms(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`vm/<ns>/<name>` for every VMI that is not over, and `node/<n>/vms`: who runs where.

    Where the VMIs could not be listed, all of that is unknown, of each node too.
    """
    if isinstance(replies[0], NoReply):
        of_nodes = (f"node/{item['metadata']['name']}/vms" for item in replies[1])
        return unknown("cluster/vms", "cluster/vms/by-namespace", "vm/*", *of_nodes)(replies[0].why)
    facts: dict[str, Fact] = {"vm/*": ABSENT, **parse_running(replies[0] or ())}
    on: dict[str, list[str]] = defaultdict(list)
    for path, fact in facts.items():
        if path.endswith("/node") and isinstance(fact, Known):
            on[fact.value].append(path.removeprefix("vm/").removesuffix("/node"))
    for node_item in replies[1]:
        name = node_item["metadata"]["name"]
        facts[f"node/{name}/vms"] = Known(sorted(on.get(name, [])))
    everybody = sorted(vm for vms in on.values() for vm in vms)
    spaces: dict[str, list[str]] = defaultdict(list)
    for vm in everybody:
        spaces[vm.partition("/")[0]].append(vm)
    facts["cluster/vms"] = Known(everybody)
    facts["cluster/vms/by-namespace"] = Known(dict(spaces))
    return facts


def parse_running(items: Sequence[Any]) -> dict[str, Fact]:
    """`vm/<ns>/<name>` and `/node` of each VMI that is not over."""
    facts: dict[str, Fact] = {}
    for item in items:
        status = item.get("status", {})
        if status.get("phase") in ("Succeeded", "Failed"):
            continue
        key = f"{item['metadata']['namespace']}/{item['metadata']['name']}"
        facts[f"vm/{key}"] = Known(
            {
                "uid": item["metadata"]["uid"],
                "phase": status.get("phase", ""),
                "macs": _attached(item),
                "migratable": _migratable(status),
                "memory": _memory(item),
                **_particulars(item),
            }
        )
        facts[f"vm/{key}/node"] = Known(status.get("nodeName", ""))
    return facts


def parse_one_vm(key: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`vm/<ns>/<name>` and `/node` of one VMI."""
    return {f"vm/{key}": ABSENT, f"vm/{key}/node": ABSENT, **parse_running(replies[0])}


def parse_one_migration(key: str, replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`migration/<ns>/<name>` and `/phase` of one VirtualMachineInstanceMigration."""
    at = f"migration/{key}"
    found = {p: f for p, f in parse_migrations([list(replies[0])]).items() if p.startswith(at)}
    return {at: ABSENT, f"{at}/phase": ABSENT, **found}


def parse_migrations(replies: Sequence[Json]) -> Mapping[str, Fact]:
    """`migration/<ns>/<name>` and its phase, for every VirtualMachineInstanceMigration."""
    facts: dict[str, Fact] = {"migration/*": ABSENT, "cluster/migrating/*": ABSENT}
    for item in replies[0] or ():
        key = f"migration/{item['metadata']['namespace']}/{item['metadata']['name']}"
        status = item.get("status", {})
        reason = status.get("migrationState", {}).get("failureReason", "")
        facts[key] = Known({"vmi": item.get("spec", {}).get("vmiName", ""), "reason": reason})
        phase = status.get("phase", "") or "Pending"
        facts[f"{key}/phase"] = Known(phase)
        if phase not in ("Succeeded", "Failed"):
            vm = f"{item['metadata']['namespace']}/{item.get('spec', {}).get('vmiName', '')}"
            facts[f"cluster/migrating/{vm}"] = Known(item["metadata"]["name"])
    return facts


def _attached(vmi: Mapping[str, Any]) -> list[dict[str, str]]:
    """The VMI's multus attachments: interface name, NAD as `ns/name`, MAC (empty while unknown).

    A card that it gets only by a migration is none yet: nothing of it is on the node.
    """
    status = vmi.get("status", {})
    reported = {i.get("name"): i.get("mac", "") for i in status.get("interfaces", ())}
    awaits = any(c.get("type") == "MigrationRequired" for c in status.get("conditions", ()))
    declared = {
        i["name"]: i.get("macAddress", "")
        for i in vmi.get("spec", {}).get("domain", {}).get("devices", {}).get("interfaces", ())
    }
    found = []
    for network in vmi.get("spec", {}).get("networks", ()):
        nad = network.get("multus", {}).get("networkName")
        if nad and not (awaits and network["name"] not in reported):
            nad = nad if "/" in nad else f"{vmi['metadata']['namespace']}/{nad}"
            mac = reported.get(network["name"]) or declared.get(network["name"], "")
            found.append({"interface": network["name"], "nad": nad, "mac": mac.lower()})
    return found


def _migratable(status: Mapping[str, Any]) -> Json:
    """True, or the reason that KubeVirt gives; what it has not said yet is a reason too."""
    for condition in status.get("conditions", ()):
        if condition.get("type") == "LiveMigratable":
            if condition.get("status") == "True":
                return True
            return f"{condition.get('reason', 'NotMigratable')}: {condition.get('message', '')}".rstrip(": ")
    return "KubeVirt has not said whether it can"


def _particulars(vmi: Mapping[str, Any]) -> dict[str, Json]:
    """What keeps a VM to some nodes, that it has no VirtualMachine, that it has a guest agent: each only where it is so."""
    spec = vmi.get("spec", {})
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    owners = [owner.get("kind") for owner in vmi["metadata"].get("ownerReferences") or ()]
    found: dict[str, Json] = {}
    if system := _guest_agent(vmi.get("status", {})):
        found["guest_agent"] = system
    if spec.get("nodeSelector"):
        found["selector"] = spec["nodeSelector"]
    if required.get("nodeSelectorTerms"):
        found["terms"] = required["nodeSelectorTerms"]
    if VM[1] not in owners:
        found["bare"] = True
    return found


def _guest_agent(status: Mapping[str, Any]) -> str:
    """The system whose guest agent is connected now, `windows` or `linux`; empty when none is."""
    conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or ()}
    if conditions.get("AgentConnected") != "True":
        return ""
    return "windows" if (status.get("guestOSInfo") or {}).get("id") == "mswindows" else "linux"


def _memory(vmi: Mapping[str, Any]) -> int:
    """What the guest has, else what its domain requests, in bytes."""
    domain = vmi.get("spec", {}).get("domain", {})
    asked = domain.get("resources", {}).get("requests", {}).get("memory", 0)
    return quantity(domain.get("memory", {}).get("guest", asked))
