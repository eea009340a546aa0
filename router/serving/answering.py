"""From an assignment to what is answered: the assigned model, several rankings mixed, or the champion instead."""

import asyncio
from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple, cast

from models.errors import InvalidValue, RemoteUnavailable
from router.assignment.audience import Context
from router.errors import InvalidInput, Overloaded, PredictionFailed, TurnoutError, Unavailable
from router.serving.assign import Assignment
from router.serving.inline import Timed
from router.serving.ranking import Listed, mixed, ranked
from router.serving.routes import EndpointRoute, ExperimentRoute, Limits, ServedModel
from router.serving.running import ModelRunner, Rows, describe


class PredictRequest(NamedTuple):
    """A decoded request: one row of inputs or several, or the candidates of a list, which are one decision."""

    unit: str
    rows: Rows
    context: Context
    key: str | None
    """The client's idempotency key."""
    single: bool
    """Whether the client sent one row and not a list."""
    length: int | None = None
    """How many candidates to show at most, of a rank endpoint."""


class Answer(NamedTuple):
    """Predictions, the model version that made them, and why it is not the assigned one (None when it is).

    A list that mixes several rankings predicts nothing: its scores stand in `listed.draw`.
    """

    predictions: Sequence[float | None]
    served_model: str
    fallback: str | None
    listed: Listed | None = None
    latency_ms: float | None = None
    """How long the assigned model took, or was waited for."""


class _Failed(Exception):
    """A model did not answer; `reference` is what was assigned."""

    def __init__(self, reference: str, reason: str, cause: Exception) -> None:
        super().__init__(reason)
        self.reference = reference
        self.reason = reason
        self.cause = cause

    def as_answer(self, who: str) -> TurnoutError:
        """Return what the client is told: to send what the model takes, to try again later, or that it failed."""
        if isinstance(self.cause, InvalidValue):
            return InvalidInput(self.reason, field=self.cause.feature)
        message = f"{who}: {self.reason}"
        return (
            Overloaded(message)
            if isinstance(self.cause, Unavailable | RemoteUnavailable)
            else PredictionFailed(message)
        )


class Answerer:
    """Asks models, and the champion, or else the control, where the assigned ones fail."""

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner

    async def answer(
        self, route: EndpointRoute, assignment: Assignment | None, request: PredictRequest, nonce: bytes
    ) -> Answer:
        """Return what to answer.

        Raises:
            PredictionFailed, Overloaded: Nobody answered, the champion included.
        """
        started_s = perf_counter()
        try:
            if assignment is not None and assignment.is_interleaved:
                return await self._mix(assignment.experiment, request, nonce)
            served, limits = assigned_model(route, assignment)
            found = await self._run(served, request.rows, limits)
            listed = _listed(route, request, found.values)
            return Answer(found.values, served.reference, None, listed, round(1000 * found.seconds, 3))
        except _Failed as error:
            failed, latency_ms = error, _ms_since(started_s)
        stand_in, limits = _stand_in(route, assignment, failed.reference)
        if failed.reference == stand_in.reference:
            raise failed.as_answer(f"champion {stand_in.reference!r} of {route.name!r}") from failed.cause
        try:
            predictions = (await self._run(stand_in, request.rows, limits)).values
        except _Failed as error:
            first = f"arm {failed.reference!r}: {failed.reason}"
            who = "champion" if stand_in is route.champion else "control"
            raise error.as_answer(f"endpoint {route.name!r}: {first}; {who} {stand_in.reference!r}") from error.cause
        listed = _listed(route, request, predictions)
        return Answer(predictions, stand_in.reference, failed.reason, listed, latency_ms)

    async def _run(self, served: ServedModel, rows: Rows, limits: Limits) -> Timed:
        try:
            return await self._runner.timed(served, rows, limits)
        except Exception as error:
            raise _Failed(served.reference, describe(error, limits), error) from error

    async def _mix(self, experiment: ExperimentRoute, request: PredictRequest, nonce: bytes) -> Answer:
        """Mix the rankings of all arms; if one of them fails, there is nothing to compare."""
        if experiment.interleave is None:
            raise AssertionError(f"experiment {experiment.name!r} has a table for interleaving but does not interleave")
        calls = (self._run(arm.served, request.rows, arm.limits) for arm in experiment.arms)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for found in answers:
            if isinstance(found, _Failed):
                reason = f"arm {found.reference!r}: {found.reason}"
                raise _Failed(mixed_reference(experiment), reason, found.cause)
        scores = [answer.values for answer in cast(list[Timed], answers)]
        value = nonce.hex() if experiment.by_request else request.unit
        args = (experiment.interleave, experiment.name, value, scores, request.length)
        # A linear programme for every new pair of rankings takes milliseconds, in which nobody else would be answered.
        optimised = experiment.interleave.method == "optimised"
        listed = await asyncio.to_thread(mixed, *args) if optimised else mixed(*args)
        return Answer([None] * len(request.rows), mixed_reference(experiment), None, listed)


def assigned_model(route: EndpointRoute, assignment: Assignment | None) -> tuple[ServedModel, Limits]:
    """Return the model and limits of the assigned arm; the champion's in the holdout and outside experiments."""
    arm = None if assignment is None else assignment.arm
    return (route.champion, route.limits) if arm is None else (arm.served, arm.limits)


def _stand_in(route: EndpointRoute, assignment: Assignment | None, failed: str) -> tuple[ServedModel, Limits]:
    """Return who answers for a model that failed: the champion, and for the champion as an arm the control.

    So a candidate that a rollout has just made champion is found out like any other arm that fails.
    """
    if failed == route.champion.reference and assignment is not None and assignment.arm is not None:
        control = assignment.experiment.arms[0]
        return control.served, control.limits
    return route.champion, route.limits


def assigned_reference(route: EndpointRoute, assignment: Assignment | None) -> str:
    """Return the assigned model version as the ledger names it; all of them where rankings are mixed."""
    if assignment is not None and assignment.is_interleaved:
        return mixed_reference(assignment.experiment)
    return assigned_model(route, assignment)[0].reference


def mixed_reference(experiment: ExperimentRoute) -> str:
    """Return the model versions whose rankings are mixed, as the ledger names them."""
    return "+".join(arm.served.reference for arm in experiment.arms)


def _ms_since(started_s: float) -> float:
    return round(1000 * (perf_counter() - started_s), 3)


def _listed(route: EndpointRoute, request: PredictRequest, predictions: list[float]) -> Listed | None:
    return ranked(predictions, request.length) if route.kind == "rank" else None
