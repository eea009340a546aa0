"""The router with a ledger that is never written to: `python -m bench.servers.unlogged_router serve ..`.

Decisions are drawn, predicted and signed as ever, and answered at once: what is missing against the router itself is
the hand-over to the writer, the commit and the wait for it.
"""

import sys

from router import service
from router.cli import main
from router.ledger.records import DecisionRow
from router.ledger.writer import LedgerWriter


class Unwritten(LedgerWriter):
    """Says of every decision that it is stored, and stores none."""

    async def decide(self, row: DecisionRow, _key: str | None) -> DecisionRow:
        """Return the decision."""
        return row


if __name__ == "__main__":
    service.LedgerWriter = Unwritten  # type: ignore[attr-defined]
    main(sys.argv[1:], prog_name="turnout")
