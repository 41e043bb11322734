"""Audio in the page and beside it."""

import io
import os
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import soundfile

from ensemble.report.collect import Collected
from ensemble.report.sound import audio_of, opus
from featurestore.audio import decode
from featurestore.corpus.manifest import Manifest


def test_links_lead_from_the_page_to_each_file_whatever_its_name(collected: Collected, run: Path) -> None:
    result = audio_of(collected.rows, "link", run / "pages" / "report.html")
    for i, link in enumerate(result["links"]):
        assert link.startswith("./")
        assert not set("<>\"'&?#:") & set(link)
        assert os.path.samefile(run / unquote(link.removeprefix("./../")), collected.rows.audio_path(i))
    assert result["clips"] == {}


def test_a_piece_is_linked_by_its_seconds(tmp_path: Path) -> None:
    columns = {"utterance_id": ["a", "b", "c"], "path": ["javascript:alert(1).wav"] * 2 + [None],
               "text": ["", "", "c"], "start_s": [1.5, 2.0, None], "end_s": [2.25, None, None]}  # fmt: skip
    rows = Manifest(pa.table(columns), root=tmp_path)
    result = audio_of(rows, "link", tmp_path / "report.html")
    assert result["links"] == [
        "./javascript%3Aalert%281%29.wav#t=1.5,2.25",
        "./javascript%3Aalert%281%29.wav#t=2",
        None,
    ]


def test_clips_inside_the_page_are_the_first_that_fit_and_the_others_are_linked(
    collected: Collected, run: Path
) -> None:
    page = run / "report.html"
    sounds = audio_of(collected.rows, "embed", page)
    assert len(sounds["clips"]) == len(collected.rows)
    assert sounds["note"] == ""
    few = audio_of(collected.rows, "embed", page, first=[7, 3], most_bytes=len(sounds["clips"]["7"]) + 10)
    assert list(few["clips"]) == ["7"]
    assert len(few["links"]) == len(collected.rows)
    assert "1 of 60 clips" in few["note"]


def test_no_audio_where_none_is_wanted_or_there(collected: Collected, run: Path) -> None:
    assert audio_of(collected.rows, "none", run / "report.html")["links"] is None
    bare = Manifest(collected.rows.to_arrow().drop_columns(["path"]), collected.rows.scheme)
    assert "no audio" in audio_of(bare, "embed", run / "report.html")["note"]


def test_a_clip_that_cannot_be_decoded_is_linked_and_named(collected: Collected, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    rows = Manifest(pa.table({"utterance_id": ["a"], "path": ["a.wav"]}), root=tmp_path)
    result = audio_of(rows, "embed", tmp_path / "report.html")
    assert result["clips"] == {}
    assert result["links"] == ["./a.wav"]
    assert "a.wav" in result["note"]


def test_opus_keeps_length_and_sound(demo_corpus: Path) -> None:
    samples = decode(demo_corpus / "Actor_07" / "03-01-05-01-01-01-07.ogg")
    samples = samples * np.float32(2 / np.abs(samples).max())  # beyond full scale
    decoded, rate = soundfile.read(io.BytesIO(opus(samples)), dtype="float32")
    assert rate == 16_000
    assert abs(len(decoded) - len(samples)) <= 0.01 * rate
    assert np.abs(decoded).max() < 1.2
    n = min(len(decoded), len(samples))
    assert np.corrcoef(decoded[:n], samples[:n])[0, 1] > 0.9
    assert len(opus(samples)) < 4_000 * len(samples) / rate
