"""Whole applies in a twin whose guests can be asked: what a ping from inside notices, and what it does not decide."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from crash.lives import Ended, Job, job_of
from crash.others import small_world

GATEWAY = "192.0.2.1"
NETWORK = f"""\
apiVersion: ovsplan.io/v1alpha1
kind: VMNetwork
metadata: {{name: vmnet}}
spec:
  bridge: br-phy
  replaces: {{bridge: br-vmdata}}
  networks: {{default/vlan224: {{vlan: 224, mtu: 9000, gateway: {GATEWAY}}}}}
"""
ROLLOUT = """\
apiVersion: ovsplan.io/v1alpha1
kind: Rollout
metadata: {name: tonight}
spec: {order: [worker-01, worker-02]%s}
"""
HOT, COLD = "", ", evacuate: {}"
WITHOUT_THE_VLAN = {nic: {"vlans": [100]} for nic in ("ens33", "ens34")}
"""The switch ports of br-phy's bond, where nobody let the VMs' VLAN in."""

KILLED = -signal.SIGKILL


def job(
    folder: Path, rollout: str, guest_agent: Any = True, *, answers: str = GATEWAY, nics: Any = None
) -> Job:
    """A job in a world whose VMs have guest agents; `nics`: of worker-01."""
    network = {"localnet": "vmnet", "vlan": 224, "mtu": 9000, "gateway": answers}
    spec = small_world(networks={"default/vlan224": network})
    for vm in spec["vms"].values():
        vm["guestAgent"] = guest_agent
    if nics:
        spec["nodes"]["worker-01"] = {"nics": nics}
    return job_of(folder / "job", spec, {"network.yaml": NETWORK, "rollout.yaml": ROLLOUT % rollout})


def pinged(made: Job) -> list[str]:
    return [call.text.split()[1] for call in made.log() if call.verb == "exec"]


def plain(text: str) -> str:
    """A screen's text on one line."""
    return " ".join(text.split())


def done(made: Job) -> Ended:
    ended = made.apply()
    assert ended.code == 0, ended.text
    with made.world() as world:
        shown = world.show()
        assert all(world.reachable(vm)[0] for vm in shown["vms"])
        assert not any("br-vmdata" in node["bridges"] for node in shown["nodes"].values())
    return ended


def test_hot_every_guest_asks_before_the_move_and_after_it(tmp_path: Path) -> None:
    made = job(tmp_path, HOT)
    assert f"a ping of {GATEWAY} by the guest agents of default/silent-1, default/talker-1" in plain(
        made.run("plan").out
    )
    ended = done(made)
    assert f"the gateway answers default/silent-1 ({GATEWAY}), default/talker-1 ({GATEWAY})" in plain(
        ended.out
    )
    assert len(pinged(made)) == 2 * len(small_world()["vms"])


def test_hot_a_vlan_that_the_new_switch_ports_lack_is_caught_while_there_is_a_way_back(
    tmp_path: Path,
) -> None:
    made = job(tmp_path, HOT, nics=WITHOUT_THE_VLAN)
    ended = made.apply()
    assert ended.code == 3, ended.text
    assert (
        f"answered the ping of default/silent-1 ({GATEWAY}), default/talker-1 ({GATEWAY}) before the move and does not now"
        in plain(ended.err)
    )
    with made.world() as world:
        node = world.show()["nodes"]["worker-01"]
        assert node["cordoned"] and "br-vmdata" in node["bridges"]
        assert "vmnet:br-vmdata" in world.show()["nodes"]["worker-02"]["mapping"]


def test_without_guest_agents_what_the_node_hears_is_all_that_is_known(tmp_path: Path) -> None:
    """Why pings are worth it: nothing on the node tells a VLAN that goes no further than the cable."""
    made = job(tmp_path, HOT, False, nics=WITHOUT_THE_VLAN)
    ended = made.apply()
    assert ended.code == 0, ended.text
    assert pinged(made) == []


@pytest.mark.parametrize("rollout", [HOT, COLD], ids=["hot", "cold"])
@pytest.mark.parametrize(
    ("guest_agent", "why"),
    [
        ({"exec": False}, "Command guest-exec has been disabled"),
        ({"ping": False}, "Failed to execute child process"),
    ],
)
def test_a_guest_that_runs_no_commands_leaves_it_to_the_node(
    guest_agent: Any, why: str, rollout: str, tmp_path: Path
) -> None:
    made = job(tmp_path, rollout, guest_agent)
    ended = done(made)
    assert why in ended.out and "seen: " in ended.out
    assert "not proven" not in made.run("status").out


def test_a_gateway_that_was_silent_before_proves_nothing(tmp_path: Path) -> None:
    ended = done(job(tmp_path, HOT, answers="192.0.2.254"))
    assert "a gateway that does not answer before the move proves nothing: default/silent-1" in plain(
        ended.out
    )


def test_cold_the_vms_ask_as_they_return(tmp_path: Path) -> None:
    made = job(tmp_path, COLD)
    ended = done(made)
    assert plain(ended.out).count(f"the gateway answers default/silent-1 ({GATEWAY})") == 2
    assert "worker-01/ping-returned" in ended.out or "ping-returned" in ended.out


def test_cold_the_first_vm_that_returns_to_a_path_without_its_vlan_is_moved_out_again(tmp_path: Path) -> None:
    made = job(tmp_path, COLD, nics=WITHOUT_THE_VLAN)
    ended = made.apply()
    assert ended.code == 3, ended.text
    assert (
        f"default/silent-1 returned, and the gateway answered the ping of default/silent-1 ({GATEWAY}) before"
        in plain(ended.err)
    )
    with made.world() as world:
        shown = world.show()
        assert shown["nodes"]["worker-01"]["cordoned"]
        assert {vm["node"] for vm in shown["vms"].values()} == {"worker-02"}
        assert all(world.reachable(vm)[0] for vm in shown["vms"])


def test_windows_guests_are_asked_in_their_own_words(tmp_path: Path) -> None:
    made = job(tmp_path, HOT, {"os": "windows"})
    ended = done(made)
    assert f"the gateway answers default/silent-1 ({GATEWAY})" in plain(ended.out)
    assert all(" -n 2 -w 1000 " in call.text for call in made.log() if call.verb == "exec")


@pytest.mark.parametrize("rollout", [HOT, COLD], ids=["hot", "cold"])
@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize("effect", ["kill", "kill-after"])
def test_killed_while_it_asks_the_next_apply_asks_again(
    effect: str, nth: int, rollout: str, tmp_path: Path
) -> None:
    made = job(tmp_path, rollout)
    made.fault("cluster * exec *", nth, effect)
    assert made.apply().code == KILLED
    done(made)


@pytest.mark.parametrize("effect", ["fail", "lose-reply"])
def test_a_command_that_is_lost_on_its_way_is_no_failure(effect: str, tmp_path: Path) -> None:
    made = job(tmp_path, HOT)
    made.fault("cluster * exec *", 1, effect)
    ended = done(made)
    assert "cannot tell by a ping of default/silent-1" in plain(ended.out)
