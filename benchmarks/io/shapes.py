"""Warm reading of rows of other shapes and types, one thread, each beside its own floor on the same batches.

Short and narrow utterances, long and wide ones, and 25 layers of pooled rows; float16 as it is, int8 to float16, and
float16 widened to float32. Floors: memcpy of each utterance from memory into an aligned buffer, and for float32 a plain
compiled widening loop, utterance by utterance, into an aligned buffer; for pooled rows, which numpy would be called for
one by one, `np.take` of all layers, and the widening loop behind it. Every batch is compared with the floor's first;
repeats are interleaved, medians are told.

Run: python -m benchmarks.io.shapes --json benchmarks/results/shapes.json
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.format.spec import FeatureSpec
from featurestore.loaders.row_reader import Buffer
from featurestore.rows.aligned import aligned_empty
from featurestore.rows.kernels import decode_rows
from featurestore.runtime.durable import replace_text
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore

from .rows import FRAME_RATE_HZ, Batch, Rows, Shape

SHAPES = {(2.0, 256): "2 s x 256", (5.5, 1024): "5.5 s x 1024", (12.0, 1280): "12 s x 1280"}
N_LAYERS, POOLED_DIM = 25, 1024
BATCH = 32
LAYERS = tuple(f"layer_{i:02d}" for i in range(N_LAYERS))

# Reads all batches; returns the bytes of what it wrote.
Pass = Callable[[], int]


def run(directory: Path, *, n_bytes: int, repeats: int) -> list[dict[str, Any]]:
    """Return a record per shape and way: GB/s written, the floor's, and the ratio; n_bytes: of each shape's rows."""
    records: list[dict[str, Any]] = []
    for (mean_s, dim), name in SHAPES.items():
        n = max(BATCH, round(n_bytes / (mean_s * FRAME_RATE_HZ * dim * 2)))
        rows = Rows.random(Shape(n, dim, mean_s), seed=0)
        written = _write(directory / f"{mean_s}x{dim}", rows)
        records += _measure(name, _packed_passes(written, rows), repeats)
    n = max(BATCH, round(n_bytes / (N_LAYERS * POOLED_DIM * 2)))
    records += _measure(f"{N_LAYERS} layers pooled", _pooled_passes(directory / "pooled", n), repeats)
    return records


def _write(directory: Path, rows: Rows) -> dict[str, FeatureSet]:
    store = FeatureStore.create(directory)
    for dtype in ("float16", "int8"):
        spec = FeatureSpec("audio", "random", "none", LAYERS[:1], rows.dim, FRAME_RATE_HZ, dtype)
        with store.writer(dtype, spec) as writer:
            for i, key in enumerate(rows.keys):
                writer.append(key, [rows.of(i)])
    return {name: store[name] for name in ("float16", "int8")}


def _packed_passes(sets: dict[str, FeatureSet], rows: Rows) -> dict[str, tuple[Pass, Pass]]:
    """Return (ours, floor) of each way of reading."""
    batches = rows.random_batches(BATCH, 0, 0)
    largest = rows.largest_batch(BATCH)
    half, floats = (aligned_empty((largest, rows.dim), dtype) for dtype in ("float16", "float32"))

    def gathered(features: FeatureSet, out: np.ndarray) -> Pass:
        return lambda: sum(features.gather(batch.keys, out=out).values.nbytes for batch in batches)

    def floor(out: np.ndarray, put: Callable[[np.ndarray, np.ndarray], object]) -> Pass:
        return lambda: sum(_by_utterance(rows, batch, out, put) for batch in batches)

    copied, widened = floor(half, _copy), floor(floats, _widen)
    for batch in batches:
        _by_utterance(rows, batch, floats, _widen)
        expected = floats[: batch.n_rows].copy()
        np.testing.assert_array_equal(sets["float16"].gather(batch.keys, out=floats).values, expected)
        np.testing.assert_array_equal(sets["float16"].gather(batch.keys, out=half).values, expected.astype(np.float16))
    return {
        "float16": (gathered(sets["float16"], half), copied),
        "float16 to float32": (gathered(sets["float16"], floats), widened),
        "int8 to float16": (gathered(sets["int8"], half), copied),
    }


def _copy(source: np.ndarray, target: np.ndarray) -> None:
    np.copyto(target, source)


def _widen(source: np.ndarray, target: np.ndarray) -> None:
    decode_rows(source, None, target)


def _by_utterance(rows: Rows, batch: Batch, out: np.ndarray, put: Callable[[np.ndarray, np.ndarray], object]) -> int:
    first = 0
    for i in batch.numbers:
        source = rows.of(i)
        put(source, out[first : first + len(source)])
        first += len(source)
    return first * rows.dim * out.itemsize


def _pooled_passes(directory: Path, n: int) -> dict[str, tuple[Pass, Pass]]:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 0x3C00, (N_LAYERS, n, POOLED_DIM), dtype=np.uint16).view(np.float16)
    keys = [f"utterance-{i:06d}" for i in range(n)]
    store = FeatureStore.create(directory)
    spec = FeatureSpec("audio", "random", "none", LAYERS, POOLED_DIM, FRAME_RATE_HZ, "float16")
    with store.writer("pooled", spec) as writer:
        for i, key in enumerate(keys):
            writer.append(key, values[:, i : i + 1])
    features = store["pooled"]
    order = rng.permutation(n // BATCH * BATCH).tolist()  # whole batches
    half = aligned_empty((N_LAYERS, BATCH, POOLED_DIM), "float16")
    batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    named = [[keys[i] for i in batch] for batch in batches]
    passes: dict[str, tuple[Pass, Pass]] = {}
    for dtype, way in (("float16", "float16"), ("float32", "float16 to float32")):
        out, buffer = aligned_empty((N_LAYERS, BATCH, POOLED_DIM), dtype), Buffer()

        def read(batch: Sequence[str], dtype: str = dtype, buffer: Buffer = buffer) -> int:
            return features.read_layers(batch, LAYERS, dtype, memory=buffer.take).values.nbytes

        def taken(batch: Sequence[int], dtype: str = dtype, out: np.ndarray = out) -> int:
            part, size = half[:, : len(batch)], N_LAYERS * len(batch) * POOLED_DIM
            np.take(values, batch, axis=1, out=part, mode="clip")
            if dtype == "float32":
                decode_rows(half.reshape(-1, POOLED_DIM), None, out.reshape(-1, POOLED_DIM))
            return size * out.itemsize

        for numbers, keys_of in zip(batches, named, strict=True):
            found = features.read_layers(keys_of, LAYERS, dtype, memory=buffer.take).values
            np.testing.assert_array_equal(found, values[:, numbers].astype(dtype))
        passes[way] = (
            partial(_total, read, named),
            partial(_total, taken, batches),
        )
    return passes


def _total(read: Callable[[Any], int], batches: Sequence[Any]) -> int:
    return sum(read(batch) for batch in batches)


def _measure(shape: str, passes: dict[str, tuple[Pass, Pass]], repeats: int) -> list[dict[str, Any]]:
    seconds: dict[tuple[str, int], list[float]] = {}
    n_bytes: dict[tuple[str, int], int] = {}
    for repeat in range(-1, repeats):
        for way, pair in passes.items():
            for which in (0, 1) if repeat % 2 else (1, 0):
                started = time.perf_counter()
                n_bytes[way, which] = pair[which]()
                if repeat >= 0:
                    seconds.setdefault((way, which), []).append(time.perf_counter() - started)
    records = []
    for way in passes:
        ours, floor = (n_bytes[way, k] / statistics.median(seconds[way, k]) / 1e9 for k in (0, 1))
        records.append({"shape": shape, "way": way, "gb_per_s": ours, "floor_gb_per_s": floor, "ratio": ours / floor})
    return records


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """Return the records as a Markdown table."""
    lines = ["| utterances | rows | GB/s | its floor | of the floor |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {r['shape']} | {r['way']} | {r['gb_per_s']:.2f} | {r['floor_gb_per_s']:.2f} | {r['ratio']:.2f} |"
        for r in records
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=float, default=200, help="of each shape's rows, as float16")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write every figure there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="medusa-bench-shapes-") as directory:
        records = run(Path(directory), n_bytes=round(given.megabytes * 1e6), repeats=given.repeats)
    print(markdown(records))
    if given.json:
        replace_text(given.json, json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
