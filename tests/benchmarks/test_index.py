"""The index benchmark opens what it wrote, and says what it can't do."""

from pathlib import Path

import pytest

from benchmarks.index import index_table, run_index
from featurestore.errors import ConfigError


@pytest.mark.slow
def test_a_small_run_measures_every_figure(tmp_path: Path) -> None:
    result = run_index(tmp_path, n_utterances=500, segment_utterances=200, repeats=1, json_path=tmp_path / "i.json")
    assert (result["utterances"], result["segments"]) == (500, 3)
    assert all(result[name] > 0 for name in ("open_s", "lookup_s", "lookup_again_s", "gather_s", "rss_mb"))
    assert all(result[f"{what}_s"] > 0 for what in ("missing", "ls", "verify", "compact", "compacted_len"))
    assert index_table(result).row_count == 12
    assert [path.name for path in tmp_path.iterdir()] == ["i.json"]


def test_impossible_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="32 utterances"):
        run_index(tmp_path, n_utterances=5)
    with pytest.raises(ConfigError, match="GB in"):
        run_index(tmp_path, n_utterances=10**13)
