"""Bridges that a VMNetwork has made: on each node where one is not there, and the ports that it lacks.

The one invariant: nothing is mapped to such a bridge before every port that was put on it is a NIC that works (H03,
H53); one that fails this is taken away again, by the means that made it. Nothing that was there is removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from plans import ovs, transactions
from plans.actions import Action, Done, Finished, Invocation, Next, Perform, Stop, routine
from plans.changes import Blocked, Change, Context, Fragment, Kind, Outcome, Same
from plans.checks import Check
from plans.desired import Desired, VMNetwork
from plans.facts import Facts, Known, Unknown
from plans.nmstate import documents, enactments, enforcing
from plans.nmstate.ownership import made_by_network_manager, nmstate_acts
from plans.ops import AnyOp, Record, Transact, Wait
from plans.selection import applies_to

LINK_DEADLINE = 15.0
"""Seconds for the link of a NIC that was put on a bridge to be up, and for vswitchd to say so."""

TRIES = 3


def address(node: str, bridge: str) -> str:
    """The address of a bridge on a node."""
    return f"node/{node}/bridge/{bridge}"


def wanted(desired: Desired, node: str, facts: Facts) -> dict[str, list[VMNetwork]]:
    """The bridges to be made on a node, each with the networks that say of what."""
    found: dict[str, list[VMNetwork]] = {}
    for network in desired.networks:
        if network.ports and applies_to(network, node, facts):
            found.setdefault(network.bridge, []).append(network)
    return dict(sorted(found.items()))


def missing(desired: Desired, node: str, bridge: str, facts: Facts) -> list[str]:
    """The ports that a bridge is to get on a node; all of them where it is not there."""
    networks = wanted(desired, node, facts).get(bridge)
    view = facts.value(f"node/{node}/ovs")
    held = names_on(view, bridge) if view else set()
    return [port for port in networks[0].ports if port not in held] if networks and view else []


def by_policy(network: VMNetwork, node: str, facts: Facts) -> bool:
    """Whether nmstate is to make, or add to, the bridge of a network. One that is not there yet is nobody's."""
    asked = network.spec.delivery.by if network.spec.delivery else None
    view = facts.value(f"node/{node}/ovs")
    free = bool(view) and network.bridge not in view["bridges"]
    owned = free or made_by_network_manager(facts, node, network.bridge)
    return owned and asked != "ovsdb" and nmstate_acts(facts, node)


def names_on(view: ovs.View, bridge: str) -> set[str]:
    """The ports of a bridge, and the interfaces that are behind them."""
    ports = view["bridges"].get(bridge, {}).get("ports", {})
    return {*ports, *(i["name"] for port in ports.values() for i in port["interfaces"])}


def diff(desired: Desired, node: str, facts: Facts) -> list[Outcome]:
    """Every bridge to be made on a node, once however many networks ride on it."""
    return [
        _diff_one(desired, bridge, networks, node, facts)
        for bridge, networks in wanted(desired, node, facts).items()
    ]


def _diff_one(
    desired: Desired, bridge: str, networks: Sequence[VMNetwork], node: str, facts: Facts
) -> Outcome:
    where, network = address(node, bridge), networks[0]
    ports = missing(desired, node, bridge, facts)
    if not ports:
        return Same(where, node)
    view = facts.value(f"node/{node}/ovs")
    reasons = [*_taken(view, bridge, ports), *_in_use(view, node, ports, facts)]
    if by_policy(network, node, facts):
        reasons += _not_for_nmstate(network, node, ports, facts)
    if reasons:
        return Blocked(where, node, tuple(reasons))
    new = bridge not in view["bridges"]
    names = " and ".join(f"VMNetwork {n.name}" for n in networks)
    return Change(
        address=where, kind="new-bridge", node=node, verb="+" if new else "~",
        before="absent" if new else ", ".join(sorted(view["bridges"][bridge]["ports"])),
        after=f"{'a bridge' if new else 'also'} with {', '.join(ports)}", why=f"{names} has it made, and is to be on it",
        data={"bridge": bridge, "ports": ports, "new": new}, bridge=bridge,
        localnets=tuple(n.name for n in desired.networks if n.bridge == bridge and applies_to(n, node, facts)),
    )  # fmt: skip


def _taken(view: ovs.View, bridge: str, ports: Sequence[str]) -> list[str]:
    """Each port that another bridge has: taking it there would cut what rides on that one."""
    return [
        f"port {port} is under {other}"
        for port in ports
        for other in view["bridges"]
        if other != bridge and port in names_on(view, other)
    ]


def _in_use(view: ovs.View, node: str, ports: Sequence[str], facts: Facts) -> list[str]:
    """Each port on which something rides that is none of Open vSwitch's: it would be cut (H12)."""
    nics = facts.value(f"node/{node}/nics") or {}
    held = {port for bridge in view["bridges"] for port in names_on(view, bridge)}
    return [
        f"port {port} is in use: {nics[port]['used']} (H12): take that off first, or name another port"
        for port in ports
        if port not in held and nics.get(port, {}).get("used")
    ]


def _not_for_nmstate(network: VMNetwork, node: str, ports: Sequence[str], facts: Facts) -> list[str]:
    if network.is_labelled:
        return ["the strategy `labelled` makes no bridge"]
    nics = facts.get(f"node/{node}/nics")
    if isinstance(nics, Unknown):
        return [f"cannot tell which NICs {node} has: {nics.why}"]
    known = nics.value if isinstance(nics, Known) else {}
    return [
        f"port {port} is no NIC that nmstate lists on {node}: it would make an internal port of that name (H53); "
        f"it lists {', '.join(sorted(known)) or 'none'}"
        for port in ports
        if port not in known
    ]


def ovsdb(change: Change, context: Context) -> Action:
    """The fragment for delivery by OVSDB: one guarded transaction."""
    node, bridge, ports, new = change.node, change.bridge, change.data["ports"], change.data["new"]
    at = f"node/{node}/ovs"
    reads = (f"ovs:{node}",)
    datapath = _datapath(context.facts.value(at))
    args = {"node": node, "bridge": bridge, "ports": ports, "new": new, "datapath": datapath}
    return Action(
        id=f"{node}/make/{bridge}",
        routine="make-bridge@1",
        title=f"make bridge {bridge} with {', '.join(ports)}"
        if new
        else f"put {', '.join(ports)} on bridge {bridge}",
        address=change.address,
        node=node,
        args=args,
        reads=reads,
        expect=(Check(f"{at}/bridge/{bridge}", "absent" if new else "present", why="as the plan saw it"),),
        done_when=verify(change, context),
        undo=(Invocation("unmake-bridge@1", args, reads),),
    )


def _datapath(view: ovs.View) -> str:
    """The datapath of br-int: a patch port joins bridges of one datapath only."""
    return str(view["bridges"].get(ovs.INTEGRATION_BRIDGE, {}).get("datapath_type") or "")


def nncp(change: Change, context: Context) -> Action:
    """The fragment for delivery by a policy: NetworkManager makes the bridge, and keeps it."""
    made, node = ovsdb(change, context), change.node
    network = next(n for n in context.desired.networks if n.ports and n.bridge == change.bridge)
    view = context.facts.value(f"node/{node}/ovs")
    kept = _entries(view, change.bridge)
    added = [{"name": port} for port in change.data["ports"]]
    new = change.data["new"]
    args = {
        **made.args,
        **enforcing.way(network, node, context.facts, "done"),
        "document": documents.with_bridge(
            change.bridge, [*kept, *added], made.args["datapath"] if new else ""
        ),
        "without": documents.without_bridge(change.bridge)
        if new
        else documents.with_bridge(change.bridge, kept),
    }
    reads = (*made.reads, *enforcing.views(node, args))
    inverse = {**args, "document": args["without"]}
    return replace(
        made,
        routine="policy-make-bridge@1",
        title=f"{made.title}, by a policy",
        args=args,
        reads=reads,
        undo=(Invocation("policy-unmake-bridge@1", inverse, reads),),
        deadline=enactments.SEEN_DEADLINE + enactments.APPLY_DEADLINE + enactments.EDIT_DEADLINE,
    )


def _entries(view: ovs.View, bridge: str) -> list[dict[str, Any]]:
    """The ports that a bridge has, as a document lists them: what it leaves out, nmstate would take off."""
    found = []
    ports = view["bridges"].get(bridge, {}).get("ports", {})
    for name, port in ports.items():
        if name in ovs.patch_ports(view, bridge):
            continue
        entry: dict[str, Any] = {"name": name}
        members = [{"name": i["name"]} for i in port["interfaces"]]
        if len(members) > 1:
            mode = {"mode": port["bond_mode"]} if port.get("bond_mode") else {}
            entry["link-aggregation"] = {**mode, "port": members}
        found.append(entry)
    return found


def preflight(change: Change, facts: Facts) -> tuple[Check, ...]:
    """Nothing of its own: the action looks at the ports when its turn comes."""
    return ()


def verify(change: Change, context: Context) -> tuple[Check, ...]:
    """Every port that was put on the bridge is a NIC that works."""
    path = f"node/{change.node}/ovs/bridge/{change.bridge}/uplinks"
    return (
        Check(
            path, "has", change.data["ports"], "H53: each port must be a NIC of the node, with its link up"
        ),
    )


FRAGMENTS: dict[str, Fragment] = {"ovsdb": ovsdb, "nncp": nncp}


def views(desired: Desired, node: str) -> tuple[str, ...]:
    """What nmstate sees of the node's NICs, where the files have something to do with them."""
    return (f"nics:{node}",) if any(n.ports for n in desired.networks) else ()


KIND = Kind("new-bridge", FRAGMENTS, diff, preflight, verify, views)


# The steps.


def _view(args: Mapping[str, Any], facts: Facts) -> ovs.View | Stop:
    fact = facts.get(f"node/{args['node']}/ovs")
    if isinstance(fact, Known):
        view: ovs.View = fact.value
        return view
    return Stop(f"cannot read the switch of {args['node']}: {fact}", unsure=True)


def _after(args: Mapping[str, Any], view: ovs.View) -> ovs.View:
    """The view as the making leaves it."""
    lacking = [port for port in args["ports"] if port not in names_on(view, args["bridge"])]
    return ovs.with_nics(view, args["bridge"], lacking, args["datapath"])


def _is_whole(args: Mapping[str, Any], view: ovs.View) -> bool:
    return args["bridge"] in view["bridges"] and set(args["ports"]) <= names_on(view, args["bridge"])


def _sick(args: Mapping[str, Any], view: ovs.View) -> list[str]:
    """What is wrong with each port that was put on the bridge."""
    found = []
    ports = view["bridges"].get(args["bridge"], {}).get("ports", {})
    nics = {i["name"]: i for port in ports.values() for i in port["interfaces"]}
    for name in args["ports"]:
        nic = nics.get(name)
        if nic is None:
            found.append(f"{name} is not on it")
        elif nic["type"] == "internal":
            found.append(f"{name} is an internal port, no NIC of the node (H53)")
        elif not ovs.is_alive(nic):
            found.append(f"{name}: {nic.get('error') or 'link ' + str(nic.get('link_state') or 'unknown')}")
    return found


def _await_links(args: Mapping[str, Any], view: ovs.View, done: Done, label: str) -> Next | None:
    """A wait for the ports' links, then why they are no good; None when they are. `label` is the op that made them."""
    sick = _sick(args, view)
    if not sick:
        return None
    if done.attempts.get("up", 0) < max(1, done.attempts.get(label, 0)):
        path = f"node/{args['node']}/ovs/bridge/{args['bridge']}/uplinks"
        check = Check(path, "has", args["ports"], "a port is no NIC with its link up yet")
        title = f"{', '.join(args['ports'])} up on {args['bridge']}"
        return Perform((Wait(label="up", title=title, checks=(check,), deadline=LINK_DEADLINE),))
    return Stop(f"{args['bridge']} on {args['node']} was made, and reaches nobody: {'; '.join(sick)}")


def _record(args: Mapping[str, Any]) -> Perform:
    node = args["node"]
    return Perform((Record(label="before", title=f"record the switch of {node}", views=(f"ovs:{node}",)),))


def _strangers(args: Mapping[str, Any], facts: Facts, view: ovs.View) -> list[str]:
    """Why what was made can't be taken away again: what others have put there since."""
    bridge = args["bridge"]
    pairs = ovs.parse_mappings(view["mapping"])
    stay = [nic for nic in ovs.live_uplinks(view, bridge) if nic not in args["ports"]]
    found = [
        f"localnet {net} is mapped to it"
        for net, home in sorted(pairs.items())
        if home == bridge and not stay
    ]
    if args["new"]:
        ours = {bridge, *args["ports"], *ovs.patch_ports(view, bridge)}
        found += [f"port {name} is on it" for name in view["bridges"][bridge]["ports"] if name not in ours]
    return found


def _make(args: Mapping[str, Any], view: ovs.View) -> Transact:
    node, bridge = args["node"], args["bridge"]
    after = _after(args, view)
    lacking = [port for port in args["ports"] if port not in names_on(view, bridge)]
    words = [f"add-port {bridge} {port}" for port in lacking]
    if bridge in view["bridges"]:
        operations = [
            o for n, port in enumerate(lacking) for o in transactions.insert_nic(bridge, port, f"n{n}")
        ]
    else:
        operations = transactions.make_bridge(view, bridge, after["bridges"][bridge])
        datapath = [f"set Bridge {bridge} datapath_type={args['datapath']}"] if args["datapath"] else []
        words = [f"add-br {bridge}", *datapath, *words]
    return Transact(
        label="make",
        title=f"make {bridge} with {', '.join(lacking)}"
        if args["new"]
        else f"put {', '.join(lacking)} on {bridge}",
        node=node,
        operations=transactions.settled(view, operations),
        commands=(f"ovs-vsctl {' -- '.join(words)}",),
        changes=ovs.changes(node, view, after),
    )


def _unmake(args: Mapping[str, Any], view: ovs.View) -> Transact:
    """What was made taken away: the whole bridge, or the ports that were put on it."""
    node, bridge = args["node"], args["bridge"]
    ports = [port for port in args["ports"] if port in view["bridges"][bridge]["ports"]]
    if args["new"]:
        operations, after = transactions.remove_bridge(view, bridge), ovs.without_bridge(view, bridge)
        title, words = f"take {bridge} away again", [f"del-br {bridge}"]
    else:
        operations = [o for port in ports for o in transactions.take_port(view, bridge, port)]
        after = ovs.without_ports(view, ports)
        title = f"take {', '.join(ports)} off {bridge} again"
        words = [f"del-port {bridge} {port}" for port in ports]
    return Transact(
        label="unmake",
        title=title,
        node=node,
        operations=transactions.settled(view, operations),
        commands=(f"ovs-vsctl {' -- '.join(words)}",),
        changes=ovs.changes(node, view, after),
    )


def _is_gone(args: Mapping[str, Any], view: ovs.View) -> bool:
    """Whether nothing is left of what was made."""
    if args["new"]:
        return args["bridge"] not in view["bridges"]
    return not set(args["ports"]) & names_on(view, args["bridge"])


def _was_ours(done: Done, label: str) -> bool:
    """Whether an op has happened, or may have: what it makes is then ours to take away."""
    return done.outcomes.get(label) in ("done", "first", "doubt")


def _unmake_ops(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    view = facts.value(f"node/{args['node']}/ovs")
    return (_unmake(args, _after(args, view)),)


def _rescue(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """After a failure: a bridge that reaches nobody is not left for somebody to map to."""
    view = _view(args, facts)
    if isinstance(view, Stop):
        return view
    if not _was_ours(done, "make") or _is_gone(args, view):
        return Finished()
    if strangers := _strangers(args, facts, view):
        return Finished(f"{args['bridge']} is left as it is: {'; '.join(strangers)}")
    if done.attempts.get("unmake", 0) >= TRIES:
        return Stop(
            f"{args['bridge']} on {args['node']} comes back after it was taken away: somebody else makes it"
        )
    return Perform((_unmake(args, view),))


@routine("make-bridge@1", rescue=_rescue, on_failure=_unmake_ops)
def make_bridge(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Make a bridge with its ports, or put on it those that it lacks, and see each of them work."""
    view = _view(args, facts)
    if isinstance(view, Stop):
        return view
    if not _is_whole(args, view):
        lacking = [port for port in args["ports"] if port not in names_on(view, args["bridge"])]
        if taken := _taken(view, args["bridge"], lacking):
            return Stop(f"{args['bridge']} on {args['node']}: {'; '.join(taken)}", moved=True)
        if "before" not in done.outcomes:
            return _record(args)
        if done.has("make") and done.attempts.get("make", 0) >= TRIES:
            return Stop(
                f"{args['bridge']} on {args['node']} goes away after it was made: somebody removes it",
                moved=True,
            )
        return Perform((_make(args, view),))
    return _await_links(args, view, done, "make") or Finished(f"{args['bridge']} is there, its ports up")


@routine("unmake-bridge@1")
def unmake_bridge(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Take away what was made: the inverse of making it."""
    view = _view(args, facts)
    if isinstance(view, Stop):
        return view
    if _is_gone(args, view):
        return Finished(f"{args['bridge']} is as it was")
    if strangers := _strangers(args, facts, view):
        return Stop(f"{args['bridge']} on {args['node']} can't go: {'; '.join(strangers)}", moved=True)
    return Perform((_unmake(args, view),))


def _await_taken(args: Mapping[str, Any], view: ovs.View) -> Wait:
    changes = ovs.changes(args["node"], view, _before(args, view))
    deadline = enactments.SEEN_DEADLINE + enactments.APPLY_DEADLINE
    return enactments.await_enactment("taken", args["node"], args["policy"], changes, deadline)


def _policy_rescue_ops(args: Mapping[str, Any], facts: Facts) -> tuple[AnyOp, ...]:
    return (
        enforcing.retract_op("withdraw", args, facts),
        replace(
            enforcing.enforce_op("policy", {**args, "document": args["without"]}, facts), label="take-away"
        ),
    )


def _rescue_policy(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """After a failure: no policy is left trying, and what nmstate has not rolled back itself is taken away by one."""
    view = _view(args, facts)
    if isinstance(view, Stop):
        return view
    if not _was_ours(done, "policy"):
        return Finished()
    node, name = args["node"], args["policy"]
    inverse = {**args, "document": args["without"]}
    over = enactments.state(facts, node, name) in enactments.OVER or "taken" in done.outcomes
    if enforcing.in_force(inverse, facts) and not over:
        return Perform((_await_taken(args, view),))
    if enforcing.in_force(args, facts) or enforcing.in_force(inverse, facts):
        if done.attempts.get("withdraw", 0) >= 2 * TRIES:
            return Stop(f"policy {name} comes back after it was taken from {node}: somebody else wants it")
        return Perform((enforcing.retract_op("withdraw", args, facts),))
    if done.attempts.get("withdrawn", 0) < max(1, done.attempts.get("withdraw", 0)):
        return Perform((enactments.await_ended("withdrawn", node, name),))
    if _is_gone(args, view):
        return Finished(f"{args['bridge']} on {node} is as it was")
    if (strangers := _strangers(args, facts, view)) or done.attempts.get("take-away", 0):
        return Finished(
            f"{args['bridge']} on {node} is left: {'; '.join(strangers) or 'nmstate did not take it away'}"
        )
    op = replace(enforcing.enforce_op("policy", inverse, facts), label="take-away")
    return Perform((op, _await_taken(args, view)))


def _before(args: Mapping[str, Any], view: ovs.View) -> ovs.View:
    """The view as it is when what was made has gone."""
    return ovs.without_bridge(view, args["bridge"]) if args["new"] else ovs.without_ports(view, args["ports"])


@routine("policy-make-bridge@1", rescue=_rescue_policy, on_failure=_policy_rescue_ops)
def policy_make_bridge(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Let nmstate make a bridge, or put ports on it, and see each of them work: nmstate itself does not look (H53)."""
    view = _view(args, facts)
    if isinstance(view, Stop):
        return view
    lacking = [port for port in args["ports"] if port not in names_on(view, args["bridge"])]
    if taken := _taken(view, args["bridge"], lacking):
        return Stop(f"{args['bridge']} on {args['node']}: {'; '.join(taken)}", moved=True)
    if (
        ahead := enforcing.enforced(args, facts, done, ovs.changes(args["node"], view, _after(args, view)))
    ) is not None:
        return ahead
    return _await_links(args, view, done, "policy") or Finished(f"{args['bridge']} is there, its ports up")


@routine("policy-unmake-bridge@1")
def policy_unmake_bridge(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Let nmstate take away what was made by a policy: the inverse of making it."""
    view = _view(args, facts)
    if isinstance(view, Stop):
        return view
    if not _is_gone(args, view) and (strangers := _strangers(args, facts, view)):
        return Stop(f"{args['bridge']} on {args['node']} can't go: {'; '.join(strangers)}", moved=True)
    if (
        ahead := enforcing.enforced(args, facts, done, ovs.changes(args["node"], view, _before(args, view)))
    ) is not None:
        return ahead
    if not _is_gone(args, view):
        return Stop(
            f"policy {args['policy']} is Available on {args['node']}, and {args['bridge']} is still there (H41)"
        )
    return Finished(f"{args['bridge']} is as it was")
