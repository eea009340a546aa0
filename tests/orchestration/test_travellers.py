"""Who the simulated travellers are, what they are shown to choose from, and what they leave behind."""

import itertools
import math
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest

from orchestration.endpoints import flight_choice
from orchestration.flights.traffic import choice_requests
from orchestration.flights.travellers import BOOKED, BOOKS, MOST, SATISFIED, Journey, booking, journeys, outcomes

DAY = datetime(2013, 5, 1)  # noqa: DTZ001 (a day, as the tables have it)


def flight(number: int, *, day: datetime = DAY, dest: str = "BOS", status: str = "arrived") -> dict[str, Any]:
    """A flight that leaves at the hour `number`, and whose id says nothing of it."""
    late = float(number % 3 == 0) if status == "arrived" else math.nan
    return {
        "flight_id": f"{day:%Y-%m-%d}-UA{97 * (number + 1) % 101}-JFK-{dest}",
        "date": day,
        "origin": "JFK",
        "dest": dest,
        "scheduled_departure": day + timedelta(hours=number),
        "status": status,
        "on_time": 1 - late,
        **dict.fromkeys(flight_choice.ENDPOINT.features[4:], math.nan),
        **dict.fromkeys(("carrier", "weekday"), "xx"),
    }


def test_a_journey_is_a_choice_of_flights_of_one_route_and_day() -> None:
    rows = [flight(1), flight(2), flight(3, dest="LAX"), flight(4), flight(1, day=DAY + timedelta(days=1))]
    [journey] = journeys(rows)
    assert journey.unit == "traveller-2013-05-01-JFK-BOS"
    assert sorted(each["scheduled_departure"].hour for each in journey.flights) == [1, 2, 4]
    assert list(journey.flights) == sorted(journey.flights, key=lambda each: str(each["flight_id"]))


@pytest.mark.parametrize("count", [MOST, MOST + 1, 24])
def test_long_lists_are_cut_to_flights_all_over_the_day(count: int) -> None:
    [journey] = journeys([flight(number) for number in range(count)])
    hours = sorted(each["scheduled_departure"].hour for each in journey.flights)
    assert len(set(hours)) == MOST
    assert (hours[0], hours[-1]) == (0, count - 1)
    assert max(b - a for a, b in itertools.pairwise(hours)) <= math.ceil((count - 1) / (MOST - 1))


def test_booking_depends_on_the_place_alone_and_is_always_the_same() -> None:
    units = [f"traveller-{number}" for number in range(20_000)]
    booked = Counter(booking(unit, [4, 7, 1]) for unit in units)
    assert all(booking(unit, [4, 7, 1]) == booking(unit, [4, 7, 1]) for unit in units[:50])
    places = {4: BOOKS, 7: BOOKS * (1 - BOOKS), 1: BOOKS * (1 - BOOKS) ** 2, None: (1 - BOOKS) ** 3}
    for item, share in places.items():
        assert abs(booked[item] / 20_000 - share) < 4.5 * math.sqrt(share * (1 - share) / 20_000)


@pytest.mark.parametrize(
    ("status", "number", "satisfied"),
    [("arrived", 1, 1.0), ("arrived", 3, 0.0), ("cancelled", 1, 0.0), ("diverted", 1, 0.0), ("impossible", 1, None)],
)
def test_she_is_satisfied_if_the_booked_flight_arrived_on_time(
    status: str, number: int, satisfied: float | None
) -> None:
    chosen = next(unit for unit in map(str, range(100)) if booking(unit, [1, 0]) == 1)
    found = {
        each.metric: each for each in outcomes(Journey(chosen, [flight(2), flight(number, status=status)]), [1, 0])
    }
    assert found.pop(BOOKED)[1:] == (1, 1.0)
    if satisfied is None:
        assert found == {}
    else:
        assert found[SATISFIED][1:] == (1, satisfied)


def test_nothing_comes_of_a_list_from_which_nothing_is_booked() -> None:
    nobody = next(unit for unit in map(str, range(100)) if booking(unit, [0, 1]) is None)
    assert list(outcomes(Journey(nobody, [flight(1), flight(2)]), [0, 1])) == []


def test_requests_carry_ids_and_features_and_outcomes_name_the_item() -> None:
    [request] = choice_requests(flight_choice.ENDPOINT, [flight(1), flight(2)])
    assert [set(each) for each in request.candidates] == [{"id", *flight_choice.ENDPOINT.features}] * 2
    assert request.candidates[0]["wind_gust"] is None
    chosen = request._replace(
        journey=request.journey._replace(unit=next(u for u in "abcdefgh" if booking(u, [1]) == 1))
    )
    rows = chosen.outcomes({"decision_id": "d", "items": [{"id": "x", "rank": 1, "item": 1}]})
    assert [(row["decision_id"], row["metric"], row["item"]) for row in rows] == [("d", BOOKED, 1), ("d", SATISFIED, 1)]
