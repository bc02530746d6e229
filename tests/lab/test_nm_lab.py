"""The lab of the whole story: policies are applied by real nmstate, VMs move between real nodes, on either API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from providers.ports import Create, Ref

from . import documents
from .netns import await_true
from .nmlab import NmLab, nm_lab
from .nmstate_real import ask_to_migrate

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("needs_nmstate")]

NODE, OTHER = "worker-01", "worker-02"


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
    assert tally.longest_gap_ms < 250
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


def mapping(dump: Any) -> str:
    return str(dump["Open_vSwitch"]["."]["external_ids"]["ovn-bridge-mappings"])
