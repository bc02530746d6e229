"""Exit codes: one table. They are a contract; see docs/exit-codes.md."""

from __future__ import annotations

from plans import errors
from providers.ports import PortError

DONE = 0
ERROR = 1
CHANGES = 2
STOPPED = 3
HAZARD = 7

_TABLE: tuple[tuple[type[BaseException], int], ...] = (
    (errors.HazardError, HAZARD),
    (errors.ActionFailed, STOPPED),
    (errors.WorldMoved, 4),
    (errors.Declined, 5),
    (errors.Locked, 6),
    (errors.OvsplanError, ERROR),
    (PortError, ERROR),
)


def code_for(error: BaseException) -> int | None:
    """The exit code of an error that is fit to be shown; None for one that is a defect of ours."""
    if isinstance(error, errors.Interrupted):
        return 128 + error.signum if error.signum else STOPPED
    return next((code for kind, code in _TABLE if isinstance(error, kind)), None)
