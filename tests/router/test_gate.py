import pytest

from router.errors import InvalidKey, LedgerUnavailable, RateExceeded, ScopeMissing
from router.gate import Gate, TokenBucket
from router.keys import Keyring, Scope, new_key


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds

    def milliseconds(self) -> int:
        return round(self.seconds * 1000)


def gate_with(clock: Clock, *scopes: Scope, rate: float | None = None) -> tuple[Gate, str, str]:
    gate = Gate(seconds=clock, clock=clock.milliseconds)
    key, text = new_key("test", frozenset(scopes), rate, 1)
    gate.install(Keyring([key]))
    return gate, key.id, text


def test_bucket_allows_a_second_at_once_then_the_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(4.0, clock)
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 0]
    assert bucket.take() == pytest.approx(0.25)
    clock.seconds += 0.125
    assert bucket.take() == pytest.approx(0.125)
    clock.seconds += 0.125
    assert bucket.take() == 0
    clock.seconds += 1000
    assert [bucket.take() for _ in range(5)] == [0, 0, 0, 0, pytest.approx(0.25)]


def test_bucket_below_one_per_second_still_allows_single_calls() -> None:
    clock = Clock()
    bucket = TokenBucket(0.1, clock)
    assert bucket.take() == 0
    assert bucket.take() == pytest.approx(10.0)
    clock.seconds += 10.0
    assert bucket.take() == 0


def test_bucket_gives_no_more_than_the_rate_over_time() -> None:
    clock = Clock()
    bucket = TokenBucket(7.0, clock)
    taken = 0
    for _ in range(10_000):
        taken += bucket.take() == 0
        clock.seconds += 0.01
    assert taken in range(700, 708)


def test_gate_before_the_keys_are_read_is_closed() -> None:
    clock = Clock()
    gate = Gate(seconds=clock, clock=clock.milliseconds)
    with pytest.raises(LedgerUnavailable, match="keys are not read yet"):
        gate.admit(None, "predict")


def test_gate_checks_key_and_scope() -> None:
    gate, key_id, text = gate_with(Clock(), "predict")
    caller = gate.admit(text, "predict")
    assert caller.key is not None
    assert caller.key.id == key_id
    with pytest.raises(ScopeMissing):
        gate.admit(text, "read")
    with pytest.raises(InvalidKey):
        gate.admit(f"{text}0", "predict")


def test_gate_limits_each_key_by_itself() -> None:
    clock = Clock()
    slow, slow_text = new_key("slow", frozenset({"predict"}), 2.0, 1)
    fast, fast_text = new_key("fast", frozenset({"predict"}), None, 1)
    gate = Gate(seconds=clock, clock=clock.milliseconds)
    gate.install(Keyring([slow, fast]))
    for _ in range(2):
        gate.admit(slow_text, "predict")
    with pytest.raises(RateExceeded, match="is limited to 2 calls per second") as caught:
        gate.admit(slow_text, "predict")
    assert caught.value.retry_after_s == pytest.approx(0.5)
    for _ in range(1000):
        gate.admit(fast_text, "predict")


def test_gate_keeps_the_rate_over_newly_read_keys() -> None:
    clock = Clock()
    key, text = new_key("slow", frozenset({"predict"}), 1.0, 1)
    gate = Gate(seconds=clock, clock=clock.milliseconds)
    gate.install(Keyring([key]))
    gate.admit(text, "predict")
    gate.install(Keyring([key]))
    with pytest.raises(RateExceeded):
        gate.admit(text, "predict")


def test_gate_gathers_the_last_use_of_every_key_once() -> None:
    clock = Clock()
    gate, key_id, text = gate_with(clock, "predict")
    assert gate.take_used() == {}
    gate.admit(text, "predict")
    clock.seconds += 1
    with pytest.raises(ScopeMissing):
        gate.admit(text, "admin")
    with pytest.raises(InvalidKey):
        gate.admit("tk_nobody_0", "predict")
    assert gate.take_used() == {key_id: 101_000}
    assert gate.take_used() == {}
