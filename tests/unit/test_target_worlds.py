"""Targets that are there: which world an option opens, what it is called, and whose cluster it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.target import open_target
from cli.worldfile import make_world
from plans.errors import InputError
from providers.ports import Ref, Unreachable

WORLD = """\
apiVersion: ovsplan.io/v1alpha1
kind: World
metadata: {name: small}
spec:
  networks:
    default/vlan224: {localnet: vmnet, vlan: 224, mtu: 9000}
  nodeDefaults:
    labels: {node-role.kubernetes.io/worker: ""}
    mappings: "physnet:br-ex,vmnet:br-vmdata"
    nics: {bond0: up}
    bridges: {br-ex: {ports: {}}, br-vmdata: {ports: {bond0: {}}}}
  nodes:
    worker-01: {}
    worker-02: {}
"""
MIXED = """\
cluster: {twin: world/}
nodes:
  via: local
  local:
    worker-01: {exec: [env], rundir: run/worker-01}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OVSPLAN_TARGET", raising=False)
    (tmp_path / "lab").mkdir()
    (tmp_path / "world.yaml").write_text(WORLD, encoding="utf-8")
    assert make_world("world.yaml", "lab/world") == "small"
    return tmp_path


def refused_target(text: str) -> str:
    Path("lab/target.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        open_target(twin=None, context=None, target="lab/target.yaml")
    return str(error.value)


def test_a_twin_is_called_simulated_and_named_with_its_folder() -> None:
    info, world = open_target(twin="lab/world/", context=None, target=None)
    assert (info.kind, info.title) == ("simulated", "SIMULATED twin world 'small' (./lab/world)")
    nodes = world.cluster.list("v1", "Node").items
    assert [node["metadata"]["name"] for node in nodes] == ["worker-01", "worker-02"]


def test_the_identity_is_the_uid_of_kube_system_whatever_the_way_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    info, world = open_target(twin="lab/world", context=None, target=None)
    namespace = world.cluster.get(Ref("v1", "Namespace", "kube-system"))
    assert namespace is not None
    assert info.identity == f"cluster {namespace['metadata']['uid']}"
    Path("lab/target.yaml").write_text("cluster: {twin: world}\n", encoding="utf-8")
    monkeypatch.setenv("OVSPLAN_TARGET", "lab/target.yaml")
    by_file, _ = open_target(twin=None, context=None, target=None)
    assert by_file == info


def test_a_mixed_target_says_what_is_real_and_where_it_is_written() -> None:
    Path("lab/target.yaml").write_text(MIXED, encoding="utf-8")
    info, _ = open_target(twin=None, context=None, target="lab/target.yaml")
    assert info.kind == "mixed"
    assert info.title == "twin API at ./lab/world, real Open vSwitch and OVN on 1 node (lab/target.yaml)"


def test_commands_run_on_the_real_node_with_its_run_directory_beside_the_target_file(folder: Path) -> None:
    Path("lab/target.yaml").write_text(MIXED, encoding="utf-8")
    (folder / "lab/run/worker-01").mkdir(parents=True)
    _, world = open_target(twin=None, context=None, target="lab/target.yaml")
    done = world.shell("worker-01").run(["printenv", "OVS_RUNDIR"], timeout=10)
    assert (done.rc, done.out.strip()) == (0, str(folder / "lab/run/worker-01"))


def test_a_node_without_a_way_is_unreachable_and_its_database_too() -> None:
    Path("lab/target.yaml").write_text(MIXED, encoding="utf-8")
    _, world = open_target(twin=None, context=None, target="lab/target.yaml")
    with pytest.raises(Unreachable, match=r"lab/target\.yaml names no way to node worker-02"):
        world.ovsdb("worker-02")
    with pytest.raises(Unreachable, match=r"lab/target\.yaml names no way to node worker-02"):
        world.shell("worker-02")
    with pytest.raises(Unreachable):
        world.ovsdb("worker-01").transact("Open_vSwitch", [], timeout=1)


def test_a_node_that_the_cluster_does_not_have_is_named() -> None:
    assert refused_target(MIXED.replace("worker-01:", "worker-1:")) == (
        "lab/target.yaml:5:5: nodes.local: the cluster has no node 'worker-1'. Did you mean 'worker-01'?"
    )


def test_a_twin_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="nowhere"):
        open_target(twin="nowhere", context=None, target=None)
    assert "lab/nowhere" in refused_target("cluster: {twin: nowhere}\n")


def test_what_the_twin_refuses_is_placed_in_the_world_file() -> None:
    Path("broken.yaml").write_text(WORLD.replace("    worker-02: {}", "    worker-02: {redy: false}"))
    with pytest.raises(InputError) as error:
        make_world("broken.yaml", "other")
    assert str(error.value).startswith("broken.yaml:14:23: spec.nodes.worker-02.redy: ")
    assert not Path("other").exists()


def test_a_folder_that_cannot_be_made_is_named() -> None:
    with pytest.raises(
        InputError, match=r"^world\.yaml/twin: no world can be made there: Not a directory\. "
    ):
        make_world("world.yaml", "world.yaml/twin")


def test_a_folder_that_holds_a_world_is_not_overwritten() -> None:
    with pytest.raises(InputError, match="lab/world"):
        make_world("world.yaml", "lab/world")
    _, world = open_target(twin="lab/world", context=None, target=None)
    assert world.cluster.get(Ref("v1", "Namespace", "kube-system")) is not None


def test_an_object_that_the_api_would_not_take_is_refused_with_its_line() -> None:
    stray = "  objects:\n    - {apiVersion: v1, kind: ConfigMap, metadata: {name: stray, namespace: shop}}\n"
    Path("stray.yaml").write_text(WORLD + stray, encoding="utf-8")
    with pytest.raises(InputError) as error:
        make_world("stray.yaml", "stray")
    assert str(error.value) == (
        'stray.yaml:16:7: spec.objects[0]: ConfigMap stray can\'t be made: namespaces "shop" not found; '
        "list it first: {apiVersion: v1, kind: Namespace, metadata: {name: shop}}"
    )
