"""Every closed form is held to a naive twin that refits."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deepser.members.folds import plan_folds
from deepser.probes.kernel import KernelSolver
from deepser.probes.problem import Problem, passes_of
from deepser.probes.ridge import class_weights, held_out, inverse_of, scores_of
from deepser.probes.rows import PooledRows, Source
from deepser.probes.select import scorer
from deepser.probes.solver import Part, PassSolver, Setting
from deepser.probes.streaming import StreamingSolver
from deepser.training.targets import Targets
from featurestore.corpus.splits import speaker_groups
from featurestore.errors import ConfigError
from tests.helpers.synthetic_corpus import corpus

SOURCE = Source("first", "layer_01")


def kernel_matrix(n: int = 40, d: int = 7) -> torch.Tensor:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(n, d)))
    return torch.exp(-torch.cdist(x, x).square() / d)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    store, manifest = corpus(tmp_path_factory.mktemp("corpus"), 120)
    problem = Problem.of(Targets.from_manifest(manifest))
    passes = passes_of(problem, plan_folds(manifest, cv="fold"), speaker_groups(manifest))
    return problem, passes, PooledRows(store, problem.keys)


@pytest.mark.parametrize("penalty", [1e-3, 0.03, 3.0])
def test_predictions_by_block_inverses_are_those_of_refitting_without_the_fold(penalty: float) -> None:
    kernel = kernel_matrix()
    targets = torch.from_numpy(np.random.default_rng(1).normal(size=(40, 3)))
    folds = [torch.arange(0, 13), torch.arange(13, 15), torch.arange(15, 40)]  # of unequal sizes
    inverse = inverse_of(kernel, penalty)
    result = held_out(inverse, inverse @ targets, targets, folds)
    for fold in folds:
        train = torch.tensor([i for i in range(40) if i not in fold.tolist()])
        dual = torch.linalg.solve(kernel[train][:, train] + penalty * torch.eye(len(train)), targets[train])
        torch.testing.assert_close(result[fold], kernel[fold][:, train] @ dual, rtol=1e-8, atol=1e-8)


def test_a_fold_of_one_row_is_leave_one_out() -> None:
    kernel, targets = kernel_matrix(12), torch.arange(12.0, dtype=torch.float64)[:, None]
    inverse = inverse_of(kernel, 0.1)
    result = held_out(inverse, inverse @ targets, targets, [torch.tensor([i]) for i in range(12)])
    expected = targets - (inverse @ targets) / inverse.diagonal()[:, None]
    torch.testing.assert_close(result, expected)


def test_a_singular_kernel_names_the_penalty() -> None:
    ones = torch.full((300, 300), 1e4, dtype=torch.float32)
    with pytest.raises(ConfigError, match=r"lambda 1e-09.*--lambdas"):
        inverse_of(ones, 1e-9)


def test_balanced_scores_are_divided_by_the_classes_shares_and_a_class_that_never_occurs_scores_nothing() -> None:
    deviations, shares = np.array([[0.1, -0.1, 0.0, 2.0]]), np.array([0.2, 0.8, 0.0, 3.0])
    np.testing.assert_allclose(scores_of(deviations, shares, 3, 1.0), [[1.5, 0.875, 0.0, 5.0]])
    np.testing.assert_allclose(scores_of(deviations, shares, 3), [[0.3, 0.7, 0.0, 5.0]])


def test_under_class_weights_all_classes_are_equally_frequent() -> None:
    soft = np.array([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0.0]])
    weights = class_weights(soft)
    np.testing.assert_allclose(weights.sum(), len(soft))
    pure = soft[[0, 1, 3, 4, 5]]
    share = class_weights(pure) @ pure
    np.testing.assert_allclose(share, [2.5, 2.5, 0])


def naive_rbf(
    x: np.ndarray,
    y: np.ndarray,
    judged: np.ndarray,
    train: np.ndarray,
    penalty: float,
    width: float,
    weights: np.ndarray,
) -> np.ndarray:
    """Predictions for rows `at` by RBF ridge regression on rows `rest`, whose squared errors have weights."""
    distances = ((x[:, None] - x[None]) ** 2).sum(-1)
    kernel = np.exp(-distances / (2 * width**2 * x.shape[1]))
    w = weights[train]
    means = (w[:, None] * y[train]).sum(0) / w.sum()
    root = np.sqrt(w)[:, None]
    # Minimise sum w (y - K a)^2 + penalty a'Ka as an ordinary least squares problem.
    inside = kernel[np.ix_(train, train)]
    values, vectors = np.linalg.eigh(inside)
    factor = vectors * np.sqrt(np.maximum(values, 0))
    stacked = np.concatenate([root * factor, np.sqrt(penalty) * np.eye(len(train))])
    goals = np.concatenate([root * (y[train] - means), np.zeros((len(train), y.shape[1]))])
    b = np.linalg.lstsq(stacked, goals, rcond=None)[0]
    dual = vectors @ (b / np.sqrt(np.maximum(values, 1e-300))[:, None])
    return means + kernel[np.ix_(judged, train)] @ dual


def test_the_kernel_solver_is_ridge_regression_refitted_without_each_fold_and_each_inner_fold(made: tuple) -> None:
    problem, passes, rows = made
    solver = KernelSolver(problem, rows, True, True, (0.05,), (0.8,), dtype=torch.float64)
    raw, n_classes = rows.read(SOURCE).astype(np.float64), problem.n_classes
    for outer in passes.outer:
        judged = solver.on_pass(outer).single(SOURCE, [Setting(0.05, 0.8)])[0]
        x = (raw - raw[outer.train].mean(0)) / raw[outer.train].std(0)
        y = problem.values[:, :n_classes]
        rated = outer.train[~np.isnan(y[outer.train, 0])]
        assert len(rated) == len(outer.train)  # votes are everywhere, so that classes are one block
        weights = np.zeros(len(y))
        weights[outer.train] = (y[outer.train] / y[outer.train].mean(0)).mean(1)
        expected = naive_rbf(x, y, outer.judged, outer.train, 0.05, 0.8, weights)
        np.testing.assert_allclose(judged.outer[:, :n_classes], expected, atol=2e-5)
        for fold in range(outer.n_inner):
            fold_rows, train = outer.train[outer.inner == fold], outer.train[outer.inner != fold]
            expected = naive_rbf(x, y, fold_rows, train, 0.05, 0.8, weights)
            np.testing.assert_allclose(judged.inner[outer.inner == fold, :n_classes], expected, atol=2e-5)


def test_an_attribute_with_gaps_is_learned_from_the_rows_that_have_it(made: tuple) -> None:
    problem, passes, rows = made
    outer, a = passes.outer[0], problem.n_classes
    judged = (
        KernelSolver(problem, rows, True, True, (0.05,), (0.8,), dtype=torch.float64)
        .on_pass(outer)
        .single(SOURCE, [Setting(0.05, 0.8)])[0]
    )
    raw = rows.read(SOURCE).astype(np.float64)
    x = (raw - raw[outer.train].mean(0)) / raw[outer.train].std(0)
    y = problem.values[:, a:]
    train = outer.train[~np.isnan(y[outer.train, 0])]
    assert 0 < len(train) < len(outer.train)
    expected = naive_rbf(x, y, outer.judged, train, 0.05, 0.8, np.ones(len(y)))
    np.testing.assert_allclose(judged.outer[:, a:], expected, rtol=1e-5)
    assert np.isnan(judged.inner[np.isnan(y[outer.train, 0]), a]).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_streaming_gives_the_scores_of_the_linear_kernel(made: tuple, dtype: torch.dtype) -> None:
    problem, passes, rows = made
    exact = KernelSolver(problem, rows, False, False, (0.3,), (), dtype=torch.float64)
    streaming = StreamingSolver(problem, rows, passes, False, (0.3,), scorer(problem, "uar"), dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float64 else 2e-3
    for outer in (*passes.outer, passes.final):
        a = exact.on_pass(outer).single(SOURCE, [Setting(0.3)])[0]
        b = streaming.on_pass(outer).single(SOURCE, [Setting(0.3)])[0]
        classes = slice(0, problem.n_classes)
        np.testing.assert_allclose(b.inner[:, classes], a.inner[:, classes], atol=tolerance)
        np.testing.assert_allclose(b.outer, a.outer, atol=tolerance)
        # An attribute's score of a row without that attribute is told by the streaming solver alone.
        filled = ~np.isnan(a.inner)
        np.testing.assert_allclose(b.inner[filled], a.inner[filled], atol=tolerance)


@pytest.mark.parametrize("kind", ["rbf", "linear", "streaming"])
def test_the_fitted_model_repeats_what_the_pass_gave_for_the_judged_rows(made: tuple, kind: str) -> None:
    problem, passes, rows = made
    outer = passes.outer[1]
    pass_solver: PassSolver
    if kind == "streaming":
        pass_solver = StreamingSolver(
            problem, rows, passes, True, (0.3,), scorer(problem, "uar"), dtype=torch.float64
        ).on_pass(outer)
        setting = Setting(0.3)
    else:
        setting = Setting(0.3, 1.0 if kind == "rbf" else 0.0)
        pass_solver = KernelSolver(problem, rows, True, kind == "rbf", (0.3,), (1.0,), dtype=torch.float64).on_pass(
            outer
        )
    sources = [SOURCE, Source("second", "layer_02")]
    parts = [Part(source, setting) for source in sources]
    expected = pass_solver.combined(parts).outer
    fitted = pass_solver.fit(parts)
    predicted = np.zeros((len(outer.judged), problem.values.shape[1]))
    for piece in fitted.pieces:
        x = (rows.read(piece.source)[outer.judged] - piece.mean) * piece.inverse_std
        if piece.weights is not None:
            predicted += x @ piece.weights / len(fitted.pieces)
        else:
            assert piece.support is not None
            distances = ((x[:, None].astype(np.float64) - piece.support[None]) ** 2).sum(-1)
            kernel = np.exp(-distances / (2 * piece.bandwidth**2 * x.shape[1]))
            predicted += kernel @ piece.alpha / len(fitted.pieces)
    np.testing.assert_allclose(predicted + fitted.offsets, expected, atol=1e-4)


def test_cells_are_whole_speakers_and_each_selection_has_five_inner_folds_or_as_many_as_there_are_speakers(
    made: tuple, tmp_path: Path
) -> None:
    problem, passes, _ = made
    speaker = np.array([i % 9 for i in range(len(problem.keys))])
    for outer in passes.outer:
        assert outer.n_inner == 6  # two other folds of three speakers
        for name in set(speaker[outer.train].tolist()):
            assert len(set(outer.inner[speaker[outer.train] == name].tolist())) == 1
        assert not set(outer.train.tolist()) & set(outer.judged.tolist())
