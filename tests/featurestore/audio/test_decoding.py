"""Decoding: any common file becomes mono 16 kHz float32; what can't be is refused with its reason, never guessed."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from featurestore.audio import SAMPLE_RATE_HZ, decode, duration_s
from featurestore.errors import AudioError


def tone(rate_hz: int, seconds: float = 0.5, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate_hz * seconds)) / rate_hz)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate_hz: int = SAMPLE_RATE_HZ, **options: str) -> Path:
    soundfile.write(path, samples, rate_hz, **options)
    return path


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("n_channels", [1, 2, 3, 4, 5, 6])
def test_any_rate_and_channel_count_gives_the_same_tone(tmp_path: Path, rate_hz: int, n_channels: int) -> None:
    path = write(tmp_path / "a.wav", np.repeat(tone(rate_hz)[:, None], n_channels, axis=1), rate_hz)
    samples = decode(path)
    assert samples.dtype == np.float32
    assert samples.shape == (SAMPLE_RATE_HZ // 2,)
    middle = slice(800, -800)  # the resampler's filter rings at the ends
    np.testing.assert_allclose(samples[middle], tone(SAMPLE_RATE_HZ)[middle], atol=2e-3)
    assert duration_s(path) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("suffix", "options", "error"),
    [
        ("wav", {"subtype": "PCM_U8"}, 1e-2),
        ("wav", {"subtype": "PCM_16"}, 1e-4),
        ("wav", {"subtype": "PCM_24"}, 1e-6),
        ("wav", {"subtype": "PCM_32"}, 1e-7),
        ("wav", {"subtype": "FLOAT"}, 0),
        ("wav", {"subtype": "DOUBLE"}, 0),
        ("flac", {}, 1e-4),
        ("ogg", {}, 5e-2),
        ("mp3", {}, 5e-2),
    ],
)
def test_formats_and_bit_depths(tmp_path: Path, suffix: str, options: dict[str, str], error: float) -> None:
    samples = decode(write(tmp_path / f"a.{suffix}", tone(16_000), **options))
    assert len(samples) == 8_000
    np.testing.assert_allclose(samples, tone(16_000), atol=error)


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1), subtype="FLOAT")
    np.testing.assert_array_equal(decode(path), np.full(100, 0.125, np.float32))


def test_loud_float_samples_keep_their_values_and_clipped_ones_stay_at_one(tmp_path: Path) -> None:
    loud = 3 * tone(16_000)
    np.testing.assert_array_equal(decode(write(tmp_path / "f.wav", loud, subtype="FLOAT")), loud)
    clipped = decode(write(tmp_path / "i.wav", loud, subtype="PCM_16"))
    assert clipped.max() == pytest.approx(1.0, abs=1e-4)
    assert clipped.min() == -1.0


def test_one_sample_and_silence_are_audio(tmp_path: Path) -> None:
    assert decode(write(tmp_path / "one.wav", np.zeros(1))).tolist() == [0.0]
    assert not decode(write(tmp_path / "silent.wav", np.zeros(1_000), 44_100)).any()


def test_a_stream_of_open_length_is_audio(tmp_path: Path) -> None:
    """A recorder that writes to a pipe can't know the length and leaves the header's at its maximum."""
    path = write(tmp_path / "a.wav", tone(16_000))
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert len(decode(path)) == 8_000


def test_keys_of_any_language_are_paths_like_others(tmp_path: Path) -> None:
    assert len(decode(write(tmp_path / "Größe 語 ..x.wav", tone(16_000)))) == 8_000


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    rng = np.random.default_rng(0)
    path = write(tmp_path / f"a.{suffix}", 0.1 * rng.standard_normal(48_000))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(AudioError, match="truncated"):
        decode(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("form", ["WAV", "WAVEX", "AIFF", "AU", "CAF", "W64", "RF64"])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_that_are_not_numbers_are_refused(tmp_path: Path, value: float, form: str, subtype: str) -> None:
    samples = tone(16_000)
    samples[4_000:4_003] = value
    with pytest.raises(AudioError, match=r"3 of 8000 samples.*NaN.*0\.250 s"):
        decode(write(tmp_path / "a", samples, format=form, subtype=subtype))


def test_files_that_are_no_audio_are_refused_with_the_reason_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("hello " * 100)
    write(tmp_path / "nothing.wav", np.zeros(0))
    reasons = {
        "absent.wav": "no such file",
        "empty.wav": r"empty \(0 bytes\)",
        "text.wav": "not audio that can be decoded.*ffmpeg",
        "nothing.wav": "holds no samples",
        ".": "not a regular file",
    }
    for name, reason in reasons.items():
        with pytest.raises(AudioError, match=reason) as caught:
            decode(tmp_path / name)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_integers_stored_as_floats_are_refused_and_loud_floats_are_not(tmp_path: Path) -> None:
    speech = np.sin(np.arange(16_000) / 10).astype(np.float32)
    soundfile.write(tmp_path / "loud.wav", 3 * speech, 16_000, subtype="FLOAT")
    assert decode(tmp_path / "loud.wav").max() == pytest.approx(3, abs=0.01)
    soundfile.write(tmp_path / "integers.wav", 20_000 * speech, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"integers\.wav: .* 2\d+.* -1 to 1"):
        decode(tmp_path / "integers.wav")


def test_a_rate_of_no_recording_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "slow.wav", np.zeros(100, np.float32), 100)
    with pytest.raises(AudioError, match=r"slow\.wav: .*100 Hz"):
        decode(tmp_path / "slow.wav")
