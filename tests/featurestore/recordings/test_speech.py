"""Speech by silero-vad: where somebody speaks in real recordings, and where nobody does."""

import sys
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from featurestore.audio import decode, duration_s
from featurestore.errors import ConfigError
from featurestore.recordings.speech import Speech

pytest.importorskip("silero_vad", reason="silero-vad is not installed (the extra vad)")
RATE = 16_000


@pytest.fixture(scope="module")
def call(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[float, float]]]:
    """Three clips of one actor between pauses of a second and a half, at 44.1 kHz, and where they lie."""
    parts, places, start_s = [np.zeros(RATE, np.float32)], [], 1.0
    for clip in sorted((demo_corpus / "Actor_01").glob("*.ogg"))[:3]:
        samples = decode(clip)
        places.append((start_s, start_s + len(samples) / RATE))
        parts += [samples, np.zeros(RATE * 3 // 2, np.float32)]
        start_s = places[-1][1] + 1.5
    import soxr

    path = tmp_path_factory.mktemp("speech") / "call.wav"
    soundfile.write(path, soxr.resample(np.concatenate(parts), RATE, 44_100), 44_100)
    return path, places


def test_each_clip_is_found_and_no_pause(call: tuple[Path, list[tuple[float, float]]]) -> None:
    path, places = call
    result = Speech().of_file(path)
    assert len(result) >= len(places)
    for low, high in result:
        assert any(start - 0.1 <= low < high <= end + 0.1 for start, end in places), (low, high)
    for start, end in places:
        assert any(start <= (low + high) / 2 <= end for low, high in result)
    assert all(end <= duration_s(path) for _, end in result)


def test_segments_are_no_longer_than_requested_and_do_not_overlap(call: tuple[Path, list[tuple[float, float]]]) -> None:
    result = Speech(1.0).of_file(call[0])
    assert len(result) > len(Speech().of_file(call[0]))
    assert max(end - start for start, end in result) <= 1.0 + 1e-6
    assert all(end <= start for (_, end), (start, _) in pairwise(result))


def test_it_is_what_silero_vad_finds_in_the_whole_recording(call: tuple[Path, list[tuple[float, float]]]) -> None:
    import silero_vad

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = silero_vad.load_silero_vad()
    timestamps = silero_vad.get_speech_timestamps(torch.from_numpy(decode(call[0])), model, max_speech_duration_s=11.0)
    expected = [(each["start"] / RATE, each["end"] / RATE) for each in timestamps]
    np.testing.assert_allclose(Speech().of_file(call[0]), expected, atol=0.033)  # a frame


@pytest.mark.parametrize("kind", ["silence", "noise", "chord", "short"])
def test_nobody_speaks_in_silence_noise_music_and_a_click(tmp_path: Path, kind: str) -> None:
    times = np.arange(3 * RATE) / RATE
    samples = {
        "silence": np.zeros(3 * RATE),
        "noise": np.random.default_rng(0).normal(0, 0.02, 3 * RATE),
        "chord": sum(0.1 * np.sin(2 * np.pi * f * times) for f in (220.0, 277.2, 329.6)),
        "short": np.zeros(300),
    }[kind]
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    assert Speech().of_file(tmp_path / "a.wav") == []


def test_progress_ends_at_one_and_torchs_threads_are_as_before(call: tuple[Path, list[tuple[float, float]]]) -> None:
    before = torch.get_num_threads()
    calls: list[float] = []
    Speech().of_file(call[0], calls.append)
    assert calls[-1] == pytest.approx(1, abs=1e-3)
    assert torch.get_num_threads() == before


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(ConfigError, match=r"pip install 'medusa-ser\[vad\]'"):
        Speech()


@pytest.mark.parametrize("longest", [0.2, -1.0, float("nan")])
def test_a_longest_segment_that_no_speech_fits_is_refused(longest: float) -> None:
    with pytest.raises(ConfigError, match="--span"):
        Speech(longest)
