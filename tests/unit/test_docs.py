"""What README, docs and the commands' help promise, held against the program and the repository.

Invariant: the commands that are run are read from the documents; a document that loses them fails too.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli.main import VERBS, ovsplan

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
TEXT = {".py", ".md", ".yaml", ".toml", ".lock", ""}
"""The suffixes of what is written by people; a world or a journal that lies in the checkout is not."""

RUN_BLOCK = re.compile(r"<!-- run:.*?-->\s*```console\n(.*?)```", re.S)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")
MAKE = re.compile(r"`make ([a-z-]+)`|^ *(?:\$ )?make ([a-z-]+)", re.M)
TEST_NAME = re.compile(r"\btest_\w+(…?)")

# In two pieces each, so that this file is not a finding of its own.
NOT_OURS = ("../sha" + "red", "/work/" + "shared", "ag" + "ent", "session" + "'s", "py" + "pi.org")


def files() -> Iterator[Path]:
    """Every text of the repository, relative to it."""
    for folder, below, names in os.walk(ROOT):
        below[:] = [n for n in below if n == ".ci" or not n.startswith((".", "__", "build"))]
        for name in names:
            path = Path(folder, name).relative_to(ROOT)
            if path.suffix in TEXT and "egg-info" not in str(path) and not name.startswith("."):
                yield path


def commands(path: str = "", command: click.Command = ovsplan) -> Iterator[tuple[str, click.Command]]:
    """Every command, as it is typed after `ovsplan`."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    if path:
        yield path, command
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from commands(f"{path} {name}".strip(), found)


def options() -> Iterator[tuple[str, click.Option]]:
    for path, command in commands():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield path, parameter


def run_blocks(document: Path) -> list[list[str]]:
    """The command lines of each block that a test runs."""
    blocks = RUN_BLOCK.findall(document.read_text())
    return [[line[2:] for line in block.splitlines() if line.startswith("$ ")] for block in blocks]


def test_the_commands_of_the_readme_do_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    blocks = run_blocks(README)
    assert blocks, "the README has lost the commands that a test runs"
    for block in blocks:
        assert [line.split()[0] for line in block] == ["ovsplan"] * len(block)
        done = ""
        for line in block:
            argv = [sys.executable, "-m", "cli.main", *line.split()[1:]]
            ran = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=120)
            assert ran.returncode == 0, f"$ {line}\n{ran.stdout}{ran.stderr}"
            done = ran.stdout
    assert "No changes." in done


@pytest.mark.parametrize("nth", range(2))
def test_the_plan_in_the_readme_is_the_plan_that_its_commands_print(nth: int, tmp_path: Path) -> None:
    """Line by line and in order; … stands for what it leaves out, be it lines or a part of one."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shown = re.findall(r"```text\n(Target: .*?)```", README.read_text(), re.S)
    assert len(shown) == len(run_blocks(README)) == 2
    printed = ""
    for line in run_blocks(README)[nth]:
        argv = [sys.executable, "-m", "cli.main", *line.split()[1:]]
        printed = subprocess.run(
            argv, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
        ).stdout
        if argv[3] == "plan":
            break
    left = iter(printed.splitlines())
    for line in filter(None, shown[nth].splitlines()):
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
        assert any(map(pattern.fullmatch, left)), (
            f"`ovsplan plan` does not print, or not in this order: {line}"
        )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(document: Path) -> None:
    links = [target for target, _ in LINK.findall(document.read_text()) if "://" not in target]
    missing = [target for target in links if not (document.parent / target).exists()]
    assert not missing


def test_the_readme_links_to_every_document_of_a_user() -> None:
    linked = {target for target, _ in LINK.findall(README.read_text())}
    assert {
        f"docs/{name}.md" for name in ("desired-state", "world", "exit-codes", "architecture", "glossary")
    } <= linked


def test_files_that_the_documents_name_exist() -> None:
    named = {
        (document.name, path)
        for document in DOCUMENTS
        for path in re.findall(r"`((?:[a-z]+/)+[a-z_.-]+\.(?:py|md|yaml))`", document.read_text())
    }
    assert named
    assert not [(name, path) for name, path in named if not (ROOT / path).exists()]


def test_every_command_has_help_and_is_in_the_readme() -> None:
    readme = README.read_text()
    assert {path.split()[0] for path, _ in commands()} == set(VERBS)
    for path, command in commands():
        assert command.help, f"ovsplan {path} has no help text"
        assert f"`{path.split()[0]}`" in readme, f"the README does not tell of ovsplan {path}"
        assert f"`{path.split()[-1]}`" in readme, f"the README does not tell of ovsplan {path}"


def test_every_option_has_help_that_the_user_sees() -> None:
    found = list(options())
    assert len(found) > 20
    assert not [f"ovsplan {path} {option.opts[0]}" for path, option in found if not option.help]
    assert not [f"ovsplan {path} {option.opts[0]}" for path, option in found if option.hidden]


def test_every_option_is_in_a_document() -> None:
    text = "\n".join(document.read_text() for document in DOCUMENTS)
    unsaid = {
        f"ovsplan {path} {option.opts[0]}"
        for path, option in options()
        if not re.search(rf"(?<![\w-]){option.opts[0]}(?![\w-])", text)
    }
    assert not unsaid


def test_options_that_the_documents_name_exist() -> None:
    """In a span of code that is a command of ours; `make` and other programs have options of their own."""
    known = {name for _, option in options() for name in option.opts} | {"--help", "--version"}
    unknown = {
        (document.name, span, name)
        for document in DOCUMENTS
        for span in re.findall(rf"`((?:ovsplan|{'|'.join(VERBS)}) [^`]*)`", document.read_text())
        for name in re.findall(r"--[a-z-]+", span)
        if name not in known
    }
    assert not unknown


def test_make_targets_that_the_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {
        (document.name, first or second)
        for document in DOCUMENTS
        for first, second in MAKE.findall(document.read_text())
    }
    assert {"demo", "test", "check", "bench"} <= {target for _, target in named}
    assert not [(name, target) for name, target in named if target not in targets]


def test_tests_that_the_documents_name_exist() -> None:
    """A name that ends in … stands for those that begin so."""
    sources = [path for path in files() if path.parts[0] == "tests" and path.suffix == ".py"]
    defined = {name for path in sources for name in re.findall(r"def (test_\w+)", (ROOT / path).read_text())}
    modules = {path.stem for path in sources}
    named = {
        (document.name, found[0])
        for document in DOCUMENTS
        for found in TEST_NAME.finditer(document.read_text())
    }
    assert named
    missing = {
        (document, name)
        for document, name in named
        if not (
            any(each.startswith(name[:-1]) for each in defined)
            if name.endswith("…")
            else name in defined | modules
        )
    }
    assert not missing


def test_no_file_leads_out_of_the_repository() -> None:
    # KubeVirt's own word for what runs in a guest is none of ours.
    words = re.compile(
        "|".join(rf"(?<!\w)(?<!guest[- ])(?<!QEMU ){re.escape(word)}(?!Connected)" for word in NOT_OURS), re.I
    )
    found = {(str(path), hit[0]) for path in files() for hit in words.finditer((ROOT / path).read_text())}
    assert not found


def test_every_hazard_that_a_plan_can_show_is_documented() -> None:
    found = {
        name
        for path in (ROOT / "plans").rglob("*.py")
        for name in re.findall(r"Finding\(\s*\"(H\d\d)\"", path.read_text())
    }
    told = (ROOT / "docs" / "hazards.md").read_text().partition("## Cannot arise")[0]
    assert len(found) > 20
    assert {name for name in found if name not in told} == set()
