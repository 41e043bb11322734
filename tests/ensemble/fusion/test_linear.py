"""The meta-classifier: all seeds at once as each alone, true gradients, better than the soft vote where it can be."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from deepser.scores.counts import macro_f1
from deepser.scores.metrics import ccc, classification
from deepser.training.targets import Targets
from ensemble.evaluation.align import Aligned
from ensemble.fusion.config import MetaConfig
from ensemble.fusion.kinds import load_meta, predict_meta, save_meta
from ensemble.fusion.linear import LinearSeeds, predict_linear, prepare, to_scale
from ensemble.fusion.mlp import predict_seeds
from ensemble.fusion.problem import Problem
from ensemble.fusion.seed_training import AdamW, Rows, Scorer, _mean_ccc, loss_gradient
from ensemble.fusion.training import _Linear, _Mlp, fit_meta, fit_mlp, greedy_soup, starting_point
from ensemble.fusion.votes import soft_vote
from featurestore.errors import AlignmentError, ConfigError, ManifestError

SHORT = MetaConfig(rounds=4, seeds=(0, 1, 2), select="last")


def fitted(corpus, config: MetaConfig = SHORT, held_out: np.ndarray | None = None) -> LinearSeeds:
    return fit_meta(corpus.aligned(), Targets.from_manifest(corpus.manifest), config, held_out)


@pytest.mark.parametrize("start", ["soft_vote", "random"])
@pytest.mark.parametrize("select", ["last", "macro_f1"])
def test_seeds_trained_at_once_have_the_weights_of_each_alone(corpus, start: str, select: str) -> None:
    config = dataclasses.replace(SHORT, start=start, select=select, patience=1)
    held_out = np.arange(600) % 10 == 0 if select == "macro_f1" else None
    together = fitted(corpus, config, held_out).state.tensors
    for s, seed in enumerate(config.seeds):
        single = fitted(corpus, dataclasses.replace(config, seeds=(seed,)), held_out).state.tensors
        # Weights are of size 1 to 10, so this is float32 rounding: a batched product adds in another order.
        assert torch.allclose(together["weight"][s], single["weight"][0], atol=1e-4, rtol=0)
        assert torch.allclose(together["bias"][s], single["bias"][0], atol=1e-4, rtol=0)
    assert not torch.equal(together["weight"][0], together["weight"][1])


def test_the_same_seeds_give_the_same_bits(corpus) -> None:
    assert torch.equal(*(fitted(corpus).state.tensors["weight"] for _ in range(2)))


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_gradient_is_autograds(kind: str) -> None:
    rng = np.random.default_rng(0)
    attributes = rng.uniform(1, 7, (40, 2))
    attributes[rng.random((40, 2)) < 0.4] = np.nan
    soft = rng.dirichlet(np.ones(3), 40)
    soft[:5] = 0  # utterances with attributes but without any vote
    ranges = ((1.0, 7.0), (0.0, 1.0))
    inputs = torch.tensor(rng.normal(size=(40, 11)))
    rows = Rows.of(inputs, soft, attributes, ranges)
    batch = torch.tensor(rng.integers(0, 40, (2, 16)))
    shapes = {"linear": [(2, 5, 11)], "mlp": [(2, 5, 11), (2, 7, 11), (2, 5, 7)]}
    parameters = [torch.tensor(rng.normal(size=shape), requires_grad=True) for shape in shapes[kind]]
    start, config = torch.tensor(rng.normal(size=(5, 11))), MetaConfig()
    for s in range(2):
        x, y, a = inputs[batch[s]], torch.tensor(soft)[batch[s]], torch.tensor(attributes)[batch[s]]
        outputs = x @ (parameters[0][s] + start).T
        if kind == "mlp":
            outputs = outputs + (x @ parameters[1][s].T).relu() @ parameters[2][s].T
        entropy = -(y * outputs[:, :3].log_softmax(1)).sum(1).mean()
        errors = [
            (to_scale(outputs[i, 3:], ranges)[j] - a[i, j]) ** 2
            for i in range(16)
            for j in range(2)
            if a[i, j] == a[i, j]
        ]
        (1.5 * entropy + 0.4 * torch.stack(errors).mean()).backward()
    network = _Linear([p.detach() for p in parameters], start, None)
    if kind == "mlp":
        network = _Mlp([p.detach() for p in parameters], start, None, 3)
    x, goals = rows.batch(batch)
    outputs, state = network.forward(x.transpose(1, 2))
    result = network.backward(x, state, loss_gradient(outputs, goals, rows, config))
    for gradient, p in zip(result, parameters, strict=True):
        assert torch.allclose(gradient, p.grad)


def test_training_starts_at_the_soft_vote(corpus) -> None:
    aligned, targets = corpus.aligned(), Targets.from_manifest(corpus.manifest)
    x = prepare(aligned.values, 4, targets.attribute_ranges, constant=True)
    start = starting_point(x, targets, MetaConfig(), len(aligned.members), np.arange(600))
    outputs = x @ start.T
    assert np.array_equal(outputs[:, :4].argmax(1).numpy(), soft_vote(aligned.values[..., :4]).argmax(1))
    mean = aligned.values[..., 4].mean(0)
    middle = np.abs(mean - 4) < 1
    assert np.allclose(
        to_scale(outputs[:, 4:], targets.attribute_ranges)[:, 0].numpy()[middle], mean[middle], atol=0.05
    )
    # No other gain fits the classes better, each weighing the same.
    weight = 1 / np.bincount(targets.labels)[targets.labels]
    costs = [
        -(weight * (gain * outputs[:, :4]).log_softmax(1).numpy()[np.arange(600), targets.labels]).sum()
        for gain in (1.0, 0.97, 1.03)
    ]
    assert costs[0] == min(costs)


@pytest.mark.parametrize("inputs", ["posteriors", "logits"])
def test_meta_beats_the_soft_vote_where_members_know_different_classes(make_corpus, inputs: str) -> None:
    corpus = make_corpus(1500, 5, seed=3)
    aligned, targets = corpus.aligned(), Targets.from_manifest(corpus.manifest)
    if inputs == "logits":
        aligned.values[..., :4] = corpus.logits
    train = np.arange(1500) < 1000
    problem = Problem(aligned, None, targets, np.array(targets.keys))
    soup = fit_meta(aligned.rows(train), problem.rows(train).targets, MetaConfig(inputs=inputs, select="last")).soup()
    predicted, test = predict_meta(soup, aligned.rows(~train)), problem.rows(~train).targets
    vote = soft_vote(corpus.posteriors[:, ~train])
    scores = [classification(p, test.labels, targets.classes).macro_f1 for p in (predicted.probabilities, vote[:, :4])]
    assert scores[0] > scores[1] + 0.02
    # The last member's arousal is ten times as noisy as the first's: the map learns whom to trust.
    assert (
        ccc(predicted.attributes[:, 0], test.attribute_values[:, 0])
        > ccc(vote[:, 4], test.attribute_values[:, 0]) + 0.05
    )


def test_the_soup_is_the_mean_of_the_weights_and_of_one_is_itself(corpus) -> None:
    seeds = fitted(corpus)
    soup, weight, bias = seeds.soup(), seeds.state.tensors["weight"], seeds.state.tensors["bias"]
    assert torch.allclose(soup.tensors["weight"][0], sum(weight) / 3)
    assert torch.equal(LinearSeeds(soup).soup().tensors["weight"], soup.tensors["weight"])
    alike = {"weight": weight[:1].expand(3, -1, -1), "bias": bias[:1].expand(3, -1)}
    alike_seeds = LinearSeeds(dataclasses.replace(seeds.state, tensors=alike))
    assert torch.allclose(alike_seeds.soup().tensors["weight"], weight[:1], rtol=1e-6)


def test_predictions_do_not_depend_on_the_order_or_company_of_utterances(corpus) -> None:
    meta, aligned = fitted(corpus).soup(), corpus.aligned()
    order = np.random.default_rng(0).permutation(600)[:77]
    p, chosen = predict_meta(meta, aligned), predict_meta(meta, aligned.rows(order))
    assert np.allclose(p.probabilities[order], chosen.probabilities, atol=1e-6)
    assert np.allclose(p.probabilities.sum(1), 1, atol=1e-5)
    assert (p.attributes >= 1).all()
    assert (p.attributes <= 7).all()
    assert (p.logits < 0).any()  # no ReLU at the end, as the released code had


def test_the_order_of_members_does_not_matter(corpus) -> None:
    aligned = corpus.aligned()
    backwards = dataclasses.replace(aligned, members=aligned.members[::-1], values=aligned.values[::-1])
    config = dataclasses.replace(SHORT, start_std=1e-6, rounds=20)
    targets = Targets.from_manifest(corpus.manifest)
    forth = predict_meta(fit_meta(aligned, targets, config).soup(), aligned)
    repeated = predict_meta(fit_meta(backwards, targets, config).soup(), backwards)
    assert np.allclose(forth.probabilities, repeated.probabilities, atol=1e-3)


def test_it_refuses_other_members_columns_or_utterances(corpus) -> None:
    meta, aligned, targets = fitted(corpus), corpus.aligned(), Targets.from_manifest(corpus.manifest)
    with pytest.raises(AlignmentError, match="reads members posteriors/m0"):
        predict_meta(meta.state, dataclasses.replace(aligned, members=aligned.members[::-1]))
    with pytest.raises(AlignmentError, match=r"Posteriors and targets.*different"):
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
    p = predict_meta(fit_meta(bare, only, SHORT).soup(), bare)
    assert p.attributes.shape == (600, 0)
    assert classification(p.probabilities, targets.labels, targets.classes).accuracy > 0.6
    with pytest.raises(ManifestError, match=r"[Nn]o training utterance.*label"):
        fit_meta(bare, dataclasses.replace(only, labels=labels * 0 - 1), SHORT)


def test_selection_keeps_the_best_round_of_each_seed_and_needs_rows_for_it(corpus) -> None:
    config = dataclasses.replace(SHORT, select="macro_f1", rounds=6, patience=2)
    with pytest.raises(ConfigError, match="held-out"):
        fitted(corpus, config)
    with pytest.raises(ConfigError, match="choose nothing"):
        fitted(corpus, SHORT, np.ones(600, bool))
    held_out = np.arange(600) % 5 == 0
    meta = fitted(corpus, config, held_out)
    scores = np.array([row["macro_f1"] for row in meta.state.history])
    rows = corpus.aligned().rows(held_out)
    truth = Targets.from_manifest(corpus.manifest).labels[held_out]
    assert scores.shape[1] == 3
    for s in range(3):  # the kept weights score what the history's best says, up to the balanced draws
        reached = f1_score(truth, predict_linear(meta.state, rows.values, s).probabilities.argmax(1), average="macro")
        assert reached == pytest.approx(scores[:, s].max(), abs=0.05)


@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 30))
def test_the_batched_macro_f1_is_scikit_learns_over_the_classes_there_are(seed: int, n_classes: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, labels = rng.integers(0, n_classes, (2, 3, n)), rng.integers(0, n_classes, (1, 3, n))
    result = macro_f1(predicted, labels, n_classes, absent="skip")
    for s in range(2):
        for k in range(3):
            present = np.unique(labels[0, k])
            expected = f1_score(labels[0, k], predicted[s, k], labels=present, average="macro", zero_division=0)
            assert result[s, k] == pytest.approx(expected)


def test_it_is_saved_and_loaded_whole(corpus, tmp_path: Path) -> None:
    meta = fitted(corpus).soup()
    save_meta(tmp_path / "run", meta)
    reloaded = load_meta(tmp_path / "run")
    assert reloaded.config == meta.config
    assert (reloaded.members, reloaded.classes, reloaded.attributes) == (meta.members, meta.classes, meta.attributes)
    p, q = (predict_meta(each, corpus.aligned()) for each in (meta, reloaded))
    assert np.array_equal(p.logits, q.logits)


def test_a_directory_that_holds_no_meta_classifier_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no meta-classifier"):
        load_meta(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds no meta-classifier"):
        load_meta(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"inputs": "scores"}, {"start": "zero"}, {"seeds": ()}, {"seeds": (1, 1)}, {"lr": 0.0}, {"held_out": 1.0}),
        *({"hidden": -1}, {"soup": "thick"}),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        MetaConfig(**wrong)


def test_the_optimiser_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    our_parameters, their_parameters = ([torch.ones(3, 4), torch.ones(2)] for _ in range(2))
    ours = AdamW(our_parameters, lr=0.05, weight_decay=0.1)
    reference = torch.optim.AdamW(their_parameters, lr=0.05, weight_decay=0.1)
    for _ in range(30):
        gradients = [torch.randn(p.shape, generator=generator) for p in our_parameters]
        ours.step(gradients)
        for p, gradient in zip(their_parameters, gradients, strict=True):
            p.grad = gradient
        reference.step()
    for p, q in zip(our_parameters, their_parameters, strict=True):
        assert torch.allclose(p, q, atol=1e-6)


@pytest.mark.parametrize("inputs", ["posteriors", "posteriors+attributes"])
@pytest.mark.parametrize("hidden", [0, 6])
def test_attributes_are_read_by_classes_only_if_requested(corpus, inputs: str, hidden: int) -> None:
    config = dataclasses.replace(SHORT, inputs=inputs, hidden=hidden)
    aligned, targets = corpus.aligned(), Targets.from_manifest(corpus.manifest)
    meta = fit_mlp(aligned, targets, config) if hidden else fit_meta(aligned, targets, config).state
    louder = aligned.values.copy()
    louder[..., 4] = 7 - louder[..., 4] / 2
    before, after = predict_meta(meta, aligned), predict_meta(meta, dataclasses.replace(aligned, values=louder))
    assert np.array_equal(before.probabilities, after.probabilities) == (inputs == "posteriors")
    assert not np.array_equal(before.attributes, after.attributes)


def test_a_greedy_soup_takes_a_seed_only_if_the_held_out_score_holds(corpus) -> None:
    aligned, targets = corpus.aligned(), Targets.from_manifest(corpus.manifest)
    held_out = np.arange(600) % 5 == 0
    config = dataclasses.replace(SHORT, select="macro_f1", soup="greedy", seeds=(0, 1, 2, 3), start="random", rounds=6)
    meta = fit_meta(aligned, targets, config, held_out)
    x = prepare(aligned.values, 4, targets.attribute_ranges, constant=True)
    rows = Rows.of(x, targets.soft, targets.attribute_values, targets.attribute_ranges)
    scorer = Scorer(x, rows, targets.labels, held_out, config)
    maps = meta.state.tensors
    weight = torch.cat([maps["weight"], maps["bias"][:, None]], 1).transpose(1, 2)

    def score(seeds: list[int]) -> float:
        mean = weight[seeds].mean(0)
        return float(scorer(_Linear([torch.zeros(1, *mean.shape)], mean, None))[0])

    singly = [score([s]) for s in range(4)]
    chosen: list[int] = []
    best = -1.0
    for s in sorted(range(4), key=lambda s: -singly[s]):
        if score([*chosen, s]) >= best:
            chosen, best = [*chosen, s], score([*chosen, s])
    assert meta.in_soup == tuple(sorted(chosen))
    assert torch.allclose(meta.soup().tensors["weight"][0], maps["weight"][chosen].mean(0), atol=1e-6)
    # A seed that has unlearned everything is left out.
    spoiled = weight.clone()
    spoiled[2] *= -1
    network = _Linear([spoiled], torch.zeros_like(spoiled[0]), None)
    assert 2 not in greedy_soup(network, scorer(network), scorer)
    for wrong in ({"select": "last"}, {"hidden": 3}):
        with pytest.raises(ConfigError, match="greedy"):
            dataclasses.replace(config, **wrong)


@pytest.mark.parametrize("select", ["last", "macro_f1"])
def test_attributes_alone_can_be_learned(corpus, select: str) -> None:
    targets = Targets.from_manifest(corpus.manifest)
    values = corpus.posteriors[..., 4:]
    attributes_only = Targets.unknown(targets.keys, (), targets.attributes, targets.attribute_ranges)
    targets = dataclasses.replace(attributes_only, attribute_values=targets.attribute_values)
    aligned = Aligned(corpus.members, targets.keys, ("attr:arousal",), values, ("fold",) * 4)
    held_out = np.arange(600) % 5 == 0
    config = MetaConfig(rounds=30, select=select)
    meta = fit_meta(aligned, targets, config, held_out if select == "macro_f1" else None)
    reached = ccc(predict_meta(meta.soup(), aligned).attributes[:, 0], targets.attribute_values[:, 0])
    assert reached > ccc(soft_vote(values)[:, 0], targets.attribute_values[:, 0]) + 0.02
    assert predict_meta(meta.soup(), aligned).probabilities.shape == (600, 0)


def test_the_batched_concordance_is_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    predicted, target = rng.normal(size=(2, 3, 40)), rng.normal(size=(3, 40))
    rated = rng.random((3, 40)) < 0.7
    rated[2] = False
    result = _mean_ccc(*(torch.tensor(a) for a in (predicted, target, rated.astype(float))))
    for s in range(2):
        singly = [ccc(predicted[s, a], np.where(rated[a], target[a], np.nan)) for a in range(2)]
        assert result[s] == pytest.approx(np.mean(singly))


def test_an_mlp_starts_as_the_linear_map_and_its_seeds_outputs_are_averaged(corpus, tmp_path: Path) -> None:
    aligned, targets = corpus.aligned(), Targets.from_manifest(corpus.manifest)
    config = dataclasses.replace(SHORT, hidden=8)
    # With no step that counts, what is left is the start.
    still = fit_mlp(aligned, targets, dataclasses.replace(config, lr=1e-12))
    linear = fit_meta(aligned, targets, dataclasses.replace(SHORT, lr=1e-12))
    for s, of_seed in enumerate(predict_seeds(still, aligned.values)):
        assert np.allclose(
            of_seed.probabilities, predict_linear(linear.state, aligned.values, s).probabilities, atol=1e-5
        )
    mlp = fit_mlp(aligned, targets, config)
    seeds = predict_seeds(mlp, aligned.values)
    averaged = predict_meta(mlp, aligned)
    assert np.allclose(averaged.probabilities, np.mean([p.probabilities for p in seeds], 0), atol=1e-6)
    assert np.allclose(np.exp(averaged.logits), averaged.probabilities, atol=1e-6)
    of_one_seed = fit_mlp(aligned, targets, dataclasses.replace(config, seeds=(1,)))
    assert np.allclose(predict_meta(of_one_seed, aligned).probabilities, seeds[1].probabilities, atol=1e-3)
    save_meta(tmp_path, mlp)
    reloaded = load_meta(tmp_path)
    assert reloaded.kind == "mlp"
    assert np.array_equal(predict_meta(reloaded, aligned).probabilities, averaged.probabilities)
    with pytest.raises(AlignmentError, match="reads members"):
        predict_meta(mlp, aligned.choose([1, 0, 2, 3]))
    with pytest.raises(ConfigError, match="hidden"):
        fit_mlp(aligned, targets, SHORT)
    with pytest.raises(ConfigError, match="hidden"):
        fit_meta(aligned, targets, config)


def test_an_mlp_learns_what_no_linear_map_can() -> None:
    """Two members, of whom one must be believed where the other is sure, and else not."""
    rng = np.random.default_rng(1)
    n = 4000
    truth, sure = rng.integers(0, 2, n), rng.integers(0, 2, n)
    shown = np.where(sure == 1, truth, 1 - truth)  # right where the other is sure, wrong where it isn't
    p = np.empty((2, n, 2), np.float32)
    p[0, :, 0] = np.where(shown == 0, 0.9, 0.1)
    p[1, :, 0] = np.where(sure == 1, 0.9, 0.1)
    p[..., 1] = 1 - p[..., 0]
    keys = tuple(map(str, range(n)))
    targets = Targets(keys, ("a", "b"), (), (), truth, np.eye(2, dtype=np.float32)[truth], np.zeros((n, 0), np.float32))
    aligned = Aligned(("m0", "m1"), keys, ("a", "b"), p, ("fold",) * 2)
    config = MetaConfig(seeds=(0, 1), lr=0.02, rounds=20, select="last", weight_decay=0.0, start="random")
    shares = [
        (predict_meta(meta, aligned).probabilities.argmax(1) == truth).mean()
        for meta in (
            fit_meta(aligned, targets, config).soup(),
            fit_mlp(aligned, targets, dataclasses.replace(config, hidden=16)),
        )
    ]
    assert shares[0] < 0.8
    assert shares[1] > 0.95
