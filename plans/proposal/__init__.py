"""Proposal: the documents that say what is there already, and the one migration that is asked for.

The one invariant: planning what was proposed, on the same facts, shows no change but that migration. What would show
another is told in a comment; a localnet of which that cannot be done is left out, with the reason.
"""

from plans.proposal.propose import VIEWS, Proposal, propose
from plans.proposal.wish import Wish

__all__ = ["VIEWS", "Proposal", "Wish", "propose"]
