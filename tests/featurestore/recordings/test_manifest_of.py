"""Manifests of recordings that nobody made one for: ids, paths, what is left out, and what a second run adds."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore.corpora.audiofolder import read_audiofolder
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.recordings.manifest_of import recordings_of


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """calls/a.wav, calls/x/b.flac, calls/x/c.m4a in the working directory; nothing here decodes them."""
    for name in ("a.wav", "x/b.flac", "x/c.m4a"):
        (tmp_path / "calls" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "calls" / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "calls"


def test_ids_are_paths_as_seen_from_the_folder_as_audiofolder_has_them(calls: Path) -> None:
    for spelling in ("calls", "calls/", str(calls), "./calls/../calls"):
        recordings = recordings_of([spelling])
        assert recordings.manifest.keys == ["a.wav", "x/b.flac", "x/c.m4a"]
        assert [recordings.manifest.audio_path(i).read_text() for i in range(3)] == recordings.manifest.keys
        assert recordings.failed == recordings.notes == []
    (calls / "metadata.csv").write_text("file_name,label\na.wav,sad\nx/b.flac,sad\nx/c.m4a,angry\n")
    assert read_audiofolder(calls, check_audio=False).keys == recordings.manifest.keys


def test_ids_of_several_places_start_at_the_folder_that_holds_them_all(calls: Path) -> None:
    (calls.parent / "more").mkdir()
    (calls.parent / "more" / "a.wav").touch()
    assert recordings_of(["calls/x", "more/a.wav"]).manifest.keys == ["calls/x/b.flac", "calls/x/c.m4a", "more/a.wav"]
    assert recordings_of(["calls/x/b.flac"]).manifest.keys == ["b.flac"]
    assert recordings_of(["calls/**/*.flac"]).manifest.keys == ["x/b.flac"]


def test_each_real_file_is_in_it_once_or_named(calls: Path) -> None:
    (calls / "loop").symlink_to(calls)
    (calls / "x" / "again.wav").symlink_to(calls / "a.wav")
    (calls / "gone.wav").symlink_to(calls / "nowhere.wav")
    os.mkfifo(calls / "pipe.wav")
    (calls / "d.vox").touch()
    strange = os.fsencode(calls) + b"/\xff.wav"
    os.close(os.open(strange, os.O_CREAT))
    recordings = recordings_of(["calls", "calls/x/b.flac", "missing.wav", "calls/x/again.wav"])
    assert recordings.manifest.keys == ["calls/a.wav", "calls/x/b.flac", "calls/x/c.m4a"]
    reasons = dict(recordings.failed)
    assert "nowhere.wav" in reasons["calls/gone.wav"]
    assert "regular" in reasons["calls/pipe.wav"]
    assert "no such file" in reasons["missing.wav"]
    assert any("xff" in name or "udcff" in name for name in reasons)
    assert len(reasons) == 4
    assert any("d.vox" in note for note in recordings.notes)
    assert any("again.wav" in note and "calls/a.wav" in note for note in recordings.notes)


def test_a_second_run_keeps_ids_and_columns_and_adds_what_is_new(calls: Path) -> None:
    manifest_path = calls.parent / "store.files.csv"
    recordings_of(["calls"], written=manifest_path).whole.write(manifest_path)
    labelled = Manifest.read(manifest_path)
    table = labelled.to_arrow().append_column("label", pa.array(["sad", "sad", "angry"]))
    Manifest(table, root=labelled.root).write(manifest_path)
    (calls / "x" / "d.ogg").touch()
    recordings = recordings_of([calls / "x"], written=manifest_path)
    assert recordings.manifest.keys == ["x/b.flac", "x/c.m4a", "d.ogg"]
    assert recordings.manifest.labels == ["sad", "angry", None]
    assert recordings.n_new == 1
    recordings.whole.write(manifest_path)
    reread = Manifest.read(manifest_path)
    assert reread.keys == ["a.wav", "x/b.flac", "x/c.m4a", "d.ogg"]
    assert reread.column("path").tolist() == ["calls/a.wav", "calls/x/b.flac", "calls/x/c.m4a", "calls/x/d.ogg"]
    assert recordings_of(["calls"], written=manifest_path).n_new == 0


def test_an_id_that_another_file_has_is_an_error_that_names_both(calls: Path) -> None:
    manifest_path = calls.parent / "store.files.csv"
    recordings_of(["calls"], written=manifest_path).whole.write(manifest_path)
    (calls.parent / "more").mkdir()
    (calls.parent / "more" / "a.wav").touch()
    with pytest.raises(ConfigError, match=r"more/a\.wav.*calls/a\.wav"):
        recordings_of(["more"], written=manifest_path)


def test_a_manifest_of_pieces_is_not_gone_on_with(calls: Path) -> None:
    (calls.parent / "cut.csv").write_text("utterance_id,path,start_s,end_s\na,calls/a.wav,0,1\n")
    with pytest.raises(ConfigError, match=r"cut\.csv.*start_s"):
        recordings_of(["calls"], written=calls.parent / "cut.csv")


def test_nothing_that_can_be_read_is_an_error_with_the_first_reason(calls: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.wav: no such file"):
        recordings_of(["missing.wav"])
    with pytest.raises(ConfigError, match="no recording"):
        recordings_of(["-"], [])


def test_names_with_commas_quotes_and_line_breaks_come_back(calls: Path) -> None:
    names = ["a,b.wav", 'say "x".wav', "two\nlines.wav", "=sum.wav", " space .wav"]
    for name in names:
        (calls / name).touch()
    manifest_path = calls.parent / "kept.csv"
    recordings_of(["calls"]).whole.write(manifest_path)
    reread = Manifest.read(manifest_path)
    assert set(names) <= set(reread.keys)
    assert all(reread.audio_path(i).exists() for i in range(len(reread)))
