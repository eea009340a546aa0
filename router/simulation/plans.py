"""What is rehearsed: an experiment's document, and the world that it is put into."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from router.documents import (
    AnyMetric,
    Bandit,
    BinaryMetric,
    Contextual,
    Document,
    Experiment,
    Interleave,
    Name,
    RatioMetric,
    ScoreMetric,
    check_experiment,
    fault_at,
)
from router.errors import InvalidDocument

Probability = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, msgspec.Meta(gt=0.0)]

LONGEST_DAYS = 366
MOST_PER_HOUR = 1e9


class Truth(Document, frozen=True, kw_only=True):
    """What an arm's values really are: ones with a probability, or normal with a mean and standard deviation."""

    probability: Probability | None = None
    mean: float | None = None
    sd: Annotated[float, msgspec.Meta(ge=0.0)] | None = None


class Change(Document, frozen=True, kw_only=True):
    """What becomes different at a time: new truths for some arms, or two arms that change places."""

    after_days: Positive
    arms: dict[str, Truth] = msgspec.field(default_factory=dict)
    swap: tuple[str, str] | None = None


class Fixed(Document, frozen=True, kw_only=True, tag_field="kind", tag="fixed"):
    """Every outcome comes this long after its decision."""

    seconds: Annotated[float, msgspec.Meta(ge=0.0, le=LONGEST_DAYS * 86_400.0)] = 0.0


class Exponential(Document, frozen=True, kw_only=True, tag_field="kind", tag="exponential"):
    """Outcomes come after exponentially distributed times."""

    mean_s: Annotated[float, msgspec.Meta(gt=0.0, le=LONGEST_DAYS * 86_400.0)]


class Logged(Document, frozen=True, kw_only=True):
    """Where values come from that were observed once: a file, or an experiment in the ledger."""

    csv: str | None = None
    """A file with the columns `arm` and `value`; a relative path starts from the plan's own folder."""
    experiment: Name | None = None


class World(Document, frozen=True, kw_only=True):
    """What nobody knows of a real experiment: what each arm's values are, how many requests come, what comes when."""

    requests_per_hour: Annotated[float, msgspec.Meta(gt=0.0, le=MOST_PER_HOUR)]
    """How many requests reach the experiment, before its own `traffic` takes a part of them; each is a unit."""
    arms: dict[str, Truth] | None = None
    logged: Logged | None = None
    """Instead of `arms`."""
    daily: list[Annotated[float, msgspec.Meta(ge=0.0)]] | None = None
    """How busy each of the 24 hours of a day is, against the others."""
    delay: Fixed | Exponential = Fixed()
    missing: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.0
    """The share of decisions whose outcome never comes, whatever it would have been."""
    changes: list[Change] = msgspec.field(default_factory=list)


class Plan(Document, frozen=True, kw_only=True):
    """An experiment, or the name of one in the ledger, and a world to rehearse it in."""

    experiment: Experiment | Name
    world: World


class Rehearsal(msgspec.Struct, frozen=True):
    """A plan that does not contradict itself."""

    experiment: Experiment
    world: World

    @property
    def metric(self) -> AnyMetric:
        """What the allocation optimises; of a split, the primary metric."""
        return optimised(self.experiment)

    @property
    def live(self) -> tuple[str, ...]:
        """The names of the arms that get traffic."""
        return tuple(self.experiment.arms[number].name for number in self.experiment.live)


def read_plan(content: Any, stored: Callable[[str], Experiment]) -> Rehearsal:
    """Return the plan of a decoded JSON document; `stored` finds an experiment by its name.

    Raises:
        InvalidDocument: With the first thing that is wrong, the field it is in, and the remedy.
    """
    try:
        plan = msgspec.convert(content, Plan)
    except msgspec.ValidationError as error:
        raise fault_at(content, error, Plan).error(InvalidDocument, "the plan") from None
    document = stored(plan.experiment) if isinstance(plan.experiment, str) else plan.experiment
    _check_document(document)
    for field, message in _contradictions(document, plan.world):
        raise _refused(f"world.{field}", message)
    return Rehearsal(document, plan.world)


def optimised(document: Experiment) -> AnyMetric:
    """Return the metric that a bandit learns from, or the primary one."""
    if isinstance(document.allocation, Bandit):
        return document.metric(document.allocation.metric)
    return next(metric for metric in document.metrics if metric.role == "primary")


def has_ones_only(metric: AnyMetric) -> bool:
    """Return whether the metric's values are 0 or 1."""
    return isinstance(metric, BinaryMetric) or (isinstance(metric, ScoreMetric) and metric.score == "correct")


def _check_document(document: Experiment) -> None:
    field = "experiment.allocation.kind"
    if isinstance(document.allocation, Contextual):
        raise _refused(
            field,
            "a world has no contexts, so 'contextual' cannot be rehearsed; rehearse 'thompson' on the same metric, "
            "which is what it comes to where no feature matters",
        )
    if isinstance(document.allocation, Interleave):
        raise _refused(
            field,
            "a world has no rankings, so 'interleave' cannot be rehearsed; rehearse a 'split' over the same arms, "
            "which needs at least as many impressions",
        )
    try:
        # A plan has no endpoint, so what depends on its models is left to the router.
        check_experiment(document, kind="predict", output="probability")
    except InvalidDocument as error:
        raise _refused(f"experiment.{error.field}", str(error)) from None
    if isinstance(metric := optimised(document), RatioMetric):
        raise _refused(
            "experiment.metrics",
            f"the primary metric {metric.name!r} is a ratio, whose parts a world does not have; make a binary, numeric "
            "or score metric the primary one for the rehearsal",
        )


def _contradictions(document: Experiment, world: World) -> Iterator[tuple[str, str]]:
    metric, live = optimised(document), [document.arms[number].name for number in document.live]
    if (world.arms is None) == (world.logged is None):
        yield "arms", "say what the arms' values are, either in `arms` or by `logged`, and not in both"
    if world.arms is not None:
        for name in live:
            if name not in world.arms:
                yield "arms", f"arm {name!r} is missing; say what its values are, such as {_example(metric)}"
        yield from _truths("arms", metric, world.arms, [arm.name for arm in document.arms])
    if world.logged is not None and (world.logged.csv is None) == (world.logged.experiment is None):
        yield "logged", "name either a file, as `csv`, or an `experiment`"
    if world.daily is not None:
        yield from _hours(world.daily)
    for index, change in enumerate(world.changes):
        yield from ((f"changes[{index}].{field}", message) for field, message in _changed(change, metric, live))


def _hours(daily: Sequence[float]) -> Iterator[tuple[str, str]]:
    if len(daily) != 24:
        yield "daily", f"a day has 24 hours; this one has {len(daily)}: give one number for each, from midnight on"
    if not math.isfinite(sum(daily)) or sum(daily) <= 0:
        yield "daily", "no hour has any traffic; give each hour a number that says how busy it is"


def _changed(change: Change, metric: AnyMetric, live: Sequence[str]) -> Iterator[tuple[str, str]]:
    if not math.isfinite(change.after_days):
        yield "after_days", f"{change.after_days} is not finite; give a number of days"
    if bool(change.arms) == (change.swap is not None):
        yield "arms", "say either new values for some `arms`, or which two `swap`"
    yield from _truths("arms", metric, change.arms, live)
    for name in change.swap or ():
        if name not in live:
            yield "swap", f"{name!r} is not an arm with traffic; arms: {', '.join(live)}"
    if change.swap is not None and change.swap[0] == change.swap[1]:
        yield "swap", f"both are {change.swap[0]!r}; name two arms"


def _truths(
    field: str, metric: AnyMetric, truths: Mapping[str, Truth], names: Sequence[str]
) -> Iterator[tuple[str, str]]:
    for name, truth in truths.items():
        if name not in names:
            yield field, f"{name!r} is not an arm; arms: {', '.join(names)}"
        given = [part for part in ("probability", "mean", "sd") if getattr(truth, part) is not None]
        expected = ["probability"] if has_ones_only(metric) else ["mean", "sd"]
        if given != expected:
            said = " and ".join(given) or "nothing"
            yield (
                f"{field}.{name}",
                f"{metric.name!r} is {_described(metric)}, so it takes {' and '.join(expected)}, such as "
                f"{_example(metric)}; here stands {said}",
            )
        if not all(math.isfinite(getattr(truth, part)) for part in given):
            yield f"{field}.{name}", f"{truth} is not finite; give finite numbers"


def _described(metric: AnyMetric) -> str:
    kind: Literal["0 or 1", "a number"] = "0 or 1" if has_ones_only(metric) else "a number"
    return kind


def _example(metric: AnyMetric) -> str:
    return '{"probability": 0.1}' if has_ones_only(metric) else '{"mean": 10, "sd": 3}'


def _refused(field: str, message: str) -> InvalidDocument:
    return InvalidDocument(f"{field}: {message}", field=field)
