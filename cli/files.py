"""The user's files: paths from the command line to texts.

The one invariant: what can't be read is said for every path at once, and nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from plans.desired.source import Document, read_documents
from plans.errors import InputError, Problem

_SUFFIXES = (".yaml", ".yml")


def read_yaml_files(paths: Sequence[str]) -> list[tuple[str, str]]:
    """`(path, text)` of every file named, and of the YAML files directly in every folder named.

    The current folder when none is named. A file reached twice is read once. Raises InputError.
    """
    texts: dict[Path, tuple[str, str]] = {}
    problems: list[Problem] = []
    for given in paths or ["."]:
        try:
            for path in _files_of(given):
                texts.setdefault(path.resolve(), (str(path), read_text(str(path))))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return list(texts.values())


def read_text(path: str) -> str:
    """The text of one file. Raises InputError when it is missing, unreadable, no file or not UTF-8."""
    if not Path(path).is_file():
        raise _cannot(path, _no_file(Path(path)))
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise _cannot(path, f"cannot be read: {exc.strerror}. Check its permissions.") from exc
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        message = f"not UTF-8: byte 0x{data[exc.start]:02x} in line {line}. Save it as UTF-8."
        raise _cannot(path, message) from exc


def only_document(path: str, what: str) -> tuple[Document, list[Problem]]:
    """The one document of a file, and what is wrong beside it. Raises InputError when there is none."""
    source = read_documents(path, read_text(path))
    if not source.documents:
        raise InputError(source.problems or [Problem(path, 1, 1, f"the file is empty, expected a {what}.")])
    problems = list(source.problems)
    for extra in source.documents[1:]:
        problems.append(extra.problem((), f"a second document; the file of a {what} has one. Remove it."))
    document = source.documents[0]
    if document.is_refused(()):
        raise InputError(problems)
    return document, problems


def _files_of(given: str) -> Iterator[Path]:
    folder = Path(given)
    if not folder.is_dir():
        yield folder
        return
    try:
        found = sorted(path for path in folder.iterdir() if _is_ours(path))
    except OSError as exc:
        raise _cannot(given, f"cannot be listed: {exc.strerror}. Check its permissions.") from exc
    if not found:
        name = "the current folder" if given == "." else given
        raise _cannot(
            "", f"{name} holds no *.yaml or *.yml file. Name the files, or a folder that holds them."
        )
    yield from found


def _is_ours(path: Path) -> bool:
    return path.suffix in _SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def _no_file(path: Path) -> str:
    if path.is_dir():
        return "is a folder, expected a file. Name the file in it."
    if path.is_symlink():
        return f"is a link to {path.readlink()}, which is not there. Correct the link."
    if path.exists():
        return "is neither a file nor a folder. Name a YAML file."
    return "no such file or folder. Check the path."


def _cannot(path: str, message: str) -> InputError:
    return InputError([Problem(path, 0, 0, message)])
