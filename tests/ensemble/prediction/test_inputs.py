import pyarrow as pa
import pytest

from ensemble.prediction.inputs import files_manifest, learned_note
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from tests.helpers.messages import mentions


def test_a_manifest_of_files_has_their_names_as_keys_and_one_text() -> None:
    manifest = files_manifest(["a.wav", "b.wav", "a.wav"], "hello")
    assert manifest.keys == ["a.wav", "b.wav"]
    assert manifest.texts == ["hello", "hello"]
    with pytest.raises(ConfigError, match="not UTF-8"):
        files_manifest(["bad\udcff.wav"])


def test_a_name_that_is_not_utf8_is_left_out_and_named_and_the_rest_of_the_list_stays() -> None:
    manifest = files_manifest(["a.wav", "bad\udcff.wav", "b.wav"])
    assert manifest.keys == ["a.wav", "b.wav"]
    (note,) = manifest.notes
    assert "bad" in note
    assert "not UTF-8" in note


def test_no_file_at_all_is_an_error() -> None:
    with pytest.raises(ConfigError, match="No file to predict"):
        files_manifest([])


def test_utterances_of_the_parts_that_a_model_learned_from_are_counted() -> None:
    columns = {"utterance_id": list("abcd"), "label": ["sad", "sad", "glad", None], "fold": ["1", "2", "2", "1"]}
    columns |= {"path": [f"{key}.wav" for key in "abcd"], "split": ["train", "test1", "train", "train"]}
    manifest = Manifest(pa.table(columns))
    assert mentions(learned_note(manifest, ["split, 5 speaker-disjoint folds"]), 2, 4, "split", "medusa evaluate")
    assert mentions(learned_note(manifest, ["cv:fold", "split"]), 3, 4, "fold", "split")
    assert learned_note(manifest, ["cv:session", ""]) == ""
    assert learned_note(manifest.rows(manifest.column("split") == "test1"), ["split"]) == ""
    assert learned_note(files_manifest(["a.wav"]), ["split"]) == ""
