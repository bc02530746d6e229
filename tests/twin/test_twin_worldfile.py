"""World files: what is refused, with the field at fault, and what the same file makes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from providers.ports import Ref
from providers.twin import TwinWorld, WorldError, init_world, open_world
from twin.worlds import KUBEVIRT, VMI, make, migrate, select, spec

Breaker = Callable[[dict[str, Any]], None]


def put(*path: str, value: Any) -> Breaker:
    def act(document: dict[str, Any]) -> None:
        *way, last = path
        for part in way:
            document = document.setdefault(part, {})
        document[last] = value

    return act


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("color",), 1, "unknown field"),
        (("seed",), "x", "expected a whole number"),
        (("start",), "tomorrow", "expected an instant"),
        (("ovn",), "24.03.2", "only OVN 23.03"),
        (("ovnStarted",), -1, "expected a number of seconds"),
        (("controllers", "kubelet"), "perhaps", "expected on or off"),
        (("controllers", "etcd"), "on", "unknown field"),
        (("timings", "macAgeing"), "long", "expected a number of seconds"),
        (("limits", "outboundPerNode"), 0, "expected a whole number from 1"),
        (("networks", "vlan224"), {"localnet": "vmnet"}, "expected namespace/name"),
        (("networks", "default/a"), {"vlan": 1}, "localnet: missing"),
        (("networks", "default/vlan224", "vlan"), 5000, "expected a whole number"),
        (("networks", "default/vlan224", "localnet"), "a:b", "holds no colon"),
        (("networks", "shop/vlan224"), {"localnet": "other", "vlan": 9}, "described twice, and differently"),
        (("nodes",), {}, "at least one node"),
        (("nodes", "Worker"), {}, "not a node name"),
        (("nodes", "worker-01", "cordoned"), "maybe", "expected on or off"),
        (("nodes", "worker-01", "memory"), "lots", "not a quantity"),
        (("nodes", "worker-01", "mappings"), ["a"], "expected text"),
        (("nodeDefaults", "nics", "ens33"), "sideways", "expected up or down"),
        (("nodeDefaults", "nics", "ens33"), {"link": "sideways"}, "expected up or down"),
        (("nodeDefaults", "nics", "ens33"), {"speed": 10}, "unknown field; known: link, mtu, most"),
        (("nodeDefaults", "nics", "ens33"), {"mtu": 67}, "from 68 to 65535"),
        (("nodeDefaults", "nics", "a-name-beyond-15-bytes"), "up", "not an interface name"),
        (("nodeDefaults", "bridges", "br-a-name-too-long"), {}, "not an interface name"),
        (("nodeDefaults", "bridges", "br-int"), {}, "already on bridge br-int"),
        (("nodeDefaults", "bridges", "br-two"), {"ports": {"bond0": {}}}, "already on bridge br-vmdata"),
        (
            ("nodeDefaults", "bridges", "br-two"),
            {"ports": {"b": {"bond": ["ens33"]}}},
            "already on bridge br-phy",
        ),
        (("nodeDefaults", "bridges", "br-two"), {"ports": {"b": {"bond": []}}}, "expected a list"),
        (
            ("nodeDefaults", "bridges", "br-two"),
            {"ports": {"b": {"bond": ["x"], "mode": "fast"}}},
            "not a bond mode",
        ),
        (("nodeDefaults", "bridges", "br-two"), {"ports": {"b": {"tag": 9999}}}, "expected a whole number"),
        (("vms", "talker"), {"node": "worker-01"}, "expected namespace/name"),
        (("vms", "default/talker", "node"), "worker-09", "no such node"),
        (("vms", "default/talker", "networks", "net", "nad"), "default/none", "no such network"),
        (("vms", "default/talker", "networks", "net", "mac"), "02:00", "not a MAC address"),
        (("vms", "default/talker", "migratable"), "because", "expected true, false, or"),
        (("vms", "default/talker"), ["x"], "expected a mapping"),
    ],
)
def test_a_broken_file_is_refused_at_the_field_and_nothing_is_written(
    tmp_path: Path, path: tuple[str, ...], value: Any, message: str
) -> None:
    broken = spec()
    put(*path, value=value)(broken)
    with pytest.raises(WorldError) as caught:
        init_world(broken, tmp_path / "w")
    assert message in caught.value.message
    found = caught.value.path
    assert found[: len(path)] == path or path[: len(found)] == found
    assert not (tmp_path / "w").exists()


def document(**inside: Any) -> dict[str, Any]:
    head = {"apiVersion": "ovsplan.io/v1alpha1", "kind": "World", "metadata": {"name": "test"}}
    return {**head, "spec": spec(), **inside}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"kind": "VMNetwork"}, ("kind",)),
        ({"apiVersion": "v1"}, ("apiVersion",)),
        ({"metadata": {}}, ("metadata", "name")),
        ({"spec": None}, ("spec",)),
        ({"spec": {"seed": "x", "nodes": {"a": {}}}}, ("spec", "seed")),
    ],
)
def test_in_a_whole_document_the_path_starts_at_its_top(
    tmp_path: Path, change: dict[str, Any], path: tuple[str, ...]
) -> None:
    if change.get("spec", 1) is None:
        change = {"spec": {}}
        path = ("spec", "nodes")
    with pytest.raises(WorldError) as caught:
        init_world(document(**change), tmp_path / "w")
    assert caught.value.path == path


def test_the_name_is_the_documents(tmp_path: Path) -> None:
    init_world(document(), tmp_path)
    with open_world(tmp_path) as world:
        assert world.name == "test"


def test_a_folder_with_a_world_is_left_alone(tmp_path: Path, world: TwinWorld) -> None:
    before = world.show()
    with pytest.raises(WorldError, match="already holds a world"):
        init_world(spec(seed=2), tmp_path / "world")
    assert world.show() == before
    assert [file.name for file in (tmp_path / "world").iterdir() if file.name.startswith(".")] == []


def test_the_same_file_makes_the_same_world(tmp_path: Path) -> None:
    def look(folder: str, seed: int) -> Any:
        vms = {"default/a": {"node": "worker-01", "networks": {"n": {"nad": "default/vlan224"}}}}
        with make(tmp_path / folder / "w", vms=vms, seed=seed) as world:
            migrate(world, "a", "m")
            world.tick(30)
            ports = select(world, "worker-02", "Port")
            return ports, world.cluster.list("v1", "Pod").items, world.cluster.list(KUBEVIRT, VMI).items

    assert look("one", 7) == look("two", 7)
    assert look("three", 8) != look("one-more", 7)


def test_a_world_made_anew_is_another_cluster(tmp_path: Path) -> None:
    def identity(folder: str) -> str:
        with make(tmp_path / folder / "w") as world:
            space = world.cluster.get(Ref("v1", "Namespace", "kube-system"))
            assert space is not None
            return str(space["metadata"]["uid"])

    assert identity("one") != identity("two")


def test_no_folder_an_empty_one_and_a_file_are_no_worlds(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name in ("none", "empty", "file"):
        with pytest.raises(WorldError):
            open_world(tmp_path / name)
    with pytest.raises(WorldError, match="is not a folder"):
        init_world(spec(), tmp_path / "file")


def test_garbage_is_not_a_world(tmp_path: Path) -> None:
    (tmp_path / "world.db").write_bytes(b"not a database, and long enough to be taken for one" * 50)
    with pytest.raises(WorldError, match="cannot be used"):
        open_world(tmp_path)
    (tmp_path / "world.db").write_bytes(b"")
    with pytest.raises(WorldError, match="is not a world"):
        open_world(tmp_path)


def test_a_world_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    make(tmp_path).close()
    database = sqlite3.connect(tmp_path / "world.db")
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(WorldError, match="format 99, from a newer version"):
        open_world(tmp_path)


def test_a_node_replaces_mappings_and_bridges_whole_and_adds_labels_and_cards(tmp_path: Path) -> None:
    own = {
        "mappings": "physnet:br-ex",
        "bridges": {"br-ex": {"ports": {"ens99": {}}, "externalIds": {"NM.connection.uuid": "u"}}},
        "nics": {"ens99": "up"},
        "labels": {"zone": "b"},
    }
    with make(tmp_path, nodes={"worker-01": {}, "worker-02": own}, vms={}) as world:
        shown = world.show()["nodes"]["worker-02"]
        assert shown["mapping"] == "physnet:br-ex"
        assert sorted(shown["bridges"]) == ["br-ex", "br-int"]
        (card,) = select(world, "worker-02", "Interface", "ens99")
        assert (card["type"], card["link_state"], card["error"]) == ("system", "up", ["set", []])
        (made_by_hand,) = select(world, "worker-01", "Interface", "bond0")
        assert made_by_hand["type"] == ""


def test_a_large_world_stays_quick(tmp_path: Path) -> None:
    """3,000 reads of a world of 200 nodes: far below what reading all of it each time would take."""
    nodes = {f"worker-{number:03d}": {} for number in range(200)}
    network = {"net": {"nad": "default/vlan224"}}
    vms = {
        f"default/vm-{number}": {"node": f"worker-{number % 200:03d}", "networks": network}
        for number in range(400)
    }
    with make(tmp_path, nodes=nodes, vms=vms) as world:
        start = time.monotonic()
        for node in [*nodes] * 5:
            for table in ("Bridge", "Port", "Interface"):
                assert select(world, node, table)
        assert time.monotonic() - start < 15
