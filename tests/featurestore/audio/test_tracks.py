"""Which of several sound tracks was read stands in the notes and in what a feature set records."""

from pathlib import Path

import av
import numpy as np
import pytest

from featurestore.audio import decoder_of, several_tracks, tracks_of
from featurestore.corpora.table import read_table
from tests.featurestore.audio.test_containers import speech
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
    assert f"{two} (opus dialogue; not opus comments of the director)" in note
    assert several_tracks([two.with_name("clip.wav")]) == []


def test_the_track_is_part_of_the_decoder_that_is_recorded(two: Path) -> None:
    assert decoder_of(two).endswith("sound track 1 of 2 (opus dialogue)")
    assert "\n" not in decoder_of(two)


def test_prepare_and_featurize_name_the_track(two: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"utterance_id,path,label\nu,{two},sad\n")
    assert any("opus dialogue" in note for note in read_table(tmp_path / "t.csv").notes)
    done = medusa("featurize", "--encoder", "logmel", str(two), "-s", str(tmp_path / "store"))
    assert "not opus comments of the director" in " ".join(done.output.split())
