"""Recordings cut into pieces: ids, columns, tables matched to recordings."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from featurestore.audio import decode
from featurestore.corpus.manifest import LabelScheme, Manifest
from featurestore.errors import ConfigError
from featurestore.recordings.cut import cut, cutter_of
from featurestore.recordings.manifest_of import recordings_of
from featurestore.recordings.segment_tables import SegmentTable
from tests.helpers.small_corpus import medusa

RATE = 16_000


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """calls/a.wav of 5 s, calls/x/a.wav of 3 s, calls/x/my b.flac of 2.5 s, noise, in the working directory."""
    for name, seconds in (("a.wav", 5.0), ("x/a.wav", 3.0), ("x/my b.flac", 2.5)):
        (tmp_path / "calls" / name).parent.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(int(10 * seconds)).normal(0, 0.1, int(seconds * RATE))
        soundfile.write(tmp_path / "calls" / name, samples, RATE)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "calls"


def listed(**columns: list[object]) -> SegmentTable:
    return SegmentTable(pa.table(columns), [])


def test_windows_have_ids_with_their_ends_and_are_what_the_recording_holds_there(calls: Path) -> None:
    cutter = cutter_of(1, 2, None)
    assert cutter is not None
    result = cut(recordings_of(["calls"]).manifest, cutter).manifest
    assert result is not None
    assert result.keys[:4] == ["a.wav[0-2]", "a.wav[1-3]", "a.wav[2-4]", "a.wav[3-5]"]
    assert result.keys[-2:] == ["x/my b.flac[0-2]", "x/my b.flac[1-2.5]"]
    clip = result.audio(result.index("a.wav[1-3]"))
    assert not isinstance(clip, Path)
    np.testing.assert_array_equal(clip.decode(), decode(calls / "a.wav")[RATE : 3 * RATE])


def test_the_recordings_columns_stay_but_for_text_and_duration(calls: Path) -> None:
    table = recordings_of(["calls"]).manifest.to_arrow()
    for name, values in (("speaker", ["a", "b", "c"]), ("text", ["x"] * 3), ("duration_s", [5.0, 3.0, 2.5])):
        table = table.append_column(name, pa.array(values))
    cutter = cutter_of(None, 2.5, None)
    assert cutter is not None
    result = cut(Manifest(table, root=calls), cutter).manifest
    assert result is not None
    assert result.columns == ["utterance_id", "path", "speaker", "start_s", "end_s"]
    assert result.column("speaker").tolist() == ["a", "a", "b", "b", "c"]


@pytest.mark.parametrize("labelled", [False, True], ids=["plain", "labelled"])
def test_segments_of_a_table_keep_the_scales_and_the_order_of_classes_of_the_corpus(
    calls: Path, labelled: bool
) -> None:
    table = recordings_of(["calls"]).manifest.to_arrow()
    table = table.append_column("label", pa.array(["sad", "angry", "sad"]))
    table = table.append_column("attr_arousal", pa.array([1.0, 3.0, 5.0]))
    scheme = LabelScheme(("sad", "neutral", "angry"), {"arousal": (0.0, 5.0)}, {"s": "sad"})
    corpus = Manifest(table, scheme, calls)
    own = {"label": ["calm", "joy"]} if labelled else {}
    segments = listed(path=["my b", "x/a"], start_s=[0.0, 0.5], end_s=[1.0, 2.0], attr_valence=[2.0, 6.5], **own)
    result = cut(corpus, segments).manifest
    assert result is not None
    assert dict(result.scheme.attributes) == {"arousal": (0.0, 5.0), "valence": (1.0, 7.0)}
    assert result.scheme.classes == (("calm", "joy") if labelled else scheme.classes)
    assert result.labels == (["joy", "calm"] if labelled else ["angry", "sad"])


def test_a_recording_that_can_not_be_decoded_is_named_and_the_rest_cut(calls: Path) -> None:
    (calls / "broken.wav").write_text("no sound")
    cutter = cutter_of(2, None, None)
    assert cutter is not None
    result = cut(recordings_of(["calls"]).manifest, cutter)
    assert result.manifest is not None
    assert [key for key, _ in result.failed] == ["broken.wav"]
    assert len(set(result.manifest.column("path"))) == 3


@pytest.mark.parametrize("name", ["calls/x/a.wav", "x/a.wav", "x/a", "./x/a.wav"])
def test_a_tables_recording_is_found_by_the_end_of_its_path(calls: Path, name: str) -> None:
    cutter = listed(path=[name, name], start_s=[1.0, 0.0], end_s=[2.0, None], speaker=["anna", None])
    result = cut(recordings_of(["calls"]).manifest, cutter)
    assert result.manifest is not None
    assert result.manifest.keys == ["x/a.wav[1-2]", "x/a.wav[0-]"]
    assert result.manifest.column("speaker").tolist() == ["anna", None]
    assert any("a.wav" in note and "my b.flac" in note for note in result.notes)  # these have no segment


def test_blanks_that_rttm_writes_otherwise_are_found(calls: Path) -> None:
    result = cut(recordings_of(["calls"]).manifest, listed(path=["my_b"], start_s=[0.0], end_s=[1.0]))
    assert result.manifest is not None
    assert result.manifest.keys == ["x/my b.flac[0-1]"]


def test_a_name_that_two_recordings_have_is_an_error_that_names_both(calls: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.wav or x/a\.wav"):
        cut(recordings_of(["calls"]).manifest, listed(path=["a"], start_s=[0.0], end_s=[1.0]))


def test_recordings_that_are_not_given_are_noted_and_none_at_all_is_an_error(calls: Path) -> None:
    one_recording = recordings_of(["calls/a.wav"]).manifest
    result = cut(one_recording, listed(path=["a.wav", "zzz"], start_s=[0.0, 0.0], end_s=[1.0, 1.0]))
    assert any("zzz" in note for note in result.notes)
    with pytest.raises(ConfigError, match=r"none of the recordings.*zzz"):
        cut(one_recording, listed(path=["zzz"], start_s=[0.0], end_s=[1.0]))


def test_a_table_without_recordings_goes_with_a_single_one(calls: Path) -> None:
    cutter = listed(start_s=[0.0, 0.0], end_s=[1.0, 1.0], annotation=["x", "y"])
    result = cut(recordings_of(["calls/a.wav"]).manifest, cutter)
    assert result.manifest is not None
    assert result.manifest.keys == ["a.wav[0-1]"]
    assert any("same ends" in note for note in result.notes)
    with pytest.raises(ConfigError, match=r"no recording.* 3 .*'path'"):
        cut(recordings_of(["calls"]).manifest, cutter)


def test_pieces_are_not_cut_again(calls: Path) -> None:
    cutter = cutter_of(1, 2, None)
    assert cutter is not None
    pieces = cut(recordings_of(["calls"]).manifest, cutter).manifest
    assert pieces is not None
    with pytest.raises(ConfigError, match="pieces"):
        cut(pieces, cutter)


@pytest.mark.parametrize(
    ("options", "named"), [((1, None, "vad"), "--every"), ((None, 2, "t.csv"), "--span"), ((1, 2, "t.csv"), "--every")]
)
def test_options_that_contradict_are_refused(options: tuple[float | None, float | None, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        cutter_of(*options)


# The command


def test_prepare_segments_writes_what_featurize_reads(calls: Path) -> None:
    output = medusa("prepare", "segments", "calls", "--every", "1", "--span", "2", "-o", "w.csv").stdout
    assert "8 segments of 3 recordings" in output
    assert "8 done" in medusa("featurize", "--encoder", "logmel", "-m", "w.csv", "-s", "store").stdout
    assert Manifest.read("w.csv").column("path").tolist()[0] == "calls/a.wav"


def test_prepare_segments_of_a_table_and_what_it_lacks(calls: Path) -> None:
    Path("t.rttm").write_text("SPEAKER my_b 1 0.5 1.0 <NA> <NA> anna <NA> <NA>\n")
    medusa("prepare", "segments", "calls", "--segments", "t.rttm", "-o", "w.csv")
    assert Manifest.read("w.csv").keys == ["x/my b.flac[0.5-1.5]"]
    shutil.copy("t.rttm", "broken.wav")
    failed = medusa("prepare", "segments", "calls", "broken.wav", "--span", "2", "-o", "v.csv", exit_code=1)
    assert "broken.wav" in failed.stderr
    for wrong in (["--span", "0"], ["--every", "nan"], [], ["--segments", "gone.csv"]):
        medusa("prepare", "segments", "calls", *wrong, "-o", "u.csv", exit_code=2)
    assert not Path("u.csv").exists()
