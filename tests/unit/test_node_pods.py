"""Several questions to one node by exec: which pod is asked what, and how often."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from providers.kubernetes.pod_exec import Container, Execs
from providers.node.pod import PodNodes
from providers.ports import Answer, Cluster, Command, Finished, Forbidden, Listing, NotFound, Unreachable

HOSTS = {"openshift-multus": "kube-multus", "openshift-ovn-kubernetes": "ovn-controller"}


class Pods:
    """A cluster with one pod of each kind on node `n`, but for the namespaces in `without`."""

    def __init__(self, without: Sequence[str] = ()) -> None:
        self.without = without

    def list(self, api: str, kind: str, *, namespace: str, **_: Any) -> Listing:
        if namespace in self.without or namespace not in HOSTS:
            return Listing((), "1")
        name = HOSTS[namespace]
        status = {"name": name, "state": {"running": {}}}
        pod = {
            "metadata": {"name": name},
            "spec": {"nodeName": "n"},
            "status": {"containerStatuses": [status]},
        }
        return Listing((pod,), "1")


class Containers:
    """In place of exec: each container runs its words on this machine, and finds only the programs that it has."""

    def __init__(self, folder: Path, programs: dict[str, Sequence[str]]) -> None:
        self.folder = folder
        self.entered: list[str] = []
        self.errors: list[Exception] = []
        for container, names in programs.items():
            (folder / container).mkdir()
            for name in names:
                self.add(container, name, f"echo {container}")
        # Whatever runs on this machine besides is none of the node's.
        self.add("kube-multus", "pidof", "exit 1")

    def add(self, container: str, program: str, does: str) -> None:
        (self.folder / container / program).write_text(f"#!/bin/sh\n{does}\n")
        (self.folder / container / program).chmod(0o755)

    def run(self, container: Container, argv: Sequence[str], *, stdin: bytes, timeout: float) -> Finished:
        self.entered.append(container.name)
        if self.errors:
            raise self.errors.pop(0)
        words = [word for word in argv if word not in ("chroot", "/hostroot")]
        path = f"{self.folder / container.name}:{os.environ['PATH']}"
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, env={"PATH": path})
        return Finished(done.returncode, done.stdout, done.stderr)


ALL = {"kube-multus": ["ovs-x", "other"], "ovn-controller": ["ovs-x", "ovn-x"]}


@pytest.fixture
def containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Containers:
    found = Containers(tmp_path, getattr(request, "param", ALL))
    monkeypatch.setattr(Execs, "run", lambda _, *args, **kwargs: found.run(*args, **kwargs))
    return found


def ask(*programs: str, without: Sequence[str] = ()) -> list[Answer]:
    nodes = PodNodes(cast(Cluster, Pods(without)), cast(Any, None))
    return nodes.ask("n", [Command((program,), 10) for program in programs])


def said(container: str) -> Finished:
    return Finished(0, f"{container}\n", "")


@pytest.mark.parametrize(
    "containers", [{"kube-multus": [*ALL["kube-multus"], "ovn-x"], "ovn-controller": []}], indirect=True
)
def test_a_host_with_all_programs_is_entered_once(containers: Containers) -> None:
    assert ask("ovs-x", "ovn-x", "other") == [said("kube-multus")] * 3
    assert containers.entered == ["kube-multus"]


def test_a_program_of_ovn_is_run_beside_ovn_controller_by_the_same_journey(containers: Containers) -> None:
    beside = containers.folder / "ovn-controller"
    containers.add("kube-multus", "pidof", 'test "$*" = "-s ovn-controller" && echo 7')
    containers.add("kube-multus", "nsenter", f'test "$1 $2 $3 $4" = "-t 7 -m --" && shift 4 && "{beside}/$@"')
    assert ask("ovs-x", "ovn-x") == [said("kube-multus"), said("ovn-controller")]
    assert containers.entered == ["kube-multus"]


def test_a_program_of_ovn_that_is_not_found_so_is_looked_for_where_it_goes_alone(
    containers: Containers,
) -> None:
    assert ask("ovs-x", "ovn-x") == [said("kube-multus"), said("ovn-controller")]
    assert containers.entered == ["kube-multus", "ovn-controller"]


def test_a_program_that_is_nowhere_is_missing(containers: Containers) -> None:
    first, second = ask("ovs-x", "ovn-none")
    assert first == said("kube-multus")
    assert isinstance(second, Finished) and second.rc == 127


def test_where_only_a_part_of_the_node_is_reached_each_goes_alone(containers: Containers) -> None:
    assert ask("ovs-x", "ovn-x", without=["openshift-multus"]) == [said("ovn-controller")] * 2
    assert containers.entered == ["ovn-controller"] * 2


def test_a_pod_that_was_replaced_is_looked_for_once_more(containers: Containers) -> None:
    containers.errors = [NotFound("pod gone")]
    assert ask("ovs-x", "other") == [said("kube-multus")] * 2
    containers.errors = [NotFound("pod gone"), NotFound("pod gone")]
    assert [type(answer) for answer in ask("ovs-x", "other")] == [Unreachable, Unreachable]


def test_a_refusal_is_the_answer_to_every_question(containers: Containers) -> None:
    containers.errors = [Forbidden("no exec")]
    assert [str(answer) for answer in ask("ovs-x", "ovn-x")] == ["no exec", "no exec"]
