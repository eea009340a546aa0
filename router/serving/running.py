"""Calling models within limits: in the event loop, in threads of their own or over the network.

Every model version has its own threads, its own count of calls under way and its own circuit breakers, so that one
that hangs or fails takes nothing from the others.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any, NamedTuple

from numpy.typing import NDArray

from models.errors import InvalidValue
from models.runtime import Model
from models.signature import BatchEncoder
from router.documents import Breaker
from router.errors import Overloaded, PredictionFailed, TurnoutError
from router.serving.batching import Rows, ThreadedModel, checked, within
from router.serving.breaker import STATES, CircuitBreaker, State
from router.serving.inline import InlineModel, NotHere, Timed
from router.serving.routes import Limits, ServedModel

__all__ = ["ModelReading", "ModelRunner", "Rows", "describe"]

CLOSING_S = 5.0
"""How long the end of the process waits for models that still run."""

_LARGEST_INLINE_BATCH = 64
_WARY_CALLS = 100
"""How many calls in a row must be in time, in a thread, before a model that was late runs in the event loop again."""
_NO_LIMITS = Limits(0.0, 0, Breaker())

PredictAsync = Callable[[Any], Coroutine[Any, Any, NDArray[Any]]]


class ModelReading(NamedTuple):
    """What a model version is doing."""

    reference: str
    calls: int
    """Under way, those that nobody waits for any more included."""
    breaker: State
    """The worst, where it is called under several limits."""


class ModelRunner:
    """Runs the models of one process; used from one event loop."""

    def __init__(
        self,
        *,
        rejected: Counter[tuple[str, str]] | None = None,
        opened: Counter[str] | None = None,
        gathered: Callable[[int], None] = lambda rows: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models: dict[str, _Calls] = {}
        self._rejected = Counter() if rejected is None else rejected
        self._opened = Counter() if opened is None else opened
        self._gathered = gathered
        self._clock = clock

    async def run(self, served: ServedModel, rows: Rows, limits: Limits) -> list[float]:
        """Return one finite number per row; raises as `timed` does."""
        return (await self.timed(served, rows, limits)).values

    async def timed(self, served: ServedModel, rows: Rows, limits: Limits) -> Timed:
        """Return one finite number per row and how long that took, or raise whatever the model did.

        Raises:
            TimeoutError: It took longer than its limit.
            Overloaded: It was not asked: it has too many calls under way, or failed too often of late.
            PredictionFailed: It is not loaded, or what it predicted is no prediction.
        """
        calls = self._models.get(served.reference)
        if calls is None or calls.served is not served:
            calls = self._begin(served)
        breaker = calls.breaker if limits is calls.limits else calls.under(limits)
        if calls.is_inline and breaker.is_closed and len(rows) <= _LARGEST_INLINE_BATCH:
            with suppress(NotHere):
                return await self._run_here(calls, breaker, rows, limits)
        started_s = perf_counter()
        values = await self._run_apart(calls, breaker, rows, limits)
        return Timed(values, perf_counter() - started_s)

    def readings(self) -> Iterator[ModelReading]:
        """Yield what each model version that was called is doing; for other threads too."""
        for reference, calls in list(self._models.items()):
            yield ModelReading(reference, calls.under_way, calls.worst_state())

    def keep_only(self, used: Mapping[str, Collection[Limits]]) -> None:
        """Let go of what is not used any more: threads by model version, breakers by its limits.

        Calls under way are answered.
        """
        for reference, calls in list(self._models.items()):
            if reference in used:
                calls.keep_only(used[reference])
            else:
                self._models.pop(reference).threads.release()

    def close(self) -> None:
        """Wait, but not for ever, for the models that still run in threads."""
        ends_s = time.monotonic() + CLOSING_S
        for calls in self._models.values():
            calls.threads.close(max(0.0, ends_s - time.monotonic()))

    def _begin(self, served: ServedModel) -> "_Calls":
        if served.model is None or served.encoder is None:
            raise PredictionFailed(served.problem or "the model is not loaded")
        before = self._models.get(served.reference)
        if before is not None:
            before.threads.release()
        threads = ThreadedModel(served.model, served.encoder, gathers=served.gathers, gathered=self._gathered)
        inline = InlineModel(served.model, served.encoder, gathers=served.gathers, gathered=self._gathered)
        calls = _Calls(served, served.model, served.encoder, threads, inline, self._breaker)
        self._models[served.reference] = calls
        return calls

    def _breaker(self, reference: str, settings: Breaker) -> CircuitBreaker:
        def opened() -> None:
            self._opened[reference] += 1

        return CircuitBreaker(settings, opened=opened, clock=self._clock)

    async def _run_here(self, calls: "_Calls", breaker: CircuitBreaker, rows: Rows, limits: Limits) -> Timed:
        try:
            found = await calls.inline.call(rows)
        except (InvalidValue, NotHere):
            raise
        except Exception:
            breaker.failed()
            raise
        if not found.counts:
            return found
        if found.seconds < limits.timeout_s:
            breaker.succeeded()
        else:
            # The answer is there, late as it is; but everybody waited for it.
            calls.was_late()
            breaker.failed()
        return found

    async def _run_apart(self, calls: "_Calls", breaker: CircuitBreaker, rows: Rows, limits: Limits) -> list[float]:
        self._admit(calls, breaker, limits)
        probe = breaker.begin()
        calls.awaited += 1
        try:
            values = await calls.call(rows, limits.timeout_s)
        except Overloaded:
            breaker.abandoned(probe)
            self._rejected[calls.served.reference, "busy"] += 1
            raise
        except InvalidValue:
            # Whoever sends such values must not take the model from everybody else.
            breaker.abandoned(probe)
            raise
        except Exception:
            breaker.failed(probe)
            raise
        except BaseException:
            breaker.abandoned(probe)
            raise
        finally:
            calls.awaited -= 1
        breaker.succeeded(probe)
        calls.was_in_time()
        return values

    def _admit(self, calls: "_Calls", breaker: CircuitBreaker, limits: Limits) -> None:
        if not breaker.lets_through():
            self._rejected[calls.served.reference, "breaker"] += 1
            raise Overloaded(breaker.reason)
        if calls.under_way >= limits.max_concurrency:
            self._rejected[calls.served.reference, "concurrency"] += 1
            raise Overloaded(f"{limits.max_concurrency} calls of it are under way, which is its limit")


class _Calls:
    """The calls of one model version, and its breaker for each set of limits under which it is called."""

    def __init__(
        self,
        served: ServedModel,
        model: Model,
        encoder: BatchEncoder,
        threads: ThreadedModel,
        inline: InlineModel,
        breaker: Callable[[str, Breaker], CircuitBreaker],
    ) -> None:
        self.served = served
        self.model = model
        self.encoder = encoder
        self.threads = threads
        self.inline = inline
        self.is_inline = served.inline
        self.awaited = 0
        self.limits = _NO_LIMITS
        """Those of the last call; under the same ones `breaker` needs no look-up."""
        self.breaker = breaker(served.reference, _NO_LIMITS.breaker)
        self._breakers: dict[Limits, CircuitBreaker] = {}
        self._make_breaker = breaker
        self._wary = 0
        self._lingering: set[asyncio.Future[list[float]]] = set()
        self._predict_async: PredictAsync | None = getattr(model, "predict_async", None)

    @property
    def under_way(self) -> int:
        """How many calls take something of the model or its threads."""
        return self.awaited + self.threads.abandoned + len(self._lingering)

    def under(self, limits: Limits) -> CircuitBreaker:
        """Return the breaker of calls under these limits."""
        breaker = self._breakers.get(limits)
        if breaker is None:
            breaker = self._breakers[limits] = self._make_breaker(self.served.reference, limits.breaker)
        self.limits, self.breaker = limits, breaker
        return breaker

    def keep_only(self, used: Collection[Limits]) -> None:
        """Forget the breakers of other limits."""
        for limits in self._breakers.keys() - set(used):
            del self._breakers[limits]

    def worst_state(self) -> State:
        """Return the state of the breaker that is furthest from closed."""
        return max((breaker.state for breaker in list(self._breakers.values())), key=STATES.index, default="closed")

    async def call(self, rows: Rows, timeout_s: float) -> list[float]:
        """Return what the model predicts in a thread or on another server; raises whatever it does."""
        if self._predict_async is None:
            return await self.threads.call(rows, timeout_s)
        answer = asyncio.ensure_future(_ask(self._predict_async, self.encoder, rows))
        try:
            return await within(answer, timeout_s)
        finally:
            if not answer.done():
                self._lingering.add(answer)
                answer.add_done_callback(self._lingering.discard)

    def was_late(self) -> None:
        """Keep the model out of the event loop until it has been in time for a while."""
        self.is_inline, self._wary = False, _WARY_CALLS
        self.inline.refuse()

    def was_in_time(self) -> None:
        """Count a call towards trusting a model again that was late."""
        if self._wary:
            self._wary -= 1
            self.is_inline = self._wary == 0 and self.served.inline


async def _ask(predict: PredictAsync, encoder: BatchEncoder, rows: Rows) -> list[float]:
    return checked(await predict(encoder.encode(rows)), len(rows))


def describe(error: Exception, limits: Limits) -> str:
    """Return why a model did not answer, as replies and the ledger say it."""
    if isinstance(error, TimeoutError):
        return f"no prediction within {limits.timeout_s * 1000:g} ms"
    return str(error) if isinstance(error, TurnoutError | InvalidValue) else f"{type(error).__name__}: {error}"
