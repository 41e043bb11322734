"""Which of several sound tracks was read stands in the notes and in what a feature set records."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from featurestore.audio import Clip, decode, decoder_of, duration_s, several_tracks, tracks_of
from featurestore.corpora.table import read_table
from tests.featurestore.audio.test_containers import speech
from tests.helpers.containers import lag_of
from tests.helpers.messages import mentions
from tests.helpers.small_corpus import medusa


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tracks") / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libopus", rate=48_000, layout="mono") for _ in range(2)]
        for stream, title in zip(streams, ("dialogue", "comments\nof the director"), strict=True):
            stream.metadata["title"] = title
        for stream, loudness in zip(streams, (1.0, 0.1), strict=True):
            fifo = av.AudioFifo()
            frame = av.AudioFrame.from_ndarray((speech(48_000, 1.0) * np.float32(loudness))[None], "flt", "mono")
            frame.sample_rate, frame.pts = 48_000, 0
            fifo.write(frame)
            while (piece := fifo.read(960)) is not None:
                container.mux(stream.encode(piece))
            container.mux(stream.encode(None))
    return path


def test_the_tracks_are_named_in_order(two: Path) -> None:
    assert tracks_of(two) == ["opus dialogue", "opus comments of the director"]
    (note,) = several_tracks([two, two.with_name("absent.mp4"), two.with_name("clip.wav")])
    assert mentions(note, two, "opus dialogue", "not opus comments of the director")
    assert several_tracks([two.with_name("clip.wav")]) == []


def test_the_track_is_part_of_the_decoder_that_is_recorded(two: Path) -> None:
    assert decoder_of(two).endswith("sound track 1 of 2 (opus dialogue)")
    assert "\n" not in decoder_of(two)


def test_prepare_and_featurize_name_the_track(two: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"utterance_id,path,label\nu,{two},sad\n")
    assert any("opus dialogue" in note for note in read_table(tmp_path / "t.csv").notes)
    result = medusa("featurize", "--encoder", "logmel", str(two), "-s", str(tmp_path / "store"))
    assert "not opus comments of the director" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("suffix", "encoder", "late_s"),
    [(".mp4", "aac", 1.0), (".mkv", "libopus", 1.0), (".mov", "pcm_s16le", 1.0), (".mov", "pcm_s16le", 0.05),
     (".mkv", "libopus", 0.05), (".mp4", "aac", 0.0)],
)  # fmt: skip
def test_sound_that_begins_after_the_pictures_keeps_its_time(
    tmp_path: Path, suffix: str, encoder: str, late_s: float
) -> None:
    path = tmp_path / f"late{suffix}"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        stream = container.add_stream(encoder, rate=48_000, layout="mono")
        picture = av.VideoFrame.from_ndarray(np.full((96, 64), 128, np.uint8), "yuv420p")
        for i in range(40):
            picture.pts = i
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        fifo = av.AudioFifo()
        samples = speech(48_000, 2.0)
        frame = av.AudioFrame.from_ndarray(samples[None], "flt", "mono")
        frame.sample_rate = 48_000
        n = round(late_s * 48_000)
        for out in av.AudioResampler(stream.codec_context.format, "mono", 48_000).resample(frame):
            fifo.write(out)
        while (piece := fifo.read(stream.codec_context.frame_size or 1024, partial=True)) is not None:
            piece.pts, piece.time_base = n, Fraction(1, 48_000)
            n += piece.samples
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    silent_s = late_s if late_s > 0.1 else 0.0  # so little is no matter, and FFmpeg's program leaves it out, too
    result = decode(path)
    assert len(result) == pytest.approx((silent_s + 2.0) * 16_000, abs=200)
    assert duration_s(path) == pytest.approx(len(result) / 16_000, abs=1e-3)
    assert not result[: max(0, round(silent_s * 16_000) - 200)].any()
    part = decode(Clip(path, silent_s + 0.5, silent_s + 1.5))
    lag, correlation = lag_of(part, speech(16_000, 2.0)[8_000:24_000], 16_000)
    assert abs(lag) <= 20
    assert correlation > 0.9
