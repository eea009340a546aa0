"""Proofs: every row of the ledger is re-derived from its signed id, its epoch and the outcomes."""

from router.verification.findings import Failure, Summary
from router.verification.ledger import rows_to_check, verify

__all__ = ["Failure", "Summary", "rows_to_check", "verify"]
