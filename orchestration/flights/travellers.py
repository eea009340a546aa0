"""Simulated travellers who choose among real flights. The lists and the delays are real, the travellers are not.

One traveller wants to fly a route on a day. She looks at the list that she is shown from the top, books each flight
with the same probability, and looks at the next one otherwise; she may book none. Nothing but its place makes her book
a flight. She is satisfied if it arrived on time, and not if it was late, diverted or cancelled.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

BOOKED = "booked"
SATISFIED = "on_time_booking"
BOOKS = 0.5
"""The probability that she books a flight she looks at."""
MOST = 10
"""Flights of a longer list are left out, so that what remains is spread over the day."""

Flight = Mapping[str, Any]


class Journey(NamedTuple):
    """What one traveller wishes: any of these flights, by carrier and flight number, not by the hour."""

    unit: str
    flights: Sequence[Flight]


class Outcome(NamedTuple):
    """What becomes known of a flight in a list; `item` is its place in the request, from 0 on."""

    metric: str
    item: int
    value: float


def journeys(flights: Iterable[Flight]) -> list[Journey]:
    """One journey per route and day that leave a choice, in the order of days; flights come in that of departure."""
    found: dict[str, list[Flight]] = defaultdict(list)
    for flight in flights:
        found[f"traveller-{flight['date']:%Y-%m-%d}-{flight['origin']}-{flight['dest']}"].append(flight)
    return [Journey(unit, _choice(group)) for unit, group in found.items() if len(group) > 1]


def booking(unit: str, shown: Sequence[int]) -> int | None:
    """The item that the traveller books from a list: the same one whenever she is asked again."""
    chance = random.Random(unit)  # noqa: S311 (a simulation, not a secret)
    return next((item for item in shown if chance.random() < BOOKS), None)


def outcomes(journey: Journey, shown: Sequence[int]) -> Iterator[Outcome]:
    """What becomes known after she saw this list; not how the flight went where the data contradict themselves."""
    item = booking(journey.unit, shown)
    if item is None:
        return
    yield Outcome(BOOKED, item, 1.0)
    flight = journey.flights[item]
    if flight["status"] != "impossible":
        yield Outcome(SATISFIED, item, float(flight["status"] == "arrived" and flight["on_time"] == 1))


def _choice(group: Sequence[Flight]) -> list[Flight]:
    last, most = len(group) - 1, min(len(group), MOST)
    kept = [group[round(number * last / (most - 1))] for number in range(most)]
    return sorted(kept, key=lambda flight: str(flight["flight_id"]))
