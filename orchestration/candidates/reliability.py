"""The reliability plot: what was predicted against what happened."""

from typing import Any

import pandas as pd

from models.evaluation import reliability

_BLUE = "#0072B2"
_GREY = "#999999"


def reliability_chart(predictions: pd.DataFrame, label: str, model: str) -> Any:
    """An Altair chart: ten bins of equally many rows with 95 % intervals; on the diagonal, predictions hold."""
    import altair as alt  # two seconds, which loading the definitions should not take

    found = reliability(predictions[label].to_numpy(), predictions["prediction"].to_numpy())
    points = pd.DataFrame(found._asdict()).drop(columns="rows")
    most = max(found.predicted.max(), found.high.max())
    axis = alt.Scale(domain=[0, most], nice=True)
    line = alt.Chart(pd.DataFrame({"x": [0, most], "y": [0, most]})).mark_line(color=_GREY, strokeDash=[4, 3])
    base = alt.Chart(points).encode(x=alt.X("predicted:Q", title=f"predicted probability of {label}", scale=axis))
    share = f"observed share of {label}"
    mean, rate = predictions["prediction"].mean(), predictions[label].mean()
    return alt.layer(
        line.encode(x="x:Q", y="y:Q"),
        base.mark_rule(color=_BLUE).encode(y=alt.Y("low:Q", title=share, scale=axis), y2="high:Q"),
        base.mark_point(color=_BLUE, filled=True, size=50, opacity=1).encode(y=alt.Y("observed:Q", title=share)),
    ).properties(width=320, height=260, title=f"{model}: {mean:.1%} predicted, {rate:.1%} observed on validation")
