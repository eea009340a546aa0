"""A rehearsal's result as short texts, for terminals and pages."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from router.simulation.estimates import Mean, Share, Time
from router.simulation.rehearsing import Rehearsed
from router.simulation.results import Found

_SMALLEST_ERROR = 0.0005


class Row(NamedTuple):
    """A quantity, and what it is for each allocation."""

    label: str
    cells: tuple[str, ...]


def heading(result: Rehearsed) -> list[str]:
    """Return what was rehearsed."""
    wanted = "higher is better" if result.direction == "increase" else "lower is better"
    arms = ", ".join(f"{name} {mean:.4g}" for name, mean in result.arms.items())
    best = " and ".join(result.best)
    return [
        f"{result.experiment}: {result.metric} ({wanted}) over {result.days:g} days, {result.runs:,} runs, "
        f"seed {result.seed}",
        f"true values: {arms}; best at the end: {best}",
        "each figure is a mean or share of runs ± its standard error",
    ]


class Rows(NamedTuple):
    """A table: what it is about, if that needs saying, and a column for each of the allocations."""

    title: str
    columns: list[str]
    rows: list[Row]


def tables(result: Rehearsed) -> list[Rows]:
    """Return the figures, and those of equal arms if they were played."""
    found = [Rows("", [each.allocation for each in result.allocations], rows(result))]
    if result.all_equal:
        names = [each.allocation for each in result.all_equal]
        found.append(Rows("false calls: all arms equal", names, aa_rows(result)))
    return found


def rows(result: Rehearsed) -> list[Row]:
    """Return all figures of the allocations."""
    found = result.allocations
    return [
        *_rewards(found),
        *(
            Row(f"share at the end: {name}", tuple(_percent(each.shares[name]) for each in found))
            for name in result.arms
        ),
        _row("best arm has the largest share", found, lambda each: _share(each.best_leads)),
        *_times(found),
        *_calls(found),
        *_plans(found),
        *_widths(result),
    ]


def aa_rows(result: Rehearsed) -> list[Row]:
    """Return how often an arm is called although all are equal."""
    found = result.all_equal
    return [
        _row("some arm called at the end", found, lambda each: _share(each.call.best)),
        _row("posterior once above 0.95", found, lambda each: _share(each.sure.by_the_end)),
    ]


def _rewards(found: Sequence[Found]) -> Iterator[Row]:
    yield _row("decisions", found, lambda each: _number(each.decisions))
    yield _row("regret against the best arm", found, lambda each: _number(each.regret))
    yield _row("regret of equal shares", found, lambda each: _number(each.uniform_regret))
    yield _row("  saved of that", found, lambda each: _percent(each.saved))
    yield _row("reward per decision", found, lambda each: _number(each.reward))


def _times(found: Sequence[Found]) -> Iterator[Row]:
    yield _row("posterior once above 0.95", found, lambda each: _share(each.sure.by_the_end))
    yield _row("  first on day (median)", found, lambda each: _time(each.sure.median))
    yield _row("  and that for a wrong arm", found, lambda each: _share(each.sure.wrong))


def _calls(found: Sequence[Found]) -> Iterator[Row]:
    yield _row("called at the end by", found, lambda each: "Welch's test" if each.plan else "posterior above 0.95")
    yield _row("  the best arm (power)", found, lambda each: _share(each.call.best))
    yield _row("  another arm", found, lambda each: _share(each.call.other))
    yield _row("  none", found, lambda each: _share(each.call.none))


def _plans(found: Sequence[Found]) -> Iterator[Row]:
    if not any(each.plan for each in found):
        return
    yield _row("decisions for power 0.8", found, _planned)
    yield _row("  to tell", found, lambda each: f"{each.plan.best} from {each.plan.against}" if each.plan else "-")
    yield _row("  which takes days", found, _planned_days)
    yield _row("  power at the end, formula", found, lambda each: f"{each.plan.power:.1%}" if each.plan else "-")


def _planned(each: Found) -> str:
    if each.plan is None:
        return "-"
    return "never" if each.plan.decisions is None else f"{each.plan.decisions:,}"


def _planned_days(each: Found) -> str:
    return "-" if each.plan is None or each.plan.days is None else f"{each.plan.days:.3g}"


def _widths(result: Rehearsed) -> Iterator[Row]:
    found = result.allocations
    for name in result.arms:
        yield Row(f"credible width (95 %): {name}", tuple(_number(each.credible[name]) for each in found))
    if not any(each.confidence for each in found):
        return
    control, *treatments = result.arms
    for name in treatments:
        widths = tuple(_number((each.confidence or {}).get(name)) for each in found)
        yield Row(f"interval width: {name} - {control}", widths)


def _row(label: str, found: Sequence[Found], cell: Callable[[Found], str]) -> Row:
    return Row(label, tuple(map(cell, found)))


def _number(value: Mean | None) -> str:
    if value is None:
        return "-"
    if value.error is None or value.error == 0:
        return f"{value.mean:,.6g}"
    digits = max(0, 1 - _magnitude(value.error))
    return f"{value.mean:,.{digits}f} ± {value.error:,.{digits}f}"


def _magnitude(value: float) -> int:
    """Return the power of ten of the first digit."""
    return int(f"{value:e}".partition("e")[2])


def _percent(value: Mean | None) -> str:
    if value is None:
        return "-"
    # Without the sign of what is as good as 0.
    mean = f"{round(value.mean, 3) + 0.0:.1%}"
    if not value.error:
        return mean
    return f"{mean} ± {value.error:.1%}" if value.error >= _SMALLEST_ERROR else f"{mean} ± <0.1%"


def _share(value: Share | None) -> str:
    return "-" if value is None else f"{value.share:.1%} ± {value.error:.1%}"


def _time(value: Time) -> str:
    if value.days is None:
        return "not reached"
    high = "?" if value.high is None else f"{value.high:.3g}"
    return f"{value.days:.3g} ({value.low:.3g} to {high})"
