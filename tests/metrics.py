"""Metrics that tests of several packages declare."""

from typing import Any

BRIER: dict[str, Any] = {
    "name": "brier",
    "kind": "score",
    "score": "brier",
    "label": "late",
    "direction": "decrease",
    "role": "primary",
}
"""How far predictions of being late are off, squared."""
