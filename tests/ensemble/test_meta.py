"""The meta-classifier: all seeds at once as each alone, true gradients, better than the soft vote where it can be."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from deepser.metrics import ccc, classification
from deepser.targets import Targets
from ensemble.align import Aligned, AlignmentError
from ensemble.config import MetaConfig
from ensemble.meta import MetaClassifier, prepare, to_scale
from ensemble.meta_training import _Rows, fit_meta, gradient, macro_f1, starting_point
from ensemble.scoring import Problem
from ensemble.votes import soft_vote
from featurestore.errors import ConfigError, ManifestError

SHORT = MetaConfig(rounds=4, seeds=(0, 1, 2), select="last")


def fitted(corpus, config: MetaConfig = SHORT, held_out: np.ndarray | None = None) -> MetaClassifier:
    return fit_meta(corpus.aligned(), Targets.from_manifest(corpus.manifest), config, held_out)


@pytest.mark.parametrize("start", ["soft_vote", "random"])
@pytest.mark.parametrize("select", ["last", "macro_f1"])
def test_seeds_trained_at_once_have_the_weights_of_each_alone(corpus, start: str, select: str) -> None:
    config = dataclasses.replace(SHORT, start=start, select=select, patience=1)
    held_out = np.arange(600) % 10 == 0 if select == "macro_f1" else None
    together = fitted(corpus, config, held_out)
    for s, seed in enumerate(config.seeds):
        alone = fitted(corpus, dataclasses.replace(config, seeds=(seed,)), held_out)
        # Weights are of size 1 to 10, so this is float32 rounding: a batched product adds in another order.
        assert torch.allclose(together.weight[s], alone.weight[0], atol=1e-4, rtol=0)
        assert torch.allclose(together.bias[s], alone.bias[0], atol=1e-4, rtol=0)
    assert not torch.equal(together.weight[0], together.weight[1])


def test_the_same_seeds_give_the_same_bits(corpus) -> None:
    assert torch.equal(fitted(corpus).weight, fitted(corpus).weight)


def test_the_gradient_is_autograds(corpus) -> None:
    rng = np.random.default_rng(0)
    attributes = torch.tensor(rng.uniform(1, 7, (40, 2)), dtype=torch.float64)
    attributes[rng.random((40, 2)) < 0.4] = torch.nan
    soft = torch.tensor(rng.dirichlet(np.ones(3), 40))
    soft[:5] = 0  # utterances with attributes but without any vote
    ranges = ((1.0, 7.0), (0.0, 1.0))
    rows = _Rows(torch.tensor(rng.normal(size=(40, 11))), soft, attributes, ranges)
    batch = torch.tensor(rng.integers(0, 40, (2, 16)))
    weight = torch.tensor(rng.normal(size=(2, 11, 5)), requires_grad=True)
    config = MetaConfig()
    for s in range(2):
        x, y, a = rows.x[batch[s]], soft[batch[s]], attributes[batch[s]]
        outputs = x @ weight[s]
        entropy = -(y * outputs[:, :3].log_softmax(1)).sum(1).mean()
        errors = [
            (to_scale(outputs[i, 3:], ranges)[j] - a[i, j]) ** 2
            for i in range(16)
            for j in range(2)
            if a[i, j] == a[i, j]
        ]
        (1.5 * entropy + 0.4 * torch.stack(errors).mean()).backward()
    assert torch.allclose(weight.grad, gradient(rows, batch, weight.detach(), config))


def test_training_starts_at_the_soft_vote(corpus) -> None:
    aligned, targets = corpus.aligned(), Targets.from_manifest(corpus.manifest)
    x = prepare(aligned.values, 4, targets.attribute_ranges)
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    rows = _Rows(
        x, torch.from_numpy(targets.soft), torch.from_numpy(targets.attribute_values), targets.attribute_ranges
    )
    outputs = x @ starting_point(rows, targets.labels, MetaConfig(), len(aligned.members))
    assert np.array_equal(outputs[:, :4].argmax(1).numpy(), soft_vote(aligned.values[..., :4]).argmax(1))
    mean = aligned.values[..., 4].mean(0)
    middle = np.abs(mean - 4) < 1
    assert np.allclose(
        to_scale(outputs[:, 4:], targets.attribute_ranges)[:, 0].numpy()[middle], mean[middle], atol=0.05
    )


@pytest.mark.parametrize("inputs", ["posteriors", "logits"])
def test_meta_beats_the_soft_vote_where_members_know_different_classes(make_corpus, inputs: str) -> None:
    corpus = make_corpus(1500, 5, seed=3)
    aligned, targets = corpus.aligned(), Targets.from_manifest(corpus.manifest)
    if inputs == "logits":
        aligned.values[..., :4] = corpus.logits
    train = np.arange(1500) < 1000
    problem = Problem(aligned, aligned, targets, np.array(targets.keys))
    soup = fit_meta(aligned.rows(train), problem.rows(train).targets, MetaConfig(inputs=inputs, select="last")).soup()
    predicted, test = soup.predict(aligned.rows(~train)), problem.rows(~train).targets
    vote = soft_vote(corpus.posteriors[:, ~train])
    scores = [classification(p, test.labels, targets.classes).macro_f1 for p in (predicted.probabilities, vote[:, :4])]
    assert scores[0] > scores[1] + 0.02
    # The last member's arousal is ten times as noisy as the first's: the map learns whom to trust.
    assert (
        ccc(predicted.attributes[:, 0], test.attribute_values[:, 0])
        > ccc(vote[:, 4], test.attribute_values[:, 0]) + 0.05
    )


def test_the_soup_is_the_mean_of_the_weights_and_of_one_is_itself(corpus) -> None:
    meta = fitted(corpus)
    assert torch.allclose(meta.soup().weight[0], sum(meta.weight) / 3)
    assert torch.equal(meta.soup().soup().weight, meta.soup().weight)
    same = dataclasses.replace(meta, weight=meta.weight[:1].expand(3, -1, -1), bias=meta.bias[:1].expand(3, -1))
    assert torch.allclose(same.soup().weight, meta.weight[:1], rtol=1e-6)


def test_predictions_do_not_depend_on_the_order_or_company_of_utterances(corpus) -> None:
    meta, aligned = fitted(corpus).soup(), corpus.aligned()
    order = np.random.default_rng(0).permutation(600)[:77]
    assert np.allclose(
        meta.predict(aligned).probabilities[order], meta.predict(aligned.rows(order)).probabilities, atol=1e-6
    )
    p = meta.predict(aligned)
    assert np.allclose(p.probabilities.sum(1), 1, atol=1e-5)
    assert (p.attributes >= 1).all()
    assert (p.attributes <= 7).all()
    assert (p.logits < 0).any()  # no ReLU at the end, as the released code had


def test_the_order_of_members_does_not_matter(corpus) -> None:
    aligned = corpus.aligned()
    back = dataclasses.replace(aligned, members=aligned.members[::-1], values=aligned.values[::-1])
    config = dataclasses.replace(SHORT, start_std=1e-6, rounds=20)
    targets = Targets.from_manifest(corpus.manifest)
    forth = fit_meta(aligned, targets, config).soup().predict(aligned)
    again = fit_meta(back, targets, config).soup().predict(back)
    assert np.allclose(forth.probabilities, again.probabilities, atol=1e-3)


def test_it_refuses_other_members_columns_or_utterances(corpus) -> None:
    meta, aligned, targets = fitted(corpus), corpus.aligned(), Targets.from_manifest(corpus.manifest)
    with pytest.raises(AlignmentError, match="reads members posteriors/m0"):
        meta.predict(dataclasses.replace(aligned, members=aligned.members[::-1]))
    with pytest.raises(AlignmentError, match="different utterances or orders"):
        fit_meta(aligned.rows(np.arange(600)[::-1]), targets, SHORT)
    with pytest.raises(AlignmentError, match="columns"):
        fit_meta(dataclasses.replace(aligned, columns=("a", "b", "c", "d", "e")), targets, SHORT)


def test_it_works_without_attributes_and_with_votes_alone(corpus) -> None:
    aligned, targets = corpus.aligned(), Targets.from_manifest(corpus.manifest)
    bare = Aligned(aligned.members, aligned.keys, aligned.columns[:4], aligned.values[..., :4], aligned.out_of_fold)
    labels = np.where(np.arange(600) % 3 == 0, -1, targets.labels)
    only = dataclasses.replace(
        targets, attributes=(), attribute_ranges=(), attribute_values=np.zeros((600, 0), np.float32), labels=labels
    )
    p = fit_meta(bare, only, SHORT).soup().predict(bare)
    assert p.attributes.shape == (600, 0)
    assert classification(p.probabilities, targets.labels, targets.classes).accuracy > 0.6
    with pytest.raises(ManifestError, match="No training utterance has a label"):
        fit_meta(bare, dataclasses.replace(only, labels=labels * 0 - 1), SHORT)


def test_selection_keeps_the_best_round_of_each_seed_and_needs_rows_for_it(corpus) -> None:
    config = dataclasses.replace(SHORT, select="macro_f1", rounds=6, patience=2)
    with pytest.raises(ConfigError, match="held-out"):
        fitted(corpus, config)
    with pytest.raises(ConfigError, match="choose nothing"):
        fitted(corpus, SHORT, np.ones(600, bool))
    held_out = np.arange(600) % 5 == 0
    meta = fitted(corpus, config, held_out)
    scores = np.array([row["macro_f1"] for row in meta.history])
    rows = corpus.aligned().rows(held_out)
    truth = Targets.from_manifest(corpus.manifest).labels[held_out]
    assert scores.shape[1] == 3
    for s in range(3):  # the kept weights score what the history's best says, up to the balanced draws
        kept = f1_score(truth, meta.predict(rows, s).probabilities.argmax(1), average="macro")
        assert kept == pytest.approx(scores[:, s].max(), abs=0.05)


@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 30))
def test_the_batched_macro_f1_is_scikit_learns_over_the_classes_there_are(seed: int, n_classes: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, labels = rng.integers(0, n_classes, (2, 3, n)), rng.integers(0, n_classes, (1, 3, n))
    result = macro_f1(predicted, labels, n_classes)
    for s in range(2):
        for k in range(3):
            there = np.unique(labels[0, k])
            expected = f1_score(labels[0, k], predicted[s, k], labels=there, average="macro", zero_division=0)
            assert result[s, k] == pytest.approx(expected)


def test_it_is_saved_and_loaded_whole(corpus, tmp_path: Path) -> None:
    meta = fitted(corpus).soup()
    meta.save(tmp_path / "run")
    again = MetaClassifier.load(tmp_path / "run")
    assert again.config == meta.config
    assert (again.members, again.classes, again.attributes) == (meta.members, meta.classes, meta.attributes)
    p, q = meta.predict(corpus.aligned()), again.predict(corpus.aligned())
    assert np.array_equal(p.logits, q.logits)


def test_a_directory_that_holds_no_meta_classifier_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no meta-classifier"):
        MetaClassifier.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds no meta-classifier"):
        MetaClassifier.load(tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"inputs": "scores"}, {"start": "zero"}, {"seeds": ()}, {"seeds": (1, 1)}, {"lr": 0.0}, {"held_out": 1.0}]
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        MetaConfig(**wrong)
