"""Every rule of the desired files, by the message that its breach gets, position included.

Invariant: the text is compared whole; a message that changes is a change that a user meets.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from plans.desired import load_desired
from plans.errors import InputError


def network(name: str = "vmnet", bridge: str = "br-phy", more: str = "") -> str:
    head = f"apiVersion: ovsplan.io/v1alpha1\nkind: VMNetwork\nmetadata: {{name: {name}}}\n"
    return f"{head}spec:\n  bridge: {bridge}\n{more}"


def rollout(spec: str, name: str = "tonight") -> str:
    return f"apiVersion: ovsplan.io/v1alpha1\nkind: Rollout\nmetadata: {{name: {name}}}\nspec:\n{spec}"


def policy(state: str) -> str:
    head = "apiVersion: nmstate.io/v1\nkind: NodeNetworkConfigurationPolicy\nmetadata: {name: p}\n"
    return f"{head}spec: {{desiredState: {state}}}\n"


def case(name: str, texts: list[str], *lines: str) -> Any:
    return pytest.param(texts, list(lines), id=name)


N = network()
HEAD = N[: N.index("spec:")]

INTERFACE_NAMES = [
    case(
        "bridge of 16 bytes",
        [network(bridge="br-vmdata-123456")],
        "a.yaml:5:11: spec.bridge: 'br-vmdata-123456' is 16 bytes; Linux interface names "
        "have at most 15. Shorten it.",
    ),
    case(
        "bytes, not characters",
        [network(bridge="br-größengrößen")],
        "a.yaml:5:11: spec.bridge: 'br-größengrößen' contains 'ö' and 'ß'; the name of a "
        "bridge has letters, digits, '_', '.' and '-' only. Rename it. 'br-größengrößen' is "
        "19 bytes; Linux interface names have at most 15. Shorten it.",
    ),
    case(
        "slash",
        [network(bridge="br/x")],
        "a.yaml:5:11: spec.bridge: 'br/x' contains '/'; the name of a bridge has letters, "
        "digits, '_', '.' and '-' only. Rename it.",
    ),
    case(
        "blank",
        [network(bridge="'br phy'")],
        "a.yaml:5:11: spec.bridge: 'br phy' contains ' '; the name of a bridge has letters, "
        "digits, '_', '.' and '-' only. Rename it.",
    ),
    case(
        "colon and comma",
        [network(bridge="'a:b,c'")],
        "a.yaml:5:11: spec.bridge: 'a:b,c' contains ':' and ','; the name of a bridge has "
        "letters, digits, '_', '.' and '-' only (':' and ',' separate the pairs of "
        "ovn-bridge-mappings). Rename it.",
    ),
    case(
        "dot",
        [network(bridge="'.'")],
        "a.yaml:5:11: spec.bridge: '.' names no bridge. Give its name.",
    ),
    case(
        "empty",
        [network(bridge='""')],
        "a.yaml:5:11: spec.bridge: '' names no bridge. Give its name.",
    ),
    case(
        "shell",
        [network(bridge="'$(reboot)'")],
        "a.yaml:5:11: spec.bridge: '$(reboot)' contains '$' and '(' and ')'; the name of a "
        "bridge has letters, digits, '_', '.' and '-' only. Rename it.",
    ),
    case(
        "option",
        [network(bridge="--all")],
        "a.yaml:5:11: spec.bridge: '--all' begins with '-', which commands read as an "
        "option. Rename the bridge.",
    ),
    case(
        "newline",
        [network(bridge='"br-phy\\n"')],
        "a.yaml:5:11: spec.bridge: 'br-phy\\n' contains '\\n'; the name of a bridge has "
        "letters, digits, '_', '.' and '-' only. Rename it.",
    ),
    case(
        "br-int",
        [network(bridge="br-int")],
        "a.yaml:5:11: spec.bridge: 'br-int' is OVN's own integration bridge; a localnet "
        "mapped to it has no way out. Name the bridge that holds the uplink.",
    ),
    case(
        "br-ex",
        [network(bridge="br-ex")],
        "a.yaml:5:11: spec.bridge: 'br-ex' carries the node's own traffic and belongs to "
        "OVN-Kubernetes, which remakes it at boot. Name a bridge that VM traffic may have, "
        "such as br-phy.",
    ),
    case(
        "replaces br-ex",
        [network(more="  replaces: {bridge: br-ex}\n")],
        "a.yaml:6:22: spec.replaces.bridge: 'br-ex' belongs to OVN-Kubernetes; without it "
        "the node is off the network. Name the bridge that was made for VMs, or remove "
        "'replaces'.",
    ),
    case(
        "replaces br-int",
        [network(more="  replaces: {bridge: br-int}\n")],
        "a.yaml:6:22: spec.replaces.bridge: 'br-int' belongs to OVN-Kubernetes; without it "
        "the node is off the network. Name the bridge that was made for VMs, or remove "
        "'replaces'.",
    ),
    case(
        "replaces bad",
        [network(more="  replaces: {bridge: br;x}\n")],
        "a.yaml:6:22: spec.replaces.bridge: 'br;x' contains ';'; the name of a bridge has "
        "letters, digits, '_', '.' and '-' only. Rename it.",
    ),
    case(
        "replaces itself",
        [network(more="  replaces: {bridge: br-phy}\n")],
        "a.yaml:6:22: spec.replaces.bridge: 'br-phy' cannot replace itself. Name the bridge "
        "that goes, or remove 'replaces'.",
    ),
]

LOCALNETS = [
    case(
        "localnet colon",
        [network(name="'vm:net'")],
        "a.yaml:3:18: metadata.name: 'vm:net' contains ':'; the name of a localnet has "
        "letters, digits, '_', '.' and '-' only (':' and ',' separate the pairs of "
        "ovn-bridge-mappings). Rename it.",
    ),
    case(
        "localnet comma",
        [network(name="'vm,net'")],
        "a.yaml:3:18: metadata.name: 'vm,net' contains ','; the name of a localnet has "
        "letters, digits, '_', '.' and '-' only (':' and ',' separate the pairs of "
        "ovn-bridge-mappings). Rename it.",
    ),
    case(
        "localnet blank",
        [network(name="'vm net'")],
        "a.yaml:3:18: metadata.name: 'vm net' contains ' '; the name of a localnet has "
        "letters, digits, '_', '.' and '-' only. Rename it.",
    ),
    case(
        "localnet shell",
        [network(name="vm`id`")],
        "a.yaml:3:18: metadata.name: 'vm`id`' contains '`'; the name of a localnet has "
        "letters, digits, '_', '.' and '-' only. Rename it.",
    ),
    case(
        "localnet long",
        [network(name="v" * 254)],
        "a.yaml:3:18: metadata.name: 'vvvvvvvvvvvvvvvvvvvv'... is 254 characters; the name "
        "of a localnet has at most 253. Shorten it.",
    ),
    case(
        "physnet",
        [network(name="physnet")],
        "a.yaml:3:18: metadata.name: 'physnet' belongs to OVN-Kubernetes: every node's own "
        "way out is mapped by it (H01). Choose another localnet.",
    ),
    case(
        "exgwphysnet",
        [network(name="exgwphysnet")],
        "a.yaml:3:18: metadata.name: 'exgwphysnet' belongs to OVN-Kubernetes: every node's "
        "own way out is mapped by it (H01). Choose another localnet.",
    ),
]

LABELS = [
    case(
        "label key",
        [network(more="  nodes: {'a b': x}\n")],
        "a.yaml:6:11: spec.nodes: 'a b' is not a label key: 'a b' must be 1 to 63 letters, "
        "digits, '-', '_' and '.', beginning and ending with a letter or digit. Correct it.",
    ),
    case(
        "label prefix",
        [network(more="  nodes: {Ex_ample/a: x}\n")],
        "a.yaml:6:11: spec.nodes: 'Ex_ample/a' is not a label key: 'Ex_ample' is not a DNS "
        "name in lower case. Correct it.",
    ),
    case(
        "label value",
        [network(more="  nodes: {rack: a/b}\n")],
        "a.yaml:6:17: spec.nodes.rack: 'a/b' is not a label value: it must be 1 to 63 "
        "letters, digits, '-', '_' and '.', beginning and ending with a letter or digit. "
        "Correct it.",
    ),
    case(
        "label yes",
        [network(more="  nodes: {gpu: yes}\n")],
        'a.yaml:6:16: spec.nodes.gpu: found true (a YAML 1.1 boolean), expected text: quote it, as "yes".',
    ),
    case(
        "label null",
        [network(more="  nodes: {node-role.kubernetes.io/worker: }\n")],
        "a.yaml:6:11: spec.nodes[node-role.kubernetes.io/worker]: found nothing, expected "
        'text (the empty one is ""). Give a value, or remove the key.',
    ),
    case(
        "label number",
        [network(more="  nodes: {rack: 1_000}\n")],
        'a.yaml:6:17: spec.nodes.rack: found 1000 (a YAML 1.1 number), expected text: quote it, as "1_000".',
    ),
    case(
        "label octal",
        [network(more="  nodes: {rack: 010}\n")],
        'a.yaml:6:17: spec.nodes.rack: found 8 (a YAML 1.1 octal number), expected text: quote it, as "010".',
    ),
    case(
        "label base-60",
        [network(more="  nodes: {rack: 12:30}\n")],
        "a.yaml:6:17: spec.nodes.rack: found 750 (a YAML 1.1 base-60 number), expected text: "
        'quote it, as "12:30".',
    ),
    case(
        "label float",
        [network(more="  nodes: {rack: 1.10}\n")],
        'a.yaml:6:17: spec.nodes.rack: found 1.1 (a number), expected text: quote it, as "1.10".',
    ),
    case(
        "nodes list",
        [network(more="  nodes: [worker-01]\n")],
        "a.yaml:6:10: spec.nodes: found a list, expected a mapping of node labels. Change it.",
    ),
]

MTUS = [
    case(
        "mtu low",
        [network(more="  mtu: 575\n")],
        "a.yaml:6:8: spec.mtu: 575 is below 576, which every IPv4 link must carry. Raise it.",
    ),
    case(
        "mtu high",
        [network(more="  mtu: 65536\n")],
        "a.yaml:6:8: spec.mtu: 65536 is above 65535, the largest packet there is. Lower it.",
    ),
    case(
        "mtu text",
        [network(more="  mtu: '9000'\n")],
        "a.yaml:6:8: spec.mtu: found '9000' (text), expected a whole number from 576 to "
        "65535: remove the quotes.",
    ),
    case(
        "mtu word",
        [network(more="  mtu: jumbo\n")],
        "a.yaml:6:8: spec.mtu: found 'jumbo' (text), expected a whole number from 576 to 65535. Change it.",
    ),
    case(
        "mtu octal",
        [network(more="  mtu: 01500\n")],
        "a.yaml:6:8: spec.mtu: found 832: 01500 is a YAML 1.1 octal number. Write it in "
        "plain decimals, or quote it as text.",
    ),
    case(
        "mtu fraction",
        [network(more="  mtu: 1500.5\n")],
        "a.yaml:6:8: spec.mtu: found 1500.5 (a number), expected a whole number from 576 to "
        "65535. Change it.",
    ),
    case(
        "mtu bool",
        [network(more="  mtu: on\n")],
        "a.yaml:6:8: spec.mtu: found true (a YAML 1.1 boolean), expected a whole number from "
        "576 to 65535. Change it.",
    ),
    case(
        "mtu null",
        [network(more="  mtu:\n")],
        "a.yaml:6:3: spec.mtu: found nothing, expected a whole number from 576 to 65535. "
        "Give a value, or remove the key.",
    ),
]

SHAPES = [
    case(
        "bridge yes",
        [network(bridge="yes")],
        'a.yaml:5:11: spec.bridge: found true (a YAML 1.1 boolean), expected text: quote it, as "yes".',
    ),
    case(
        "bridge on",
        [network(bridge="on")],
        'a.yaml:5:11: spec.bridge: found true (a YAML 1.1 boolean), expected text: quote it, as "on".',
    ),
    case(
        "bridge true",
        [network(bridge="true")],
        'a.yaml:5:11: spec.bridge: found true (a boolean), expected text: quote it, as "true".',
    ),
    case(
        "bridge 010",
        [network(bridge="010")],
        'a.yaml:5:11: spec.bridge: found 8 (a YAML 1.1 octal number), expected text: quote it, as "010".',
    ),
    case(
        "bridge null",
        [network(bridge="~")],
        "a.yaml:5:3: spec.bridge: found nothing, expected the name of the bridge that the "
        "localnet is to be on. Give a value, or remove the key.",
    ),
    case(
        "bridge to make without a port",
        [network(bridge="{name: br-vmdata, ports: []}")],
        "a.yaml:5:36: spec.bridge.ports: the list is empty: a bridge without a port reaches nobody. Name its uplink.",
    ),
    case(
        "bridge to make, ports missing",
        [network(bridge="{name: br-vmdata}")],
        "a.yaml:5:3: spec.bridge.ports: missing; expected a list of its uplinks, as in [bond0]. Add it.",
    ),
    case(
        "bridge to make, a port twice",
        [network(bridge="{name: br-vmdata, ports: [bond0, bond0]}")],
        "a.yaml:5:36: spec.bridge.ports: 'bond0' is in the list twice. Remove one.",
    ),
    case(
        "bridge to make is a port of itself",
        [network(bridge="{name: bond0, ports: [bond0]}")],
        "a.yaml:5:11: spec.bridge: 'bond0' cannot be a port of itself. Name its uplink.",
    ),
    case(
        "bridge to make belongs to OVN",
        [network(bridge="{name: br-int, ports: [bond0]}")],
        "a.yaml:5:18: spec.bridge.name: 'br-int' is OVN's own integration bridge; a localnet mapped to it has no way out. "
        "Name the bridge that holds the uplink.",
    ),
    case(
        "bridge to make, unknown field",
        [network(bridge="{name: br-vmdata, ports: [bond0], mode: slb}")],
        "a.yaml:5:45: spec.bridge.mode: unknown field; expected name or ports. Remove it.",
    ),
    case(
        "bridge is a list",
        [network(bridge="[br-vmdata]")],
        "a.yaml:5:11: spec.bridge: found a list, expected the name of the bridge that the localnet is to be on. Change it.",
    ),
    case(
        "spec list",
        [f"{HEAD}spec: []\n"],
        "a.yaml:4:7: spec: found a list, expected a mapping with 'bridge'. Change it.",
    ),
    case(
        "spec missing",
        [HEAD],
        "a.yaml:1:1: spec: missing; expected a mapping with 'bridge'. Add it.",
    ),
    case(
        "bridge missing",
        [f"{HEAD}spec:\n  mtu: 9000\n"],
        "a.yaml:4:1: spec.bridge: missing; expected the name of the bridge that the localnet "
        "is to be on. Add it.",
    ),
    case(
        "name missing",
        [network(name="vmnet").replace("name: vmnet", "")],
        "a.yaml:3:1: metadata.name: missing; expected the localnet's name. Add it.",
    ),
    case(
        "apiVersion missing",
        ["kind: VMNetwork\nmetadata: {name: vmnet}\nspec: {bridge: br-phy}\n"],
        "a.yaml:1:1: apiVersion: missing; expected 'ovsplan.io/v1alpha1'. Add it.",
    ),
]

FIELDS = [
    case(
        "unknown field",
        [network(more="  birdge: br-phy\n")],
        "a.yaml:6:3: spec.birdge: unknown field; expected attachments, bridge, delivery, "
        "l2Advertisements, mtu, networks, nodes or replaces. Did you mean 'bridge'?",
    ),
    case(
        "far field",
        [network(more="  color: red\n")],
        "a.yaml:6:3: spec.color: unknown field; expected attachments, bridge, delivery, "
        "l2Advertisements, mtu, networks, nodes or replaces. Remove it.",
    ),
    case(
        "unknown in metadata",
        [network(name="vmnet, labels: {}")],
        "a.yaml:3:25: metadata.labels: unknown field; expected name. Remove it.",
    ),
    case(
        "unknown in replaces",
        [network(more="  replaces: {bridge: br-vmdata, brigde: x}\n")],
        "a.yaml:6:33: spec.replaces.brigde: unknown field; expected bridge or policies. "
        "Did you mean 'bridge'?",
    ),
    case(
        "unknown at root",
        [network(more="status: {}\n")],
        "a.yaml:6:1: status: unknown field; expected apiVersion, kind, metadata or spec. Remove it.",
    ),
    case(
        "uplink",
        [network(more="  uplink: {node: {bridge: br-ex}}\n")],
        "a.yaml:6:3: spec.uplink: not supported by this version. Remove it.",
    ),
    case(
        "policies text",
        [network(more="  replaces: {bridge: br-vmdata, policies: br-vmdata}\n")],
        "a.yaml:6:43: spec.replaces.policies: found 'br-vmdata' (text), expected a list of policies. Change it.",
    ),
    case(
        "policy name",
        [network(more="  replaces: {bridge: br-vmdata, policies: [Old_One]}\n")],
        "a.yaml:6:44: spec.replaces.policies[0]: 'Old_One' is not a policy name: at most 253 lower-case letters, "
        "digits, '-' and '.', each part beginning and ending with a letter or digit. Write it as the cluster has it.",
    ),
    case(
        "delivery node-file",
        [network(more="  delivery: {by: node-file}\n")],
        "a.yaml:6:18: spec.delivery.by: 'node-file' is not supported by this version; "
        "expected 'ovsdb' or 'nncp'. Change it.",
    ),
    case(
        "delivery policy",
        [network(more=f"  delivery: {{by: nncp, policy: {'x' * 64}}}\n")],
        f"a.yaml:6:32: spec.delivery.policy: '{'x' * 64}' is 64 characters; the name of a policy has at most 63. "
        "Shorten it.",
    ),
    case(
        "labelled without a label",
        [network(more="  delivery: {by: nncp, strategy: labelled}\n")],
        "a.yaml:6:13: spec.delivery: the strategy 'labelled' needs `label`: the key whose value says which policy "
        "a node obeys. Add it.",
    ),
    case(
        "label without the strategy",
        [network(more="  delivery: {by: nncp, label: balance-slb-migrated}\n")],
        "a.yaml:6:13: spec.delivery: `label` is for the strategy 'labelled'. Add `strategy: labelled`, or remove it.",
    ),
    case(
        "strategy unknown",
        [network(more="  delivery: {by: nncp, strategy: labeled, label: a}\n")],
        "a.yaml:6:34: spec.delivery.strategy: found 'labeled', expected 'per-node' or 'labelled'. Did you mean "
        "'labelled'?",
    ),
    case(
        "delivery unknown",
        [network(more="  delivery: {by: ovsb}\n")],
        "a.yaml:6:18: spec.delivery.by: found 'ovsb', expected 'ovsdb' or 'nncp'. Did you mean 'ovsdb'?",
    ),
    case(
        "delivery text",
        [network(more="  delivery: ovsdb\n")],
        "a.yaml:6:13: spec.delivery: found 'ovsdb' (text), expected {by: ovsdb} or {by: nncp, policy: NAME}. "
        "Change it.",
    ),
]

HEADERS = [
    case(
        "api version",
        [N.replace("v1alpha1", "v1")],
        "a.yaml:1:13: apiVersion: found 'ovsplan.io/v1', expected 'ovsplan.io/v1alpha1'. Change it.",
    ),
    case(
        "kind typo",
        [N.replace("VMNetwork", "VmNetwork")],
        "a.yaml:2:7: kind: found 'VmNetwork', expected VMNetwork, Rollout, NetworkAttachmentDefinition or NodeNetworkConfigurationPolicy. Did you mean 'VMNetwork'?",
    ),
    case(
        "foreign kind",
        [N, "apiVersion: v1\nkind: ConfigMap\n"],
        "b.yaml:2:7: kind: found 'ConfigMap', expected VMNetwork, Rollout, NetworkAttachmentDefinition or NodeNetworkConfigurationPolicy. Correct it, or "
        "take the document out of these files.",
    ),
    case(
        "native policy without a spec",
        [N, "apiVersion: nmstate.io/v1\nkind: NodeNetworkConfigurationPolicy\nmetadata: {name: p}\n"],
        "b.yaml:1:1: spec: missing; expected a mapping with 'desiredState'. Add it.",
    ),
    case(
        "native policy of an older api",
        [N, policy("{}").replace("nmstate.io/v1", "nmstate.io/v1beta1")],
        "b.yaml:1:13: apiVersion: found 'nmstate.io/v1beta1', expected 'nmstate.io/v1'. Change it.",
    ),
    case(
        "native policy with a part that nmstate lacks",
        [N, policy("{interface: []}")],
        "b.yaml:4:23: spec.desiredState.interface: nmstate knows no 'interface' here and would refuse the whole "
        "document; it knows interfaces, ovn, routes, route-rules, dns-resolver, ovs-db, hostname. Correct it.",
    ),
    case(
        "native policy that purges the database",
        [N, policy("{ovs-db: {}}")],
        "b.yaml:4:23: spec.desiredState.ovs-db: an empty map takes system-id, ovn-remote and the encapsulation away "
        "from the node (H40). Remove it.",
    ),
    case(
        "native policy that loses OVN's ports",
        [N, policy("{interfaces: [{name: br-phy, type: ovs-bridge, bridge: {port: []}}]}")],
        "b.yaml:4:78: spec.desiredState.interfaces[0].bridge.port: a list of ports without "
        "`allow-extra-patch-ports: true`: nmstate fails after 26 s over OVN's patch port, and the roll-back takes "
        "the bridge's bond out and in again (H24). Add it.",
    ),
    case(
        "native policy for half a node",
        [N, policy("{}, maxUnavailable: 0")],
        'b.yaml:4:42: spec.maxUnavailable: 0 is no number of nodes. Write 1 or more, or a percentage as in "50%".',
    ),
    case(
        "native policy with a capture",
        [N, policy("{}, capture: {}")],
        "b.yaml:4:26: spec.capture: not supported by this version. Remove it.",
    ),
    case(
        "matchExpressions",
        [
            N,
            "apiVersion: nmstate.io/v1\nkind: NodeNetworkConfigurationPolicy\nspec:\n  nodeSelector:\n"
            "    matchExpressions: [{key: a, operator: NotIn, values: [b]}]\n"
            "  desiredState: {}\nmetadata: {name: p}\n",
        ],
        "b.yaml:5:5: spec.nodeSelector.matchExpressions: a policy's nodeSelector takes plain labels only, and nmstate "
        "would look for a label of that name (H05). Write the label itself, as in "
        '{node-role.kubernetes.io/worker: ""}.',
    ),
    case(
        "matchExpressions of a network",
        [network(more="  nodes: {matchExpressions: [{key: a, operator: Exists}]}\n")],
        "a.yaml:6:11: spec.nodes.matchExpressions: a policy's nodeSelector takes plain labels only, and nmstate "
        "would look for a label of that name (H05). Write the label itself, as in "
        '{node-role.kubernetes.io/worker: ""}.',
    ),
    case(
        "kind and api version",
        [N.replace("v1alpha1", "v1").replace("VMNetwork", "VmNetwork")],
        "a.yaml:1:13: apiVersion: found 'ovsplan.io/v1', expected 'ovsplan.io/v1alpha1'. Change it.",
        "a.yaml:2:7: kind: found 'VmNetwork', expected VMNetwork, Rollout, NetworkAttachmentDefinition or NodeNetworkConfigurationPolicy. Did you mean 'VMNetwork'?",
    ),
    case(
        "world",
        [N, "apiVersion: ovsplan.io/v1alpha1\nkind: World\n"],
        "b.yaml:2:7: kind: a World is for `ovsplan twin init`; it is not desired state. Move "
        "it to another folder.",
    ),
    case(
        "target",
        [N, "cluster: {twin: world}\n"],
        "b.yaml:1:1: kind: missing; expected VMNetwork, Rollout, NetworkAttachmentDefinition or NodeNetworkConfigurationPolicy. This looks like a target "
        "file: give it by --target, and keep it in another folder.",
    ),
    case(
        "no kind",
        [N, "apiVersion: ovsplan.io/v1alpha1\n"],
        "b.yaml:1:1: kind: missing; expected VMNetwork, Rollout, NetworkAttachmentDefinition or NodeNetworkConfigurationPolicy. Add it.",
    ),
    case(
        "kind list",
        [N, "kind: [VMNetwork]\n"],
        "b.yaml:1:7: kind: found a list, expected VMNetwork, Rollout, NetworkAttachmentDefinition or NodeNetworkConfigurationPolicy. Correct it, or take "
        "the document out of these files.",
    ),
    case(
        "a list",
        [N, "- a\n"],
        "b.yaml:1:1: document: found a list, expected a mapping with apiVersion, kind, metadata and spec.",
    ),
    case(
        "a word",
        [N, "hello\n"],
        "b.yaml:1:1: document: found 'hello' (text), expected a mapping with apiVersion, "
        "kind, metadata and spec.",
    ),
]

ROLLOUTS = [
    case(
        "order twice",
        [N, rollout("  order:\n  - worker-01\n  - worker-02\n  - worker-01\n")],
        "b.yaml:8:5: spec.order[2]: node 'worker-01' is in the order twice, first in line 6. Remove one.",
    ),
    case(
        "order bad",
        [N, rollout("  order: [Worker_01]\n")],
        "b.yaml:5:11: spec.order[0]: 'Worker_01' is not a node name: at most 253 lower-case "
        "letters, digits, '-' and '.', each part beginning and ending with a letter or "
        "digit. Write it as the cluster has it.",
    ),
    case(
        "order number",
        [N, rollout("  order: [1]\n")],
        'b.yaml:5:11: spec.order[0]: found 1 (a number), expected text: quote it, as "1".',
    ),
    case(
        "order empty",
        [N, rollout("  order: []\n")],
        "b.yaml:5:10: spec.order: the list is empty. Name the nodes, or remove 'order'.",
    ),
    case(
        "order text",
        [N, rollout("  order: worker-01\n")],
        "b.yaml:5:10: spec.order: found 'worker-01' (text), expected a list of nodes, or "
        "{canary: NODE, then: fewest-vms}. Change it.",
    ),
    case(
        "order null",
        [N, rollout("  order:\n")],
        "b.yaml:5:3: spec.order: found nothing, expected a list of nodes, or {canary: NODE, "
        "then: fewest-vms}. Give a value, or remove the key.",
    ),
    case(
        "canary unknown then",
        [N, rollout("  order: {canary: worker-01, then: fewest-vm}\n")],
        "b.yaml:5:36: spec.order.then: found 'fewest-vm', expected 'fewest-vms' or 'name'. "
        "Did you mean 'fewest-vms'?",
    ),
    case(
        "canary unknown field",
        [N, rollout("  order: {canary: worker-01, than: name}\n")],
        "b.yaml:5:30: spec.order.than: unknown field; expected canary or then. Did you mean 'then'?",
    ),
    case(
        "canary missing",
        [N, rollout("  order: {then: name}\n")],
        "b.yaml:5:3: spec.order.canary: missing; expected the name of the node that goes first. Add it.",
    ),
    case(
        "canary list",
        [N, rollout("  order: {canary: [worker-01]}\n")],
        "b.yaml:5:19: spec.order.canary: found a list, expected the name of the node that "
        "goes first. Change it.",
    ),
    case(
        "evacuate null",
        [N, rollout("  evacuate:\n")],
        "b.yaml:5:3: spec.evacuate: found nothing, expected a mapping; {} is the usual "
        "evacuation. Give a value, or remove the key.",
    ),
    case(
        "evacuate true",
        [N, rollout("  evacuate: yes\n")],
        "b.yaml:5:13: spec.evacuate: found true (a YAML 1.1 boolean), expected a mapping; {} "
        "is the usual evacuation. Change it.",
    ),
    case(
        "pods",
        [N, rollout("  evacuate: {pods: delete}\n")],
        "b.yaml:5:20: spec.evacuate.pods: found 'delete', expected 'evict' or 'leave'. Change it.",
    ),
    case(
        "canary that is nothing",
        [N, rollout("  proof: {canary: tools}\n")],
        "b.yaml:5:19: spec.proof.canary: found 'tools' (text), expected {}, or {image: IMAGE} of any image that has `sleep`. Change it.",
    ),
    case(
        "canary of no image",
        [N, rollout("  proof: {canary: {image: two words}}\n")],
        "b.yaml:5:27: spec.proof.canary.image: 'two words' is not the name of an image. Write one that has `sleep` in it.",
    ),
    case(
        "canary without an emptied node",
        [N, rollout("  proof: {canary: {}}\n")],
        "b.yaml:5:10: spec.proof: a canary is put on a node that its VMs have left, and this rollout empties none: "
        "it would not be used. Add 'evacuate: {}', or remove 'proof'.",
    ),
    case(
        "vm unknown",
        [N, rollout("  evacuate: {vms: {db/oracle-1: live-migrat}}\n")],
        "b.yaml:5:33: spec.evacuate.vms[db/oracle-1]: found 'live-migrat', expected "
        "'live-migrate', 'restart' or 'stay'. Did you mean 'live-migrate'?",
    ),
    case(
        "vm no ns",
        [N, rollout("  evacuate: {vms: {oracle-1: stay}}\n")],
        "b.yaml:5:20: spec.evacuate.vms: 'oracle-1' has no namespace. Write NAMESPACE/NAME, "
        "as in 'default/oracle-1'.",
    ),
    case(
        "vm ns",
        [N, rollout("  evacuate: {vms: {DB/oracle-1: stay}}\n")],
        "b.yaml:5:20: spec.evacuate.vms: 'DB' is not a namespace: at most 63 lower-case "
        "letters, digits and '-', beginning and ending with a letter or digit. Write it as "
        "the cluster has it.",
    ),
    case(
        "vm name",
        [N, rollout("  evacuate: {vms: {db/a/b: stay}}\n")],
        "b.yaml:5:20: spec.evacuate.vms: 'a/b' is not a VM name: at most 253 lower-case "
        "letters, digits, '-' and '.', each part beginning and ending with a letter or "
        "digit. Write it as the cluster has it.",
    ),
    case(
        "return",
        [N, rollout("  evacuate: {return: home}\n")],
        "b.yaml:5:22: spec.evacuate.return: found 'home', expected 'origin' or 'none'. Change it.",
    ),
    case(
        "return no",
        [N, rollout("  evacuate: {return: no}\n")],
        "b.yaml:5:22: spec.evacuate.return: found false (a YAML 1.1 boolean), expected "
        "'origin' or 'none'. Change it.",
    ),
    case(
        "convert",
        [N, rollout("  convert: console\n")],
        "b.yaml:5:3: spec.convert: not supported by this version. Remove it.",
    ),
    case(
        "attest",
        [N, rollout("  attest: []\n")],
        "b.yaml:5:3: spec.attest: not supported by this version. Remove it.",
    ),
    case(
        "rollout name",
        [N, rollout("  order: [a]\n", name="To_night")],
        "b.yaml:3:18: metadata.name: 'To_night' is not a name: at most 253 lower-case "
        "letters, digits, '-' and '.', each part beginning and ending with a letter or "
        "digit. Write it as the cluster has it.",
    ),
]

BETWEEN = [
    case(
        "one policy for two networks",
        [network("a", more="  delivery: {policy: p}\n"), network("b", more="  delivery: {policy: p}\n")],
        "b.yaml:6:22: spec.delivery.policy: policy 'p' would be written for this VMNetwork and for VMNetwork 'a' "
        "(a.yaml:6). Give one of them another name (spec.delivery.policy of a VMNetwork).",
    ),
    case(
        "localnets that differ in case",
        [network("vmnet"), network("VMnet")],
        "b.yaml:3:18: metadata.name: policy 'ovsplan-vmnet' would be written for this VMNetwork and for "
        "VMNetwork 'vmnet' (a.yaml:3). Give one of them another name (spec.delivery.policy of a VMNetwork).",
    ),
    case(
        "the policy of a network and a native one",
        [network("a", more="  delivery: {policy: p}\n"), policy("{interfaces: []}")],
        "b.yaml:3:18: metadata.name: policy 'p' would be written for this NodeNetworkConfigurationPolicy and for "
        "VMNetwork 'a' (a.yaml:6). Give one of them another name (spec.delivery.policy of a VMNetwork).",
    ),
    case(
        "the policy that maps for labels",
        [
            network("a", more="  delivery: {policy: p, strategy: labelled, label: site/a}\n"),
            network("b", more="  delivery: {policy: p-mapping}\n"),
        ],
        "b.yaml:6:22: spec.delivery.policy: policy 'p-mapping' would be written for this VMNetwork and for "
        "VMNetwork 'a' (a.yaml:6). Give one of them another name (spec.delivery.policy of a VMNetwork).",
    ),
    case(
        "takes away what another network writes",
        [
            network("a", more="  delivery: {policy: p}\n"),
            network("b", more="  replaces: {bridge: br-b, policies: [q, p]}\n"),
        ],
        "b.yaml:6:42: spec.replaces.policies[1]: policy 'p' is taken away here, and is written for VMNetwork 'a' "
        "(a.yaml:6). Remove it here.",
    ),
    case(
        "duplicate",
        [N, "---\n" + N],
        "b.yaml:4:18: metadata.name: VMNetwork 'vmnet' is declared here and at a.yaml:3. Remove one.",
    ),
    case(
        "duplicate in a file",
        [N + "---\n" + N],
        "a.yaml:9:18: metadata.name: VMNetwork 'vmnet' is declared here and at a.yaml:3. Remove one.",
    ),
    case(
        "contradiction",
        [
            network(name="a", bridge="br-phy", more="  replaces: {bridge: br-vmdata}\n"),
            network(name="b", bridge="br-vmdata"),
        ],
        "a.yaml:6:22: spec.replaces.bridge: 'br-vmdata' is taken away here, but VMNetwork "
        "'b' is to be on it (b.yaml:5). Change one of them.",
    ),
    case(
        "contradiction with a bridge to make",
        [
            network(name="a", bridge="br-phy", more="  replaces: {bridge: br-vmdata}\n"),
            network(name="b", bridge="{name: br-vmdata, ports: [bond0]}"),
        ],
        "a.yaml:6:22: spec.replaces.bridge: 'br-vmdata' is taken away here, but VMNetwork "
        "'b' is to be on it (b.yaml:5). Change one of them.",
    ),
    case(
        "a bridge to make replaces itself",
        [
            network(
                name="a", bridge="{name: br-vmdata, ports: [bond0]}", more="  replaces: {bridge: br-vmdata}\n"
            )
        ],
        "a.yaml:6:22: spec.replaces.bridge: 'br-vmdata' cannot replace itself. Name the bridge that goes, or remove 'replaces'.",
    ),
    case(
        "one bridge to make, with other ports",
        [
            network(name="a", bridge="{name: br-vmdata, ports: [bond0]}"),
            network(name="b", bridge="{name: br-vmdata, ports: [bond1]}"),
        ],
        "b.yaml:5:36: spec.bridge.ports: 'br-vmdata' has other ports at a.yaml:5. Write the same in both.",
    ),
    case(
        "swap",
        [
            network(name="a", bridge="br-a", more="  replaces: {bridge: br-b}\n"),
            network(name="b", bridge="br-b", more="  replaces: {bridge: br-a}\n"),
        ],
        "a.yaml:6:22: spec.replaces.bridge: 'br-b' is taken away here, but VMNetwork 'b' is "
        "to be on it (b.yaml:5). Change one of them.",
        "b.yaml:6:22: spec.replaces.bridge: 'br-a' is taken away here, but VMNetwork 'a' is "
        "to be on it (a.yaml:5). Change one of them.",
    ),
    case(
        "two rollouts",
        [N, rollout("  order: [a]\n", name="one"), rollout("  order: [a]\n", name="two")],
        "c.yaml:2:7: kind: a second Rollout; the first is at b.yaml:2. A run has one. Remove the other.",
    ),
    case(
        "rollout twice",
        [N, rollout("  order: [a]\n"), rollout("  order: [a]\n")],
        "c.yaml:3:18: metadata.name: Rollout 'tonight' is declared here and at b.yaml:3. Remove one.",
    ),
    case(
        "no network",
        [rollout("  order: [a]\n")],
        "no VMNetwork in a.yaml. Declare at least one: kind VMNetwork, metadata.name, spec.bridge.",
    ),
    case(
        "nothing",
        ["# nothing\n---\n---\n"],
        "no VMNetwork in a.yaml. Declare at least one: kind VMNetwork, metadata.name, spec.bridge.",
    ),
    case(
        "no files",
        [],
        "no files were given, so there is no VMNetwork. Declare at least one: kind "
        "VMNetwork, metadata.name, spec.bridge.",
    ),
]

MANIFEST = """\
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: vlan224, namespace: default}
spec:
  config: '%s'
"""
CONFIG = {
    "cniVersion": "0.4.0",
    "name": "vlan224",
    "type": "ovn-k8s-cni-overlay",
    "topology": "localnet",
    "netAttachDefName": "default/vlan224",
    "physicalNetworkName": "vmnet",
    "vlanID": 224,
}


def nads(lines: str, name: str = "vmnet") -> str:
    return network(name=name, more=f"  networks:\n{lines}")


def manifest(**changes: Any) -> str:
    config = {field: value for field, value in {**CONFIG, **changes}.items() if value is not None}
    return MANIFEST % json.dumps(config)


def attached(lines: str, name: str = "vmnet") -> str:
    return network(name=name, more=f"  attachments:\n{lines}")


def wrong_config(name: str, changes: dict[str, Any], *faults: str) -> Any:
    return case(name, [N, manifest(**changes)], *(f"b.yaml:5:11: spec.config: {fault}" for fault in faults))


NETWORKS = [
    case(
        "vlan 0",
        [nads("    default/a: {vlan: 0}\n")],
        "a.yaml:7:23: spec.networks[default/a].vlan: 0 is no VLAN. Leave 'vlan' out for an untagged network.",
    ),
    case(
        "vlan 4095",
        [nads("    default/a: {vlan: 4095}\n")],
        "a.yaml:7:23: spec.networks[default/a].vlan: 4095 is not from 1 to 4094. Correct it.",
    ),
    case(
        "vlan text",
        [nads("    default/a: {vlan: '224'}\n")],
        "a.yaml:7:23: spec.networks[default/a].vlan: found '224' (text), expected a whole number from 1 to 4094: remove the quotes.",
    ),
    case(
        "mtu of a network",
        [nads("    default/a: {mtu: 100}\n")],
        "a.yaml:7:22: spec.networks[default/a].mtu: 100 is below 576, which every IPv4 link must carry. Raise it.",
    ),
    case(
        "no namespace",
        [nads("    vlan224: {vlan: 224}\n")],
        "a.yaml:7:5: spec.networks: 'vlan224' has no namespace. Write NAMESPACE/NAME, as in 'default/vlan224'.",
    ),
    case(
        "unknown in a network",
        [nads("    default/a: {vlanID: 224}\n")],
        "a.yaml:7:17: spec.networks[default/a].vlanID: unknown field; expected allowPersistentIPs, excludeSubnets, gateway, mtu, name, state, subnets or vlan. Did you mean 'vlan'?",
    ),
    case(
        "network as text",
        [nads("    default/a: 224\n")],
        "a.yaml:7:16: spec.networks[default/a]: found 224 (a number), expected a mapping such as {vlan: 224}; {} is an untagged network. Change it.",
    ),
    case(
        "reserved network name",
        [nads("    default/a: {name: ovn-kubernetes}\n")],
        "a.yaml:7:23: spec.networks[default/a].name: 'ovn-kubernetes' is a network of OVN-Kubernetes' own. Choose another name.",
    ),
    case(
        "subnet without length",
        [nads("    default/a: {subnets: [192.0.2.0]}\n")],
        "a.yaml:7:27: spec.networks[default/a].subnets[0]: '192.0.2.0' is not a network. Write ADDRESS/LENGTH, as in 192.0.2.0/24.",
    ),
    case(
        "excluded outside",
        [nads("    default/a: {subnets: [192.0.2.0/24], excludeSubnets: [198.51.100.0/28]}\n")],
        "a.yaml:7:16: spec.networks[default/a]: excludeSubnets: 198.51.100.0/28 lies in none of the subnets. Correct one of them.",
    ),
    case(
        "excluded of the other family",
        [nads("    default/a: {subnets: [192.0.2.0/24], excludeSubnets: ['2001:db8::/64']}\n")],
        "a.yaml:7:16: spec.networks[default/a]: excludeSubnets: 2001:db8::/64 lies in none of the subnets. Correct one of them.",
    ),
    case(
        "persistent without subnets",
        [nads("    default/a: {allowPersistentIPs: true}\n")],
        "a.yaml:7:16: spec.networks[default/a]: allowPersistentIPs needs 'subnets', from which the addresses would be. Add them.",
    ),
    case(
        "gateway",
        [nads("    default/a: {gateway: router}\n")],
        "a.yaml:7:26: spec.networks[default/a].gateway: 'router' is not an IP address. Write it as in 192.0.2.1.",
    ),
    case(
        "state",
        [nads("    default/a: {state: gone}\n")],
        "a.yaml:7:24: spec.networks[default/a].state: found 'gone', expected 'present' or 'absent'. Change it.",
    ),
    case(
        "two networks of one key",
        [nads("    default/a: {vlan: 1}\n"), nads("    default/a: {vlan: 1}\n", "backup")],
        "b.yaml:7:5: spec.networks[default/a]: network default/a is declared here and at a.yaml:7. Remove one.",
    ),
    case(
        "one name, two networks",
        [nads("    default/a: {vlan: 1, name: x}\n    lab/a: {vlan: 2, name: x}\n")],
        "a.yaml:8:5: spec.networks[lab/a]: it and default/a (a.yaml:7) are one network 'x', and differ in vlanID. Make them agree, or give one another 'name'.",
    ),
    case(
        "names that fold",
        [nads("    default/a-b: {vlan: 1}\n    default/a.b: {vlan: 2}\n")],
        "a.yaml:8:5: spec.networks[default/a.b]: the networks 'a.b' and 'a-b' (a.yaml:7) have one name in OVN, which reads '-', '.' and '/' alike (H25). Rename one.",
    ),
]

MANIFESTS = [
    case(
        "no spec",
        [N, MANIFEST[: MANIFEST.index("spec:")]],
        "b.yaml:1:1: spec: missing; expected a mapping with 'config'. Add it.",
    ),
    case(
        "no namespace in a manifest",
        [N, manifest().replace(", namespace: default", "")],
        "b.yaml:3:1: metadata.namespace: missing; expected its namespace. Add it.",
    ),
    case(
        "not json",
        [N, MANIFEST % "{"],
        "b.yaml:5:11: spec.config: is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1). Correct it.",
    ),
    case("json text", [N, MANIFEST % '"x"'], "b.yaml:5:11: spec.config: is not a JSON object. Correct it."),
    case(
        "same as a declared one",
        [nads("    default/vlan224: {vlan: 224}\n"), manifest()],
        "b.yaml:3:12: metadata.name: network default/vlan224 is declared here and at a.yaml:7. Remove one.",
    ),
    case(
        "another localnet",
        [N, manifest(physicalNetworkName="backup")],
        "b.yaml:5:11: spec.config: physicalNetworkName: no VMNetwork 'backup' is declared; found vmnet. Declare it, so that the network waits for its mapping.",
    ),
    wrong_config(
        "layer2",
        {"topology": "layer2"},
        "found type 'ovn-k8s-cni-overlay', topology 'layer2'; only 'ovn-k8s-cni-overlay' with 'localnet' is supported. Take it out of these files.",
    ),
    wrong_config(
        "macvlan",
        {"type": "macvlan"},
        "found type 'macvlan', topology 'localnet'; only 'ovn-k8s-cni-overlay' with 'localnet' is supported. Take it out of these files.",
    ),
    wrong_config(
        "topology left out",
        {"topology": None},
        "topology: it is missing, which turns the NAD into the cluster's default network. Write localnet.",
    ),
    wrong_config(
        "misspelt key",
        {"subnet": "192.0.2.0/24"},
        "subnet: OVN-Kubernetes knows no such key, and would ignore it; did you mean subnets?",
    ),
    wrong_config(
        "name of the NAD left out",
        {"netAttachDefName": None},
        "netAttachDefName: '' is not 'default/vlan224', the namespace and name of the NAD itself.",
    ),
    wrong_config(
        "another NAD's name",
        {"netAttachDefName": "lab/vlan224"},
        "netAttachDefName: 'lab/vlan224' is not 'default/vlan224', the namespace and name of the NAD itself.",
    ),
    wrong_config("vlanID 4095", {"vlanID": 4095}, "vlanID: 4095 is not a whole number from 1 to 4094."),
    wrong_config("vlanID text", {"vlanID": "224"}, 'vlanID: "224" is not a whole number from 1 to 4094.'),
    wrong_config(
        "ipam",
        {"ipam": {"type": "dhcp"}},
        "ipam: it is not supported; OVN-Kubernetes gives addresses by `subnets`.",
    ),
    wrong_config(
        "role primary",
        {"role": "primary"},
        "role: 'primary' is not possible on a localnet; it is 'secondary', or left out.",
    ),
    wrong_config(
        "joinSubnet",
        {"joinSubnet": "100.64.0.0/16"},
        "joinSubnet: it is not possible on a localnet. Remove it.",
    ),
    wrong_config(
        "network named default",
        {"name": "default"},
        "name: 'default' can't be the name of a network. Choose another.",
    ),
    wrong_config(
        "two faults",
        {"vlanID": -1, "mtu": "big"},
        'mtu: "big" is not a whole number.',
        "vlanID: -1 is not a whole number from 1 to 4094.",
    ),
    case(
        "a list of plug-ins",
        [N, MANIFEST % '{"name": "x", "plugins": [{"type": "ovn-k8s-cni-overlay", "topology": "localnet"}]}'],
        "b.yaml:5:11: spec.config: plugins: a list of plug-ins is not supported (no chaining). Write the fields of the one plug-in.",
    ),
]

ATTACHMENTS = [
    case(
        "nic as a number",
        [attached("    default/vm: {net: 224}\n")],
        "a.yaml:7:23: spec.attachments[default/vm].net: found 224 (a number), expected NAMESPACE/NAD, or {network: NAMESPACE/NAD}. Change it.",
    ),
    case(
        "nad without namespace",
        [attached("    default/vm: {net: vlan224}\n")],
        "a.yaml:7:23: spec.attachments[default/vm].net: 'vlan224' has no namespace. Write NAMESPACE/NAME, as in 'default/vlan224'.",
    ),
    case(
        "vm without namespace",
        [attached("    vm: {net: default/vlan224}\n")],
        "a.yaml:7:5: spec.attachments: 'vm' has no namespace. Write NAMESPACE/NAME, as in 'default/vm'.",
    ),
    case(
        "interface name",
        [attached("    default/vm: {net.1: default/vlan224}\n")],
        "a.yaml:7:18: spec.attachments[default/vm]: 'net.1' is not an interface name: 1 to 63 letters, digits, '_' and '-'. Rename it.",
    ),
    case(
        "network missing",
        [attached("    default/vm: {net: {mac: '02:00:00:00:00:01'}}\n")],
        "a.yaml:7:23: spec.attachments[default/vm].net: 'network' is missing: the NAD as NAMESPACE/NAME. Add it, or 'state: absent'.",
    ),
    case(
        "mac",
        [attached("    default/vm: {net: {network: default/a, mac: 02-00-00-00-00-01}}\n")],
        "a.yaml:7:49: spec.attachments[default/vm].net.mac: '02-00-00-00-00-01' is not a MAC address. Write it as in '02:00:00:00:00:01', in lower case.",
    ),
    case(
        "mac of a group",
        [attached("    default/vm: {net: {network: default/a, mac: '03:00:00:00:00:01'}}\n")],
        "a.yaml:7:49: spec.attachments[default/vm].net.mac: '03:00:00:00:00:01' is the address of a group, which no card can have. Change it.",
    ),
    case(
        "mac in base 60",
        [attached("    default/vm: {net: {network: default/a, mac: 52:54:00:12:34:56}}\n")],
        'a.yaml:7:49: spec.attachments[default/vm].net.mac: found 41135085296 (a YAML 1.1 base-60 number), expected text: quote it, as "52:54:00:12:34:56".',
    ),
    case(
        "unknown in a nic",
        [attached("    default/vm: {net: {netwrok: default/a}}\n")],
        "a.yaml:7:24: spec.attachments[default/vm].net.netwrok: unknown field; expected mac, network or state. Did you mean 'network'?",
    ),
    case(
        "one interface twice",
        [
            attached("    default/vm: {net: default/a}\n"),
            attached("    default/vm: {net: default/b}\n", "backup"),
        ],
        "b.yaml:7:18: spec.attachments[default/vm].net: this interface is declared here and at a.yaml:7. Remove one.",
    ),
    case(
        "one network twice",
        [attached("    default/vm: {one: default/a, two: default/a}\n")],
        "a.yaml:7:39: spec.attachments[default/vm].two: default/vm is on default/a by interface 'one' already, and can be only once. Remove one.",
    ),
    case(
        "to a network that goes",
        [
            network(
                more="  networks: {default/a: {state: absent}}\n  attachments: {default/vm: {net: default/a}}\n"
            )
        ],
        "a.yaml:7:35: spec.attachments[default/vm].net: network default/a is declared absent at a.yaml:6. Change one of them.",
    ),
    case(
        "attach",
        [N, rollout("  attach: reboot\n")],
        "b.yaml:5:11: spec.attach: found 'reboot', expected 'restart' or 'hotplug'. Change it.",
    ),
]

ADVERTISEMENTS = [
    case(
        "empty list",
        [network(more="  l2Advertisements: {metallb-system/l2: []}\n")],
        "a.yaml:6:41: spec.l2Advertisements[metallb-system/l2]: the list is empty, which means every interface to MetalLB (H13). Name at least one.",
    ),
    case(
        "list as text",
        [network(more="  l2Advertisements: {metallb-system/l2: br-ex}\n")],
        "a.yaml:6:41: spec.l2Advertisements[metallb-system/l2]: found 'br-ex' (text), expected a list of interfaces, as in [br-ex]. Change it.",
    ),
    case(
        "long interface",
        [network(more="  l2Advertisements: {metallb-system/l2: [br-external-12345]}\n")],
        "a.yaml:6:42: spec.l2Advertisements[metallb-system/l2][0]: 'br-external-12345' is 17 bytes; Linux interface names have at most 15. Shorten it.",
    ),
    case(
        "listed twice",
        [network(more="  l2Advertisements: {metallb-system/l2: [br-ex, br-ex]}\n")],
        "a.yaml:6:49: spec.l2Advertisements[metallb-system/l2][1]: br-ex is listed twice. Remove one.",
    ),
    case(
        "two networks, one advertisement",
        [
            network(more="  l2Advertisements: {metallb-system/l2: [br-ex]}\n"),
            network("backup", more="  l2Advertisements: {metallb-system/l2: [br-ex]}\n"),
        ],
        "b.yaml:6:22: spec.l2Advertisements[metallb-system/l2]: L2Advertisement metallb-system/l2 is declared here and at a.yaml:6. Remove one.",
    ),
]


@pytest.mark.parametrize(
    ("texts", "lines"),
    [
        *(*INTERFACE_NAMES, *LOCALNETS, *LABELS, *MTUS, *SHAPES, *FIELDS, *HEADERS, *ROLLOUTS, *BETWEEN),
        *(*NETWORKS, *MANIFESTS, *ATTACHMENTS, *ADVERTISEMENTS),
    ],
)
def test_a_broken_rule_is_named_with_its_place_and_the_way_out(texts: list[str], lines: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        load_desired([(f"{letter}.yaml", text) for letter, text in zip("abc", texts, strict=False)])
    assert str(refused.value).splitlines() == lines
