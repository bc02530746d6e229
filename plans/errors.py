"""What can go wrong, by what the caller does about it.

OvsplanError
├── InputError      the user's files, options, target or plan file are wrong     exit 1
├── PlanError       no valid plan can be made (cycle, conflict)                  exit 1
├── JournalError    the state database is corrupt, newer, or another cluster's   exit 1; of a run under way 3
├── HazardError     a blocking hazard is not accepted                            exit 7
├── ActionFailed    the run stopped at an action; resumable                      exit 3
├── WorldMoved      an approved step no longer fits the world                    exit 4
├── Declined        the user did not say yes                                     exit 5
├── Locked          another apply holds the lock                                 exit 6
└── Interrupted     the user, or a signal, stopped the run; resumable            exit 130 / 143

Text: what, where, why, and what to do. Only `cli/` prints and exits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class OvsplanError(Exception):
    """The root: its text is fit to be shown to a person as it stands."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with the user's input: where, what, and what to do."""

    path: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        where = (
            f"{self.path}:{self.line}:{self.column}: "
            if self.line
            else (f"{self.path}: " if self.path else "")
        )
        return f"{where}{self.message}"


class InputError(OvsplanError):
    """The user's files, options, target or plan file are wrong. Carries every problem found, not only the first."""

    def __init__(self, problems: str | Sequence[Problem]) -> None:
        if isinstance(problems, str):
            problems = (Problem("", 0, 0, problems),)
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(p) for p in self.problems))


class PlanError(OvsplanError):
    """No valid plan can be made from valid input."""


class JournalError(OvsplanError):
    """The state database cannot be used: corrupt, read-only, newer than this program, or bound to another cluster."""


class HazardError(OvsplanError):
    """A blocking hazard was found and not accepted."""


class ActionFailed(OvsplanError):
    """An action could not reach its end; the run stopped there and can be resumed."""


class WorldMoved(OvsplanError):
    """Somebody else changed what an approved action relies on."""


class Declined(OvsplanError):
    """The user was asked and did not answer `yes`."""


class Locked(OvsplanError):
    """Another apply holds the lock of this store."""


class Interrupted(OvsplanError):
    """A signal, or `ovsplan stop`, ended the run between two ops. `signum` is 2, 15, or 0 for `ovsplan stop`."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
