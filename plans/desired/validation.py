"""A document against a pydantic model: every error as a Problem in our words, at the place it was made.

The one invariant: a document fits, or has at least one problem; nothing of pydantic's wording gets out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from plans.desired.source import Document, Loc, field_name
from plans.errors import Problem

M = TypeVar("M", bound=BaseModel)
V = TypeVar("V")

NOT_YET = "not supported by this version"

_GIVE_A_VALUE = "Give a value, or remove the key."
_KEY = "[key]"
_TEXT, _NUMBER, _MAPPING, _LIST = "text", "a whole number", "a mapping", "a list"
_EXPECTED = {
    "string_type": _TEXT,
    "int_type": _NUMBER,
    "int_from_float": _NUMBER,
    "bool_type": "true or false",
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "mapping_type": _MAPPING,
    "dict_type": _MAPPING,
    "tuple_type": _LIST,
    "list_type": _LIST,
    "is_instance_of": _MAPPING,
}


@dataclass(frozen=True, slots=True)
class Wording:
    """What a format says about its own fields. In a Loc here, `*` stands for any key or index."""

    expected: Mapping[Loc, str] = field(default_factory=dict)
    """What belongs at a field, for when it is missing or of the wrong shape."""
    later_fields: frozenset[Loc] = frozenset()
    later_values: Mapping[Loc, frozenset[str]] = field(default_factory=dict)
    later_forms: Mapping[Loc, str] = field(default_factory=dict)
    """Fields whose long form (a mapping) is later work, with what to write now."""
    variants: frozenset[str] = frozenset()
    """The names that the model's unions put into an error's loc: no part of the document."""

    def expects(self, loc: Loc) -> str:
        """What belongs at `loc`, or nothing when the type says it well enough."""
        return _lookup(self.expected, loc) or ""


def fit(model: type[M], document: Document, wording: Wording) -> tuple[M | None, list[Problem]]:
    """The document as `model`, or None; and everything that is wrong with it beyond its `refused` values."""
    result: M | None = None
    told: dict[tuple[Loc, bool], Problem] = {}
    try:
        result = model.model_validate(document.value)
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False):
            loc, of_key = _loc_in_document(error["loc"], wording)
            if not document.is_refused(loc):
                problem = _Error(model, document, wording, loc, of_key, error).problem()
                told.setdefault((loc, of_key), problem)
    wrong = {loc for loc, of_key in told if not of_key}
    for loc, problem in _misread_scalars(document, wording):
        if not any(loc[:length] in wrong for length in range(len(loc) + 1)):
            told[loc, False] = problem
    return (None if told else result), list(told.values())


def _misread_scalars(document: Document, wording: Wording) -> Iterator[tuple[Loc, Problem]]:
    """Values that a model may take, but that are not what the file seems to say: nulls, octal numbers."""
    for loc, scalar in document.scalars.items():
        if document.is_refused(loc):
            continue
        name = field_name(loc) or "document"
        if scalar.reading == "nothing":
            expected = wording.expects(loc)
            say = f"found nothing{expected and f', expected {expected}'}. {_GIVE_A_VALUE}"
            yield loc, document.problem(loc, f"{name}: {say}", at_key=True)
        elif scalar.is_trap:
            value, text = document.get(loc), scalar.text
            say = (
                f"found {value}: {text} is {scalar.reading}. Write it in plain decimals, or quote it as text."
            )
            yield loc, document.problem(loc, f"{name}: {say}")


def nearest(word: object, choices: list[str]) -> str:
    """` Did you mean …?`, or nothing when no choice is near."""
    lower = {choice.lower(): choice for choice in choices}
    close = get_close_matches(str(word).lower(), lower, n=1)
    return f" Did you mean '{lower[close[0]]}'?" if close else ""


def one_of(choices: list[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    return " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))


def found(document: Document, loc: Loc) -> str:
    """The value at `loc` as a message names it."""
    value = document.get(loc)
    if isinstance(value, dict | list):
        return _MAPPING if isinstance(value, dict) else _LIST
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str) else str(value).lower()
    text = text if len(text) <= 60 else f"{text[:56]}...'"
    return f"{text} ({document.scalars[loc].reading})"


def _loc_in_document(raw: Loc, wording: Wording) -> tuple[Loc, bool]:
    of_key = bool(raw) and raw[-1] == _KEY
    steps = raw[:-1] if of_key else raw
    return tuple(step for step in steps if step not in wording.variants), of_key


def _lookup(table: Mapping[Loc, V], loc: Loc) -> V | None:
    return next((value for pattern, value in table.items() if _matches(loc, pattern)), None)


def _matches(loc: Loc, pattern: Loc) -> bool:
    return len(loc) == len(pattern) and all(p in ("*", step) for p, step in zip(pattern, loc, strict=True))


@dataclass(frozen=True, slots=True)
class _Error:
    """One error of pydantic's, about to be said in our words."""

    model: type[BaseModel]
    document: Document
    wording: Wording
    loc: Loc
    of_key: bool
    raw: Any

    def problem(self) -> Problem:
        kind = self.raw["type"]
        if kind == "missing":
            message = f"missing; expected {self.wording.expects(self.loc)}. Add it."
            return self.document.problem(self.loc[:-1], self._named(message), at_key=True)
        if kind == "extra_forbidden":
            return self.document.problem(self.loc, self._named(self._unknown_field()), at_key=True)
        at_key = self.of_key or self.document.get(self.loc) is None
        return self.document.problem(self.loc, self._named(self._unfit_value(kind)), at_key=at_key)

    def _named(self, message: str) -> str:
        loc = self.loc[:-1] if self.of_key else self.loc
        return f"{field_name(loc) or 'document'}: {message}"

    def _unfit_value(self, kind: str) -> str:
        if kind == "value_error":
            return str(self.raw["ctx"]["error"])
        if isinstance(self.document.get(self.loc), dict):
            later_form = _lookup(self.wording.later_forms, self.loc)
            if later_form:
                return f"the long form is {NOT_YET}. {later_form}"
        if kind == "literal_error":
            return self._unknown_value()
        expected = self.wording.expects(self.loc) or _EXPECTED.get(kind, "another value")
        return self._wrong_type(expected, kind)

    def _unknown_field(self) -> str:
        if any(_matches(self.loc, later) for later in self.wording.later_fields):
            return f"{NOT_YET}. Remove it."
        choices = sorted(_fields_at(self.model, self.loc[:-1], self.wording))
        near = nearest(self.loc[-1], choices)
        return f"unknown field; expected {one_of(choices)}.{near or ' Remove it.'}"

    def _unknown_value(self) -> str:
        # Not pydantic's ctx["expected"]: that is a sentence, with its own "or".
        choices = [str(choice) for choice in get_args(_annotation_at(self.model, self.loc, self.wording))]
        expected = one_of([repr(choice) for choice in choices])
        value = self.document.get(self.loc)
        if not isinstance(value, str):
            return self._wrong_type(expected, "literal_error")
        if value in (_lookup(self.wording.later_values, self.loc) or ()):
            return f"{value!r} is {NOT_YET}; expected {expected}. Change it."
        near = nearest(value, choices) if len(choices) > 1 else ""
        return f"found {value!r}, expected {expected}.{near or ' Change it.'}"

    def _wrong_type(self, expected: str, kind: str) -> str:
        scalar = self.document.scalars.get(self.loc)
        what = f"found {found(self.document, self.loc)}, expected {expected}"
        if scalar is None:
            return f"{what}. Change it."
        if scalar.reading == "nothing":
            return f"{what}. {_GIVE_A_VALUE}"
        if kind == "string_type":
            return f'found {found(self.document, self.loc)}, expected text: quote it, as "{scalar.text}".'
        if kind == "int_type" and scalar.text.isdecimal():
            return f"{what}: remove the quotes."
        return f"{what}. Change it."


def _fields_at(model: type[BaseModel], loc: Loc, wording: Wording) -> list[str]:
    inner = _model_in(_annotation_at(model, loc, wording))
    return [info.alias or name for name, info in inner.model_fields.items()] if inner else []


def _annotation_at(model: type[BaseModel], loc: Loc, wording: Wording) -> Any:
    """The annotation of the field that `loc` leads to; a step into a mapping or list takes what it holds."""
    annotation: Any = model
    for step in loc:
        inner = _model_in(annotation)
        fields = {info.alias or name: info for name, info in inner.model_fields.items()} if inner else {}
        annotation = fields[str(step)].annotation if step in fields else _last_argument(annotation)
    return _without_none(annotation)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _without_none(annotation: Any) -> Any:
    rest = [part for part in get_args(annotation) if part is not type(None)]
    return rest[0] if len(rest) == 1 and type(None) in get_args(annotation) else annotation


def _last_argument(annotation: Any) -> Any:
    inner = get_args(_without_none(annotation))
    return inner[-1] if inner else annotation
