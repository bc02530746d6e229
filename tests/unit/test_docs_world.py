"""docs/world.md, held against the twin's reader of World files and against the program.

Invariant: what a table says is compared with what the reader goes by, in both directions; the commands and files that
are tried are those of the page.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import providers.twin.spec
from providers.twin.spec import Default, Shape

from .test_docs import ROOT, RUN_BLOCK

PAGE = (ROOT / "docs" / "world.md").read_text()
ROW = re.compile(r"^\| `([^`]+)` \| (.+) \| (.+) \|$", re.M)
ENDS = re.compile(r"# ends with (\d)")
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```yaml\n(.*?)```", PAGE, re.S))


def shapes() -> list[Shape]:
    """The fields of every mapping that the reader knows."""
    package = providers.twin.spec
    modules = [
        importlib.import_module(f"{package.__name__}.{m.name}")
        for m in pkgutil.iter_modules(package.__path__)
    ]
    found = {id(one): one for module in modules for one in vars(module).values() if isinstance(one, Shape)}
    return list(found.values())


def table(place: str) -> dict[str, str]:
    """What the page says of each field of a mapping that is left out."""
    _, heading, rest = PAGE.partition(f"\n### `{place}`\n")
    assert heading, f"docs/world.md has no heading ### `{place}`"
    section = re.split(r"^##", rest, maxsplit=1, flags=re.M)[0]
    return {name: default for name, _, default in ROW.findall(section)}


def in_words(default: Any) -> str:
    """How the page has to show a default; a part of it, where it is said in words."""
    match default:
        case Default.REQUIRED:
            return "required"
        case Default() | "":
            return ""
        case bool():
            return f"`{'on' if default else 'off'}`"
        case list():
            return f"`[{', '.join(default)}]`"
    return f"`{default}`"


@pytest.mark.parametrize("shape", shapes(), ids=lambda shape: shape.place)
def test_every_field_of_a_world_file_is_told_with_its_default(shape: Shape) -> None:
    told = table(shape.place)
    assert list(told) == list(shape.names)
    wrong = {n: told[n] for n, default in shape.defaults.items() if not told[n].startswith(in_words(default))}
    assert not wrong


def test_the_page_has_no_table_of_a_mapping_that_is_none() -> None:
    headings = re.findall(r"^### `([^`]+)`", PAGE, re.M)
    assert set(headings) == {shape.place for shape in shapes()} | {"spec.objects"}


@pytest.mark.parametrize("nth", range(2), ids=["small", "rough"])
def test_the_worlds_of_the_page_are_made_planned_and_applied_as_it_says(nth: int, tmp_path: Path) -> None:
    blocks = RUN_BLOCK.findall(PAGE)
    assert len(blocks) == len(FILES) == len(re.findall("```yaml", PAGE)) == 2
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    lines = [line[2:] for line in blocks[nth].splitlines()]
    assert {word.split()[1] for word in lines} >= {"twin", "init", "apply", "plan"}
    for line in lines:
        argv = [sys.executable, "-m", "cli.main", *shlex.split(line, comments=True)[1:]]
        ran = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        expected = int(told[1]) if (told := ENDS.search(line)) else 0
        assert ran.returncode == expected, f"$ {line}\n{ran.stdout}{ran.stderr}"
