"""A Python function as a source: whatever gives a data frame."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd

from orchestration.errors import SourceUnavailable
from orchestration.sources.types import typed
from orchestration.sources.wanted import Wanted, require_span

_REMEDY = "return the rows from `start` to before `end` only"


class Function(NamedTuple):
    """The rows that a function returns: all, or those from `start` to before `end`, both in UTC, of a partition."""

    function: Callable[..., pd.DataFrame]

    @property
    def code(self) -> tuple[Any, ...]:
        """The function, but not what it calls in turn."""
        return (self.function,)

    def rows(self, wanted: Wanted) -> pd.DataFrame:
        """What the function returns for this span, or without one."""
        span, origin = wanted.span, f"{self.function.__qualname__}()"
        bounds = {"start": span.start, "end": span.end} if span else {}
        rows = typed(self.answer(bounds), wanted.types, origin)
        return require_span(rows, span, origin, _REMEDY)

    def answer(self, bounds: dict[str, Any]) -> pd.DataFrame:
        """The function's rows as it gives them; raises SourceUnavailable."""
        try:
            return self.function(**bounds)
        except Exception as error:  # whatever the function does
            place = f"{self.function.__qualname__}() in {self.function.__module__}"
            raise SourceUnavailable(f"{place} failed: {type(error).__name__}: {error}; correct it") from error
