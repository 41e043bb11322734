"""Windows: exact multiples, none beyond the end, the last one's rule."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from featurestore.audio import decode, duration_s
from featurestore.errors import ConfigError
from featurestore.recordings.windows import LEAST_S, SHORT_S, Windows

TIMES = st.integers(round(1000 * LEAST_S), 20_000).map(lambda milliseconds: milliseconds / 1000)


@pytest.mark.parametrize(
    ("every", "span", "length", "expected"),
    [
        (2, 6, 10.0, [(0, 6), (2, 8), (4, 10)]),
        (2, 6, 11.0, [(0, 6), (2, 8), (4, 10), (6, 11)]),
        (6, 6, 12.2, [(0, 6), (6, 12)]),  # 0.2 s are left out
        (6, 6, 12.5, [(0, 6), (6, 12), (12, 12.5)]),
        (5, 1, 12.0, [(0, 1), (5, 6), (10, 11)]),  # with gaps
        (5, 1, 10.7, [(0, 1), (5, 6), (10, 10.7)]),
        (5, 1, 10.4, [(0, 1), (5, 6)]),
        (0.1, 0.3, 0.6, [(0, 0.3), (0.1, 0.4), (0.2, 0.5), (0.3, 0.6)]),
        (2, 6, 0.3, [(0, 0.3)]),  # the only one
        (2, 600, 10.0, [(0, 10)]),
    ],
)
def test_windows_start_at_multiples_and_the_first_that_reaches_the_end_is_the_last(
    every: float, span: float, length: float, expected: list[tuple[float, float]]
) -> None:
    assert Windows.of(every, span).ends(length) == expected


@given(every=TIMES, span=TIMES, length=st.floats(0.001, 300))
def test_windows_are_multiples_and_lie_in_the_recording(every: float, span: float, length: float) -> None:
    result = Windows.of(every, span).ends(length)
    assert result[0][0] == 0
    for k, (start, end) in enumerate(result):
        assert start == float(f"{k * every:.9g}")
        assert start < end <= length
        assert end == float(f"{k * every + span:.9g}") or k == len(result) - 1
        assert len(f"{start}") < 12  # no noise of floats
    if every <= span:
        assert length - result[-1][1] <= max(SHORT_S, 1e-6)


def test_one_of_every_and_span_is_the_other_too() -> None:
    assert Windows.of(3, None) == Windows.of(None, 3) == Windows.of(3, 3)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, 1e-9])
def test_what_is_no_length_is_refused_by_its_option(value: float) -> None:
    with pytest.raises(ConfigError, match=r"--every.*at least"):
        Windows.of(value, 6)
    with pytest.raises(ConfigError, match=r"--span.*at least"):
        Windows.of(None, value)


@pytest.mark.parametrize("rate_hz", [8000, 44100])
def test_the_last_window_ends_with_the_last_sample(tmp_path: Path, rate_hz: int) -> None:
    """A length that no decimal holds: 30,001 samples at 44.1 kHz are 0.68029478... s."""
    n = 30_001
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, n), rate_hz)
    (_, end) = Windows.of(0.1, 0.3).of_file(tmp_path / "a.wav")[-1]
    assert end <= duration_s(tmp_path / "a.wav")
    assert round(end * rate_hz) == n
    assert len(decode(tmp_path / "a.wav")) == pytest.approx(end * 16_000, abs=1)
