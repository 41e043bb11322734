"""Utterances as points of a plane, from their features or from a system's posteriors."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from deepser.probes.rows import PooledRows, sources_of
from ensemble.evaluation.align import PREFIX
from ensemble.evaluation.system import System
from ensemble.report.packing import pack
from featurestore.errors import ConfigError
from featurestore.store.feature_store import FeatureStore

METHODS = ("pca", "tsne", "umap")
TSNE_UTTERANCES = 1000  # up to which t-SNE is drawn unasked: at 1,440 utterances it takes some 8 s of one core
N_COMPONENTS = 50  # that t-SNE and UMAP start from
STEPS = 65_535


def methods_of(names: Sequence[str] | None, n: int) -> list[str]:
    """Return the methods that are asked for; None: PCA, and t-SNE where N utterances are few enough.

    ConfigError for an unknown one, and for UMAP where umap-learn is not installed.
    """
    if names is None:
        return ["pca", "tsne"] if n <= TSNE_UTTERANCES else ["pca"]
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise ConfigError(f"--projections {unknown[0]!r}: expected some of {', '.join(METHODS)}.")
    if "umap" in names and find_spec("umap") is None:
        raise ConfigError("--projections umap needs the package umap-learn: pip install 'medusa-ser[maps]'.")
    return list(dict.fromkeys(("pca", *names)))


def can_be_mapped(system: System) -> bool:
    """Return whether what a system predicts is enough for a plane."""
    return system.probabilities is not None or len(system.attributes) > 1


def maps(
    store: FeatureStore | None,
    keys: Sequence[str],
    systems: Sequence[System],
    names: Sequence[str],
    methods: Sequence[str],
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Return {"name", "method", "note", "x", "y"} of each set of rows and method.

    names: feature sets, a layer after @ ("wavlm-large@12"; by default the last), or systems. x and y
    are packed, in one scale. Every utterance must have rows: StoreError or AlignmentError names those that lack them.
    """
    maps = []
    for name in names:
        progress(f"projecting {name}")
        rows, description = _rows(store, keys, systems, name)
        components, shares = pca(rows, min(N_COMPONENTS, *rows.shape))
        for method in methods:
            progress(f"projecting {name} by {method}")
            if method == "pca":
                points = components[:, :2]
                note = f"{description}; two components, {100 * shares[:2].sum():.0f} % of the variance"
            elif len(rows) < 4 or not components.any():  # nothing to spread
                continue
            else:
                points = tsne(components, seed) if method == "tsne" else umap(components, seed)
                note = f"{description}; distances between clusters mean little"
            maps.append({"name": name, "method": method, "note": note, **_packed(points)})
    return maps


def _rows(
    store: FeatureStore | None, keys: Sequence[str], systems: Sequence[System], name: str
) -> tuple[np.ndarray, str]:
    for system in systems:
        if name in (system.name, system.name.removeprefix(PREFIX)):
            outputs = system.of(keys)
            if not can_be_mapped(system):
                raise ConfigError(
                    f"--map {name}: {system.name!r} has neither probabilities nor two attributes; name a feature set."
                )
            if outputs.probabilities is None:
                spread = outputs.values.std(0)
                return outputs.values / np.where(spread > 0, spread, 1), "predicted attributes, standardised"
            # The Euclidean distance of square roots is Hellinger's between the distributions, but for a factor.
            return np.sqrt(outputs.probabilities.astype(np.float64)), "square roots of the probabilities"
    if store is None:
        raise ConfigError(f"--map {name}: no system of that name, and no store; give --store.")
    sources = sources_of(store, [name])
    source = sources[-1]
    rows = PooledRows(store, keys, "mean").read(source).astype(np.float64)
    deviation = rows.std(0)
    return (rows - rows.mean(0)) / np.where(deviation > 0, deviation, 1), f"mean over time of {source}, standardised"


def pca(rows: np.ndarray, n_components: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 2 or more) principal components of (N, D) rows, and each one's share of the variance.

    scikit-learn fixes the signs, so that a map does not flip between runs.
    """
    from sklearn.decomposition import PCA

    if len(rows) < 2 or not np.ptp(rows, axis=0).any():
        return np.zeros((len(rows), 2)), np.zeros(2)
    solver = "covariance_eigh" if rows.shape[1] <= 2048 else "randomized"
    fitted = PCA(max(1, n_components), svd_solver=solver, random_state=0)
    components = fitted.fit_transform(rows)
    if components.shape[1] < 2:
        components = np.concatenate([components, np.zeros((len(rows), 1))], 1)
    return components, fitted.explained_variance_ratio_


def tsne(components: np.ndarray, seed: int) -> np.ndarray:
    """Return (N, 2) of t-SNE (van der Maaten & Hinton 2008; Barnes-Hut), started from the principal components."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(components) - 1) / 3)
    points: np.ndarray = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(components)
    return points


def umap(components: np.ndarray, seed: int) -> np.ndarray:
    """Return (N, 2) of UMAP (McInnes et al. 2018), one thread, so that the seed decides."""
    from umap import UMAP

    points: np.ndarray = UMAP(n_neighbors=min(15, len(components) - 1), random_state=seed, n_jobs=1).fit_transform(
        components
    )
    return points


def _packed(points: np.ndarray) -> dict[str, Any]:
    """Return the points as whole numbers in one scale, the longer side from end to end."""
    points = np.nan_to_num(points[:, :2])
    low = points.min(0) if len(points) else np.zeros(2)
    extent = float(np.ptp(points, axis=0).max()) if len(points) else 0.0
    scaled = np.rint((points - low) * (STEPS / extent if extent else 0))
    return {"x": pack(scaled[:, 0], "u2"), "y": pack(scaled[:, 1], "u2")}
