"""Nested selection: settings, layers and combinations are chosen by held-out scores inside one pass's training part."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepser.probes.kernel import KernelPass
from deepser.probes.problem import Pass, Problem
from deepser.probes.rows import Source
from deepser.probes.solver import Judged, Part, PassSolver, Setting, Solver

N_REFINED = 3  # candidates of a pass that are refined by speaker
TOPS = (2, 3, 4, 6, 8, 12)  # sizes of the combinations of the best layers

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Score:
    """What selects: `of` maps scores (n, K) and their rows (n,) to a figure, higher is better.

    is_known: (N,) utterances that have what is scored, a label or an attribute.
    """

    of: Callable[[NDArray[np.float32], NDArray[np.int64]], float]
    is_known: NDArray[np.bool_]

    def __call__(self, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> float:
        return self.of(scores, rows)

    def n_scored(self, rows: NDArray[np.int64]) -> int:
        """Return how many of some rows count in their score."""
        return int(self.is_known[rows].sum())


@dataclass(frozen=True, eq=False)
class Candidate:
    """One layer or combination in one pass, with the setting chosen inside it.

    name: the same in every pass for what is fixed beforehand. parts: its layers. fixed: it is named beforehand, so that
    its outer score may stand as a row of its own. score: of the held-out training rows; outer (m, K): what it says of
    the judged rows; attributes (m, A): the same of attributes on their scales, where these were made.
    """

    name: str
    parts: tuple[Part, ...]
    setting: Setting
    score: float
    inner: NDArray[np.float32]
    outer: NDArray[np.float32]
    fixed: bool = True
    attributes: NDArray[np.float32] | None = None

    @property
    def normalise(self) -> str:
        """The normalisation of its rows."""
        return self.parts[0].source.normalise

    @property
    def is_refined(self) -> bool:
        """Were its scores refined by each speaker's own clips?"""
        return self.setting.refine != "none"

    @property
    def speaker_adapted(self) -> bool:
        """Does it read a speaker's other clips?"""
        return self.normalise == "speaker" or self.is_refined


@dataclass(frozen=True, eq=False)
class Chosen:
    """All candidates of a pass, and the first by `ranked` of those refined in one of the ways `refine`.

    n_scored: the training rows that their scores are of.
    """

    each: Pass
    candidates: tuple[Candidate, ...]
    n_scored: int
    refine: tuple[str, ...] = ("none",)

    @property
    def best(self) -> Candidate:
        """The candidate that the pass keeps."""
        allowed = [candidate for candidate in self.candidates if candidate.setting.refine in self.refine]
        return ranked(allowed, self.n_scored)[0]


def ranked(candidates: Sequence[Candidate], n: int) -> list[Candidate]:
    """Return candidates, the one to choose first: of those within a standard error of the best, that of most layers.

    n: clips that are scored. The best of many scores is high by chance, the more so the fewer clips, and a mean over
    more layers varies less (the rule of one standard error: Breiman et al. 1984, section 3.4.3).
    """
    top = max((candidate.score for candidate in candidates), default=0.0)
    margin = math.sqrt(max(top * (1 - top), 0) / max(n, 1))

    def rank(candidate: Candidate) -> tuple[int, float]:
        return (len(candidate.parts) if candidate.score >= top - margin else 0, candidate.score)

    return sorted(candidates, key=rank, reverse=True)


def choose(
    solver: Solver,
    each: Pass,
    sources: Sequence[Source],
    score: Score,
    *,
    combine: bool = True,
    refine: tuple[str, ...] = ("none",),
    progress: Progress | None = None,
) -> Chosen:
    """Judge every layer, and combinations of them, in one pass.

    Combinations: all layers of a feature set, all layers, and the best 2, 3, 4, ... by their inner scores; each within
    one normalisation. A combination's scores are the mean of its layers'. Bandwidth and penalty are chosen for each
    feature set.
    refine: ways in which the best N_REFINED are refined by each speaker's own clips; the choice is among these ways.
    """
    pass_solver = solver.on_pass(each)
    candidates: list[Candidate] = []
    for normalise in dict.fromkeys(source.normalise for source in sources):
        alike = [source for source in sources if source.normalise == normalise]
        settings = {
            name: _setting_of(pass_solver, solver, each, layers, score) for name, layers in _by_set(alike).items()
        }
        singles = []
        for source in alike:
            if progress is not None:
                progress(f"{each.name}: {source}")
            judged = pass_solver.single(source, [settings[source.features]])[0]
            singles.append(
                _candidate(_named(str(source), normalise), [Part(source, judged.setting)], judged, each, score)
            )
        candidates += singles
        if combine:
            if progress is not None:
                progress(f"{each.name}: combinations")
            candidates += _combined(pass_solver, each, _combinations(singles, normalise), score)
    candidates += _refined(pass_solver, each, candidates, refine, score)
    return Chosen(each, tuple(candidates), score.n_scored(each.train), refine)


def choose_among(
    solver: Solver,
    each: Pass,
    choices: Sequence[Sequence[Part]],
    score: Score,
    refine: tuple[str, ...] = ("none",),
) -> tuple[Candidate, PassSolver]:
    """Return the best of some combinations in one pass."""
    pass_solver = solver.on_pass(each)
    candidates = [_candidate("chosen", parts, pass_solver.combined(parts), each, score) for parts in choices]
    candidates += _refined(pass_solver, each, candidates, refine, score)
    return Chosen(each, tuple(candidates), score.n_scored(each.train), refine).best, pass_solver


def scorer(problem: Problem, rule: str) -> Score:
    """Return the score that selects: "uar", "macro_f1", "accuracy" (argmax against labels) or "mean_ccc"."""
    n_classes = problem.n_classes

    def of_classes(scores: NDArray[np.float32], rows: NDArray[np.int64]) -> float:
        labels = problem.labels[rows]
        usable = (labels >= 0) & ~np.isnan(scores[:, 0])
        if not usable.any():
            return float("nan")
        guess = scores[usable, :n_classes].argmax(1)
        counts = np.bincount(labels[usable] * n_classes + guess, minlength=n_classes**2).reshape(n_classes, n_classes)
        hits, true, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
        if rule == "accuracy":
            return float(hits.sum() / true.sum())
        if rule == "uar":
            return float((hits[true > 0] / true[true > 0]).mean())
        return float((2 * hits / np.maximum(true + predicted, 1)).mean())

    def of_attributes(scores: NDArray[np.float32], rows: NDArray[np.int64]) -> float:
        cccs = []
        for a in range(len(problem.attributes)):
            truth, predicted = problem.values[rows, n_classes + a], scores[:, n_classes + a].astype(np.float64)
            usable = ~np.isnan(truth) & ~np.isnan(predicted)
            if usable.sum() > 1:
                # The concordance after the scale is mended, as it will be: Pearson's correlation.
                x, y = predicted[usable] - predicted[usable].mean(), truth[usable] - truth[usable].mean()
                norm = np.sqrt((x * x).sum() * (y * y).sum())
                cccs.append(float((x * y).sum() / norm) if norm > 0 else 0.0)
        return float(np.mean(cccs)) if cccs else float("nan")

    if rule == "mean_ccc":
        return Score(of_attributes, np.asarray((~np.isnan(problem.values[:, n_classes:])).any(1)))
    return Score(of_classes, problem.labels >= 0)


def _setting_of(pass_solver: PassSolver, solver: Solver, each: Pass, layers: Sequence[Source], score: Score) -> Setting:
    """Return the setting of a feature set, chosen on its middle layer.

    First the bandwidth at a middle penalty, then the penalty.

    Layers of one encoder are alike in what suits them, and a search for each would take three times as long.
    """
    middle, penalty = layers[len(layers) // 2], solver.penalties[len(solver.penalties) // 2]
    best = _best(
        pass_solver.single(middle, [Setting(penalty, bandwidth) for bandwidth in solver.bandwidths or (0.0,)]),
        each,
        score,
    )
    others = [Setting(p, best.setting.bandwidth) for p in solver.penalties if p != penalty]
    return _best([best, *pass_solver.single(middle, others)], each, score).setting if others else best.setting


def _by_set(sources: Sequence[Source]) -> dict[str, list[Source]]:
    sets: dict[str, list[Source]] = {}
    for source in sources:
        sets.setdefault(source.features, []).append(source)
    return sets


def _combined(
    pass_solver: PassSolver, each: Pass, combinations: Sequence[tuple[str, list[Candidate], bool]], score: Score
) -> list[Candidate]:
    candidates = []
    for name, members, fixed in combinations:
        parts = [candidate.parts[0] for candidate in members]
        candidates.append(_candidate(name, parts, pass_solver.combined(parts), each, score, fixed))
    return candidates


def _refined(
    pass_solver: PassSolver, each: Pass, candidates: Sequence[Candidate], refine: Sequence[str], score: Score
) -> list[Candidate]:
    """Refine the best candidates in every way but "none"."""
    kinds = [kind for kind in refine if kind != "none"]
    if not kinds:
        return []
    assert isinstance(pass_solver, KernelPass)
    refined_candidates = []
    for best in ranked(candidates, score.n_scored(each.train))[:N_REFINED]:
        for judged in pass_solver.refined(best.parts, kinds):
            name = f"{best.name}, refined: {judged.setting.refine}"
            refined_candidates.append(_candidate(name, best.parts, judged, each, score, fixed=False))
    return refined_candidates


def _candidate(
    name: str, parts: Sequence[Part], judged: Judged, each: Pass, score: Score, fixed: bool = True
) -> Candidate:
    value = score(judged.inner, each.train)
    return Candidate(name, tuple(parts), judged.setting, value, judged.inner, judged.outer, fixed)


def _best(judged: Sequence[Judged], each: Pass, score: Score) -> Judged:
    return max(judged, key=lambda j: score(j.inner, each.train))


def _combinations(singles: Sequence[Candidate], normalise: str) -> list[tuple[str, list[Candidate], bool]]:
    """Return (name, layers, fixed) of each combination of two layers or more."""
    sets: dict[str, list[Candidate]] = {}
    for candidate in singles:
        sets.setdefault(candidate.parts[0].source.features, []).append(candidate)
    combinations = [
        (_named(f"{name}, {len(own)} layers", normalise), own, True) for name, own in sets.items() if len(own) > 1
    ]
    if len(sets) > 1:
        combinations.append((_named(f"all {len(singles)} layers", normalise), list(singles), True))
    ranked = sorted(singles, key=lambda candidate: -candidate.score)
    name_sets = {frozenset(c.name for c in own) for _, own, _ in combinations}
    for n in TOPS:
        if n < len(ranked) and frozenset(c.name for c in ranked[:n]) not in name_sets:
            combinations.append((_named(f"best {n}", normalise), ranked[:n], False))
    return combinations


def _named(name: str, normalise: str) -> str:
    return name if normalise == "none" else f"{name}, {normalise}-normalised"
