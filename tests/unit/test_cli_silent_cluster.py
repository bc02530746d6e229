"""A cluster that takes connections and never answers: a first sign of life, and whose fault it is."""

from __future__ import annotations

import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.main import run
from providers.kubernetes import transport

DESIRED = (
    "apiVersion: ovsplan.io/v1alpha1\nkind: VMNetwork\nmetadata: {name: vmnet}\nspec: {bridge: br-phy}\n"
)
CONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "{server}", insecure-skip-tls-verify: true}}}}]
users: [{{name: u, user: {{token: t}}}}]
contexts: [{{name: prod, context: {{cluster: c, user: u}}}}]
"""


@pytest.fixture(autouse=True)
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OVSPLAN_TARGET", raising=False)
    monkeypatch.setattr(transport, "CONNECTING", 0.2)
    monkeypatch.setattr(sys.modules[transport.__package__ + ".connect"], "_FIRST_PATIENCE", 0.1)
    Path("vmnet.yaml").write_text(DESIRED)
    Path("target.yaml").write_text("cluster: {kubeconfig: config, context: prod}\n")
    # The kernel takes the connections; nobody ever reads from them.
    with socket.create_server(("127.0.0.1", 0)) as server:
        Path("config").write_text(CONFIG.format(server=f"https://127.0.0.1:{server.getsockname()[1]}"))
        yield


CONTEXT = ("--context", "prod", "--kubeconfig", "config")


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize(
    ("words", "first"),
    [
        (("apply", "vmnet.yaml", "--auto-approve", *CONTEXT), "Asking the cluster of context prod ..."),
        (("init", "--out", "-", *CONTEXT), "Asking the cluster of context prod ..."),
        (("status", *CONTEXT), "Asking the cluster of context prod ..."),
        (("plan", "vmnet.yaml", "--json", *CONTEXT), "Planning for the cluster of context prod ..."),
        (
            ("plan", "vmnet.yaml", "--target", "target.yaml"),
            "Planning for the cluster of target target.yaml ...",
        ),
    ],
)
def test_the_first_line_is_there_before_the_cluster_answers(
    words: tuple[str, ...], first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(list(words)) == 1
    told = capsys.readouterr()
    began, error = told.err.splitlines()[0], " ".join(told.err.split("\n", 1)[1].split())
    assert (began, told.out) == (first, "")
    assert "takes the connection, and does not answer in time" in error and "URL" not in error, error


def test_a_twin_is_near_and_says_nothing_first(capsys: pytest.CaptureFixture[str]) -> None:
    Path("target.yaml").write_text("cluster: {twin: world}\n")
    for words in (["--twin", "world"], ["--target", "target.yaml"]):
        assert run(["status", *words]) == 1
        assert capsys.readouterr().err.startswith("Error: ")


def test_a_server_without_a_scheme_is_told_and_never_asked(capsys: pytest.CaptureFixture[str]) -> None:
    Path("config").write_text(CONFIG.format(server="127.0.0.1:1"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(["status", *CONTEXT]) == 1
    assert "Write it with its scheme: `server: https://127.0.0.1:1`." in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["init", "status"])
def test_an_empty_context_is_not_taken_for_none(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--context", "", "--kubeconfig", "config"]) == 1
    assert "Error: --context: given, and empty." in capsys.readouterr().err
