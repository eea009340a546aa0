"""The requests that flights of the past make when they are replayed, and what became of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from orchestration.endpoints.declaration import Endpoint
from orchestration.flights import travellers
from orchestration.flights.travellers import Flight, Journey
from orchestration.labelled import LabelledRequest, inputs_of, labelled_requests
from router.client import Turnout

Json = dict[str, Any]


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


def delay_requests(endpoint: Endpoint, flights: Iterable[Flight]) -> list[LabelledRequest]:
    """One request per flight, in the given order; the context says in which month it is."""
    return labelled_requests(endpoint, flights, lambda flight: {"month": f"{flight['date']:%Y-%m}"})


def choice_requests(endpoint: Endpoint, flights: Iterable[Flight]) -> list[ChoiceRequest]:
    """One request per journey that these flights leave a choice for."""
    return [
        ChoiceRequest(
            endpoint.name,
            journey,
            [{"id": flight[endpoint.data.row_key], **inputs_of(endpoint, flight)} for flight in journey.flights],
        )
        for journey in travellers.journeys(flights)
    ]
