"""What every solver of a probe offers to the selection, and what a fitted probe consists of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deepser.probes.problem import Pass
from deepser.probes.rows import Source


@dataclass(frozen=True, order=True)
class Setting:
    """What is chosen besides the layers: penalty, bandwidth of an RBF kernel (0: none), and tilt.

    tilt: the power of its share that a class's score is divided by, where the rows themselves are not weighted.
    refine: how the scores are refined by each speaker's own clips, one of `REFINEMENTS`.
    """

    penalty: float
    bandwidth: float = 0.0
    tilt: float = 0.0
    refine: str = "none"


@dataclass(frozen=True, eq=False)
class Judged:
    """Scores of one candidate in one pass: inner (n, K) held-out scores of the training rows, outer (m, K)."""

    setting: Setting
    inner: NDArray[np.float32]
    outer: NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """A layer in a combination, with the setting that was chosen for it alone."""

    source: Source
    setting: Setting


@dataclass(frozen=True, eq=False)
class Piece:
    """What a fitted probe keeps of one source: standardisation (D,), and weights (D, K) or support rows (n, D).

    alpha: (n, K) float32 dual weights of the support rows. penalty: with which they were found.
    """

    source: Source
    mean: NDArray[np.float32]
    inverse_std: NDArray[np.float32]
    bandwidth: float = 0.0
    support: NDArray[np.float32] | None = None  # standardised; of an RBF kernel
    weights: NDArray[np.float32] | None = None
    alpha: NDArray[np.float32] | None = None
    penalty: float = 0.0


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted probe: its deviations are the mean over the pieces of K(x, support) @ alpha, or of x @ weights.

    Scores are deviations + offsets, (K,). weights: of an RBF kernel, (n,) of the training rows' squared errors for the
    classes, 0 where they are not known. shares: (C,) of the classes among the training rows.
    """

    pieces: tuple[Piece, ...]
    offsets: NDArray[np.float64]
    weights: NDArray[np.float64] | None = None
    shares: NDArray[np.float64] | None = None


def mean_of(judged: Sequence[Judged]) -> Judged:
    """Return the mean of layers' scores; its penalty is the geometric mean of theirs."""
    inner, outer = (np.mean([getattr(j, name) for j in judged], 0) for name in ("inner", "outer"))
    return Judged(Setting(float(np.exp(np.mean([np.log(j.setting.penalty) for j in judged])))), inner, outer)


class PassSolver(Protocol):
    """A solver at one pass."""

    def single(self, source: Source, settings: Sequence[Setting]) -> list[Judged]:
        """Judge one layer with each setting."""
        ...

    def combined(self, parts: Sequence[Part]) -> Judged:
        """Judge the mean of the layers' scores, each with its own setting."""
        ...

    def fit(self, parts: Sequence[Part]) -> Fitted:
        """Fit a combination on all training rows of the pass."""
        ...


class Solver(Protocol):
    """A way to solve: `at` gives it one pass. Settings come in the order in which they are tried."""

    @property
    def penalties(self) -> tuple[float, ...]: ...
    @property
    def bandwidths(self) -> tuple[float, ...]: ...

    def on_pass(self, each: Pass) -> PassSolver:
        """Return the solver with the training and judged rows of a pass."""
        ...
