"""Files whose header says nothing, or too little: the bytes themselves say where the sound ends."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from featurestore.audio import SAMPLE_RATE_HZ, Clip, decode, decoder_of, duration_s, tracks_of
from featurestore.errors import AudioError
from tests.featurestore.audio.test_containers import DATA, speech
from tests.helpers.containers import Kind, encode, lag_of

TAGGED = Kind(".mp3", "mp3", "libmp3lame", bit_rate=64_000)
UNTAGGED = Kind(".mp3", "mp3", "libmp3lame", bit_rate=64_000, options=(("write_xing", "0"),))
ID3V1 = b"TAG" + bytes(125)
APE = struct.pack("<8s4I8s", b"APETAGEX", 2000, 2000, 0, 0xA0000000, b"") + bytes(2000)


def made(path: Path, kind: Kind, seconds: float, rate_hz: int = 16_000) -> bytes:
    return encode(path, speech(rate_hz, seconds), rate_hz, kind).read_bytes()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# --- MP3


def test_joined_mp3s_are_read_to_the_last_one_each_at_its_own_length(tmp_path: Path) -> None:
    one_second, two_seconds = made(tmp_path / "1.mp3", TAGGED, 1.0), made(tmp_path / "2.mp3", TAGGED, 2.0)
    path = written(tmp_path / "joined.mp3", one_second + two_seconds)
    samples = decode(path)
    assert len(samples) == 3 * SAMPLE_RATE_HZ
    assert duration_s(path) == 3.0
    assert lag_of(samples[SAMPLE_RATE_HZ:], speech(16_000, 2.0), SAMPLE_RATE_HZ)[0] == 0


@pytest.mark.parametrize("between", [ID3V1, APE, ID3V1 + APE], ids=["id3v1", "ape", "both"])
def test_tags_between_joined_mp3s_are_no_sound(tmp_path: Path, between: bytes) -> None:
    one_second = made(tmp_path / "1.mp3", TAGGED, 1.0)
    assert (
        len(decode(written(tmp_path / "joined.mp3", one_second + between + one_second + between))) == 2 * SAMPLE_RATE_HZ
    )


def test_an_untagged_mp3_behind_a_tagged_one_is_read(tmp_path: Path) -> None:
    tagged, untagged = made(tmp_path / "1.mp3", TAGGED, 1.0), made(tmp_path / "2.mp3", UNTAGGED, 1.0)
    assert 2.0 <= len(decode(written(tmp_path / "joined.mp3", tagged + untagged))) / SAMPLE_RATE_HZ <= 2.11


def test_joined_mp3s_of_two_rates_are_resampled_each(tmp_path: Path) -> None:
    at_44_1, at_16 = made(tmp_path / "1.mp3", TAGGED, 1.0, 44_100), made(tmp_path / "2.mp3", TAGGED, 1.0, 16_000)
    assert len(decode(written(tmp_path / "joined.mp3", at_44_1 + at_16))) == 2 * SAMPLE_RATE_HZ


def test_a_picture_in_front_of_an_mp3_is_no_sound(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()
    n = len(picture)
    head = b"ID3\x03\x00\x00" + bytes([n >> 21 & 127, n >> 14 & 127, n >> 7 & 127, n & 127])
    content = head + picture + made(tmp_path / "1.mp3", UNTAGGED, 1.0)
    assert 1.0 <= len(decode(written(tmp_path / "a.mp3", content))) / SAMPLE_RATE_HZ <= 1.1


def test_an_mp3_damaged_in_the_middle_is_refused_with_the_place(tmp_path: Path) -> None:
    content = bytearray(made(tmp_path / "1.mp3", UNTAGGED, 3.0))
    middle = len(content) // 2
    content[middle : middle + 1000] = bytes(1000)
    with pytest.raises(AudioError, match=r"damaged, \d+ bytes after 1\.\d+ s"):
        decode(written(tmp_path / "a.mp3", bytes(content)))


def test_libmpg123_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = made(tmp_path / "1.mp3", TAGGED, 1.0)
    odd = b"ID3\x03\x00\x00\x00\x00\x00\x14" + b"TIT2" + b"\xff" * 16
    for i, bytes_ in enumerate((odd + content, content + content + bytes(500), content + b"\xff\xfb\x90")):
        decode(written(tmp_path / f"{i}x.mp3", bytes_))
    cut = written(tmp_path / "cut.mp3", content[: len(content) * 2 // 3])
    for reader in (decode, duration_s):
        with pytest.raises(AudioError, match="truncated"):
            reader(cut)
    assert capfd.readouterr().err == ""


# --- WAV and AIFF


@pytest.mark.parametrize(
    "size",
    [0, 0x7FFFF000, 0x7FFFEFDC, 0x7FFFF024, 0x7FFFFFFF, 0x7FFFFFDB, 0x80000000, 0xFFFFFFFF, 0xFFFFFFDB, 0xFFFFFFD6],
)  # fmt: skip
def test_a_wav_of_open_length_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, speech(16_000, 1.0), 16_000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", size)
    path.write_bytes(content)
    assert len(decode(path)) == SAMPLE_RATE_HZ
    assert duration_s(path) == 1.0


@pytest.mark.parametrize("form", ["WAV", "AIFF"])
@pytest.mark.parametrize("n_bytes", [0, 983, 1000, 1024, 100_001])
def test_notes_of_any_size_may_stand_before_the_samples(tmp_path: Path, form: str, n_bytes: int) -> None:
    path = tmp_path / "a"
    soundfile.write(path, speech(16_000, 1.0), 16_000, format=form, subtype="PCM_16")
    content, order = path.read_bytes(), "<" if form == "WAV" else ">"
    note = b"NOTE" + struct.pack(f"{order}I", n_bytes) + bytes(n_bytes + n_bytes % 2)
    size = struct.pack(f"{order}I", len(content) + len(note) - 8)
    expected = decode(path)
    written(path, content[:4] + size + content[8:12] + note + content[12:])
    np.testing.assert_array_equal(decode(path), expected)
    with pytest.raises(AudioError, match="truncated"):
        decode(written(path, path.read_bytes()[:-2000]))


@pytest.mark.parametrize("size", [0, 0x7F000008, 0x7F000000, 0x7FFFF000, 0xFFFFFFFF])
def test_an_aiff_of_open_length_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.aiff"
    soundfile.write(path, speech(16_000, 1.0), 16_000)
    content = bytearray(path.read_bytes())
    offset = content.index(b"SSND") + 4
    content[offset : offset + 4] = content[4:8] = struct.pack(">I", size)
    offset = content.index(b"COMM") + 10
    content[offset : offset + 4] = struct.pack(">I", 0x3F800000)
    path.write_bytes(content)
    assert len(decode(path)) == SAMPLE_RATE_HZ
    assert duration_s(path) == 1.0


def test_gsm_has_as_many_samples_as_its_fact_chunk_says(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, speech(8_000, 1.0), 8_000, subtype="GSM610")
    content = bytearray(path.read_bytes())
    offset = content.index(b"fact") + 8
    content[offset : offset + 4] = struct.pack("<I", 8_000)
    path.write_bytes(content)
    assert soundfile.info(path).frames == 8_320  # whole blocks
    assert len(decode(path)) == SAMPLE_RATE_HZ
    assert duration_s(path) == 1.0


@pytest.mark.parametrize("codec", ["G721_32", "NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32", "MS_ADPCM"])
def test_telephone_codecs_of_wav_sound_as_they_were_coded(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.wav"
    samples = speech(16_000, 1.0)
    soundfile.write(path, samples, 16_000, subtype=codec)
    decoded = decode(path)
    assert len(decoded) == len(samples)
    assert np.corrcoef(decoded, samples)[0, 1] > 0.95
    assert np.std(decoded) == pytest.approx(np.std(samples), rel=0.25)


# --- FLAC and Ogg


def test_a_flac_of_unknown_length_is_read_and_its_length_found(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.flac", speech(16_000, 1.0), 16_000, Kind(".flac", "flac", "flac"), pipe=True)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert duration_s(path) == 1.0
    assert len(decode(path)) == SAMPLE_RATE_HZ
    assert decoder_of(path).startswith("PyAV")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_chained_ogg_is_read_link_by_link_also_of_other_rates_and_channels(tmp_path: Path, subtype: str) -> None:
    parts = []
    for i, (rate_hz, n_channels) in enumerate(((16_000, 1), (48_000, 2), (8_000, 1))):
        path = tmp_path / f"{i}.ogg"
        soundfile.write(path, np.repeat(speech(rate_hz, 1.0)[:, None], n_channels, 1), rate_hz, subtype=subtype)
        parts.append(path.read_bytes())
    path = written(tmp_path / "chained.ogg", b"".join(parts))
    samples = decode(path)
    assert len(samples) == 3 * SAMPLE_RATE_HZ
    assert duration_s(path) == 3.0
    for i in range(3):
        assert (
            abs(lag_of(samples[i * SAMPLE_RATE_HZ : (i + 1) * SAMPLE_RATE_HZ], speech(16_000, 1.0), SAMPLE_RATE_HZ)[0])
            <= 1
        )


# --- AMR and Speex


@pytest.mark.parametrize(("name", "seconds"), [("narrow_dtx.amr", 2.02), ("wide_dtx.awb", 2.0)])
def test_pauses_in_amr_are_silence_and_the_time_line_holds(name: str, seconds: float) -> None:
    samples = decode(DATA / name)  # a voice, a pause from 0.6 to 1.4 s, a voice
    assert len(samples) / SAMPLE_RATE_HZ == pytest.approx(seconds)
    assert duration_s(DATA / name) == pytest.approx(seconds)
    level = np.sqrt(np.square(samples[: 2 * SAMPLE_RATE_HZ].reshape(20, -1)).mean(1))
    assert (level[[1, 2, 3, 4, 16, 17, 18]] > 0.02).all()
    assert (level[9:13] < 1e-3).all()


@pytest.mark.parametrize(("name", "seconds"), [("speex_dtx.spx", 2.0), ("speex_ffmpeg.ogg", 31_777 / 16_000)])
def test_speex_is_as_long_as_its_last_page_says(name: str, seconds: float) -> None:
    assert len(decode(DATA / name)) / SAMPLE_RATE_HZ == pytest.approx(seconds)
    assert duration_s(DATA / name) == pytest.approx(seconds)


@pytest.mark.parametrize("name", ["narrow_dtx.amr", "wide_dtx.awb"])
def test_amr_that_is_cut_or_damaged_is_refused(tmp_path: Path, name: str) -> None:
    content = (DATA / name).read_bytes()
    with pytest.raises(AudioError, match="truncated"):
        decode(written(tmp_path / name, content[:-3]))
    with pytest.raises(AudioError, match="damaged"):
        decode(written(tmp_path / f"b{name}", content[:40] + bytes(1) + content[40:]))


# --- several tracks, and which decoder


def test_a_video_gives_its_first_sound_track_and_names_all(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    first, second = tmp_path / "1.wav", tmp_path / "2.wav"
    soundfile.write(first, speech(16_000, 1.0), 16_000)
    soundfile.write(second, 0.1 * speech(16_000, 1.0)[::-1], 16_000)
    _two_tracks(path, [first, second])
    np.testing.assert_allclose(decode(path), decode(first), atol=1e-6)
    assert tracks_of(path) == ["pcm_s16le deu", "pcm_s16le eng"]
    assert tracks_of(first) == ["sound"]


def _two_tracks(path: Path, sources: list[Path]) -> None:
    import av

    with av.open(str(path), "w", format="matroska") as container:
        streams = [container.add_stream("pcm_s16le", rate=16_000) for _ in sources]
        for stream, language in zip(streams, ("deu", "eng"), strict=True):
            stream.metadata["language"] = language
            stream.layout = "mono"
        for stream, source in zip(streams, sources, strict=True):
            samples = soundfile.read(source, dtype="int16")[0]
            frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
            frame.sample_rate, frame.pts = 16_000, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def test_the_decoder_that_reads_a_file_is_named_with_its_version(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(10), 16_000)
    assert soundfile.__version__ in decoder_of(tmp_path / "a.wav")
    assert "libavcodec" in decoder_of(DATA / "wide_dtx.awb")


def test_a_missing_pyav_is_an_error_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(AudioError, match="pip install av"):
        decode(DATA / "wide_dtx.awb")


# --- what is no sound


def sparse(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(20 << 30)
    return path


def sparse_wav(path: Path) -> Path:
    soundfile.write(path, np.zeros(100), 16_000)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.truncate(20 << 30)
    return path


def video_alone(path: Path) -> Path:
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(5):
            picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return path


def playlist(path: Path) -> Path:
    soundfile.write(path.with_name("secret.wav"), speech(16_000, 1.0), 16_000)
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\n{path.with_name('secret.wav')}\n#EXT-X-ENDLIST\n")
    return path


BAD: dict[str, Callable[[Path], Path]] = {
    "text.mp3": lambda path: written(path, b"hello world " * 500),
    "text.m4a": lambda path: written(path, b"hello world " * 500),
    "text.au": lambda path: written(path, b"hello world " * 500),
    "text.vox": lambda path: written(path, b"hello world " * 500),
    "noise.amr": lambda path: written(path, np.random.default_rng(0).bytes(50_000)),
    "noise.gsm": lambda path: written(path, np.random.default_rng(0).bytes(33_000)),
    "zeros.mp3": lambda path: written(path, bytes(1_000_000)),
    "lfs.wav": lambda path: written(path, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"),
    "empty.opus": lambda path: written(path, b""),
    "sparse.wav": sparse,
    "sparse.mp3": sparse,
    "hours.wav": sparse_wav,
    "silent.mp4": video_alone,
    "list.m3u8": playlist,
}
REASONS = {"lfs.wav": "git lfs pull", "silent.mp4": "no sound", "hours.wav": "hole", "empty.opus": "0 bytes"}


def test_a_file_too_long_to_be_decoded_whole_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featurestore.audio.layout.HOLLOW_SHARE", 0.0)
    with pytest.raises(AudioError, match="12 hours"):
        decode(sparse_wav(tmp_path / "hours.wav"))
    assert len(Clip(tmp_path / "hours.wav", 3600.0, 3601.0).decode()) == 16_000


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_sound_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = BAD[name](tmp_path / name)
    with pytest.raises(AudioError, match=REASONS.get(name, "not audio|no sound|no samples|hole")) as caught:
        decode(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pipes_and_devices_are_refused_without_being_opened(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "a.wav")
    for path in (tmp_path / "a.wav", Path("/dev/zero"), tmp_path):
        with pytest.raises(AudioError, match="not a regular file"):
            decode(path)


CUT = [
    Kind(".m4a", "ipod", "aac"), Kind(".mp4", "mp4", "aac", video="mpeg4"), Kind(".mov", "mov", "pcm_s16le"),
    Kind(".wv", "wv", "wavpack"), Kind(".tta", "tta", "tta"), Kind(".oga", "ogg", "flac"),
    Kind(".opus", "ogg", "libopus"),
]  # fmt: skip


@pytest.mark.parametrize("kind", CUT, ids=str)
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_what_is_cut_is_refused(tmp_path: Path, kind: Kind, share: float) -> None:
    content = made(tmp_path / f"whole{kind.suffix}", kind, 3.0, 48_000)
    path = written(tmp_path / f"cut{kind.suffix}", content[: int(share * len(content))])
    with pytest.raises(AudioError):
        decode(path)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".m4a", ".webm", ".amr", ".avi"])
def test_damaged_bytes_end_in_samples_or_a_reason(tmp_path: Path, suffix: str, seed: int) -> None:
    kinds = {
        ".wav": Kind(".wav", "wav", "pcm_s16le"), ".flac": Kind(".flac", "flac", "flac"), ".mp3": TAGGED,
        ".ogg": Kind(".ogg", "ogg", "libopus"), ".m4a": Kind(".m4a", "ipod", "aac"),
        ".webm": Kind(".webm", "webm", "libopus"), ".avi": Kind(".avi", "avi", "libmp3lame"),
    }  # fmt: skip
    plain = (DATA / "narrow_dtx.amr").read_bytes() if suffix == ".amr" else made(tmp_path / "a", kinds[suffix], 1.0)
    rng = np.random.default_rng(seed)
    content = bytearray(plain)
    for byte in rng.integers(0, len(content), 20):
        content[byte] = rng.integers(256)
    path = written(tmp_path / f"damaged{suffix}", bytes(content))
    try:
        samples = decode(path)
    except AudioError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert np.isfinite(samples).all()
        assert len(samples) < 100 * SAMPLE_RATE_HZ
