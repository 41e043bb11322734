"""Another version of the program, reading the same store in a process of its own: `medusa bench io --against DIR`."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.errors import ConfigError

from .rows import Batch
from .ways import OURS, Place, Reader, Way

# Answers each line on its standard input with one; the names are those that every version has.
WORKER = """
import hashlib, json, sys, threading, time
from collections import deque
import numpy as np
from featurestore import FeatureStore

path, name, n_rows, dim, dtype, n_threads, cold = json.loads(sys.argv[1])
features = FeatureStore.open(path)[name]
outs = [np.zeros((n_rows, dim), dtype) for _ in range(n_threads)]

def read(batches, out):
    coming = deque()
    for batch in batches:
        if cold:
            features.announce(batch)
            coming.append(batch)
            if len(coming) <= 16:
                continue
            batch = coming.popleft()
        yield features.gather(batch, out=out).values
    for batch in coming:
        yield features.gather(batch, out=out).values

def work(batches, out, barrier):
    barrier.wait()
    for _ in read(batches, out):
        pass

print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    batches = asked["batches"]
    if asked["what"] == "digests":
        results = [hashlib.blake2b(values.tobytes()).hexdigest() for values in read(batches, outs[0])]
    elif n_threads == 1:
        started = time.perf_counter()
        for _ in read(batches, outs[0]):
            pass
        results = time.perf_counter() - started
    else:
        barrier = threading.Barrier(n_threads + 1)
        threads = [threading.Thread(target=work, args=(batches[i::n_threads], outs[i], barrier))
                   for i in range(n_threads)]
        for thread in threads:
            thread.start()
        barrier.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        results = time.perf_counter() - started
    print(json.dumps(results), flush=True)
"""


class Elsewhere:
    """The reader of another version: it takes its own time, with as many threads as are asked for."""

    def __init__(self, place: Place, tree: Path, name: str) -> None:
        settings = [
            str(place.directory / "store"), name, place.rows.largest_batch(place.batch), place.rows.dim,
            place.rows.values.dtype.name, place.n_threads, place.cold,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, json.dumps(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "PYTHONPATH": str(tree)}, cwd=place.directory,
        )  # fmt: skip
        self.pid = self._process.pid
        self._line()

    def seconds(self, batches: Sequence[Batch]) -> float:
        """Seconds until all batches were read."""
        return float(self._ask("seconds", batches))

    def digests(self, batches: Sequence[Batch]) -> list[str]:
        """Return the digest of each batch's rows, as `digest_of`."""
        return list(self._ask("digests", batches))

    def read(self, batches: Sequence[Batch]) -> Iterator[np.ndarray]:
        raise NotImplementedError("its rows stay in its process")

    def close(self) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]

    def _ask(self, what: str, batches: Sequence[Batch]) -> Any:
        request = json.dumps({"what": what, "batches": [batch.keys for batch in batches]})
        self._process.stdin.write(request + "\n")  # type: ignore[union-attr]
        self._process.stdin.flush()  # type: ignore[union-attr]
        return json.loads(self._line())

    def _line(self) -> str:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise ConfigError(f"bench io --against: the other version ended with code {self._process.wait()}.")
        return str(line)


def digest_of(values: np.ndarray) -> str:
    """Return the digest of rows' bytes."""
    return hashlib.blake2b(values.tobytes()).hexdigest()


def ways_against(tree: Path, ours: Sequence[Way], name: str) -> list[Way]:
    """Return the same ways of reading by the version at `tree`; ConfigError where it is none."""
    if not (tree / "featurestore").is_dir():
        raise ConfigError(f"--against {tree}: expected a checkout of medusa-ser, with featurestore in it.")

    def opening(place: Place) -> list[Reader]:
        return [Elsewhere(place, tree.absolute(), name)]

    open_readers: Callable[[Place], Sequence[Reader]] = opening
    return [
        replace(way, id=f"{way.id}-against", name=f"{way.name}, by --against", group=OURS, open=open_readers)
        for way in ours
    ]
