"""One API server for the whole session, shared by the tests here.

Invariant: a test makes what it needs in a namespace, or under a name prefix, of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .server import ApiServer, CannotRun, binaries


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Skips where none can be built, with the reason."""
    try:
        binaries()
    except CannotRun as reason:
        pytest.skip(f"no API server: {reason}")
    with ApiServer.up(tmp_path_factory.mktemp("apiserver")) as server:
        yield server
