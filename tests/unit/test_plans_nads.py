"""OVN-Kubernetes' rules for a localnet NAD, and when two configurations mean one network.

Invariant: each fault is named by the field that it is in.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plans import nads
from plans.networks import field_changes

NAD = "default/vlan224"
GOOD: dict[str, Any] = {
    "cniVersion": "0.4.0",
    "name": "vlan224",
    "type": "ovn-k8s-cni-overlay",
    "topology": "localnet",
    "netAttachDefName": NAD,
    "physicalNetworkName": "vmnet",
    "vlanID": 224,
    "mtu": 9000,
}


def changed(**changes: Any) -> dict[str, Any]:
    return {field: value for field, value in {**GOOD, **changes}.items() if value is not None}


def test_the_procedures_own_nad_has_no_fault() -> None:
    assert nads.faults(GOOD, NAD) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("topology", None),
        ("topology", "layer2"),
        ("type", "bridge"),
        ("name", None),
        ("name", "default"),
        ("name", "ovn-kubernetes"),
        ("netAttachDefName", None),
        ("netAttachDefName", "vlan224"),
        ("vlanID", 4095),
        ("vlanID", -1),
        ("vlanID", 1.5),
        ("vlanID", "224"),
        ("vlanID", True),
        ("mtu", "9000"),
        ("ipam", {"type": "dhcp"}),
        ("role", "primary"),
        ("joinSubnet", "100.64.0.0/16"),
        ("reservedSubnets", "192.0.2.0/28"),
        ("infrastructureSubnets", "192.0.2.0/28"),
        ("defaultGatewayIPs", "192.0.2.1"),
        ("subnets", "192.0.2.0"),
        ("subnets", ["192.0.2.0/24"]),
        ("excludeSubnets", "192.0.2.0/28"),
        ("allowPersistentIPs", True),
        ("allowPersistentIPs", "yes"),
        ("plugins", [{"type": "ovn-k8s-cni-overlay"}]),
    ],
)
def test_a_fault_is_named_by_its_field(field: str, value: Any) -> None:
    found = nads.faults(changed(**{field: value}), NAD)
    assert [fault.partition(":")[0] for fault in found] == [field], found


@pytest.mark.parametrize(
    "changes",
    [
        {"vlanID": 0},
        {"vlanID": 1},
        {"vlanID": 4094},
        {"role": "secondary"},
        {"cniVersion": "1.0.0"},
        {"physicalNetworkName": None},
        {"subnets": "192.0.2.0/24, 2001:db8::/64", "excludeSubnets": "2001:db8::/80"},
        {"subnets": "192.0.2.0/24", "allowPersistentIPs": True},
    ],
)
def test_what_ovn_kubernetes_takes_has_no_fault(changes: dict[str, Any]) -> None:
    assert nads.faults(changed(**changes), NAD) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"vlanID": 0}, {"vlanID": None}),
        ({"physicalNetworkName": None, "name": "vmnet"}, {"name": "vmnet"}),
        ({"cniVersion": "1.0.0"}, {}),
        ({"role": "secondary"}, {"role": None}),
        ({"allowPersistentIPs": False}, {}),
        ({"subnets": "192.0.2.0/24,198.51.100.0/24"}, {"subnets": "198.51.100.0/24, 192.0.2.0/24"}),
    ],
)
def test_two_ways_to_write_one_network_mean_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert field_changes(changed(**one), changed(**other)) == []
    assert nads.contradictions(changed(**one), changed(**other)) == []


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"vlanID": 225}, [("vlanID", "224", "225")]),
        ({"vlanID": None}, [("vlanID", "224", "absent")]),
        ({"mtu": 1500, "vlanID": 1}, [("mtu", "9000", "1500"), ("vlanID", "224", "1")]),
        ({"subnets": "192.0.2.0/24"}, [("subnets", "absent", "192.0.2.0/24")]),
        ({"extra": {"a": 1}}, [("extra", "absent", "{'a': 1}")]),
    ],
)
def test_a_difference_is_shown_by_field_with_both_values(
    changes: dict[str, Any], shown: list[tuple[str, str, str]]
) -> None:
    assert field_changes(GOOD, changed(**changes)) == shown


def test_networks_of_one_name_may_differ_in_nothing_that_is_shared() -> None:
    assert nads.contradictions(GOOD, changed(netAttachDefName="lab/vlan224")) == []
    assert nads.contradictions(GOOD, changed(mtu=1500, physicalNetworkName="other")) == [
        "mtu",
        "physicalNetworkName",
    ]


@pytest.mark.parametrize("other", ["a.b", "a/b", "a-b"])
def test_names_that_ovn_reads_alike_fold_to_one(other: str) -> None:
    assert nads.folded("a-b") == nads.folded(other) != nads.folded("a_b")


def test_what_somebody_else_wrote_survives_and_what_we_rule_over_does_not() -> None:
    there = changed(cniVersion="1.0.0", dns={"nameservers": []}, subnets="192.0.2.0/24", vlanID=1)
    assert nads.merged(GOOD, there) == {**GOOD, "cniVersion": "1.0.0", "dns": {"nameservers": []}}


@pytest.mark.parametrize("written", ["VLANID", "vlanId", "vlanid"])
def test_keys_are_taken_in_any_case_as_ovn_kubernetes_takes_them(written: str) -> None:
    text = json.dumps({**changed(vlanID=None), written: 300})
    assert nads.read_config(text) == changed(vlanID=300)
    assert nads.read_config(json.dumps({**GOOD, written: 300}))["vlanID"] == 300


@pytest.mark.parametrize(
    ("key", "meant"),
    [("vlan", "vlanID"), ("vlan_id", "vlanID"), ("subnet", "subnets"), ("excludeSubnet", "excludeSubnets")],
)
def test_a_misspelt_key_is_told_and_names_the_likely_one(key: str, meant: str) -> None:
    (fault,) = nads.misspelt(changed(**{key: "x"}))
    assert fault.startswith(f"{key}: ") and fault.endswith(f"did you mean {meant}?")


@pytest.mark.parametrize("key", ["macspoofchk", "extra"])
def test_a_key_that_resembles_none_is_left_alone(key: str) -> None:
    assert list(nads.misspelt(changed(**{key: {}}))) == []


NETCONF = (
    "role topology netAttachDefName mtu subnets excludeSubnets reservedSubnets infrastructureSubnets joinSubnet "
    "transitSubnet defaultGatewayIPs vlanID allowPersistentIPs physicalNetworkName transport outboundSNAT evpn uplink "
    "deviceID logFile logLevel logfile-maxsize logfile-maxbackups logfile-maxage cniRequestTimeout runtimeConfig"
)
"""The keys of OVN-Kubernetes' NetConf (go-controller/pkg/cni/types)."""

CNI = (
    "cniVersion cniVersions name disableCheck disableGC loadOnlyInlinedPlugins plugins type capabilities ipMasq ipam dns "
    "runtimeConfig args prevResult"
)
"""The keys of the CNI specification, 1.1."""


@pytest.mark.parametrize("key", sorted({*NETCONF.split(), *CNI.split()}))
def test_what_ovn_kubernetes_and_cni_know_is_not_taken_for_a_slip(key: str) -> None:
    assert list(nads.misspelt({key: {}})) == []
    assert nads.read_config(json.dumps({key.upper(): 1})) == {key: 1}, (
        "each is spelt as OVN-Kubernetes spells it"
    )


@pytest.mark.parametrize("text", [None, "", "  ", "{", "[]", '"x"', "[" * 100_000, 7])
def test_what_is_no_config_is_told_in_words(text: Any) -> None:
    with pytest.raises(ValueError, match=r"^spec\.config is"):
        nads.read_config(text)


@pytest.mark.parametrize(
    ("namespace", "nad", "may"),
    [
        ("lab", "lab/a", True),
        ("lab", "default/a", True),
        ("lab", "openshift-cnv/a", True),
        ("lab", "web/a", False),
        ("default", "lab/a", False),
    ],
)
def test_a_nad_is_used_from_its_own_namespace_or_from_a_global_one(
    namespace: str, nad: str, may: bool
) -> None:
    assert nads.may_use(namespace, nad) is may


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None, database=None)
@given(
    st.dictionaries(
        st.sampled_from([*GOOD, "ipam", "role", "subnets", "excludeSubnets", "plugins", "x"]), _JSON
    )
)
def test_whatever_a_config_holds_is_judged_and_compared_without_an_error(changes: dict[str, Any]) -> None:
    config = {**GOOD, **changes}
    assert all(isinstance(fault, str) for fault in nads.faults(config, NAD))
    assert nads.is_ours_to_judge(config) in (True, False)
    assert field_changes(config, json.loads(nads.written(config))) == []
    nads.contradictions(config, GOOD)
    field_changes(config, GOOD)
