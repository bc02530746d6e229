"""What good desired files become, and how the problems of many bad ones are told.

Invariant: no input raises anything but InputError.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from plans.desired import Desired, Nic, Rollout, VMNetwork, load_desired, wanted_networks
from plans.desired.models import Canary, NativeNad, NativePolicy
from plans.errors import InputError

DOCS = Path(__file__).parents[2] / "docs" / "desired-state.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)

NETWORK = """\
apiVersion: ovsplan.io/v1alpha1
kind: VMNetwork
metadata: {name: vmnet}
spec:
  nodes: {rack: a}
  bridge: br-phy
  mtu: 9000
  delivery: {by: ovsdb}
  replaces: {bridge: br-vmdata}
"""
ROLLOUT = """\
apiVersion: ovsplan.io/v1alpha1
kind: Rollout
metadata: {name: tonight}
spec:
  order: {canary: worker-01}
  evacuate: {vms: {db/oracle-1: stay}, return: none}
"""


def load(*texts: str) -> Desired:
    return load_desired([(f"{letter}.yaml", text) for letter, text in zip("abcdef", texts, strict=False)])


def rollout(spec: str) -> Rollout:
    loaded = load(NETWORK, ROLLOUT[: ROLLOUT.index("spec:")] + f"spec: {spec}\n").rollout
    assert loaded is not None
    return loaded


def test_a_network_is_read_field_by_field() -> None:
    (network,) = load(NETWORK).networks
    assert (network.name, network.spec.bridge, network.spec.mtu) == ("vmnet", "br-phy", 9000)
    assert network.selector == {"rack": "a"}
    assert network.spec.delivery is not None and network.spec.delivery.by == "ovsdb"
    assert network.replaced_bridge == "br-vmdata"


def test_a_network_of_two_lines_means_all_workers_and_takes_nothing_away() -> None:
    (network,) = load(EXAMPLES[0]).networks
    assert network.selector == {"node-role.kubernetes.io/worker": ""}
    assert (network.replaced_bridge, network.spec.mtu, network.spec.delivery) == (None, None, None)


def test_networks_are_sorted_by_name_whatever_the_order_of_the_files() -> None:
    other = NETWORK.replace("name: vmnet", "name: backup")
    assert [network.name for network in load(NETWORK, other).networks] == ["backup", "vmnet"]


def test_a_canary_is_followed_by_the_nodes_with_fewest_vms() -> None:
    assert rollout("{order: {canary: worker-02}}").spec.order == Canary(canary="worker-02", then="fewest-vms")


def test_an_order_may_be_a_list_of_nodes() -> None:
    assert rollout("{order: [worker-02, worker-01]}").spec.order == ("worker-02", "worker-01")


def test_no_evacuate_is_hot_and_an_empty_one_is_the_usual_evacuation() -> None:
    assert rollout("{}").spec.evacuate is None
    usual = rollout("{evacuate: {}}").spec.evacuate
    assert usual is not None
    assert (usual.default, dict(usual.vms), usual.return_to) == ("live-migrate", {}, "origin")


def test_a_vm_is_excepted_by_namespace_and_name() -> None:
    evacuate = rollout("{evacuate: {vms: {db/oracle-1: stay}, return: none}}").spec.evacuate
    assert evacuate is not None
    assert (evacuate.leaving("db/oracle-1"), evacuate.leaving("lab/oracle-1")) == ("stay", "live-migrate")
    assert evacuate.return_to == "none"


def test_places_lead_from_an_address_to_its_line() -> None:
    places = load(NETWORK + "---\n" + ROLLOUT).places
    assert places["vmnetwork/vmnet"] == "a.yaml:1"
    assert places["vmnetwork/vmnet#spec.replaces.bridge"] == "a.yaml:9"
    assert places["rollout/tonight"] == "a.yaml:11"


def test_the_digest_follows_the_content_and_not_where_it_is_written() -> None:
    moved = load_desired([("elsewhere.yaml", f"# moved\n---\n{ROLLOUT}---\n{NETWORK}")])
    assert moved.digest() == load(NETWORK, ROLLOUT).digest()
    assert moved == load(NETWORK, ROLLOUT)
    digests = {
        load(*texts).digest()
        for texts in (
            [NETWORK],
            [NETWORK, ROLLOUT],
            [NETWORK.replace("9000", "1500")],
            [NETWORK, ROLLOUT.replace("none", "origin")],
            [NETWORK, ROLLOUT[: ROLLOUT.index("  evacuate")]],
            [NETWORK, ROLLOUT[: ROLLOUT.index("  evacuate")] + "  evacuate: {}\n"],
        )
    }
    assert len(digests) == 6


def test_what_was_read_cannot_be_changed() -> None:
    (network,) = load(NETWORK).networks
    with pytest.raises(ValidationError):
        network.spec.bridge = "br-ex"  # type: ignore[misc]


def test_two_networks_may_replace_one_bridge() -> None:
    other = NETWORK.replace("name: vmnet", "name: backup")
    assert {network.replaced_bridge for network in load(NETWORK, other).networks} == {"br-vmdata"}


def test_a_name_that_is_written_once_only_clashes_with_nothing() -> None:
    by_hand = NETWORK.replace("{by: ovsdb}", "{by: ovsdb, policy: p}")
    by_policy = (
        NETWORK.replace("name: vmnet", "name: b")
        .replace("{by: ovsdb}", "{policy: p}")
        .replace("br-vmdata}", "br-vmdata, policies: [p]}")
    )
    assert [n.name for n in load(by_hand, by_policy).networks] == ["b", "vmnet"]


def test_problems_of_all_files_come_at_once_sorted_by_file_and_line() -> None:
    first = NETWORK.replace("br-phy", "br-vmdata-migrated-long").replace("9000", "yes")
    second = "kind: VMNetwrk\n---\n" + ROLLOUT.replace("none", "home") + "  ordre: []\n"
    third = "a: 1\n\tb: 2\n"
    with pytest.raises(InputError) as refused:
        load_desired([("c.yaml", third), ("b.yaml", second), ("a.yaml", first)])
    assert str(refused.value).splitlines() == [
        "a.yaml:6:11: spec.bridge: 'br-vmdata-migrated-long' is 23 bytes; Linux interface names have "
        "at most 15. Shorten it.",
        "a.yaml:7:8: spec.mtu: found true (a YAML 1.1 boolean), expected a whole number from 576 to 65535. "
        "Change it.",
        "b.yaml:1:7: kind: found 'VMNetwrk', expected VMNetwork, Rollout, NetworkAttachmentDefinition or NodeNetworkConfigurationPolicy. Did you mean 'VMNetwork'?",
        "b.yaml:8:48: spec.evacuate.return: found 'home', expected 'origin' or 'none'. Change it.",
        "b.yaml:9:3: spec.ordre: unknown field; expected attach, evacuate, order or proof. Did you mean 'order'?",
        "c.yaml:2:1: found a tab in the indentation; YAML takes only spaces there. Replace it.",
    ]


def test_a_document_with_problems_of_its_own_still_takes_part_in_contradictions() -> None:
    other = NETWORK.replace("br-phy", "br-vmdata").replace("9000", "1").replace("name: vmnet", "name: b")
    with pytest.raises(InputError) as refused:
        load(NETWORK, other)
    lines = str(refused.value).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["a.yaml:9:22:", "b.yaml:7:8:", "b.yaml:9:22:"]
    assert "VMNetwork 'b' is to be on it (b.yaml:6)" in lines[0]


def test_a_missing_network_is_told_with_the_problems_of_the_rollout() -> None:
    with pytest.raises(InputError) as refused:
        load(ROLLOUT.replace("none", "home"))
    assert [line.split(" ")[0] for line in str(refused.value).splitlines()] == ["no", "a.yaml:6:48:"]


def test_the_documented_examples_load() -> None:
    assert len(EXAMPLES) == 4
    assert load(EXAMPLES[0]).rollout is None
    full = load(EXAMPLES[1])
    assert full.rollout is not None and full.rollout.spec.order == Canary(canary="worker-01")
    assert load(EXAMPLES[3]).networks[0].bridge == "br-vmdata"
    networks = load(EXAMPLES[2])
    assert [wanted.key for wanted in wanted_networks(networks)] == [
        "default/vlan100",
        "default/vlan224",
        "lab/vlan300",
        "openshift-cnv/vlan200",
    ]


def configs(*texts: str) -> dict[str, Any]:
    return {wanted.key: wanted.config for wanted in wanted_networks(load(*texts))}


def test_a_network_becomes_the_config_that_ovn_kubernetes_takes() -> None:
    found = configs(EXAMPLES[2])
    assert found["default/vlan224"] == {
        "cniVersion": "0.4.0",
        "name": "vlan224",
        "type": "ovn-k8s-cni-overlay",
        "topology": "localnet",
        "netAttachDefName": "default/vlan224",
        "physicalNetworkName": "vmnet",
        "vlanID": 224,
        "mtu": 9000,
    }
    lab = found["lab/vlan300"]
    assert (lab["name"], lab["subnets"], lab["excludeSubnets"]) == (
        "vlan300-lab",
        "198.51.100.0/24",
        "198.51.100.0/28",
    )
    assert found["default/vlan100"] is None
    assert found["openshift-cnv/vlan200"]["vlanID"] == 200


def test_an_untagged_network_without_mtu_says_neither() -> None:
    text = NETWORK.replace("  mtu: 9000\n", "") + "  networks: {default/plain: {}}\n"
    assert not {"vlanID", "mtu", "subnets", "allowPersistentIPs"} & set(configs(text)["default/plain"])


def test_a_card_is_declared_by_its_network_alone_or_at_length() -> None:
    (network,) = load(EXAMPLES[2]).networks
    assert network.attachments == {
        "default/vm-example": {"vlan224-net": Nic(network="default/vlan224")},
        "lab/pci-1": {
            "lab-net": Nic(network="lab/vlan300", mac="02:00:00:00:01:2c"),
            "old-net": Nic(state="absent"),
        },
    }


def test_networks_and_manifests_are_part_of_the_digest_and_their_absence_is_not() -> None:
    plain, full = load(EXAMPLES[0]), load(EXAMPLES[2])
    content = {"networks": [plain.networks[0].model_dump(mode="json", by_alias=True, exclude_none=True)]}
    assert not {"networks", "attachments", "l2Advertisements"} & set(content["networks"][0]["spec"])
    assert full.digest() != Desired(full.networks, full.rollout).digest()


@pytest.mark.parametrize("model", [VMNetwork, Rollout, NativeNad, NativePolicy])
def test_every_field_is_documented(model: Any) -> None:
    documented = re.findall(r"`(?:spec|metadata)\.([a-zA-Z0-9.]+)`", DOCS.read_text(encoding="utf-8"))
    parts = model.model_json_schema(by_alias=True)["$defs"].values()
    assert {name for part in parts for name in part["properties"]} <= {
        step for field in documented for step in field.split(".")
    }


WORDS = [
    "a",
    "yes",
    "010",
    "1_000",
    "1:30",
    "~",
    '""',
    "[]",
    "{}",
    "[a, {b: c}]",
    "{a: {b: [~]}}",
    "br-int",
    "1.5",
]
WORDS += [
    "&x [*x]",
    "*y",
    "!t a",
    "!!binary aa==",
    "!!set {a}",
    "{a: 1, a: 2}",
    "{[a]: b}",
    "{1: 2}",
    "{<<: {}}",
]
WORDS += [
    "2026-01-15",
    "'\\0'",
    '"\\0"',
    "0x1F",
    "1e400",
    ".nan",
    "0b_",
    "9" * 5000,
    ":1" * 3000,
    "|\n  a\n b: c",
]
MORE = """\
  networks:
    default/a:
      vlan: 224
      subnets: [192.0.2.0/24]
  attachments:
    default/vm:
      net: default/a
      other: {network: default/b, mac: "02:00:00:00:00:01"}
  l2Advertisements:
    metallb-system/l2: [br-ex]
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata:
  name: vlan200
  namespace: default
spec:
  config: '{"type": "ovn-k8s-cni-overlay", "topology": "localnet", "name": "vmnet", "netAttachDefName": "default/vlan200"}'
---
"""
LINES = (NETWORK + MORE + ROLLOUT).splitlines(keepends=True)


@settings(max_examples=300, deadline=None, database=None)
@given(st.integers(0, len(LINES) - 1), st.sampled_from(WORDS) | st.text(max_size=20))
def test_whatever_stands_at_a_field_is_taken_or_refused_with_a_place(number: int, word: str) -> None:
    lines = list(LINES)
    key, colon, _ = lines[number].partition(":")
    lines[number] = f"{key}{colon or ':'} {word}\n"
    try:
        desired = load("".join(lines))
    except InputError as error:
        assert all(problem.line and problem.message for problem in error.problems)
        assert "pydantic" not in str(error) and "Traceback" not in str(error)
    else:
        assert wanted_networks(desired) == wanted_networks(load("".join(lines)))
        assert all(int(place.split(":")[1]) > 0 for place in desired.places.values())
