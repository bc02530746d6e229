"""World files: the YAML that a twin is made from.

The shape of the document is checked here, its content by the twin. The one invariant: what the twin says
about a field gets the field's place in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from cli.files import only_document
from plans.desired import names
from plans.desired.models import API_VERSION, Model
from plans.desired.source import Document, Loc, field_name
from plans.desired.validation import Wording, fit
from plans.errors import InputError, Problem

if TYPE_CHECKING:
    from providers.twin import WorldError

_ROOTS = ("apiVersion", "kind", "metadata", "spec")


class _Metadata(Model):
    name: Annotated[str, AfterValidator(names.object_name)]


class _World(Model):
    api_version: Literal["ovsplan.io/v1alpha1"] = Field(alias="apiVersion")
    kind: Literal["World"]
    metadata: _Metadata
    spec: dict[str, Any]


_WORDING = Wording(
    expected={
        ("apiVersion",): f"'{API_VERSION}'",
        ("kind",): "'World'",
        ("metadata",): "a mapping with 'name'",
        ("metadata", "name"): "the world's name",
        ("spec",): "a mapping with nodes, networks and vms",
    }
)


@dataclass(frozen=True, slots=True)
class WorldFile:
    """A World document of the right shape."""

    document: Document
    name: str
    spec: Mapping[str, Any]

    def explain(self, error: WorldError) -> InputError:
        """What the twin found wrong at `error.path`, with its place in the file."""
        loc: Loc = tuple(error.path)
        if loc[0] not in _ROOTS:
            loc = ("spec", *loc)
        return InputError([self.document.problem(loc, f"{field_name(loc)}: {error.message}")])


def read_world_file(path: str) -> WorldFile:
    """The one World document of a file. Raises InputError with everything that is wrong with its shape."""
    document, problems = only_document(path, "World")
    world, unfit = fit(_World, document, _WORDING)
    if world is None or problems or unfit:
        raise InputError([*problems, *unfit])
    return WorldFile(document, world.metadata.name, world.spec)


def make_world(path: str, folder: str) -> str:
    """Make a twin in `folder` from the World file at `path`; returns the world's name."""
    from providers.twin import WorldError, init_world

    world = read_world_file(path)
    try:
        init_world(world.document.value, Path(folder))
    except WorldError as error:
        raise (world.explain(error) if error.path else folder_refused(folder, error)) from error
    except OSError as error:
        message = f"no world can be made there: {error.strerror}. Choose another folder."
        raise InputError([Problem(folder, 0, 0, message)]) from error
    return world.name


def folder_refused(folder: str, error: WorldError) -> InputError:
    """What the twin found wrong with a folder, which its text may name already."""
    return InputError([Problem("" if str(Path(folder)) in error.message else folder, 0, 0, error.message)])
