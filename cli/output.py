"""Standard output that can't be written: its reader has gone, the disk under it is full, the terminal is lost."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_LOST = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def silence() -> None:
    """Let go of standard output: what is still to be printed, also what failed to be, goes nowhere."""
    with suppress(OSError, ValueError):  # one that is no file has nothing to be turned away from
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def is_lost(error: OSError) -> bool:
    """Whether an error is of the output: every other file is named in its error, and the ports have errors of their own."""
    return error.filename is None and error.errno in _LOST


@contextmanager
def may_be_lost() -> Iterator[None]:
    """Print within what is no reason to fail when it can't be written; other errors are raised."""
    try:
        yield
    except OSError as error:
        if not is_lost(error):
            raise
        silence()


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Print within; a reader that has gone (`| head`) ends that, and nothing else."""
    try:
        yield
    except BrokenPipeError:
        silence()
