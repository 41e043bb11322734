"""Nested selection: settings, layers and combinations are chosen by held-out scores inside one pass's training part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepser.probes.problem import Pass, Problem
from deepser.probes.rows import Source
from deepser.probes.solver import Judged, Part, PassSolver, Setting, Solver

TOPS = (2, 3, 4, 6, 8, 12)  # sizes of the combinations of the best layers

Score = Callable[[NDArray[np.float32], NDArray[np.int64]], float]  # (scores (n, K), their rows) -> higher is better
Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One layer or combination in one pass, with the setting chosen inside it.

    name: the same in every pass for what is fixed beforehand. parts: its layers. fixed: it is named beforehand, so that
    its outer score may stand as a row of its own. score: of the held-out training rows; outer (m, K): what it says of
    the judged rows.
    """

    name: str
    parts: tuple[Part, ...]
    setting: Setting
    score: float
    inner: NDArray[np.float32]
    outer: NDArray[np.float32]
    fixed: bool = True

    @property
    def normalise(self) -> str:
        """The normalisation of its rows."""
        return self.parts[0].source.normalise


@dataclass(frozen=True, eq=False)
class Chosen:
    """All candidates of a pass, and the one with the best inner score."""

    each: Pass
    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Candidate:
        """The winner; of equals the first."""
        return max(self.candidates, key=lambda candidate: candidate.score)


def choose(
    solver: Solver,
    each: Pass,
    sources: Sequence[Source],
    score: Score,
    *,
    combine: bool = True,
    progress: Progress | None = None,
) -> Chosen:
    """Judge every layer, and combinations of them, in one pass.

    Combinations: all layers of a feature set, all layers, and the best 2, 3, 4, ... by their inner scores; each within
    one normalisation. The bandwidth is chosen for each feature set, the penalty for each layer and combination.
    """
    own = solver.at(each)
    found: list[Candidate] = []
    for normalise in dict.fromkeys(source.normalise for source in sources):
        singles = []
        alike = [source for source in sources if source.normalise == normalise]
        bandwidths = _bandwidths(own, solver, each, alike, score)
        for source in alike:
            if progress is not None:
                progress(f"{each.name}: {source}")
            judged = _best(own.single(source, _settings(solver, bandwidths[source.features])), each, score)
            part = Part(source, judged.setting)
            value = score(judged.inner, each.train)
            name = _named(str(source), normalise)
            singles.append(Candidate(name, (part,), judged.setting, value, judged.inner, judged.outer))
        found += singles
        for name, members, fixed in _combinations(singles, normalise) if combine else ():
            found.append(_combined(own, solver, each, name, members, score, fixed))
            if progress is not None:
                progress(f"{each.name}: {name}")
    return Chosen(each, tuple(found))


def choose_among(
    solver: Solver, each: Pass, choices: Sequence[Sequence[Part]], score: Score
) -> tuple[Candidate, PassSolver]:
    """The best of some combinations in one pass, its penalty chosen anew."""
    own = solver.at(each)
    found = []
    for parts in choices:
        if len(parts) == 1:
            judged = _best(own.single(parts[0].source, _settings(solver, parts[0].setting.bandwidth)), each, score)
            parts = [Part(parts[0].source, judged.setting)]
        else:
            judged = _best(own.combined(parts, solver.penalties), each, score)
        value = score(judged.inner, each.train)
        found.append(Candidate("chosen", tuple(parts), judged.setting, value, judged.inner, judged.outer))
    return max(found, key=lambda candidate: candidate.score), own


def scorer(problem: Problem, rule: str) -> Score:
    """The score that selects: "uar", "macro_f1", "accuracy" (argmax against labels) or "mean_ccc"."""
    n_classes = problem.n_classes

    def of_classes(scores: NDArray[np.float32], rows: NDArray[np.int64]) -> float:
        labels = problem.labels[rows]
        known = (labels >= 0) & ~np.isnan(scores[:, 0])
        if not known.any():
            return float("nan")
        guess = scores[known, :n_classes].argmax(1)
        counts = np.bincount(labels[known] * n_classes + guess, minlength=n_classes**2).reshape(n_classes, n_classes)
        hits, true, said = np.diag(counts), counts.sum(1), counts.sum(0)
        if rule == "accuracy":
            return float(hits.sum() / true.sum())
        if rule == "uar":
            return float((hits[true > 0] / true[true > 0]).mean())
        return float((2 * hits / np.maximum(true + said, 1)).mean())

    def of_attributes(scores: NDArray[np.float32], rows: NDArray[np.int64]) -> float:
        found = []
        for a in range(len(problem.attributes)):
            truth, said = problem.values[rows, n_classes + a], scores[:, n_classes + a].astype(np.float64)
            known = ~np.isnan(truth) & ~np.isnan(said)
            if known.sum() > 1:
                # The concordance after the scale is mended, as it will be: Pearson's correlation.
                x, y = said[known] - said[known].mean(), truth[known] - truth[known].mean()
                norm = np.sqrt((x * x).sum() * (y * y).sum())
                found.append(float((x * y).sum() / norm) if norm > 0 else 0.0)
        return float(np.mean(found)) if found else float("nan")

    return of_attributes if rule == "mean_ccc" else of_classes


def _bandwidths(
    own: PassSolver, solver: Solver, each: Pass, sources: Sequence[Source], score: Score
) -> dict[str, float]:
    """The bandwidth of each feature set, chosen at the middle penalty on its middle layer, for the sake of speed."""
    found = {}
    middle = solver.penalties[len(solver.penalties) // 2]
    for name in dict.fromkeys(source.features for source in sources):
        layers = [source for source in sources if source.features == name]
        options = [Setting(middle, bandwidth) for bandwidth in solver.bandwidths]
        if len(options) > 1:
            judged = own.single(layers[len(layers) // 2], options)
            found[name] = _best(judged, each, score).setting.bandwidth
        else:
            found[name] = options[0].bandwidth if options else 0.0
    return found


def _settings(solver: Solver, bandwidth: float) -> list[Setting]:
    return [Setting(penalty, bandwidth) for penalty in solver.penalties]


def _combined(
    own: PassSolver, solver: Solver, each: Pass, name: str, members: Sequence[Candidate], score: Score, fixed: bool
) -> Candidate:
    parts = tuple(candidate.parts[0] for candidate in members)
    judged = _best(own.combined(parts, solver.penalties), each, score)
    value = score(judged.inner, each.train)
    return Candidate(name, parts, judged.setting, value, judged.inner, judged.outer, fixed)


def _best(judged: Sequence[Judged], each: Pass, score: Score) -> Judged:
    return max(judged, key=lambda j: score(j.inner, each.train))


def _combinations(singles: Sequence[Candidate], normalise: str) -> list[tuple[str, list[Candidate], bool]]:
    """(name, layers, fixed) of each combination of two layers or more."""
    sets: dict[str, list[Candidate]] = {}
    for candidate in singles:
        sets.setdefault(candidate.parts[0].source.features, []).append(candidate)
    found = [(_named(f"{name}, {len(own)} layers", normalise), own, True) for name, own in sets.items() if len(own) > 1]
    if len(sets) > 1:
        found.append((_named(f"all {len(singles)} layers", normalise), list(singles), True))
    ranked = sorted(singles, key=lambda candidate: -candidate.score)
    seen = {frozenset(c.name for c in own) for _, own, _ in found}
    for n in TOPS:
        if n < len(ranked) and frozenset(c.name for c in ranked[:n]) not in seen:
            found.append((_named(f"best {n}", normalise), ranked[:n], False))
    return found


def _named(name: str, normalise: str) -> str:
    return name if normalise == "none" else f"{name}, {normalise}-normalised"
