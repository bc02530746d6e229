"""Texts to Desired: each document alone first, then what the documents say about each other.

The one invariant: every problem of every text is reported together; Desired is made only when there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from plans import nads
from plans.desired.declared import Declared
from plans.desired.models import (
    API_VERSION,
    BRIDGE_LONG,
    BRIDGE_SHORT,
    LARGEST_MTU,
    NIC_LONG,
    NIC_SHORT,
    ORDER_CANARY,
    ORDER_LIST,
    SMALLEST_MTU,
    Desired,
    NativeNad,
    NativePolicy,
    Rollout,
    VMNetwork,
)
from plans.desired.networks import between_networks, manifest_problems
from plans.desired.policies import policy_problems
from plans.desired.source import Document, Loc, field_name, read_documents
from plans.desired.validation import Wording, fit, found, nearest, one_of
from plans.errors import InputError, Problem

NAD, POLICY = "NetworkAttachmentDefinition", "NodeNetworkConfigurationPolicy"
_MODELS: dict[str, type[VMNetwork] | type[Rollout] | type[NativeNad] | type[NativePolicy]] = {
    "VMNetwork": VMNetwork,
    "Rollout": Rollout,
    NAD: NativeNad,
    POLICY: NativePolicy,
}

_COMMON: dict[Loc, str] = {
    ("apiVersion",): f"'{API_VERSION}'",
    ("metadata",): "a mapping with 'name'",
}
_WORDINGS = {
    "VMNetwork": Wording(
        expected={
            **_COMMON,
            ("metadata", "name"): "the localnet's name",
            ("spec",): "a mapping with 'bridge'",
            ("spec", "bridge"): "the name of the bridge that the localnet is to be on",
            ("spec", "bridge", "name"): "the name of the bridge that is made",
            ("spec", "bridge", "ports"): "a list of its uplinks, as in [bond0]",
            ("spec", "nodes"): "a mapping of node labels",
            ("spec", "nodes", "*"): 'text (the empty one is "")',
            ("spec", "mtu"): f"a whole number from {SMALLEST_MTU} to {LARGEST_MTU}",
            ("spec", "delivery"): "{by: ovsdb} or {by: nncp, policy: NAME}",
            ("spec", "delivery", "by"): "'ovsdb' or 'nncp'",
            ("spec", "delivery", "strategy"): "'per-node' or 'labelled'",
            ("spec", "delivery", "label"): "a node label's key",
            ("spec", "replaces"): "{bridge: NAME} or {bridge: NAME, policies: [NAME]}",
            ("spec", "replaces", "bridge"): "the name of the bridge that is taken away",
            ("spec", "replaces", "policies"): "a list of policies",
            ("spec", "networks"): "a mapping of NAMESPACE/NAME to {vlan: NUMBER}",
            ("spec", "networks", "*"): "a mapping such as {vlan: 224}; {} is an untagged network",
            (
                "spec",
                "networks",
                "*",
                "vlan",
            ): f"a whole number from {nads.LOWEST_VLAN} to {nads.HIGHEST_VLAN}",
            ("spec", "networks", "*", "mtu"): f"a whole number from {SMALLEST_MTU} to {LARGEST_MTU}",
            ("spec", "networks", "*", "subnets"): "a list of networks, as in [192.0.2.0/24]",
            ("spec", "networks", "*", "excludeSubnets"): "a list of networks, as in [192.0.2.0/28]",
            ("spec", "attachments"): "a mapping of NAMESPACE/VM to its interfaces",
            ("spec", "attachments", "*"): "a mapping of INTERFACE to NAMESPACE/NAD",
            ("spec", "attachments", "*", "*"): "NAMESPACE/NAD, or {network: NAMESPACE/NAD}",
            ("spec", "l2Advertisements"): "a mapping of NAMESPACE/NAME to a list of interfaces",
            ("spec", "l2Advertisements", "*"): "a list of interfaces, as in [br-ex]",
        },
        later_fields=frozenset(
            {
                ("spec", "uplink"),
            }
        ),
        later_values={("spec", "delivery", "by"): frozenset({"node-file"})},
        variants=frozenset({NIC_SHORT, NIC_LONG, BRIDGE_SHORT, BRIDGE_LONG}),
    ),
    NAD: Wording(
        expected={
            ("apiVersion",): "'k8s.cni.cncf.io/v1'",
            ("metadata",): "a mapping with 'name' and 'namespace'",
            ("metadata", "name"): "the name of the NetworkAttachmentDefinition",
            ("metadata", "namespace"): "its namespace",
            ("spec",): "a mapping with 'config'",
            ("spec", "config"): "the network's configuration, JSON as text",
        },
    ),
    "Rollout": Wording(
        expected={
            **_COMMON,
            ("metadata", "name"): "a name for this rollout",
            ("spec", "order"): "a list of nodes, or {canary: NODE, then: fewest-vms}",
            ("spec", "order", "canary"): "the name of the node that goes first",
            ("spec", "evacuate"): "a mapping; {} is the usual evacuation",
            ("spec", "evacuate", "vms"): "a mapping of NAMESPACE/NAME to 'live-migrate', 'restart' or 'stay'",
            (
                "spec",
                "evacuate",
                "reboot",
            ): "true, to restart each node once it is emptied and changed, or false",
            ("spec", "proof"): "{canary: {}}, or {canary: {image: IMAGE}}",
            ("spec", "proof", "canary"): "{}, or {image: IMAGE} of any image that has `sleep`",
            ("spec", "proof", "canary", "image"): "the name of an image that has `sleep`",
        },
        later_fields=frozenset({("spec", "convert"), ("spec", "attest")}),
        variants=frozenset({ORDER_LIST, ORDER_CANARY}),
    ),
    POLICY: Wording(
        expected={
            ("apiVersion",): "'nmstate.io/v1'",
            ("metadata",): "a mapping with 'name'",
            ("metadata", "name"): "the policy's name",
            ("spec",): "a mapping with 'desiredState'",
            ("spec", "desiredState"): "a mapping, as nmstate takes it",
            ("spec", "nodeSelector"): "a mapping of node labels",
            ("spec", "nodeSelector", "*"): 'text (the empty one is "")',
            ("spec", "maxUnavailable"): 'a number of nodes, or a percentage as in "50%"',
        },
        later_fields=frozenset({("spec", "capture")}),
    ),
}


def load_desired(texts: Sequence[tuple[str, str]]) -> Desired:
    """Reads `(path, text)` pairs. Raises InputError with every problem of all of them."""
    problems: list[Problem] = []
    documents: list[Document] = []
    for path, text in texts:
        source = read_documents(path, text)
        documents += source.documents
        problems += source.problems
    ours: list[Declared] = []
    all_read = not problems
    for document in documents:
        declared, wrong = _read_one(document)
        problems += wrong
        ours += [declared] if declared else []
        all_read = all_read and declared is not None
    problems += _between(ours)
    # What could not be read may be the VMNetwork that is missed.
    if all_read and not any(declared.kind in ("VMNetwork", POLICY) for declared in ours):
        problems.append(_nothing_declared(texts))
    if problems:
        raise InputError(problems)
    return _desired(ours)


def _read_one(document: Document) -> tuple[Declared | None, list[Problem]]:
    if document.is_refused(()):
        return None, []
    if wrong := _header_problem(document):
        return None, [wrong, *_other_version(document)]
    unmatchable = _unmatchable(document)
    document = replace(document, refused=document.refused | unmatchable.keys())
    kind = document.value["kind"]
    model, problems = fit(_MODELS[kind], document, _WORDINGS[kind])
    if document.refused:
        model = None
    declared = Declared(document, kind, model)
    return declared, [
        *unmatchable.values(),
        *problems,
        *_repeated_nodes(declared),
        *manifest_problems(declared),
        *policy_problems(declared),
    ]


def _header_problem(document: Document) -> Problem | None:
    kinds = list(_MODELS)
    if not isinstance(document.value, dict):
        shape = "a mapping with apiVersion, kind, metadata and spec"
        return document.problem((), f"document: found {found(document, ())}, expected {shape}.")
    kind = document.value.get("kind")
    if isinstance(kind, str) and kind in _MODELS:
        return None
    if "kind" not in document.value:
        hint = _hint_without_kind(document.value)
        return document.problem((), f"kind: missing; expected {one_of(kinds)}. {hint}")
    if kind == "World":
        message = (
            "kind: a World is for `ovsplan twin init`; it is not desired state. Move it to another folder."
        )
        return document.problem(("kind",), message)
    what = repr(kind) if isinstance(kind, str) else found(document, ("kind",))
    near = nearest(what, kinds) or " Correct it, or take the document out of these files."
    return document.problem(("kind",), f"kind: found {what}, expected {one_of(kinds)}.{near}")


def _other_version(document: Document) -> Iterator[Problem]:
    """Of a document whose kind is wrong: another version of our own API is wrong whatever the kind is to be."""
    version = document.get(("apiVersion",))
    if isinstance(version, str) and version.startswith("ovsplan.io/") and version != API_VERSION:
        message = f"apiVersion: found {version!r}, expected {API_VERSION!r}. Change it."
        yield document.problem(("apiVersion",), message)


def _unmatchable(document: Document) -> dict[Loc, Problem]:
    """The parts of a selector that labels do not have (H05)."""
    name = {"VMNetwork": "nodes", POLICY: "nodeSelector"}.get(document.value["kind"], "")
    selectors: list[Loc] = [("spec", name, word) for word in ("matchExpressions", "matchLabels")]
    return {
        where: document.problem(
            where,
            f"{field_name(where)}: a policy's nodeSelector takes plain labels only, and nmstate would look for "
            'a label of that name (H05). Write the label itself, as in {node-role.kubernetes.io/worker: ""}.',
            at_key=True,
        )
        for where in selectors
        if name and document.get(where) is not None
    }


def _hint_without_kind(value: dict[str, Any]) -> str:
    if "cluster" in value:
        return "This looks like a target file: give it by --target, and keep it in another folder."
    return "Add it."


def _repeated_nodes(declared: Declared) -> Iterator[Problem]:
    order = declared.document.get(("spec", "order"))
    if declared.kind != "Rollout" or not isinstance(order, list):
        return
    for index, node in enumerate(order):
        if isinstance(node, str) and node in order[:index]:
            first = declared.document.position(("spec", "order", order.index(node)))[0]
            message = f"node {node!r} is in the order twice, first in line {first}. Remove one."
            yield declared.problem(("spec", "order", index), message)


def _between(declared: Sequence[Declared]) -> Iterator[Problem]:
    yield from _duplicates(declared)
    yield from between_networks(declared)
    yield from _second_rollouts(declared)
    yield from _unused_proofs(declared)
    yield from _policies_clash(declared)
    yield from _policies_disagree(declared)
    networks = [one for one in declared if one.kind == "VMNetwork"]
    for network in networks:
        yield from _replaces_itself(network)
    for one, other in combinations(networks, 2):
        yield from _ports_differ(one, other)
        yield from _contradiction(one, other)
        yield from _contradiction(other, one)


def _duplicates(declared: Sequence[Declared]) -> Iterator[Problem]:
    first: dict[tuple[str, str], Declared] = {}
    for one in declared:
        if one.name is None or one.kind == NAD:
            continue
        earlier = first.setdefault((one.kind, one.name), one)
        if earlier is not one:
            place = earlier.document.place(("metadata", "name"))
            message = f"{one.kind} {one.name!r} is declared here and at {place}. Remove one."
            yield one.problem(("metadata", "name"), message)


def _policies_clash(declared: Sequence[Declared]) -> Iterator[Problem]:
    """One policy's name for two things, as far as it shows without the nodes' names."""
    # Imported here: the names are made in a module that imports this package.
    from plans.nmstate.names import clashes

    behind = {id(one.model): one for one in declared if one.model is not None}
    things = [one.model for one in declared if isinstance(one.model, VMNetwork | NativePolicy)]
    for clash in clashes(things):
        one, other = behind[id(clash.one)], behind[id(clash.other)]
        if (one.kind, one.name) != (other.kind, other.name):
            place = one.document.place(_named_at(one))
            where = _taken_at(other, clash.name) if clash.taken else _named_at(other)
            yield other.problem(where, clash.in_words(place))


def _policies_disagree(declared: Sequence[Declared]) -> Iterator[Problem]:
    """Two policies that say otherwise of the same nodes, as far as it shows without the nodes' labels (H04)."""
    # Imported here, as above.
    from plans.nmstate.disagreements import by_selectors

    behind = {id(one.model): one for one in declared if one.model is not None}
    natives = [one.model for one in declared if isinstance(one.model, NativePolicy)]
    for pair in by_selectors(natives):
        one, other = behind[id(pair.one)], behind[id(pair.other)]
        place = one.document.place(("metadata", "name"))
        yield other.problem(("spec", "desiredState"), pair.in_words(place), at_key=True)


def _taken_at(one: Declared, name: str) -> Loc:
    where = ("spec", "replaces", "policies")
    return (*where, one.document.get(where).index(name))


def _named_at(one: Declared) -> Loc:
    given = ("spec", "delivery", "policy")
    return given if one.kind == "VMNetwork" and one.text(*given) else ("metadata", "name")


def _second_rollouts(declared: Sequence[Declared]) -> Iterator[Problem]:
    rollouts = [one for one in declared if one.kind == "Rollout"]
    for one in rollouts[1:]:
        first = rollouts[0]
        if one.name != first.name:
            place = first.document.place(("kind",))
            message = f"a second Rollout; the first is at {place}. A run has one. Remove the other."
            yield one.problem(("kind",), message)


def _unused_proofs(declared: Sequence[Declared]) -> Iterator[Problem]:
    for one in declared:
        if isinstance(one.model, Rollout) and one.model.spec.proof and one.model.spec.evacuate is None:
            message = (
                "a canary is put on a node that its VMs have left, and this rollout empties none: it would not be used. "
                "Add 'evacuate: {}', or remove 'proof'."
            )
            yield one.problem(("spec", "proof"), message)


def _bridge_of(network: Declared) -> str | None:
    return network.text("spec", "bridge") or network.text("spec", "bridge", "name")


def _replaces_itself(network: Declared) -> Iterator[Problem]:
    bridge = _bridge_of(network)
    if bridge is not None and bridge == network.text("spec", "replaces", "bridge"):
        message = f"{bridge!r} cannot replace itself. Name the bridge that goes, or remove 'replaces'."
        yield network.problem(("spec", "replaces", "bridge"), message)


def _contradiction(taker: Declared, rider: Declared) -> Iterator[Problem]:
    replaced = taker.text("spec", "replaces", "bridge")
    if replaced is not None and replaced == _bridge_of(rider):
        place = rider.document.place(("spec", "bridge"))
        other = f"VMNetwork {rider.name!r} is to be on it ({place})"
        message = f"{replaced!r} is taken away here, but {other}. Change one of them."
        yield taker.problem(("spec", "replaces", "bridge"), message)


def _ports_differ(first: Declared, second: Declared) -> Iterator[Problem]:
    """Two networks may ride on one bridge that is made: what it is made of is said the same by both, or by one."""
    where = ("spec", "bridge", "ports")
    one, other = (d.document.get(where) for d in (first, second))
    both = isinstance(one, list) and isinstance(other, list)
    if both and one != other and _bridge_of(first) == _bridge_of(second):
        place = first.document.place(where)
        message = f"{_bridge_of(second)!r} has other ports at {place}. Write the same in both."
        yield second.problem(where, message)


def _nothing_declared(texts: Sequence[tuple[str, str]]) -> Problem:
    paths = ", ".join(path for path, _ in texts)
    where = f"no VMNetwork in {paths}" if paths else "no files were given, so there is no VMNetwork"
    return Problem("", 0, 0, f"{where}. Declare at least one: kind VMNetwork, metadata.name, spec.bridge.")


def _desired(declared: Sequence[Declared]) -> Desired:
    networks: list[VMNetwork] = []
    manifests: list[NativeNad] = []
    policies: list[NativePolicy] = []
    rollout: Rollout | None = None
    places: dict[str, str] = {}
    columns: dict[str, int] = {}
    for one in declared:
        if isinstance(one.model, VMNetwork | Rollout | NativePolicy | NativeNad):
            places |= _places(one.model.address, one.document)
            columns |= _columns(one.model.address, one.document)
        if isinstance(one.model, VMNetwork):
            networks.append(one.model)
        elif isinstance(one.model, Rollout):
            rollout = one.model
        elif isinstance(one.model, NativePolicy):
            policies.append(one.model)
        elif isinstance(one.model, NativeNad):
            manifests.append(one.model)
    return Desired(
        tuple(sorted(networks, key=lambda network: network.name)),
        rollout,
        places,
        tuple(sorted(manifests, key=lambda manifest: manifest.name)),
        tuple(sorted(policies, key=lambda policy: policy.name)),
        columns,
    )


def _places(address: str, document: Document) -> dict[str, str]:
    fields = {f"{address}#{field_name(loc)}": document.place(loc) for loc in document.values_at if loc}
    return {address: document.place(), **fields}


def _columns(address: str, document: Document) -> dict[str, int]:
    fields = {f"{address}#{field_name(loc)}": at[1] for loc, at in document.values_at.items() if loc}
    return {address: document.position(())[1], **fields}
