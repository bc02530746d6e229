"""A document of a known kind, as the rules between documents look at it.

The one invariant: a document that has problems of its own still takes part in the rules, as far as it could be read.
"""

from __future__ import annotations

from dataclasses import dataclass

from plans.desired.models import Model
from plans.desired.source import Document, Loc, field_name
from plans.errors import Problem


@dataclass(frozen=True, slots=True)
class Declared:
    """`model` is None when the document has problems of its own."""

    document: Document
    kind: str
    model: Model | None

    def text(self, *loc: str) -> str | None:
        """A text of the document, also of one that has problems; what is no text has a problem of its own."""
        value = self.document.get(loc)
        return value if isinstance(value, str) else None

    @property
    def name(self) -> str | None:
        return self.text("metadata", "name")

    def problem(self, loc: Loc, message: str, *, at_key: bool = False) -> Problem:
        return self.document.problem(loc, f"{field_name(loc)}: {message}", at_key=at_key)
