"""What a node's database says: reading it, the mapping string, uplinks, and the health of a patch pair."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.switches import INNER, LSP, OUTER, interface, patch, switch

from plans import ovs
from plans.facts import ABSENT, Facts, Known, Unknown

NAMES = st.text("abcdefgh-.0", min_size=1, max_size=8)
BRIDGES = st.text("br-phyexvmdt0", min_size=1, max_size=10)
PAIRS = st.lists(st.tuples(NAMES, BRIDGES), unique_by=lambda pair: pair[0], max_size=6)


def joined(pairs: list[tuple[str, str]]) -> str:
    return ",".join(f"{localnet}:{bridge}" for localnet, bridge in pairs)


@given(PAIRS, NAMES, BRIDGES)
def test_setting_our_pair_never_loses_or_reorders_others(
    pairs: list[tuple[str, str]], localnet: str, bridge: str
) -> None:
    after = ovs.set_pair(joined(pairs), localnet, bridge)
    foreign = [f"{net}:{home}" for net, home in pairs if net != localnet]
    assert [e for e in after.split(",") if e.partition(":")[0] != localnet] == foreign
    assert ovs.parse_mappings(after) == {**dict(pairs), localnet: bridge}


@given(PAIRS, NAMES, BRIDGES)
def test_our_pair_keeps_its_place(pairs: list[tuple[str, str]], localnet: str, bridge: str) -> None:
    names = [net for net, _ in pairs]
    after = [e.partition(":")[0] for e in ovs.set_pair(joined(pairs), localnet, bridge).split(",")]
    assert after == (names if localnet in names else [*names, localnet])


@given(PAIRS, NAMES, BRIDGES)
def test_setting_and_dropping_are_each_others_inverse(
    pairs: list[tuple[str, str]], localnet: str, bridge: str
) -> None:
    others = joined([pair for pair in pairs if pair[0] != localnet])
    assert ovs.drop_pair(ovs.set_pair(others, localnet, bridge), localnet) == others


@pytest.mark.parametrize("odd", ["backup=br-x", "a:b:c", " spaced:br-x", "lonely"])
def test_an_entry_that_we_do_not_understand_stays_as_it_stood(odd: str) -> None:
    text = f"physnet:br-ex,{odd},vmnet:br-vmdata"
    assert ovs.set_pair(text, "vmnet", "br-phy") == f"physnet:br-ex,{odd},vmnet:br-phy"
    assert ovs.drop_pair(text, "vmnet") == f"physnet:br-ex,{odd}"


def test_a_pair_that_stands_twice_stands_once_afterwards() -> None:
    assert ovs.set_pair("vmnet:a,physnet:br-ex,vmnet:b", "vmnet", "c") == "vmnet:c,physnet:br-ex"


def test_a_localnet_whose_name_begins_like_ours_is_not_ours() -> None:
    assert ovs.set_pair("vmnet2:br-x", "vmnet", "br-phy") == "vmnet2:br-x,vmnet:br-phy"
    assert ovs.drop_pair("vmnet2:br-x,vmnet:br-phy", "vmnet") == "vmnet2:br-x"


@pytest.mark.parametrize("text", [None, "", " ", ","])
def test_nothing_mapped_is_an_empty_map(text: str | None) -> None:
    assert ovs.parse_mappings(text) == {}
    assert ovs.set_pair(text, "vmnet", "br-phy") == "vmnet:br-phy"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vmnet=br-phy", "entry 'vmnet=br-phy' of ovn-bridge-mappings is not <localnet>:<bridge>"),
        ("vmnet:", "entry 'vmnet:' of ovn-bridge-mappings is not <localnet>:<bridge>"),
        (":br-phy", "entry ':br-phy' of ovn-bridge-mappings is not <localnet>:<bridge>"),
        ("a:b:c", "entry 'a:b:c' of ovn-bridge-mappings is not <localnet>:<bridge>"),
        ("a:b, c:d", "entry ' c:d' of ovn-bridge-mappings is not <localnet>:<bridge>"),
        ("a:b,a:c", "ovn-bridge-mappings names localnet 'a' twice (b and c)"),
    ],
)
def test_a_string_without_a_sure_meaning_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        ovs.parse_mappings(text)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (["map", [["a", "b"]]], {"a": "b"}),
        (["set", []], None),
        (["set", ["x"]], "x"),
        (["set", ["y", "x"]], ["x", "y"]),
        (["uuid", "u"], "u"),
        ("text", "text"),
        (7, 7),
    ],
)
def test_rfc_7047_values_as_plain_json(value: Any, plain: Any) -> None:
    assert ovs.plain(value) == plain


def test_a_switch_is_read_whole() -> None:
    view = switch()
    assert list(view["bridges"]) == ["br-ex", "br-int", "br-phy", "br-vmdata"]
    assert view["mapping"] == "physnet:br-ex,vmnet:br-vmdata"
    assert [i["name"] for i in view["bridges"]["br-phy"]["ports"]["ovs-bond"]["interfaces"]] == [
        "ens33",
        "ens34",
    ]


def test_the_facts_of_a_switch_and_the_absence_of_what_it_lacks() -> None:
    facts = Facts(ovs.derive("w", switch()))
    assert facts.get("node/w/ovs/mapping/vmnet") == Known("br-vmdata")
    assert facts.get("node/w/ovs/mapping/storage") == ABSENT
    assert facts.get("node/w/ovs/bridge/br-phy/uplinks") == Known(["ens33", "ens34"])
    assert facts.get("node/w/ovs/bridge/br-new") == ABSENT
    assert facts.get(f"node/w/ovs/patch/{LSP}") == Known("br-vmdata")
    assert facts.get(f"node/w/ovs/patch/{LSP}/health") == Known("healthy")


def test_no_mapping_can_be_told_of_a_malformed_string_but_bridges_can() -> None:
    facts = Facts(ovs.derive("w", switch("physnet:br-ex,vmnet=br-vmdata,storage:br-x")))
    for localnet in ("physnet", "vmnet", "storage", "other"):
        assert isinstance(facts.get(f"node/w/ovs/mapping/{localnet}"), Unknown)
    assert isinstance(facts.get("node/w/ovs/bridge/br-phy"), Known)


@pytest.mark.parametrize(
    ("columns", "alive"),
    [
        ({}, True),
        ({"type": "system"}, True),
        ({"type": "internal"}, False),
        ({"link_state": "down"}, False),
        ({"link_state": ["set", []]}, False),
        ({"ofport": -1}, False),
        ({"ofport": ["set", []]}, False),
    ],
)
def test_an_uplink_is_a_nic_with_its_link_up_in_the_datapath(columns: dict[str, Any], alive: bool) -> None:
    ports = {"br-phy": [interface("br-phy", "internal")], "ens33": [{**interface("ens33"), **columns}]}
    assert ovs.live_uplinks(switch(br_phy=ports), "br-phy") == (["ens33"] if alive else [])


def test_neither_the_bridges_own_port_nor_a_vms_port_is_an_uplink() -> None:
    vm = interface("tap1", external_ids=["map", [["iface-id", "ns_pod"]]])
    view = switch(br_phy={"br-phy": [interface("br-phy")], "tap1": [vm]})
    assert ovs.uplinks(view, "br-phy") == {}


OWN = {"br-vmdata": [interface("br-vmdata", "internal")]}
INTEGRATION = {"br-int": [interface("br-int", "internal")]}


@pytest.mark.parametrize(
    ("bridges", "health"),
    [
        ({}, "healthy"),
        ({"br_vmdata": OWN}, f"broken: port {OUTER} is missing"),
        ({"br_int": INTEGRATION}, f"broken: port {INNER} is missing"),
        ({"br_phy": {OUTER: [patch(OUTER, INNER)]}}, f"broken: port {OUTER} is on br-phy and br-vmdata"),
        (
            {"br_vmdata": {OUTER: [patch(OUTER, "elsewhere")]}},
            f"broken: port {OUTER} has peer elsewhere, not {INNER}",
        ),
        (
            {"br_vmdata": {OUTER: [interface(OUTER, "internal")]}},
            f"broken: port {OUTER} has type internal, not patch",
        ),
        (
            {"br_int": {INNER: [patch(INNER, OUTER, error="No usable peer")]}},
            f"broken: port {INNER}: No usable peer",
        ),
        (
            {"br_vmdata": {OUTER: [patch(OUTER, INNER, ofport=-1)]}},
            f"broken: port {OUTER} has no OpenFlow port",
        ),
        (
            {"br_vmdata": {OUTER: [patch(OUTER, INNER, ofport=["set", []])]}},
            f"broken: port {OUTER} has no OpenFlow port",
        ),
    ],
)
def test_a_pair_is_healthy_or_says_what_is_wrong_with_which_port(bridges: Any, health: str) -> None:
    assert ovs.pair_health(switch(**bridges), LSP) == health


@pytest.mark.parametrize(
    ("network", "lsp"),
    [("vlan224", LSP), ("net-a/b", "net.a.b_ovn_localnet_port")],
)
def test_a_localnet_switch_port_is_named_as_ovn_kubernetes_does(network: str, lsp: str) -> None:
    assert ovs.localnet_port_of(network) == lsp


def test_predicting_leaves_the_view_that_it_began_with_alone() -> None:
    view = switch()
    frozen = repr(view)
    after = ovs.with_patch(ovs.without_ports(view, [OUTER]), "br-phy", OUTER, INNER, LSP)
    after = ovs.without_bridge(ovs.with_mapping(after, "vmnet:br-phy"), "br-vmdata")
    assert repr(view) == frozen
    assert ovs.bridges_of_port(after, OUTER) == ["br-phy"]
    assert ovs.pair_health(after, LSP) == "healthy"


def test_a_missing_end_that_comes_back_mends_its_peer_in_prediction() -> None:
    alone = {**INTEGRATION, INNER: [patch(INNER, OUTER, error=f"No usable peer '{OUTER}' exists")]}
    view = switch(br_int=alone, br_vmdata=OWN)
    assert ovs.pair_health(ovs.with_patch(view, "br-vmdata", OUTER, INNER, LSP), LSP) == "healthy"


def test_a_peer_that_names_another_port_is_not_mended() -> None:
    wrong = {**INTEGRATION, INNER: [patch(INNER, "elsewhere", error="No usable peer 'elsewhere' exists")]}
    view = switch(br_int=wrong, br_vmdata=OWN)
    assert ovs.pair_health(ovs.with_patch(view, "br-vmdata", OUTER, INNER, LSP), LSP) != "healthy"


def test_changes_name_what_came_what_went_and_nothing_that_stayed() -> None:
    before = switch()
    after = ovs.without_bridge(before, "br-vmdata")
    changed = dict(ovs.changes("w", before, after))
    assert changed["node/w/ovs/bridge/br-vmdata"] == ABSENT
    assert f"node/w/ovs/patch/{LSP}" in changed
    assert "node/w/ovs/bridge/br-phy" not in changed


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("physnet:br-ex,vmnet=br-phy", "physnet:br-ex,vmnet:br-phy"),
        ("physnet:br-ex, vmnet : br-phy", "physnet:br-ex,vmnet:br-phy"),
        ("physnet:br-ex,vmnet", ""),
        ("a:b:c", ""),
        ("vmnet:br-a,vmnet:br-b", ""),
    ],
)
def test_a_malformed_mapping_is_mended_only_where_there_is_one_way_to_read_it(text: str, mended: str) -> None:
    assert ovs.mended_mappings(text) == mended
