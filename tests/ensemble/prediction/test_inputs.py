import pytest

from ensemble.prediction.inputs import files_manifest
from featurestore.errors import ConfigError


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
