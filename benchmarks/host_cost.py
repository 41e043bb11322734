"""CPU time of the host for each batch of 118 clips that a GPU encodes, with the device's own work left out.

python -m benchmarks.host_cost [--against DIR]

The product's `featurize` runs over a corpus of noises of 5.6 s. The forward pass is replaced by one that returns
prepared rows of 1,024 dims: float32, or in the type of the store where the build casts on the device. So the figures
are those of decoding, normalising, batching, writing, committing and reporting. --against: another build's source tree,
measured in the same run, before and after. A CPU has no pinned memory, so its copies are not measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

N_CLIPS, CLIP_S, DIM = 118, 5.6, 1024
ROOT = Path(__file__).resolve().parents[1]
# Runs in either build: only what both have is named.
CHILD = """
import json, sys, threading, time
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from featurestore.corpus.manifest import Manifest
from featurestore.encoders import load_encoder
from featurestore.featurize import run, writer_thread
from featurestore.store.feature_store import FeatureStore

manifest, store, dim, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
encoder = load_encoder("tiny-hubert", device="cpu")
encoder.spec = replace(encoder.spec, dim=dim)
encoder.normalize = True
encoder.overlaps, encoder.default_batch_frames = True, 118 * 280
rows = torch.from_numpy(np.random.default_rng(0).standard_normal((118 * 300, dim), np.float32))
stored = rows.half()

def forward(batch, dtype=None):
    if dtype is None:  # rows leave the device as float32
        n = max(piece.n_frames for piece in batch)
        return rows[: len(batch) * n].view(len(batch), 1, n, dim)
    n = sum(keep.stop - keep.start for keep in batch.keeps)
    return [stored[:n]]

encoder._forward = forward
seconds = {}
work = writer_thread.WriterThread._work
def timed(self):
    start = time.thread_time()
    work(self)
    seconds["writer"] = time.thread_time() - start
writer_thread.WriterThread._work = timed
table = Manifest.read(manifest)
progress = []
start, main, whole = time.perf_counter(), time.thread_time(), time.process_time()
report = run.featurize(table, encoder, FeatureStore.create(store), "a", workers=workers,
                       progress=lambda *counts: progress.append(counts))
seconds |= {"main": time.thread_time() - main, "all": time.process_time() - whole, "wall": time.perf_counter() - start}
assert report.done == len(table), report.failed[:1]
print(json.dumps(seconds))
"""


def write_corpus(directory: Path, n: int) -> Path:
    """Write `n` noises of 5.6 s, and their manifest."""
    rng = np.random.default_rng(0)
    lines = ["utterance_id,path"]
    for i in range(n):
        soundfile.write(directory / f"{i}.flac", 0.1 * rng.standard_normal(round(16_000 * CLIP_S)), 16_000)
        lines.append(f"u{i},{i}.flac")
    (directory / "m.csv").write_text("\n".join(lines) + "\n")
    return directory / "m.csv"


def measure(source: Path, manifest: Path, store: Path, n_batches: int, workers: int) -> dict[str, float]:
    """Return milliseconds of CPU per batch by thread: writer, main and all together; and of wall clock."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", CHILD, str(manifest), str(store), str(DIM), str(workers)],
        env=environment, cwd=source, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if process.returncode:
        raise SystemExit(f"{source}: {process.stderr.strip().splitlines()[-1]}")
    return {name: 1e3 * value / n_batches for name, value in json.loads(process.stdout.splitlines()[-1]).items()}


def main() -> None:
    """Print a table, a line for each build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="source tree of another build")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2, help="decoding threads")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    builds = {"this build": ROOT} | ({"the other": arguments.against.resolve()} if arguments.against else {})
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in builds}
    with tempfile.TemporaryDirectory() as directory:
        manifest = write_corpus(Path(directory), N_CLIPS * arguments.batches)
        for repeat in range(arguments.repeats):
            for i, (name, source) in enumerate(builds.items()):
                store = Path(directory) / f"store-{repeat}-{i}"
                measured[name].append(measure(source, manifest, store, arguments.batches, arguments.workers))
    print(f"ms per batch of {N_CLIPS} clips of {CLIP_S} s, {DIM} dims; least of {arguments.repeats} runs")
    print(f"{'':12} {'writer CPU':>10} {'main CPU':>10} {'all CPU':>10} {'wall':>10}")
    for name, runs in measured.items():
        least = {key: min(run[key] for run in runs) for key in runs[0]}
        print(f"{name:12} " + " ".join(f"{least[key]:10.1f}" for key in ("writer", "main", "all", "wall")))


if __name__ == "__main__":
    main()
