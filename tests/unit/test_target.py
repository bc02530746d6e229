"""The options that name a target, and the files behind them, before any world is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.target import open_target
from cli.worldfile import read_world_file
from plans.errors import InputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OVSPLAN_TARGET", raising=False)
    return tmp_path


def refused(
    *,
    twin: str | None = None,
    context: str | None = None,
    target: str | None = None,
    kubeconfig: str | None = None,
) -> list[str]:
    with pytest.raises(InputError) as error:
        open_target(twin=twin, context=context, target=target, kubeconfig=kubeconfig)
    return str(error.value).splitlines()


def refused_file(text: str) -> list[str]:
    Path("target.yaml").write_text(text, encoding="utf-8")
    return refused(target="target.yaml")


def refused_world(text: str) -> list[str]:
    Path("world.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_world_file("world.yaml")
    return str(error.value).splitlines()


def test_there_is_no_default_target() -> None:
    (line,) = refused()
    for way in ("--twin", "--target", "--context", "OVSPLAN_TARGET"):
        assert way in line


def test_two_targets_are_one_too_many() -> None:
    assert refused(twin="world", target="target.yaml") == [
        "found --twin and --target; a command has one target. Give one of them."
    ]


def test_a_context_that_no_kubeconfig_has_is_told_with_the_option() -> None:
    Path("config").write_text("contexts: [{name: prod, context: {}}]\n", encoding="utf-8")
    assert refused(context="prd", kubeconfig="config") == [
        "--context prd: config: no context 'prd'. Did you mean 'prod'? There is: prod."
    ]
    assert refused(context="prod", kubeconfig="missing")[0].startswith(
        "--context prod: no kubeconfig: missing does not exist."
    )


def test_a_kubeconfig_without_a_context_is_no_target() -> None:
    for other in ({}, {"twin": "world"}):
        assert refused(kubeconfig="config", **other) == [
            "--kubeconfig config: not used without --context. Give --context NAME as well, or leave it out."
        ]


def test_a_context_in_a_target_file_is_told_with_its_place(folder: Path) -> None:
    (folder / "lab").mkdir()
    Path("lab/target.yaml").write_text("cluster:\n  kubeconfig: k/config\n  context: prod\n")
    assert refused(target="lab/target.yaml") == [
        "lab/target.yaml:3:12: no kubeconfig: lab/k/config does not exist. Give --kubeconfig FILE, or set KUBECONFIG."
    ]


def test_the_variable_names_a_target_file_when_no_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSPLAN_TARGET", "lab/target.yaml")
    assert refused() == ["lab/target.yaml: no such file or folder. Check the path."]
    assert refused(context="prod")[0].startswith("--context prod:")


def test_a_folder_is_no_target_file(folder: Path) -> None:
    (folder / "world").mkdir()
    assert refused(target="world") == [
        "world: is a folder, expected a target file. A twin's folder goes to --twin."
    ]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ["target.yaml:1:1: the file is empty, expected a target."]),
        ("[]\n", ["target.yaml:1:1: document: found a list, expected a mapping. Change it."]),
        (
            "nodes: {via: twin}\n",
            ["target.yaml:1:1: cluster: missing; expected {context: NAME}, or {twin: DIR}. Add it."],
        ),
        (
            "cluster: {context: prod, twin: world}\nnodes: {via: pod}\n",
            ["target.yaml:1:11: cluster: found twin and context; a target has one cluster. Remove one."],
        ),
        (
            "nodes: {via: pod}\ncluster: {}\n",
            ["target.yaml:2:1: cluster: names none. Write {context: NAME}, or {twin: DIR}."],
        ),
        (
            "cluster: {twin: world, kubeconfig: k}\n",
            ["target.yaml:1:24: cluster.kubeconfig: not used, as the cluster is a twin. Remove it."],
        ),
        (
            "cluster: {twin: world}\nnodes: {via: pod}\n",
            [
                "target.yaml:2:14: nodes.via: found 'pod'; with a twin as cluster, "
                "expected 'twin', 'local' or 'ssh'. Change it."
            ],
        ),
        (
            "cluster: {context: prod}\nnodes: {via: twin}\n",
            [
                "target.yaml:2:14: nodes.via: found 'twin'; with a context as cluster, "
                "expected 'pod', 'ssh' or 'local'. Change it."
            ],
        ),
        (
            "cluster: {context: prod}\nnodes: {ssh: {user: core}}\n",
            ["target.yaml:2:9: nodes.ssh: not used, as nodes.via is 'pod'. Write `via: ssh`, or remove it."],
        ),
        (
            "cluster: {context: prod}\nnodes:\n  via: ssh\n  ssh:\n    user: -core\n    port: 70000\n"
            "    jump: a b\n    identity: 'a\"b'\n    rundir: run\n    sudo: yes please\n"
            "    hosts: {worker-01: -oProxyCommand=x}\n    password: x\n",
            [
                "target.yaml:5:11: nodes.ssh.user: found '-core' (text), expected a login name. Change it.",
                "target.yaml:6:11: nodes.ssh.port: found 70000 (a number), "
                "expected a port from 1 to 65535. Change it.",
                "target.yaml:7:11: nodes.ssh.jump: found 'a b' (text), "
                "expected [USER@]HOST[:PORT], several with commas between. Change it.",
                "target.yaml:8:15: nodes.ssh.identity: found 'a\"b', "
                "expected a path without quotes and line breaks. Change it.",
                "target.yaml:9:13: nodes.ssh.rundir: found 'run', expected an absolute path on the node. "
                "Change it.",
                "target.yaml:10:11: nodes.ssh.sudo: found 'yes please' (text), expected true or false. "
                "Change it.",
                "target.yaml:11:24: nodes.ssh.hosts.worker-01: found '-oProxyCommand=x' (text), "
                "expected a host name or an address. Change it.",
                "target.yaml:12:5: nodes.ssh.password: unknown field; expected hosts, identity, jump, "
                "knownHosts, port, rundir, sudo or user. Remove it.",
            ],
        ),
        (
            "cluster: {context: prod}\nnodes: {via: pod, pod: {namespace: A_b, image: 3}}\n",
            [
                "target.yaml:2:36: nodes.pod.namespace: found 'A_b' (text), "
                "expected the name of a namespace. Change it.",
                'target.yaml:2:48: nodes.pod.image: found 3 (a number), expected text: quote it, as "3".',
            ],
        ),
        (
            "cluster: {twin: world}\nnodes: {via: locl}\n",
            [
                "target.yaml:2:14: nodes.via: found 'locl', "
                "expected 'twin', 'local', 'pod' or 'ssh'. Did you mean 'local'?",
            ],
        ),
        (
            "cluster: {twin: world}\nnodes: {via: local}\n",
            [
                "target.yaml:2:1: nodes.local: names no node, but nodes.via is 'local'. Add NODE: "
                "{exec: [...], rundir: DIR}.",
            ],
        ),
        (
            "cluster: {twin: world}\nnodes: {local: {worker-01: {rundir: x}}}\n",
            [
                "target.yaml:2:9: nodes.local: not used, as nodes.via is 'twin'. Write `via: local`, "
                "or remove it.",
            ],
        ),
        (
            "cluster: {twin: world}\nnodes:\n  via: local\n  local:\n"
            "    worker-01: {exec: ip netns, rundr: x}\n",
            [
                "target.yaml:5:5: nodes.local.worker-01.rundir: missing; expected the folder with "
                "db.sock and the control sockets. Add it.",
                "target.yaml:5:23: nodes.local.worker-01.exec: found 'ip netns' (text), expected a list: the "
                "command that leads into the node. Change it.",
                "target.yaml:5:33: nodes.local.worker-01.rundr: unknown field; expected exec or rundir. "
                "Did you mean 'rundir'?",
            ],
        ),
        (
            "cluster: {twin: world}\n---\ncluster: {twin: other}\n",
            ["target.yaml:3:1: a second document; the file of a target has one. Remove it."],
        ),
    ],
)
def test_a_broken_target_file_is_told_with_every_place(text: str, lines: list[str]) -> None:
    assert refused_file(text) == lines


HEAD = "apiVersion: ovsplan.io/v1alpha1\nkind: World\nmetadata: {name: small}\n"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("# nothing\n", ["world.yaml:1:1: the file is empty, expected a World."]),
        (
            "kind: Wrld\nspec: []\n",
            [
                "world.yaml:1:1: apiVersion: missing; expected 'ovsplan.io/v1alpha1'. Add it.",
                "world.yaml:1:1: metadata: missing; expected a mapping with 'name'. Add it.",
                "world.yaml:1:7: kind: found 'Wrld', expected 'World'. Change it.",
                "world.yaml:2:7: spec: found a list, expected a mapping with nodes, networks "
                "and vms. Change it.",
            ],
        ),
        (
            HEAD + "spec:\n  seed: 010\n  nodes:\n    worker-01:\n    worker-01: {}\n",
            [
                "world.yaml:5:9: spec.seed: found 8: 010 is a YAML 1.1 octal number. Write it in plain "
                "decimals, or quote it as text.",
                "world.yaml:7:5: spec.nodes.worker-01: found nothing. Give a value, or remove the key.",
                "world.yaml:8:5: spec.nodes.worker-01: this key is given twice, first in line 7. Remove one.",
            ],
        ),
        (
            HEAD + "spec:\n  vms:\n    a/b: {networks: {n: {nad: a/n, mac: 12:00:00:00:10:11}}}\n",
            [
                "world.yaml:6:41: spec.vms[a/b].networks.n.mac: found 9331200611: 12:00:00:00:10:11 "
                "is a YAML 1.1 base-60 number. Write it in plain decimals, or quote it as text.",
            ],
        ),
    ],
)
def test_a_world_file_of_the_wrong_shape_is_told_with_every_place(text: str, lines: list[str]) -> None:
    assert refused_world(text) == lines


def test_a_world_file_is_read_with_switches_and_instants_as_they_are_meant() -> None:
    text = HEAD + "spec:\n  start: 2026-01-15T01:00:00Z\n  controllers: {kubelet: off}\n  ovn: '23.03.1'\n"
    Path("world.yaml").write_text(text, encoding="utf-8")
    world = read_world_file("world.yaml")
    assert world.name == "small"
    assert world.spec == {
        "start": "2026-01-15T01:00:00Z",
        "controllers": {"kubelet": False},
        "ovn": "23.03.1",
    }
