"""Pieces of recordings: each is what it would be as a file of its own, in whatever order they are asked for."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from featurestore.audio import SAMPLE_RATE_HZ, Clip, OnePass, decode, decode_pass, in_passes
from featurestore.errors import AudioError
from tests.featurestore.audio.test_containers import DATA, speech
from tests.helpers.containers import Kind, encode

KINDS = [
    Kind(".wav", "wav", "pcm_s16le"), Kind(".flac", "flac", "flac"), Kind(".opus", "ogg", "libopus"),
    Kind(".mp3", "mp3", "libmp3lame", bit_rate=64_000), Kind(".m4a", "ipod", "aac"), Kind(".mka", "matroska", "flac"),
]  # fmt: skip


QUICK = {(".wav", 48_000), (".flac", 16_000), (".opus", 48_000), (".mp3", 16_000)}


@pytest.mark.parametrize(
    ("kind", "rate_hz"),
    [
        pytest.param(
            kind, rate_hz, marks=() if (kind.suffix, rate_hz) in QUICK else pytest.mark.slow, id=f"{rate_hz}-{kind}"
        )
        for rate_hz in (16_000, 48_000)
        for kind in KINDS
    ],
)
def test_a_piece_is_the_same_stretch_of_the_whole(tmp_path: Path, kind: Kind, rate_hz: int) -> None:
    path = encode(tmp_path / f"a{kind.suffix}", speech(rate_hz, 70.0), rate_hz, kind)
    all_samples = decode(path)
    for start_s, end_s in ((0.0, 1.5), (33.25, 36.0), (69.0, None)):
        samples = Clip(path, start_s, end_s).decode()
        expected = all_samples[int(start_s * SAMPLE_RATE_HZ) : None if end_s is None else int(end_s * SAMPLE_RATE_HZ)]
        assert len(samples) == len(expected)
        inner = slice(400, -400) if rate_hz != SAMPLE_RATE_HZ else slice(None)  # the resampler's ends
        np.testing.assert_allclose(samples[inner], expected[inner], atol=1e-3 if rate_hz != SAMPLE_RATE_HZ else 0)


def test_a_piece_at_another_rate_is_equal_to_a_file_of_its_own(tmp_path: Path) -> None:
    samples = np.round(speech(44_100, 5.0) * 2**15) / 2**15
    soundfile.write(tmp_path / "long.flac", samples, 44_100)
    soundfile.write(tmp_path / "own.flac", samples[44_100:88_200], 44_100)
    np.testing.assert_array_equal(Clip(tmp_path / "long.flac", 1.0, 2.0).decode(), decode(tmp_path / "own.flac"))


@pytest.mark.parametrize("suffix", [".flac", ".mp3"])
def test_many_pieces_are_read_in_one_pass_overlapping_or_not_and_out_of_order(tmp_path: Path, suffix: str) -> None:
    kind = next(kind for kind in KINDS if kind.suffix == suffix)
    path = encode(tmp_path / f"a{suffix}", speech(16_000, 70.0), 16_000, kind)
    samples = decode(path)
    rng = np.random.default_rng(0)
    starts = np.sort(rng.integers(0, 60 * SAMPLE_RATE_HZ, 200))
    lengths = rng.integers(100, 9 * SAMPLE_RATE_HZ, 200)
    with OnePass(path) as recording:
        for start, n in zip(starts.tolist(), lengths.tolist(), strict=True):
            clip = Clip(path, start / SAMPLE_RATE_HZ, (start + n) / SAMPLE_RATE_HZ)
            np.testing.assert_array_equal(recording.read(clip), samples[start : start + n])
        early = recording.read(Clip(path, 0.5, 1.0))
    np.testing.assert_array_equal(early, samples[8_000:16_000])


def test_a_pass_opens_its_recording_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp3", speech(16_000, 70.0), 16_000, KINDS[3])
    opened = []
    real = OnePass._open
    monkeypatch.setattr(OnePass, "_open", lambda self, start_s: (opened.append(start_s), real(self, start_s))[1])
    clips = [Clip(path, i / 2, i / 2 + 3) for i in reversed(range(100))]
    (group,) = in_passes(clips)
    assert all(isinstance(samples, np.ndarray) for samples in decode_pass([clips[i] for i in group]))
    assert len(opened) == 1


@pytest.mark.parametrize("name", ["narrow_dtx.amr", "speex_dtx.spx"])
def test_a_piece_beyond_the_recording_is_named_with_both_ends(name: str) -> None:
    with pytest.raises(AudioError, match=rf"{name}, 1\.5 to 9 s: .*2\.0\d0 s"):
        Clip(DATA / name, 1.5, 9.0).decode()
    with pytest.raises(AudioError, match="beyond"):
        Clip(DATA / name, 5.0, None).decode()
    with pytest.raises(AudioError, match="beyond"):
        Clip(DATA / name, 5.0, None).duration_s()


def test_an_end_that_was_rounded_up_is_the_recordings(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", speech(16_000, 1.0)[:15_999], 16_000)
    assert len(Clip(tmp_path / "a.wav", 0.5, 1.0).decode()) == 7_999


def test_groups_of_a_pass_keep_files_and_recordings_apart(tmp_path: Path) -> None:
    a, b = tmp_path / "a.wav", tmp_path / "b.wav"
    assert in_passes([Clip(a, 3.0), b, Clip(a, 1.0), None, b]) == [[2, 0], [1], [3], [4]]


def test_a_piece_of_less_than_a_sample_is_named_as_that(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", speech(16_000, 2.0), 16_000)
    with pytest.raises(AudioError, match=r"a\.wav, 1 to 1\.00001 s: .*sample"):
        Clip(tmp_path / "a.wav", 1.0, 1.00001).decode()
