"""YAML for people: documents with comments, from values.

The one invariant: whatever stands in a value or a comment, the text reads back as that value, by YAML 1.1 and by ours.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

WIDTH = 110

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One field of a `spec`: what people should know of it, and its value; `off` is told as a comment, not declared.

    A mapping with `block` has one line for each of its keys.
    """

    name: str
    value: Any
    comments: tuple[str, ...] = ()
    block: bool = False
    off: bool = False


def document(
    header: Sequence[str],
    kind: str,
    name: str,
    spec: Sequence[Entry],
    *,
    version: str = "ovsplan.io/v1alpha1",
) -> str:
    """A whole document with its comments; a spec without a value in force is `{}`."""
    lines = [
        *comment(header, ""),
        f"apiVersion: {version}",
        f"kind: {kind}",
        f"metadata: {{name: {scalar(name)}}}",
    ]
    fields = [line for entry in spec for line in _lines(entry)]
    in_force = any(not entry.off for entry in spec)
    return "\n".join([*lines, "spec:" if in_force else "spec: {}", *fields, ""])


def _lines(entry: Entry) -> list[str]:
    told = comment(entry.comments, "  ")
    if entry.value is None:
        return told
    if entry.block:
        body = [f"{entry.name}:", *(f"  {scalar(key)}: {flow(value)}" for key, value in entry.value.items())]
    else:
        body = [f"{entry.name}: {flow(entry.value)}"]
    return [*told, *(f"  {'# ' if entry.off else ''}{line}" for line in body)]


def comment(sentences: Iterable[str], indent: str) -> list[str]:
    """Comment lines, each sentence on lines of its own; what YAML forbids even there is left out."""
    lines = []
    for sentence in sentences:
        plain = " ".join("".join(c if c.isprintable() else " " for c in sentence).split())
        lines += textwrap.wrap(
            plain,
            WIDTH,
            initial_indent=f"{indent}# ",
            subsequent_indent=f"{indent}#   ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def scalar(value: Any) -> str:
    """A text, number or truth value; a text that could be read as anything else is quoted."""
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
        return value
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    return letter if letter.isascii() and letter.isprintable() else f"\\U{ord(letter):08x}"
