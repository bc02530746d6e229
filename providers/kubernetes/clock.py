"""The clock of the wall.

Invariant: `wait_until` never returns before its instant, also when the system's clock is set while it waits.
"""

from __future__ import annotations

import time


class SystemClock:
    """`ports.Clock` where time is real."""

    def now(self) -> float:
        return time.time()

    def wait_until(self, instant: float) -> None:
        while (left := instant - time.time()) > 0:
            # To wait for an instant is all that is asked of a clock.
            time.sleep(left)
