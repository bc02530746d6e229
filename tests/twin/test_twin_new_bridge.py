"""Bridges that are made and MTUs that are raised on a twin, by both deliveries: whole, killed in the middle, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from crash.lives import Ended, Job, job_of, kill_when
from support.planning import world_spec

from twin.worlds import transact

KILLED = -9
BRIDGE = "bridge: {name: br-vmdata, ports: [bond0]}"
NCP = {"nmstate": "2.2.62", "ovn": "25.03.0"}


def declared(*spec: str) -> str:
    lines = "".join(f"  {line}\n" for line in spec)
    return f"apiVersion: ovsplan.io/v1alpha1\nkind: VMNetwork\nmetadata: {{name: vmnet}}\nspec:\n{lines}"


def job(folder: Path, delivery: str, *spec: str, **defaults: Any) -> Job:
    """Two nodes without br-vmdata, each with a VM of a localnet that is mapped nowhere."""
    over: dict[str, Any] = {
        "nodeDefaults": {
            "mappings": "physnet:br-ex,storage:br-storage",
            "bridges": {"br-vmdata": None},
            **defaults,
        }
    }
    more = NCP if delivery == "nncp" else {}
    return job_of(folder / "job", world_spec({**over, **more}), {"network.yaml": declared(*spec)})


def switch(job: Job, node: str) -> dict[str, Any]:
    with job.world() as world:
        shown: dict[str, Any] = world.show()["nodes"][node]
    return shown


def interface(job: Job, node: str, name: str) -> dict[str, Any]:
    with job.world() as world:
        where = [["name", "==", name]]
        rows = transact(world, node, {"op": "select", "table": "Interface", "where": where})[0]["rows"]
    (row,) = rows
    return dict(row)


def mapped(job: Job, node: str) -> str:
    pairs = (pair.split(":") for pair in switch(job, node)["mapping"].split(","))
    return str(dict(pairs).get("vmnet", ""))


def well_done(job: Job, ended: Ended) -> None:
    assert ended.code == 0, ended.text
    for node in ("worker-01", "worker-02"):
        assert mapped(job, node) == "br-vmdata"
        assert "bond0" in switch(job, node)["bridges"]["br-vmdata"]["ports"]
        assert interface(job, node, "bond0")["type"] in ("", "system")
    with job.world() as world:
        assert [name for name, vm in world.show()["vms"].items() if not vm["reachable"]] == []
    again = job.run("plan", "--detailed-exitcode")
    assert again.code == 0, again.text
    assert "No changes." in again.out


@pytest.mark.parametrize("delivery", ["ovsdb", "nncp"])
def test_a_bridge_is_made_on_every_node_and_the_vms_are_reached_by_it(tmp_path: Path, delivery: str) -> None:
    made = job(tmp_path, delivery, BRIDGE)
    well_done(made, made.apply())
    (row,) = (b for b in _rows(made, "Bridge") if b["name"] == "br-vmdata")
    assert ("NM.connection.uuid" in dict(row["external_ids"][1])) == (delivery == "nncp")


def _rows(job: Job, table: str) -> list[dict[str, Any]]:
    with job.world() as world:
        return list(transact(world, "worker-01", {"op": "select", "table": table, "where": []})[0]["rows"])


@pytest.mark.parametrize("delivery", ["ovsdb", "nncp"])
@pytest.mark.parametrize("commit", ["intent", "outcome"])
def test_killed_while_it_makes_the_bridge_the_next_apply_goes_on(
    tmp_path: Path, delivery: str, commit: str
) -> None:
    made = job(tmp_path, delivery, BRIDGE, "mtu: 9000", nics={"bond0": {"link": "up", "mtu": 1500}})
    where = _commit_of(tmp_path, delivery, commit)
    ended = made.apply(boundary=kill_when(*where))
    assert ended.code == KILLED, ended.text
    assert mapped(made, "worker-01") == ""
    well_done(made, made.apply())
    assert [interface(made, node, "bond0")["mtu"] for node in ("worker-01", "worker-02")] == [9000, 9000]


def _commit_of(folder: Path, delivery: str, commit: str) -> tuple[str, int]:
    """The commit of the journal around the making on the first node, as an unbroken run of the same job has it."""
    twin = job(folder / "whole", delivery, BRIDGE, "mtu: 9000", nics={"bond0": {"link": "up", "mtu": 1500}})
    seen = folder / "commits"

    def note(name: str) -> None:
        with seen.open("a") as file:
            file.write(f"{name} {_making(twin)}\n")

    assert twin.apply(boundary=note).code == 0
    lines = seen.read_text().splitlines()
    names = [line.split()[0] for line in lines]
    at = next(i for i, line in enumerate(lines) if line == f"{commit} True")
    return commit, names[: at + 1].count(commit)


def _making(job: Job) -> bool:
    """Whether the op that makes the bridge has been begun."""
    labels = {event.label for event in job.events("worker-01/make/br-vmdata")}
    return bool(labels & {"make", "policy"})


@pytest.mark.parametrize("delivery", ["ovsdb", "nncp"])
def test_a_bridge_whose_port_has_no_link_is_taken_away_until_it_has_one(
    tmp_path: Path, delivery: str
) -> None:
    dead = job(tmp_path, delivery, BRIDGE, nics={"bond0": "down"})
    ended = dead.apply()
    assert ended.code == 3, ended.text
    assert "bond0: link down" in ended.text
    shown = switch(dead, "worker-01")
    assert "br-vmdata" not in shown["bridges"]
    assert mapped(dead, "worker-01") == ""
    assert "br-vmdata" not in switch(dead, "worker-02")["bridges"]
    with dead.world() as world:
        for node in ("worker-01", "worker-02"):
            world.set_nic(node, "bond0", "up")
    well_done(dead, dead.apply())


def test_a_port_that_no_card_has_is_taken_away_again(tmp_path: Path) -> None:
    """By OVSDB nobody can be asked beforehand which cards a node has: vswitchd says so when it tries."""
    wrong = job(tmp_path, "ovsdb", "bridge: {name: br-vmdata, ports: [bond9]}")
    ended = wrong.apply()
    assert ended.code == 3, ended.text
    assert "could not open network device bond9" in ended.text
    assert "br-vmdata" not in switch(wrong, "worker-01")["bridges"]


def _cards(**card: Any) -> dict[str, Any]:
    return {
        "mappings": "physnet:br-ex,vmnet:br-phy,storage:br-storage",
        "nics": {nic: {"link": "up", "mtu": 1500, **card} for nic in ("ens33", "ens34")},
    }


@pytest.mark.parametrize("delivery", ["ovsdb", "nncp"])
def test_the_mtu_of_each_card_is_raised_once(tmp_path: Path, delivery: str) -> None:
    cards = _cards()
    if delivery == "nncp":
        cards["bridges"] = {"br-phy": {"madeBy": "networkmanager"}, "br-vmdata": None}
    raised = job(tmp_path, delivery, "bridge: br-phy", "mtu: 9000", **cards)
    ended = raised.apply()
    assert ended.code == 0, ended.text
    for node in ("worker-01", "worker-02"):
        assert [interface(raised, node, nic)["mtu"] for nic in ("ens33", "ens34")] == [9000, 9000]
    asked = interface(raised, "worker-01", "ens33")["mtu_request"]
    assert asked == (9000 if delivery == "ovsdb" else ["set", []])
    again = raised.run("plan", "--detailed-exitcode")
    assert again.code == 0, again.text


@pytest.mark.parametrize("delivery", ["ovsdb", "nncp"])
def test_a_card_that_refuses_the_mtu_stops_the_run_at_its_node(tmp_path: Path, delivery: str) -> None:
    cards = _cards(most=4000)
    if delivery == "nncp":
        cards["bridges"] = {"br-phy": {"madeBy": "networkmanager"}, "br-vmdata": None}
    stopped = job(tmp_path, delivery, "bridge: br-phy", "mtu: 9000", **cards)
    ended = stopped.apply()
    assert ended.code == 3, ended.text
    said = {
        "ovsdb": "ens33 stays at 1500; ens34 stays at 1500 on worker-01, although 9000 was asked for",
        "nncp": "Desired MTU 9000 for interface ens33 bigger than maximum allowed MTU 4000",
    }
    assert said[delivery] in ended.text
    for node in ("worker-01", "worker-02"):
        assert interface(stopped, node, "ens33")["mtu"] == 1500
        assert interface(stopped, node, "ens33")["mtu_request"] == ["set", []]
