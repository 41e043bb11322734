"""The measure of alignment: a row for each window, compared with the network whose rows see all, and a table."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.alignment import markdown, measure
from deepser.networks.timing import COLUMNS
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore
from tests.helpers.synthetic_corpus import corpus

TINY = {"d": 16, "n-heads": 2, "epochs": 2, "stride": 1}


@pytest.mark.slow
def test_every_window_is_scored_over_all_folds_and_compared_with_none(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path, n=36, attributes=False)
    manifest = manifest.rows(np.flatnonzero(np.arange(36) % 10 != 0))
    rng = np.random.default_rng(0)
    of_text = FeatureSpec("text", "bert", "none", ("layer_00",), 5, source="transcripts:x")
    of_times = FeatureSpec("text", "bert-times", "none", ("layer_00",), 2, source="transcripts:x", columns=COLUMNS)
    with store.writer("words", of_text) as words, store.writer("words-times", of_times) as times:
        for key in manifest.keys:
            n = int(rng.integers(1, 5))
            words.append(key, rng.standard_normal((1, n, 5)).astype(np.float32))
            times.append(key, np.sort(rng.uniform(0, 0.3, (1, n, 2)), -1).astype(np.float32))
    store = FeatureStore.open(tmp_path / "store")
    (tmp_path / "runs").mkdir()
    requested = (store, manifest, "first@1+2", "words", (0.0, 0.05), (1,), tmp_path / "runs", TINY)
    without_window, with_window = measure(*requested)
    assert without_window["window_s"] == 0
    assert with_window["window_s"] == 0.05
    assert "p" not in without_window
    assert with_window["difference"] == pytest.approx(
        np.mean(with_window["by_seed"]) - np.mean(without_window["by_seed"])
    )
    posteriors = FeatureStore.open(tmp_path / "runs" / "store")
    all_seen, few_seen = (
        np.asarray(posteriors[f"posteriors/window{window}_s1"].gather(manifest.keys, "posteriors").values)
        for window in ("0", "0.05")
    )
    assert np.abs(all_seen - few_seen).max() > 1e-3
    repeated = measure(*requested)  # finished members are not fitted again
    assert [row["by_seed"] for row in repeated] == [without_window["by_seed"], with_window["by_seed"]]
    result = {
        "corpus": "made",
        "utterances": len(manifest),
        "speech": "first",
        "text": "words",
        "rows": [without_window, with_window],
    }
    assert f"{with_window['difference']:+.1f}" in markdown(result)
