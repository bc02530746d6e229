from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from crash.lives import Halt, Job, job_of
from crash.others import NETWORK, ROLLOUT, small_world


@pytest.fixture
def halt() -> Iterator[Halt]:
    made = Halt()
    yield made
    made.close()


@pytest.fixture
def hot(tmp_path: Path) -> Job:
    """Two nodes, remapped under their VMs."""
    return job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK})


@pytest.fixture
def cold(tmp_path: Path) -> Job:
    """Two nodes, emptied first."""
    return job_of(tmp_path / "job", small_world(), {"network.yaml": NETWORK, "rollout.yaml": ROLLOUT})
