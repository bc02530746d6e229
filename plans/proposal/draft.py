"""A VMNetwork in the making, with what people should know of each of its fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from plans.writing import Entry, document


@dataclass(frozen=True, slots=True)
class Draft:
    """A VMNetwork in the making. `moves`: it is the migration that was asked for. `covered`: its readable nodes."""

    localnet: str
    bridge: str
    selector: Mapping[str, str]
    covered: tuple[str, ...]
    moves: bool
    header: tuple[str, ...]
    about: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    delivery: Mapping[str, str] = field(default_factory=dict)
    replaces: Mapping[str, Any] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    attachments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def file(self) -> str:
        return f"vmnetwork-{self.localnet}.yaml"

    @property
    def text(self) -> str:
        def entry(name: str, value: Any, *, block: bool = False, off: bool = False) -> Entry:
            return Entry(name, value or None, self.about.get(name, ()), block, off or not value)

        fields = (
            entry("nodes", dict(self.selector)),
            entry("bridge", self.bridge),
            entry("delivery", dict(self.delivery)),
            entry("replaces", dict(self.replaces)),
            entry("networks", dict(self.networks), block=True),
            entry("attachments", dict(self.attachments), block=True, off=True),
        )
        return document(self.header, "VMNetwork", self.localnet, fields)

    def saying(self, name: str, *sentences: str) -> Draft:
        """The draft with something more to tell about a field."""
        return replace(self, about={**self.about, name: (*self.about.get(name, ()), *sentences)})
