"""Documents that the tests of this folder send."""

from typing import Any

from tests.metrics import BRIER

INPUTS = {"distance": 100.0, "carrier": "B6", "wind": 3.5}


def experiment(name: str = "too-vs-sum", **changes: Any) -> dict[str, Any]:
    """Return an experiment of sum-too@1 against the champion on the endpoint `delay`."""
    return {
        "name": name,
        "endpoint": "delay",
        "arms": [{"name": "control", "model": "sum@1"}, {"name": "too", "model": "sum-too@1"}],
        "allocation": {"kind": "split", "weights": {"control": 0.5, "too": 0.5}},
        "metrics": [
            BRIER,
            {"name": "click", "kind": "binary", "default": 0, "direction": "increase"},
            {"name": "yield", "kind": "ratio", "numerator": "revenue", "denominator": "seats", "direction": "increase"},
        ],
        **changes,
    }
