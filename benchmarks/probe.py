"""Probes against their peers: seconds and UAR of a sweep over layers, and a large synthetic corpus in bounded memory.

    python -m benchmarks.probe layers -m corpus.csv -s store --features a,b --cv fold [--share 0.05] [--json FILE]
    python -m benchmarks.probe large [--utterances 120000] [--layers 25] [--dim 2048] [--json FILE]

`layers` times `medusa probe`'s nested sweep, and on the same standardised rows, layers and folds scikit-learn's
LogisticRegression (lbfgs), RidgeClassifierCV and SVC on precomputed RBF kernels, each with a grid of as many values of
its penalty chosen in the same inner folds. --share: the part of the (layer, fold) pairs that a peer is timed on, drawn
evenly; its seconds are scaled up to all pairs, and its UAR is that of the timed pairs.
"""

import argparse
import json
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepser.members.folds import plan_folds
from deepser.probes.config import ProbeConfig
from deepser.probes.fit import RBF_PENALTIES, fit_probe
from deepser.probes.problem import Pass, Passes, Problem, passes_of
from deepser.probes.rows import PooledRows, sources_of
from deepser.probes.select import scorer
from deepser.probes.standardise import standardisation
from deepser.training.targets import Targets
from featurestore.corpus.manifest import Manifest
from featurestore.corpus.splits import speaker_groups
from featurestore.format.spec import FeatureSpec
from featurestore.runtime.durable import replace_text
from featurestore.store.feature_store import FeatureStore

CS = (0.001, 0.01, 0.1)[: len(RBF_PENALTIES)]
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]  # (x, y, x of others, penalty) -> classes


def logistic(x: np.ndarray, y: np.ndarray, others: np.ndarray, c: float) -> np.ndarray:
    """Return the classes that LogisticRegression predicts."""
    from sklearn.linear_model import LogisticRegression

    return np.asarray(LogisticRegression(C=c, class_weight="balanced", max_iter=1000).fit(x, y).predict(others))


def svc(x: np.ndarray, y: np.ndarray, others: np.ndarray, c: float) -> np.ndarray:
    """Return the classes that a support vector machine on precomputed kernels predicts."""
    from sklearn.metrics.pairwise import rbf_kernel
    from sklearn.svm import SVC

    gamma = 0.5 / x.shape[1]
    machine = SVC(C=1000 * c, kernel="precomputed", class_weight="balanced").fit(rbf_kernel(x, gamma=gamma), y)
    return np.asarray(machine.predict(rbf_kernel(others, x, gamma=gamma)))


def ridge_cv(x: np.ndarray, y: np.ndarray, others: np.ndarray, c: float) -> np.ndarray:
    """Return the classes that RidgeClassifierCV predicts; it ignores `c` and chooses a penalty by leave-one-out."""
    from sklearn.linear_model import RidgeClassifierCV

    return np.asarray(RidgeClassifierCV([1 / each for each in CS], class_weight="balanced").fit(x, y).predict(others))


PEERS: dict[str, tuple[Fit, bool]] = {
    "RidgeClassifierCV": (ridge_cv, False), "SVC": (svc, True), "LogisticRegression": (logistic, True),
}  # fmt: skip


def sweep(
    fit: Fit, nested: bool, problem: Problem, passes: Passes, rows: PooledRows, features: list[str], share: float
) -> tuple[float, float, int, int]:
    """Return seconds, mean UAR and number of the (layer, fold) pairs that were run, and the number of all pairs."""
    pairs: list[tuple[Any, Pass]] = [(s, outer) for s in sources_of(rows.store, features) for outer in passes.outer]
    chosen = np.unique(np.linspace(0, len(pairs) - 1, max(2, round(share * len(pairs)))).astype(int))
    score = scorer(problem, "uar")
    uars, start = [], time.perf_counter()
    for source, outer in (pairs[i] for i in chosen):
        x = rows.read(source)
        mean, inverse_std = standardisation(x[outer.train])
        x = (x - mean) * inverse_std
        y, best = problem.labels, CS[0]
        if nested:
            inner = {}
            for c in CS:
                predicted = np.empty(len(outer.train), np.int64)
                for fold in range(outer.n_inner):
                    held_out = outer.inner == fold
                    predicted[held_out] = fit(
                        x[outer.train[~held_out]], y[outer.train[~held_out]], x[outer.train[held_out]], c
                    )
                inner[c] = score(np.eye(problem.n_classes, dtype=np.float32)[predicted], outer.train)
            best = max(inner, key=lambda c: inner[c])
        guess = fit(x[outer.train], y[outer.train], x[outer.judged], best)
        uars.append(score(np.eye(problem.n_classes, dtype=np.float32)[guess], outer.judged))
    return time.perf_counter() - start, float(np.mean(uars)), len(chosen), len(pairs)


def layers(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the table of one corpus."""
    store, manifest = FeatureStore.open(arguments.store), Manifest.read(arguments.manifest)
    plan, features = plan_folds(manifest, cv=arguments.cv), arguments.features.split(",")
    start = time.perf_counter()
    result = fit_probe(store, manifest, ProbeConfig("p", tuple(features)), plan, device="cpu")
    seconds = time.perf_counter() - start
    all_rows = np.arange(len(result.problem.keys))
    score = scorer(result.problem, "uar")
    table = [{"system": "medusa probe, nested, with combinations", "seconds": seconds,
              "uar": score(result.nested.scores, all_rows), "timed": 1.0}]  # fmt: skip
    singles = [score(system.scores, all_rows) for system in result.systems if system.source is not None]
    table[0]["mean_uar_of_layers"] = float(np.mean(singles))
    about = {"corpus": manifest.name, "layers": len(singles), "folds": len(plan.names), "rows": table}
    show_last(about, arguments.json)
    problem = Problem.of(Targets.from_manifest(manifest))
    passes = passes_of(problem, plan, speaker_groups(manifest))
    rows = PooledRows(store, problem.keys)
    for name, (fit, nested) in ((name, PEERS[name]) for name in arguments.peers.split(",")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spent, uar, n, of = sweep(fit, nested, problem, passes, rows, features, arguments.share)
        scaled = spent * of / n
        table.append({"system": name, "seconds": scaled, "mean_uar_of_layers": uar, "timed": n / of,
                      "times_slower": scaled / seconds})  # fmt: skip
        show_last(about, arguments.json)
    return about


def show_last(result: dict[str, Any], path: Path | None) -> None:
    """Print the last row and write all rows, so that a stopped run loses none."""
    print(json.dumps(result["rows"][-1]), flush=True)
    if path is not None:
        replace_text(path, json.dumps(result | {"cpus": os.cpu_count()}, indent=1) + "\n")


class SyntheticRows:
    """Rows of N utterances that are drawn anew at each read, so that they take no memory."""

    def __init__(self, labels: np.ndarray, dim: int) -> None:
        self.labels, self._dim = labels, dim

    def read(self, source: Any) -> np.ndarray:
        return self.part(source, np.arange(len(self.labels)))

    def part(self, source: Any, indices: np.ndarray) -> np.ndarray:
        """Return noise plus a direction for each class, which is stronger in the middle layers."""
        layer = int(source.layer.removeprefix("layer_"))
        centres = np.random.default_rng((1, layer)).normal(size=(8, self._dim)).astype(np.float32)
        # Uniform from bytes, of variance one: drawing normal numbers would take longer than the probe.
        rng = np.random.Generator(np.random.SFC64((2, layer, int(indices[0]))))
        rows: np.ndarray = rng.integers(-128, 128, (len(indices), self._dim), np.int8) * np.float32(1 / 73.9)
        rows += np.float32(0.02) * centres[self.labels[indices]]
        return rows

    def dim(self, source: Any) -> int:
        return self._dim


def stored(directory: Path, n: int, n_layers: int, dim: int, labels: np.ndarray) -> FeatureStore:
    """Return the synthetic rows as a stored pooled set, float16."""
    from deepser.probes.rows import Source

    rows, step = SyntheticRows(labels, dim), 2000
    store = FeatureStore.create(directory / "store")
    names = tuple(f"layer_{i:02d}" for i in range(n_layers))
    spec = FeatureSpec("audio", "synthetic", "none", names, dim, pool="mean+std")
    with store.writer("synthetic", spec) as writer:
        for start in range(0, n, step):
            indices = np.arange(start, min(start + step, n))
            block = np.stack([rows.part(Source("synthetic", name), indices) for name in names], 1).astype(np.float16)
            for i, key in enumerate(indices):
                writer.append(f"u{key:07d}", block[i][:, None])
    return store


def _print_layer(system: str, done: int, start: float) -> None:
    """Print the seconds and the peak memory before each layer of the first pass, in which all work is done."""
    if not done:
        peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{system}: after {time.perf_counter() - start:.0f} s, {time.process_time():.0f} s of CPU time in all, "
              f"at most {peak_gb:.2f} GB", flush=True)  # fmt: skip


def large(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds and the peak memory of a nested probe over all layers of a large corpus, five folds."""
    n, n_layers, dim = arguments.utterances, arguments.layers, arguments.dim
    labels = np.random.default_rng(0).integers(0, 8, n)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        store = stored(Path(directory), n, n_layers, dim, labels)
        import pandas as pd

        frame = pd.DataFrame({"utterance_id": [f"u{i:07d}" for i in range(n)], "path": "x.wav"})
        frame["label"] = [f"class{label}" for label in labels]
        frame["speaker"] = [f"s{i % 1000}" for i in range(n)]
        frame["fold"] = [str(i % 1000 % 5) for i in range(n)]
        manifest = Manifest.from_pandas(frame)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, cpu_start = time.perf_counter(), time.process_time()
        result = fit_probe(
            store, manifest, ProbeConfig("p", ("synthetic",)), plan_folds(manifest, cv="fold"), device=arguments.device,
            progress=lambda what, i, of: _print_layer(what, i, start),
        )  # fmt: skip
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    score = scorer(result.problem, "uar")
    return {
        "utterances": n, "layers": n_layers, "dim": dim, "seconds": seconds, "cpu_seconds": cpu_seconds,
        "device": arguments.device,
        "uar": score(result.nested.scores, np.arange(n)), "cores": torch.get_num_threads(),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, "peak_gb_before": before / 1e6,
    }  # fmt: skip


def main() -> None:
    """Run one of the two measurements, print its result, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    layers_parser = kinds.add_parser("layers")
    for names in (("-m", "--manifest"), ("-s", "--store"), ("--features",)):
        layers_parser.add_argument(*names, required=True)
    layers_parser.add_argument("--cv", default="fold")
    layers_parser.add_argument("--share", type=float, default=1.0)
    layers_parser.add_argument("--peers", default=",".join(PEERS))
    large_parser = kinds.add_parser("large")
    large_parser.add_argument("--utterances", type=int, default=120_000)
    large_parser.add_argument("--layers", type=int, default=25)
    large_parser.add_argument("--dim", type=int, default=2048)
    large_parser.add_argument("--device", default="cpu")
    large_parser.add_argument("--directory", default=None)
    for subparser in (layers_parser, large_parser):
        subparser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = {"layers": layers, "large": large}[arguments.kind](arguments) | {"cpus": os.cpu_count()}
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.json:
        replace_text(arguments.json, text + "\n")


if __name__ == "__main__":
    main()
