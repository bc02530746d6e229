"""One lab for the whole session, on which the tests here take turns.

Invariant: whatever a test does to a node, `reset` undoes before the next one looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.apiserver.server import CannotRun, binaries

from . import daemons, kit
from .lab import Lab
from .netns import LabError

WORLD = Path(__file__).with_name("world.yaml")


@pytest.fixture(scope="session")
def needs_daemons() -> None:
    """Skips where no lab can be built, naming what is missing."""
    if lacking := daemons.lacking():
        pytest.skip(f"no lab: this machine lacks {', '.join(lacking)}")


@pytest.fixture(scope="session")
def needs_nmstate(needs_daemons: None) -> None:
    """Skips where NetworkManager and nmstate can't be built, saying why; builds them where they are not yet."""
    try:
        kit.built()
    except LabError as exc:
        pytest.skip(f"no lab nodes with nmstate: {exc}")


@pytest.fixture(scope="session")
def needs_api_server() -> None:
    """Skips where no API server can be built, saying why."""
    try:
        binaries()
    except CannotRun as exc:
        pytest.skip(f"no API server: {exc}")


@pytest.fixture(scope="session")
def lab(needs_daemons: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    document = yaml.safe_load(WORLD.read_text())
    with Lab.up(document, tmp_path_factory.mktemp("lab") / "world-1") as lab:
        yield lab
