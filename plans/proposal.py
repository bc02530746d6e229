"""Proposal: the documents that say what is there already, and the one migration that is asked for.

The one invariant: planning what was proposed, on the same facts, shows no change but that migration. What would show
another is told in a comment; a localnet of which that cannot be done is left out, with the reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from plans import nads, ovs
from plans.desired import load_desired, names
from plans.desired.models import WORKERS, Network, VMNetwork
from plans.desired.networks import config_of
from plans.document import Plan, Target
from plans.errors import InputError, PlanError
from plans.facts import Facts, Known, Unknown
from plans.guests import networks_of
from plans.networks import field_changes, listed
from plans.nmstate import documents, policies
from plans.nmstate.ownership import made_by_network_manager
from plans.planner import VIEWS as PLANNED
from plans.planner import make_plan
from plans.writing import Entry, document

VIEWS = (*PLANNED, "nads")
"""What a proposal looks at; beside these, everything that a plan reads of a node, of each node."""

ROLLOUT = "rollout.yaml"

MOST = 20
"""How many VMs are listed in a comment: who they are is in the cluster, and changes."""

_CLUSTERS = ("physnet", "exgwphysnet")
_WORKER = next(iter(WORKERS))


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for: a bridge to be on, one to be replaced by it, and the localnets that this is about."""

    bridge: str | None = None
    replaces: str | None = None
    localnets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """The files, by name; why localnets are `left_out`; and the plan that the files lead to."""

    files: Mapping[str, str]
    left_out: tuple[str, ...]
    plan: Plan


@dataclass(frozen=True, slots=True)
class _Seen:
    """Which localnet is on which bridge, node by node; and the nodes of which that can't be told, with the reason."""

    facts: Facts
    pairs: Mapping[str, Mapping[str, str]]
    unread: Mapping[str, str]

    def homes(self, localnet: str) -> dict[str, str]:
        """Node → bridge."""
        return {node: pairs[localnet] for node, pairs in self.pairs.items() if localnet in pairs}

    def with_bridge(self, bridge: str) -> list[str]:
        """The nodes that have a bridge."""
        return [n for n in self.pairs if bridge in self.facts.value(f"node/{n}/ovs")["bridges"]]

    @property
    def localnets(self) -> list[str]:
        """Every localnet of VMs that a node maps."""
        return sorted({net for pairs in self.pairs.values() for net in pairs if net not in _CLUSTERS})

    @property
    def named(self) -> list[str]:
        """Every localnet that a NAD names and no node maps."""
        keys = self.facts.value("cluster/networks", [])
        found = {str((self.facts.value(f"network/{key}") or {}).get("localnet", "")) for key in keys}
        return sorted(found - {"", *_CLUSTERS, *self.localnets})


@dataclass(frozen=True, slots=True)
class _Draft:
    """A VMNetwork in the making. `moves`: it is the migration that was asked for. `covered`: its readable nodes."""

    localnet: str
    bridge: str
    selector: Mapping[str, str]
    covered: tuple[str, ...]
    moves: bool
    header: tuple[str, ...]
    about: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    delivery: Mapping[str, str] = field(default_factory=dict)
    replaces: Mapping[str, Any] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    attachments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def file(self) -> str:
        return f"vmnetwork-{self.localnet}.yaml"

    @property
    def text(self) -> str:
        def entry(name: str, value: Any, *, block: bool = False, off: bool = False) -> Entry:
            return Entry(name, value or None, self.about.get(name, ()), block, off or not value)

        fields = (
            entry("nodes", dict(self.selector)),
            entry("bridge", self.bridge),
            entry("delivery", dict(self.delivery)),
            entry("replaces", dict(self.replaces)),
            entry("networks", dict(self.networks), block=True),
            entry("attachments", dict(self.attachments), block=True, off=True),
        )
        return document(self.header, "VMNetwork", self.localnet, fields)

    def saying(self, name: str, *sentences: str) -> _Draft:
        """The draft with something more to tell about a field."""
        return replace(self, about={**self.about, name: (*self.about.get(name, ()), *sentences)})


def propose(facts: Facts, target: Target, wish: Wish) -> Proposal:
    """The documents for what the facts tell. Pure.

    Raises InputError (a wish that fits nothing here, or there is nothing to declare) or PlanError (nothing could be read).
    """
    seen = _look(facts)
    _check(wish, seen)
    movers = _movers(wish, seen)
    left_out: list[str] = []
    drafts: list[_Draft] = []
    taken: dict[str, Mapping[str, Any]] = {}
    for localnet in sorted({*(wish.localnets or seen.localnets), *movers}):
        try:
            draft = _draft(localnet, wish if localnet in movers else Wish(), seen, target)
        except ValueError as error:
            left_out.append(f"localnet {localnet}: {error}")
            continue
        draft = _with_networks(draft, facts, taken)
        drafts.append(_delivered(draft, facts, target))
    left_out += [
        f"localnet {localnet}: NADs name it, and no node maps it. To map it: --localnet {localnet} --bridge BRIDGE"
        for localnet in seen.named
        if localnet not in movers and not wish.localnets
    ]
    if not drafts:
        raise InputError("\n".join([_nothing(seen), *left_out]))
    files = {draft.file: draft.text for draft in drafts} | {ROLLOUT: _rollout(drafts, facts)}
    return Proposal(files, tuple(left_out), make_plan(load_desired(list(files.items())), facts, target))


def _nothing(seen: _Seen) -> str:
    where = f" on {listed(sorted(seen.pairs))}"
    return f"there is nothing to declare: no localnet of VMs can be told{where}. On a new cluster: --localnet NAME --bridge BRIDGE"


def _look(facts: Facts) -> _Seen:
    if isinstance(nodes := facts.get("cluster/nodes"), Unknown):
        raise PlanError(f"cannot list the cluster's nodes: {nodes.why}. Nothing can be told.")
    pairs: dict[str, Mapping[str, str]] = {}
    unread: dict[str, str] = {}
    for node in facts.value("cluster/nodes", []):
        match facts.get(f"node/{node}/ovs/mappings"):
            case Known(value):
                pairs[node] = value
            case Unknown(why):
                unread[node] = why
            case _:
                unread[node] = "its mapping cannot be told"
    if not pairs:
        raise PlanError(
            "\n".join(["no node could be read, so nothing can be told of its bridges:", *_reasons(unread)])
        )
    return _Seen(facts, pairs, unread)


def _reasons(unread: Mapping[str, str]) -> list[str]:
    """Each reason once, with the nodes that it is of."""
    nodes: dict[str, list[str]] = defaultdict(list)
    for node, why in unread.items():
        nodes[why.replace(node, "the node")].append(node)
    return [
        f"{listed(found)}: {unread[found[0]] if len(found) == 1 else why}" for why, found in nodes.items()
    ]


# What is asked for.


def _check(wish: Wish, seen: _Seen) -> None:
    """The options against each other and against what is there. Raises InputError."""
    if wish.replaces and not wish.bridge:
        raise InputError("--replace needs --bridge: the bridge that VM traffic is on instead")
    if wish.bridge and wish.bridge == wish.replaces:
        raise InputError(f"--replace {wish.replaces}: a bridge cannot replace itself")
    for option, name, rule in (
        ("--bridge", wish.bridge, names.bridge_to_ride_on),
        ("--replace", wish.replaces, names.bridge_to_replace),
    ):
        if name is not None:
            _fits(option, name, rule)
            if not seen.with_bridge(name):
                raise InputError(f"{option}: no node has a bridge {name!r}{_hint(name, seen)}")
    for localnet in wish.localnets:
        _fits("--localnet", localnet, names.localnet_name)
        if not wish.bridge and localnet not in seen.localnets:
            near = get_close_matches(localnet, seen.localnets, 1)
            hint = f"did you mean {near[0]}?" if near else f"they map {', '.join(seen.localnets) or 'none'}"
            raise InputError(
                f"--localnet: no node maps a localnet {localnet!r}; {hint} With --bridge it would be mapped"
            )


def _fits(option: str, name: str, rule: Callable[[str], str]) -> None:
    try:
        rule(name)
    except ValueError as error:
        raise InputError(f"{option}: {error}") from error


def _hint(name: str, seen: _Seen) -> str:
    known = sorted({b for n in seen.pairs for b in seen.facts.value(f"node/{n}/ovs")["bridges"]})
    near = get_close_matches(name, known, 1)
    unread = f". It cannot be told of {listed(sorted(seen.unread))}" if seen.unread else ""
    return (f"; did you mean {near[0]}?" if near else f"; they have {', '.join(known)}") + unread


def _movers(wish: Wish, seen: _Seen) -> list[str]:
    """The localnets that `--bridge` is about. Raises InputError when that is not clear."""
    if wish.bridge is None:
        return []
    if wish.localnets:
        return list(wish.localnets)
    riders: dict[str, set[str]] = {net: set(seen.homes(net).values()) for net in seen.localnets}
    for bridge in filter(None, (wish.replaces, wish.bridge)):
        if found := [net for net, homes in riders.items() if bridge in homes]:
            return found
    choices = seen.localnets or seen.named
    if len(choices) == 1:
        return choices
    if not choices:
        raise InputError(
            "no node maps a localnet of VMs, and no NAD names one: say with --localnet which one is to be mapped"
        )
    told = ", ".join(f"{net} ({', '.join(sorted(riders[net]))})" if net in riders else net for net in choices)
    raise InputError(
        f"--bridge {wish.bridge}: which localnet? There are {told}. Say it with --localnet, or --replace its bridge"
    )


# Which nodes.


def _draft(localnet: str, wish: Wish, seen: _Seen, target: Target) -> _Draft:
    """What a localnet is on, and on which nodes. Raises ValueError: why it can't be declared."""
    names.localnet_name(localnet)
    homes = seen.homes(localnet)
    bridge = wish.bridge or Counter(sorted(homes.values())).most_common(1)[0][0]
    names.bridge_to_ride_on(bridge)
    fit = [node for node, home in homes.items() if wish.bridge or home == bridge]
    if not homes:
        fit = _new_nodes(bridge, seen)
    selector, covered = _selector(fit, seen)
    if not covered:
        raise ValueError(f"no label tells {listed(fit)} from the other nodes. Label them, and try again")
    draft = _Draft(
        localnet, bridge, selector, covered, bool(wish.bridge), tuple(_header(localnet, homes, target))
    )
    draft = draft.saying("nodes", *_about_nodes(draft, fit, homes, seen))
    draft = draft.saying("bridge", *_who_made(bridge, covered, seen.facts))
    if wish.replaces:
        draft = replace(draft, replaces={"bridge": wish.replaces})
        draft = draft.saying("replaces", *_who_made(wish.replaces, covered, seen.facts))
    return draft


def _header(localnet: str, homes: Mapping[str, str], target: Target) -> Iterator[str]:
    yield f"The localnet {localnet} (physicalNetworkName in the NADs), as `ovsplan init` found it. Target: {target.title}."
    on: dict[str, list[str]] = defaultdict(list)
    for node, bridge in homes.items():
        on[bridge].append(node)
    yield (
        "; ".join(f"It is on {bridge} on {listed(nodes)}" for bridge, nodes in on.items())
        or "No node maps it yet"
    )


def _new_nodes(bridge: str, seen: _Seen) -> list[str]:
    """The nodes for a localnet that none has: the workers with the bridge, or whoever has it when there are none."""
    there = seen.with_bridge(bridge)
    workers = [n for n in there if _WORKER in seen.facts.value(f"node/{n}/labels", {})]
    return workers or there


def _selector(fit: Collection[str], seen: _Seen) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """The labels that select as many of the nodes as can be and none of the others, and the nodes they select.

    Nodes that could not be read count for neither.
    """
    index: dict[tuple[str, str], set[str]] = defaultdict(set)
    for node in seen.pairs:
        for key, value in seen.facts.value(f"node/{node}/labels", {}).items():
            index[key, value].add(node)
    workers = index.get((_WORKER, ""), set())
    wanted = set(fit)
    found: list[tuple[int, int, int, str, Mapping[str, str], set[str]]] = []
    for (key, value), nodes in index.items():
        for extra in ({}, WORKERS) if key != _WORKER else ({},):
            chosen = nodes & workers if extra else nodes
            if chosen and chosen <= wanted:
                labels = {**extra, key: value}
                found.append((-len(chosen), _rank(key), len(labels), f"{key}={value}", labels, chosen))
    if not found:
        return {}, ()
    best = min(found, key=lambda each: each[:4])
    return best[4], tuple(sorted(best[5]))


def _rank(key: str) -> int:
    """How well a label's key says what a node is for; what machines write says it worst."""
    domain = key.rpartition("/")[0]
    if key == _WORKER:
        return 0
    if key == policies.HOSTNAME:
        return 5
    if domain == "node-role.kubernetes.io":
        return 1
    if domain.endswith(("kubernetes.io", "k8s.io", "kubevirt.io", "openshift.io", "nmstate.io")):
        return 4 if not key.startswith("topology.") else 3
    return 2


def _about_nodes(draft: _Draft, fit: Sequence[str], homes: Mapping[str, str], seen: _Seen) -> Iterator[str]:
    if dict(draft.selector) != dict(WORKERS):
        yield f"guessed: these labels are those of {listed(draft.covered)} and of no other node that could be read"
    if left := sorted(set(fit) - set(draft.covered)):
        yield f"guessed: no label tells all of them from the others. Not selected: {listed(left)}. Label them, and write it here"
    others = {node: home for node, home in homes.items() if node not in fit}
    if others:
        told = ", ".join(f"{node} ({home})" for node, home in sorted(others.items())[:6])
        more = f" and {len(others) - 6} more" if len(others) > 6 else ""
        yield f"guessed: not selected, as they are on another bridge: {told}{more}. `ovsplan init --bridge BRIDGE` moves them"
    facts = seen.facts
    workers = [n for n in seen.pairs if _WORKER in facts.value(f"node/{n}/labels", {}) and n not in homes]
    if homes and workers:
        yield f"not selected, as they do not map it: {listed(workers)}"
    labels = draft.selector.items()
    unread = {
        n: why for n, why in seen.unread.items() if labels <= facts.value(f"node/{n}/labels", {}).items()
    }
    for reason in _reasons(unread):
        yield f"guessed: could not be read, and is taken to be as the others: {reason}"
    if draft.moves and (lacking := [n for n in draft.covered if n not in seen.with_bridge(draft.bridge)]):
        yield f"{listed(lacking)}: no bridge {draft.bridge} there yet; a plan is blocked until it is (H03)"


def _who_made(bridge: str, nodes: Sequence[str], facts: Facts) -> list[str]:
    """Who made a bridge and what leads out of it, nodes of one kind together."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        view = facts.value(f"node/{node}/ovs")
        if bridge not in view["bridges"]:
            kinds["not there"].append(node)
            continue
        maker = "NetworkManager" if made_by_network_manager(facts, node, bridge) else "ovs-vsctl"
        uplinks = ", ".join(ovs.live_uplinks(view, bridge)) or "none that works"
        kinds[f"made by {maker}, uplink {uplinks}"].append(node)
    everywhere = len(kinds) == 1
    return [f"{bridge}: {what}{'' if everywhere else f' ({listed(found)})'}" for what, found in kinds.items()]


# Networks and who uses them.


def _with_networks(draft: _Draft, facts: Facts, taken: dict[str, Mapping[str, Any]]) -> _Draft:
    """The draft with each NAD of its localnet that can be declared as it is; `taken`: those declared so far."""
    bare = load_desired([(draft.file, draft.text)]).networks[0]
    declared: dict[str, Mapping[str, Any]] = {}
    told = []
    if isinstance(listed_nads := facts.get("cluster/nads"), Unknown):
        told.append(f"could not be read: {listed_nads.why}")
    for key in facts.value("cluster/networks", []):
        if (facts.value(f"network/{key}") or {}).get("localnet") != draft.localnet:
            continue
        config = facts.value(f"nad/{key}/config") or {}
        if why := _undeclarable(key, config, bare, facts, taken):
            told.append(f"{key}, left as it is: {why}")
            continue
        declared[key] = _fields(key, config)
        taken[key] = config
    told += [f"{key}: {why}; it may be on this localnet too" for key, why in _unclear(facts)]
    draft = replace(draft, networks=declared, attachments=_attachments(draft.localnet, facts))
    if declared:
        draft = draft.saying(
            "networks", "NetworkAttachmentDefinitions as they are: declared, they are kept so"
        )
    if isinstance(vms := facts.get("cluster/vms"), Unknown):
        draft = draft.saying("attachments", f"VMs could not be read: {vms.why}")
    uses = len(draft.attachments)
    if uses:
        more = f"; {MOST} of {uses} are shown" if uses > MOST else ""
        draft = draft.saying("attachments", f"VMs on these networks, told and not declared{more}")
        draft = replace(draft, attachments=dict(list(draft.attachments.items())[:MOST]))
    return draft.saying("networks", *told)


def _unclear(facts: Facts) -> list[tuple[str, str]]:
    """NADs of which it can't be told what they are: they are in no list, only below their paths."""
    keys = facts.value("cluster/nads", [])
    return [(key, fact.why) for key in keys if isinstance(fact := facts.get(f"network/{key}"), Unknown)]


def _fields(key: str, config: nads.Config) -> dict[str, Any]:
    """A NAD as a VMNetwork declares it."""
    meant = nads.meaning(config)
    name = config.get("name")
    found = {
        "name": name if name != key.partition("/")[2] else None,
        "vlan": meant.get("vlanID"),
        "mtu": meant.get("mtu"),
        "subnets": meant.get("subnets"),
        "excludeSubnets": meant.get("excludeSubnets"),
        "allowPersistentIPs": meant.get("allowPersistentIPs"),
    }
    return {field_: value for field_, value in found.items() if value is not None}


def _undeclarable(
    key: str, config: nads.Config, network: VMNetwork, facts: Facts, taken: Mapping[str, nads.Config]
) -> str:
    """Why a NAD can't be declared without changing it; empty when it can."""
    about = facts.value(f"nad/{key}") or {}
    if about.get("generated"):
        return f"{about.get('keeper') or 'a UserDefinedNetwork'} makes it (H27)"
    if about.get("keeper"):
        return f"{about['keeper']} keeps it (H50)"
    if not nads.is_ours_to_judge(config):
        return f"it is of another plug-in (type {config.get('type', '')!r})"
    if faults := nads.faults(config, key):
        return "; ".join(faults)
    for other, its in taken.items():
        if _collides(config, its):
            return f"it cannot be declared beside {other}: their networks have one name in OVN (H25)"
    try:
        names.nad_address(key)
        wanted = config_of(network, key, Network.model_validate(_fields(key, config)))
    except ValueError as error:
        return f"it is not what a VMNetwork can say: {_first_line(error)}"
    differences = field_changes(config, nads.merged(wanted, config))
    return (
        f"a VMNetwork has no word for its {', '.join(name for name, _, _ in differences)}"
        if differences
        else ""
    )


def _first_line(error: ValueError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("Value error")), lines[0]).removeprefix(
        "Value error, "
    )


def _collides(one: nads.Config, other: nads.Config) -> bool:
    first, second = str(one.get("name")), str(other.get("name"))
    if first == second:
        return bool(nads.contradictions(one, other))
    return nads.folded(first) == nads.folded(second)


def _attachments(localnet: str, facts: Facts) -> dict[str, dict[str, str]]:
    """`namespace/vm` → interface → NAD, of the VMs that run."""
    on = networks_of(facts, localnet)
    found: dict[str, dict[str, str]] = {}
    for vm in facts.value("cluster/vms", []):
        cards = (facts.value(f"vm/{vm}") or {}).get("macs", ())
        if mine := {card["interface"]: card["nad"] for card in cards if card["nad"] in on}:
            found[vm] = mine
    return found


# By which means, and which policies.


def _delivered(draft: _Draft, facts: Facts, target: Target) -> _Draft:
    """The draft with its delivery and the policies that go, each with the reason."""
    if isinstance(served := facts.get("cluster/nmstate"), Unknown):
        draft = draft.saying(
            "delivery", f"guessed: policies could not be read, so none is named: {served.why}"
        )
    if draft.moves:
        return _asked_for(draft, facts, target)
    plans: list[tuple[_Draft, Plan]] = []
    for choice in _choices(draft, facts):
        plan = _planned(choice, facts, target)
        plans.append((choice, plan))
        if not _changes(plan):
            break
    else:
        # Whatever the delivery, something is not as it should be here: the plain document shows it best.
        plans = plans[:1]
    draft, plan = plans[-1]
    blocking = [finding.message for finding in plan.blocking()]
    return draft.saying("delivery", *blocking)


def _planned(draft: _Draft, facts: Facts, target: Target) -> Plan:
    return make_plan(load_desired([(draft.file, draft.text)]), facts, target)


def _changes(plan: Plan) -> bool:
    return bool(plan.cluster or any(node.changes for node in plan.nodes))


def _choices(draft: _Draft, facts: Facts) -> Iterator[_Draft]:
    """Ways to declare what is there as it is; the first that changes nothing is taken."""
    made = [n for n in draft.covered if made_by_network_manager(facts, n, draft.bridge)]
    holders = _holders(draft, facts) if made else []
    for name in holders:
        gone = documents.removed_bridges(_document(facts, name))
        held = replace(draft, replaces={"bridge": gone[0]} if len(gone) == 1 else {})
        if name != _own_name(draft):
            held = replace(held, delivery={"policy": name})
        if held.replaces and not _can_go(gone[0], draft.bridge):
            continue
        yield held.saying(
            "delivery", f"the policy {name} maps {draft.localnet} to {draft.bridge}: it is kept as it is"
        )
    yield draft
    keeper = f"the policy {listed(holders)} maps it" if holders else "no policy maps it"
    yield replace(draft, delivery={"by": "ovsdb"}).saying(
        "delivery",
        f"guessed: NetworkManager made {draft.bridge}, and {keeper}. Without this line ovsplan keeps a policy of its own, "
        f"{_own_name(draft)}, for these nodes",
    )


def _can_go(bridge: str, home: str) -> bool:
    try:
        names.bridge_to_replace(bridge)
    except ValueError:
        return False
    return bridge != home


def _own_name(draft: _Draft) -> str:
    return policies.shared_name(load_desired([(draft.file, replace(draft, delivery={}).text)]).networks[0])


def _document(facts: Facts, policy: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (facts.value(f"policy/{policy}") or {}).get("document", {})
    return found


def _holders(draft: _Draft, facts: Facts) -> list[str]:
    """The policies that map the localnet to the bridge; those of single nodes, which a run leaves behind, are none."""
    found = []
    for name in facts.value("cluster/policies") or []:
        have = facts.value(f"policy/{name}") or {}
        maps = documents.mapped_pairs(_document(facts, name)).get(draft.localnet) == draft.bridge
        if maps and policies.HOSTNAME not in have["selector"]:
            found.append(name)
    own = _own_name(draft)
    return sorted(found, key=lambda name: (name != own, name))


def _asked_for(draft: _Draft, facts: Facts, target: Target) -> _Draft:
    """The migration: the policy that says so already is adopted, those that say otherwise are replaced."""
    holders = _holders(draft, facts)
    if holders:
        if holders[0] != _own_name(draft):
            draft = replace(draft, delivery={"policy": holders[0]})
        draft = draft.saying("delivery", *_about_adopting(holders, draft, facts))
    old = draft.replaces.get("bridge")
    final = documents.mapped(draft.localnet, draft.bridge)
    final = documents.union(final, documents.without_bridge(old)) if old else final
    against = {
        name: reasons
        for name in facts.value("cluster/policies") or []
        if name not in holders[:1] and _selects(name, draft.covered, facts)
        and (reasons := documents.contradictions(final, _document(facts, name)))
    }  # fmt: skip
    told = [
        f"policy {name} says otherwise: {'; '.join(reasons)}{_kept(name, facts)}"
        for name, reasons in against.items()
    ]
    if old and against:
        draft = replace(draft, replaces={**draft.replaces, "policies": sorted(against)})
        draft = draft.saying("replaces", *told)
    elif told:
        draft = draft.saying("bridge", *told, "with --replace BRIDGE such a policy is replaced too (H04)")
    return draft.saying("delivery", *_means(_planned(draft, facts, target), draft.localnet))


def _selects(policy: str, nodes: Sequence[str], facts: Facts) -> bool:
    selector = (facts.value(f"policy/{policy}") or {}).get("selector", {}).items()
    return any(selector <= facts.value(f"node/{node}/labels", {}).items() for node in nodes)


def _kept(policy: str, facts: Facts) -> str:
    owner = (facts.value(f"policy/{policy}") or {}).get("owner")
    return f". {owner} keeps it: it has to be removed there first (H50)" if owner else ""


def _about_adopting(holders: Sequence[str], draft: _Draft, facts: Facts) -> Iterator[str]:
    name = holders[0]
    selector = (facts.value(f"policy/{name}") or {}).get("selector", {})
    labels = (
        ", ".join(f"{key}={value}" if value else key for key, value in sorted(selector.items()))
        or "every node"
    )
    yield f"the policy {name} maps {draft.localnet} to {draft.bridge} already ({labels}): it becomes the one for all nodes"
    if holders[1:]:
        yield f"guessed: {listed(holders[1:])} map it too"
    for key, value in sorted(selector.items()):
        if value == policies.DONE:
            yield (
                f"each node gets a policy of its own on its way. To lead it by the label {key} instead: "
                f"{{policy: {name}, strategy: labelled, label: {key}}}"
            )


def _means(plan: Plan, localnet: str) -> Iterator[str]:
    """By which means the nodes go and why, as the plan says it; nodes of one kind together."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for node in plan.nodes:
        for change in node.changes:
            if change.address.endswith(f"/mapping/{localnet}"):
                kinds[f"the mapping goes by {change.delivery}: {change.delivery_why}"].append(node.node)
    for what, nodes in kinds.items():
        yield what if len(kinds) == 1 else f"{listed(nodes)}: {what}"


# How it goes.


def _rollout(drafts: Sequence[_Draft], facts: Facts) -> str:
    """A Rollout that leaves all as it is by default, with the other way written out."""
    header = (
        "How the rollout goes, once. It may be removed afterwards, and changes no plan.",
        "As it stands, the nodes with the fewest VMs go first, and VMs stay while their traffic moves (hot, about 20 ms).",
        "To move them away first (cold), take the `{}` off spec, and the `# ` off evacuate and what is below it.",
    )
    nodes = sorted({node for draft in drafts for node in draft.covered})
    first = min(nodes, key=lambda node: (len(facts.value(f"node/{node}/vms", [])), node))
    stuck = _stuck(drafts, facts)
    evacuate: dict[str, Any] = {"default": "live-migrate"}
    told = []
    if stuck:
        evacuate["vms"] = {vm: "stay" for vm, _ in zip(stuck, range(MOST), strict=False)}
        told = [f"{vm} cannot migrate: {why}" for vm, why in zip(stuck, stuck.values(), strict=True)][:MOST]
        told += [f"and {len(stuck) - MOST} more"] if len(stuck) > MOST else []
    evacuate["return"] = "origin"
    spec = (
        Entry(
            "order", {"canary": first, "then": "fewest-vms"}, ("the node that goes first, alone",), off=True
        ),
        Entry("evacuate", evacuate, tuple(told), block=True, off=True),
    )
    return document(header, "Rollout", "tonight", spec)


def _stuck(drafts: Sequence[_Draft], facts: Facts) -> dict[str, str]:
    """The VMs on the localnets that can't migrate, and why."""
    vms = sorted({vm for draft in drafts for vm in _attachments(draft.localnet, facts)})
    migratable = {vm: (facts.value(f"vm/{vm}") or {}).get("migratable", True) for vm in vms}
    return {vm: str(why) for vm, why in migratable.items() if why is not True}
