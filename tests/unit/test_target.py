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


def refused(*, twin: str | None = None, context: str | None = None, target: str | None = None) -> list[str]:
    with pytest.raises(InputError) as error:
        open_target(twin=twin, context=context, target=target)
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


def test_a_context_is_for_later_and_the_ways_of_today_are_named() -> None:
    assert refused(context="prod") == [
        "--context prod: for later: this version does not yet reach a cluster by the Kubernetes API. "
        "Give --twin DIR or --target FILE."
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
        ("nodes: {via: twin}\n", ["target.yaml:1:1: cluster: missing; expected {twin: DIR}. Add it."]),
        (
            "cluster: {context: prod, kubeconfig: k, twin: world}\nnodes: {via: ssh}\n",
            [
                "target.yaml:1:11: cluster.context: not supported by this version. Remove it.",
                "target.yaml:1:26: cluster.kubeconfig: not supported by this version. Remove it.",
                "target.yaml:2:14: nodes.via: 'ssh' is not supported by this version; expected 'twin' or "
                "'local'. Change it.",
            ],
        ),
        (
            "cluster: {twin: world}\nnodes: {via: locl}\n",
            [
                "target.yaml:2:14: nodes.via: found 'locl', "
                "expected 'twin' or 'local'. Did you mean 'local'?",
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
