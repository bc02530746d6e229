"""What nmstate is asked, from which state, and what comes of it: one table, measured on lab nodes.

Invariant: a case says nothing about who carries it out; every case starts from the same node (`WORLD`), of which it has
one to itself, with one VM that speaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from . import documents
from .documents import Document
from .worlds import managed_world

OLDER, NEWER = "23.03.1", "25.03.0"

UNNOTICED, NOTICED, DARK = "unnoticed", "noticed", "dark"
LOST_MS = {UNNOTICED: (0, 1000), NOTICED: (100, 16000), DARK: (8000, 120000)}
"""What the VM lost, at least and less than. A busy machine adds to each, so they overlap."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Give the document to `nmstatectl apply`, and await its end."""

    document: Document


@dataclass(frozen=True, slots=True)
class AwaitPatch:
    """Await OVN's patch port on this bridge, or on none."""

    bridge: str | None


@dataclass(frozen=True, slots=True)
class Stay:
    """See for three seconds that OVN's patch port is on this bridge, or on none, except for an instant at the start."""

    bridge: str | None


@dataclass(frozen=True, slots=True)
class AddBridge:
    """As `ovs-vsctl add-br`."""

    bridge: str


@dataclass(frozen=True, slots=True)
class DropBridge:
    """As `ovs-vsctl del-br`, with the localnet mapped to another bridge in the same transaction if one is named."""

    bridge: str
    mapped_to: str = ""


@dataclass(frozen=True, slots=True)
class DropPatch:
    """As `ovs-vsctl del-port` of OVN's patch port."""

    bridge: str


@dataclass(frozen=True, slots=True)
class LoseNic:
    """The NIC no longer exists."""

    nic: str


@dataclass(frozen=True, slots=True)
class Leave:
    """The VM is live-migrated to another node; OVN's patch port stays for now."""


@dataclass(frozen=True, slots=True)
class Recompute:
    """ovn-controller computes everything anew."""


Step = Apply | AwaitPatch | Stay | AddBridge | DropBridge | DropPatch | LoseNic | Leave | Recompute


@dataclass(frozen=True, slots=True)
class Outcome:
    """`answers`: per apply, "ok" or the error's class. `changes`: see `timeline`. `vm`: reached at the end; `lost`."""

    answers: tuple[str, ...]
    changes: tuple[str, ...]
    vm: bool = True
    lost: str = UNNOTICED


@dataclass(frozen=True, slots=True)
class Case:
    """`before` is done first and not looked at; `steps` are. Not `ordered`: two actors work at once.

    `unless` is what comes of it when OVN does by itself what it need not, sooner or later than it did when this was measured.
    """

    name: str
    measured: str
    ovn: str
    steps: tuple[Step, ...]
    outcome: Outcome
    before: tuple[Step, ...] = ()
    ordered: bool = True
    unless: tuple[Outcome, ...] = ()

    def normalised(self, outcome: Outcome) -> Outcome:
        """The outcome as it may be compared: where two work at once, only what was last said of each thing."""
        last = {line.partition(":")[0]: line for line in outcome.changes}
        return outcome if self.ordered else replace(outcome, changes=tuple(sorted(last.values())))

    @property
    def node(self) -> str:
        return f"n-{self.name}"

    @property
    def vm(self) -> str:
        return f"default/{self.name}"


_TO_PHY = (Apply(documents.mapping("br-phy")), AwaitPatch("br-phy"))
_CONVERTED = (*_TO_PHY, Apply(documents.absent("br-vmdata")), LoseNic("bond0"))
_BOND0_OUT, _BOND0_BACK = "port bond0: gone", "port bond0: br-vmdata"
_BRIDGE_OUT, _BRIDGE_BACK = "bridge br-vmdata: gone", "bridge br-vmdata: there"
_MAPPED = "mapping vmnet: br-phy"
_MOVED, _UNPLUGGED = "OVN's patch port: br-phy", "OVN's patch port: gone"
_VERIFY, _INVALID = "VerificationError", "InvalidArgument"
_ROLLED_BACK = (_BRIDGE_OUT, _BRIDGE_BACK, _BOND0_BACK)

CASES = (
    Case(
        "procedure",
        """The procedure's document fails once: NetworkManager takes bond0 out, 0.3 to 0.7 s later the mapping is written,
        the VM is dark between the two; the bridge is not found gone for 24 to 31 s, and comes back by the rollback, while
        the mapping stays. Given again, it succeeds and the VM notices nothing.""",
        NEWER,
        (Apply(documents.procedure()), Apply(documents.procedure())),
        Outcome(
            (_VERIFY, "ok"),
            (_BOND0_OUT, _MAPPED, _MOVED, *_ROLLED_BACK, _BRIDGE_OUT, _BOND0_OUT),
            lost=NOTICED,
        ),
    ),
    Case(
        "rollback",
        """What a failed apply leaves behind: new bridges go and old ones come back, but mappings and keys that it wrote
        stay, a mapping to a bridge that is no more among them. The VM is dark for the whole attempt.""",
        NEWER,
        (Apply(documents.failing()),),
        Outcome(
            (_VERIFY,),
            (
                *(_BOND0_OUT, "bridge br-new: there", "port br-new: br-new"),
                *("key probe-key: set-by-nmstate", "mapping extra: br-new"),
                *("bridge br-new: gone", "port br-new: gone", _BOND0_BACK),
            ),
            lost=DARK,
        ),
    ),
    Case(
        "port-list",
        """An edit of br-phy that lists its ports and does not allow others: OVN's patch port is an extra one. It is not
        removed, verification fails after 25 s, and the rollback takes the bond out and in again.""",
        NEWER,
        (Apply(documents.br_phy(rebalance=9000, foreign_patches=False)),),
        Outcome((_VERIFY,), ("port ovs-bond: gone", "port ovs-bond: br-phy")),
        before=_TO_PHY,
    ),
    Case(
        "drained",
        """That no VM is on the node is not enough: OVN keeps its patch port, and so NetworkManager the bridge. OVN takes
        the port away when bond0 goes, too late for nmstate.""",
        NEWER,
        (Apply(documents.procedure()),),
        Outcome((_VERIFY,), (_BOND0_OUT, _UNPLUGGED, _MAPPED, *_ROLLED_BACK)),
        before=(Leave(),),
        unless=(
            Outcome(("ok",), (_UNPLUGGED, _BRIDGE_OUT, _BOND0_OUT, _MAPPED)),
            Outcome((_VERIFY,), (_BOND0_OUT, _UNPLUGGED, _MAPPED, _MOVED, *_ROLLED_BACK)),
        ),
    ),
    Case(
        "recomputed",
        """Once ovn-controller has computed anew, the patch port of a network that no VM uses is gone, and the
        procedure's document succeeds at once.""",
        NEWER,
        (Apply(documents.procedure()),),
        Outcome(("ok",), (_BRIDGE_OUT, _BOND0_OUT, _MAPPED)),
        before=(Leave(), Recompute(), AwaitPatch(None)),
    ),
    Case(
        "procedure-old",
        """On OVN 23.03 the patch port never moves while the old bridge is there: the VM is dark for the whole attempt
        (25.9 s) and at every retry.""",
        OLDER,
        (Apply(documents.procedure()),),
        Outcome((_VERIFY,), (_BOND0_OUT, _MAPPED, _BOND0_BACK), lost=DARK),
    ),
    Case(
        "two-steps",
        """Mapping; the patch port moves; the bridge absent: 5 to 12 ms lost.""",
        NEWER,
        (*_TO_PHY, Apply(documents.absent("br-vmdata"))),
        Outcome(("ok", "ok"), (_MAPPED, _MOVED, _BRIDGE_OUT, _BOND0_OUT)),
    ),
    Case(
        "two-steps-old",
        """On OVN 23.03 the first step moves nothing, though it is ok; the second fails with the VM dark for 27 s.""",
        OLDER,
        (Apply(documents.mapping("br-phy")), Stay("br-vmdata"), Apply(documents.absent("br-vmdata"))),
        Outcome(("ok", _VERIFY), (_MAPPED, _BOND0_OUT, _BOND0_BACK), lost=DARK),
    ),
    Case(
        "port-out-old",
        """On OVN 23.03 somebody has to delete the patch port between the two; OVN makes it again on br-phy: 8 to 19 ms.""",
        OLDER,
        (
            Apply(documents.mapping("br-phy")),
            DropPatch("br-vmdata"),
            AwaitPatch("br-phy"),
            Apply(documents.absent("br-vmdata")),
        ),
        Outcome(("ok", "ok"), (_MAPPED, _UNPLUGGED, _MOVED, _BRIDGE_OUT, _BOND0_OUT)),
    ),
    Case(
        "del-br",
        """A bridge of NetworkManager's that somebody deletes from the database is back, with its NIC, after 11 to 21 ms.""",
        NEWER,
        (DropBridge("br-vmdata"), Stay("br-vmdata")),
        Outcome(
            (),
            (_UNPLUGGED, _BRIDGE_OUT, _BOND0_OUT, _BRIDGE_BACK, _BOND0_BACK, "OVN's patch port: br-vmdata"),
        ),
    ),
    Case(
        "del-br-mapped",
        """The same in one transaction with the remap: the VM is moved, and the bridge is back nevertheless.""",
        NEWER,
        (DropBridge("br-vmdata", "br-phy"), Stay("br-phy")),
        Outcome((), (_UNPLUGGED, _BRIDGE_OUT, _MAPPED, _BOND0_OUT, _MOVED, _BRIDGE_BACK, _BOND0_BACK)),
        ordered=False,
    ),
    Case(
        "del-br-no-nic",
        """When the NIC no longer exists NetworkManager has nothing to bring back, and the deletion sticks.""",
        NEWER,
        (DropBridge("br-vmdata"), Stay(None)),
        Outcome((), (_UNPLUGGED, _BRIDGE_OUT), vm=False, lost=NOTICED),
        before=(LoseNic("bond0"),),
    ),
    Case(
        "old-policy",
        """The old policy on a converted node, bond0 named as a port only: ok, verified, and the VM is dead. In bond0's
        place there is an internal port of that name.""",
        NEWER,
        (Apply(documents.br_vmdata_short()), Stay("br-vmdata")),
        Outcome(
            ("ok",),
            (
                *(_BRIDGE_BACK, "port bond0: br-vmdata, internal: bond0"),
                *("mapping vmnet: br-vmdata", "OVN's patch port: br-vmdata"),
            ),
            vm=False,
            lost=NOTICED,
        ),
        before=_CONVERTED,
        ordered=False,
    ),
    Case(
        "old-policy-named",
        """With an entry of its own for bond0 the same policy is refused (`Ethernet interface bond0 does not exists`).""",
        NEWER,
        (Apply(documents.br_vmdata()),),
        Outcome((_INVALID,), ()),
        before=_CONVERTED,
    ),
    Case(
        "mistyped",
        """A NIC that the node doesn't have is accepted as a member of a bond: internal ports of those names appear.""",
        NEWER,
        (Apply(documents.mistyped_bond()),),
        Outcome(("ok",), ("bridge br-typo: there", "port typo-bond: br-typo, internal: ens33x ens34x")),
    ),
    Case(
        "no-bridge",
        """A mapping to a bridge that does not exist is refused by nmstate 2.2.47 and later, and nothing is changed.""",
        NEWER,
        (Apply(documents.mapping("br-nope")),),
        Outcome((_INVALID,), ()),
    ),
    Case(
        "foreign-bridge",
        """So is one to a bridge that is there, but made by `ovs-vsctl`: nmstate does not see it.""",
        NEWER,
        (Apply(documents.mapping("br-hand")),),
        Outcome((_INVALID,), ()),
        before=(AddBridge("br-hand"),),
    ),
    Case(
        "going-bridge",
        """And so is one to a bridge that the same document makes absent.""",
        NEWER,
        (Apply(documents.merged(documents.absent("br-phy"), documents.mapping("br-phy"))),),
        Outcome((_INVALID,), ()),
    ),
    Case(
        "port-list-kept",
        """The same edit as in `port-list`, with other ports allowed: ok, nothing is taken out, nothing lost.""",
        NEWER,
        (Apply(documents.br_phy(rebalance=8000)),),
        Outcome(("ok",), ()),
        before=_TO_PHY,
    ),
    Case(
        "again",
        """An identical document changes nothing, as when the nmstate handler restarts.""",
        NEWER,
        (Apply(documents.br_vmdata()),),
        Outcome(("ok",), ()),
    ),
    Case(
        "hand-made-absent",
        """A bridge that `ovs-vsctl` made is not taken away by `absent`, though the answer is ok and verified.""",
        NEWER,
        (Apply(documents.absent("br-hand")),),
        Outcome(("ok",), ()),
        before=(AddBridge("br-hand"),),
    ),
)


def cases_on(ovn: str) -> tuple[Case, ...]:
    """The cases that speak of this OVN."""
    return tuple(case for case in CASES if case.ovn == ovn)


def world(ovn: str, cases: Iterable[Case]) -> Mapping[str, Any]:
    """A node and a VM per case, and one more node, for VMs that leave theirs."""
    cases = tuple(cases)
    return managed_world(
        ovn, [*(case.node for case in cases), "spare"], {case.vm: case.node for case in cases}
    )
