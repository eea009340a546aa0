"""What was observed of an experiment's units before it began, as queries.

Nothing here can have been changed by the experiment: decisions and outcomes were made and received before its first
decision. Who decided then does not matter: the champion, or other experiments on the same endpoint.
"""

import ibis
import ibis.expr.types as ir

from analysis import queries
from analysis.experiment import FORCED, AnyMetric, Experiment, ScoreMetric
from analysis.fixed_horizon import HAS_PAST, PAST
from analysis.queries import Log
from analysis.source import Source

_DAY_MS = 86_400_000


def first_decision_ms(source: Source, log: Log) -> int | None:
    """Read when the experiment made its first decision, in milliseconds since 1970; None if it made none."""
    # By epoch, since SQLite cannot say that there is none.
    rows = source.rows(log.drawn.group_by("epoch").aggregate(first_ms=log.drawn["decided_ms"].min()))
    return min((row["first_ms"] for row in rows), default=None)


def log_before(source: Source, experiment: Experiment, metric: AnyMetric, first_ms: int, days: float) -> Log:
    """Select the decisions of the endpoint in so many days before `first_ms`, and what was known of them then."""
    decisions, outcomes = source.tables["decisions"], source.tables["outcomes"]
    start_ms = first_ms - round(days * _DAY_MS)
    made = decisions.filter(
        decisions["endpoint"] == experiment.endpoint,
        decisions["decided_ms"] >= start_ms,
        decisions["decided_ms"] < first_ms,
        decisions["epoch"].isnull() | (decisions["epoch"] != FORCED),
    )
    said = outcomes.filter(
        outcomes["metric"].isin(queries.metric_names(metric)),
        outcomes["received_ms"] >= start_ms,
        outcomes["received_ms"] < first_ms,
        outcomes["counted"],
    )
    standing = queries.standing(said)
    if isinstance(metric, ScoreMetric):
        standing = _with_predictions(standing, made)
    return Log(made, made, standing, first_ms)


def _with_predictions(said: ir.Table, made: ir.Table) -> ir.Table:
    """Labels with what was predicted, which the ledger copies to them only where an experiment scored them.

    Of decisions without one it is taken from the decision if that has a single item.
    """
    array = made["predictions"]
    is_single = array.notnull() & ~array.contains(",") & (array != "[]")
    single = ibis.ifelse(is_single, array, ibis.null("string")).replace("[", "").replace("]", "").cast("float64")
    predicted = made.select("id", predicted=single)
    joined = said.left_join(predicted, said["decision_id"] == predicted["id"])
    filled = ibis.coalesce(joined["prediction"], joined["predicted"])
    return joined.mutate(prediction=filled).select(*said.columns)


def with_past(per_unit: ir.Table, before: Log, metric: AnyMetric) -> ir.Table:
    """Add what was observed of a metric before to units: the columns of PAST, 0 where nothing was, and HAS_PAST."""
    seen = queries.observations(before, metric)
    past = seen.group_by("unit").aggregate(
        **dict(zip(PAST, (seen["numerator"].sum(), seen["denominator"].sum()), strict=True))
    )
    joined = per_unit.left_join(past, "unit")
    zero, one = (ibis.literal(value).cast("float64") for value in (0, 1))
    return joined.select(
        "arm",
        "numerator",
        "denominator",
        "observations",
        **{name: joined[name].fill_null(zero) for name in PAST},
        **{HAS_PAST: ibis.ifelse(joined[PAST[1]].notnull(), one, zero)},
    )
