"""Texts to Desired: each document alone first, then what the documents say about each other.

The one invariant: every problem of every text is reported together; Desired is made only when there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from plans.desired.models import (
    API_VERSION,
    LARGEST_MTU,
    ORDER_CANARY,
    ORDER_LIST,
    SMALLEST_MTU,
    Desired,
    Model,
    Rollout,
    VMNetwork,
)
from plans.desired.source import Document, Loc, field_name, read_documents
from plans.desired.validation import NOT_YET, Wording, fit, found, nearest, one_of
from plans.errors import InputError, Problem

_MODELS: dict[str, type[VMNetwork] | type[Rollout]] = {"VMNetwork": VMNetwork, "Rollout": Rollout}
_LATER_KINDS = ("NetworkAttachmentDefinition", "NodeNetworkConfigurationPolicy")

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
            ("spec", "nodes"): "a mapping of node labels",
            ("spec", "nodes", "*"): 'text (the empty one is "")',
            ("spec", "mtu"): f"a whole number from {SMALLEST_MTU} to {LARGEST_MTU}",
            ("spec", "delivery"): "{by: ovsdb} or {by: nncp, policy: NAME}",
            ("spec", "delivery", "by"): "'ovsdb' or 'nncp'",
            ("spec", "replaces"): "{bridge: NAME}",
            ("spec", "replaces", "bridge"): "the name of the bridge that is taken away",
        },
        later_fields=frozenset(
            {
                ("spec", "uplink"),
                ("spec", "l2Advertisements"),
                ("spec", "networks"),
                ("spec", "attachments"),
                ("spec", "delivery", "strategy"),
                ("spec", "delivery", "label"),
            }
        ),
        later_values={("spec", "delivery", "by"): frozenset({"node-file"})},
        later_forms={("spec", "bridge"): "Write the name alone; the bridge must be there already."},
    ),
    "Rollout": Wording(
        expected={
            **_COMMON,
            ("metadata", "name"): "a name for this rollout",
            ("spec", "order"): "a list of nodes, or {canary: NODE, then: fewest-vms}",
            ("spec", "order", "canary"): "the name of the node that goes first",
            ("spec", "evacuate"): "a mapping; {} is the usual evacuation",
            ("spec", "evacuate", "vms"): "a mapping of NAMESPACE/NAME to 'live-migrate' or 'stay'",
        },
        later_fields=frozenset({("spec", "convert"), ("spec", "attest")}),
        later_values={
            ("spec", "evacuate", "default"): frozenset({"restart"}),
            ("spec", "evacuate", "vms", "*"): frozenset({"restart"}),
        },
        variants=frozenset({ORDER_LIST, ORDER_CANARY}),
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
    ours: list[_Declared] = []
    all_read = not problems
    for document in documents:
        declared, wrong = _read_one(document)
        problems += wrong
        ours += [declared] if declared else []
        all_read = all_read and declared is not None
    problems += _between(ours)
    # What could not be read may be the VMNetwork that is missed.
    if all_read and not any(declared.kind == "VMNetwork" for declared in ours):
        problems.append(_nothing_declared(texts))
    if problems:
        raise InputError(problems)
    return _desired(ours)


@dataclass(frozen=True, slots=True)
class _Declared:
    """A document of a known kind; `model` is None when it has problems of its own."""

    document: Document
    kind: str
    model: Model | None

    def text(self, *loc: str) -> str | None:
        """A text of the document, also of one that has problems; what is no text has a problem of its own."""
        value = self.document.get(loc)
        return value if isinstance(value, str) else None

    @property
    def name(self) -> str | None:
        return self.text("metadata", "name")

    def problem(self, loc: Loc, message: str) -> Problem:
        return self.document.problem(loc, f"{field_name(loc)}: {message}")


def _read_one(document: Document) -> tuple[_Declared | None, list[Problem]]:
    if document.is_refused(()):
        return None, []
    wrong = _header_problem(document)
    if wrong:
        return None, [wrong]
    kind = document.value["kind"]
    model, problems = fit(_MODELS[kind], document, _WORDINGS[kind])
    if document.refused:
        model = None
    declared = _Declared(document, kind, model)
    return declared, problems + list(_repeated_nodes(declared))


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
    if kind in _LATER_KINDS:
        return document.problem(("kind",), f"kind: {kind} is {NOT_YET}. Take it out of these files.")
    what = repr(kind) if isinstance(kind, str) else found(document, ("kind",))
    near = nearest(what, kinds) or " Correct it, or take the document out of these files."
    return document.problem(("kind",), f"kind: found {what}, expected {one_of(kinds)}.{near}")


def _hint_without_kind(value: dict[str, Any]) -> str:
    if "cluster" in value:
        return "This looks like a target file: give it by --target, and keep it in another folder."
    return "Add it."


def _repeated_nodes(declared: _Declared) -> Iterator[Problem]:
    order = declared.document.get(("spec", "order"))
    if declared.kind != "Rollout" or not isinstance(order, list):
        return
    for index, node in enumerate(order):
        if isinstance(node, str) and node in order[:index]:
            first = declared.document.position(("spec", "order", order.index(node)))[0]
            message = f"node {node!r} is in the order twice, first in line {first}. Remove one."
            yield declared.problem(("spec", "order", index), message)


def _between(declared: Sequence[_Declared]) -> Iterator[Problem]:
    yield from _duplicates(declared)
    yield from _second_rollouts(declared)
    networks = [one for one in declared if one.kind == "VMNetwork"]
    for network in networks:
        yield from _replaces_itself(network)
    for one, other in combinations(networks, 2):
        yield from _contradiction(one, other)
        yield from _contradiction(other, one)


def _duplicates(declared: Sequence[_Declared]) -> Iterator[Problem]:
    first: dict[tuple[str, str], _Declared] = {}
    for one in declared:
        if one.name is None:
            continue
        earlier = first.setdefault((one.kind, one.name), one)
        if earlier is not one:
            place = earlier.document.place(("metadata", "name"))
            message = f"{one.kind} {one.name!r} is declared here and at {place}. Remove one."
            yield one.problem(("metadata", "name"), message)


def _second_rollouts(declared: Sequence[_Declared]) -> Iterator[Problem]:
    rollouts = [one for one in declared if one.kind == "Rollout"]
    for one in rollouts[1:]:
        first = rollouts[0]
        if one.name != first.name:
            place = first.document.place(("kind",))
            message = f"a second Rollout; the first is at {place}. A run has one. Remove the other."
            yield one.problem(("kind",), message)


def _replaces_itself(network: _Declared) -> Iterator[Problem]:
    bridge = network.text("spec", "bridge")
    if bridge is not None and bridge == network.text("spec", "replaces", "bridge"):
        message = f"{bridge!r} cannot replace itself. Name the bridge that goes, or remove 'replaces'."
        yield network.problem(("spec", "replaces", "bridge"), message)


def _contradiction(taker: _Declared, rider: _Declared) -> Iterator[Problem]:
    replaced = taker.text("spec", "replaces", "bridge")
    if replaced is not None and replaced == rider.text("spec", "bridge"):
        place = rider.document.place(("spec", "bridge"))
        other = f"VMNetwork {rider.name!r} is to be on it ({place})"
        message = f"{replaced!r} is taken away here, but {other}. Change one of them."
        yield taker.problem(("spec", "replaces", "bridge"), message)


def _nothing_declared(texts: Sequence[tuple[str, str]]) -> Problem:
    paths = ", ".join(path for path, _ in texts)
    where = f"no VMNetwork in {paths}" if paths else "no files were given, so there is no VMNetwork"
    return Problem("", 0, 0, f"{where}. Declare at least one: kind VMNetwork, metadata.name, spec.bridge.")


def _desired(declared: Sequence[_Declared]) -> Desired:
    networks: list[VMNetwork] = []
    rollout: Rollout | None = None
    places: dict[str, str] = {}
    for one in declared:
        if isinstance(one.model, VMNetwork):
            networks.append(one.model)
            places |= _places(one.model.address, one.document)
        elif isinstance(one.model, Rollout):
            rollout = one.model
            places |= _places(one.model.address, one.document)
    return Desired(tuple(sorted(networks, key=lambda network: network.name)), rollout, places)


def _places(address: str, document: Document) -> dict[str, str]:
    fields = {f"{address}#{field_name(loc)}": document.place(loc) for loc in document.values_at if loc}
    return {address: document.place(), **fields}
