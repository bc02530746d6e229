"""`python -m bench [NAME]... [--write]`: run benchmarks, print their tables, and keep them in `docs/performance.md`.

Invariant: the exit code is 1 when a bar was missed; a benchmark that this machine can't run is named, not passed over.
"""

from __future__ import annotations

import argparse
import sys

from bench import cluster, journal, outage, page, planning, policies, start
from bench.results import CannotRun, as_text

BENCHMARKS = {
    "start": start.measure,
    "journal": journal.measure,
    "planning": planning.measure,
    "cluster": cluster.measure,
    "outage": outage.measure,
    "policies": policies.measure,
}


def main() -> int:
    """Run what is named, or all of it."""
    arguments = _parser().parse_args()
    print(f"On {page.machine()}.\n")
    missed = False
    for name in arguments.names or BENCHMARKS:
        try:
            result = BENCHMARKS[name]()
        except CannotRun as why:
            print(f"{name}: not run: {why}\n")
            continue
        print(f"{as_text(result)}\n", flush=True)
        missed = missed or not all(bar.is_met for bar in result.bars)
        if arguments.write:
            page.PAGE.write_text(page.written(page.PAGE.read_text(), name, result))
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    # `choices` on an empty list of positionals is refused by this Python, so each name is checked by its type.
    parser.add_argument("names", nargs="*", metavar="NAME", type=_known, help=", ".join(BENCHMARKS))
    parser.add_argument("--write", action="store_true", help="keep the result in docs/performance.md")
    return parser


def _known(name: str) -> str:
    if name not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"there is no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    return name


if __name__ == "__main__":
    sys.exit(main())
