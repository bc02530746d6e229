"""Paths on the command line: which files they stand for, and what is said when they stand for none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.files import read_yaml_files
from plans.errors import InputError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str = "a: 1\n") -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")


def refused(*paths: str) -> list[str]:
    with pytest.raises(InputError) as error:
        read_yaml_files(paths)
    return str(error.value).splitlines()


def test_a_folder_stands_for_the_yaml_files_directly_in_it() -> None:
    for name in ("net/b.yml", "net/a.yaml", "net/.hidden.yaml", "net/notes.txt", "net/deep/c.yaml"):
        write(name, f"# {name}\n")
    assert read_yaml_files(["net"]) == [("net/a.yaml", "# net/a.yaml\n"), ("net/b.yml", "# net/b.yml\n")]


def test_the_current_folder_is_read_when_none_is_named() -> None:
    write("vmnet.yaml")
    assert read_yaml_files([]) == [("vmnet.yaml", "a: 1\n")]


def test_a_file_is_taken_by_any_name_it_has() -> None:
    write("desired.txt")
    assert read_yaml_files(["desired.txt"]) == [("desired.txt", "a: 1\n")]


def test_a_file_reached_by_several_ways_is_read_once() -> None:
    write("net/a.yaml")
    os.symlink("a.yaml", "net/b.yaml")
    assert [path for path, _ in read_yaml_files(["net/a.yaml", "net", "./net/../net/a.yaml"])] == [
        "net/a.yaml"
    ]


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    Path("bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml_files(["bom.yaml"]) == [("bom.yaml", "a: 1\n")]


def test_everything_unreadable_is_named_at_once() -> None:
    write("empty/notes.txt")
    Path("latin.yaml").write_bytes(b"a: 1\nb: gr\xfcn\n")
    os.mkfifo("pipe.yaml")
    os.symlink("nowhere.yaml", "link.yaml")
    assert refused("missing.yaml", "empty", "latin.yaml", "pipe.yaml", "link.yaml") == [
        "empty holds no *.yaml or *.yml file. Name the files, or a folder that holds them.",
        "latin.yaml: not UTF-8: byte 0xfc in line 2. Save it as UTF-8.",
        "link.yaml: is a link to nowhere.yaml, which is not there. Correct the link.",
        "missing.yaml: no such file or folder. Check the path.",
        "pipe.yaml: is neither a file nor a folder. Name a YAML file.",
    ]


def test_an_empty_current_folder_is_said_so() -> None:
    assert refused() == [
        "the current folder holds no *.yaml or *.yml file. Name the files, or a folder that holds them."
    ]


def test_a_file_that_may_not_be_read_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    write("secret.yaml")

    def deny(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    # Root reads every file, whatever its mode.
    monkeypatch.setattr(Path, "read_bytes", deny)
    assert refused("secret.yaml") == [
        "secret.yaml: cannot be read: Permission denied. Check its permissions."
    ]
