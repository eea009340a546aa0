"""The requests that flights of the past make when they are replayed, and what became of them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from orchestration.endpoints.declaration import Endpoint
from orchestration.flights import travellers
from orchestration.flights.travellers import Flight, Journey
from router.client import Turnout

Json = dict[str, Any]


class DelayRequest(NamedTuple):
    """Asks how one flight will go; its label becomes known unless it never arrived."""

    endpoint: str
    unit: str
    inputs: Json
    context: Json
    label: str
    value: float | None

    def ask(self, router: Turnout, key: str) -> Json:
        """Make the call; the same key never decides twice."""
        return router.predict(self.endpoint, unit=self.unit, inputs=self.inputs, context=self.context, id=key)

    def outcomes(self, reply: Mapping[str, Any]) -> Sequence[Json]:
        """What becomes known, as rows for `POST /v1/outcomes`."""
        if self.value is None:
            return ()
        return ({"decision_id": reply["decision_id"], "metric": self.label, "value": self.value},)


class ChoiceRequest(NamedTuple):
    """Asks in which order to show a simulated traveller the flights of her route and day."""

    endpoint: str
    journey: Journey
    candidates: Sequence[Json]

    @property
    def unit(self) -> str:
        """Who asks."""
        return self.journey.unit

    def ask(self, router: Turnout, key: str) -> Json:
        """Make the call; the same key never decides twice."""
        return router.rank(self.endpoint, self.unit, self.candidates, id=key)

    def outcomes(self, reply: Mapping[str, Any]) -> Sequence[Json]:
        """What becomes known, as rows for `POST /v1/outcomes`."""
        shown = [each["item"] for each in reply["items"]]
        decided = {"decision_id": reply["decision_id"]}
        return [{**decided, **each._asdict()} for each in travellers.outcomes(self.journey, shown)]


def delay_requests(endpoint: Endpoint, flights: Iterable[Flight]) -> list[DelayRequest]:
    """One request per flight, in the given order; the context says in which month it is."""
    return [
        DelayRequest(
            endpoint.name,
            flight[endpoint.data.row_key],
            _inputs(endpoint, flight),
            {"month": f"{flight['date']:%Y-%m}"},
            endpoint.label,
            _known(flight[endpoint.label]),
        )
        for flight in flights
    ]


def choice_requests(endpoint: Endpoint, flights: Iterable[Flight]) -> list[ChoiceRequest]:
    """One request per journey that these flights leave a choice for."""
    return [
        ChoiceRequest(
            endpoint.name,
            journey,
            [{"id": flight[endpoint.data.row_key], **_inputs(endpoint, flight)} for flight in journey.flights],
        )
        for journey in travellers.journeys(flights)
    ]


def _inputs(endpoint: Endpoint, flight: Flight) -> Json:
    return {name: _known(flight[name]) for name in endpoint.features}


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
