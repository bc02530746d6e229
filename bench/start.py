"""How long `ovsplan --help` takes, in units of the interpreter that has imported click.

Invariant: both are whole processes, started in turn, so that a busy moment of the machine meets both.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench.results import Bar, CannotRun, Result, spread

_TIMES = 25


def measure() -> Result:
    """Alternate the two processes."""
    script = Path(sys.executable).with_name("ovsplan")
    if not script.exists():
        raise CannotRun(f"{script} is not installed")
    commands = {
        '`python -c "import click"`': [sys.executable, "-c", "import click"],
        "`ovsplan --help`": [str(script), "--help"],
    }
    for argv in commands.values():
        _milliseconds(argv)
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(_TIMES):
        for name, argv in commands.items():
            taken[name].append(_milliseconds(argv))
    click, ours = taken.values()
    return Result(
        "start: the command line, whole processes",
        ("process", "n", "ms: median (min-max)"),
        tuple((name, str(_TIMES), spread(values)) for name, values in taken.items()),
        (Bar("ratio of the medians", median(ours) / median(click), 2.0),),
    )


def _milliseconds(argv: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1000
