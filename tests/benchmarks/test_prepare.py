"""`bench prepare` prepares what it wrote in every form of the votes, says so in numbers, and cleans up."""

import json
from pathlib import Path

import pytest

from benchmarks.prepare import FORMS, PrepareSettings, prepare_table, run_prepare
from featurestore.errors import ConfigError


@pytest.mark.parametrize(
    "form", [pytest.param(form, marks=() if form == "2.0" else pytest.mark.slow) for form in FORMS]
)
def test_every_form_is_prepared_whole(tmp_path: Path, form: str) -> None:
    settings = PrepareSettings(300, 1500, form, transcripts=form == "2.0")
    result = run_prepare(settings, directory=tmp_path, json_path=tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text()) == result
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]
    for expected in result["results"].values():
        assert expected["n_ratings"] == 1500
        assert len(expected["seconds"]) == len(result["steps"])
        assert expected["peak_rss_bytes"] > 10e6
    assert prepare_table(result).row_count == 2


def test_sizes_that_make_no_corpus_are_refused() -> None:
    with pytest.raises(ConfigError, match="as many ratings: 10, 9"):
        PrepareSettings(10, 9)
    with pytest.raises(ConfigError, match=r"1\.6, 1\.11, 2\.0, found '3'"):
        PrepareSettings(form="3")
