"""One recording as FFmpeg 5.1, SoX 14.4, flac and opus-tools write it: every file at its true length and place."""

from pathlib import Path

import pytest

from featurestore.audio import SAMPLE_RATE_HZ, decode, decoder_of, duration_s
from tests.helpers.containers import lag_of

CLIP_S = 3.5035
# Longest difference to the true length in seconds, late by so many samples at 16 kHz, least correlation.
FILES = {
    "aac.m4a": (0, 0, 0.99),
    "ac3.ac3": (0.017, 85, 0.98),  # 256 samples at 48 kHz that AC-3 doesn't state
    "alac.m4a": (0, 0, 1),
    "alaw8k.wav": (0, 0, 0.99),
    "amrnb.amr": (0.017, 79, 0.75),  # 5 ms at 8 kHz
    "ffmpeg_pipe.flac": (0, 0, 1),
    "ffmpeg_pipe.wav": (0, 0, 1),
    "flac.ogg": (0, 0, 1),
    "flac_pipe.flac": (0, 0, 1),
    "g722.wav": (0, 22, 0.99),  # its filter bank
    "g726.wav": (0, 0, 0.99),
    "gsm.wav": (0, 0, 0.9),
    "mulaw8k.wav": (0, 0, 0.99),
    "opus.mka": (0, 0, 0.99),
    "opus.ogg": (0, 0, 0.99),
    "reference.flac": (0, 0, 1),
    "sox_pipe.aiff": (0, 0, 1),
    "sox_pipe.wav": (0, 0, 1),
    "speex.ogg": (0.003, 0, 0.88),
    "video.avi": (0.1, 1105, 0.98),  # an MP3 encoder's 576 and a decoder's 529 samples
    "video.mp4": (0, 0, 0.99),
    "video.webm": (0, 0, 0.99),
    "vorbis.ogg": (0, 0, 0.98),
    "wavpack.wv": (0, 0, 1),
    "wma.wma": (0.049, 512, 0.99),  # one frame
}
LONG = {"vbr_pipe_40s.mp3": (40.0, 0.046), "cbr_pipe_40s.mp3": (40.0, 0.046), "vbr_tagged_40s.mp3": (40.0, 0)}
CHAINED = {"chained.opus": 2 * CLIP_S, "chained_vorbis.ogg": 2 * CLIP_S}


@pytest.mark.parametrize("name", FILES)
def test_a_container_gives_the_clip_at_its_true_length_and_place(containers_dir: Path, name: str) -> None:
    slack_s, late, least = FILES[name]
    reference, samples = decode(containers_dir / "reference.flac"), decode(containers_dir / name)
    assert len(samples) / SAMPLE_RATE_HZ == pytest.approx(CLIP_S, abs=slack_s + 0.5 / SAMPLE_RATE_HZ)
    assert duration_s(containers_dir / name) == pytest.approx(len(samples) / SAMPLE_RATE_HZ, abs=1e-4)
    lag, correlation = lag_of(samples, reference, SAMPLE_RATE_HZ)
    assert lag == late
    assert correlation >= least - 1e-6


@pytest.mark.parametrize("name", [*LONG, *CHAINED])
def test_files_from_pipes_and_chains_are_read_to_their_end(containers_dir: Path, name: str) -> None:
    seconds, slack_s = LONG.get(name, (CHAINED.get(name, 0.0), 0.0))
    assert len(decode(containers_dir / name)) / SAMPLE_RATE_HZ == pytest.approx(seconds, abs=slack_s + 1e-4)
    assert duration_s(containers_dir / name) == pytest.approx(seconds, abs=slack_s + 1e-4)


def test_both_links_of_a_chain_are_the_clip(containers_dir: Path) -> None:
    samples, reference = decode(containers_dir / "chained_vorbis.ogg"), decode(containers_dir / "reference.flac")
    for half in (samples[: len(reference)], samples[len(reference) :]):
        assert lag_of(half, reference, SAMPLE_RATE_HZ)[0] == 0


def test_amr_frames_without_speech_are_silence(containers_dir: Path) -> None:
    path = containers_dir / "amrnb.amr"
    data, silent = path.read_bytes()[6:], 0
    samples, offset, n = decode(path), 0, 0
    sizes = (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1)
    while offset < len(data):
        kind = data[offset] >> 3 & 15
        if kind >= 8:
            middle = samples[n * 320 + 80 : n * 320 + 240]  # away from the resampler's ringing
            silent += 1
            assert abs(middle).max() < 0.02
        offset, n = offset + sizes[kind], n + 1
    assert (n, silent) == (176, 85)
    assert "PyAV" in decoder_of(path)
