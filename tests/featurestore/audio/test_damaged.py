"""Damaged, cut and hollow files: no decoder may leave sound out without a word, and none may take forever."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from featurestore.audio import decode, duration_s
from featurestore.audio.ogg_pages import links_of
from featurestore.audio.pieces import Clip
from featurestore.errors import AudioError
from featurestore.recordings.windows import Windows
from tests.featurestore.audio.test_containers import KINDS, speech
from tests.helpers.containers import Kind, encode

RATE_HZ = 48_000
KIND = {str(kind): kind for kind in KINDS}
CHECKED = (
    "ogg-vorbis",
    "opus-libopus",
    "oga-flac",
    "mka-libopus",
    "weba-libopus",
    "mka-flac",
    "flac-flac",
    "wv-wavpack",
)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """Return the bytes of 20 s of speech in a kind of file, as a pipe gets them for FLAC."""
    contents: dict[str, bytes] = {}
    folder = tmp_path_factory.mktemp("kinds")

    def of(name: str) -> bytes:
        if name not in contents:
            path = folder / name
            if name == "ogg-vorbis":
                soundfile.write(path, speech(RATE_HZ, 20.0), RATE_HZ, format="OGG", subtype="VORBIS")
            else:
                kind: Kind = KIND[name]
                encode(path, speech(RATE_HZ, 20.0), RATE_HZ, kind, pipe=name == "flac-flac")
            contents[name] = path.read_bytes()
        return contents[name]

    return of


def spoiled(data: bytes, fault: str) -> bytes:
    middle = len(data) // 2
    if fault == "cut":
        return data[:middle]
    if fault == "hole":
        return data[:middle] + data[middle + 4000 :]
    noise = np.random.default_rng(0).integers(0, 256, 4000, np.uint8).tobytes()
    return data[:middle] + noise + data[middle + 4000 :]


@pytest.mark.parametrize("fault", ["hole", "noise"])
@pytest.mark.parametrize("name", CHECKED)
def test_what_is_missing_in_the_middle_is_an_error(
    tmp_path: Path, encoded: Callable[[str], bytes], name: str, fault: str
) -> None:
    path = tmp_path / f"clip.{name.partition('-')[0]}"
    path.write_bytes(spoiled(encoded(name), fault))
    with pytest.raises(AudioError, match=r"damaged|truncated") as caught:
        decode(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["mka-libopus", "avi-pcm_s16le-video", "mkv-aac-video", "opus-libopus", "ogg-vorbis"])
def test_a_file_that_ends_before_what_its_container_says_is_truncated(
    tmp_path: Path, encoded: Callable[[str], bytes], name: str
) -> None:
    path = tmp_path / f"clip.{name.partition('-')[0]}"
    path.write_bytes(spoiled(encoded(name), "cut"))
    with pytest.raises(AudioError, match="truncated"):
        decode(path)


def test_a_damaged_link_of_a_chain_is_not_passed_over(tmp_path: Path, encoded: Callable[[str], bytes]) -> None:
    data = encoded("opus-libopus")
    (tmp_path / "whole.opus").write_bytes(data + data)
    (tmp_path / "damaged.opus").write_bytes(spoiled(data, "noise") + data)
    assert len(decode(tmp_path / "whole.opus")) == 2 * 20 * 16_000
    with pytest.raises(AudioError, match="damaged"):
        decode(tmp_path / "damaged.opus")


def test_every_bit_of_an_ogg_page_counts(encoded: Callable[[str], bytes]) -> None:
    data = encoded("ogg-vorbis")
    assert len(links_of(data, "x")) == 1
    rng = np.random.default_rng(0)
    second = data.index(b"OggS", 4)
    for byte in rng.integers(second + 27, len(data) - 4000, 50).tolist():
        flipped = bytearray(data)
        flipped[byte] ^= 1 << int(rng.integers(8))
        with pytest.raises(AudioError, match="damaged"):
            links_of(bytes(flipped), "x")


@pytest.mark.parametrize("suffix", [".mp3", ".wav", ".m4a", ".ac3", ".amr", ".ogg", ".flac"])
def test_a_file_that_is_a_hole_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    heads = {
        ".wav": b"RIFF\xff\xff\xff\xffWAVE",
        ".ac3": b"\x0b\x77",
        ".amr": b"#!AMR\n",
        ".ogg": b"OggS",
        ".flac": b"fLaC",
    }
    path = tmp_path / f"hole{suffix}"
    path.write_bytes(heads.get(suffix, b""))
    os.truncate(path, 20 << 30)
    if path.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system has no holes")
    for reader in (decode, duration_s, Clip(path, 0.0, 1.0).decode):
        with pytest.raises(AudioError, match="hole"):
            reader() if reader not in (decode, duration_s) else reader(path)


def test_an_mp3_is_the_same_samples_whether_it_is_long_or_short(tmp_path: Path) -> None:
    """Read block by block by libsndfile, the first 60 ms of each block are other ones."""
    path = encode(tmp_path / "clip.mp3", speech(44_100, 20.0), 44_100, KIND["mp3-libmp3lame"])
    at_once, rate_hz = soundfile.read(path, dtype="float32")
    assert rate_hz == 44_100
    ours = np.concatenate([Clip(path, float(start), float(start + 5)).decode() for start in range(0, 20, 5)])
    samples = decode(path)
    assert len(samples) == len(ours) == 20 * 16_000
    expected = soxr.resample(at_once, 44_100, 16_000, quality="HQ")
    assert np.abs(samples - expected).max() < 1e-5


def test_no_decoder_prints_warnings_of_its_own(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp3", speech(44_100, 20.0), 44_100, KIND["mp3-libmp3lame"])
    data = path.read_bytes()
    files = [tmp_path / f"{i}.mp3" for i in range(4)]
    files[0].write_bytes(data[: len(data) // 2])  # libmpg123 calls this a stream size off by more than 1 %
    files[1].write_bytes(data[:20_000] + bytes(40) + data[20_040:])
    files[2].write_bytes(data[:20_000] + bytes([data[20_000] ^ 255]) + data[20_001:])
    files[3].write_text("no sound\n" * 1000)
    code = (
        "import sys\nfrom featurestore.audio import decode\nfrom featurestore.errors import AudioError\n"
        "for name in sys.argv[1:]:\n    try:\n        decode(name)\n    except AudioError:\n        pass\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, *map(str, files)], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert process.stderr == ""


def test_the_length_of_a_truncated_file_is_not_what_is_left_of_it(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    soundfile.write(path, speech(16_000, 5.0), 16_000)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(AudioError, match="truncated"):
        duration_s(path)
    with pytest.raises(AudioError, match="truncated"):
        Windows.of(2.0, 2.0).of_file(path)
    assert len(Clip(path, 0.0, 1.0).decode()) == 16_000
