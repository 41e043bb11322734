"""`bench meta` trains the same weights three ways, and says how long each took."""

import json
from pathlib import Path

import pytest

from benchmarks.meta import ALONE, AT_ONCE, PLAIN, SAME, MetaSettings, meta_table, run_meta
from featurestore.errors import ConfigError


@pytest.mark.parametrize("n_attributes", [0, 2])
def test_three_ways_learn_the_same(tmp_path: Path, n_attributes: int) -> None:
    settings = MetaSettings(400, 3, 4, n_attributes, n_seeds=2, rounds=1)
    result = run_meta(settings, json_path=tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text()) == result
    actual = [(figure["way"], figure["select"]) for figure in result["figures"]]
    assert actual == [
        *((PLAIN, "last"), (ALONE, "last"), (AT_ONCE, "last")),
        *((ALONE, "macro_f1"), (AT_ONCE, "macro_f1")),
    ]
    assert 0 < result["difference"] < SAME
    assert all(figure["wall_s"] > 0 for figure in result["figures"])
    assert meta_table(result).row_count == 5


def test_sizes_that_can_not_be_made_up_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"n_members.*1.*found 0"):
        MetaSettings(n_members=0)
    with pytest.raises(ConfigError, match="2 to 8 classes"):
        MetaSettings(n_classes=9)
