"""The sample that a new endpoint starts from when it has no rows of its own; its function is copied as it stands."""

import numpy as np
import pandas as pd

LABEL = "bought"


def visits() -> pd.DataFrame:
    """Made-up visits to a shop, two an hour: return rows of your own instead."""
    random, count = np.random.default_rng(0), 10_000
    rows = pd.DataFrame(
        {
            "visit_id": [f"visit-{number}" for number in range(count)],
            "started_at": pd.date_range("2025-01-01", periods=count, freq="30min", tz="UTC"),
            "device": random.choice(["laptop", "phone", "tablet"], count),
            "pages": 1 + random.poisson(3, count),
            "minutes": random.gamma(2, 3, count).round(1),
        }
    )
    # On a phone many pages mean that somebody is lost.
    eager = (rows["pages"] > 4) ^ (rows["device"] == "phone")
    interest = 3 * eager + 0.1 * rows["minutes"] - 2.6
    rows["bought"] = (random.random(count) < 1 / (1 + np.exp(-interest))).astype(float)
    return rows
