"""Folders of audio: every suffix that is read is found, every real file once, and what is left out is counted."""

import os
from pathlib import Path

import pytest

from ensemble.evaluation.matching import without_suffix
from featurestore.audio import AUDIO_SUFFIXES, search
from featurestore.augment.views import AudioFiles
from featurestore.corpora.audiofolder import read_audiofolder
from featurestore.corpus.overlap import bare_key
from featurestore.recordings.places import find_files
from featurestore.store.feature_store import FeatureStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of a class with one file for every suffix; nothing here decodes them."""
    (tmp_path / "angry").mkdir()
    for suffix in AUDIO_SUFFIXES:
        (tmp_path / "angry" / f"clip_{suffix[1:]}{suffix.upper()}").touch()
    return tmp_path


def test_every_suffix_is_found_by_every_reader_of_folders_in_any_letter_case(folder: Path) -> None:
    expected = sorted(path.name for path in (folder / "angry").iterdir())
    assert sorted(path.name for path in search(folder).files) == expected
    assert sorted(os.path.basename(file) for file in find_files([folder])) == expected
    (folder / "sad").mkdir()
    (folder / "sad" / "other.wav").touch()
    manifest = read_audiofolder(folder)
    manifest = manifest.rows([label == "angry" for label in manifest.labels])
    assert sorted(os.path.basename(key) for key in manifest.keys) == expected
    assert set(manifest.labels) == {"angry"}
    assert sorted(os.path.basename(name) for name in AudioFiles.of(folder / "angry", "--noise").names) == expected


@pytest.mark.parametrize("suffix", AUDIO_SUFFIXES)
def test_an_id_without_its_suffix_is_the_same_utterance_for_scores_and_audit(suffix: str) -> None:
    assert without_suffix(f"a/b.c{suffix}") == "a/b.c"
    assert bare_key(f"a/b.c{suffix.upper()}") == "a/b.c"


def test_files_that_may_be_recordings_are_counted_by_suffix_and_tables_are_not(tmp_path: Path) -> None:
    for name in ("a.wav", "b.vox", "c.VOX", "d", "labels.csv", "notes.txt", "._a.wav", ".DS_Store"):
        (tmp_path / name).touch()
    assert [path.name for path in search(tmp_path).others] == ["b.vox", "c.VOX", "d"]
    notes: list[str] = []
    assert len(find_files([tmp_path], notes=notes)) == 1
    assert ".vox" in notes[0]
    assert "3 files" in notes[0]
    assert any(".vox" in note for note in read_audiofolder(tmp_path).notes)


def test_what_is_left_out_is_named_and_so_are_hidden_recordings(tmp_path: Path) -> None:
    for name in ("a.wav", "deep/b.vox", "deep/.c.wav", "deep/._a.wav", ".DS_Store"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    left_out = search(tmp_path).left_out(tmp_path)
    assert "deep/b.vox" in left_out
    assert "deep/.c.wav" in left_out
    assert "._a" not in left_out


def test_the_chunks_of_a_feature_store_in_the_folder_are_no_recordings(tmp_path: Path) -> None:
    FeatureStore.create(tmp_path / "store")
    (tmp_path / "store" / "0").touch()
    (tmp_path / "a.wav").touch()
    assert search(tmp_path).left_out(tmp_path) == ""
    assert search(tmp_path).files == [tmp_path / "a.wav"]


def test_links_that_lead_back_end_and_each_real_file_is_listed_once_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "sad").mkdir()
    (tmp_path / "sad" / "clip.wav").touch()
    (tmp_path / "a_link").symlink_to(tmp_path / "sad")
    (tmp_path / "sad" / "up").symlink_to(tmp_path)
    (tmp_path / "a.wav").symlink_to(tmp_path / "sad" / "clip.wav")
    assert search(tmp_path).files == [tmp_path / "sad" / "clip.wav"]


def test_a_link_to_a_folder_elsewhere_is_followed_and_a_link_to_nothing_is_listed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.wav").touch()
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "corpus" / "gone.wav").symlink_to(tmp_path / "nothing.wav")
    names = [path.relative_to(tmp_path / "corpus").as_posix() for path in search(tmp_path / "corpus").files]
    assert names == ["gone.wav", "linked/x.wav"]
