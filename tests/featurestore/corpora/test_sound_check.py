"""`prepare` opens a few files of each suffix, so that a corpus that can't be heard is refused before it is encoded."""

from pathlib import Path

import pytest

from featurestore.corpora import CORPORA
from featurestore.corpora.emodb import read_emodb
from featurestore.corpora.table import read_table
from featurestore.errors import ManifestError
from tests.helpers.corpus_trees import write_csv, write_wav
from tests.helpers.small_corpus import medusa

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 72862\n"


def crema_d(root: Path, n_pointers: int, n_clips: int = 3) -> Path:
    for i in range(n_clips):
        clip = write_wav(root / f"AudioWAV/10{i:02d}_IEO_ANG_HI.wav".replace("1000", "1003"))
        if i < n_pointers:
            clip.write_text(POINTER)
    return root


@pytest.mark.parametrize("n_pointers", [3, 1])
def test_pointers_of_git_lfs_are_one_error_that_says_git_lfs_pull(tmp_path: Path, n_pointers: int) -> None:
    root = crema_d(tmp_path, n_pointers)
    output = medusa("prepare", "crema-d", "--root", root, "-o", tmp_path / "m.csv", exit_code=2).stderr
    assert f"{n_pointers} of 3 files" in " ".join(output.split())
    assert "git lfs pull" in " ".join(output.split())
    assert not (tmp_path / "m.csv").exists()


def test_pointers_are_found_by_every_kind_of_reader(tmp_path: Path) -> None:
    for file in ("sad/a.wav", "happy/b.wav"):
        write_wav(tmp_path / "f" / file).write_text(POINTER)
    rows = [("a", "f/sad/a.wav", "sad"), ("b", "f/happy/b.wav", "happy")]
    table = write_csv(tmp_path / "t.csv", ("utterance_id", "path", "label"), rows)
    for reader in (lambda: CORPORA["audiofolder"](tmp_path / "f"), lambda: read_table(table)):
        with pytest.raises(ManifestError, match="git lfs pull"):
            reader()
    assert len(read_table(table, check_audio=False)) == 2


def test_a_suffix_of_which_no_file_decodes_is_refused_and_a_single_bad_file_is_noted(tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / "sad").mkdir(exist_ok=True)
        (tmp_path / f"sad/{i}.mp3").write_bytes(b"no audio " * 300)
        write_wav(tmp_path / f"happy/{i}.wav")
    with pytest.raises(ManifestError, match=r" 5 \.mp3 files.* 8"):
        CORPORA["audiofolder"](tmp_path)
    assert len(CORPORA["audiofolder"](tmp_path, check_audio=False)) == 16
    for i in range(8):
        (tmp_path / f"sad/{i}.mp3").unlink()
        write_wav(tmp_path / f"sad/{i}.wav")
    (tmp_path / "sad/7.wav").write_bytes(b"no audio " * 300)
    (note,) = CORPORA["audiofolder"](tmp_path).notes
    assert "of 5 .wav files tried" in note
    assert "sad/7.wav" in note


def test_notes_on_unreadable_headers_are_grouped_by_reason(tmp_path: Path) -> None:
    for i in range(4):
        path = write_wav(tmp_path / f"wav/03a01F{'abcd'[i]}.wav")
        if i < 2:
            path.write_bytes(b"no audio " * 300)
        elif i == 2:
            path.write_bytes(b"")
    notes = [note for note in read_emodb(tmp_path).notes if "duration" in note]
    assert len(notes) == 2
    assert notes[0].startswith("2 files without a known duration, such as")
    assert "03a01Fa.wav" in notes[0]
    assert "03a01Fc.wav" in notes[1]


def test_videos_beside_acted_corpora_are_no_clips_but_counted(tmp_path: Path) -> None:
    write_wav(tmp_path / "wav/03a01Fa.wav")
    (tmp_path / "video").mkdir()
    (tmp_path / "video/03a01Fa.avi").write_bytes(b"x")
    manifest = read_emodb(tmp_path)
    assert manifest.keys == ["03a01Fa"]
    assert any(".avi" in note for note in manifest.notes)
