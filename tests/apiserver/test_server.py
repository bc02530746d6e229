"""The API server that tests run on: it leaves nothing behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .server import ROOT, ApiServer

pytestmark = pytest.mark.apiserver

RUN = """
import sys
from pathlib import Path
from tests.apiserver.server import ApiServer
with ApiServer.up(Path(sys.argv[1]), crds=None) as server:
    server.add_nodes({"worker-01": []})
    print("up", flush=True)
    sys.stdin.read()
"""


def started_in(folder: Path) -> Iterator[int]:
    """A handle to each process whose command line names the folder, but our own and its parent."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if os.fsencode(folder) in b"\0".join(words) and b"python" not in words[0]:
                yield os.pidfd_open(int(entry.name))
        except OSError:
            continue


def test_nothing_outlives_tests_that_are_killed(server: ApiServer, tmp_path: Path) -> None:
    tests = subprocess.Popen(
        (sys.executable, "-c", RUN, str(tmp_path)), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with tests:
        assert tests.stdout is not None
        assert tests.stdout.readline() == b"up\n"
        # etcd, kube-apiserver, kubelet, and who looks after them.
        handles = list(started_in(tmp_path))
        assert len(handles) == 4
        tests.send_signal(signal.SIGKILL)
    try:
        for handle in handles:
            assert select.select([handle], [], [], 10)[0], "a daemon is still there"
    finally:
        for handle in handles:
            os.close(handle)


def test_a_node_can_be_reached_through_a_pod(server: ApiServer) -> None:
    server.add_nodes({"reachable": ["env", "WHERE=there"]})
    pod = server.call("GET", "/api/v1/namespaces/default/pods/exec-reachable")
    assert pod["status"]["phase"] == "Running"
    node = server.call("GET", "/api/v1/nodes/reachable")
    assert node["status"]["addresses"] == [{"type": "InternalIP", "address": "127.0.0.1"}]
    assert "taints" not in node["spec"]
