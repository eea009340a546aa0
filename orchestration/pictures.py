"""Charts for Dagster's metadata, which shows Markdown but knows no plots."""

import base64
from typing import Any

import dagster as dg
import vl_convert


def picture(chart: Any, caption: str) -> dg.MarkdownMetadataValue:
    """An Altair chart as a PNG inside Markdown, with its caption for those who cannot see it."""
    png = vl_convert.vegalite_to_png(chart.to_dict(), scale=1.5)
    return dg.MetadataValue.md(f"![{caption}](data:image/png;base64,{base64.b64encode(png).decode()})")
