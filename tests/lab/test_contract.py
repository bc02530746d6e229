"""What the twin claims about Open vSwitch and OVN, asked of the twin and of the real daemons in the same words.

Invariant: a test here reaches its site through the ports; only whether a frame arrives is asked elsewhere, as no port
tells it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from providers.ports import World
from providers.twin import init_world, open_world

from .conftest import WORLD
from .wiring import rarp

pytestmark = pytest.mark.lab

NODE, VM, MAC, VLAN = "worker-01", "default/quiet-1", "02:00:00:00:e0:0c", 224
DB, ROOT, KEY = "Open_vSwitch", "Open_vSwitch", "ovn-bridge-mappings"
OLD = "physnet:br-ex,vmnet:br-vmdata,storage:br-storage"
NEW = "physnet:br-ex,vmnet:br-phy,storage:br-storage"
OUTER = "patch-vlan224_ovn_localnet_port-to-br-int"
INNER = "patch-br-int-to-vlan224_ovn_localnet_port"
STALE = {"error": "timed out", "details": '"where" clause test failed'}


@dataclass(frozen=True)
class Site:
    """A world that is, or should be like, a node with OVS 3.1 and OVN 23.03.

    `steady` waits until ovn-controller's start is over, `quiet` also until it has announced what it announces.
    """

    world: World
    reachable: Callable[[], bool]
    steady: Callable[[], None]
    quiet: Callable[[], None]

    def transact(self, *operations: dict[str, Any]) -> list[Any]:
        return self.world.ovsdb(NODE).transact(DB, operations, timeout=5)

    def commit(self, *operations: dict[str, Any]) -> list[Any]:
        """A transaction in which nothing may fail, and which ovs-vswitchd has carried out when this returns."""
        bump = {"op": "mutate", "table": ROOT, "where": [], "mutations": [["next_cfg", "+=", 1]]}
        results = self.transact(*operations, bump)
        assert not [result for result in results if result and "error" in result]
        self.until(lambda: self.root()["cur_cfg"] >= self.root()["next_cfg"], "ovs-vswitchd catches up")
        return results

    def rows(self, table: str, *conditions: list[Any]) -> list[dict[str, Any]]:
        select = {"op": "select", "table": table, "where": list(conditions)}
        return list(self.transact(select)[0]["rows"])

    def root(self) -> dict[str, Any]:
        return self.rows(ROOT)[0]

    def external_ids(self) -> dict[str, str]:
        return dict(self.root()["external_ids"][1])

    def bridge_of(self, port: str) -> str | None:
        found = self.rows("Port", ["name", "==", port])
        bridges = self.rows("Bridge", ["ports", "includes", found[0]["_uuid"]]) if found else []
        return bridges[0]["name"] if bridges else None

    def in_service(self, port: str) -> bool:
        rows = self.rows("Interface", ["name", "==", port])
        return bool(rows) and rows[0]["error"] == ["set", []] and rows[0]["ofport"] not in (["set", []], -1)

    def until(self, condition: Callable[[], bool], what: str, *, every: float = 0.01) -> None:
        clock = self.world.clock
        end = clock.now() + 10
        while not condition():
            assert clock.now() < end, f"not within 10 s: {what}"
            clock.wait_until(clock.now() + every)

    def await_service(self) -> None:
        """Both ends of the patch work and say so.

        When the port comes back within the same instant, ovs-vswitchd may keep its peer's old complaint until it
        has something to do again, though frames pass; so a complaint counts only if it outlives bumps of
        `next_cfg`.
        """

        def served() -> bool:
            self.commit()
            return self.in_service(OUTER) and self.in_service(INNER)

        self.until(served, "both ends are in service", every=0.2)

    def homes_in_datapath(self, port: str) -> list[str]:
        """The bridges on which the datapath has a port of that name."""
        shown = self.world.shell(NODE).run(["ovs-appctl", "dpif/show"], timeout=5).out
        homes, bridge = [], ""
        for line in shown.splitlines():
            if line.startswith("  ") and line.endswith(":"):
                bridge = line.strip(" :")
            elif line.split()[0] == port:
                homes.append(bridge)
        return sorted(homes)

    def look_again(self, port: str, times: int) -> list[bool]:
        """Have vswitchd look at its ports some times; after each, whether the port's row has an error."""
        seen = []
        for _ in range(times):
            self.commit()
            self.pass_time(0.15)  # an error may be written after cur_cfg
            seen.append(self.rows("Interface", ["name", "==", port])[0]["error"] != ["set", []])
        return seen

    def pass_time(self, seconds: float) -> None:
        self.world.clock.wait_until(self.world.clock.now() + seconds)


@pytest.fixture(params=["twin", "lab"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "twin":
        init_world(yaml.safe_load(WORLD.read_text()), tmp_path / "world")
        with open_world(tmp_path / "world") as twin:
            yield Site(twin, lambda: twin.reachable(VM)[0], lambda: None, lambda: None)
        return
    lab = request.getfixturevalue("lab")
    yield Site(lab.world, lambda: bool(lab.silent_reachable(VM)), lab.steady, lab.settle)
    lab.reset(NODE)


def test_silent_guest_stays_dark_after_a_remap_until_it_is_announced(site: Site) -> None:
    site.quiet()
    assert site.reachable()
    site.commit(guard(site, OLD), *swap(NEW), unplug(site))
    site.until(lambda: site.bridge_of(OUTER) == "br-phy", "OVN plugs the network in again")
    site.await_service()
    site.pass_time(3)
    assert not site.reachable()
    announce(site, "br-phy")
    assert site.reachable()


def test_mapping_alone_does_not_move_the_patch_port(site: Site) -> None:
    site.steady()
    site.commit(guard(site, OLD), *swap(NEW))
    site.pass_time(3)
    assert site.external_ids()[KEY] == NEW
    assert site.bridge_of(OUTER) == "br-vmdata"
    assert site.reachable()


def test_swap_on_a_mapping_that_was_changed_meanwhile_fails_and_changes_nothing(site: Site) -> None:
    site.commit(*swap(f"{OLD},other:br-ex"))
    assert site.transact(guard(site, OLD), *swap(NEW)) == [STALE, None, None]
    assert site.external_ids()[KEY] == f"{OLD},other:br-ex"


def test_swap_on_a_mapping_that_is_gone_fails_and_changes_nothing(site: Site) -> None:
    site.commit(mutate(["delete", ["set", [KEY]]]))
    assert site.transact(guard(site, OLD), *swap(NEW)) == [STALE, None, None]
    assert KEY not in site.external_ids()


def test_insert_of_an_absent_mapping_holds_only_when_nobody_was_faster(site: Site) -> None:
    site.commit(mutate(["delete", ["set", [KEY]]]))
    assert site.transact(insert(NEW), guard(site, NEW)) == [{"count": 1}, {}]
    assert site.transact(insert(OLD), guard(site, OLD)) == [{"count": 1}, STALE]
    assert site.external_ids()[KEY] == NEW


def test_guard_does_not_mind_other_keys(site: Site) -> None:
    note = ["external_ids", "insert", ["map", [["somebody", "else"]]]]
    site.commit({"op": "mutate", "table": ROOT, "where": [], "mutations": [note]})
    assert site.transact(guard(site, OLD)) == [{}]


def test_insert_into_a_map_leaves_a_key_that_is_there_alone(site: Site) -> None:
    assert site.transact(insert(NEW)) == [{"count": 1}]
    assert site.external_ids()[KEY] == OLD


def test_two_ports_of_one_name_are_refused(site: Site) -> None:
    assert site.in_service(OUTER)
    results = site.transact(*patch_port("br-phy", OUTER, INNER))
    assert results[-1]["error"] == "constraint violation"
    assert results[-1]["details"].startswith(
        'Transaction causes multiple rows in "Interface" table to have identical values'
    )
    assert OUTER in results[-1]["details"]


def test_forwarding_table_reads_alike(site: Site) -> None:
    done = site.world.shell(NODE).run(["ovs-appctl", "fdb/show", "br-vmdata"], timeout=5)
    header, *lines = done.out.splitlines()
    assert done.rc == 0
    assert header == " port  VLAN  MAC                Age"
    parsed = [re.fullmatch(r" *(\d+|LOCAL) +(\d+)  ([0-9a-f:]{17}) +(\d+)", line) for line in lines]
    assert lines
    assert None not in parsed
    [port] = [row["ofport"] for row in site.rows("Interface", ["name", "==", OUTER])]
    found = {(match[1], match[2], match[3]) for match in parsed if match}
    assert (str(port), str(VLAN), MAC) in found


def test_forwarding_table_of_a_missing_bridge_is_an_error(site: Site) -> None:
    done = site.world.shell(NODE).run(["ovs-appctl", "fdb/show", "br-nope"], timeout=5)
    assert (done.rc, done.out) == (2, "")
    assert done.err.splitlines()[0] == "no such bridge"


def test_version_of_ovn_reads_alike(site: Site) -> None:
    done = site.world.shell(NODE).run(["ovn-appctl", "-t", "ovn-controller", "version"], timeout=5)
    assert done.out.splitlines()[0].startswith("ovn-controller 23.03.")
    assert site.rows("Bridge", ["name", "==", "br-int"])
    ids = dict(site.rows("Bridge", ["name", "==", "br-int"])[0]["external_ids"][1])
    assert int(ids["ovn-startup-ts"]) / 1000 <= site.world.clock.now()


def test_program_that_a_node_does_not_have_is_127(site: Site) -> None:
    assert site.world.shell(NODE).run(["no-such-program"], timeout=5).rc == 127


def test_patch_port_without_a_peer_says_so(site: Site) -> None:
    site.commit(*patch_port("br-phy", "patch-lonely", "patch-nowhere"))
    site.until(lambda: not site.in_service("patch-lonely"), "ovs-vswitchd complains")
    [row] = site.rows("Interface", ["name", "==", "patch-lonely"])
    pattern = r"No usable peer 'patch-nowhere' exists in '(netdev|system)' datapath\."
    assert re.fullmatch(pattern, row["error"])
    # Broken, and yet it has a number: `error` is the only sign.
    assert row["ofport"] > 0


def test_port_of_a_missing_card_says_so(site: Site) -> None:
    site.commit(*new_port("br-phy", "ens99", {}))
    site.until(lambda: site.rows("Interface", ["name", "==", "ens99"])[0]["ofport"] == -1, "it is refused")
    [row] = site.rows("Interface", ["name", "==", "ens99"])
    assert row["error"] == "could not open network device ens99 (No such device)"
    assert row["ofport"] == -1


def test_old_bridge_deleted_in_one_transaction_with_the_remap_moves_the_port(site: Site) -> None:
    site.steady()
    bridges = site.rows("Bridge", ["name", "==", "br-vmdata"])
    gone = [["bridges", "delete", bridges[0]["_uuid"]]]
    drop = {"op": "mutate", "table": ROOT, "where": [], "mutations": gone}
    site.commit(guard(site, OLD), *swap(NEW), drop)
    site.until(lambda: site.bridge_of(OUTER) == "br-phy", "OVN plugs the network in again")
    site.await_service()
    announce(site, "br-phy")
    assert site.reachable()


def test_port_moved_in_one_transaction_never_settles_until_the_pair_is_joined_anew(site: Site) -> None:
    """vswitchd sees one name change bridges: it works, and the database alternates for ever (docs/ovs-facts.md, 6)."""
    site.steady()
    port = site.rows("Port", ["name", "==", OUTER])[0]["_uuid"]
    to_phy = [["ports", "insert", port]]
    plug = {"op": "mutate", "table": "Bridge", "where": [["name", "==", "br-phy"]], "mutations": to_phy}
    site.commit(guard(site, OLD), *swap(NEW), unplug(site), plug)
    assert site.homes_in_datapath(OUTER) == ["br-phy", "br-vmdata"]
    assert site.look_again(INNER, 4) == [True, False, True, False]
    for peer in ("turned-away", OUTER):
        turned = {"options": ["map", [["peer", peer]]]}
        site.commit({"op": "update", "table": "Interface", "where": [["name", "==", INNER]], "row": turned})
    assert site.look_again(INNER, 4) == [False, False, False, False]
    assert site.homes_in_datapath(OUTER) == ["br-phy"]


def test_mapping_to_a_bridge_that_does_not_exist_takes_the_patch_ports_away(site: Site) -> None:
    site.steady()
    site.commit(*swap("physnet:br-ex,vmnet:br-nope,storage:br-storage"))
    site.until(
        lambda: site.bridge_of(OUTER) is None and site.bridge_of(INNER) is None, "no patch port is left"
    )


def guard(site: Site, value: str) -> dict[str, Any]:
    """Fails unless the mapping has this value, whatever else is in the column."""
    where = [["external_ids", "includes", ["map", [[KEY, value]]]]]
    row = {"_uuid": site.root()["_uuid"]}
    return {
        **{"op": "wait", "timeout": 0, "table": ROOT, "where": where, "columns": ["_uuid"]},
        **{"until": "==", "rows": [row]},
    }


def mutate(*changes: list[Any]) -> dict[str, Any]:
    mutations: list[list[Any]] = [["external_ids", *change] for change in changes]
    return {"op": "mutate", "table": ROOT, "where": [], "mutations": mutations}


def insert(value: str) -> dict[str, Any]:
    return mutate(["insert", ["map", [[KEY, value]]]])


def swap(value: str) -> list[dict[str, Any]]:
    return [mutate(["delete", ["set", [KEY]]]), insert(value)]


def unplug(site: Site) -> dict[str, Any]:
    """Take OVN's patch port off the old bridge."""
    port = site.rows("Port", ["name", "==", OUTER])[0]["_uuid"]
    where = [["name", "==", "br-vmdata"]]
    return {"op": "mutate", "table": "Bridge", "where": where, "mutations": [["ports", "delete", port]]}


def patch_port(bridge: str, name: str, peer: str) -> list[dict[str, Any]]:
    return new_port(bridge, name, {"type": "patch", "options": ["map", [["peer", peer]]]})


def new_port(bridge: str, name: str, interface: dict[str, Any]) -> list[dict[str, Any]]:
    port = {"name": name, "interfaces": ["named-uuid", "i"]}
    ports = [["ports", "insert", ["named-uuid", "p"]]]
    return [
        {"op": "insert", "table": "Interface", "uuid-name": "i", "row": {"name": name, **interface}},
        {"op": "insert", "table": "Port", "uuid-name": "p", "row": port},
        {"op": "mutate", "table": "Bridge", "where": [["name", "==", bridge]], "mutations": ports},
    ]


def announce(site: Site, bridge: str) -> None:
    """Through the patch port, so that the bridge learns the MAC there.

    Sent as the controller, the frame teaches the bridge nothing, and its echo from the other member of a
    balance-slb bond then teaches it that the guest is outside.
    """
    [port] = [row["ofport"] for row in site.rows("Interface", ["name", "==", OUTER])]
    packet = f"in_port={port} packet={rarp(MAC).hex()} actions=mod_vlan_vid:{VLAN},normal"
    assert site.world.shell(NODE).run(["ovs-ofctl", "packet-out", bridge, packet], timeout=5).rc == 0
