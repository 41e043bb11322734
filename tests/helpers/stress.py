"""Many writers, readers and compactions of one feature set at once, each a process; every row that is read is checked.

    python tests/helpers/stress.py DIRECTORY --seconds 60 --start spawn

Prints counts of the work; ends with 1 and the tracebacks when a row was wrong, a key vanished, or a process raised.
"""

import argparse
import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np

from featurestore.format.spec import FeatureSpec
from featurestore.sets.feature_set import FeatureSet
from featurestore.store.feature_store import FeatureStore
from featurestore.store.verify import verify_store

NAME = "set/a"
SPEC = FeatureSpec("audio", "e", "none", ("l0", "l1"), 8)
STORAGES = [("zarr", ""), ("hdf5", ""), ("zarr", "zstd"), ("hdf5", "gzip")]
SHARED = 400  # keys that every writer tries to write
KEYS_PER_COMMIT = 25
PATIENCE_S = 120.0  # how long after the end a process may take before it counts as hanging


def rows(key: str) -> np.ndarray:
    """Return the rows (L, T, D) that a key stands for."""
    number = int(key.rpartition("/")[2]) + 31 * len(key)
    n = number % 7
    return ((np.arange(2 * n * 8) * 7 + number) % 2000).reshape(2, n, 8).astype(np.float16)


def write(path: Path, number: int, seconds: float) -> tuple[str, int]:
    """Write own keys, and shared ones that this writer doesn't see yet; return the number of its own keys."""
    deadline, rng = time.time() + seconds, np.random.default_rng(number)
    n_own = 0
    while time.time() < deadline:
        storage = STORAGES[rng.integers(len(STORAGES))]
        size = int(rng.choice([500, 3000, 1 << 20]))
        with FeatureStore.open(path).writer(
            NAME, SPEC, segment_bytes=size, format=storage[0], compress=storage[1]
        ) as w:
            for _ in range(KEYS_PER_COMMIT):
                w.append(f"w{number}/{n_own}", rows(f"w{number}/{n_own}"), n_own)
                n_own += 1
                shared = f"shared/{rng.integers(SHARED)}"
                if shared not in w:
                    w.append(shared, rows(shared))
        time.sleep(float(rng.uniform(0, 0.2)))
    return f"w{number}", n_own


def check(features: FeatureSet, keys: list[str], layer: int) -> None:
    packed = features.gather(keys, SPEC.layers[layer])
    for i, key in enumerate(keys):
        if packed[i].tobytes() != rows(key)[layer].tobytes():
            raise AssertionError(f"{key}: {packed[i].tolist()} was read, {rows(key)[layer].tolist()} expected")


def read(path: Path, number: int, seconds: float, opened: FeatureSet | None = None) -> tuple[str, int]:
    """Read random keys of the set, and keys that were seen before; return the number of utterances read."""
    deadline, rng = time.time() + seconds, np.random.default_rng(1000 + number)
    features = opened or FeatureStore.open(path)[NAME]
    seen_keys: list[str] = []
    n_read = 0
    while time.time() < deadline:
        if rng.random() < 0.05:
            features = FeatureStore.open(path)[NAME]
        if rng.random() < 0.5:
            features.refresh()
        index = features.index
        if not len(index):
            time.sleep(0.02)
            continue
        keys = [index.key(int(position)) for position in rng.integers(len(index.segment), size=16)]
        if len(seen_keys) < 2000:
            seen_keys += keys[:4]
        keys += [seen_keys[i] for i in rng.integers(len(seen_keys), size=8)]
        features.announce(keys)
        check(features, keys, int(rng.integers(2)))
        n_read += len(keys)
        if features.array(keys[0]).tobytes() != rows(keys[0])[1].tobytes():
            raise AssertionError(f"{keys[0]}: wrong rows as an array")
        time.sleep(0.001)
    return "read", n_read


def compact(path: Path, number: int, seconds: float) -> tuple[str, int]:
    """Compact the set repeatedly; return the number of merged segments."""
    deadline, rng = time.time() + seconds, np.random.default_rng(2000 + number)
    n_merged = 0
    while time.time() < deadline:
        report = FeatureStore.open(path).compact(NAME, segment_bytes=int(rng.choice([4000, 40_000, 1 << 20])))
        n_merged += report.n_before - report.n_after
        time.sleep(float(rng.uniform(0, 0.3)))
    return "compacted", n_merged


def _run(action: Callable[..., tuple[str, int]], results: "Queue[Any]", together: Any, *arguments: Any) -> None:
    try:
        together.wait(PATIENCE_S)
        results.put((*action(*arguments), ""))
    except BaseException:
        results.put((action.__name__, 0, traceback.format_exc()))


def stress(path: Path, start: str, seconds: float, writers: int, readers: int, compactions: int) -> dict[str, Any]:
    """Run all processes at once; return their counts. AssertionError: the tracebacks of those that failed or hang."""
    context = multiprocessing.get_context(start)
    values: Queue[Any] = context.Queue()
    store = FeatureStore.open_or_create(path)
    with store.writer(NAME, SPEC) as writer:
        for i in range(0, SHARED, 10):
            writer.append(f"shared/{i}", rows(f"shared/{i}"))
    features = store[NAME]
    check(features, list(features), 0)
    actions: list[tuple[Any, ...]] = [(write, path, i, seconds) for i in range(writers)]
    actions += [(compact, path, i, seconds) for i in range(compactions)]
    # Every second reader gets a set that was open before: by fork with its maps, by spawn pickled.
    actions += [(read, path, i, seconds, *([features] if i % 2 else [])) for i in range(readers)]
    together = context.Barrier(len(actions))
    processes = [context.Process(target=_run, args=(action, values, together, *rest)) for action, *rest in actions]
    for process in processes:
        process.start()
    results = []
    deadline = time.time() + seconds + 2 * PATIENCE_S
    while len(results) < len(processes) and time.time() < deadline:
        try:
            results.append(values.get(timeout=1))
        except Empty:
            if not any(process.is_alive() for process in processes):
                break
    for process in processes:
        process.join(1 if len(results) == len(processes) else 0)
        process.kill()
    failed = [trace for _, _, trace in results if trace]
    assert not failed, "\n".join(failed)
    assert len(results) == len(processes), f"{len(processes) - len(results)} processes hung or died"
    problems = {name: found for name, found in verify_store(path).items() if found}
    assert problems == {}, problems
    features = FeatureStore.open(path)[NAME]
    keys = [f"{name}/{i}" for name, n, _ in results if name.startswith("w") for i in range(n)]
    for layer in range(2):
        check(features, keys, layer)
    shared = set(features) - set(keys)
    check(features, sorted(shared), 1)
    assert all(key.startswith("shared/") for key in shared)
    n_read = sum(n for name, n, _ in results if name == "read")
    n_merged = sum(n for name, n, _ in results if name == "compacted")
    return {"start": start, "written": len(keys), "shared": len(shared), "read": n_read, "merged": n_merged,
            "segments": len(features.segments)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--start", choices=["fork", "spawn"], default="fork")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--compactions", type=int, default=1)
    arguments = parser.parse_args()
    try:
        counts = stress(
            arguments.directory,
            arguments.start,
            arguments.seconds,
            arguments.writers,
            arguments.readers,
            arguments.compactions,
        )
    except AssertionError as error:
        sys.exit(str(error))
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
