"""Trying an encoder on a user's own data: how long will it take, and are rows the same alone and in a batch?"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from featurestore.audio import decode
from featurestore.encoders.base import Encoder
from featurestore.errors import AudioError
from featurestore.featurize.items import Item
from featurestore.featurize.stream import iter_encode
from featurestore.sets.feature_set import FeatureSet

# Relative difference of a row, alone and in a batch, beyond which a check fails. float32: what padding costs in
# rounding (Whisper's short window with real weights reaches 3.4e-5). Reduced precision: its rounding, layer by layer.
TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
# What storing adds: half a unit in the last place of the row's largest value.
STORED_TOLERANCES = {"float32": 0.0, "float16": 2.0**-10, "bfloat16": 2.0**-7, "int8": 1 / 225}


def seconds_for(
    encoder: Encoder, items: Sequence[Item], costs: Sequence[int], *, at_least_s: float = 2.0, workers: int = 2
) -> float:
    """Return the seconds that encoding all items will take, from a trial of some of them, spread over all lengths.

    Larger and larger samples are encoded, the first one to warm up, until one takes `at_least_s`. costs: padded frames
    of each item. NaN when no item of the samples could be encoded.
    """
    order = sorted(range(len(items)), key=lambda i: costs[i])
    rate, n = float("nan"), 2
    while order:
        n = min(n, len(order))
        sample = [order[int((place + 0.5) * len(order) / n)] for place in range(n)]
        start = time.perf_counter()
        done = {
            each.key
            for each in iter_encode(encoder, [items[i] for i in sample], workers=workers)
            if each.rows is not None
        }
        elapsed = time.perf_counter() - start
        cost = sum(costs[i] for i in sample if items[i].key in done)
        if cost:
            rate = elapsed / cost
        if n == len(order) or (elapsed >= at_least_s and n > 2):
            break
        n *= 4
    return rate * sum(costs)


@dataclass(frozen=True)
class Checked:
    """One utterance of a check. Differences are relative: the largest over rows of max|a - b| / max|a|.

    in_batch: encoded alone and among the others. stored: alone and as the store has it; NaN when it has not.
    """

    key: str
    n_rows: int
    in_batch: float
    stored: float
    error: str = ""


def check_rows(
    encoder: Encoder, items: Sequence[Item], n: int, *, seed: int = 0, stored: FeatureSet | None = None
) -> list[Checked]:
    """Encode `n` random items alone, and together in one padded batch, and compare; also with what is stored."""
    rng = np.random.default_rng(seed)
    chosen = [items[i] for i in sorted(rng.choice(len(items), min(n, len(items)), replace=False).tolist())]
    inputs: list[Any] = []
    results: list[Checked] = []
    good: list[Item] = []
    for item in chosen:
        try:
            inputs.append(item.source if encoder.kind == "text" else decode(item.source))
            good.append(item)
        except AudioError as error:
            results.append(Checked(item.key, 0, float("nan"), float("nan"), str(error)))
    together = encoder.encode(inputs, max_frames=1 << 40) if inputs else []
    for item, data, batched in zip(good, inputs, together, strict=True):
        (alone,) = encoder.encode([data], max_frames=1)
        of_stored = float("nan")
        if stored is not None and item.key in stored:
            of_stored = max(
                relative_difference(rows, stored.array(item.key, layer))
                for rows, layer in zip(alone, encoder.spec.layers, strict=True)
            )
        in_batch = max(relative_difference(one, other) for one, other in zip(alone, batched, strict=True))
        results.append(Checked(item.key, alone.shape[1], in_batch, of_stored))
    return results


def tolerances(encoder: Encoder) -> tuple[float, float]:
    """Return the most that `in_batch` and `stored` of a check may be, for given precisions.

    The precisions are those of the arithmetic and of the rows.
    """
    compute = dict(encoder.spec.extra).get("compute", "float32")
    in_batch = TOLERANCES[compute]
    return in_batch, in_batch + STORED_TOLERANCES[encoder.spec.dtype]


def relative_difference(rows: np.ndarray, others: np.ndarray) -> float:
    """Largest over rows of max|a - b| / max|a|, both (T, D); infinite where the shapes differ."""
    if rows.shape != others.shape:
        return float("inf")
    if not rows.size:
        return 0.0
    wide = rows.astype(np.float64)
    scale = np.maximum(np.abs(wide).max(axis=1), np.finfo(np.float32).tiny)
    return float((np.abs(wide - others.astype(np.float64)).max(axis=1) / scale).max())
