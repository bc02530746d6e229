"""A value of a world file and the way to it, and which fields a mapping of the file may have.

Invariant: what is wrong with a value is told with the way to it. The name and the default of a field stand in its
`Shape`, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

Path = tuple[str | int, ...]

OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_MEMORY = re.compile(r"([0-9]+)(Ki|Mi|Gi|Ti|)")
_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class WorldError(ValueError):
    """A world file or folder cannot be used. `path` leads to the field at fault, when it is one."""

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(f"{'.'.join(str(part) for part in path)}: {message}" if path else message)
        self.message = message
        self.path = path


class Default(Enum):
    """What holds for a field that is left out, where that is no value of its own."""

    REQUIRED = "it may not be left out"
    NOTHING = "as if nothing were said"
    INHERITED = "what the level above says"


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields that a mapping of the file may have, each with what holds when it is left out.

    `place` is the way to the mapping; a part in capitals stands for a name that the file gives.
    """

    place: str
    defaults: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.defaults)


def bytes_of(memory: str) -> int:
    """A Kubernetes quantity of memory in bytes. Raises ValueError."""
    match = _MEMORY.fullmatch(memory)
    if match is None:
        raise ValueError(f"{memory!r} is not a quantity such as 2Gi")
    return int(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True, slots=True)
class Field:
    """A value of the file and the way to it. Each reader raises WorldError where the value is not of its kind.

    `given` is False for what the file leaves out; the value is then the default, or None where that is a `Default`.
    """

    value: Any
    path: Path
    given: bool = True

    def fail(self, message: str) -> WorldError:
        return WorldError(message, self.path)

    def part(self, name: str | int, value: Any) -> Field:
        """A value in this one."""
        return Field(value, (*self.path, name))

    def mapping(self, allowed: Sequence[str] | None = None) -> dict[str, Field]:
        """What a mapping has; its keys are names that the file gives, or are among those allowed."""
        value = {} if self.value is None else self.value
        if not isinstance(value, Mapping):
            raise self.fail(f"expected a mapping, found {value!r}")
        for key in value:
            if not isinstance(key, str):
                raise WorldError(f"expected a name, found {key!r}", (*self.path, str(key)))
            if allowed is not None and key not in allowed:
                raise WorldError(f"unknown field; known: {', '.join(allowed)}", (*self.path, key))
        return {key: self.part(key, item) for key, item in value.items()}

    def fields(self, shape: Shape) -> dict[str, Field]:
        """Every field of a shape, as given or as it is when left out."""
        return self.completed(shape, self.mapping(shape.names))

    def completed(self, shape: Shape, given: Mapping[str, Field]) -> dict[str, Field]:
        """Every field of a shape: as it is `given`, else as it is when left out here."""
        left_out = {
            name: Field(None if isinstance(default, Default) else default, (*self.path, name), given=False)
            for name, default in shape.defaults.items()
        }
        return {**left_out, **given}

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.fail(f"expected text, found {self.value!r}")
        return self.value

    def one_of(self, *known: str) -> str:
        if self.value not in known:
            listed = f"one of {', '.join(known)}" if len(known) > 2 else " or ".join(known)
            raise self.fail(f"expected {listed}, found {self.value!r}")
        return self.text()

    def integer(self, least: int = 0, most: int = 2**31) -> int:
        if type(self.value) is not int or not least <= self.value <= most:
            raise self.fail(f"expected a whole number from {least} to {most}, found {self.value!r}")
        return self.value

    def seconds(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or self.value < 0:
            raise self.fail(f"expected a number of seconds, found {self.value!r}")
        return float(self.value)

    def switch(self) -> bool:
        if self.value in (True, "on", "true"):
            return True
        if self.value in (False, "off", "false"):
            return False
        raise self.fail(f"expected on or off, found {self.value!r}")

    def memory(self) -> str:
        try:
            bytes_of(self.text())
        except ValueError as error:
            raise self.fail(str(error)) from None
        return self.text()

    def strings(self) -> dict[str, str]:
        return {key: item.text() for key, item in self.mapping().items()}

    def instant(self) -> float:
        """Seconds since the epoch."""
        value = self.value
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value.replace("Z", "+00:00"))
            except ValueError:
                raise self.fail(
                    f"expected an instant such as 2026-01-15T01:00:00Z, found {value!r}"
                ) from None
        if not isinstance(value, datetime):
            raise self.fail(f"expected an instant such as 2026-01-15T01:00:00Z, found {value!r}")
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()

    def object_key(self) -> tuple[str, str]:
        """The last part of the path, which must be namespace/name."""
        namespace, slash, name = str(self.path[-1]).partition("/")
        if not slash or not all(OBJECT.fullmatch(part) for part in (namespace, name)):
            raise self.fail(f"expected namespace/name, found {self.path[-1]!r}")
        return namespace, name
