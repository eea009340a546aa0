from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.documents import Breaker
from router.serving.breaker import CircuitBreaker


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def breaker(clock: Clock | None = None, **fields: float) -> CircuitBreaker:
    return CircuitBreaker(Breaker(**fields), clock=clock or Clock())  # type: ignore[arg-type]


def opened(clock: Clock) -> CircuitBreaker:
    made = breaker(clock, calls=4, failure_rate=0.5, open_s=5)
    for _ in range(2):
        made.failed()
    return made


def test_it_opens_when_the_share_of_the_last_calls_failed() -> None:
    made = breaker(calls=20, failure_rate=0.5)
    for _ in range(9):
        made.failed()
    for _ in range(5):
        made.succeeded()
    assert made.is_closed
    assert made.lets_through()
    made.failed()
    assert (made.is_closed, made.state, made.lets_through()) == (False, "open", False)
    assert made.reason == "circuit open: 10 of its last 20 calls failed"


def test_failures_that_are_long_ago_do_not_count() -> None:
    made = breaker(calls=10, failure_rate=0.3)
    for _ in range(200):
        made.failed()
        for _ in range(4):
            made.succeeded()
    assert made.is_closed


@pytest.mark.parametrize(("rate", "calls", "needed"), [(0.07, 100, 7), (1.0, 3, 3), (0.01, 20, 1), (0.29, 100, 29)])
def test_the_number_of_failures_is_the_rate_of_the_calls(rate: float, calls: int, needed: int) -> None:
    made = breaker(calls=calls, failure_rate=rate)
    for _ in range(needed - 1):
        made.failed()
    assert made.is_closed
    made.failed()
    assert not made.is_closed


def test_after_its_time_one_call_probes_and_the_others_wait_for_its_end() -> None:
    clock = Clock()
    made = opened(clock)
    clock.now_s += 4.99
    assert not made.lets_through()
    clock.now_s += 0.01
    assert made.state == "half-open"
    assert made.lets_through()
    assert made.begin() is True
    assert made.state == "half-open"
    assert not made.lets_through()


def test_a_probe_that_succeeds_closes_it_with_a_clean_record() -> None:
    clock = Clock()
    made = opened(clock)
    clock.now_s += 5
    made.succeeded(made.begin())
    assert made.state == "closed"
    made.failed()
    assert made.is_closed


def test_a_probe_that_fails_opens_it_for_as_long_again() -> None:
    clock = Clock()
    openings = []
    made = CircuitBreaker(Breaker(calls=1), opened=lambda: openings.append(clock.now_s), clock=clock)
    made.failed()
    clock.now_s += 5
    made.failed(made.begin())
    assert made.state == "open"
    clock.now_s += 4.9
    assert not made.lets_through()
    clock.now_s += 0.1
    assert made.lets_through()
    assert openings == [100.0, 105.0]


def test_a_probe_that_is_given_up_leaves_the_next_call_to_probe() -> None:
    clock = Clock()
    made = opened(clock)
    clock.now_s += 5
    made.abandoned(made.begin())
    assert made.lets_through()
    assert made.begin() is True


def test_what_began_before_it_opened_changes_nothing_while_it_is_open() -> None:
    clock = Clock()
    made = opened(clock)
    made.succeeded()
    made.failed()
    assert not made.lets_through()
    clock.now_s += 5
    assert made.lets_through()
    assert made.begin() is True
    made.failed()
    made.succeeded()
    assert made.state == "half-open"
    assert not made.lets_through()


@given(
    st.lists(st.booleans(), max_size=200),
    st.integers(1, 30),
    st.fractions(0, 1).filter(lambda share: share > 0).map(float),
)
def test_it_opens_at_the_call_at_which_a_plain_window_says_so(answers: list[bool], calls: int, rate: float) -> None:
    made, window = breaker(calls=calls, failure_rate=rate), deque[bool](maxlen=calls)
    for answered in answers:
        (made.succeeded if answered else made.failed)()
        window.append(not answered)
        exceeded = sum(window) >= rate * calls - 1e-9 and sum(window) > 0
        assert made.is_closed is not exceeded
        if exceeded:
            return
