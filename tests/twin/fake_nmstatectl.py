"""A program that stands in for `nmstatectl` on a node that is only an object: it reads, remembers and answers.

Its memory is the folder NMSTATE_FAKE: `state.json` is what `show` says, `log` has one line per command. A desired
state whose `interfaces` name `missing0` is refused, and `broken` in the folder makes `show` fail.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("NMSTATE_FAKE", "."))


def main(argv: list[str]) -> int:
    with (FOLDER / "log").open("a") as log:
        log.write(" ".join(argv) + "\n")
    match argv:
        case ["--version"]:
            print("nmstatectl 2.2.62")
        case ["show", "--json"]:
            return _show()
        case ["policy", "--json", "/dev/stdin"]:
            return _policy(json.load(sys.stdin).get("desiredState", {}))
        case ["apply", "--no-commit", "--timeout", "480"]:
            return _apply(json.load(sys.stdin))
        case ["commit"] | ["rollback"]:
            pass
        case _:
            return _refuse(f"error: unexpected argument {argv}")
    return 0


def _show() -> int:
    if (FOLDER / "broken").exists():
        return _refuse("NmstateError: InvalidArgument: invalid ovn-bridge-mappings")
    state = FOLDER / "state.json"
    print(state.read_text() if state.exists() else '{"interfaces": [], "ovs-db": {}}')
    return 0


def _policy(desired: dict[str, Any]) -> int:
    for name in desired:
        if name not in ("interfaces", "ovn", "routes", "dns-resolver", "ovs-db"):
            return _refuse(f"NmstateError: InvalidArgument: unknown field `{name}`")
    print(json.dumps({"interfaces": [], **desired}, sort_keys=True))
    return 0


def _apply(desired: dict[str, Any]) -> int:
    if any(interface["name"] == "missing0" for interface in desired["interfaces"]):
        return _refuse("NmstateError: InvalidArgument: Ethernet interface missing0 does not exists")
    (FOLDER / "state.json").write_text(json.dumps(desired))
    return 0


def _refuse(why: str) -> int:
    print(why, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
