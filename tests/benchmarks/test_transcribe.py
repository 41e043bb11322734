"""`bench transcribe` compares every way on the same clips, and says how many texts differ."""

import json
from pathlib import Path

import pytest

from benchmarks.transcribe import TranscribeSettings
from featurestore.errors import ConfigError
from tests.helpers.small_corpus import medusa
from tests.helpers.small_whisper import save_whisper


def test_the_table_has_rates_and_differing_texts(tmp_path: Path) -> None:
    model = save_whisper(tmp_path / "mini.pt", multilingual=False)
    call = ["bench", "transcribe", "--models", model, "--clips", "3", "--batches", "1,3", "--device", "cpu"]
    output = medusa(*call, "--json", tmp_path / "t.json").stdout
    for name in ("whisper.transcribe", "batch 1", "batch 3", "0 (0.0 %)", "utterances/s"):
        assert name in output
    record = json.loads((tmp_path / "t.json").read_text())
    assert [each["way"] for each in record["results"]] == ["whisper.transcribe", "batch 1", "batch 3"]
    assert all(each["n_differing"] == 0 and each["seconds"] > 0 for each in record["results"])
    assert record["n_clips"] == 3


def test_settings_that_measure_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="of 1 or more"):
        TranscribeSettings(batches=())
    assert "comma-separated" in medusa("bench", "transcribe", "--batches", "x", exit_code=2).stderr
