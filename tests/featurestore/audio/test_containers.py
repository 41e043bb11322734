"""Every container and codec that PyAV writes, to a file and through a pipe, read back at its length and place.

A covering sample runs with the fast tests; the product of rates, channels, lengths, tags and pipes is slow.
"""

from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from featurestore.audio import AUDIO_SUFFIXES, SAMPLE_RATE_HZ, decode, decoder_of, duration_s
from featurestore.audio.decoding import native_blocks
from tests.helpers.containers import Kind, encode, lag_of

DATA = Path(__file__).parent / "data"
DEMO = Path(__file__).resolve().parents[3] / "featurestore" / "demo_corpus"
AAC, LAME, MP2 = 1024, 1105, 481  # what these encoders and decoders put before the first sample
OPUS_RATES = (8_000, 16_000, 48_000)
AC3_RATES = (44_100, 48_000)


def late(delay: int, pad: int) -> dict[str, int]:
    """Of a container that states neither, written in whatever way."""
    return {"delay": delay, "pad": pad, "piped_delay": delay, "piped_pad": pad}


def stated(delay: int, pad: int) -> dict[str, int]:
    """Of a container that states the delay in a file, but not through a pipe, and the length in milliseconds."""
    return {"pad": pad, "piped_delay": delay, "piped_pad": 4000}


KINDS = [
    Kind(".wav", "wav", "pcm_u8", 128),
    Kind(".wav", "wav", "pcm_s16le", 2**15),
    Kind(".wav", "wav", "pcm_s24le", 2**15),
    Kind(".wav", "wav", "pcm_s32le", 2**15),
    Kind(".wav", "wav", "pcm_f32le", 2**15),
    Kind(".wav", "wav", "pcm_f64le", 2**15),
    Kind(".wav", "wav", "pcm_alaw"),
    Kind(".wav", "wav", "pcm_mulaw"),
    Kind(".wav", "wav", "adpcm_ms", pad=2100, piped_pad=2100),
    Kind(".wav", "wav", "adpcm_ima_wav", pad=2100, piped_pad=2100),
    Kind(".wav", "wav", "g722", delay=22, piped_delay=22, rates=(16_000,), channels=(1,), least=0.8),
    Kind(".wav", "wav", "g726", rates=(8_000,), channels=(1,), bit_rate=32_000),
    Kind(".wav", "wav", "libmp3lame", **late(LAME, 4000), bit_rate=64_000),
    Kind(".wave", "wav", "pcm_s16le", 2**15, options=(("rf64", "always"),)),
    Kind(".rf64", "wav", "pcm_s16le", 2**15, options=(("rf64", "always"),)),
    # FFmpeg counts the zeros that fill the last 8 bytes as samples in the header.
    Kind(".w64", "w64", "pcm_s16le", 2**15, pad=3),
    Kind(".aiff", "aiff", "pcm_s16be", 2**15, piped_delay=None),
    Kind(".aif", "aiff", "pcm_s24be", 2**15, piped_delay=None),
    Kind(".aifc", "aiff", "pcm_alaw", piped_delay=None),
    Kind(".aifc", "aiff", "adpcm_ima_qt", pad=64, piped_delay=None, least=0.97),
    Kind(".au", "au", "pcm_s16be", 2**15),
    Kind(".snd", "au", "pcm_mulaw"),
    Kind(".caf", "caf", "pcm_s16le", 2**15),
    Kind(".caf", "caf", "alac", 2**15, piped_delay=None),
    Kind(".flac", "flac", "flac", 2**15),
    Kind(".oga", "ogg", "flac", 2**15),
    Kind(".opus", "ogg", "libopus", rates=OPUS_RATES),
    Kind(".mp3", "mp3", "libmp3lame", piped_delay=LAME, piped_pad=4000, bit_rate=64_000),
    Kind(".mp3", "mp3", "libmp3lame", **late(LAME, 4000), options=(("write_xing", "0"),), bit_rate=64_000),
    # Below 32 kHz FFmpeg's encoder spoils stereo: two decoders agree that the file itself is wrong.
    Kind(".mp2", "mp2", "mp2", **late(MP2, 1700), rates=(44_100, 48_000)),
    Kind(".mpga", "mp2", "mp2", **late(MP2, 1700), rates=(44_100,)),
    Kind(".mpg", "mpeg", "mp2", **late(MP2, 1700), rates=(44_100, 48_000)),
    Kind(".mpeg", "mpeg", "mp2", **late(MP2, 1700), rates=(44_100,)),
    Kind(".vob", "vob", "libmp3lame", **late(LAME, 4000), bit_rate=64_000),
    Kind(".m4a", "ipod", "aac", piped_delay=AAC, piped_pad=AAC),
    Kind(".m4b", "ipod", "aac", piped_delay=AAC, piped_pad=AAC),
    Kind(".m4a", "ipod", "alac", 2**15),
    Kind(".mp4", "mp4", "aac", piped_delay=AAC, piped_pad=AAC),
    Kind(".mp4", "mp4", "aac", piped_delay=AAC, piped_pad=AAC, video="mpeg4"),
    Kind(".mp4", "mp4", "libopus", pad=48, piped_pad=312 + 960, rates=OPUS_RATES),
    Kind(".mp4", "mp4", "libmp3lame", **stated(LAME, 48), rates=(16_000, 44_100, 48_000), bit_rate=64_000),
    Kind(".mp4", "mp4", "libmp3lame", **stated(LAME, 48), rates=(16_000, 48_000), video="mpeg4", bit_rate=64_000),
    Kind(".mov", "mov", "libmp3lame", **stated(LAME, 48), bit_rate=64_000),
    Kind(".mp4", "mp4", "flac", 2**15),
    Kind(".m4v", "mp4", "aac", piped_delay=AAC, piped_pad=AAC, video="mpeg4"),
    Kind(".mov", "mov", "pcm_s16le", 2**15, piped_delay=None),
    Kind(".mov", "mov", "aac", piped_delay=AAC, piped_pad=AAC),
    Kind(".3gp", "3gp", "aac", piped_delay=AAC, piped_pad=AAC),
    Kind(".3g2", "3g2", "aac", piped_delay=AAC, piped_pad=AAC),
    Kind(".aac", "adts", "aac", **late(AAC, 3 * AAC)),
    Kind(".mka", "matroska", "libopus", rates=OPUS_RATES),
    Kind(".mka", "matroska", "flac", 2**15),
    Kind(".mka", "matroska", "pcm_s16le", 2**15),
    Kind(".mkv", "matroska", "aac", pad=AAC, piped_pad=AAC, video="mpeg4"),
    Kind(".webm", "webm", "libopus", rates=OPUS_RATES, video="libvpx"),
    Kind(".weba", "webm", "libopus", rates=OPUS_RATES),
    Kind(".ogv", "ogg", "libopus", rates=OPUS_RATES),
    Kind(".voc", "voc", "pcm_s16le", 2**15),
    Kind(".avi", "avi", "ac3", **late(256, 2000), rates=AC3_RATES, channels=(1,)),
    Kind(".asf", "asf", "libmp3lame", **late(LAME, 4000), rates=(44_100,), channels=(1,), bit_rate=64_000),
    Kind(".mka", "matroska", "libmp3lame", pad=0, piped_pad=0, rates=(44_100,), channels=(1,), bit_rate=64_000),
    Kind(".avi", "avi", "pcm_s16le", 2**15, piped_delay=None, video="mpeg4"),
    Kind(".avi", "avi", "libmp3lame", delay=LAME, pad=4000, piped_delay=None, video="mpeg4", bit_rate=64_000),
    Kind(".wma", "asf", "wmav2", **late(2048, 3 * 2048), rates=(44_100,), bit_rate=128_000),
    Kind(".wmv", "asf", "wmav1", **late(2048, 3 * 2048), rates=(44_100,), bit_rate=128_000),
    Kind(".asf", "asf", "wmav2", **late(512, 3 * 512), rates=(16_000,), bit_rate=64_000),
    Kind(".avi", "avi", "wmav2", **late(2048, 3 * 2048), rates=(44_100,), bit_rate=128_000),
    Kind(".wav", "wav", "wmav1", **late(2048, 3 * 2048), rates=(44_100,), bit_rate=128_000),
    Kind(".ac3", "ac3", "ac3", **late(256, 2000), rates=AC3_RATES),
    Kind(".eac3", "eac3", "eac3", **late(256, 2000), rates=AC3_RATES),
    Kind(".wv", "wv", "wavpack", 2**15),
    Kind(".tta", "tta", "tta", 2**15, piped_delay=None),
    Kind(".flv", "flv", "aac", **late(AAC, 3 * AAC), rates=(16_000, 44_100, 48_000)),
    Kind(".flv", "flv", "libmp3lame", **late(LAME, 4000), rates=(44_100,), bit_rate=64_000),
    Kind(".ts", "mpegts", "aac", **late(AAC, 3 * AAC), rates=(44_100, 48_000)),
    Kind(".ts", "mpegts", "libmp3lame", **late(LAME, 4000), rates=(16_000, 44_100), bit_rate=64_000),
    Kind(".nut", "nut", "libmp3lame", **late(LAME, 4000), bit_rate=64_000),
    # FFmpeg's encoder states 50 samples of delay, where the codec's is 38 to 40.
    Kind(
        ".3gp", "3gp", "libopencore_amrnb", delay=-10, piped_delay=40, piped_pad=320, rates=(8_000,), channels=(1,),
        least=0.35,
    ),
    Kind(".amr", "amr", "libopencore_amrnb", **late(40, 320), rates=(8_000,), channels=(1,), least=0.35),
]  # fmt: skip
PRODUCT = [
    (kind, rate_hz, n_channels, seconds, pipe, tags)
    for kind in KINDS
    for rate_hz, n_channels, seconds, pipe, tags in product(
        kind.rates, kind.channels, (1.0, 70.0), (False, True), (False, True)
    )
    if not (pipe and kind.piped_delay is None)
]
# Each kind as a file and through a pipe, with the rates, channels and tags in turn.
SAMPLE = [
    (kind, kind.rates[i % len(kind.rates)], kind.channels[(i + pipe) % len(kind.channels)], 1.0, pipe, i % 2 != pipe)
    for i, kind in enumerate(KINDS)
    for pipe in (False, True)
    if not (pipe and kind.piped_delay is None)
]  # fmt: skip
SAMPLE += [
    (kind, kind.rates[0], 1, 70.0, True, False) for kind in KINDS if str(kind) in ("mp3-libmp3lame", "flac-flac")
]


@lru_cache(8)
def speech(rate_hz: int, seconds: float) -> np.ndarray:
    """(n,) float32: the demo corpus's clips one after another, at a rate."""
    clips, n = [], 0
    for path in sorted(DEMO.rglob("*.ogg")):
        clips.append(decode(path))
        n += len(clips[-1])
        if n > seconds * SAMPLE_RATE_HZ:
            break
    samples = soxr.resample(np.concatenate(clips), SAMPLE_RATE_HZ, rate_hz)[: round(seconds * rate_hz)]
    assert len(samples) == round(seconds * rate_hz)
    return np.asarray(samples / np.abs(samples).max() * 0.8, np.float32)


OTHERS = {  # what PyAV doesn't write: soundfile does, or the file is in the repository
    ".sph": ("NIST", "PCM_16"), ".nist": ("NIST", "PCM_16"), ".voc": ("VOC", "PCM_16"), ".gsm": ("RAW", "GSM610"),
    ".ogg": ("OGG", "VORBIS"), ".spx": "speex_dtx.spx", ".awb": "wide_dtx.awb",
}  # fmt: skip


@pytest.mark.parametrize("suffix", AUDIO_SUFFIXES)
def test_every_suffix_of_the_list_is_decoded(tmp_path: Path, suffix: str) -> None:
    source = OTHERS.get(suffix)
    kind = next((kind for kind in KINDS if kind.suffix == suffix), None)
    path = tmp_path / f"clip{suffix}"
    if kind is not None:
        rate_hz = kind.rates[-1]
        encode(path, speech(rate_hz, 1.0), rate_hz, kind)
    elif isinstance(source, str):
        path.write_bytes((DATA / source).read_bytes())
    else:
        assert source is not None, f"nothing makes a {suffix}"
        soundfile.write(path, speech(8_000, 1.0), 8_000, format=source[0], subtype=source[1])
    assert 0.9 < len(decode(path)) / SAMPLE_RATE_HZ < 2.1
    assert decode(path).any()


def check(tmp_path: Path, kind: Kind, rate_hz: int, n_channels: int, seconds: float, pipe: bool, tags: bool) -> None:
    source = speech(rate_hz, seconds)
    if kind.exact:
        source = np.round(source * kind.exact) / np.float32(kind.exact)
    channels = source if n_channels == 1 else np.stack([source, source[::-1]], axis=1)
    expected = source if n_channels == 1 else channels.mean(axis=1, dtype=np.float32)
    path = encode(tmp_path / f"clip{kind.suffix}", channels, rate_hz, kind, pipe=pipe, tags=tags)
    blocks = list(native_blocks(path))
    assert len({rate for rate, _ in blocks}) == 1
    native_hz, samples = blocks[0][0], np.concatenate([block for _, block in blocks])
    if native_hz != rate_hz:  # Opus is decoded at 48 kHz
        expected = soxr.resample(expected, rate_hz, native_hz)
    delay, pad = (kind.piped_delay or 0, kind.piped_pad) if pipe else (kind.delay, kind.pad)
    if kind.exact:
        assert len(samples) - len(expected) <= pad
        assert not samples[len(expected) :].any()
        np.testing.assert_array_equal(samples[: len(expected)], expected)
    else:
        assert 0 <= len(samples) - len(expected) <= pad
        lag, correlation = lag_of(samples, expected, native_hz)
        assert lag == delay
        assert correlation >= kind.least
    assert duration_s(path) * native_hz == pytest.approx(len(samples), abs=0.01)
    assert len(decode(path)) == pytest.approx(len(samples) * SAMPLE_RATE_HZ / native_hz, abs=1)
    assert decoder_of(path).startswith(("soundfile", "PyAV"))


def named(case: tuple[Kind, int, int, float, bool, bool]) -> str:
    kind, rate_hz, n_channels, seconds, pipe, tags = case
    words = [str(kind), f"{rate_hz}Hz", f"{n_channels}ch", f"{seconds:g}s", "pipe" if pipe else "file"]
    return "-".join(words + ["tags"] * tags)


@pytest.mark.parametrize("case", SAMPLE, ids=named)
def test_what_was_written_is_read(tmp_path: Path, case: tuple[Kind, int, int, float, bool, bool]) -> None:
    check(tmp_path, *case)


@pytest.mark.slow
@pytest.mark.parametrize("case", PRODUCT, ids=named)
def test_what_was_written_is_read_at_every_rate(tmp_path: Path, case: tuple[Kind, int, int, float, bool, bool]) -> None:
    check(tmp_path, *case)
