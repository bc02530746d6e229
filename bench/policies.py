"""What a VM loses when a bridge that a policy made is replaced: by the program, by a script, by the procedure's document.

Invariant: real nmstate and NetworkManager do it on one lab node, in turn and each from the same start; a turn counts
only if the patch port is on the new bridge and the VM reaches its gateway afterwards.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from bench.results import Bar, CannotRun, Result, spread
from providers.ovsdb.client import UnixOvsdb
from providers.ports import Delete, MergePatch, NotFound, Ref
from tests.lab import daemons, documents, managed
from tests.lab.kit import built
from tests.lab.netns import LabError, await_true
from tests.lab.nmlab import NmLab, nm_lab

_NODE, _VM, _NETWORK = "worker-01", "default/web-1", "vlan224"
_OLD, _NEW, _LOCALNET = "br-vmdata", "br-phy", "vmnet"
_PATCH = "patch-vlan224_ovn_localnet_port-to-br-int"
_POLICY = ("nmstate.io/v1", "NodeNetworkConfigurationPolicy")
_TURNS, _TURNS_OF_DOCUMENT = 5, {"23.03": 1, "25.03": 2}
_APPLY_SECONDS = 300
_DESIRED = f"""\
apiVersion: ovsplan.io/v1alpha1
kind: VMNetwork
metadata: {{name: {_LOCALNET}}}
spec:
  bridge: {_NEW}
  delivery: {{by: nncp, policy: br-vmdata-migrated}}
  replaces: {{bridge: {_OLD}}}
"""

Ovn = Literal["23.03", "25.03"]
OVNS: tuple[Ovn, ...] = ("23.03", "25.03")
WAYS = {
    "ovsplan": "`ovsplan apply`, delivery by policies",
    "script": "the same steps by a script",
    "document": "the procedure's one document, its first attempt",
}


@dataclass
class Lost:
    """What the VM lost in each turn, in milliseconds, by way and OVN."""

    ms: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, way: str, ovn: str, lost: float) -> None:
        self.ms.setdefault((way, ovn), []).append(lost)

    def ratio(self, way: str, other: str, ovn: str) -> float:
        """Of the medians. Nothing lost counts as the one probe that is between two."""
        return max(median(self.ms[way, ovn]), 1.0) / max(median(self.ms[other, ovn]), 1.0)


def measure(turns: int = _TURNS) -> Result:
    """Each way in turn, on a node with each OVN."""
    if lacking := daemons.lacking():
        raise CannotRun(f"this machine lacks {', '.join(lacking)}")
    try:
        built()
    except LabError as why:
        raise CannotRun(str(why)) from why
    lost = Lost()
    for ovn in OVNS:
        with tempfile.TemporaryDirectory(prefix="ovsplan-bench-") as folder:
            _measure_on(ovn, Path(folder), turns, lost)
    return _result(lost)


def _measure_on(ovn: Ovn, folder: Path, turns: int, lost: Lost) -> None:
    with nm_lab(folder / "lab", ovn=ovn, nodes=1) as site:
        site.lab.settle()
        program, script = Program(site, folder), Script(site)
        for _ in range(turns):
            lost.add("ovsplan", ovn, _turn(site, program.move))
            lost.add("script", ovn, _turn(site, script.move))
        for _ in range(min(_TURNS_OF_DOCUMENT[ovn], turns)):
            lost.add("document", ovn, _turn(site, script.document))


def _turn(site: NmLab, way: Callable[[], None]) -> float:
    """One move from the same start; the milliseconds that the VM lost."""
    _put_back(site)
    with site.ping(_VM) as probe:
        way()
        tally = probe.stop()
    assert site.lab.patch_bridge(_NODE, _NETWORK) == _NEW, "nothing moved"
    site.lab.await_reachable(_VM)
    return tally.lost_ms


def _put_back(site: NmLab) -> None:
    """The World as it was made: no policy, the old bridge with its NIC, the localnet on it."""
    cluster = site.world.cluster
    for policy in cluster.list(*_POLICY).items:
        try:
            cluster.write(Delete(Ref(*_POLICY, policy["metadata"]["name"])))
        except NotFound:
            continue
    cluster.write(MergePatch(Ref("v1", "Node", _NODE), {"spec": {"unschedulable": None}}))
    site.lab.reset(_NODE)
    site.lab.steady()
    site.lab.await_reachable(_VM)
    site.lab.purge()


class Program:
    """`ovsplan apply`, a process of its own with a state of its own for each turn."""

    def __init__(self, site: NmLab, folder: Path) -> None:
        self._site = site
        self._folder = folder
        self._runs = 0
        (folder / "desired.yaml").write_text(_DESIRED)

    def move(self) -> None:
        """The whole of it: cordon, remap, prove, remove the old bridge, uncordon, the shared policy."""
        self._runs += 1
        script = Path(sys.executable).with_name("ovsplan")
        words = [str(script), "apply", "desired.yaml", "--auto-approve", "--target", str(self._site.target)]
        words += ["--state", f"{self._runs}.db"]
        done = subprocess.run(
            words, cwd=self._folder, capture_output=True, text=True, timeout=_APPLY_SECONDS, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


class Script:
    """The shortest programs that do it: `nmstatectl`, and what the database must be told in between."""

    def __init__(self, site: NmLab) -> None:
        self._site = site
        self._rundir = site.lab.place.rundir(_NODE)
        self._db = UnixOvsdb(str(self._rundir / "db.sock"))

    def move(self) -> None:
        """The mapping alone; where OVN leaves its patch port, it is taken away; then the old bridge."""
        with self._applying(documents.mapping(_NEW)):
            self._await_mapping()
            self._await_patch()
        managed.apply(self._rundir, self._site.lab.kit, documents.absent(_OLD))

    def document(self) -> None:
        """Both in one document. Its failure is what was expected, so that what is left is done by the script then."""
        done = managed.nmstatectl(
            self._rundir, self._site.lab.kit, ["-q", "apply", "-"], documents.procedure()
        )
        assert "VerificationError" in done.stderr, done.stderr[-500:]
        self._await_patch()

    def _await_patch(self) -> None:
        """Until OVN's port is on the new bridge. An OVN that leaves it on the old one may put it back there once."""
        moves_it = not self._site.lab.spec.ovn.startswith("23")

        def moved() -> bool:
            at = self._site.lab.patch_bridge(_NODE, _NETWORK)
            if at == _OLD and not moves_it:
                self._take_patch_away()
            return at == _NEW

        await_true(moved, "the port has moved", within=20, every=0.05)

    @contextmanager
    def _applying(self, document: documents.Document) -> Iterator[None]:
        """nmstatectl at work; at the end of the block it has succeeded."""
        failures: list[LabError] = []

        def apply() -> None:
            try:
                managed.apply(self._rundir, self._site.lab.kit, document)
            except LabError as error:
                failures.append(error)

        thread = threading.Thread(target=apply)
        thread.start()
        yield
        thread.join()
        if failures:
            raise failures[0]

    def _await_mapping(self) -> None:
        """Waited for in the database itself."""
        (root,) = self._rows("Open_vSwitch")
        new = f"physnet:br-ex,{_LOCALNET}:{_NEW}"
        wait = {
            "op": "wait", "timeout": 60_000, "table": "Open_vSwitch", "until": "==", "columns": ["_uuid"],
            "where": [["external_ids", "includes", ["map", [["ovn-bridge-mappings", new]]]]],
            "rows": [{"_uuid": root["_uuid"]}],
        }  # fmt: skip
        (answer,) = self._db.transact("Open_vSwitch", [wait], timeout=70)
        assert not answer.get("error"), answer

    def _take_patch_away(self) -> None:
        ports = [port["_uuid"] for port in self._rows("Port") if port["name"] == _PATCH]
        self._db.transact(
            "Open_vSwitch",
            [{"op": "mutate", "table": "Bridge", "where": [["name", "==", _OLD]],
              "mutations": [["ports", "delete", ["set", ports]]]}],
            timeout=10,
        )  # fmt: skip

    def _rows(self, table: str) -> list[dict[str, Any]]:
        (answer,) = self._db.transact(
            "Open_vSwitch", [{"op": "select", "table": table, "where": []}], timeout=10
        )
        return list(answer["rows"])


def _result(lost: Lost) -> Result:
    rows = [
        (name, ovn, str(len(lost.ms[way, ovn])), spread(lost.ms[way, ovn], 0))
        for ovn in OVNS
        for way, name in WAYS.items()
    ]
    bars = []
    for ovn in OVNS:
        bars.append(Bar(f"OVN {ovn}: ovsplan to the script", lost.ratio("ovsplan", "script", ovn), 1.5))
        bars.append(Bar(f"OVN {ovn}: ovsplan to the document", lost.ratio("ovsplan", "document", ovn), 0.1))
    return Result(
        "policies: what a 1 ms ping of a VM loses when its NNCP-made bridge is replaced",
        ("way", "OVN", "n", "ms lost: median (min-max)"),
        tuple(rows),
        tuple(bars),
        (
            "program and script alternate on one lab node with real nmstate and NetworkManager; each turn starts from "
            "the old bridge, without policies",
            "the document fails, as it does wherever a VM of the localnet is on the node; the operator would try again: "
            "with OVN 25.03 nothing more is lost then, with 23.03 as much again each time",
            "the script announces nothing, for the VM that is pinged speaks by itself",
        ),
    )
