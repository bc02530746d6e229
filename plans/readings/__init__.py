"""How facts are read: for each *view*, the requests to put to the ports and the pure parsing of the replies.

A view is a piece of the world that is read at one go: `nodes`, `node:<node>`, `vms`, `vms:<node>` (all VMs, and which of them are there), `networks`, `migrations`, `vm:<ns>/<name>`,
`migration:<ns>/<name>`, `policies`, `policy:<name>`, `enactment:<node>/<policy>`, `nmstate-versions`, `nads`, `nad:<ns>/<name>`, `nad-users`, `machines`, `machines-now`, `machine:<ns>/<name>`, `kubevirt`,
`l2advertisements`, `l2advertisement:<ns>/<name>`, `migration-limits`, `rollouts`, `pods`, `pods:<node>`, `budgets`, `budgets:<node>`, `canaries`, `canaries:<node>`, `boot:<node>`, `daemons:<node>`, `enactments:<node>`,
`images`, `launchers:<node>`, `answers:<node>:<bridge>`, `nics:<node>`, `profiles:<node>`, `ping:<node>:<address>`, `nmstate-probe`, `dns:<node>:<name>:<server>`, `ovs:<node>`, `ovn:<node>`, `dp:<node>`, `fdb:<node>:<bridge>`. What
belongs here: one file per part of the world. The engine asks and knows none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from plans.facts import Fact, Json
from plans.ops import CommandRequest, ListRequest, SelectRequest
from plans.readings import (
    budgets,
    cluster,
    images,
    kubelets,
    l2advertisements,
    launchers,
    machines,
    maintenance,
    name_servers,
    networks,
    nmstate,
    node,
    reboots,
)
from plans.readings.reply import NoReply as NoReply
from plans.readings.reply import Reply as Reply

AnyRequest = ListRequest | SelectRequest | CommandRequest


_BROUGHT_BY = {
    "nmstate.io": "the Kubernetes NMState Operator",
    "kubevirt.io": "OpenShift Virtualization",
    "k8s.cni.cncf.io": "Multus, a part of OpenShift's own network operator",
    "metallb.io": "the MetalLB Operator",
    "k8s.ovn.org": "OVN-Kubernetes",
}


def not_served(api: str, kind: str) -> NoReply:
    """That the cluster has no such API, and who would bring it."""
    operator = _BROUGHT_BY.get(api.partition("/")[0])
    brought = f": {operator} brings it, and is not installed, or too old" if operator else ""
    return NoReply(f"the cluster serves no {kind} ({api}){brought}")


@dataclass(frozen=True, slots=True)
class Reading:
    """One view: what to ask, and what the answers mean.

    `spare`: requests that may stay without an answer; what `parse` gets in its place is the `NoReply`. So it is with those
    in `told`, which are needed, and of which `parse` says itself what is not known without them.
    """

    requests: tuple[AnyRequest, ...]
    parse: Callable[[Sequence[Json]], Mapping[str, Fact]]
    unknown: Callable[[str], Mapping[str, Fact]]
    spare: frozenset[AnyRequest] = frozenset()
    told: frozenset[AnyRequest] = frozenset()

    def facts(self, replies: Sequence[Reply]) -> Mapping[str, Fact]:
        """The facts of this view: unknown, with the reason, when any request had no reply or made no sense."""
        for request, reply in zip(self.requests, replies, strict=True):
            if isinstance(reply, NoReply) and request not in self.spare | self.told:
                return self.unknown(reply.why)
        try:
            return self.parse(replies)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            # Whatever the other side sent, it is not what this version understands: say so, never guess.
            return self.unknown(f"unexpected answer: {type(error).__name__}: {error}")


def reading(view: str, now: float) -> Reading:
    """The reading behind a view, at the instant `now` (seconds since the epoch). Raises ValueError for a view that no file here declares."""
    name, *where = view.split(":")
    match name, where:
        case "nodes", []:
            return Reading(
                (kubelets.LEASES_REQUEST, cluster.NODE_REQUEST),
                cluster.parse_nodes,
                cluster.unknown("cluster/nodes", "node/*"),
                spare=frozenset({kubelets.LEASES_REQUEST}),
            )
        case "node", [n]:
            return Reading(
                (cluster.node_request(n),),
                lambda r: cluster.parse_node(n, r),
                cluster.unknown(f"node/{n}", f"node/{n}/*"),
            )
        case "vms", []:
            unasked = cluster.unknown("cluster/vms", "cluster/vms/by-namespace", "vm/*")
            return Reading(
                cluster.VM_REQUESTS, cluster.parse_vms, unasked, told=frozenset(cluster.VM_REQUESTS[:1])
            )
        case "vms", [n]:
            return Reading(
                (cluster.VM_REQUESTS[0], cluster.node_request(n)),
                cluster.parse_vms,
                cluster.unknown("cluster/vms", "cluster/vms/by-namespace", "vm/*", f"node/{n}/vms"),
            )
        case "networks", []:
            return Reading(
                (cluster.NETWORKS_REQUEST,),
                cluster.parse_networks,
                cluster.unknown("cluster/networks", "network/*"),
            )
        case "migrations", []:
            return Reading(
                (cluster.MIGRATIONS_REQUEST,),
                cluster.parse_migrations,
                cluster.unknown("migration/*", "cluster/migrating/*"),
            )
        case "vm", [key]:
            return Reading(
                (cluster.one(cluster.VMI, cluster.VMI_KEEP, key),),
                lambda r: cluster.parse_one_vm(key, r),
                cluster.unknown(f"vm/{key}", f"vm/{key}/node"),
            )
        case "migration", [key]:
            return Reading(
                (cluster.one(cluster.VMIM, cluster.MIGRATION_KEEP, key),),
                lambda r: cluster.parse_one_migration(key, r),
                cluster.unknown(f"migration/{key}", f"migration/{key}/phase"),
            )
        case (
            (
                "nads"
                | "nad"
                | "nad-users"
                | "machines"
                | "machines-now"
                | "machine"
                | "kubevirt"
                | "l2advertisements"
                | "l2advertisement"
            ),
            _,
        ):
            return _declared(name, ":".join(where))
        case "images", []:
            return Reading(images.REQUESTS, images.parse, cluster.unknown("cluster/images"))
        case "launchers", [n]:
            return Reading(
                (launchers.request_of(n),),
                lambda r: launchers.parse(n, r),
                cluster.unknown(f"node/{n}/launchers"),
            )
        case (("migration-limits" | "rollouts" | "pods" | "canaries" | "answers"), _):
            return _maintenance(name, where)
        case (("boot" | "daemons" | "enactments"), [n]):
            return _around_reboot(name, n)
        case "budgets", _:
            return _around_reboot(name, "".join(where))
        case "policies", []:
            return Reading(
                nmstate.REQUESTS,
                nmstate.parse_policies,
                cluster.unknown("cluster/nmstate", "cluster/policies", "policy/*", "enactment/*"),
            )
        case "policy", [name]:
            return Reading(
                nmstate.one_policy(name),
                lambda r: nmstate.parse_policy(name, r),
                cluster.unknown("cluster/nmstate", f"policy/{name}", f"policy/{name}/*"),
            )
        case "enactment", [key]:
            policy = key.partition("/")[2]
            return Reading(
                nmstate.one_enactment(key),
                lambda r: nmstate.parse_enactment(key, r),
                cluster.unknown("cluster/nmstate", f"policy/{policy}", f"enactment/{key}/state"),
            )
        case "nmstate-versions", []:
            return Reading(
                nmstate.STATE_REQUESTS,
                nmstate.parse_states,
                cluster.unknown("cluster/nmstate-nodes"),
                told=frozenset(nmstate.STATE_REQUESTS[:1]),
            )
        case "nics", [n]:
            return Reading(
                nmstate.nic_requests(n), lambda r: nmstate.parse_nics(n, r), cluster.unknown(f"node/{n}/nics")
            )
        case "profiles", [n]:
            return Reading(
                nmstate.profile_requests(n),
                lambda r: nmstate.parse_profiles(n, r),
                cluster.unknown(f"node/{n}/profiles"),
            )
        case "nmstate-probe", []:
            return Reading(
                (name_servers.PROBE_REQUEST,),
                name_servers.parse_probe,
                cluster.unknown("cluster/nmstate-probe"),
            )
        case "dns", [n, asked, *parts]:
            server = ":".join(parts)
            return Reading(
                name_servers.requests(n, asked, server),
                lambda r: name_servers.parse(n, asked, server, r),
                cluster.unknown(f"node/{n}/dns/{server}/{asked}"),
            )
        case "ping", [n, *parts]:
            address = ":".join(parts)
            return Reading(
                nmstate.ping_requests(n, address),
                lambda r: nmstate.parse_ping(n, address, r),
                cluster.unknown(f"node/{n}/ping/{address}"),
            )
        case "ovs", [n]:
            return Reading(node.ovs_requests(n), lambda r: node.parse_ovs(n, r, now), node.unknown(n, "ovs"))
        case "ovn", [n]:
            return Reading(node.ovn_requests(n), lambda r: node.parse_ovn(n, r), node.unknown(n, "ovn"))
        case "dp", [n]:
            return Reading(node.dp_requests(n), lambda r: node.parse_dp(n, r), node.unknown(n, "dp"))
        case "fdb", [n, bridge]:
            return Reading(
                node.fdb_requests(n, bridge),
                lambda r: node.parse_fdb(n, bridge, r),
                node.unknown(n, f"fdb/{bridge}"),
            )
    raise ValueError(f"no view {view!r}")


def _maintenance(name: str, where: Sequence[str]) -> Reading:
    """The views that are read only when nodes are emptied."""
    n = where[0] if where else ""
    match name:
        case "migration-limits":
            return Reading(
                (maintenance.LIMITS_REQUEST,),
                maintenance.parse_limits,
                cluster.unknown("cluster/migration-limits"),
            )
        case "rollouts":
            return Reading(
                maintenance.POOL_REQUESTS, maintenance.parse_pools, cluster.unknown("cluster/rollouts")
            )
        case "pods":
            paths = (f"node/{n}/pods", f"node/{n}/pod/*") if n else ("cluster/evictable-namespaces",)
            return Reading(
                (maintenance.pod_request(n),),
                lambda r: maintenance.parse_pods(n, r),
                cluster.unknown(*paths),
            )
        case "canaries":
            paths = (f"node/{n}/canaries", f"node/{n}/canary/*") if n else ("cluster/canaries",)
            return Reading(
                (maintenance.canary_request(n),),
                lambda r: maintenance.parse_canaries(n, r),
                cluster.unknown(*paths),
            )
        case _:
            return Reading(
                (maintenance.answer_request(n, where[1]),),
                lambda r: maintenance.parse_answers(n, where[1], r),
                cluster.unknown(f"node/{n}/answers/{where[1]}"),
            )


def _around_reboot(name: str, n: str) -> Reading:
    """The views that are read only when a node is rebooted."""
    match name:
        case "boot":
            return Reading(
                reboots.boot_requests(n),
                lambda r: reboots.parse_boot(n, r),
                cluster.unknown(f"node/{n}/boot/*"),
                spare=frozenset({reboots.lease_request(n)}),
            )
        case "budgets":
            return Reading(
                budgets.requests(n),
                lambda r: budgets.parse(n, r),
                cluster.unknown(*(f"node/{n}/{part}" for part in ("budgets", "over-budget")))
                if n
                else cluster.unknown("cluster/budgets"),
            )
        case "daemons":
            return Reading(
                (reboots.daemon_request(n),),
                lambda r: reboots.parse_daemons(n, r),
                cluster.unknown(f"node/{n}/daemons", f"node/{n}/daemon/*"),
            )
        case _:
            return Reading(
                reboots.enactment_requests(n),
                lambda r: reboots.parse_enactments(n, r),
                cluster.unknown(f"node/{n}/enacted", f"node/{n}/enacted/*", f"node/{n}/enacting"),
            )


def _declared(name: str, key: str) -> Reading:
    """The views that are read only when the files declare networks, attachments or advertisements."""
    match name:
        case "nads":
            return Reading(
                (cluster.NETWORKS_REQUEST,), networks.parse_nads, cluster.unknown("cluster/nads", "nad/*")
            )
        case "nad":
            return Reading(
                networks.requests_of(key),
                lambda r: networks.parse_one_nad(key, r),
                cluster.unknown(f"nad/{key}", f"nad/{key}/*"),
            )
        case "nad-users":
            return Reading(
                (networks.PODS_REQUEST,),
                networks.parse_pods,
                cluster.unknown("cluster/nad-pods", "cluster/nad-pods-by-node"),
            )
        case "machines":
            return Reading(
                machines.REQUESTS,
                machines.parse_machines,
                cluster.unknown("cluster/machines", "machine/*"),
            )
        case "machines-now":
            return Reading(
                machines.REQUESTS,
                machines.parse_with_versions,
                cluster.unknown("cluster/machines", "machine/*"),
            )
        case "machine":
            return Reading(
                machines.requests_of(key),
                lambda r: machines.parse_one_machine(key, r),
                cluster.unknown(f"machine/{key}", f"machine/{key}/*"),
            )
        case "kubevirt":
            return Reading(
                (machines.KUBEVIRT_REQUEST,),
                machines.parse_kubevirt,
                cluster.unknown("cluster/live-update", "cluster/own-migrations"),
            )
        case "l2advertisements":
            return Reading(
                (l2advertisements.REQUEST,),
                l2advertisements.parse_advertisements,
                cluster.unknown("cluster/l2advertisements", "l2advertisement/*"),
            )
        case _:
            return Reading(
                (l2advertisements.request_of(key),),
                lambda r: l2advertisements.parse_one_advertisement(key, r),
                cluster.unknown(f"l2advertisement/{key}", f"l2advertisement/{key}/*"),
            )


def view_of(path: str) -> str:
    """The view that tells the fact at `path`, so that a wait knows what to read again."""
    match path.split("/"):
        case ["vm", namespace, name, *_] if name != "*":
            return f"vm:{namespace}/{name}"
        case ["migration", namespace, name, *_] if name != "*":
            return f"migration:{namespace}/{name}"
        case ["vm", *_] | ["cluster", "vms", *_] | ["node", _, "vms"]:
            return "vms"
        case ["migration", *_] | ["cluster", "migrating", *_]:
            return "migrations"
        case ["network", *_] | ["cluster", "networks"]:
            return "networks"
        case [("nad" | "machine" | "l2advertisement") as kind, namespace, name, *_] if name != "*":
            return f"{kind}:{namespace}/{name}"
        case [("nad" | "machine" | "l2advertisement") as kind, *_]:
            return f"{kind}s"
        case ["cluster", ("nads" | "machines" | "l2advertisements") as view]:
            return view
        case ["cluster", "nad-pods" | "nad-pods-by-node"]:
            return "nad-users"
        case ["cluster", "live-update" | "own-migrations"]:
            return "kubevirt"
        case ["policy", name, *_] if name != "*":
            return f"policy:{name}"
        case ["enactment", at, name, *_] if name != "*":
            return f"enactment:{at}/{name}"
        case ["policy" | "enactment", *_] | ["cluster", "nmstate" | "policies"]:
            return "policies"
        case ["cluster", "nmstate-nodes"] | ["node", _, "nmstate", *_]:
            return "nmstate-versions"
        case ["cluster", ("migration-limits" | "rollouts" | "canaries" | "images" | "budgets") as view]:
            return view
        case ["cluster", "evictable-namespaces"]:
            return "pods"
        case ["node", n, "pods" | "pod", *_]:
            return f"pods:{n}"
        case ["node", n, "boot", *_]:
            return f"boot:{n}"
        case ["node", n, "budgets" | "over-budget"]:
            return f"budgets:{n}"
        case ["node", n, "daemons" | "daemon", *_]:
            return f"daemons:{n}"
        case ["node", n, "enacted" | "enacting", *_]:
            return f"enactments:{n}"
        case ["node", n, "canaries" | "canary", *_]:
            return f"canaries:{n}"
        case ["node", n, "launchers"]:
            return f"launchers:{n}"
        case ["node", n, "answers", bridge]:
            return f"answers:{n}:{bridge}"
        case ["node", n, ("nics" | "profiles" | "ovs" | "ovn" | "dp") as part, *_]:
            return f"{part}:{n}"
        case ["cluster", "nmstate-probe"]:
            return "nmstate-probe"
        case ["node", n, "dns", server, asked]:
            return f"dns:{n}:{asked}:{server}"
        case ["node", n, "ping", address]:
            return f"ping:{n}:{address}"
        case ["node", n, "fdb", bridge, *_]:
            return f"fdb:{n}:{bridge}"
        case ["node", n, part] if part in cluster.OF_OBJECT and n != "*":
            return f"node:{n}"
    return "nodes"
