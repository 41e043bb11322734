"""Times in a table's cells, and ends made from a start and a length."""

import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.corpus.times import end_of, seconds_of, time_of

RATES_HZ = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000)


@pytest.mark.parametrize(("start_s", "length_s", "end_s"), [(20.1, 3.152, 23.252), (0.1, 0.2, 0.3), (1.1, 2.2, 3.3)])
def test_an_end_is_the_sum_of_the_decimals(start_s: float, length_s: float, end_s: float) -> None:
    assert start_s + length_s != end_s, "floats would do"
    assert end_of(start_s, length_s) == end_s


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_end_of_no_number_is_nan(bad: float) -> None:
    assert math.isnan(end_of(bad, 1.0))
    assert math.isnan(end_of(1.0, bad))


@given(st.integers(0, 10**11), st.integers(1, 10**10), st.sampled_from([10**3, 10**6, *RATES_HZ]))
def test_an_end_lies_at_the_sample_of_the_exact_sum(start: int, length: int, per_second: int) -> None:
    """Starts and lengths of up to a day: in ms, in microseconds, and in samples of each rate."""
    start, length = start % (86_400 * per_second), length % (86_400 * per_second)
    end_s = end_of(start / per_second, length / per_second)
    assert end_s == pytest.approx((start + length) / per_second, abs=1e-9)
    assert float(repr(end_s)) == end_s
    for rate_hz in RATES_HZ:
        exact = Fraction(start + length, per_second) * rate_hz
        if abs(exact % 1 - Fraction(1, 2)) > Fraction(1, 1000):  # halfway between two samples either one is next
            assert round(end_s * rate_hz) == round(exact)
            assert round(end_s * rate_hz) == round((start / per_second + length / per_second) * rate_hz)


@given(st.integers(0, 86_399_999))
def test_a_clock_is_read_as_the_seconds_it_shows(ms: int) -> None:
    hours, minutes, seconds = ms // 3_600_000, ms // 60_000 % 60, ms // 1000 % 60
    assert time_of(f"{hours:02}:{minutes:02}:{seconds:02}.{ms % 1000:03}") == ms / 1000
    assert time_of(f"0 days {hours:02}:{minutes:02}:{seconds:02},{ms % 1000:03}000") == ms / 1000


@given(
    st.lists(
        st.none() | st.floats().map(repr) | st.integers().map(str) | st.integers().map(lambda ms: f"{ms / 1000:.3f}"),
        min_size=1,
    )
)
def test_a_column_of_plain_numbers_is_read_as_its_cells_are(texts: list[str | None]) -> None:
    values, bad = seconds_of(pa.chunked_array([pa.array(texts, pa.string())]))
    assert not bad
    np.testing.assert_array_equal(values, [time_of(text) for text in texts])


def test_one_cell_of_another_form_changes_no_other() -> None:
    values, bad = seconds_of(pa.chunked_array([pa.array(["1.5", " 2", "00:00:03.5", "NaT", None, "1_0", "later"])]))
    np.testing.assert_array_equal(values, [1.5, 2, 3.5, *[np.nan] * 4])
    assert bad == [5, 6]
