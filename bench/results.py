"""What a benchmark returns, and how it reads on a terminal and in `docs/performance.md`.

Invariant: a bar that was missed is printed as missed; nothing rounds it away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


class CannotRun(Exception):
    """This machine lacks something that the benchmark needs; the text says what."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One number that is judged: it must not be above `limit`."""

    what: str
    value: float
    limit: float

    @property
    def is_met(self) -> bool:
        return self.value <= self.limit

    def __str__(self) -> str:
        verdict = "met" if self.is_met else "MISSED"
        return f"{self.what}: {self.value:.2f} (bar: at most {self.limit:g}) {verdict}"


@dataclass(frozen=True, slots=True)
class Result:
    """A table, the bars judged on it, and remarks that belong beside it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    bars: tuple[Bar, ...]
    remarks: tuple[str, ...] = ()


def spread(values: Sequence[float], digits: int = 1) -> str:
    """`median (min-max)`."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def as_text(result: Result) -> str:
    """The result for a terminal."""
    lines = [result.header, *result.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(result.header))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([result.title, *(f"  {line.rstrip()}" for line in table), *_judged("  ", result)])


def as_markdown(result: Result) -> str:
    """The result for the page."""
    table = [result.header, tuple("---" for _ in result.header), *result.rows]
    return "\n".join(
        [
            f"**{result.title}**",
            "",
            *("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in table),
            "",
            *_judged("- ", result),
        ]
    )


def _judged(mark: str, result: Result) -> list[str]:
    return [f"{mark}{line}" for line in (*map(str, result.bars), *result.remarks)]
