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
                (folder / container / name).write_text(f"#!/bin/sh\necho {container}\n")
                (folder / container / name).chmod(0o755)

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


def test_programs_of_open_vswitch_go_along_with_those_of_ovn(containers: Containers) -> None:
    assert ask("ovs-x", "ovn-x", "ovs-x") == [said("ovn-controller")] * 3
    assert containers.entered == ["ovn-controller"]


def test_without_one_of_ovn_they_go_where_they_go_alone(containers: Containers) -> None:
    assert ask("ovs-x", "ovs-x") == [said("kube-multus")] * 2
    assert containers.entered == ["kube-multus"]


def test_what_one_container_cannot_run_takes_a_journey_of_its_own(containers: Containers) -> None:
    assert ask("other", "ovn-x", "ovs-x") == [
        *(said("kube-multus"), said("ovn-controller"), said("ovn-controller"))
    ]
    assert containers.entered == ["kube-multus", "ovn-controller"]


@pytest.mark.parametrize(
    "containers", [{"kube-multus": ["ovs-x"], "ovn-controller": ["ovn-x"]}], indirect=True
)
def test_a_program_that_ovns_pod_lacks_is_looked_for_where_it_goes_alone(containers: Containers) -> None:
    assert ask("ovs-x", "ovn-x") == [said("kube-multus"), said("ovn-controller")]
    assert containers.entered == ["ovn-controller", "kube-multus"]


def test_a_program_that_is_nowhere_is_missing(containers: Containers) -> None:
    first, second = ask("ovn-x", "ovs-none")
    assert first == said("ovn-controller")
    assert isinstance(second, Finished) and second.rc == 127


@pytest.mark.parametrize(
    "containers", [{"kube-multus": ["ovs-x", "ovn-x"], "ovn-controller": []}], indirect=True
)
def test_where_ovn_has_no_pod_all_is_asked_of_the_host(containers: Containers) -> None:
    assert ask("ovs-x", "ovn-x", without=["openshift-ovn-kubernetes"]) == [said("kube-multus")] * 2
    assert containers.entered == ["kube-multus"]


def test_a_pod_that_was_replaced_is_looked_for_once_more(containers: Containers) -> None:
    containers.errors = [NotFound("pod gone")]
    assert ask("ovs-x", "ovn-x") == [said("ovn-controller")] * 2
    containers.errors = [NotFound("pod gone"), NotFound("pod gone")]
    assert [type(answer) for answer in ask("ovs-x", "ovn-x")] == [Unreachable, Unreachable]


def test_a_refusal_is_the_answer_to_every_question(containers: Containers) -> None:
    containers.errors = [Forbidden("no exec")]
    assert [str(answer) for answer in ask("ovs-x", "ovn-x")] == ["no exec", "no exec"]
