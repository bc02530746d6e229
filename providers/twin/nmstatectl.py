"""The `nmstatectl` command of a node. Documents are JSON, which is YAML; other text is refused, and so told.

`show`, `policy`, `version` and bad usage can be answered at once (`run`). `apply`, `commit` and `rollback` take time:
`begin` hands the command to NetworkManager's controller, in whose memory (`networkmanager`, by node) it stands as
`jobs[unit]`, with `at` (the instant of the next step), `step`, and what the steps need. When it ends the job goes, and
`Stage.recall("units", "NODE UNIT")` is `{"rc": int, "out": str, "err": str}`; until then that is None.
Invariant: a command begun ends, whatever becomes of the node's switch, unless the controller is switched off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from providers.ports import Finished
from providers.twin import networkmanager, nmstate_documents, nmstate_state, versions
from providers.twin.networkmanager import NAME, READ, log_line
from providers.twin.nmstate_documents import NmstateError
from providers.twin.stage import UNITS, Stage

PROGRAM = "nmstatectl"
_TIMEOUT = 60
_COMMIT = 0.05
_ROLLBACK = 0.1
_STDIN = ("-", "/dev/stdin")
_QUIET = ("-q", "-k", "--kernel", "-s", "--show-secrets", "-r", "--running-config", "--json", "--memory-only")


class _Usage(Exception):
    """The command line is not one of nmstatectl's, or not one that the twin knows."""


def begin(stage: Stage, node: str, unit: str, argv: Sequence[str], stdin: bytes) -> None:
    """Start the command; it runs on by itself under the name `unit`."""
    done = _immediately(stage, node, argv, stdin)
    if done is not None:
        stage.keep(UNITS, f"{node} {unit}", {"rc": done.rc, "out": done.out, "err": done.err})
        return
    memory = networkmanager.recall(stage, node)
    memory["jobs"][unit] = {**_job(argv, stdin, stage.clock.now()), "log": [_greeting(stage, node)]}
    stage.keep(NAME, node, memory)
    stage.remind(NAME, node, memory["jobs"][unit]["at"])


def run(stage: Stage, node: str, argv: Sequence[str], stdin: bytes) -> Finished:
    """Run the command to its end, if it has one at this instant; one that takes time is refused."""
    done = _immediately(stage, node, argv, stdin)
    if done is not None:
        return done
    if argv[1] == "show":
        return _answered(stage, node, lambda: _shown(stage, node, argv[2:]))
    why = f"nmstatectl {argv[1]} takes time: start it detached, and ask for its end"
    return Finished(1, "", f"{why} (the twin does not run it in the foreground)\n")


def _immediately(stage: Stage, node: str, argv: Sequence[str], stdin: bytes) -> Finished | None:
    """The answer to what needs neither NetworkManager nor time; None for the rest."""
    version = versions.nmstate(stage, node)
    if version is None:
        return Finished(127, "", f"sh: 1: {PROGRAM}: not found\n")
    try:
        match list(argv[1:]):
            case ["--version" | "-V" | "version"]:
                return Finished(0, f"{PROGRAM} {version}\n", "")
            case ["policy", *rest]:
                return _answered(stage, node, lambda: _policy(rest, stdin))
            case ["apply" | "commit" | "rollback" | "show", *_]:
                _job(argv, stdin, 0.0)
                return None
            case [verb, *_]:
                raise _Usage(f"unrecognized subcommand '{verb}'")
        raise _Usage("a subcommand is required")
    except _Usage as error:
        return Finished(2, "", f"error: {error}\n\nFor more information, try '--help'.\n")
    except NmstateError as error:
        return Finished(1, "", f"{_greeting(stage, node)}\n{error}\n")


def _greeting(stage: Stage, node: str) -> str:
    version = versions.nmstate(stage, node)
    return log_line(stage.clock.now(), "INFO ", "nmstatectl", f"Nmstate version: {version}")


def _answered(stage: Stage, node: str, answer: Callable[[], str]) -> Finished:
    try:
        return Finished(0, answer(), f"{_greeting(stage, node)}\n")
    except NmstateError as error:
        return Finished(1, "", f"{_greeting(stage, node)}\n{error}\n")


def _policy(args: Sequence[str], stdin: bytes) -> str:
    _read_args(args, valued=("-c", "--current", "-a", "--captured", "-o", "--output-captured"), needed=1)
    return json.dumps(nmstate_documents.policy(nmstate_documents.load(stdin)), indent=2) + "\n"


def _shown(stage: Stage, node: str, args: Sequence[str]) -> str:
    return networkmanager.show_text(nmstate_state.read(stage, node), _only(args))


def _only(args: Sequence[str]) -> str:
    _, names = _read_args(args, files=False)
    return names[0] if names else ""


def _job(argv: Sequence[str], stdin: bytes, now: float) -> dict[str, Any]:
    """The memory of a command. Raises NmstateError for a document that no node accepts."""
    verb, args = argv[1], argv[2:]
    common = {"begun": now, "step": verb}
    match verb:
        case "show":
            return {**common, "at": now + READ, "only": _only(args)}
        case "commit" | "rollback":
            _, names = _read_args(args, files=False)
            at = now + (_COMMIT if verb == "commit" else _ROLLBACK)
            return {**common, "at": at, "checkpoint": names[0] if names else ""}
    options, _ = _read_args(args, flags=("--no-verify", "--no-commit"), valued=("--timeout",))
    document = nmstate_documents.load(stdin)
    nmstate_documents.parse(document)
    timeout = options.get("--timeout", str(_TIMEOUT))
    if not timeout.isdigit():
        raise _Usage(f"invalid value '{timeout}' for '--timeout <TIMEOUT>': invalid digit found in string")
    return {
        **common,
        "step": "read",
        "at": now + READ,
        "document": document,
        "commit": "--no-commit" not in options,
        "verify": "--no-verify" not in options,
        "timeout": int(timeout),
        "round": 1,
        "tries": 0,
    }


def _read_args(
    args: Sequence[str],
    *,
    flags: Sequence[str] = (),
    valued: Sequence[str] = (),
    files: bool = True,
    needed: int = 0,
) -> tuple[dict[str, str], list[str]]:
    """The options given, and the other arguments. A file can only be standard input: the twin's nodes have no files."""
    options: dict[str, str] = {}
    rest: list[str] = []
    left = list(args)
    while left:
        arg = left.pop(0)
        name, equals, value = arg.partition("=")
        if name in valued:
            if not equals and not left:
                raise _Usage(f"a value is required for '{name}' but none was supplied")
            options[name] = value if equals else left.pop(0)
        elif arg in flags or arg in _QUIET or (arg.startswith("-v") and set(arg[1:]) == {"v"}):
            options[arg] = ""
        elif arg.startswith("-") and arg != "-":
            raise _Usage(f"unexpected argument '{arg}' found")
        else:
            rest.append(arg)
    if files and any(name not in _STDIN for name in rest):
        raise NmstateError("std::io::Error: No such file or directory (os error 2)")
    if len(rest) < needed:
        raise _Usage("the following required arguments were not provided: <POLICY_FILE>")
    return options, rest
