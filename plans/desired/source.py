"""YAML text to documents that know where everything stands.

The one invariant: nothing that a text says is guessed, dropped or overwritten in silence. A key given
twice, a tag, a merge key, a key that is not text: each is a problem with a position. The work is bounded by
the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from plans.errors import Problem

Loc = tuple[str | int, ...]
"""The way to a value from the root of its document: keys and list indices."""

Position = tuple[int, int]
"""Line and column, both counted from 1."""

MAX_DEPTH = 50
MAX_REPEATED = 100_000
"""Values that aliases may add to what is written."""

_TAG = "tag:yaml.org,2002:"
_LARGEST = 2**63
_WORDS_OF_YAML_1_2 = {"true", "True", "TRUE", "false", "False", "FALSE"}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar as it stands in the file, and how YAML 1.1 reads it."""

    text: str
    reading: str

    @property
    def is_trap(self) -> bool:
        """Read as a number that nobody who typed it has in mind: 010 is eight, 1:30 is ninety."""
        return self.reading in ("a YAML 1.1 octal number", "a YAML 1.1 base-60 number")


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: plain values, and where each stands. `refused` holds what has a problem already."""

    path: str
    value: Any
    values_at: Mapping[Loc, Position]
    keys_at: Mapping[Loc, Position]
    scalars: Mapping[Loc, Scalar]
    refused: frozenset[Loc] = frozenset()

    def position(self, loc: Loc) -> Position:
        """Where the value stands; of a value that is not there, where its nearest parent stands."""
        while loc not in self.values_at:
            loc = loc[:-1]
        return self.values_at[loc]

    def key_position(self, loc: Loc) -> Position:
        """Where the key of a value stands; for a list item or the root, where the value stands."""
        while loc and loc not in self.values_at:
            loc = loc[:-1]
        return self.keys_at.get(loc) or self.position(loc)

    def get(self, loc: Loc) -> Any:
        """The value at `loc`, or None."""
        value = self.value
        for step in loc:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def problem(self, loc: Loc, message: str, *, at_key: bool = False) -> Problem:
        """`message`, placed at the value or at its key."""
        line, column = self.key_position(loc) if at_key else self.position(loc)
        return Problem(self.path, line, column, message)

    def place(self, loc: Loc = ()) -> str:
        """`file:line` of the value."""
        return f"{self.path}:{self.position(loc)[0]}"

    def is_refused(self, loc: Loc) -> bool:
        """Whether the value, or one that it is part of, already has a problem."""
        return any(loc[:length] in self.refused for length in range(len(loc) + 1))


@dataclass(frozen=True, slots=True)
class Source:
    """What one text holds: its documents, and what is wrong with it as YAML."""

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...]


def field_name(loc: Loc) -> str:
    """`loc` as people write it: `spec.order[1]`, `spec.nodes[example.com/rack]`."""
    text = ""
    for step in loc:
        if isinstance(step, str) and re.fullmatch(r"[A-Za-z0-9_-]+", step):
            text += f".{step}" if text else step
        else:
            text += f"[{step if isinstance(step, int) or step.isprintable() else repr(step)}]"
    return text


def read_documents(path: str, text: str) -> Source:
    """The documents of one text; empty ones are left out. What follows malformed YAML is not read."""
    documents: list[Document] = []
    problems: list[Problem] = []
    try:
        for node in _compose(text):
            if isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}null":
                continue
            _measure(node, {}, MAX_REPEATED + len(text))
            builder = _Builder(path)
            documents.append(builder.document(node))
            problems += builder.problems
    except yaml.reader.ReaderError as error:
        problems.append(_unprintable(path, text, error))
    except yaml.MarkedYAMLError as error:
        problems.append(_malformed(path, text, error))
    return Source(tuple(documents), tuple(dict.fromkeys(problems)))


class _Loader(yaml.SafeLoader):
    """Composes no deeper than MAX_DEPTH: the composer recurses, so depth would end in a RecursionError."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _too_deep(self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _compose(text: str) -> Iterator[yaml.Node]:
    loader = _Loader(text)
    while loader.check_node():
        node = loader.get_node()
        if node is not None:
            yield node


def _too_deep(mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} levels deep", problem_mark=mark)


@dataclass(frozen=True, slots=True)
class _Extent:
    """How much a node becomes when its aliases are written out."""

    values: int
    height: int


def _measure(node: yaml.Node, known: dict[int, _Extent | None], limit: int) -> _Extent:
    """The extent of `node`, found without writing aliases out. Raises when it is not to be written out."""
    if id(node) in known:
        extent = known[id(node)]
        if extent is None:
            problem = "an anchor whose value contains itself"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return extent
    known[id(node)] = None
    children = [_measure(child, known, limit) for child in _children(node)]
    extent = _Extent(1 + sum(c.values for c in children), 1 + max((c.height for c in children), default=0))
    if extent.height > MAX_DEPTH:
        raise _too_deep(node.start_mark)
    if extent.values > limit:
        problem = f"aliases that expand to more than {MAX_REPEATED} values"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    known[id(node)] = extent
    return extent


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _at(mark: yaml.Mark) -> Position:
    return mark.line + 1, mark.column + 1


@dataclass
class _Builder:
    """Makes plain values of nodes; the node has been measured, so that the recursion ends."""

    path: str
    problems: list[Problem] = field(default_factory=list)
    values_at: dict[Loc, Position] = field(default_factory=dict)
    keys_at: dict[Loc, Position] = field(default_factory=dict)
    scalars: dict[Loc, Scalar] = field(default_factory=dict)
    refused: set[Loc] = field(default_factory=set)

    def document(self, node: yaml.Node) -> Document:
        value = self._value(node, ())
        refused = frozenset(self.refused)
        return Document(self.path, value, self.values_at, self.keys_at, self.scalars, refused)

    def _value(self, node: yaml.Node, loc: Loc) -> Any:
        self.values_at[loc] = _at(node.start_mark)
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, loc)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self._value(item, (*loc, number)) for number, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, loc)
        return self._refuse_tag(node, loc)

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, loc)
            if key is None:
                continue
            if key in result:
                first = self.keys_at[(*loc, key)][0]
                message = f"this key is given twice, first in line {first}. Remove one."
                self._problem(key_node, (*loc, key), message)
                continue
            self.keys_at[(*loc, key)] = _at(key_node.start_mark)
            result[key] = self._value(value_node, (*loc, key))
        return result

    def _key(self, node: yaml.Node, loc: Loc) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._problem(node, loc, "found a key that is a list or a mapping, expected text.")
            return None
        if node.tag == f"{_TAG}merge":
            self._problem(node, loc, "merge keys ('<<') are not supported. Write the fields out.")
            return None
        if node.tag in (f"{_TAG}str", f"{_TAG}timestamp", f"{_TAG}value"):
            return str(node.value)
        if not node.tag.startswith(_TAG):
            self._refuse_tag(node, loc)
            return None
        reading = _reading(node.tag.removeprefix(_TAG), node.value)
        what = f"found the key {node.value or 'null'} ({reading})"
        self._problem(node, loc, f'{what}, expected text: quote it, as "{node.value}".')
        return None

    def _scalar(self, node: yaml.ScalarNode, loc: Loc) -> Any:
        kind = node.tag.removeprefix(_TAG)
        if kind not in ("str", "timestamp", "value", "null", "bool", "int", "float"):
            return self._refuse_tag(node, loc)
        self.scalars[loc] = Scalar(node.value, _reading(kind, node.value))
        if kind in ("str", "timestamp", "value"):
            return node.value
        if kind == "null":
            return None
        try:
            value = _construct(kind, node)
        except (ValueError, KeyError):
            value = None
        if value is None or (kind == "int" and abs(value) >= _LARGEST):
            self.refused.add(loc)
            message = f"found {_short(node.value)}, which is no usable number or boolean. Correct it."
            self._problem(node, loc, message)
            return None
        return value

    def _refuse_tag(self, node: yaml.Node, loc: Loc) -> None:
        self.refused.add(loc)
        tag = f"!!{node.tag.removeprefix(_TAG)}" if node.tag.startswith(_TAG) else node.tag
        self._problem(node, loc, f"found the tag {tag}, expected a plain value. Remove the tag.")

    def _problem(self, node: yaml.Node, loc: Loc, message: str) -> None:
        line, column = _at(node.start_mark)
        where = f"{field_name(loc)}: " if loc else ""
        self.problems.append(Problem(self.path, line, column, where + message))


def _construct(kind: str, node: yaml.ScalarNode) -> Any:
    maker = yaml.constructor.SafeConstructor()
    construct = {
        "bool": maker.construct_yaml_bool,
        "int": maker.construct_yaml_int,
        "float": maker.construct_yaml_float,
    }[kind]
    return construct(node)


def _reading(kind: str, text: str) -> str:
    """How YAML 1.1 reads a scalar, told apart from what YAML 1.2 would do too."""
    if kind == "bool":
        return "a boolean" if text in _WORDS_OF_YAML_1_2 else "a YAML 1.1 boolean"
    if kind == "int":
        digits = text.lstrip("+-")
        if ":" in digits:
            return "a YAML 1.1 base-60 number"
        if re.fullmatch(r"0[0-7_]+", digits):
            return "a YAML 1.1 octal number"
        return "a number" if digits.isdecimal() else "a YAML 1.1 number"
    if kind == "float":
        return "a YAML 1.1 base-60 number" if ":" in text else "a number"
    return "nothing" if kind == "null" else "text"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _malformed(path: str, text: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = _at(mark) if mark else (1, 1)
    lines = text.splitlines()
    here = lines[line - 1] if line <= len(lines) else ""
    if "\t" in here[: len(here) - len(here.lstrip())]:
        return Problem(
            path, line, 1, "found a tab in the indentation; YAML takes only spaces there. Replace it."
        )
    said = error.problem or "it cannot be read"
    opened = error.context_mark
    since = f" ({error.context}, begun in line {opened.line + 1})" if opened and opened is not mark else ""
    message = f"not valid YAML: {said}{since}. Correct it; what follows was not read."
    return Problem(path, line, column, message)


def _unprintable(path: str, text: str, error: yaml.reader.ReaderError) -> Problem:
    before = text[: error.position]
    line, column = before.count("\n") + 1, error.position - before.rfind("\n")
    code = ord(text[error.position])
    message = f"not valid YAML: found the control character U+{code:04X}. Remove it."
    return Problem(path, line, column, message)
