"""By which labels a VMNetwork selects its nodes.

The one invariant: no readable node is selected that should not be, whatever that costs in coverage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from plans.desired.models import WORKERS
from plans.networks import listed
from plans.nmstate import policies
from plans.proposal.draft import Draft
from plans.proposal.seen import Seen, reasons_of

WORKER = next(iter(WORKERS))


def new_nodes(bridge: str, seen: Seen) -> list[str]:
    """The nodes for a localnet that none has: the workers with the bridge, or whoever has it when there are none."""
    there = seen.with_bridge(bridge)
    workers = [n for n in there if WORKER in seen.facts.value(f"node/{n}/labels", {})]
    return workers or there


def select(fit: Collection[str], seen: Seen) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """The labels that select as many of the nodes as can be and none of the others, and the nodes they select.

    Nodes that could not be read count for neither.
    """
    index: dict[tuple[str, str], set[str]] = defaultdict(set)
    for node in seen.pairs:
        for key, value in seen.facts.value(f"node/{node}/labels", {}).items():
            index[key, value].add(node)
    workers = index.get((WORKER, ""), set())
    wanted = set(fit)
    found: list[tuple[int, int, int, str, Mapping[str, str], set[str]]] = []
    for (key, value), nodes in index.items():
        for extra in ({}, WORKERS) if key != WORKER else ({},):
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
    if key == WORKER:
        return 0
    if key == policies.HOSTNAME:
        return 5
    if domain == "node-role.kubernetes.io":
        return 1
    if domain.endswith(("kubernetes.io", "k8s.io", "kubevirt.io", "openshift.io", "nmstate.io")):
        return 4 if not key.startswith("topology.") else 3
    return 2


def about_nodes(draft: Draft, fit: Sequence[str], homes: Mapping[str, str], seen: Seen) -> Iterator[str]:
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
    workers = [n for n in seen.pairs if WORKER in facts.value(f"node/{n}/labels", {}) and n not in homes]
    if homes and workers:
        yield f"not selected, as they do not map it: {listed(workers)}"
    labels = draft.selector.items()
    unread = {
        n: why for n, why in seen.unread.items() if labels <= facts.value(f"node/{n}/labels", {}).items()
    }
    for reason in reasons_of(unread):
        yield f"guessed: could not be read, and is taken to be as the others: {reason}"
    if draft.moves and (lacking := [n for n in draft.covered if n not in seen.with_bridge(draft.bridge)]):
        yield f"{listed(lacking)}: no bridge {draft.bridge} there yet; a plan is blocked until it is (H03)"
