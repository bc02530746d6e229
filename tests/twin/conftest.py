from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.twin import TwinWorld
from twin.worlds import make


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TwinWorld]:
    with make(tmp_path / "world") as made:
        yield made
