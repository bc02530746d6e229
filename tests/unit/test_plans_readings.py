"""Readings: what the answers of the world mean, and that an answer without a meaning is unknown, never a guess."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest
from support.switches import LSP, OUTER, patch, rows
from twin.nmstate_worlds import SAMPLES

from plans.facts import ABSENT, Fact, Facts, Known, Unknown
from plans.ops import CommandRequest
from plans.readings import NoReply, reading, view_of
from plans.readings.cluster import quantity

NOW = 1_768_438_800.0


def read(view: str, *replies: Any) -> Facts:
    return Facts(reading(view, NOW).facts(replies))


VIEWS = {
    "nodes": ("cluster/nodes", "node/worker-01"),
    "node:w": ("node/w/ready", "node/w/unschedulable", "node/w/resource-version"),
    "vms": ("cluster/vms", "cluster/vms/by-namespace"),
    "vm:default/web-1": ("vm/default/web-1", "vm/default/web-1/node"),
    "networks": ("cluster/networks", "network/default/vlan224"),
    "migrations": ("cluster/migrating/default/web-1",),
    "migration:default/m": ("migration/default/m/phase",),
    "policies": ("cluster/nmstate", "cluster/policies"),
    "policy:vmnet": ("cluster/nmstate", "policy/vmnet", "policy/vmnet/editable"),
    "enactment:w/vmnet": ("cluster/nmstate", "enactment/w/vmnet/state"),
    "boot:w": ("node/w/boot/id", "node/w/boot/note", "node/w/boot/state"),
    "daemons:w": ("node/w/daemons", "node/w/daemon/multus"),
    "enactments:w": ("node/w/enacted", "node/w/enacted/vmnet", "node/w/enacting"),
    "ovs:w": ("node/w/ovs", "node/w/ovs/mapping/vmnet", "node/w/ovs/bridge/br-phy", "node/w/ovs/ovn-uptime"),
    "ovn:w": ("node/w/ovn/version",),
    "dp:w": ("node/w/dp/ens33",),
    "fdb:w:br-phy": ("node/w/fdb/br-phy",),
    "images": ("cluster/images",),
    "launchers:w": ("node/w/launchers",),
    "profiles:w": ("node/w/profiles",),
    "ping:w:192.0.2.1": ("node/w/ping/192.0.2.1",),
    "ping:w:2001:db8::1": ("node/w/ping/2001:db8::1",),
    "dns:w:root-servers.net:2001:db8::1": ("node/w/dns/2001:db8::1/root-servers.net",),
    "nmstate-probe": ("cluster/nmstate-probe",),
    "budgets:w": ("node/w/budgets", "node/w/over-budget"),
}


@pytest.mark.parametrize("view", VIEWS)
def test_what_could_not_be_asked_is_unknown_with_the_reason(view: str) -> None:
    wanted = reading(view, NOW)
    facts = Facts(wanted.facts([NoReply("no route to host")] * len(wanted.requests)))
    assert [facts.get(path) for path in VIEWS[view]] == [Unknown("no route to host")] * len(VIEWS[view])


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("nonsense", [[{"surprise": 1}], {"Bridge": 7}, None])
def test_an_answer_that_makes_no_sense_is_unknown_and_not_absent(view: str, nonsense: Any) -> None:
    wanted = reading(view, NOW)
    if nonsense is None and all(getattr(request, "optional", False) for request in wanted.requests):
        nonsense = 3  # null is an answer there: nobody serves that kind
    facts = Facts(wanted.facts([nonsense] * len(wanted.requests)))
    for path in VIEWS[view]:
        fact = facts.get(path)
        assert isinstance(fact, Unknown) and fact.why.startswith("unexpected answer: "), path


@pytest.mark.parametrize("view", VIEWS)
def test_a_wait_knows_which_view_tells_a_path(view: str) -> None:
    told = {view_of(path) for path in VIEWS[view]}
    assert told <= {view, "nodes", "policies"} and view in told


@pytest.mark.parametrize("view", ["vms", "vms:w"])
def test_all_vms_and_those_of_one_node_are_unknown_together(view: str) -> None:
    facts = read(view, NoReply("no route to host"), [node("w")])
    paths = ("cluster/vms", "vm/default/web-1", "node/w/vms")
    assert [facts.get(path) for path in paths] == [Unknown("no route to host")] * 3


def test_the_object_of_one_node_tells_of_it_what_the_list_of_all_does() -> None:
    mine = node("w", cordoned=True, by="run-1")
    alone, among = read("node:w", [mine]), read("nodes", [], [node("v"), mine])
    told = [path for path, _ in among.items() if path.startswith("node/w")]
    assert len(told) > 5 and [alone.get(path) for path in told] == [among.get(path) for path in told]
    assert read("node:w", []).get("node/w/unschedulable") == ABSENT


def test_a_view_that_nobody_declared_is_refused() -> None:
    with pytest.raises(ValueError, match="no view 'weather'"):
        reading("weather", NOW)


@pytest.mark.parametrize(
    ("text", "size"), [("64Gi", 64 * 2**30), ("1500M", 1_500_000_000), ("2k", 2000), (7, 7), ("0.5Ki", 512)]
)
def test_quantities_of_memory(text: Any, size: int) -> None:
    assert quantity(text) == size


def node(name: str, *, ready: str = "True", cordoned: bool = False, by: str | None = None) -> Any:
    metadata: dict[str, Any] = {"name": name, "labels": {"zone": "a"}, "resourceVersion": "7"}
    if by:
        metadata["annotations"] = {"ovsplan.io/cordoned-by": by}
    status = {"conditions": [{"type": "Ready", "status": ready}], "allocatable": {"memory": "1Gi"}}
    return {"metadata": metadata, "spec": {"unschedulable": True} if cordoned else {}, "status": status}


def test_a_cordon_of_ours_is_told_from_somebody_elses() -> None:
    facts = read("nodes", [], [node("a", cordoned=True), node("b", cordoned=True, by="run-1"), node("c")])
    assert facts.value("cluster/cordoned") == ["a", "b"]
    assert (facts.get("node/a/cordoned-by"), facts.get("node/b/cordoned-by")) == (ABSENT, Known("run-1"))


def test_the_object_of_a_node_tells_nothing_of_its_switch() -> None:
    facts = read("nodes", [], [node("a")])
    assert facts.get("node/a/ovs/mapping/vmnet") == Unknown("nobody asked a")
    assert facts.get("node/b/ovs/mapping/vmnet") == ABSENT


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_a_node_whose_kubelet_is_silent_is_not_ready(status: str) -> None:
    assert read("nodes", [], [node("a", ready=status), node("b")]).value("cluster/not-ready") == ["a"]


def lease(name: str, at: float | None) -> Any:
    renewed = {"renewTime": datetime.fromtimestamp(at, UTC).isoformat()} if at is not None else {}
    return {"metadata": {"name": name}, "spec": renewed}


def renewed(**at: float) -> list[Any]:
    return [lease(name, at[name]) for name in at]


STALE = "its Lease is {} s older than those of others: its kubelet is silent, or its clock is behind"


def test_a_node_whose_lease_is_older_than_the_others_is_suspected_and_taken_at_its_word() -> None:
    facts = read("nodes", renewed(a=NOW, b=NOW - 41, c=NOW - 9), [node("a"), node("b"), node("c")])
    assert [facts.value(f"node/{name}/ready") for name in "abc"] == [True, True, True]
    assert facts.value("cluster/not-ready") == []
    assert facts.value("cluster/kubelets") == {"b": STALE.format(41)}


def test_leases_are_compared_with_each_other_and_not_with_our_clock() -> None:
    facts = read("nodes", renewed(a=NOW - 86_400, b=NOW - 86_430), [node("a"), node("b")])
    assert facts.value("cluster/kubelets") == {}


def test_the_clock_of_one_node_alone_may_run_ahead() -> None:
    facts = read("nodes", renewed(a=NOW + 600, b=NOW, c=NOW - 9), [node("a"), node("b"), node("c")])
    assert facts.value("cluster/kubelets") == {}


def test_a_heartbeat_tells_how_old_a_lease_is_too() -> None:
    heard = node("b")
    heard["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-01-15T01:00:00Z"
    facts = read("nodes", renewed(a=NOW - 60), [node("a"), heard])
    assert facts.value("cluster/kubelets") == {"a": STALE.format(60)}


def test_a_node_without_a_lease_is_taken_at_its_word() -> None:
    facts = read("nodes", [*renewed(a=NOW), lease("c", NOW)], [node("a"), node("b"), node("c")])
    assert facts.value("node/b/ready") is True


@pytest.mark.parametrize(
    ("leases", "why"),
    [(NoReply("forbidden"), "forbidden"), ([], "no node has a Lease in namespace kube-node-lease")],
)
def test_without_leases_a_node_is_taken_at_its_word_and_that_is_said(leases: Any, why: str) -> None:
    facts = read("nodes", leases, [node("a"), node("b", ready="False")])
    assert (facts.value("node/a/ready"), facts.value("cluster/not-ready")) == (True, ["b"])
    assert facts.get("cluster/kubelets") == Unknown(why)


def nad(name: str, config: Any) -> Any:
    text = config if isinstance(config, str) else json.dumps(config)
    return {"metadata": {"namespace": "default", "name": name}, "spec": {"config": text}}


def test_of_networks_only_localnets_concern_us() -> None:
    localnet = {"name": "net", "topology": "localnet", "physicalNetworkName": "vmnet", "vlanID": 224}
    facts = read(
        "networks",
        [nad("a", localnet), nad("b", {"type": "macvlan"}), nad("c", "{nonsense"), nad("d", "[]")],
    )
    assert facts.value("cluster/networks") == ["default/a"]
    assert facts.value("network/default/a") == {"name": "net", "localnet": "vmnet", "vlan": 224, "mtu": None}
    assert facts.get("network/default/b") == ABSENT
    assert facts.get("network/default/c") == Unknown("spec.config is not JSON")


def test_a_localnet_without_a_physical_name_is_called_as_its_network() -> None:
    facts = read("networks", [nad("a", {"name": "vmnet", "topology": "localnet"})])
    assert facts.value("network/default/a") == {"name": "vmnet", "localnet": "vmnet", "vlan": 0, "mtu": None}


def vmi(name: str, **status: Any) -> Any:
    devices = {"interfaces": [{"name": "default"}, {"name": "net", "macAddress": "02:00:00:00:00:AA"}]}
    networks = [{"name": "default", "pod": {}}, {"name": "net", "multus": {"networkName": "vlan224"}}]
    spec = {"domain": {"memory": {"guest": "2Gi"}, "devices": devices}, "networks": networks}
    metadata = {"namespace": "shop", "name": name, "uid": f"uid-{name}"}
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Running", "nodeName": "a", **status}}


def test_a_vms_attachments_by_namespace_and_with_the_mac_that_is_reported() -> None:
    reported = [{"name": "net", "mac": "02:00:00:00:00:BB"}]
    facts = read("vms", [vmi("one"), vmi("two", interfaces=reported)], [node("a"), node("b")])
    assert facts.value("vm/shop/one")["macs"] == [
        {"interface": "net", "nad": "shop/vlan224", "mac": "02:00:00:00:00:aa"}
    ]
    assert facts.value("vm/shop/two")["macs"][0]["mac"] == "02:00:00:00:00:bb"
    assert (facts.value("node/a/vms"), facts.value("node/b/vms")) == (["shop/one", "shop/two"], [])


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_vm_that_is_over_runs_nowhere(phase: str) -> None:
    facts = read("vms", [vmi("one", phase=phase)], [node("a")])
    assert (facts.get("vm/shop/one/node"), facts.value("node/a/vms")) == (ABSENT, [])


def test_why_a_vm_cannot_migrate_is_kept_as_kubevirt_says_it() -> None:
    condition = {
        "type": "LiveMigratable",
        "status": "False",
        "reason": "DisksNotLiveMigratable",
        "message": "PVC a",
    }
    able = {"type": "LiveMigratable", "status": "True"}
    facts = read(
        "vms", [vmi("one", conditions=[condition]), vmi("two", conditions=[able]), vmi("new")], [node("a")]
    )
    assert facts.value("vm/shop/one")["migratable"] == "DisksNotLiveMigratable: PVC a"
    assert facts.value("vm/shop/two")["migratable"] is True
    assert facts.value("vm/shop/new")["migratable"] == "KubeVirt has not said whether it can"


def test_a_migration_that_has_no_phase_yet_is_pending() -> None:
    item = {"metadata": {"namespace": "shop", "name": "m"}, "spec": {"vmiName": "one"}}
    failed = {"phase": "Failed", "migrationState": {"failureReason": "no room"}}
    facts = read(
        "migrations", [item, {**item, "metadata": {"namespace": "shop", "name": "n"}, "status": failed}]
    )
    assert facts.value("migration/shop/m/phase") == "Pending"
    assert facts.value("migration/shop/n") == {"vmi": "one", "reason": "no room"}
    assert facts.get("migration/shop/o/phase") == ABSENT


def _switch(**external: str) -> dict[str, Any]:
    root = {"_uuid": ["uuid", "r"], "external_ids": ["map", []], "next_cfg": 1, "cur_cfg": 1}
    bridge = {
        "_uuid": ["uuid", "b"],
        "name": "br-int",
        "ports": ["set", []],
        "external_ids": ["map", list(external.items())],
    }
    return {"Open_vSwitch": [root], "Bridge": [bridge], "Port": [], "Interface": []}


def test_ovn_tells_its_version() -> None:
    facts = read("ovn:w", "ovn-controller 23.03.1\nOpen vSwitch Library 3.1.0\n")
    assert facts.value("node/w/ovn/version") == "23.03.1"
    assert read("ovn:w", "what?").get("node/w/ovn/version") == Unknown("no version in 'what?'")


def test_the_switch_tells_when_ovn_started() -> None:
    started = {"ovn-startup-ts": str(int((NOW - 12) * 1000))}
    assert read("ovs:w", _switch(**started)).value("node/w/ovs/ovn-uptime") == 12.0


def test_an_ovn_that_has_not_written_its_start_is_of_unknown_age() -> None:
    assert isinstance(read("ovs:w", _switch()).get("node/w/ovs/ovn-uptime"), Unknown)


FDB = """\
 port  VLAN  MAC                Age
    3   224  02:00:00:00:E0:0B    7
LOCAL     0  0a:00:00:00:00:01    1
   99   224  02:00:00:00:e0:ff    ?
"""


def test_a_forwarding_table_speaks_of_ports_by_name() -> None:
    tables = rows(
        {"br-phy": {OUTER: [patch(OUTER, "x", ofport=3)], "br-phy": [patch("br-phy", "y", ofport=65534)]}}
    )
    facts = read("fdb:w:br-phy", FDB, tables)
    assert facts.value("node/w/fdb/br-phy") == [
        ["99", 224, "02:00:00:00:e0:ff"],
        ["br-phy", 0, "0a:00:00:00:00:01"],
        [OUTER, 224, "02:00:00:00:e0:0b"],
    ]
    assert facts.value("node/w/fdb/br-phy/ages") == [
        ["br-phy", 0, "0a:00:00:00:00:01", 1],
        [OUTER, 224, "02:00:00:00:e0:0b", 7],
    ]


def test_a_switch_is_read_from_its_four_tables() -> None:
    facts = read("ovs:w", rows({"br-phy": {OUTER: [patch(OUTER, "x")]}}, "vmnet:br-phy"))
    assert facts.value(f"node/w/ovs/patch/{LSP}") == "br-phy"
    assert facts.value("node/w/ovs/mapping/vmnet") == "br-phy"


UUID = "1c7d9e0a-3f52-4b86-9d3e-0a5b7c8d9e0f"


def test_the_profiles_of_a_node_are_told_by_their_uuids() -> None:
    facts = read("profiles:w", f"{UUID}\n0{UUID[1:]}\n")
    assert facts.get("node/w/profiles") == Known([f"0{UUID[1:]}", UUID])


def test_a_networkmanager_without_any_profile_is_not_believed() -> None:
    assert isinstance(read("profiles:w", "\n").get("node/w/profiles"), Unknown)


@pytest.mark.parametrize(
    ("told", "answers"),
    [
        ("1 packets transmitted, 1 received, 0% packet loss, time 0ms", True),
        ("1 packets transmitted, 0 received, 100% packet loss, time 0ms", False),
        ("1 packets transmitted, 0 received, +1 errors, 100% packet loss, time 0ms", False),
        ("1 packets transmitted, 1 packets received, 0% packet loss", True),
    ],
)
def test_a_ping_says_whether_anybody_answered(told: str, answers: bool) -> None:
    assert read("ping:w:192.0.2.1", told).get("node/w/ping/192.0.2.1") == Known(answers)


ANSWERS = {
    "thirteen of them": ("6f 76 81 80 00 01 00 0d 00 00 00 00", Known(True)),
    "no such name": ("6f 76 81 83 00 01 00 00 00 01 00 00", Known(False)),
    "refused": ("6f 76 81 85 00 01 00 00 00 00 00 00", Known(False)),
    "silence": ("", Known(False)),
}


@pytest.mark.parametrize(("head", "told"), ANSWERS.values(), ids=ANSWERS)
def test_the_head_of_an_answer_says_whether_a_name_server_told_a_name(head: str, told: Fact) -> None:
    assert read("dns:w:example.com:192.0.2.53", f" {head}\n").get("node/w/dns/192.0.2.53/example.com") == told


@pytest.mark.parametrize(
    "head", ["6f 76 81 80 00 01 00 00 00 00 00 00", "aa aa 81 80 00 01 00 01 00 00 00 00", "6f"]
)
def test_what_is_no_answer_to_the_question_is_no_no(head: str) -> None:
    fact = read("dns:w:example.com:192.0.2.53", f" {head}\n").get("node/w/dns/192.0.2.53/example.com")
    assert isinstance(fact, Unknown)


@pytest.mark.parametrize(
    ("spec", "name"),
    [({}, "root-servers.net"), ({"probeConfiguration": {"dns": {"host": "example.com"}}}, "example.com")],
)
def test_the_name_that_handlers_ask_for_is_of_the_nmstate_object(spec: dict[str, Any], name: str) -> None:
    told = [{"metadata": {"name": "nmstate"}, "spec": spec}]
    assert read("nmstate-probe", told).get("cluster/nmstate-probe") == Known(name)
    (request,) = reading(f"dns:w:{name}:192.0.2.53", NOW).requests
    assert isinstance(request, CommandRequest)
    question = base64.b64decode(request.argv[-1])
    assert b"\3net\0\0\2\0\1" in question or b"\7example\3com\0\0\1\0\1" in question


def test_a_name_server_that_is_there_is_asked_by_no_more_than_bash_and_coreutils() -> None:
    """The real command, on port 53 of an address where nobody is: it ends, and says that nothing came."""
    (request,) = reading("dns:w:root-servers.net:127.0.0.1", NOW).requests
    assert isinstance(request, CommandRequest)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        argv = [word.replace("$1/53", f"$1/{server.getsockname()[1]}") for word in request.argv]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as asked:
            question, back = server.recvfrom(512)
            server.sendto(question[:2] + b"\x81\x80\0\1\0\x0d\0\0\0\0" + question[12:], back)
            told = asked.communicate(timeout=10)[0]
    assert read("dns:w:root-servers.net:127.0.0.1", told).get(
        "node/w/dns/127.0.0.1/root-servers.net"
    ) == Known(True)


def state_of(*routes: dict[str, Any]) -> Any:
    status = {
        "handlerNmstateVersion": "nmstatectl 2.2.62",
        "currentState": {"routes": {"running": [*routes]}},
    }
    return [{"metadata": {"name": "w"}, "status": status}]


def test_the_gateway_is_the_default_routes_of_the_main_table() -> None:
    other = {"destination": "0.0.0.0/0", "next-hop-address": "192.0.2.9", "table-id": 100}
    near = {"destination": "192.0.2.0/24", "next-hop-address": "", "table-id": 254}
    out = {"destination": "0.0.0.0/0", "next-hop-address": "192.0.2.1", "table-id": 254}
    facts = read("nmstate-versions", state_of(other, near, out), [node("w")])
    assert facts.get("node/w/nmstate/gateway") == Known("192.0.2.1")
    alone = read("nmstate-versions", state_of(other, near), [node("w")])
    assert alone.get("node/w/nmstate/gateway") == ABSENT


def test_a_node_whose_handler_does_not_report_is_told_from_one_that_nobody_could_ask_about() -> None:
    facts = read("nmstate-versions", state_of(), [node("w"), node("v")])
    told = [facts.get(f"node/{name}/nmstate/version") for name in "wv"]
    assert told == [Known("2.2.62"), ABSENT]
    unasked = read("nmstate-versions", NoReply("forbidden"), [node("w")])
    paths = ("cluster/nmstate-nodes", "node/w/nmstate/version", "node/w/nmstate/gateway")
    assert [unasked.get(path) for path in paths] == [Unknown("forbidden")] * 3


@pytest.mark.parametrize(
    ("sample", "generation", "said"),
    [
        ("a-nnce-retrying", 1, Known("attempt 1 of 5 failed, its handler tries again")),
        ("a-nnce-retrying", 2, ABSENT),
        ("a-nnce-available", 1, ABSENT),
        ("c-3-nnce-exhausted", 1, ABSENT),
    ],
)
def test_a_failed_attempt_is_told_while_the_handler_tries_again_only(
    sample: str, generation: int, said: Fact
) -> None:
    """The real handler's objects: the count outlives a success."""
    enactment = {"metadata": {"name": "node1.p"}, "status": SAMPLES[sample]["status"]}
    policy = {"metadata": {"name": "p", "generation": generation}}
    assert read("enactment:node1/p", [policy], [enactment]).get("enactment/node1/p/setback") == said


@pytest.mark.parametrize(
    ("more", "used"),
    [
        ({}, None),
        ({"controller": "bond0"}, "a port of bond0"),
        ({"ipv4": {"address": [{"ip": "192.0.2.7", "prefix-length": 24}]}}, "the node's address 192.0.2.7"),
        ({"ipv6": {"address": [{"ip": "fe80::1", "prefix-length": 64}]}}, None),
    ],
)
def test_what_rides_on_a_nic_is_told(more: dict[str, Any], used: str | None) -> None:
    nic = {"name": "ens33", "type": "ethernet", "state": "up", "mtu": 1500, **more}
    found = read("nics:w", [{"status": {"currentState": {"interfaces": [nic]}}}]).value("node/w/nics")
    assert found["ens33"].get("used") == used


@pytest.mark.parametrize(
    ("above", "used"),
    [
        (
            {"type": "mac-vlan", "mac-vlan": {"base-iface": "ens33", "mode": "bridge"}},
            "mac-vlan top0 is on it",
        ),
        ({"type": "ipvlan", "ipvlan": {"base-iface": "ens33", "mode": "l2"}}, "ipvlan top0 is on it"),
        ({"type": "vlan", "vlan": {"base-iface": "ens33", "id": 7}}, None),
        ({"type": "mac-vlan", "mac-vlan": {"base-iface": "ens34", "mode": "bridge"}}, None),
    ],
)
def test_what_takes_all_that_a_nic_receives_is_told(above: dict[str, Any], used: str | None) -> None:
    nics = [{"name": name, "type": "ethernet", "state": "up", "mtu": 1500} for name in ("ens33", "ens34")]
    state = [*nics, {"name": "top0", "state": "up", "mtu": 1500, **above}]
    found = read("nics:w", [{"status": {"currentState": {"interfaces": state}}}]).value("node/w/nics")
    assert found["ens33"].get("used") == used


def pod(name: str, phase: str = "Running", *, node: str = "w", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", **more.pop("metadata", {})}
    return {"metadata": metadata, "spec": {"nodeName": node, **more}, "status": {"phase": phase}}


def owned_by(vmi: str) -> dict[str, Any]:
    return {"ownerReferences": [{"kind": "VirtualMachineInstance", "name": vmi}]}


def test_of_a_vm_that_migrates_the_launcher_that_runs_here_is_told() -> None:
    going = {**owned_by("going"), "deletionTimestamp": "2026-01-15T01:00:00Z"}
    pods = [
        pod("old", "Succeeded", metadata=owned_by("web")),
        pod("new", metadata=owned_by("web")),
        pod("going-a", metadata=going),
        pod("no-vm"),
    ]
    assert read("launchers:w", pods).value("node/w/launchers") == {"default/web": "new"}


def test_an_image_is_of_a_pod_that_runs_and_of_the_container_that_has_the_programs() -> None:
    def of(container: str, image: str) -> list[dict[str, str]]:
        return [{"name": "kube-rbac-proxy", "image": "proxy"}, {"name": container, "image": image}]

    ovn = [pod("ovn-w", containers=of("ovn-controller", "ovn:1")), pod("ovn-x", "Pending", node="x", containers=of("ovn-controller", "ovn:1"))]  # fmt: skip
    multus = [pod(f"multus-{node}", node=node, containers=of("kube-multus", "multus:1")) for node in "wx"]
    assert read("images", ovn, multus).value("cluster/images") == {
        "w": {"image": "ovn:1", "pod": "default/ovn-w"},
        "x": {"image": "multus:1", "pod": "default/multus-x"},
    }


@pytest.mark.parametrize(
    ("connected", "system", "told"),
    [
        ("True", "rhel", "linux"),
        ("True", "", "linux"),
        ("True", "mswindows", "windows"),
        ("False", "rhel", None),
    ],
)
def test_a_guest_agent_is_told_while_it_is_connected_with_the_system_it_runs_on(
    connected: str, system: str, told: str | None
) -> None:
    status = {
        "phase": "Running",
        "nodeName": "w",
        "conditions": [{"type": "AgentConnected", "status": connected}],
        "guestOSInfo": {"id": system},
    }
    vmi = {"metadata": {"name": "web", "namespace": "default", "uid": "u"}, "spec": {}, "status": status}
    found = read("vms", [vmi], []).value("vm/default/web")
    assert found is not None and found.get("guest_agent") == told


@pytest.mark.parametrize("host", ["a..b", f"{'x' * 64}.example"])
def test_a_name_that_is_none_is_not_asked_for(host: str) -> None:
    told = [{"metadata": {"name": "nmstate"}, "spec": {"probeConfiguration": {"dns": {"host": host}}}}]
    fact = read("nmstate-probe", told).get("cluster/nmstate-probe")
    assert isinstance(fact, Unknown) and host in fact.why
