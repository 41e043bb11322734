"""Reading a store several times larger than memory: each epoch beside the disk's sequential rate with O_DIRECT.

A memory cgroup holds the reading process and its page cache to the limit, so that what an epoch read is gone when the
next one asks for it. Making a cgroup takes root (Linux, version 1 or 2 of cgroups).

Run: python -m benchmarks.larger --limit-mb 512 --times 4 --epochs 3 (--sets 3: in three sets that are read together)
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from featurestore.errors import ConfigError
from featurestore.format.spec import FeatureSpec
from featurestore.format.zarr3 import chunk_file
from featurestore.loaders.batch_loader import BatchLoader, FeatureRef
from featurestore.store.feature_store import FeatureStore

from .io.disk import BLOCK_BYTES, Sequential, bytes_from_disk, drop, files_below

LAYER = "layer_00"
DIM, N_ROWS, BATCH = 1024, 275, 32  # 5.5 s at 50 rows per second
SEGMENT_BYTES = 256 << 20
HIERARCHIES = ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max"))
READER = """
import sys
from pathlib import Path
from benchmarks.larger import read
read(Path(sys.argv[1]), int(sys.argv[2]))
"""


def run(directory: Path, *, limit_bytes: int, times: float, epochs: int, sets: int = 1) -> dict[str, Any]:
    """Return GB/s of float16 rows and bytes read from the disk per byte of rows, by epoch, and the disk's GB/s.

    Raises ConfigError where no memory cgroup can be made.
    """
    with memory_cgroup(limit_bytes) as processes:
        n = write(directory, int(limit_bytes * times), sets)
        process = subprocess.run(
            [sys.executable, "-c", READER, str(directory), str(epochs)], capture_output=True, text=True,
            preexec_fn=lambda: processes.write_text(str(os.getpid())),
        )  # fmt: skip
    if process.returncode:
        raise ConfigError(_ending(process.returncode, process.stderr, limit_bytes))
    return {
        "limit_bytes": limit_bytes,
        "row_bytes": n * N_ROWS * DIM * 2 * sets,
        "utterances": n,
        "sets": sets,
        **json.loads(process.stdout),
    }


def _ending(code: int, stderr: str, limit_bytes: int) -> str:
    """Say why the reading process failed."""
    if code == -signal.SIGKILL:
        return (
            f"The reading process was killed: {limit_bytes >> 20} MB are less than Python with torch and a batch "
            "take; give a larger --limit-mb (512 is the default)."
        )
    return f"The reading process ended with {code}: {stderr[-400:]}"


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[Path]:
    """Make a memory cgroup with that limit; yield the file that takes the numbers of its processes."""
    root, limit = next(((r, limit) for r, limit in HIERARCHIES if (r / "cgroup.procs").exists()), HIERARCHIES[1])
    group = root / f"medusa-bench-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        raise ConfigError(f"{group} can't be made ({error.strerror}); a memory cgroup takes root.") from None
    try:
        (group / limit).write_text(str(limit_bytes))
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def write(directory: Path, n_bytes: int, sets: int) -> int:
    """Write a store of about `n_bytes` of random rows, drop its pages, and return the number of utterances of a set."""
    rows = np.random.default_rng(0).integers(0, 0x3C00, (4 * N_ROWS, DIM), np.uint16).view(np.float16)
    n = max(BATCH, n_bytes // (N_ROWS * DIM * 2 * sets))
    spec = FeatureSpec("audio", "random", "none", (LAYER,), DIM, 50.0)
    store = FeatureStore.create(directory / "store")
    for k in range(sets):
        with store.writer(f"random-{k}", spec, segment_bytes=SEGMENT_BYTES) as writer:
            for i in range(n):
                writer.append(f"{i:08d}", [rows[i % (3 * N_ROWS) :][:N_ROWS]])
    drop(files_below(directory))
    return n


def read(directory: Path, epochs: int) -> None:
    """Read the store once with O_DIRECT, then epochs of random batches by the loader; print the times as JSON."""
    files = [chunk_file(segment / LAYER, 2) for segment in sorted((directory / "store").glob("*/seg-*"))]
    blocks = [(f, start, BLOCK_BYTES) for f in files for start in range(0, f.stat().st_size, BLOCK_BYTES)]
    sequential = Sequential(blocks, direct=True)
    started = time.perf_counter()
    n_bytes = sum(len(block) for block in sequential.read([]))
    disk = n_bytes / (time.perf_counter() - started) / 1e9
    sequential.close()
    store = FeatureStore.open(directory / "store")
    names = store.names()
    keys = list(store[names[0]])
    loader = BatchLoader(store, [FeatureRef(name) for name in names], [], dtype="float16", keys=keys)
    rates, from_disk = [], []
    for epoch in range(epochs):
        order = np.random.default_rng((0, epoch)).permutation(len(keys)).tolist()
        before = bytes_from_disk() or 0
        started = time.perf_counter()
        n_bytes = sum(
            packed.values.nbytes
            for batch in loader.over([order[i : i + BATCH] for i in range(0, len(order), BATCH)])
            for packed in batch
        )
        rates.append(n_bytes / (time.perf_counter() - started) / 1e9)
        from_disk.append(((bytes_from_disk() or 0) - before) / n_bytes)
    print(json.dumps({"disk_gb_per_s": disk, "gb_per_s": rates, "from_disk": from_disk}))


def table(result: dict[str, Any]) -> Table:
    """Return the result of `run` for the terminal."""
    report = Table(
        title=f"{result['row_bytes'] / 1e9:.2f} GB of rows, sets: {result['sets']}; "
        f"{result['limit_bytes'] / 1e9:.2f} GB of memory; the disk gives {result['disk_gb_per_s']:.2f} GB/s (O_DIRECT)",
        title_justify="left",
    )
    for name in ("epoch", "GB/s", "of the disk", "read from the disk"):
        report.add_column(name, justify="right")
    for i, (rate, share) in enumerate(zip(result["gb_per_s"], result["from_disk"], strict=True)):
        report.add_row(f"{i + 1}", f"{rate:.2f}", f"{rate / result['disk_gb_per_s']:.2f}", f"{share:.0%}")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Read a store that is larger than memory.")
    parser.add_argument("--limit-mb", type=int, default=512, help="memory of the reading process, page cache included")
    parser.add_argument("--times", type=float, default=4, help="how many times larger the rows are")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--sets", type=int, default=1, help="how many feature sets have the rows, read together")
    parser.add_argument("--directory", type=Path, help="where to write; default: the system's temporary one")
    parser.add_argument("--json", type=Path, help="write the result there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="medusa-bench-larger-") as directory:
        result = run(
            Path(directory), limit_bytes=arguments.limit_mb << 20, times=arguments.times, epochs=arguments.epochs,
            sets=arguments.sets,
        )  # fmt: skip
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    Console().print(table(result))


if __name__ == "__main__":
    main()
