"""Attempts to make a probe better on small corpora, the bad ideas too: the table of docs/small-corpora.md.

    python -m benchmarks.attempts -m corpus.csv -s store --features a@1+2,b@3 [--only plain,nap] [--json FILE]

Each attempt changes the rows in one way, and fits a ridge regression with balanced classes on the mean of the layers'
kernels, over the folds of the column `fold`. Nothing is chosen inside the folds, and every attempt is scored on all of
them. So the figures compare ideas; the best of them does not estimate the score on another corpus.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from deepser.probes.problem import Problem
from deepser.probes.ridge import class_weights
from deepser.probes.rows import PooledRows, sources_of
from deepser.probes.select import scorer
from deepser.probes.standardise import standardisation
from deepser.training.normalise import Groups, GroupStatistics
from deepser.training.targets import Targets
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import speaker_groups
from featurestore.runtime.durable import replace_text
from featurestore.store.feature_store import FeatureStore

Rows = NDArray[np.float32]
SHRINKAGE = 5.0


@dataclass(frozen=True)
class Corpus:
    """Pooled rows by layer, (N, D) each, and codes of speakers, labels and folds, (N,) int64 each."""

    layers: list[Rows]
    labels: NDArray[np.int64]
    speakers: NDArray[np.int64]
    folds: NDArray[np.int64]
    groups: Groups
    problem: Problem


# (corpus, rows, training utterances) -> the rows of all utterances
Change = Callable[[Corpus, Rows, NDArray[np.int64]], Rows]


@dataclass(frozen=True)
class Attempt:
    """An idea: how rows are changed, how many copies of which kind are learned beside them, penalty and kernel.

    kernel: a name of `KERNELS`.
    """

    about: str
    change: Change = lambda corpus, rows, train: rows
    copies: int = 0
    penalty: float = 0.03
    bandwidth: float = 1.0
    kernel: str = "rbf"
    mixed: bool = False  # copies are mixed clips instead of restyled ones


def standard(rows: Rows, train: NDArray[np.int64]) -> Rows:
    """Standardise rows with the statistics of the training utterances."""
    mean, inverse_std = standardisation(rows[train])
    return (rows - mean) * inverse_std


def half(first: bool) -> Change:
    """Return the change that keeps the means alone (`first`), or the deviations alone."""

    def change(corpus: Corpus, rows: Rows, train: NDArray[np.int64]) -> Rows:
        middle = rows.shape[1] // 2
        return rows[:, :middle] if first else rows[:, middle:]

    return change


def by_speaker(corpus: Corpus, rows: Rows, train: NDArray[np.int64]) -> Rows:
    """Normalise by each speaker's own statistics, as `--normalise speaker` does: speaker-adapted."""
    return GroupStatistics.of(rows, corpus.groups, SHRINKAGE).apply(rows, corpus.groups.codes)


def without_speakers(n: int) -> Change:
    """Project out n directions in which training speakers differ (NAP, Solomonoff et al. 2005)."""

    def change(corpus: Corpus, rows: Rows, train: NDArray[np.int64]) -> Rows:
        z = standard(rows, train)
        speakers = corpus.speakers[train]
        means = np.stack([z[train][speakers == speaker].mean(0) for speaker in np.unique(speakers)])
        directions = np.linalg.svd(means - means.mean(0), full_matrices=False)[2][:n]
        return np.asarray(z - (z @ directions.T) @ directions, np.float32)

    return change


def whitened(within_speakers: bool) -> Change:
    """Whiten by the covariance within classes, its eigenvalues raised by 1 (WCCN, Hatch et al. 2006).

    within_speakers: by that within speakers instead, which no label takes part in.
    """

    def change(corpus: Corpus, rows: Rows, train: NDArray[np.int64]) -> Rows:
        z = standard(rows, train)
        within, codes = z[train].copy(), (corpus.speakers if within_speakers else corpus.labels)[train]
        for code in np.unique(codes):
            within[codes == code] -= within[codes == code].mean(0)
        values, vectors = np.linalg.eigh(within.T @ within / len(within))
        return np.asarray(z @ vectors / np.sqrt(np.maximum(values, 0) + 1), np.float32)

    return change


def discriminants(corpus: Corpus, rows: Rows, train: NDArray[np.int64]) -> Rows:
    """Project on the directions between classes, whitened within them (two-covariance PLDA's space, Ioffe 2006)."""
    z = standard(rows, train)
    labels = corpus.labels[train]
    means = np.stack([z[train][labels == label].mean(0) for label in np.unique(labels)])
    within = z[train] - means[np.unique(labels, return_inverse=True)[1]]
    values, vectors = np.linalg.eigh(within.T @ within / len(within))
    whitening = vectors / np.sqrt(np.maximum(values, 0) + 1)
    directions = np.linalg.svd((means - means.mean(0)) @ whitening, full_matrices=False)[2][: len(means) - 1]
    return np.asarray(z @ whitening @ directions.T, np.float32)


def coral(corpus: Corpus, rows: Rows, train: NDArray[np.int64]) -> Rows:
    """Give the training rows the mean and covariance of the judged clips, without labels (CORAL, Sun et al. 2016)."""
    z = standard(rows, train)
    judged = np.setdiff1d(np.arange(len(z)), train)

    def root(of: NDArray[np.int64], power: float) -> NDArray[np.float64]:
        centred = z[of] - z[of].mean(0)
        values, vectors = np.linalg.eigh(centred.T @ centred / len(of) + np.eye(z.shape[1]))
        return np.asarray((vectors * values**power) @ vectors.T)

    moved = z.copy()
    moved[train] = (z[train] - z[train].mean(0)) @ root(train, -0.5) @ root(judged, 0.5) + z[judged].mean(0)
    return np.asarray(moved, np.float32)


ATTEMPTS = {
    "plain": Attempt("means and deviations over time"),
    "penalty": Attempt("penalty 0.1 in place of 0.03", penalty=0.1),
    "narrow": Attempt("bandwidth 0.7 in place of 1", bandwidth=0.7),
    "wide": Attempt("bandwidth 2", bandwidth=2.0),
    "means": Attempt("means alone", half(True)),
    "deviations": Attempt("deviations alone", half(False)),
    "nap1": Attempt("without the first direction of speakers", without_speakers(1)),
    "nap5": Attempt("without five directions of speakers", without_speakers(5)),
    "nap12": Attempt("without twelve directions of speakers", without_speakers(12)),
    "wccn": Attempt("whitened within classes", whitened(within_speakers=False)),
    "within-speakers": Attempt("whitened within speakers", whitened(within_speakers=True)),
    "laplace": Attempt("Laplacian kernel", kernel="laplace"),
    "arc-cosine": Attempt("arc-cosine kernel of degree 1", kernel="arc-cosine"),
    "arc-cosine-2": Attempt("arc-cosine kernel of degree 1, twice", kernel="arc-cosine-2"),
    "discriminants": Attempt("projected on the discriminants between classes, in place of all columns", discriminants),
    "coral": Attempt("training rows with the covariance of the judged clips: adapted to them", coral),
    "mixed": Attempt("and each clip mixed with one of its class by another training speaker", copies=1, mixed=True),
    "restyled": Attempt("and a copy of each clip in another training speaker's mean and deviation", copies=1),
    "speaker": Attempt("by each speaker's own statistics: speaker-adapted", by_speaker),
}


def restyled(corpus: Corpus, rows: Rows, train: NDArray[np.int64], copy: int) -> Rows:
    """Return training rows (n, D) with the mean and deviation of another training speaker, drawn at random."""
    speakers = corpus.speakers[train]
    names, codes = np.unique(speakers, return_inverse=True)
    means = np.stack([rows[train][speakers == name].mean(0) for name in names])
    deviations = np.stack([rows[train][speakers == name].std(0) for name in names]) + 1e-3
    others = np.random.default_rng((7, copy)).integers(0, len(names), len(train))
    moved = (rows[train] - means[codes]) / deviations[codes] * deviations[others] + means[others]
    return np.asarray(moved, np.float32)


def mixed(corpus: Corpus, rows: Rows, train: NDArray[np.int64], copy: int) -> Rows:
    """Return training rows (n, D), each averaged with one of its class by another speaker, if there is one."""
    rng = np.random.default_rng((8, copy))
    labels, speakers = corpus.labels[train], corpus.speakers[train]
    partners = [
        np.flatnonzero((labels == label) & (speakers != own)) for label, own in zip(labels, speakers, strict=True)
    ]
    chosen = [int(rng.choice(each)) if len(each) else i for i, each in enumerate(partners)]
    return np.asarray((rows[train] + rows[train][chosen]) / 2, np.float32)


def rbf(a: Rows, b: Rows, bandwidth: float) -> NDArray[np.float64]:
    """Return exp(-|x - y|^2 / (2 bandwidth^2 D)), (n, m)."""
    distances = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * (a @ b.T)
    return np.asarray(np.exp(np.maximum(distances, 0) / (-2 * bandwidth**2 * a.shape[1])), np.float64)


def laplace(a: Rows, b: Rows, bandwidth: float) -> NDArray[np.float64]:
    """Return exp(-|x - y|_1 / (bandwidth D)), (n, m)."""
    return np.asarray(np.exp(-cdist(a, b, "cityblock") / (bandwidth * a.shape[1])), np.float64)


def arc_cosine(times: int) -> Callable[[Rows, Rows, float], NDArray[np.float64]]:
    """Return the arc-cosine kernel of degree 1 of itself, so often (Cho & Saul 2009, equations 6 and 11).

    Divided by the norms, so that an utterance has 1 with itself; it has no bandwidth.
    """

    def kernel(a: Rows, b: Rows, bandwidth: float) -> NDArray[np.float64]:
        norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
        cosines = np.asarray(a @ b.T / np.maximum(norms, 1e-9), np.float64)
        for _ in range(times):
            angles = np.arccos(np.clip(cosines, -1, 1))
            cosines = (np.sin(angles) + (np.pi - angles) * np.cos(angles)) / np.pi
        return cosines

    return kernel


KERNELS = {"rbf": rbf, "laplace": laplace, "arc-cosine": arc_cosine(1), "arc-cosine-2": arc_cosine(2)}


def scores(corpus: Corpus, attempt: Attempt) -> NDArray[np.float32]:
    """Return the scores (N, C) of every utterance, by the model fitted on the other folds."""
    n_classes, kernel = corpus.problem.n_classes, KERNELS[attempt.kernel]
    outputs = np.zeros((len(corpus.labels), n_classes), np.float32)
    for fold in np.unique(corpus.folds):
        train, judged = np.flatnonzero(corpus.folds != fold), np.flatnonzero(corpus.folds == fold)
        n_learned = len(train) * (attempt.copies + 1)
        learned, across = np.zeros((n_learned, n_learned)), np.zeros((len(judged), n_learned))
        for rows in corpus.layers:
            x = standard(attempt.change(corpus, rows, train), train)
            copied = mixed if attempt.mixed else restyled
            learned_rows = np.concatenate([x[train], *(copied(corpus, x, train, i) for i in range(attempt.copies))])
            learned += kernel(learned_rows, learned_rows, attempt.bandwidth) / len(corpus.layers)
            across += kernel(x[judged], learned_rows, attempt.bandwidth) / len(corpus.layers)
        targets = np.tile(np.eye(n_classes)[corpus.labels[train]], (attempt.copies + 1, 1))
        weights = class_weights(targets)
        mean = weights @ targets / weights.sum()
        dual = np.linalg.solve(learned + np.diag(attempt.penalty / weights), np.c_[targets, np.ones(len(targets))])
        predicted = across @ dual
        outputs[judged] = predicted[:, :-1] - predicted[:, -1:] * mean + mean
    return outputs


def run(corpus: Corpus, names: list[str]) -> Iterator[tuple[str, float]]:
    """Yield each attempt's UAR."""
    score = scorer(corpus.problem, "uar")
    for name in names:
        yield name, score(scores(corpus, ATTEMPTS[name]), np.arange(len(corpus.labels)))


def read(manifest: Manifest, store: FeatureStore, features: list[str]) -> Corpus:
    """Read the labelled utterances of a manifest."""
    manifest = manifest.rows(Targets.from_manifest(manifest).labels >= 0)
    problem = Problem.of(Targets.from_manifest(manifest))
    pooled = PooledRows(store, problem.keys)
    speakers = speaker_groups(manifest)
    return Corpus(
        [pooled.read(source) for source in sources_of(store, features)],
        problem.labels,
        np.unique(speakers, return_inverse=True)[1].astype(np.int64),
        np.unique(manifest.column("fold").astype(str), return_inverse=True)[1].astype(np.int64),
        Groups.of(speakers.tolist()),
        problem,
    )


def main() -> None:
    """Print UAR in % of every attempt, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for names in (("-m", "--manifest"), ("-s", "--store"), ("--features",)):
        parser.add_argument(*names, required=True)
    parser.add_argument("--only", default=",".join(ATTEMPTS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    manifest = Manifest.read(arguments.manifest)
    corpus = read(manifest, FeatureStore.open(arguments.store), arguments.features.split(","))
    results = {}
    for name, uar in run(corpus, arguments.only.split(",")):
        results[name] = {"about": ATTEMPTS[name].about, "uar": uar}
        print(f"{100 * uar:5.1f}  {name}: {ATTEMPTS[name].about}", flush=True)
    if arguments.json:
        text = json.dumps({"corpus": manifest.name, "features": arguments.features, "attempts": results}, indent=1)
        replace_text(arguments.json, text + "\n")


if __name__ == "__main__":
    main()
