"""Results of experiments, read from the ledger or from its exported tables.

`load` is imported on first use: the router imports `analysis.statistics` and needs none of Ibis, pandas or plots.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.report import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from analysis.report import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
