"""EmoBox's balanced test sets across corpora are one manifest, in which nobody's clips are taken for another's."""

import json
from pathlib import Path

import pytest

from featurestore.corpora.emobox import read_emobox
from featurestore.errors import ManifestError
from tests.helpers.corpus_trees import write_wav


def listed(root: Path, corpus: str, records: list[dict[str, str]]) -> None:
    root.mkdir(exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    (root / f"{corpus}_selected_balenced.jsonl").write_text(text)


def test_the_lists_of_track_2_are_read_with_their_corpus_and_speakers(tmp_path: Path) -> None:
    root, audio = tmp_path / "track2", tmp_path / "audio"
    listed(root, "SAVEE", [{"wav_filename": f"{who}/sa09.wav", "label": "sad", "speaker": who} for who in ("JK", "DC")])
    listed(root, "RAVDESS", [{"wav_filename": "Actor_15/03-01-03.wav", "label": "happy", "speaker": "15"}])
    for name in ("savee/JK/sa09.wav", "savee/DC/sa09.wav", "ravdess/Actor_15/03-01-03.wav"):
        write_wav(audio / name)
    manifest = read_emobox(root, audio=audio)
    assert manifest.keys == ["ravdess:Actor_15/03-01-03", "savee:JK/sa09", "savee:DC/sa09"]
    assert manifest.labels == ["happy", "sad", "sad"]
    assert manifest.column("corpus").tolist() == ["ravdess", "savee", "savee"]
    assert manifest.column("speaker").tolist() == ["ravdess:15", "savee:JK", "savee:DC"]
    assert set(manifest.column("split")) == {"test"}
    assert all(manifest.audio_path(i).is_file() for i in range(3))


def test_a_list_of_other_fields_is_named_with_its_line(tmp_path: Path) -> None:
    listed(tmp_path / "track2", "MELD", [{"wav_filename": "a.wav", "label": "sad"}])
    with pytest.raises(ManifestError, match=r"MELD_selected_balenced\.jsonl:1.*'speaker'"):
        read_emobox(tmp_path / "track2", check_audio=False)
