"""Commands in the containers of launchers: what virt-probe says of a guest, and whether its ping is answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers.ports import Create, Finished, MergePatch, NotFound, Ref, Refused, Unreachable
from providers.twin import TwinWorld, WorldError, init_world
from twin.worlds import NEW, carry_out, make, mapping, migrate, phase, spec, vmi

GATEWAY = "192.0.2.1"
NETWORKS = {"default/vlan224": {"localnet": "vmnet", "vlan": 224, "mtu": 9000, "gateway": GATEWAY}}
PING = ("--command", "ping", "--", "-c", "2", "-W", "1", "-t", "1", GATEWAY)


def world_with(folder: Path, guest_agent: Any, **changes: Any) -> TwinWorld:
    vms = spec()["vms"]
    for vm in vms.values():
        vm["guestAgent"] = guest_agent
    return make(folder / "world", networks=NETWORKS, vms=vms, **changes)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TwinWorld]:
    with world_with(tmp_path, True) as made:
        yield made


def launcher(world: TwinWorld, vm: str = "talker") -> Ref:
    labels = {"vm.kubevirt.io/name": vm}
    pods = world.cluster.list("v1", "Pod", namespace="default", labels=labels).items
    running = [pod for pod in pods if pod["status"].get("phase") == "Running"]
    return Ref("v1", "Pod", running[-1]["metadata"]["name"], "default")


def probe(world: TwinWorld, *args: str, vm: str = "talker", domain: str = "") -> Finished:
    argv = ("virt-probe", "--domainName", domain or f"default_{vm}", "--timeoutSeconds", "5", *args)
    return world.cluster.exec(launcher(world, vm), "compute", argv, timeout=10)


def test_a_guest_whose_path_is_whole_is_answered_by_the_gateway(world: TwinWorld) -> None:
    done = probe(world, *PING)
    assert done.rc == 0 and "2 packets transmitted, 2 received, 0% packet loss" in done.out
    connected = [
        c["status"] for c in vmi(world, "talker")["status"]["conditions"] if c["type"] == "AgentConnected"
    ]
    assert connected == ["True"]
    assert vmi(world, "talker")["status"]["guestOSInfo"]["id"] == "rhel"


def test_nobody_answers_for_another_address(world: TwinWorld) -> None:
    done = probe(world, *PING[:-1], "192.0.2.99")
    assert done.rc == 1 and "100% packet loss" in done.out


def test_a_path_that_is_cut_is_noticed(world: TwinWorld) -> None:
    world.set_nic("worker-01", "bond0", "down")
    assert probe(world, *PING).rc == 1
    world.set_nic("worker-01", "bond0", "up")
    assert probe(world, *PING).rc == 0


def test_a_switch_port_without_the_vlan_lets_nothing_through(tmp_path: Path) -> None:
    nics = {"ens33": {"vlans": [100]}, "ens34": {"vlans": [100]}}
    with world_with(
        tmp_path, True, ovn="25.03.0", nodes={"worker-01": {"nics": nics}, "worker-02": {}}
    ) as world:
        assert probe(world, *PING).rc == 0
        carry_out(world, "worker-01", mapping(NEW))
        world.tick(1)
        done = probe(world, *PING)
        assert done.rc == 1 and "100% packet loss" in done.out
        reached, why = world.reachable("default/talker")
        assert not reached and "does not carry VLAN 224" in why


def test_a_silent_guest_that_pings_is_heard(world: TwinWorld) -> None:
    world.tick(1000)
    table = world.shell("worker-01").run(["ovs-appctl", "fdb/show", "br-vmdata"], timeout=5).out
    assert "02:00:00:00:e0:0c" not in table
    assert probe(world, *PING, vm="silent").rc == 0
    assert (
        "02:00:00:00:e0:0c"
        in world.shell("worker-01").run(["ovs-appctl", "fdb/show", "br-vmdata"], timeout=5).out
    )


@pytest.mark.parametrize(
    ("guest_agent", "said"),
    [
        (False, "Guest agent is not responding"),
        ({"exec": False}, "Command guest-exec has been disabled"),
        ({"ping": False}, "Failed to execute child process"),
    ],
)
def test_an_agent_that_will_not_says_so_and_gives_no_exit_code_of_the_guest(
    guest_agent: Any, said: str, tmp_path: Path
) -> None:
    with world_with(tmp_path, guest_agent) as world:
        done = probe(world, *PING)
        assert done.rc == 2 and said in done.err and '"msg": "Failed executing the command"' in done.err
        assert probe(world, "--guestAgentPing").rc == (2 if guest_agent is False else 0)


def test_windows_says_it_in_its_own_way(tmp_path: Path) -> None:
    with world_with(tmp_path, {"os": "windows"}) as world:
        assert "TTL=" in probe(world, "--command", "ping", "--", "-n", "2", GATEWAY).out
        assert vmi(world, "talker")["status"]["guestOSInfo"]["id"] == "mswindows"


def test_a_guest_of_another_name_is_no_domain_there(world: TwinWorld) -> None:
    done = probe(world, *PING, domain="default_other")
    assert done.rc == 2 and "Domain not found" in done.err


def test_after_a_migration_the_new_launcher_answers(world: TwinWorld) -> None:
    migrate(world, "talker", "go")
    world.tick(10)
    assert phase(world, "go") == "Succeeded"
    assert vmi(world, "talker")["status"]["nodeName"] == "worker-02"
    assert probe(world, *PING).rc == 0


def test_a_command_runs_only_where_it_can(world: TwinWorld) -> None:
    pod = launcher(world)
    assert world.cluster.exec(pod, "compute", ["no-such-program"], timeout=5).rc == 127
    with pytest.raises(NotFound, match='pods "gone" not found'):
        world.cluster.exec(Ref("v1", "Pod", "gone", "default"), "compute", ["true"], timeout=5)
    with pytest.raises(Refused, match="container other is not valid for pod"):
        world.cluster.exec(pod, "other", ["true"], timeout=5)
    world.set_reachable("worker-01", False)
    with pytest.raises(Unreachable, match="worker-01"):
        world.cluster.exec(pod, "compute", ["virt-probe"], timeout=5)


def test_other_pods_have_no_virt_probe(world: TwinWorld) -> None:
    ref = Ref("v1", "Pod", "web", "default")
    body = {"spec": {"nodeName": "worker-01", "containers": [{"name": "compute", "image": "none"}]}}
    world.cluster.write(Create(ref, body))
    assert world.cluster.exec(ref, "compute", ["virt-probe"], timeout=5).rc == 127
    world.cluster.write(MergePatch(ref, {"status": {"phase": "Succeeded"}}, subresource="status"))
    with pytest.raises(Unreachable, match="container not found"):
        world.cluster.exec(ref, "compute", ["virt-probe"], timeout=5)


@pytest.mark.parametrize(
    ("guest_agent", "said"),
    [("maybe", "expected on or off"), ({"os": "beos"}, "linux or windows"), ({"other": 1}, "unknown field")],
)
def test_a_world_file_says_what_an_agent_is(guest_agent: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(WorldError, match=said):
        world_with(tmp_path, guest_agent)


def test_a_world_file_says_which_vlans_a_switch_port_carries(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="expected a list of VLANs"):
        init_world(
            spec(nodes={"worker-01": {"nics": {"ens33": {"vlans": 100}}}, "worker-02": {}}), tmp_path / "w"
        )
