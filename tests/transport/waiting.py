"""Waiting for what comes by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def await_true(condition: Callable[[], bool], what: str, *, within: float = 10) -> None:
    """Return once `condition` holds; fails after `within` seconds."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"not within {within} s: {what}"
        time.sleep(0.02)


def is_dead(pid: str) -> bool:
    """Whether the process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
