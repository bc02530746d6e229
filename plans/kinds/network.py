"""Networks: the NetworkAttachmentDefinitions of a localnet.

The one invariant: no NAD is made, edited or removed under somebody who relies on what is there. It is made only when
every schedulable node has the mapping; an edit under VMs is a hazard that names them (H26); one in use is never removed;
one that a controller makes is never touched (H27).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from plans import nads, networks
from plans.actions import Action, Done, Finished, Invocation, Next, Perform, Stop, routine
from plans.changes import Blocked, Change, ClusterKind, Context, Outcome, Same, Survey
from plans.checks import Check
from plans.desired import Desired, VMNetwork, WantedNad, wanted_networks
from plans.document import Finding
from plans.facts import ABSENT, Facts, Known, Unknown
from plans.networks import Users, listed
from plans.ops import AnyOp, Apply, Changes, Delete, ObjectRef, Patch, Record, Wait
from plans.readings.cluster import NAD
from plans.readings.networks import FIELD_MANAGER

MANAGED_BY = "app.kubernetes.io/managed-by"
WRITES = 5
"""How often a NAD that somebody else changes back is written."""

REFUSAL_DEADLINE = 3.0
"""Seconds in which OVN-Kubernetes says of a NAD that it can't use it; it never says so of one that it can."""


Beside = Mapping[str, Sequence[tuple[str, nads.Config]]]


def address(key: str) -> str:
    """The address of a NAD."""
    return f"network/{key}"


def views(desired: Desired) -> tuple[str, ...]:
    """NADs whole, and whoever may use one."""
    return ("nads", "nad-users", "machines") if wanted_networks(desired) else ()


def diff(desired: Desired, facts: Facts, survey: Survey) -> list[Outcome]:
    """What becomes of each declared NAD."""
    wanted = wanted_networks(desired)
    used = networks.users(facts) if wanted else {}
    beside = _beside(wanted, facts)
    waiting = networks.waiting(desired, facts, survey) if wanted else {}
    return [
        _diff_one(one, facts, used.get(one.key, Users()), beside, waiting.get(one.localnet, ()))
        for one in wanted
    ]


def _diff_one(wanted: WantedNad, facts: Facts, used: Users, beside: Beside, waits: Sequence[str]) -> Outcome:
    where, at = address(wanted.key), f"nad/{wanted.key}"
    if isinstance(fact := facts.get(at), Unknown):
        return Blocked(where, "", (fact.why,))
    if wanted.config is None:
        return _diff_absent(wanted, facts, used)
    there = isinstance(fact, Known)
    differences = networks.differences(wanted, facts)
    if there and not differences:
        return Same(where, "")
    reasons = [
        *(_untouchable(wanted, facts, differences) if there else ()),
        *_collisions(wanted, beside),
        *waits,
    ]
    if there and (unseen := networks.unseen_users(facts)):
        reasons.append(f"cannot tell who uses it: {unseen}")
    if reasons:
        return Blocked(where, "", tuple(reasons))
    config = nads.merged(wanted.config, facts.value(f"{at}/config") or {})
    before, after = _sides(differences, config, there)
    return Change(
        address=where, kind="network", node="", verb="~" if there else "+", before=before, after=after,
        why=_why(wanted, differences, there, used),
        data={"nad": wanted.key, "config": config, "labels": dict(wanted.labels), "annotations": dict(wanted.annotations),
              "used": str(used)},
        localnets=(wanted.localnet,), phase="epilogue", vms=used.running if _config_differs(differences) and there else (),
    )  # fmt: skip


def _diff_absent(wanted: WantedNad, facts: Facts, used: Users) -> Outcome:
    where, at = address(wanted.key), f"nad/{wanted.key}"
    if not isinstance(facts.get(at), Known):
        return Same(where, "")
    reasons = list(_untouchable(wanted, facts, [("state", "present", "absent")]))
    if used:
        reasons.append(f"it is in use by {used} (H26): take it off them first, then plan again")
    elif unseen := networks.unseen_users(facts):
        reasons.append(f"cannot tell who uses it: {unseen}")
    if reasons:
        return Blocked(where, "", tuple(reasons))
    return Change(
        address=where, kind="network", node="", verb="-", before=networks.in_words(facts.value(f"{at}/config") or {}),
        after="absent", why="declared absent, and nobody uses it",
        data={"nad": wanted.key, "config": None}, localnets=(wanted.localnet,), phase="epilogue",
    )  # fmt: skip


def _config_differs(differences: Sequence[tuple[str, str, str]]) -> bool:
    return any(not field.startswith(("labels.", "annotations.")) for field, _, _ in differences)


def _sides(differences: Sequence[tuple[str, str, str]], config: nads.Config, there: bool) -> tuple[str, str]:
    if not there:
        return "absent", networks.in_words(config)
    if len(differences) == 1:
        field, before, after = differences[0]
        return f"{field}: {before}", after
    return (
        ", ".join(f"{field}: {before}" for field, before, _ in differences),
        ", ".join(f"{field}: {after}" for field, _, after in differences),
    )


def _why(wanted: WantedNad, differences: Sequence[tuple[str, str, str]], there: bool, used: Users) -> str:
    if not there:
        waits = f", and by then every schedulable node has {wanted.localnet} mapped"
        return "it is declared and not there" + waits
    fields = ", ".join(field for field, _, _ in differences)
    effect = f"; {listed(used.running)} must restart or migrate to have it" if used.running else ""
    return f"the files say otherwise in {fields}{effect if _config_differs(differences) else ''}"


def _untouchable(
    wanted: WantedNad, facts: Facts, differences: Sequence[tuple[str, str, str]]
) -> Iterator[str]:
    """Why a NAD that is there may not be written: somebody else makes it, or keeps it as it is."""
    at = f"nad/{wanted.key}"
    about, config = facts.value(at), facts.value(f"{at}/config")
    if about["generated"]:
        maker = about["keeper"] or "a UserDefinedNetwork"
        yield f"{maker} makes it and would write it again (H27): change that one, or choose another name"
    elif about["keeper"]:
        said = "; ".join(f"{field}: {before} -> {after}" for field, before, after in differences)
        yield f"{about['keeper']} keeps it and would change it back (H50): change it there ({said}), then plan again"
    if config is not None and not nads.is_ours_to_judge(config):
        yield f"a network of another plug-in has this name (type {config.get('type', '')!r}): choose another name"


def _beside(wanted: Sequence[WantedNad], facts: Facts) -> Beside:
    """The NADs of OVN-Kubernetes that are there and not declared, by what their network's name comes to in OVN."""
    declared = {one.key for one in wanted}
    found: dict[str, list[tuple[str, nads.Config]]] = {}
    for key in facts.value("cluster/nads", []):
        config = facts.value(f"nad/{key}/config")
        if key not in declared and config is not None and nads.is_ours_to_judge(config):
            found.setdefault(nads.folded(str(config.get("name") or "")), []).append((key, config))
    return found


def _collisions(wanted: WantedNad, beside: Beside) -> list[str]:
    """H25: NADs that are there and can't live with what is wanted."""
    assert wanted.config is not None
    rivals = beside.get(nads.folded(str(wanted.config["name"])), ())
    return [said for key, config in rivals if (said := _collision(wanted.config, config, key))]


def _collision(wanted: nads.Config, there: nads.Config, key: str) -> str:
    name, its = str(wanted["name"]), str(there.get("name") or "")
    if name == its and (fields := nads.contradictions(wanted, there)):
        return (
            f"name: {key} is of network {name} too, and differs in {', '.join(fields)}; OVN-Kubernetes takes one of "
            "them only (H25): make them agree, or give this one another `name`"
        )
    if name != its and its and nads.folded(name) == nads.folded(its):
        return f"name: network {its} of {key} has the same name in OVN, which reads '-', '.' and '/' alike (H25): rename this one"
    return ""


def hazards(desired: Desired, facts: Facts) -> list[Finding]:
    """What is dangerous about the declared networks, and about those that are there beside them."""
    wanted = wanted_networks(desired)
    if not wanted:
        return []
    used = networks.users(facts)
    found = [
        f for one in wanted if one.config for f in _edited_in_use(one, facts, used.get(one.key, Users()))
    ]
    for network in desired.networks:
        vlans, mtus = networks.node_vlans(network, facts), networks.link_mtus(network, facts)
        on_it = [one for one in wanted if one.localnet == network.name and one.config]
        found += [f for one in on_it for f in _against_links(one, network, facts, vlans, mtus)]
    return [*found, *_broken(desired, wanted, facts)]


def _edited_in_use(wanted: WantedNad, facts: Facts, used: Users) -> Iterator[Finding]:
    """H26: the logical switch is made anew, and what runs keeps its old settings until it starts again."""
    at = f"nad/{wanted.key}"
    if not isinstance(facts.get(at), Known) or not used:
        return
    differences = networks.differences(wanted, facts)
    if _config_differs(differences) and not list(_untouchable(wanted, facts, differences)):
        said = "; ".join(f"{field}: {before} -> {after}" for field, before, after in differences)
        if used.running or used.pods:
            yield Finding(
                "H26", "block", "", (address(wanted.key),),
                f"network {wanted.key} is edited ({said}) while {used} use it: OVN-Kubernetes makes its switch anew, and those that "
                "run keep the old settings until they restart or migrate",
                "make a second NAD and move the VMs over one by one, or accept it and restart them after the apply",
            )  # fmt: skip
        else:
            yield Finding(
                "H26", "warn", "", (address(wanted.key),),
                f"network {wanted.key} is edited ({said}), which {used} will have from their next start", "nothing to do, if that is meant",
            )  # fmt: skip


def _against_links(
    wanted: WantedNad,
    network: VMNetwork,
    facts: Facts,
    vlans: Mapping[int, Sequence[str]],
    mtus: Mapping[str, tuple[int, str]],
) -> Iterator[Finding]:
    """H29, H30: the VLAN of the nodes, and an MTU that the links don't carry."""
    assert wanted.config is not None
    vlan, mtu = wanted.config.get("vlanID", 0), wanted.config.get("mtu", 0)
    where = (address(wanted.key),)
    if nodes := vlans.get(vlan):
        yield Finding(
            "H29", "warn", "", where,
            f"network {wanted.key} has VLAN {vlan}, in which the nodes themselves are (the patch port from {network.bridge} to "
            f"{networks.NODE_BRIDGE} on {listed(nodes)}): its VMs sit in the node network",
            "give the network a VLAN of its own, if that is not meant",
        )  # fmt: skip
    small = {node: found for node, found in mtus.items() if mtu and found[0] < mtu}
    if small:
        node, (least, nic) = sorted(small.items())[0]
        yield Finding(
            "H30", "warn", "", where,
            f"network {wanted.key} has mtu {mtu}, and {nic} under {network.bridge} on {node} carries {least}"
            + (f" (and so on {len(small) - 1} more)" if len(small) > 1 else "") + ": large packets are lost",
            "raise the MTU of the links, or lower the network's",
        )  # fmt: skip
    if not mtu and (
        not isinstance(facts.get(f"nad/{wanted.key}"), Known) or networks.differences(wanted, facts)
    ):
        yield Finding(
            "H30", "warn", "", where,
            f"network {wanted.key} has no mtu: it gets the one of the cluster's overlay, not the links'",
            "give `mtu` in the network or in its VMNetwork",
        )  # fmt: skip


def _broken(desired: Desired, wanted: Sequence[WantedNad], facts: Facts) -> Iterator[Finding]:
    """H25: NADs on a declared localnet that are not declared, and that OVN-Kubernetes does not take."""
    localnets = {network.name for network in desired.networks}
    # Of one that is not there yet, or differs, the diff itself says what it collides with.
    there = [one for one in wanted if one.config and isinstance(facts.get(f"nad/{one.key}"), Known)]
    settled = [one.config for one in there if one.config and not networks.differences(one, facts)]
    for rivals in _beside(wanted, facts).values():
        for key, config in rivals:
            if nads.localnet_of(config) not in localnets:
                continue
            collisions = [said for one in settled if (said := _collision(one, config, key))]
            for fault in [*nads.misspelt(config), *nads.faults(config, key), *collisions]:
                yield Finding(
                    "H25", "warn", "", (address(key),), f"network {key}, which is not declared here: {fault}",
                    "correct it, or declare it here",
                )  # fmt: skip


def fragment(change: Change, context: Context) -> Action:
    """The action that writes a NAD, or removes it."""
    key, config = change.data["nad"], change.data["config"]
    at, facts = f"nad/{key}", context.facts
    there = isinstance(facts.get(at), Known)
    if config is None:
        return Action(
            id=f"network/{key}/remove", routine="remove-network@1", title=f"remove network {key}", address=change.address,
            args={"nad": key}, reads=(f"nad:{key}", "machines", "nad-users"), expect=(_as_seen(key, facts),),
            done_when=(Check(at, "absent"),), undo=(_write_back(key, facts),),
        )  # fmt: skip
    args = _arguments(key, config, change.data["labels"], change.data["annotations"], not there)
    used = change.data["used"]
    undo: tuple[Invocation, ...] = ()
    no_undo = f"{used} name it already" if not there and used else ""
    if there:
        undo = (_write_back(key, facts),)
    elif not no_undo:
        undo = (Invocation("remove-network@1", {"nad": key}, (f"nad:{key}", "machines", "nad-users")),)
    return Action(
        id=f"network/{key}/apply", routine="apply-network@1",
        title=f"{'edit' if there else 'create'} network {key}: {networks.in_words(config)}", address=change.address, args=args,
        reads=(f"nad:{key}",), expect=(_as_seen(key, facts),), done_when=(Check(f"{at}/config", "eq", config),),
        undo=undo, no_undo=no_undo, disruption="vm-traffic" if change.vms else "none", vms=change.vms, deadline=120.0,
    )  # fmt: skip


def _arguments(
    key: str, config: Mapping[str, Any], labels: Mapping[str, str], annotations: Mapping[str, str], new: bool
) -> dict[str, Any]:
    return {
        "nad": key, "config": dict(config), "text": nads.written(config), "labels": dict(labels),
        "annotations": dict(annotations), "new": new,
    }  # fmt: skip


def _as_seen(key: str, facts: Facts) -> Check:
    at = f"nad/{key}"
    if not isinstance(facts.get(at), Known):
        return Check(at, "absent", why="somebody else has made it since the plan")
    if (config := facts.value(f"{at}/config")) is None:
        return Check(f"{at}/text", "eq", facts.value(f"{at}/text"), "somebody has changed it since the plan")
    return Check(f"{at}/config", "eq", config, "somebody has changed it since the plan")


def _write_back(key: str, facts: Facts) -> Invocation:
    """The NAD as it is now, text and all."""
    args = _arguments(key, facts.value(f"nad/{key}/config") or {}, {}, {}, False)
    return Invocation("apply-network@1", {**args, "text": facts.value(f"nad/{key}/text")}, (f"nad:{key}",))


def verify(change: Change, context: Context) -> tuple[Check, ...]:
    """The NAD is as it was written, or is gone."""
    at = f"nad/{change.data['nad']}"
    if change.data["config"] is None:
        return (Check(at, "absent"),)
    return (Check(f"{at}/config", "eq", change.data["config"]),)


KIND = ClusterKind("network", fragment, diff, verify, hazards, views)


@routine("apply-network@1")
def apply_network(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Write the NAD, then hear whether OVN-Kubernetes refuses it: it says so once, and never tries again."""
    key, at = args["nad"], f"nad/{args['nad']}"
    if isinstance(fact := facts.get(at), Unknown):
        return Stop(f"cannot tell how network {key} stands: {fact.why}", unsure=True)
    if not _is_written(args, facts):
        if "before" not in done.outcomes:
            return Perform((Record(label="before", title=f"record network {key}", views=(f"nad:{key}",)),))
        if done.attempts.get("write", 0) >= WRITES:
            return Stop(f"network {key} was changed back {WRITES} times: somebody else keeps it", moved=True)
        return Perform((_write(args, facts),))
    heard = (done.results.get("before") or {}).get(f"{at}/events") or {}
    news = [
        text for name, text in sorted((facts.value(f"{at}/events") or {}).items()) if heard.get(name) != text
    ]
    if "write" in done.outcomes and news:
        return Stop(f"OVN-Kubernetes refuses network {key}: {news[0][1]}")
    if "write" in done.outcomes and "heard" not in done.outcomes:
        return Perform((_listen(args, heard),))
    return Finished(f"network {key}: {networks.in_words(args['config'])}; OVN-Kubernetes has not refused it")


def _is_written(args: Mapping[str, Any], facts: Facts) -> bool:
    at = f"nad/{args['nad']}"
    marks = all(
        (facts.value(f"{at}/{field}") or {}).get(key) == value
        for field in ("labels", "annotations")
        for key, value in args[field].items()
    )
    config = facts.value(f"{at}/config")
    return marks and config is not None and dict(config) == args["config"]


def _write(args: Mapping[str, Any], facts: Facts) -> AnyOp:
    """A server-side apply; or a patch of one that somebody else made, whose fields an apply would have to seize."""
    key, at = args["nad"], f"nad/{args['nad']}"
    namespace, _, name = key.partition("/")
    labels, annotations = args["labels"], args["annotations"]
    marks = {
        **({"labels": labels} if labels else {}),
        **({"annotations": annotations} if annotations else {}),
    }
    about = facts.value(at)
    title = f"{'write' if about else 'create'} network {key}: {networks.in_words(args['config'])}"
    if about and not about["applied"]:
        patch = {**({"metadata": marks} if marks else {}), "spec": {"config": args["text"]}}
        command = (
            f"oc patch net-attach-def {name} -n {namespace} --type merge -p {shlex.quote(json.dumps(patch))}"
        )
        return Patch(
            label="write", title=title, ref=_ref(key), patch=patch, resource_version=facts.value(f"{at}/version"),
            commands=(command,), changes=_assumed(args, facts),
        )  # fmt: skip
    body = {
        "apiVersion": NAD[0], "kind": NAD[1],
        "metadata": {"name": name, "namespace": namespace, **marks, "labels": {MANAGED_BY: FIELD_MANAGER, **labels}},
        "spec": {"config": args["text"]},
    }  # fmt: skip
    command = (
        f"echo {shlex.quote(json.dumps(body))} | oc apply --server-side --field-manager={FIELD_MANAGER} -f -"
    )
    return Apply(
        label="write",
        title=title,
        ref=_ref(key),
        body=body,
        commands=(command,),
        changes=_assumed(args, facts),
    )


def _assumed(args: Mapping[str, Any], facts: Facts) -> Changes:
    key, at, config = args["nad"], f"nad/{args['nad']}", args["config"]
    about = facts.value(at) or {"uid": "", "keeper": "", "generated": False, "applied": True}
    known = {
        "name": config.get("name", ""),
        "localnet": nads.localnet_of(config),
        "vlan": config.get("vlanID", 0),
        "mtu": config.get("mtu"),
    }
    return (
        (at, Known(about)),
        (f"{at}/config", Known(config)),
        (f"{at}/labels", Known({**(facts.value(f"{at}/labels") or {}), **args["labels"]})),
        (f"{at}/annotations", Known({**(facts.value(f"{at}/annotations") or {}), **args["annotations"]})),
        (f"network/{key}", Known(known)),
    )  # fmt: skip


def _listen(args: Mapping[str, Any], heard: Mapping[str, Any]) -> Wait:
    at = f"nad/{args['nad']}"
    return Wait(
        label="heard",
        title=f"OVN-Kubernetes has had time to refuse network {args['nad']}",
        checks=(Check(f"{at}/events", "ne", dict(heard), "no refusal so far"),),
        # Since 1.1 it marks those that it takes; on an older mark of an edited one nothing can be built.
        unless=(Check(f"{at}/taken", "present"),) if args["new"] else (),
        deadline=REFUSAL_DEADLINE,
    )


@routine("remove-network@1")
def remove_network(args: Mapping[str, Any], facts: Facts, done: Done) -> Next:
    """Delete a NAD that nobody uses: with the last one of its network OVN-Kubernetes takes the switch away at once."""
    key, at = args["nad"], f"nad/{args['nad']}"
    if isinstance(fact := facts.get(at), Unknown):
        return Stop(f"cannot tell how network {key} stands: {fact.why}", unsure=True)
    if not isinstance(fact, Known):
        return Finished(f"network {key} is gone")
    for path in ("cluster/machines", "cluster/nad-pods"):
        if isinstance(unseen := facts.get(path), Unknown):
            return Stop(f"cannot tell who uses network {key}: {unseen.why}", unsure=True)
    if used := networks.users(facts).get(key, Users()):
        return Stop(f"network {key} is in use by {used} now: without it they have no network", moved=True)
    if "before" not in done.outcomes:
        return Perform((Record(label="before", title=f"record network {key}", views=(f"nad:{key}",)),))
    if done.attempts.get("delete", 0) >= WRITES:
        return Stop(f"network {key} comes back after it is deleted: somebody else makes it", moved=True)
    namespace, _, name = key.partition("/")
    gone = tuple(
        (path, ABSENT) for path in (at, f"{at}/config", f"{at}/labels", f"{at}/annotations", f"network/{key}")
    )
    return Perform(
        (
            Delete(
                label="delete", title=f"delete network {key}", ref=_ref(key), uid=fact.value["uid"] or None,
                commands=(f"oc delete net-attach-def {name} -n {namespace}",), changes=gone,
            ),
        )
    )  # fmt: skip


def _ref(key: str) -> ObjectRef:
    namespace, _, name = key.partition("/")
    return ObjectRef(*NAD, name, namespace)
