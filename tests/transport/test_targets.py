"""Targets that are really there: what they are called, and that a command on a node is run on that node."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.target import open_target
from plans.errors import InputError
from providers.ports import Unreachable
from tests.apiserver.server import ApiServer

from .servers import OvsdbServer
from .sshd import OPERATOR, Sshd

pytestmark = pytest.mark.transport

NAMESPACE = "/api/v1/namespaces/kube-system"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OVSPLAN_TARGET", raising=False)
    return tmp_path


def write_target(api: ApiServer, **nodes: Any) -> str:
    cluster = {"context": "admin", "kubeconfig": str(api.kubeconfig("admin"))}
    Path("target.yaml").write_text(yaml.safe_dump({"cluster": cluster, "nodes": nodes}))
    return "target.yaml"


def ssh_settings(daemon: Sshd, **more: Any) -> dict[str, Any]:
    return {
        "user": OPERATOR,
        "port": daemon.port,
        "identity": str(daemon.identity),
        "knownHosts": str(daemon.known_hosts),
        **more,
    }


def test_context_alone_is_that_cluster_with_its_nodes_by_pods(api: ApiServer) -> None:
    info, world = open_target(
        twin=None, context="admin", target=None, kubeconfig=str(api.kubeconfig("admin"))
    )
    assert info.kind == "cluster"
    assert info.title == f"cluster admin ({api.url}, user admin), nodes by pod exec"
    assert info.identity == f"cluster {api.call('GET', NAMESPACE)['metadata']['uid']}"
    done = world.shell("worker-01").run(["printenv", "NODE_NAME", "CONTAINER_NAME"], timeout=10)
    assert done.out == "worker-01\nkube-multus\n"
    assert world.clock.now() > 0


def test_target_file_sets_where_the_sockets_are(api: ApiServer, server: OvsdbServer) -> None:
    rundir = str(server.rundir.parent / "{node}")
    info, world = open_target(
        twin=None, context=None, target=write_target(api, via="pod", pod={"rundir": rundir})
    )
    assert info.title == f"cluster admin ({api.url}, user admin), nodes by pod exec (target.yaml)"
    select = {"op": "select", "table": "Open_vSwitch", "where": [], "columns": ["next_cfg"]}
    assert world.ovsdb("worker-01").transact("Open_vSwitch", [select], timeout=10)[0]["rows"]
    with pytest.raises(Unreachable, match="failed to connect"):
        world.ovsdb("worker-03").transact("Open_vSwitch", [select], timeout=10)


def test_nodes_by_ssh_are_found_at_their_internal_address(api: ApiServer, daemon: Sshd) -> None:
    target = write_target(api, via="ssh", ssh=ssh_settings(daemon))
    info, world = open_target(twin=None, context=None, target=target)
    assert (info.kind, info.title.rpartition(", ")[2]) == ("cluster", "nodes by ssh (target.yaml)")
    assert world.shell("worker-01").run(["id", "-un"], timeout=10).out == f"{OPERATOR}\n"
    with pytest.raises(Unreachable, match="the cluster has no node worker-77"):
        world.shell("worker-77")


def test_files_and_hosts_of_ssh_are_as_the_target_file_says(
    api: ApiServer, daemon: Sshd, folder: Path
) -> None:
    (folder / "keys").mkdir()
    (folder / "keys/id").write_bytes(daemon.identity.read_bytes())
    (folder / "keys/id").chmod(0o600)
    line = daemon.known_hosts.read_text().replace("[127.0.0.1]", "[localhost]")
    (folder / "keys/known hosts").write_text(line)
    settings = {"identity": "keys/id", "knownHosts": "keys/known hosts", "hosts": {"worker-01": "localhost"}}
    target = write_target(api, via="ssh", ssh=ssh_settings(daemon, sudo=True, **settings))
    _, world = open_target(twin=None, context=None, target=target)
    assert world.shell("worker-01").run(["id", "-un"], timeout=10).out == "root\n"
    with pytest.raises(Unreachable, match="holds no host key of"):
        world.shell("worker-02").run(["true"], timeout=10)


def test_host_of_a_node_that_the_cluster_does_not_have_is_an_error_with_its_place(
    api: ApiServer, daemon: Sshd
) -> None:
    target = write_target(api, via="ssh", ssh=ssh_settings(daemon, hosts={"worker-1": "localhost"}))
    with pytest.raises(InputError) as error:
        open_target(twin=None, context=None, target=target)
    (line,) = str(error.value).splitlines()
    where = next(
        number for number, text in enumerate(Path(target).read_text().splitlines(), 1) if "worker-1" in text
    )
    assert line.startswith(f"target.yaml:{where}:")
    assert line.endswith("nodes.ssh.hosts: the cluster has no node 'worker-1'. Did you mean 'worker-01'?")


def test_real_api_with_nodes_of_this_machine_is_called_mixed(api: ApiServer, server: OvsdbServer) -> None:
    target = write_target(api, via="local", local={"worker-01": {"rundir": str(server.rundir)}})
    info, world = open_target(twin=None, context=None, target=target)
    assert info.kind == "mixed"
    assert info.title.endswith(", real Open vSwitch and OVN on 1 node (target.yaml)")
    assert world.shell("worker-01").run(["printenv", "OVS_RUNDIR"], timeout=5).out == f"{server.rundir}\n"
    with pytest.raises(Unreachable, match=r"target\.yaml names no way to node worker-02"):
        world.shell("worker-02")


_LOOK = """\
import sys
from cli.target import open_target
info, world = open_target(twin=None, context=None, target=sys.argv[1])
print(world.shell(sys.argv[2]).run(["echo", "seen"], timeout=20).out, end="")
"""


def test_nothing_is_left_on_the_node_or_in_the_cluster_when_the_program_ends(
    api: ApiServer, own_daemon: Sshd, folder: Path
) -> None:
    from . import pods

    def look(target: str, node: str) -> str:
        root = Path(__file__).parents[2]
        words = [sys.executable, "-c", _LOOK, target, node]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        return subprocess.run(
            words, env=environment, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    settings = ssh_settings(own_daemon)
    assert look(write_target(api, via="ssh", ssh=settings), "worker-02") == "seen\n"
    assert own_daemon.sessions() == []
    with pods.starting(api):
        assert look(write_target(api, via="pod", pod={"image": "tools"}), "worker-02") == "seen\n"
    assert pods.debug_pods(api) == []


def test_plan_against_a_context_names_the_cluster_first(api: ApiServer, folder: Path) -> None:
    (folder / "desired.yaml").write_text(
        "apiVersion: ovsplan.io/v1alpha1\nkind: VMNetwork\nmetadata: {name: vmnet}\nspec: {bridge: br-phy}\n"
    )
    kubeconfig = str(api.kubeconfig("admin"))
    ovsplan = str(Path(sys.executable).with_name("ovsplan"))
    words = [ovsplan, "plan", "desired.yaml", "--context", "admin", "--kubeconfig", kubeconfig]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    first, *rest = done.stdout.splitlines()
    assert first == f"Target: cluster admin ({api.url}, user admin), nodes by pod exec", done.stderr
    begun = "Planning for the cluster of context admin ...\nReading the cluster ...\nReading 3 nodes ...\n"
    assert done.stderr.startswith(begun)
    blocked = {line.split()[0]: line for line in rest if "BLOCKED" in line}
    assert "ovsdb-client: failed to connect" in blocked["worker-01"]
    assert "nodes.pod.image" in blocked["worker-02"]
