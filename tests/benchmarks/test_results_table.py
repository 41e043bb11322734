"""The results page: scores with intervals of what is in the stores, adapted systems named so, published ones beside."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score

from benchmarks.results_table import markdown, published, rows_of
from deepser.members.posteriors import ADAPTED
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.format.spec import FeatureSpec
from featurestore.store.feature_store import FeatureStore

CLASSES = ("angry", "calm", "sad")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run of the corpus "ravdess".

    60 utterances of six speakers, posteriors of a plain and of an adapted system.
    """
    directory, rng = tmp_path / "ravdess", np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    frame = pd.DataFrame({"utterance_id": [f"u{i}" for i in range(60)], "label": [CLASSES[c] for c in labels]})
    frame["path"] = [f"{i}.wav" for i in range(60)]
    frame["speaker"], frame["fold"] = [f"s{i % 6}" for i in range(60)], [str(i % 3) for i in range(60)]
    Manifest.from_pandas(frame).write(directory / "corpus.csv")
    store = FeatureStore.create(directory / "store")
    for name, extra in (("plain", ()), ("own", (ADAPTED,))):
        spec = FeatureSpec(
            "posteriors", name, name, ("posteriors",), 3, dtype="float32", columns=CLASSES,
            extra=(("oof", "fold"), ("folds", "cv:fold"), *extra),
        )  # fmt: skip
        with store.writer(f"posteriors/{name}", spec) as writer:
            for i in range(60):
                row = rng.dirichlet(np.ones(3)) + 0.4 * np.eye(3)[labels[i]]
                writer.append(f"u{i}", {"posteriors": (row / row.sum())[None].astype(np.float32)})
    return directory


def test_a_row_holds_the_scores_of_all_utterances_in_per_cent_with_their_intervals(run: Path) -> None:
    rows = {row["system"]: row for row in rows_of(run, None, 50)}
    store, frame = FeatureStore.open(run / "store"), pd.read_csv(run / "corpus.csv")
    predicted = [CLASSES[store["posteriors/plain"][key][0].argmax()] for key in frame["utterance_id"]]
    assert rows["plain"]["UA"] == pytest.approx(100 * recall_score(frame["label"], predicted, average="macro"))
    low, high = rows["plain"]["intervals"]["UA"]
    assert low <= rows["plain"]["UA"] <= high
    assert rows["plain"]["speakers"] == 6
    assert not rows["plain"]["speaker_adapted"]
    assert rows["own"]["speaker_adapted"]


def test_the_table_names_adapted_systems_and_stands_beside_what_was_published(run: Path) -> None:
    rows = [*rows_of(run, ["own", "plain"], 50), *published(["ravdess"])]
    table = markdown(rows)
    assert "| own, **speaker-adapted** |" in table
    assert "| plain |" in table
    assert "| ravdess | EmoBox: HuBERT-base | 65.4 | - | - |" in table
    assert "URDU" in markdown([{**row, "corpus": "urdu"} for row in rows])


def test_a_system_that_is_in_no_store_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"'none'.*own, plain"):
        list(rows_of(run, ["none"], 0))
