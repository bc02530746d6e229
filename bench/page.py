"""`docs/performance.md`: its measured section, one part for each benchmark.

Invariant: only what stands between a benchmark's two markers is rewritten; the rest of the page is a person's.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from bench.results import Result, as_markdown

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def written(page: str, name: str, result: Result) -> str:
    """The page with a benchmark's part replaced. Raises ValueError when the page has no place for it."""
    opening, closing = f"<!-- measured: {name} -->", f"<!-- end: {name} -->"
    head, found, rest = page.partition(opening)
    _, ended, tail = rest.partition(closing)
    if not found or not ended:
        raise ValueError(f"{PAGE} has no part {opening} … {closing}")
    return f"{head}{opening}\n{as_markdown(result)}\n\nMeasured on {machine()}.\n{closing}{tail}"


def machine() -> str:
    """What the numbers were taken on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        f"click {version('click')}, SQLAlchemy {version('sqlalchemy')}",
        *filter(None, [_version("ovs-vsctl"), _version("ovn-controller")]),
        time.strftime("%Y-%m-%d", time.gmtime()),
    ]
    return "; ".join(parts)


def _version(program: str) -> str:
    if shutil.which(program) is None:
        return ""
    return subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]
