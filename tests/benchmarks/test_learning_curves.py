"""Learning curves: which clips a fold's models learn from, and that nothing of the judged fold takes part."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning_curves import (
    ABLATIONS,
    ALL,
    SHAPES,
    SYSTEMS,
    Corpus,
    main_share,
    markdown,
    measured,
    plot,
    run,
    training_clips,
)
from featurestore.errors import ConfigError
from tests.helpers.synthetic_corpus import corpus

FEATURES = ["first@1+2", "second@2"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    store, manifest = corpus(tmp_path_factory.mktemp("curves"), 180, attributes=False)
    result = Corpus.of(store, manifest)
    assert 0 < len(result.labels) < len(manifest)  # every tenth has no consensus
    return result


@pytest.mark.parametrize("training", ["20", "60", ALL, *SHAPES])
def test_training_clips_are_of_other_folds_each_once_and_the_same_again(small: Corpus, training: str) -> None:
    for fold in range(3):
        result = training_clips(small, training, fold)
        assert (small.folds[result] != fold).all()
        assert len(np.unique(result)) == len(result) == (int(training) if training.isdecimal() else len(result))
        assert (result == training_clips(small, training, fold)).all()


def test_a_larger_size_holds_the_smaller_ones(small: Corpus) -> None:
    assert set(training_clips(small, "20", 0)) < set(training_clips(small, "60", 0))


def test_shapes_have_few_unequal_and_confounded_speakers(small: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.learning_curves.N_SHAPED", 40)
    few, unequal, confounded = (training_clips(small, name, 0) for name in SHAPES)
    assert len(few) == len(unequal) == len(confounded) == 40
    assert len(np.unique(small.speakers[few])) < len(np.unique(small.speakers[training_clips(small, ALL, 0)]))
    counts = np.sort(np.unique(small.speakers[unequal], return_counts=True)[1])
    assert counts[-1] >= 2 * counts[0]
    assert main_share(small, confounded) > main_share(small, training_clips(small, "40", 0)) + 0.1


def test_training_clips_of_another_name_are_refused(small: Corpus) -> None:
    with pytest.raises(ConfigError, match="'half'"):
        training_clips(small, "half", 0)


def test_labels_of_the_judged_fold_change_none_of_its_predictions(small: Corpus) -> None:
    from benchmarks.learning_curves import outputs

    manifest = small.manifest.to_pandas()
    judged, train = np.flatnonzero(small.folds == 1), training_clips(small, "20", 1)
    votes = [name for name in manifest if name.startswith("vote_")]
    manifest.loc[judged, votes] = np.roll(manifest.loc[judged, votes].to_numpy(), 1, axis=1)
    shuffled = replace(small, manifest=type(small.manifest).from_pandas(manifest, scheme=small.manifest.scheme))
    systems = {"probe": SYSTEMS["probe"], "small": ABLATIONS["10-epochs"]}
    first, second = (outputs(each, systems, FEATURES, train, judged) for each in (small, shuffled))
    for name in systems:
        assert (first[name][0] == second[name][0]).all()


def test_a_run_is_written_and_goes_on_with_what_it_lacks(
    small: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "curves.json"
    run(small, FEATURES, path, ["probe"])
    rows = json.loads(path.read_text())
    assert [row["training"] for row in rows] == ["100", *SHAPES, ALL]
    assert all(row["low"] <= row["uar"] <= row["high"] for row in rows)
    assert rows[-1]["uar"] > 80
    monkeypatch.setattr("benchmarks.learning_curves.outputs", None)
    run(small, FEATURES, path, ["probe"])
    assert json.loads(path.read_text()) == rows
    assert f"{rows[0]['uar']:.1f}" in markdown(rows)
    plot(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_networks_learn_the_small_corpus(small: Corpus) -> None:
    (row,) = measured(small, {"10-epochs": ABLATIONS["10-epochs"]}, FEATURES, ALL)
    assert row["uar"] > 60
    assert row["clips"] == pytest.approx(2 / 3 * len(small.labels))
