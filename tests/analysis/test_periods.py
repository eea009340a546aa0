import ibis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.periods import Periods

START_MS = 1_775_001_600_000
YEAR_MS = 365 * 86_400_000


@given(passed=st.integers(0, 10 * YEAR_MS), start=st.integers(0, 2 * START_MS))
def test_a_moment_lies_in_its_period_which_is_short_beside_the_time_before(passed: int, start: int) -> None:
    periods = Periods(start, start + passed)
    number = periods.number(start + passed)
    begin, end = (start if number == 0 else periods.end_of(number - 1)), periods.end_of(number)
    assert begin <= start + passed < end
    assert end - begin <= max(250, (begin - start) / 16)
    assert end - begin >= min(250, (begin - start) / 64)


def test_a_burst_and_a_year_have_enough_periods() -> None:
    assert Periods(0, 40_000).number(40_000) == 88
    assert Periods(0, YEAR_MS).number(YEAR_MS) == 558


@pytest.mark.parametrize("length_ms", [0, 10_000, YEAR_MS])
def test_engines_count_as_python_does(length_ms: int) -> None:
    periods = Periods(START_MS, START_MS + length_ms)
    times = sorted(
        {START_MS + min(offset, length_ms) for offset in (0, 249, 250, 15_999, 16_000, 63_999, 64_000, length_ms)}
    )
    expected = [periods.number(time) for time in times]
    table = ibis.memtable({"at": times})
    for backend in (ibis.duckdb.connect(), ibis.sqlite.connect()):
        query = table.select("at", number=periods.number_of(table["at"])).order_by("at")
        assert backend.to_pyarrow(query)["number"].to_pylist() == expected
        backend.disconnect()
