"""A candidate beside the champion on the same validation rows: better, worse, or not enough evidence to say."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.evaluation import differences, scores
from models.manifest import Metric

Verdict = Literal["better", "worse", "not enough evidence"]

_GREATER_IS_BETTER = {"roc_auc"}
_COLOURS = {"better": "#009E73", "worse": "#D55E00", "not enough evidence": "#999999"}


class Compared(NamedTuple):
    """One score of both, and the candidate's less the champion's."""

    candidate: float
    champion: float
    difference: Metric
    verdict: Verdict


def compare(
    labels: NDArray[Any], candidate: NDArray[np.float64], champion: NDArray[np.float64], clusters: NDArray[Any]
) -> dict[str, Compared]:
    """Every score's comparison by name; intervals resample clusters, such as days, and not rows."""
    ours, theirs = scores(labels, candidate), scores(labels, champion)
    found = differences(labels, candidate, champion, groups=clusters)
    return {name: Compared(ours[name], theirs[name], each, verdict(name, each)) for name, each in found.items()}


def verdict(score: str, difference: Metric) -> Verdict:
    """What an interval says: nothing, as long as it holds 0."""
    low, high = difference.low, difference.high
    if low is None or high is None or not (low > 0 or high < 0):
        return "not enough evidence"
    return "better" if (low > 0) == (score in _GREATER_IS_BETTER) else "worse"


def is_worse(score: str, now: Metric, before: Metric) -> bool:
    """Whether the whole interval of a score is worse than that of another, of other rows; unknown ends say nothing."""
    if None in (now.low, now.high, before.low, before.high):
        return False
    if score in _GREATER_IS_BETTER:
        return bool(now.high < before.low)  # type: ignore[operator]
    return bool(now.low > before.high)  # type: ignore[operator]


def table(compared: Mapping[str, Compared]) -> pd.DataFrame:
    """One row per score, as text."""
    return pd.DataFrame(
        [
            {
                "score": name,
                "candidate": f"{each.candidate:.4f}",
                "champion": f"{each.champion:.4f}",
                "difference": f"{each.difference.value:+.4f}",
                "95 % interval": f"{each.difference.low:+.4f} to {each.difference.high:+.4f}",
                "verdict": each.verdict,
            }
            for name, each in compared.items()
        ]
    )


def chart(compared: Mapping[str, Compared], title: str) -> Any:
    """An Altair chart of every difference with its interval; the line is no difference."""
    import altair as alt  # two seconds, which loading the definitions should not take

    rows = pd.DataFrame(
        [
            {
                "score": n,
                "value": c.difference.value,
                "low": c.difference.low,
                "high": c.difference.high,
                "is": c.verdict,
            }
            for n, c in compared.items()
        ]
    )
    base = alt.Chart(rows).encode(
        y=alt.Y("score:N", title=None),
        color=alt.Color("is:N", title=None, scale=alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values()))),
    )
    zero = alt.Chart(pd.DataFrame({"x": [0]})).mark_rule(color="#999999", strokeDash=[4, 3]).encode(x="x:Q")
    return alt.layer(
        zero,
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title="candidate less champion"), x2="high:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(x="value:Q"),
    ).properties(width=360, height=110, title=title)
