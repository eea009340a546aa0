"""The statistics that a ledger would hold of a rehearsal: what was decided, and what of it has come so far."""

from collections import defaultdict
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.thompson import Evidence
from router.allocation.evidence import Items, Outcomes, fold
from router.documents import AnyMetric, Bandit
from router.simulation.delays import arrived
from router.simulation.settings import Setting
from router.simulation.values import AnyValues

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_MS_PER_MINUTE = 60_000
_SECONDS_PER_MINUTE = 60

# What is still to come after this is less than one outcome in a simulation of any size.
_ALL = 1 - 1e-12


class Record:
    """Rows of statistics by step and live arm, each dated to the middle of its step."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        steps, arms = len(setting.ends) - 1, len(setting.document.live)
        self._ends = np.array(setting.ends, dtype=np.float64)
        # Columns are those of `Outcomes` and `Items`, with places of live arms for arms.
        self._rows = np.zeros((steps, arms, 6))
        self._rows[:, :, 0] = np.arange(arms)
        # A fold looks for what lies within each span that is longer than a minute, and steps have a hundred of them.
        self._rows[:, :, 1] = (self._ends[:-1] + self._ends[1:] - 1)[:, np.newaxis] / 2
        self._rows[:, :, 2] = 1
        self._items = self._rows[:, :, :4].copy()
        self._pending: dict[int, list[tuple[int, Floats]]] = defaultdict(list)

    def decide(self, step: int, drawn: Counts, values: tuple[AnyValues, ...], generator: np.random.Generator) -> None:
        """Add a step's decisions [arms]; what their outcomes are, and when they come, is drawn now and known later."""
        self._items[step, :, 3] = drawn
        world = self._setting.world
        coming = generator.binomial(drawn, 1 - world.missing) if world.missing else drawn
        by_step = generator.multinomial(coming, self._shares(step))[:, :-1]
        outcomes = np.zeros((by_step.shape[1], len(drawn), 3))
        outcomes[:, :, 0] = by_step.T
        for arm, each in enumerate(values):
            outcomes[:, arm, 1], outcomes[:, arm, 2] = each.draw(generator, by_step[arm])
        for later, sums in enumerate(outcomes):
            self._pending[step + later].append((step, sums))

    def arrive(self, step: int) -> None:
        """Let come what comes by the end of a step."""
        for decided, sums in self._pending.pop(step, ()):
            self._rows[decided, :, 3:] += sums

    def evidence(self, step: int, allocation: Bandit) -> tuple[Evidence, ...]:
        """Return what the product's own fold makes of all that has come by the end of a step."""
        metric: AnyMetric = self._setting.metric
        ended = self._ended(step, metric)
        forgets = allocation.half_life_s is not None or allocation.window_s is not None
        rows, items = (_rows(table[:ended], together=not forgets) for table in (self._rows, self._items))
        return fold(
            cast("Outcomes", rows),
            cast("Items", items),
            arms=range(self._rows.shape[1]),
            metric=metric,
            allocation=allocation,
            now_ms=round(_MS_PER_MINUTE * self._ends[step + 1]),
        )

    def _ended(self, step: int, metric: AnyMetric) -> int:
        """Return how many steps count: with a default, those of which the window of the last decision has closed.

        A fold has the same rule, but the rows are dated to the middle of their steps.
        """
        if getattr(metric, "default", None) is None:
            return step + 1
        closed = self._ends[step + 1] - metric.window_s / _SECONDS_PER_MINUTE
        return int(np.searchsorted(self._ends[1:], closed, side="right"))

    def _shares(self, step: int) -> Any:
        """Return the shares of a step's outcomes that come in it and in each later one, and the rest at the end."""
        start, end, *later = _SECONDS_PER_MINUTE * self._ends[step:]
        times = [end, *later]
        known = arrived(self._setting.world.delay, start, end, times, self._setting.longest_s)
        settled = np.searchsorted(known, known[-1] * _ALL) + 1
        each = np.diff(known[:settled], prepend=0.0)
        return [*each, max(1.0 - each.sum(), 0.0)]


def _rows(table: Floats, *, together: bool) -> Floats:
    """Return the rows of a table [steps, arms, columns]; added up over time where no age matters."""
    if not together:
        return table.reshape(-1, table.shape[2])
    rows: Floats = table.sum(axis=0)
    rows[:, :3] = table[0, :, :3] if len(table) else 0.0
    return rows
