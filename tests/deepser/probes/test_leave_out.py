"""Solutions without a cell of rows are those of refitting without them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepser.probes import leave_out
from deepser.probes.gram import GRAM_COLUMNS, Moments
from deepser.probes.leave_out import Systems

PENALTIES = (0.1, 10.0)


def systems(dtype: torch.dtype, sizes: tuple[int, ...], dim: int) -> tuple[Systems, list[np.ndarray], list[np.ndarray]]:
    """Cells of these sizes whose columns are correlated and whose last column is constant."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(dim, dim)) * np.geomspace(3, 0.05, dim)
    xs = [rng.normal(size=(n, dim)) @ mix / dim**0.5 + rng.normal(size=dim) for n in sizes]
    for x in xs:
        x[:, -1] = 0.0
    ys = [x[:, :2] + rng.normal(size=(len(x), 2)) for x in xs]
    cells = []
    for x, y in zip(xs, ys, strict=True):
        empty = Moments.zeros(dim, 2, torch.device("cpu"))
        half = len(x) // 2
        for rows in (slice(0, half), slice(half, None)):
            empty = empty.with_rows(torch.from_numpy(x[rows]).to(dtype), torch.from_numpy(y[rows]).to(dtype))
        cells.append(empty.whole(dtype))
    joined, part = np.concatenate(xs), cells[0] + cells[1]
    for cell in cells[2:]:
        part += cell
    mean, std = torch.from_numpy(joined.mean(0)), torch.from_numpy(joined.std(0))
    inverse_std = torch.where(std > 0, 1 / std.clamp(min=1e-9), 0.0)
    return Systems(part, [None, *cells], mean, inverse_std, PENALTIES, dtype), xs, ys


def refitted(system: Systems, xs: list[np.ndarray], ys: list[np.ndarray], left_out: int | None) -> np.ndarray:
    blocks = [i for i in range(len(xs)) if i != left_out]
    z = (np.concatenate([xs[i] for i in blocks]) - system.mean.numpy()) * system.inverse_std.numpy()
    y = np.concatenate([ys[i] for i in blocks])
    dim = z.shape[1]
    return np.stack([np.linalg.solve(z.T @ z / dim + p * np.eye(dim), z.T @ (y - y.mean(0)) / dim) for p in PENALTIES])


def rounding_of(system: Systems, xs: list[np.ndarray], left_out: int | None) -> float:
    """Return the largest relative error of weights that rounding alone explains.

    What is left out is a difference of products with the sums over all rows, which are not centred. Their rounding is
    that of a matrix as large as all rows', and the smallest eigenvalue of the rows that are left divides it.
    """
    scale, mean, dim = system.inverse_std.numpy(), system.mean.numpy(), len(system.mean)
    everything = np.concatenate(xs) * scale
    left = (np.concatenate([x for i, x in enumerate(xs) if i != left_out]) - mean) * scale
    smallest = np.linalg.eigvalsh(left.T @ left / dim)[0] + min(PENALTIES)
    return float(torch.finfo(system.dtype).eps * np.linalg.norm(everything.T @ everything / dim, 2) / smallest)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    ("sizes", "dim"), [((60, 80, 70), 20), ((15, 12, 18, 20), 90), ((400, 30, 10), 24), ((200, 180), GRAM_COLUMNS + 9)]
)
def test_every_system_is_solved_as_by_refitting(dtype: torch.dtype, sizes: tuple[int, ...], dim: int) -> None:
    """With cells alike, with fewer rows than columns, with one cell that holds nearly all rows, and over one block."""
    system, xs, ys = systems(dtype, sizes, dim)
    actual, means = system.solve()
    for s, left_out in enumerate([None, *range(len(sizes))]):
        expected = refitted(system, xs, ys, left_out)
        tolerance = 1e-9 if dtype == torch.float64 else rounding_of(system, xs, left_out)
        assert np.abs(actual[s].numpy() - expected).max() <= tolerance * np.abs(expected).max(), (s, sizes)
        targets = [y for i, y in enumerate(ys) if i != left_out]
        np.testing.assert_allclose(means[s], np.concatenate(targets).mean(0), rtol=1e-5)


def test_without_convergence_each_matrix_is_factored(monkeypatch: pytest.MonkeyPatch) -> None:
    system, xs, ys = systems(torch.float64, (60, 80, 70), 20)
    monkeypatch.setattr(leave_out, "MOST_STEPS", 1)
    actual, _ = system.solve()
    for s, left_out in enumerate([None, 0, 1, 2]):
        np.testing.assert_allclose(actual[s].numpy(), refitted(system, xs, ys, left_out), atol=1e-9)


def test_a_column_without_targets_has_no_weights() -> None:
    system, _, _ = systems(torch.float64, (60, 80, 70), 20)
    first = torch.tensor([1.0, 0.0])
    silent = [None if cell is None else replace(cell, xy=cell.xy * first, y=cell.y * 0) for cell in system.cells]
    part = replace(system.part, xy=system.part.xy * first, y=system.part.y * 0)
    actual, _ = replace(system, part=part, cells=silent).solve()
    assert not actual[..., 1].any()
    assert actual[..., 0].any()
