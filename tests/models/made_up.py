"""Made-up flights: small data with every kind of feature."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray


class Flights(NamedTuple):
    """Rows in order of time, and whether each flight was late."""

    frame: pd.DataFrame
    late: NDArray[np.int64]


def made_up_flights(rows: int, seed: int) -> Flights:
    """Flights whose delay depends on carrier, wind and weekend; a tenth of winds and tails are missing."""
    generator = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "carrier": generator.choice(["AA", "B6", "DL", "UA"], rows),
            "distance": generator.integers(100, 3000, rows),
            "weekend": generator.random(rows) < 0.3,
            "wind": generator.normal(10, 3, rows).round(2),
            "tail": generator.choice(["n1", "n2", "n3"], rows),
        }
    )
    signal = 0.05 * frame["wind"] + (frame["carrier"] == "B6") + frame["weekend"] + generator.logistic(size=rows)
    frame.loc[generator.random(rows) < 0.1, "wind"] = np.nan
    frame.loc[generator.random(rows) < 0.1, "tail"] = None
    return Flights(frame, (signal > 1).to_numpy().astype(np.int64))
