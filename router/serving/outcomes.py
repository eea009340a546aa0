"""Outcomes: from posted rows to observations that the ledger can fold, with a receipt for every row."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec

from analysis.statistics.scores import PROBABILITY_SCORES
from router.decision_id import DecisionId, Signer
from router.documents import GIVE, LARGEST_VALUE, BinaryMetric, Experiment, Name, ScoreMetric, fault_in
from router.errors import InvalidRequest, RequestTooLarge, StaleRoutes
from router.ledger.records import Observation, Receipt, decided_ms
from router.ledger.writer import LedgerWriter
from router.serving.requests import Key
from router.serving.routes import Routes

Checked = TypeVar("Checked")

_CLOCK_TOLERANCE_MS = 300_000
_TIME = 'an RFC 3339 time with its offset, such as "2026-03-01T09:30:00Z"'


class PostedOutcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something observed later about a decision: reward, click, or ground-truth label."""

    decision_id: str
    metric: Name
    value: float | bool | None
    """A finite number; true and false count as 1 and 0. With a `version`, null retracts what was said before."""
    item: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | msgspec.UnsetType = msgspec.UNSET
    """The row of the decision's inputs that it is about, the first unless said; of a list, the candidate: required."""
    at: Annotated[datetime, msgspec.Meta(tz=True, extra={GIVE: _TIME})] | None = None
    """When it happened: unless said now, or with a version, when what it corrects did."""
    id: Key | None = None
    """Tells apart several outcomes of one decision, metric and item."""
    version: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 0
    """0 says it first; the highest version counts, whatever the order of arrival."""


class OutcomeRecorder:
    """Records outcomes through the current routes."""

    def __init__(
        self,
        routes: Callable[[], Routes],
        refresh: Callable[[], Awaitable[None]],
        writer: LedgerWriter,
        signer: Signer,
        *,
        max_batch: int,
        clock: Callable[[], int],
        counts: Counter[str],
    ) -> None:
        self._counts = counts
        self._routes = routes
        self._refresh = refresh
        self._writer = writer
        self._signer = signer
        self._max_batch = max_batch
        self._clock = clock
        self._rows = msgspec.json.Decoder(list[PostedOutcome])
        self._row = msgspec.json.Decoder(PostedOutcome)
        self._raw_rows = msgspec.json.Decoder(list[msgspec.Raw])

    async def record_one(self, body: bytes) -> Receipt:
        """Record one outcome; raises InvalidRequest instead of returning a rejection."""
        try:
            row = self._row.decode(body)
        except msgspec.DecodeError as error:
            raise fault_in(body, error, PostedOutcome).error(whole="the outcome") from None
        observation = (await self._with_fresh_routes(lambda: [self._observation(row)]))[0]
        receipt = (await self._writer.observe([observation]))[0]
        receipt = self._noted(observation, receipt)
        self._counts[receipt.status] += 1
        if receipt.status == "rejected":
            raise InvalidRequest(receipt.reason or "rejected", field=receipt.field)
        return receipt

    async def record_many(self, body: bytes) -> list[Receipt]:
        """Record a list; a bad row is rejected with its reason and does not stop the others."""
        rows = self._decode(body)
        if len(rows) > self._max_batch:
            raise RequestTooLarge(f"{len(rows)} outcomes in one request; the limit is {self._max_batch}: send less")
        checked = await self._with_fresh_routes(
            lambda: [row if isinstance(row, Receipt) else self._check(row) for row in rows]
        )
        sound = [row for row in checked if isinstance(row, Observation)]
        recorded = iter(await self._writer.observe(sound) if sound else [])
        receipts = [self._noted(row, next(recorded)) if isinstance(row, Observation) else row for row in checked]
        self._counts.update(receipt.status for receipt in receipts)
        return receipts

    async def _with_fresh_routes(self, check: Callable[[], list[Checked]]) -> list[Checked]:
        """Check again with newer routes if the decision's experiment was started by another process just now."""
        try:
            return check()
        except StaleRoutes:
            await self._refresh()
            return check()

    def _decode(self, body: bytes) -> Sequence[PostedOutcome | Receipt]:
        try:
            raw_rows = self._raw_rows.decode(body)
        except msgspec.DecodeError as error:
            raise fault_in(body, error, self._raw_rows.type).error() from None
        try:
            return self._rows.decode(body)
        except msgspec.ValidationError:
            return [self._decode_row(raw) for raw in raw_rows]

    def _decode_row(self, raw: msgspec.Raw) -> PostedOutcome | Receipt:
        try:
            return self._row.decode(raw)
        except msgspec.DecodeError as error:
            return _rejected(fault_in(raw, error, PostedOutcome).error(whole="the outcome"))

    def _check(self, row: PostedOutcome) -> Observation | Receipt:
        try:
            return self._observation(row)
        except InvalidRequest as error:
            return _rejected(error)

    def _observation(self, row: PostedOutcome) -> Observation:
        """Return what to store, or raise InvalidRequest naming the field."""
        raw, decision = self._signer.parse(row.decision_id)
        now_ms = self._clock()
        if decision.is_drawn:
            self._check_metric(decision, row)
        return Observation(
            decision_id=raw,
            metric=row.metric,
            item=0 if row.item is msgspec.UNSET else row.item,
            outcome_id=row.id or "",
            version=row.version,
            value=_checked_value(row),
            experiment_id=decision.experiment_id if decision.is_drawn else None,
            arm=decision.arm if decision.is_drawn else None,
            occurred_ms=now_ms if row.at is None else _occurred(row.at, decision.decided_ms, now_ms),
            dated=row.at is not None,
            itemised=row.item is not msgspec.UNSET,
        )

    def _noted(self, observation: Observation, receipt: Receipt) -> Receipt:
        """Return the receipt, with a word to the sender of what is kept but counts for nothing."""
        if receipt.status != "accepted" or observation.experiment_id is None:
            return receipt
        if observation.version and not observation.dated:
            # It happened when what it corrects did.
            return receipt
        record = self._routes().experiments[observation.experiment_id]
        fed = [metric for metric in record.document.metrics if observation.metric in metric.outcome_names()]
        since_s = (observation.occurred_ms - decided_ms(observation.decision_id)) / 1000
        if all(metric.ignores_late and since_s > metric.window_s for metric in fed):
            names = ", ".join(f"{metric.name!r} ({metric.window_s} s)" for metric in fed)
            return Receipt("accepted", f"it happened after the window of {names}: kept, not counted")
        return receipt

    def _check_metric(self, decision: DecisionId, row: PostedOutcome) -> None:
        record = self._routes().experiments.get(decision.experiment_id)
        if record is None:
            raise StaleRoutes(f"experiment {decision.experiment_id} of this decision is not known here yet; try again")
        fed = [metric for metric in record.document.metrics if row.metric in metric.outcome_names()]
        if not fed:
            raise InvalidRequest(_unknown_metric(record.document, row.metric), field="metric")
        if row.value not in (0, 1, None) and any(_needs_zero_or_one(metric) for metric in fed):
            raise InvalidRequest(f"{row.metric!r} takes 0 or 1, not {row.value!r}", field="value")


def _rejected(error: InvalidRequest) -> Receipt:
    return Receipt("rejected", str(error), error.field)


def _needs_zero_or_one(metric: Any) -> bool:
    if isinstance(metric, ScoreMetric):
        return metric.score in PROBABILITY_SCORES
    return isinstance(metric, BinaryMetric)


def _unknown_metric(experiment: Experiment, name: str) -> str:
    expected = sorted({outcome for metric in experiment.metrics for outcome in metric.outcome_names()})
    computed = next((metric for metric in experiment.metrics if metric.name == name), None)
    if isinstance(computed, ScoreMetric):
        return f"{name!r} is computed by the router from the label {computed.label!r}; post {computed.label!r} instead"
    return f"experiment {experiment.name!r} has no metric fed by {name!r}; it takes: {', '.join(expected)}"


def _checked_value(row: PostedOutcome) -> float | None:
    """Return the value if sums of squares of such values stay finite."""
    value = row.value
    if value is None:
        if row.version == 0:
            raise InvalidRequest(
                "a null value retracts an outcome; it needs a version above that one's", field="version"
            )
        return None
    if not abs(value) <= LARGEST_VALUE:
        raise InvalidRequest(f"value must lie within {LARGEST_VALUE:g} of 0, but is {value!r}", field="value")
    return float(value)


def _occurred(at: datetime, decided_ms: int, now_ms: int) -> int:
    try:
        occurred_ms = round(at.timestamp() * 1000)
    except (OverflowError, ValueError):
        occurred_ms = 0
    if occurred_ms < decided_ms - _CLOCK_TOLERANCE_MS:
        raise InvalidRequest(f"at {at.isoformat()} lies before the decision; check the sender's clock", field="at")
    if occurred_ms > now_ms + _CLOCK_TOLERANCE_MS:
        raise InvalidRequest(f"at {at.isoformat()} lies in the future; check the sender's clock", field="at")
    return occurred_ms
