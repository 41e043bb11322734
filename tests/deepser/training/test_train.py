"""How a run goes: accumulation, averaging, early stopping, changing rules; stopped anywhere, it ends the same."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from deepser.config import LossConfig, MemberConfig, StageConfig, TrainConfig
from deepser.members.folds import FoldPlan
from deepser.members.member import Member
from deepser.training.averaging import MovingAverage
from featurestore.corpus.manifest import Manifest
from featurestore.errors import ConfigError
from featurestore.store.feature_store import FeatureStore
from tests.helpers.fitting import fit_member
from tests.helpers.synthetic_corpus import corpus, member

ONE = StageConfig("one", "shuffled", 0.5, 2, 3e-3)


@pytest.fixture
def made(tmp_path: Path) -> tuple[FeatureStore, Manifest, FoldPlan]:
    """Return a corpus, two thirds of its speakers to learn from."""
    store, manifest = corpus(tmp_path)
    folds = np.array([0 if i % 9 < 6 else -1 for i in range(len(manifest))])
    return store, manifest, FoldPlan(("all",), folds, "test")


def weights(directory: Path) -> dict[str, np.ndarray]:
    return load_file(directory / "fold-all" / "model.safetensors")


def history(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "fold-all" / "metrics.jsonl").read_text().splitlines()]


def quiet(name: str, **train: object) -> MemberConfig:
    """Without dropout and MixUp: what is left is the data and its order."""
    config = member(name, **{"mixup_p": 0.0, **train})
    return replace(config, network=replace(config.network, dropout=0.0))


def test_accumulation_is_the_same_step_in_parts(made: Any, tmp_path: Path) -> None:
    store, manifest, plan = made
    only_classes = replace(ONE, loss=LossConfig(attribute_weight=0.0))
    for name, parts in (("whole", 1), ("parts", 3), ("single", 100)):
        fit_member(store, manifest, quiet(name, stages=(only_classes,), accumulate=parts), plan, tmp_path / name)
    judged = list(store["posteriors/whole"])
    expected = np.stack([store["posteriors/whole"].array(key, "posteriors")[0] for key in judged])
    for name_of_parts in ("parts", "single"):
        losses = [[row["loss"] for row in history(tmp_path / name)] for name in ("whole", name_of_parts)]
        np.testing.assert_allclose(*losses, rtol=1e-4)
        # Not the weights: Adam makes a step of a gradient that is zero but for rounding (that of the keys' biases).
        predicted = np.stack([store[f"posteriors/{name_of_parts}"].array(key, "posteriors")[0] for key in judged])
        np.testing.assert_allclose(predicted, expected, atol=1e-3)


def test_the_moving_average_follows_its_formula_and_gives_the_weights_back() -> None:
    network = nn.Linear(2, 1)
    start = network.weight.detach().clone()
    average = MovingAverage(network, 0.9)
    expected = start.clone()
    for step in range(5):
        with torch.no_grad():
            network.weight += step
        average.update()
        expected = 0.9 * expected + 0.1 * network.weight.detach()
    torch.testing.assert_close(average.mean["weight"], expected)
    last = network.weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(network.weight.detach(), expected)
    assert (network.weight == last).all()
    average.settle()
    torch.testing.assert_close(network.weight.detach(), expected)
    assert MovingAverage(network, 0.0).mean == {}


def test_averaged_weights_are_the_ones_kept(made: Any, tmp_path: Path) -> None:
    store, manifest, plan = made
    fit_member(store, manifest, quiet("last", stages=(ONE,)), plan, tmp_path / "last")
    fit_member(store, manifest, quiet("mean", stages=(ONE,), ema_decay=0.9), plan, tmp_path / "mean")
    fit_member(store, manifest, quiet("tiny", stages=(ONE,), ema_decay=1e-9), plan, tmp_path / "tiny")
    last, mean, tiny = (weights(tmp_path / name) for name in ("last", "mean", "tiny"))
    assert any((last[key] != mean[key]).any() for key in last)
    for key in last:
        np.testing.assert_allclose(tiny[key], last[key], atol=1e-5)


def test_a_stage_ends_when_its_score_no_longer_rises(made: Any, tmp_path: Path) -> None:
    store, manifest, plan = made
    still = replace(ONE, epochs=30, lr=1e-12, patience=2)
    config = member("m", stages=(still, replace(ONE, name="two")), select="accuracy", dev_fraction=0.3)
    fit_member(store, manifest, config, plan, tmp_path / "m")
    rows = history(tmp_path / "m")
    assert [row["stage"] for row in rows] == ["one"] * 3 + ["two"] * 2
    assert all("dev_accuracy" in row for row in rows)


def test_a_stage_with_a_rule_of_its_own_starts_from_the_best_and_may_keep_it(made: Any, tmp_path: Path) -> None:
    store, manifest, plan = made
    first = replace(ONE, select="macro_f1")
    ruin = replace(ONE, name="two", lr=0.3, select="mean_ccc", loss=LossConfig(classification_weight=0.0))
    settings = {"select": "macro_f1", "dev_fraction": 0.3, "grad_clip": 0.0}
    fit_member(store, manifest, quiet("one", stages=(first,), **settings), plan, tmp_path / "one")
    fit_member(store, manifest, quiet("both", stages=(first, ruin), **settings), plan, tmp_path / "both")
    rows = history(tmp_path / "both")
    assert [("dev_macro_f1" in row, "dev_mean_ccc" in row) for row in rows] == [(True, False)] * 2 + [(False, True)] * 2
    for key, value in weights(tmp_path / "one").items():
        np.testing.assert_array_equal(weights(tmp_path / "both")[key], value)


def test_a_stage_of_another_loss_is_not_compared_with_the_figures_of_the_one_before(made: Any, tmp_path: Path) -> None:
    store, manifest, plan = made
    light = LossConfig(classification_weight=1e-3, attribute_weight=0.0)
    first = replace(ONE, epochs=1, lr=1e-12, loss=light)
    second = replace(ONE, name="two", loss=replace(light, classification_weight=1.5))
    settings = {"select": "loss", "dev_fraction": 0.3}
    fit_member(store, manifest, quiet("one", stages=(first,), **settings), plan, tmp_path / "one")
    fit_member(store, manifest, quiet("both", stages=(first, second), **settings), plan, tmp_path / "both")
    scores = [row["dev_loss"] for row in history(tmp_path / "both")]
    assert scores[1] < scores[0], "the second stage's figures are larger"
    start, kept = weights(tmp_path / "one"), weights(tmp_path / "both")
    assert not all(np.array_equal(kept[key], value) for key, value in start.items())


def everything(name: str) -> MemberConfig:
    """Return a run that uses every part of a run's state."""
    stages = (
        StageConfig("a", "inverse-frequency", 0.5, 2, 3e-3, samples_per_epoch=40, select="last"),
        StageConfig("b", "shuffled", 0.0, 6, 3e-3, 0.5, "exponential", 1e-4, LossConfig("focal", "ccc"), 30,
                    patience=2),
        StageConfig("c", "balanced", 0.0, 2, 1e-3, 0.5, "cosine", 1e-5, LossConfig(attributes="gaussian-mse"),
                    select="mean_ccc"),
    )  # fmt: skip
    config = member(
        name, stages=stages, select="macro_f1", dev_fraction=0.3, ema_decay=0.8, accumulate=2, targets="vote-dropping"
    )
    return replace(config, network=replace(config.network, kind="cross-attention", pooling="asp"))


class Stopped(Exception):
    pass


def test_stopped_anywhere_every_part_of_the_state_goes_on(made: Any, tmp_path: Path) -> None:
    store, manifest, plan = made
    fit_member(store, manifest, everything("whole"), plan, tmp_path / "whole")
    steps = 0
    for allowed in (7, 12, 13, 21, 17, 30, 10_000):
        n_left = allowed

        def stop(*_: object) -> None:
            nonlocal n_left, steps
            n_left, steps = n_left - 1, steps + 1
            if not n_left:
                raise Stopped

        try:
            fit_member(store, manifest, everything("k"), plan, tmp_path / "k", progress=stop)
        except Stopped:
            assert allowed < 10_000
    assert (tmp_path / "k" / "fold-all" / "model.safetensors").exists()
    undisturbed, resumed = weights(tmp_path / "whole"), weights(tmp_path / "k")
    assert undisturbed.keys() == resumed.keys()
    for key, value in undisturbed.items():
        np.testing.assert_array_equal(resumed[key], value, err_msg=key)
    values = [
        {k: v for k, v in row.items() if k not in ("seconds", "waiting_share")} for row in history(tmp_path / "k")
    ]
    assert values == [
        {k: v for k, v in row.items() if k not in ("seconds", "waiting_share")} for row in history(tmp_path / "whole")
    ]


def test_clips_without_consensus_can_be_left_out(made: Any, tmp_path: Path) -> None:
    store, manifest, plan = made
    steps: dict[str, int] = {}
    for name, drop in (("all", False), ("consensus", True)):

        def count(fold: str, done: int, total: int, what: str, name: str = name) -> None:
            steps[name] = total

        config = member(name, stages=(replace(ONE, epochs=1),), batch_size=1, drop_no_consensus=drop)
        fit_member(store, manifest, config, plan, tmp_path / name, progress=count)
    n_open = sum(i % 10 == 0 and i % 9 < 6 for i in range(len(manifest)))
    assert steps["all"] - steps["consensus"] == n_open > 0


def test_attributes_must_be_in_the_corpus(tmp_path: Path) -> None:
    store, manifest = corpus(tmp_path, attributes=False)
    plan = FoldPlan(("all",), np.zeros(len(manifest), int), "test")
    attributes_only = replace(ONE, loss=LossConfig(classification_weight=0.0))
    with pytest.raises(ConfigError, match=r"one .*attr_<attribute>"):
        fit_member(store, manifest, member("m", stages=(attributes_only,)), plan, tmp_path / "m")
    with pytest.raises(ConfigError, match=r"attribute.*none"):
        fit_member(store, manifest, member("m", select="ccc:valence"), plan, tmp_path / "m")


def test_wrong_settings_are_named() -> None:
    for settings, expected in (
        ({"select": "best"}, "macro_f1"),
        ({"targets": "hard"}, "vote-dropping"),
        ({"accumulate": 0}, "accumulate must be above zero"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"select_on": "some"}, "balanced, all"),
        ({"grad_clip": -1.0}, "grad_clip"),
    ):
        with pytest.raises(ConfigError, match=expected):
            TrainConfig(**settings)  # type: ignore[arg-type]
    for loss, expected in (
        ({"classes": "hinge"}, "cross-entropy, focal"),
        ({"attributes": "mae"}, "gaussian-mse"),
        ({"classification_weight": 0.0, "attribute_weight": 0.0}, "weight above zero"),
    ):
        with pytest.raises(ConfigError, match=expected):
            LossConfig(**loss)  # type: ignore[arg-type]
    assert TrainConfig(select="ccc:valence").rule(ONE) == "ccc:valence"
    assert TrainConfig(dev_fraction=0.0).rule(ONE) == "last"


def test_a_member_fitted_before_new_settings_came_is_continued(made: Any, tmp_path: Path) -> None:
    store, manifest, plan = made
    config = member("m", stages=(replace(ONE, epochs=1),))
    fit_member(store, manifest, config, plan, tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    saved = json.loads(path.read_text())
    for name in ("kind", "pooling", "pool_dim", "lstm_dim"):
        del saved["member"]["network"][name]
    for stage in saved["member"]["train"]["stages"]:
        del stage["loss"]
    saved["member"]["train"] |= {"classification_weight": 1.5, "attribute_weight": 0.4}
    path.write_text(json.dumps(saved))
    steps: list[object] = []
    fit_member(store, manifest, config, plan, tmp_path / "m", progress=lambda *a: steps.append(a))
    assert not steps
    assert Member.load(tmp_path / "m").config == config
