"""Compares live traffic with what the champion learned from, and shows what was found.

Only this needs the engines of analysis, which take seconds to import: so the asset imports it when it runs.
"""

from typing import Any, NamedTuple

import dagster as dg
import pandas as pd

from analysis.drifting import Found, compare_pairs
from analysis.statistics.drift import NOTABLE_STABILITY_INDEX
from models import ModelReference, Registry
from orchestration.datasets.tables import markdown_table
from orchestration.drift.windows import live_window, reference_window
from orchestration.endpoints.declaration import Endpoint
from orchestration.lake import Lake
from orchestration.pictures import picture

_ORANGE, _BLUE, _GREY = "#D55E00", "#0072B2", "#999999"


class Compared(NamedTuple):
    """What was found, the version of the table that has it, and the metadata that show it."""

    found: Found
    content_hash: str
    metadata: dict[str, Any]


def compared(endpoint: Endpoint, champion: ModelReference, lake: Lake, registry: Registry) -> Compared:
    """Compare, and write the table `drift/<endpoint>` of the lake."""
    reference = reference_window(endpoint, champion, lake, registry)
    live = live_window(endpoint, champion, lake)
    found = compare_pairs(zip(reference.window, live, strict=True))
    rows = found.frame().sort_values("stability_index", ascending=False, na_position="last", ignore_index=True)
    version = lake.write_if_changed(f"drift/{endpoint.key}", rows)
    metadata = {
        "found": found.reason,
        "champion": str(champion),
        "reference": f"{endpoint.data.train.name} version {reference.version.version}",
        "reference_rows": len(reference.window.features),
        "live_units": len(live.features),
        "indices": picture(chart(rows, f"{endpoint.name}: live beside what {champion} learned from"), "Drift"),
        "drift": dg.MetadataValue.md(markdown_table(_shown(rows))),
    }
    return Compared(found, version.content_hash, metadata)


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "what": rows["feature"],
            "stability index": rows["stability_index"].map("{:.3f}".format),
            "by chance": rows["index_by_chance"].map("{:.3f}".format),
            "adjusted p": rows["adjusted_p_value"].map("{:.2g}".format),
            "reference rows": rows["reference_rows"],
            "live rows": rows["current_rows"],
            "drifted": rows["drifted"].map({True: "yes", False: ""}),
        }
    )


def chart(rows: pd.DataFrame, title: str) -> Any:
    """An Altair chart: each stability index beyond what chance makes, largest first, and where it begins to count."""
    import altair as alt  # two seconds, which loading the definitions should not take

    known = rows.dropna(subset=["stability_index"])
    beyond = (known["stability_index"] - known["index_by_chance"]).clip(lower=0)
    shown = pd.DataFrame({"what": known["feature"], "beyond": beyond, "is": known["drifted"].map(_named)})
    colour = alt.Scale(domain=["drifted", "as before"], range=[_ORANGE, _BLUE])
    bars = (
        alt.Chart(shown)
        .mark_bar()
        .encode(
            x=alt.X("beyond:Q", title="population stability index beyond chance"),
            y=alt.Y("what:N", sort="-x", title=None),
            color=alt.Color("is:N", title=None, scale=colour),
        )
    )
    limit = alt.Chart(pd.DataFrame({"x": [NOTABLE_STABILITY_INDEX]})).mark_rule(color=_GREY, strokeDash=[4, 3])
    return alt.layer(bars, limit.encode(x="x:Q")).properties(width=360, title=title)


def _named(drifted: bool) -> str:
    return "drifted" if drifted else "as before"
