"""Nodes by exec through a real API server: which pod is taken, what a refusal says, and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.ports import Finished, Forbidden, InDoubt, Refused, Unauthorized, Unreachable
from tests.apiserver.server import ApiServer

from . import pods
from .conftest import PodMaker
from .waiting import await_true

pytestmark = pytest.mark.transport

IMAGE = "tools.example.com/tools:1"
WHICH = ["printenv", "NODE_NAME", "CONTAINER_NAME"]


@pytest.fixture
def no_debug_pods(api: ApiServer) -> Iterator[None]:
    yield
    for left in pods.debug_pods(api):
        pods.remove(api, "kube-system", left["metadata"]["name"])


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Programs of every family; each says in which container it runs."""
    for name in ("ovn-appctl", "ovs-vsctl", "nmstatectl", "other"):
        (tmp_path / name).write_text('#!/bin/sh\necho "$NODE_NAME $CONTAINER_NAME"\n')
        (tmp_path / name).chmod(0o755)
    return tmp_path


def test_commands_of_a_node_run_in_its_own_pods_and_each_program_where_it_is(
    api: ApiServer, pod: PodMaker, programs: Path
) -> None:
    shell = pod(api).shell("worker-01")
    found = {path.name: shell.run([str(path)], timeout=10).out.strip() for path in programs.iterdir()}
    assert found == {
        "ovn-appctl": "worker-01 ovn-controller",
        "ovs-vsctl": "worker-01 kube-multus",
        "nmstatectl": "worker-01 kube-multus",
        "other": "worker-01 kube-multus",
    }


def test_node_without_multus_is_entered_by_the_pod_that_has_the_program(
    api: ApiServer, pod: PodMaker, programs: Path
) -> None:
    shell = pod(api).shell("worker-03")
    assert shell.run([f"{programs}/ovs-vsctl"], timeout=10).out == "worker-03 ovn-controller\n"
    name = pods.add(api, pods.NMSTATE, "worker-03")
    assert shell.run([f"{programs}/nmstatectl"], timeout=10).out == "worker-03 nmstate-handler\n"
    pods.remove(api, pods.NMSTATE[0], name)


def test_pod_of_another_node_or_namespace_is_never_used(
    api: ApiServer, pod: PodMaker, no_debug_pods: None
) -> None:
    pods.add(api, ("default", "kube-multus", {"app": "multus"}), "worker-02", "trap")
    with pytest.raises(Unreachable, match=r"debug pod kube-system/ovsplan-debug-\w+ does not run"):
        pod(api, image=IMAGE).shell("worker-02").run(WHICH, timeout=1)
    pods.remove(api, "default", "trap")


def test_pod_that_does_not_run_is_passed_over_and_taken_once_it_does(
    api: ApiServer, pod: PodMaker, no_debug_pods: None
) -> None:
    name = pods.add(api, pods.MULTUS, "worker-02", runs=False)
    shell = pod(api, image=IMAGE).shell("worker-02")
    with pytest.raises(Unreachable, match="debug pod"):
        shell.run(WHICH, timeout=0.5)
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": pods.MULTUS[0], "name": name}}
    api.set_status(body, pods.running("kube-multus"))

    def entered() -> bool:
        try:
            return shell.run(WHICH, timeout=1).out == "worker-02\nkube-multus\n"
        except Unreachable:
            return False

    await_true(entered, "the pod is found")
    pods.remove(api, pods.MULTUS[0], name)


def test_pod_that_was_replaced_is_found_under_its_new_name(api: ApiServer, pod: PodMaker) -> None:
    first = pods.add(api, pods.MULTUS, "worker-02", "first")
    shell = pod(api).shell("worker-02")
    assert shell.run(["true"], timeout=10).rc == 0
    pods.remove(api, pods.MULTUS[0], first)
    second = pods.add(api, pods.MULTUS, "worker-02", "second")
    assert shell.run(["printenv", "POD_NAME"], timeout=10).out == "second\n"
    pods.remove(api, pods.MULTUS[0], second)


def test_debug_pod_is_made_where_no_pod_is_and_removed_at_the_end(
    api: ApiServer, pod: PodMaker, no_debug_pods: None
) -> None:
    nodes = pod(api, image=IMAGE)
    with pods.starting(api):
        shell = nodes.shell("worker-02")
        assert shell.run(WHICH, timeout=10).out == "worker-02\ncontainer-00\n"
        assert shell.run(["test", "-e", "/host"], timeout=10).rc == 1
        assert shell.run(["true"], timeout=10).rc == 0
    (made,) = pods.debug_pods(api)
    assert made["metadata"]["labels"] == pods.DEBUG
    spec = made["spec"]
    assert (spec["nodeName"], spec["hostNetwork"], spec["hostPID"]) == ("worker-02", True, True)
    assert (spec["containers"][0]["image"], spec["restartPolicy"]) == (IMAGE, "Never")
    assert spec["containers"][0]["securityContext"]["privileged"]
    assert spec["activeDeadlineSeconds"] == 3600
    nodes.close()
    assert pods.debug_pods(api) == []


def test_debug_pod_that_was_deleted_is_made_again(api: ApiServer, pod: PodMaker, no_debug_pods: None) -> None:
    shell = pod(api, image=IMAGE).shell("worker-02")
    with pods.starting(api):
        shell.run(["true"], timeout=10)
        (made,) = pods.debug_pods(api)
        pods.remove(api, "kube-system", made["metadata"]["name"])
        assert shell.run(WHICH, timeout=10).out == "worker-02\ncontainer-00\n"


def test_debug_pod_that_ended_is_made_again(api: ApiServer, pod: PodMaker, no_debug_pods: None) -> None:
    shell = pod(api, image=IMAGE).shell("worker-02")
    with pytest.raises(Unreachable):
        shell.run(["true"], timeout=0.3)
    (made,) = pods.debug_pods(api)
    api.set_status(
        made | {"apiVersion": "v1", "kind": "Pod"}, {"phase": "Failed", "reason": "DeadlineExceeded"}
    )
    with pytest.raises(Unreachable, match="made anew when asked again"):
        shell.run(["true"], timeout=5)
    with pods.starting(api):
        assert shell.run(["true"], timeout=10).rc == 0


def test_debug_pod_whose_image_cannot_be_had_says_so(
    api: ApiServer, pod: PodMaker, no_debug_pods: None
) -> None:
    shell = pod(api, image=IMAGE).shell("worker-02")
    with pytest.raises(Unreachable):
        shell.run(["true"], timeout=0.3)
    (made,) = pods.debug_pods(api)
    status = pods.waiting("container-00", "ImagePullBackOff", "no route to host")
    api.set_status(made | {"apiVersion": "v1", "kind": "Pod"}, status)
    with pytest.raises(Unreachable, match="does not run: ImagePullBackOff no route to host"):
        shell.run(["true"], timeout=0.3)


def test_no_image_for_a_debug_pod_is_unreachable_and_the_setting_is_named(
    api: ApiServer, pod: PodMaker
) -> None:
    with pytest.raises(Unreachable, match=r"name one that has coreutils by nodes\.pod\.image"):
        pod(api).shell("worker-02").run(["true"], timeout=5)
    assert pods.debug_pods(api) == []


_KILLED = """\
import os, signal, sys
from kubernetes.config import new_client_from_config
from providers.kubernetes import KubernetesCluster
from providers.node.pod import PodNodes, PodSettings
client = new_client_from_config(sys.argv[1])
nodes = PodNodes(KubernetesCluster(client), client, PodSettings(image="none"))
nodes.shell("worker-02").run(["true"], timeout=20)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_debug_pod_of_a_killed_run_is_collected_by_the_next_and_that_of_a_living_one_stays(
    api: ApiServer, pod: PodMaker, no_debug_pods: None
) -> None:
    with pods.starting(api):
        words = [sys.executable, "-c", _KILLED, str(api.kubeconfig("admin"))]
        assert subprocess.run(words, timeout=60).returncode == -signal.SIGKILL
        (orphan,) = pods.debug_pods(api)
        living = pod(api, image=IMAGE)
        living.shell("worker-02").run(["true"], timeout=10)
        names = {found["metadata"]["name"] for found in pods.debug_pods(api)}
        assert len(names) == 1
        assert orphan["metadata"]["name"] not in names
        pod(api).shell("worker-01").run(["true"], timeout=10)
        assert {found["metadata"]["name"] for found in pods.debug_pods(api)} == names


def test_exec_that_is_not_allowed_is_forbidden_and_the_verbs_are_named(api: ApiServer, pod: PodMaker) -> None:
    api.grant("looker", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}])
    with pytest.raises(Forbidden) as error:
        pod(api, "looker").shell("worker-01").run(["true"], timeout=10)
    told = str(error.value)
    assert 'User "looker" cannot get resource "pods/exec"' in told
    assert "the verbs `get` and `create` on pods/exec in namespace openshift-multus" in told


def test_list_and_exec_are_all_the_rights_that_it_takes(api: ApiServer, pod: PodMaker) -> None:
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]},
    ]
    api.grant("node-reader", rules)
    assert pod(api, "node-reader").shell("worker-01").run(["true"], timeout=10).rc == 0


def test_token_that_is_not_good_is_unauthorized(api: ApiServer, pod: PodMaker) -> None:
    api.kubeconfig("expired", token="no-such-token")
    from kubernetes.config import new_client_from_config

    from providers.kubernetes.pod_exec import Container, Execs

    execs = Execs(new_client_from_config(str(api.folder / "expired.kubeconfig")))
    container = Container(pods.MULTUS[0], "kube-multus-worker-01", "kube-multus")
    with pytest.raises(Unauthorized):
        execs.run(container, ["true"], stdin=b"", timeout=5)


def test_transaction_that_does_not_fit_in_a_command_line_is_refused_before_it_is_sent(
    api: ApiServer, pod: PodMaker
) -> None:
    long = {"op": "comment", "comment": "x" * 100_000}
    with pytest.raises(Refused, match=r"a transaction of 100\d\d\d bytes does not fit in a command line"):
        pod(api).ovsdb("worker-01").transact("Open_vSwitch", [long], timeout=5)


def test_api_server_that_dies_while_a_command_runs_leaves_it_in_doubt_and_is_used_again(
    api: ApiServer, pod: PodMaker, tmp_path: Path
) -> None:
    shell = pod(api).shell("worker-01")
    begun = tmp_path / "begun"

    def stop_when_begun() -> None:
        await_true(begun.exists, "the command has begun")
        api.stop()

    stopping = threading.Thread(target=stop_when_begun)
    stopping.start()
    try:
        with pytest.raises(InDoubt, match=r"the connection was (lost|closed) while a command ran"):
            shell.run(["sh", "-c", f"touch {begun}; sleep 5"], timeout=20)
        stopping.join()
        with pytest.raises(Unreachable, match="the API server was not reached"):
            shell.run(["true"], timeout=5)
    finally:
        stopping.join()
        api.start()
    assert shell.run(["echo", "again"], timeout=10) == Finished(0, "again\n", "")


def test_api_server_that_answers_nothing_does_not_hold_a_command_longer_than_its_time(
    api: ApiServer, pod: PodMaker
) -> None:
    shell = pod(api).shell("worker-01")
    shell.run(["true"], timeout=10)
    begun = time.monotonic()
    api.freeze()
    try:
        with pytest.raises(Unreachable):
            shell.run(["true"], timeout=1)
    finally:
        api.thaw()
    assert time.monotonic() - begun < 5


def test_node_whose_kubelet_is_gone_is_unreachable(api: ApiServer, pod: PodMaker) -> None:
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "worker-09"},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}},
        },
    }
    api.create(node)
    pods.add(api, pods.MULTUS, "worker-09")
    with pytest.raises(Unreachable, match=r"no command can be started in it: .*connection refused"):
        pod(api).shell("worker-09").run(["true"], timeout=10)


def test_process_that_asked_is_not_needed_for_a_command_to_end(
    api: ApiServer, pod: PodMaker, tmp_path: Path
) -> None:
    script = f"echo $$ > {tmp_path}/pid; sleep 60"
    with pytest.raises(InDoubt):
        pod(api).shell("worker-01").run(["sh", "-c", script], timeout=1)
    pid = (tmp_path / "pid").read_text().strip()
    await_true(lambda: not os.path.exists(f"/proc/{pid}"), "the command is ended on the node")
