"""The decoding benchmark: every method that is installed has a time on every format, and ours reads every piece."""

import pytest

from benchmarks.decode import FORMATS, SEGMENTED, DecodeSettings, report, run_decode


@pytest.mark.slow
def test_every_method_is_timed_on_every_format() -> None:
    settings = DecodeSettings(clip_s=1.0, n_clips=2, long_s=20.0, n_segments=10, n_peer_segments=5, repeats=1)
    timings = run_decode(settings)
    result = {(t.what, t.format, t.method) for t in timings}
    assert {("whole", suffix, name) for suffix in FORMATS for name in ("ours", "soundfile", "PyAV")} <= result
    assert {("pieces", suffix, name) for suffix in SEGMENTED for name in ("ours", "soundfile, each")} <= result
    assert all(t.seconds > 0 and t.memory_mib > 0 for t in timings)
    assert all(t.share == pytest.approx(1, abs=0.1) for t in timings if t.method == "ours")
    assert report(timings).count("\n") == len(timings) + 1
