"""Assigning a unit without running a model: the arm is told to a client that acts on it by itself."""

import os
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from router.assignment.audience import Context
from router.decision_id import Signer
from router.documents import Interleave
from router.errors import NotFound, UnknownExperiment
from router.ledger.control_writing import ExperimentRecord
from router.ledger.records import DecisionRow
from router.ledger.writer import LedgerWriter
from router.serving.assign import Assignment, assign
from router.serving.routes import Routes
from router.serving.signing import Content, signed_row
from router.serving.sticky import StickyAssignments

_NONCE_SIZE = 8
_INPUTS = "[{}]"
_PREDICTIONS = "[null]"
"""One item, so that outcomes have something to be about, for which nothing was predicted."""


class Evaluation(NamedTuple):
    """What an experiment gives a unit: an arm or the holdout, or None when it does not take the unit."""

    experiment: ExperimentRecord
    assignment: Assignment | None
    model: str | None
    """The model version of the arm; the champion in the holdout."""


class Exposure(NamedTuple):
    """An evaluation, and the durable decision that says that the unit was exposed to it, if it was taken."""

    evaluation: Evaluation
    decision: DecisionRow | None


class Exposures:
    """Assigns units through the current routes."""

    def __init__(
        self,
        routes: Callable[[], Routes],
        writer: LedgerWriter,
        signer: Signer,
        *,
        clock: Callable[[], int],
        decisions: Counter[tuple[str, str | None, str | None]],
    ) -> None:
        self._routes = routes
        self._writer = writer
        self._signer = signer
        self._clock = clock
        self._decisions = decisions
        self._sticky = StickyAssignments(writer, clock)

    async def expose(self, name: str, unit: str, context: Context) -> Exposure:
        """Return what an experiment gives a unit, once the decision is durable.

        Raises:
            NotFound: There is none of that name, or it interleaves rankings, which gives a unit no arm.
            Unavailable: Nothing was acknowledged.
        """
        routes = self._routes()
        nonce = os.urandom(_NONCE_SIZE)
        evaluation = await self._evaluate(routes, _find(routes, name), unit, context, nonce)
        if evaluation.assignment is None:
            return Exposure(evaluation, None)
        row = self._row(evaluation, evaluation.assignment, unit, context, nonce)
        await self._writer.decide(row, None)
        self._decisions[row.endpoint, name, evaluation.assignment.name] += 1
        return Exposure(evaluation, row)

    async def preview(self, unit: str, context: Context) -> list[Evaluation]:
        """Return what every experiment that runs and draws by unit gives this one; no decision is made.

        The first assignment in a sticky experiment is stored all the same: the client acts on it.
        """
        routes = self._routes()
        return [
            await self._evaluate(routes, record, unit, context, b"")
            for record in routes.experiments.values()
            if record.state == "running" and not record.document.by_request and not _interleaves(record)
        ]

    async def _evaluate(
        self, routes: Routes, record: ExperimentRecord, unit: str, context: Context, nonce: bytes
    ) -> Evaluation:
        route = routes.endpoints.get(record.document.endpoint) if record.state == "running" else None
        drawn = None if route is None else assign(route, unit, context, nonce)
        if route is None or drawn is None or drawn.experiment.id != record.id:
            return Evaluation(record, None, None)
        if drawn.experiment.sticky:
            drawn = await self._sticky.first(drawn, unit)
        served = route.champion if drawn.arm is None else drawn.arm.served
        return Evaluation(record, drawn, served.reference)

    def _row(
        self, evaluation: Evaluation, assignment: Assignment, unit: str, context: Context, nonce: bytes
    ) -> DecisionRow:
        model = evaluation.model or ""
        content = Content(
            endpoint=evaluation.experiment.document.endpoint,
            unit=unit,
            context=context,
            model=model,
            served_model=model,
            fallback=None,
            inputs=_INPUTS,
            predictions=_PREDICTIONS,
        )
        return signed_row(self._signer, self._clock(), assignment, nonce, content)


def _find(routes: Routes, name: str) -> ExperimentRecord:
    for record in routes.experiments.values():
        if record.document.name == name:
            if _interleaves(record):
                raise NotFound(f"experiment {name!r} interleaves rankings, which gives a unit no arm")
            return record
    raise UnknownExperiment(name, sorted(record.document.name for record in routes.experiments.values()))


def _interleaves(record: ExperimentRecord) -> bool:
    return isinstance(record.document.allocation, Interleave)
