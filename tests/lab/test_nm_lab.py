"""The lab of the whole story: policies are applied by real nmstate, VMs move between real nodes, on either API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.target import open_target
from engine.observe import observe
from plans.facts import Facts, Known
from plans.nmstate.ownership import is_marked, lost_profiles
from providers.interpreters import Interpreter
from providers.node.local import LocalShell
from providers.ports import Create, Ref, Unreachable

from . import documents, managed
from .kit import Kit
from .lab import Lab
from .netns import LabError, await_true
from .nmlab import NmLab, nm_lab
from .nmstate_real import ask_to_migrate
from .test_lab import nothing_left

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("needs_nmstate")]

NODE, OTHER = "worker-01", "worker-02"
PATCH = "patch-vlan224_ovn_localnet_port-to-br-int"


@pytest.fixture(
    params=[pytest.param(("25.03", "twin"), id="twin"), pytest.param(("23.03", "real"), id="real")],
    scope="module",
)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NmLab]:
    ovn, api = request.param
    if api == "real":
        request.getfixturevalue("needs_api_server")
    with nm_lab(tmp_path_factory.mktemp("whole"), ovn=ovn, api=api) as site:
        site.lab.steady()
        yield site


def apply(site: NmLab, name: str, document: documents.Document) -> None:
    """A policy for one node, and its enactment there."""
    selector = {"kubernetes.io/hostname": NODE}
    ref = Ref("nmstate.io/v1", "NodeNetworkConfigurationPolicy", name)
    body = {"spec": {"nodeSelector": selector, "desiredState": document}}
    site.world.cluster.write(Create(ref, body))
    await_true(lambda: available(site, name), f"{name} is applied", within=60, every=0.1)


def available(site: NmLab, policy: str) -> bool:
    ref = Ref("nmstate.io/v1beta1", "NodeNetworkConfigurationEnactment", f"{NODE}.{policy}")
    status: dict[str, Any] = dict((site.world.cluster.get(ref) or {}).get("status", {}))
    return {c["type"]: c["status"] for c in status.get("conditions", ())}.get("Available") == "True"


def test_policy_is_applied_by_real_nmstate_on_its_node_alone(site: NmLab) -> None:
    with site.ping("default/web-1") as probe:
        apply(site, "mapping", documents.mapping("br-phy"))
        tally = probe.stop()
    node, other = (site.lab.dump(each) for each in (NODE, OTHER))
    assert mapping(node) == "physnet:br-ex,vmnet:br-phy"
    assert mapping(other) == "physnet:br-ex,vmnet:br-vmdata"
    assert tally.longest_gap_ms < 2000
    moves_by_itself = site.lab.spec.ovn.startswith("25")
    assert (site.lab.patch_bridge(NODE, "vlan224") == "br-phy") == moves_by_itself


def test_state_of_a_node_is_what_nmstatectl_shows_there(site: NmLab) -> None:
    def bridges() -> set[str]:
        state = site.world.cluster.get(Ref("nmstate.io/v1beta1", "NodeNetworkState", OTHER)) or {}
        interfaces = state.get("status", {}).get("currentState", {}).get("interfaces", ())
        return {each["name"] for each in interfaces if each["type"] == "ovs-bridge"}

    await_true(
        lambda: bridges() == {"br-ex", "br-phy", "br-vmdata"},
        "the node's state is told",
        within=30,
        every=0.1,
    )


def test_vm_moves_between_the_nodes_and_its_ping_goes_on(site: NmLab) -> None:
    with site.ping("default/web-1") as probe:
        ask_to_migrate(site.lab, "default/web-1")
        await_true(
            lambda: site.lab.node_of("default/web-1") == OTHER, "web-1 is there", within=30, every=0.05
        )
        site.lab.await_reachable("default/web-1")
        tally = probe.stop()
    assert tally.sent > 100
    assert tally.lost_ms < 2000


def test_reset_undoes_what_nmstate_and_others_did(site: NmLab) -> None:
    lab = site.lab
    before = ports(lab, OTHER)
    rundir = lab.place.rundir(OTHER)
    lab.world.shell(OTHER).run(["ovs-vsctl", "add-br", "br-hand"], timeout=20)
    managed.apply(rundir, lab.kit, documents.mistyped_bond())
    managed.apply(rundir, lab.kit, documents.mapping("br-phy"))
    lab.world.shell(OTHER).run(["ovs-vsctl", "--if-exists", "del-port", "br-vmdata", PATCH], timeout=20)
    await_true(lambda: lab.patch_bridge(OTHER, "vlan224") == "br-phy", "the patch port moves", within=20)
    managed.apply(rundir, lab.kit, documents.absent("br-vmdata"))
    assert ports(lab, OTHER).keys() == {"br-ex", "br-phy", "br-hand", "br-typo"}
    lab.reset(OTHER)
    assert ports(lab, OTHER) == before
    assert mapping(lab.dump(OTHER)) == "physnet:br-ex,vmnet:br-vmdata"
    assert lab.reachable("default/web-2")


def ports(lab: Lab, node: str) -> dict[str, Any]:
    """The ports of every bridge but br-int."""
    bridges = lab.dump(node)["Bridge"]
    return {name: row["ports"] for name, row in bridges.items() if name != "br-int"}


def test_target_file_leads_to_the_api_and_into_the_nodes(site: NmLab) -> None:
    info, world = open_target(twin=None, context=None, target=str(site.target))
    assert info.kind == "mixed"
    assert [node["metadata"]["name"] for node in world.cluster.list("v1", "Node").items] == [NODE, OTHER]
    for node in (NODE, OTHER):
        done = world.shell(node).run(
            ["sh", "-c", "hostname; nmstatectl --version; ls /run/openvswitch/db.sock"], timeout=10
        )
        assert done.out.splitlines() == [node, "nmstatectl 2.2.62", "/run/openvswitch/db.sock"]
        version = world.shell(node).run(["ovn-appctl", "-t", "ovn-controller", "version"], timeout=10).out
        assert version.startswith(f"ovn-controller {site.lab.spec.ovn}")
        assert world.shell(node).run(["no-such-program"], timeout=10).rc == 127


def test_node_that_cannot_be_made_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(rundir: Path, kit: Kit, document: documents.Document) -> None:
        raise LabError(f"nmstate does not want to, in {rundir}")

    monkeypatch.setattr(managed, "apply", fail)
    with pytest.raises(LabError, match="nmstate does not want to"), nm_lab(tmp_path):
        pass
    assert nothing_left(tmp_path / "lab")


def test_node_that_is_gone_is_unreachable(site: NmLab) -> None:
    prefix = [word if word != site.lab.enter(NODE)[2] else "4194300" for word in site.lab.enter(NODE)]
    with pytest.raises(Unreachable, match="nsenter: cannot open"):
        LocalShell(prefix, str(site.lab.place.rundir(NODE))).run(["true"], timeout=5)


def mapping(dump: Any) -> str:
    return str(dump["Open_vSwitch"]["."]["external_ids"]["ovn-bridge-mappings"])


def test_networkmanager_has_the_profile_of_every_row_that_it_has_marked(site: NmLab) -> None:
    """What H55 rests on: a mark without a profile is a leftover, and nothing else is."""
    facts = Facts(observe(Interpreter(site.world), site.world.clock, [f"profiles:{NODE}", f"ovs:{NODE}"]))
    assert is_marked(facts, NODE) and isinstance(facts.get(f"node/{NODE}/profiles"), Known)
    assert not any(
        lost_profiles(facts, NODE, bridge) for bridge in facts.value(f"node/{NODE}/ovs")["bridges"]
    )
