"""What comes back for a request: plain JSON, or the reason why there is no answer."""

from __future__ import annotations

from dataclasses import dataclass

from plans.facts import Json


@dataclass(frozen=True, slots=True)
class NoReply:
    """A request that could not be answered, and why."""

    why: str


Reply = Json | NoReply
